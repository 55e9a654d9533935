"""The exporter against real runs: it counts what happened, once, whatever happens to it."""

from __future__ import annotations

import builtins
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterRunStatus, EventLogEntry
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.types import DaemonHeartbeat
from prometheus_client.parser import text_string_to_metric_families

from geomagic_dagster.guardrails import whole_files
from geomagic_dagster.launching.locations import write_workspace
from geomagic_dagster.monitoring import event_log, events, surroundings
from geomagic_dagster.monitoring.exporter import Exporter, exporter_of
from geomagic_dagster.monitoring.run_files import RunFile, rows_of
from geomagic_dagster.monitoring.state import CannotStart
from geomagic_dagster.releases.routing_changes import make_live
from tests.conftest import REPOSITORY
from tests.monitoring.conftest import POSTGRES, dagster_in, new_database
from tests.toy_stages.daemon import tick
from tests.toy_stages.scans import write_toy_scan


def samples(exporter: Exporter) -> dict[tuple[str, ...], float]:
    """Every sample of the page but those of the exporter itself, by name and the values of its labels."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(exporter.page())
        for sample in family.samples
        if not sample.name.startswith(("process_", "geomagic_exporter_"))
    }


def counters(exporter: Exporter) -> dict[tuple[str, ...], float]:
    """Those samples that came from events."""
    return {
        key: value for key, value in samples(exporter).items() if re.match("geomagic_(run|step|stage|scan)", key[0])
    }


def add_run(instance, tag: str = "1.0", ends_s: float | None = None) -> str:
    """A run with a start and an end, without executing anything."""
    run = create_run_for_test(
        instance, job_name="process_scan", status=DagsterRunStatus.SUCCESS, tags={"geomagic/release": tag}
    )
    now_s = time.time() if ends_s is None else ends_s
    for kind, at_s in ((DagsterEventType.RUN_START, now_s - 2), (DagsterEventType.RUN_SUCCESS, now_s)):
        event = DagsterEvent(event_type_value=kind.value, job_name="process_scan")
        instance.event_log_storage.store_event(
            EventLogEntry(
                error_info=None, level=10, user_message="", run_id=run.run_id, timestamp=at_s, dagster_event=event
            )
        )
    return run.run_id


def test_runs_of_every_fate_are_counted_whoever_reads_and_their_release_is_known(
    toys, any_instance, follow, monkeypatch, tmp_path
):
    instance = any_instance
    exporter = follow(instance, toys)
    toys.process(write_toy_scan(toys.corpus / "Annas Zimmer"), instance)
    toys.process(write_toy_scan(toys.inbox / "Bernds Bad"), instance, mood={"rejects": True})
    exporter.look()
    Path(os.environ["TOY_CALLS"]).write_text("")
    toys.process(toys.corpus / "Annas Zimmer", instance, mood={"passing_failures": 2})
    Path(os.environ["TOY_CALLS"]).write_text("")
    toys.materialize("Annas Zimmer", instance, mood={"passing_failures": 9})
    exporter.look()
    found = samples(exporter)
    runs = {key[1:]: value for key, value in found.items() if key[0] == "geomagic_runs_total"}
    assert runs == {  # failure, its kind, job, outcome, release
        ("", "", "process_scan", "success", "latest"): 2,
        ("rejected", "permanent", "process_scan", "failure", "latest"): 1,
        ("unreachable", "passing", "assets", "failure", "latest"): 1,
    }
    retries = {key[3:]: value for key, value in found.items() if key[0] == "geomagic_step_retries_total"}
    assert retries == {("process_scan", "latest", "mood"): 2, ("assets", "latest", "mood"): 2}
    assert found[("geomagic_steps_total", "", "", "process_scan", "success", "latest", "publish")] == 2
    assert found[("geomagic_stage_reused_total", "latest", "shades")] == 2
    assert found[("geomagic_stage_number", "brightest", "latest", "shades")] == pytest.approx(0.5, abs=0.1)
    assert found[("geomagic_quarantined_uploads",)] == 1
    assert ("geomagic_exporter_unreadable_events_total",) not in found
    assert "Annas" not in exporter.page()
    assert "Bernd" not in exporter.page()
    monkeypatch.setattr(event_log, "BACKLOG", 0)
    with_readers = Exporter(instance, toys.places, tmp_path / "another.json")
    with_readers.look()
    assert counters(with_readers) == counters(exporter)


def test_looks_in_between_and_restarts_change_nothing(toys, any_instance, follow, tmp_path):
    instance = any_instance
    for number in range(3):
        toys.process(write_toy_scan(toys.corpus / f"room{number}"), instance)
        for _ in range(2):
            follow(instance, toys).look()
    exporter = follow(instance, toys)
    assert exporter.page().count("geomagic_runs_total{") == 0, "before the first look nothing half is shown"
    exporter.look()
    one_look = Exporter(instance, toys.places, tmp_path / "another.json")
    one_look.look()
    assert counters(exporter) == counters(one_look)
    assert counters(exporter)[("geomagic_runs_total", "", "", "process_scan", "success", "latest")] == 3


def test_whatever_the_exporter_does_when_it_is_killed_nothing_is_lost_or_double(toys, instance, follow, monkeypatch):
    """Dies at every call that touches the disk, in turn, with the half-written file left as it is."""

    class Killed(BaseException):
        pass

    left = [0]

    def dies(call):
        def counted(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return call(*arguments, **options)

        return counted

    class HalfFile:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, content: bytes):
            dies(lambda: None)()
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            dies(lambda: None)()
            self.file.write(content[len(content) // 2 :])

        def __getattr__(self, name):
            return dies(getattr(self.file, name))

    deaths = 0
    for point in range(1, 40):
        add_run(instance)
        exporter = follow(instance, toys)
        with monkeypatch.context() as patch:
            patch.setattr(whole_files, "open", dies(lambda *a: HalfFile(builtins.open(*a))), raising=False)  # noqa: SIM115
            for name in ("fsync", "replace", "open"):
                patch.setattr(os, name, dies(getattr(os, name)))
            left[0] = point
            try:
                exporter.look()
            except Killed:
                deaths += 1
        left[0] = 0
        survivor = follow(instance, toys)
        survivor.look()
        assert samples(survivor)[("geomagic_runs_total", "", "", "process_scan", "success", "1.0")] == point
        if deaths < point:
            break
    assert deaths >= 8, "every step of writing was one at which it died"


def test_an_error_in_the_middle_of_a_look_takes_nothing_up_and_is_shown(toys, instance, follow, monkeypatch):
    add_run(instance)
    exporter = follow(instance, toys)
    exporter.look()
    add_run(instance)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                exporter.look()
        assert 'geomagic_exporter_last_error_info{error="OSError"} 1.0' in exporter.page()
        assert "geomagic_exporter_errors_total 3.0" in exporter.page()
        assert samples(exporter)[("geomagic_runs_total", "", "", "process_scan", "success", "1.0")] == 1
    exporter.look()
    assert "last_error_info{" not in exporter.page()
    assert samples(exporter)[("geomagic_runs_total", "", "", "process_scan", "success", "1.0")] == 2


def test_a_counter_that_is_new_is_shown_as_zero_first_but_not_the_past(toys, instance, follow, monkeypatch):
    """Prometheus's increase() sees no rise in a series that was not there before."""

    def shown(exporter, release):
        return samples(exporter).get(("geomagic_runs_total", "", "", "process_scan", "success", release))

    monkeypatch.setattr("geomagic_dagster.monitoring.exporter.BIRTH_S", 0.5)
    add_run(instance, "1.0")
    exporter = follow(instance, toys)
    exporter.look()
    assert shown(exporter, "1.0") == 1, "all of the past is no rise"
    add_run(instance, "1.1")
    add_run(instance, "1.0")
    exporter.look()
    assert (shown(exporter, "1.0"), shown(exporter, "1.1")) == (2, 0)
    time.sleep(0.6)
    exporter.look()
    assert (shown(exporter, "1.0"), shown(exporter, "1.1")) == (2, 1)
    restarted = follow(instance, toys)
    restarted.look()
    assert (shown(restarted, "1.0"), shown(restarted, "1.1")) == (2, 1), "what was shown never comes back smaller"


def test_only_runs_that_live_are_kept_and_deleted_ones_are_forgotten(toys, any_instance, follow):
    instance = any_instance
    exporter = follow(instance, toys)
    for _ in range(3):
        add_run(instance, ends_s=time.time() - 100)
    waiting = create_run_for_test(instance, job_name="process_scan", status=DagsterRunStatus.NOT_STARTED)
    exporter.look()
    assert list(exporter.state.live) == [waiting.run_id]
    assert samples(exporter)[("geomagic_queue_runs",)] == 1
    assert 0 <= samples(exporter)[("geomagic_queue_oldest_age_seconds",)] < 60
    instance.delete_run(waiting.run_id)
    exporter.forgot_deleted_s = 0
    exporter.look()
    assert exporter.state.live == {}


def test_deleting_runs_neither_loses_new_ones_nor_counts_old_ones_again(toys, any_instance, follow, monkeypatch):
    """SQLite gives the numbers of deleted runs to new ones."""
    monkeypatch.setattr(event_log, "OVERLAP", 5)
    instance = any_instance
    exporter = follow(instance, toys)
    run_ids = [add_run(instance, ends_s=time.time() - 100) for _ in range(9)]
    exporter.look()
    total = 9
    for gone in (run_ids[-1:], run_ids[3:-1]):
        for run_id in gone:
            instance.delete_run(run_id)
        for _ in range(2):
            add_run(instance)
        total += 2
        for each in (exporter, follow(instance, toys)):
            each.look()
            assert samples(each)[("geomagic_runs_total", "", "", "process_scan", "success", "1.0")] == total
    instance.wipe()
    exporter.look()
    add_run(instance)
    exporter.look()
    assert samples(exporter)[("geomagic_runs_total", "", "", "process_scan", "success", "1.0")] == total + 1


def test_a_run_that_postgres_commits_late_is_counted(toys, postgres_port, follow, tmp_path):
    """Its number is lower than that of one that was counted already."""
    import psycopg2

    database = new_database(postgres_port)
    with dagster_in(tmp_path / "dagster", POSTGRES % (postgres_port, database)) as instance:
        model = add_run(instance, "1.0")
        exporter = follow(instance, toys)
        late = psycopg2.connect(host="127.0.0.1", port=postgres_port, user="postgres", dbname=database)
        copy = str(uuid.uuid4())
        columns = {"runs": "status, pipeline_name, mode, run_body, create_timestamp, update_timestamp"}
        columns["event_logs"] = "event, dagster_event_type, timestamp"
        with late.cursor() as cursor:
            for table, names in columns.items():
                values = names.replace("run_body", f"replace(run_body, '{model}', '{copy}')")
                cursor.execute(
                    f"INSERT INTO {table} (run_id, {names}) SELECT '{copy}', {values} FROM {table} WHERE run_id = %s",
                    (model,),
                )
        add_run(instance, "1.0")
        exporter.look()
        assert samples(exporter)[("geomagic_runs_total", "", "", "process_scan", "success", "1.0")] == 2
        late.commit()
        late.close()
        for each in (exporter, follow(instance, toys)):
            each.look()
            assert samples(each)[("geomagic_runs_total", "", "", "process_scan", "success", "1.0")] == 3


def test_events_that_come_after_the_end_of_a_run_are_still_counted(toys, instance, follow):
    exporter = follow(instance, toys)
    run_id = add_run(instance)
    exporter.look()
    event = DagsterEvent(event_type_value="STEP_UP_FOR_RETRY", job_name="process_scan", step_key="depth")
    instance.event_log_storage.store_event(
        EventLogEntry(
            error_info=None, level=10, user_message="", run_id=run_id, timestamp=time.time(), dagster_event=event
        )
    )
    exporter.look()
    assert samples(exporter)[("geomagic_step_retries_total", "unknown", "unknown", "process_scan", "1.0", "depth")] == 1


def test_the_exporter_leaves_no_files_beside_the_log(toys, instance, follow):
    add_run(instance)
    follow(instance, toys).look()
    folder = Path(instance.root_directory) / "history" / "runs"
    assert {path.suffix for path in folder.iterdir()} == {".db"}


def test_inbox_daemons_and_ages(toys, instance, follow):
    exporter = follow(instance, toys)
    (write_toy_scan(toys.inbox / "complete") / "upload.complete").touch()
    write_toy_scan(toys.inbox / "arriving")
    (toys.inbox / "stray.txt").touch()
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 500, "SENSOR", "id", []))
    exporter.look()
    found = samples(exporter)
    assert found[("geomagic_inbox_uploads", "complete")] == 1
    assert found[("geomagic_inbox_uploads", "arriving")] == 1
    assert 0 <= found[("geomagic_inbox_oldest_age_seconds", "complete")] < 60
    assert 500 <= found[("geomagic_daemon_heartbeat_age_seconds", "sensor")] < 560
    assert found[("geomagic_disk_free_bytes", "store")] > 0
    time.sleep(0.05)
    later = samples(exporter)[("geomagic_daemon_heartbeat_age_seconds", "sensor")]
    assert later > found[("geomagic_daemon_heartbeat_age_seconds", "sensor")], "ages grow though nobody looks"


def test_an_upload_that_nobody_may_read_is_one_that_waits(toys, instance, follow, monkeypatch):
    write_toy_scan(toys.inbox / "locked")
    exporter = follow(instance, toys)
    monkeypatch.setattr(surroundings, "look_at", Mock(side_effect=PermissionError(13, "Permission denied")))
    exporter.look()
    assert samples(exporter)[("geomagic_inbox_uploads", "complete")] == 1


def test_a_run_whose_events_cannot_be_read_hides_no_other_one(toys, instance, follow, caplog):
    add_run(instance)
    broken = add_run(instance)
    file = Path(instance.root_directory) / "history" / "runs" / f"{broken}.db"
    file.write_bytes(b"of a disk that failed" * 500)
    exporter = follow(instance, toys)
    exporter.look()
    assert [value for key, value in samples(exporter).items() if key[0] == "geomagic_runs_total"] == [1]
    assert f"{file}: expected the events of a run; got file is not a database. None of them is counted." in caplog.text


def test_a_broken_routing_table_is_shown_until_it_is_mended(toys, instance, follow):
    exporter, routing = follow(instance, toys), toys.places.routing()

    def shown():
        exporter.look()
        found = samples(exporter)
        return found[("geomagic_routing_table_good",)], found[("geomagic_routing_revision",)]

    assert shown() == (1, 0), "nobody ever wrote one"
    routing.change(make_live("1.0"), by="ada", why="a test")
    assert shown() == (1, 1)
    (Path(routing.url) / "000000002.json").write_text("{")
    assert shown() == (0, 1)
    routing.change(make_live("1.1"), by="ada", why="mended")
    assert shown() == (1, 3)


def test_a_sensor_that_ticked_in_time_has_no_lag_and_later_it_has(toys, instance, follow, monkeypatch, tmp_path):
    monkeypatch.setenv("TOY_HOME", str(tmp_path / "home"))
    toys.inbox.mkdir(parents=True)
    tick(instance, 0)
    exporter = follow(instance, toys)
    exporter.look()
    lag_s = samples(exporter)[("geomagic_sensor_tick_lag_seconds", "latest/upload_sensor")]
    assert 0 <= lag_s < 30
    later = SimpleNamespace(time=lambda: time.time() + 1000)
    monkeypatch.setattr("geomagic_dagster.monitoring.exporter.time", later)
    assert 900 < samples(exporter)[("geomagic_sensor_tick_lag_seconds", "latest/upload_sensor")] < 1030


def test_the_sensors_of_a_release_that_was_archived_are_not_late(toys, instance, follow, monkeypatch, tmp_path):
    monkeypatch.setenv("TOY_HOME", str(tmp_path / "home"))
    toys.inbox.mkdir(parents=True)
    tick(instance, 0)
    exporter = follow(instance, toys)
    entry = {"python_module": {"module_name": "tests.toy_stages.location", "location_name": "latest"}}
    for locations, is_late in (([entry], True), ([], False)):
        write_workspace(locations, Path(instance.root_directory), tmp_path)
        exporter.look()
        assert (("geomagic_sensor_tick_lag_seconds", "latest/upload_sensor") in samples(exporter)) is is_late


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 99}', b'{"schema": 1}', b"\xff\xfe"])
def test_a_state_that_is_none_is_refused_in_one_sentence(toys, instance, follow, content):
    exporter = follow(instance, toys)
    exporter.path.write_bytes(content)
    with pytest.raises(CannotStart, match=r"state\.json: expected what .* wrote \(schema 1\); got .* Move it away"):
        follow(instance, toys)
    assert exporter.path.read_bytes() == content, "what somebody may want to look at is left as it is"


def test_two_exporters_on_one_state_are_refused(toys, instance, tmp_path):
    path = tmp_path / "metrics" / "state.json"
    with (
        exporter_of(instance, toys.places, path),
        pytest.raises(CannotStart, match="expected no other exporter on it"),
        exporter_of(instance, toys.places, path),
    ):
        pass
    with exporter_of(instance, toys.places, path):
        pass


@pytest.mark.slow
def test_the_command_killed_again_and_again_while_runs_come_counts_each_once(tmp_path, toys, instance):
    environment = os.environ | {
        "DAGSTER_HOME": instance.root_directory,
        "GEOMAGIC_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(REPOSITORY),
    }
    script = (
        "import os, threading; from pathlib import Path; from dagster import DagsterInstance\n"
        "from geomagic_dagster.definitions import places_from\n"
        "from geomagic_dagster.monitoring import event_log, run_files\n"
        "from geomagic_dagster.monitoring.exporter import exporter_of, serve\n"
        "event_log.BACKLOG, run_files.FILES_AT_ONCE = 0, 2\n"  # readers at every look
        "with DagsterInstance.get() as instance, exporter_of(instance, places_from(os.environ),"
        " Path(os.environ['GEOMAGIC_HOME']) / 'metrics' / 'state.json') as exporter:\n"
        "    serve(exporter, '127.0.0.1', 0, threading.Event(), every_s=0.0)\n"
    )
    chance, total = random.Random(4), 0
    state = tmp_path / "home" / "metrics" / "state.json"
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL)
        before = state.stat().st_mtime_ns if state.exists() else 0
        began = time.monotonic()
        while not (state.exists() and state.stat().st_mtime_ns > before) and time.monotonic() - began < 60:
            add_run(instance)
            total += 1
        until = time.monotonic() + chance.uniform(0, 0.3)
        while time.monotonic() < until:
            add_run(instance)
            total += 1
        process.kill()
        process.wait()
    done = subprocess.run(
        [sys.executable, "-m", "geomagic_dagster.cli", "metrics", "--once"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    [count] = re.findall(r"^geomagic_runs_total{.*} (\S+)$", done.stdout, re.MULTILINE)
    assert float(count) == total
    assert json.loads(state.read_bytes())["schema"] == 1


def test_an_event_is_read_whatever_is_in_its_texts_and_wherever_it_lies(tmp_path):
    with dagster_in(tmp_path / "dagster") as instance:
        run_id = add_run(instance)
        [start, end] = instance.all_logs(run_id)
        path = str(tmp_path / "what? 100%20 #1 é")  # Dagster itself cannot live there, but may one day
        shutil.copyfile(instance.event_log_storage.path_for_shard(run_id), path)
    for is_past in (False, True):
        rows = rows_of(RunFile(path, 0, is_past))
        assert [row[1] for row in rows] == ["PIPELINE_START", "PIPELINE_SUCCESS"]
        times_s = [events.event_of(row).time_s for row in rows]
        assert times_s == pytest.approx([start.timestamp, end.timestamp], abs=1e-6)
    entries = [
        {"label": "seconds", "entry_data": {"value": 1.5}},
        {"label": "file", "entry_data": {"text": "room \ud800.jpg", "value": float("nan")}},  # half a character
    ]
    event = {"event_type_value": "STEP_OUTPUT", "message": "", "event_specific_data": {"metadata_entries": entries}}
    said = events.data_of(json.dumps({"dagster_event": event}))
    assert said["metadata"]["seconds"] == 1.5
    assert list(said["metadata"]) == ["seconds", "file"]
