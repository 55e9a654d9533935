from __future__ import annotations

import errno
import json
import logging
import re
from multiprocessing import forkserver
from pathlib import Path

import pytest
from dagster import DagsterInstance, ReexecutionOptions, execute_job, multiprocess_executor, reconstructable
from dagster._core.test_utils import instance_for_test

from geomagic_dagster.cv.stage import StageError, find_stages
from geomagic_dagster.guardrails import child
from geomagic_dagster.jobs.process_scan import process_scan_job
from geomagic_dagster.resources.reuse import trusted
from tests.toy_stages.installation import Toys
from tests.toy_stages.scans import write_toy_scan
from tests.toy_stages.stages.nouns import Mood


@pytest.fixture(autouse=True)
def retries_at_once(monkeypatch):
    monkeypatch.setattr("geomagic_dagster.guardrails.retries.FIRST_DELAY_S", 0.0)


@pytest.fixture
def toys(tmp_path, retries_at_once) -> Toys:
    return Toys(tmp_path / "home")


@pytest.fixture(scope="module")
def instance():
    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def calls(tmp_path, monkeypatch) -> Path:
    """Counts the calls of the stage `mood`."""
    path = tmp_path / "calls"
    path.write_text("")
    monkeypatch.setenv("TOY_CALLS", str(path))
    return path


def metadata(result, step: str) -> dict:
    """What Dagster shows of the output of a step."""
    events = [e for e in result.events_for_node(step) if e.event_type_value == "STEP_OUTPUT"]
    return {name: value.value for name, value in events[-1].event_specific_data.metadata.items()}


def failure_words(result, step: str) -> str:
    return next(
        e for e in result.events_for_node(step) if e.event_type_value == "STEP_FAILURE"
    ).step_failure_data.user_failure_data.description


def test_an_upload_becomes_a_package_and_leaves_the_inbox(toys, instance):
    upload = write_toy_scan(toys.inbox / "Küche 2. Stock")
    result = toys.process(upload, instance)
    assert result.success
    package = Path(toys.places.packages) / "Küche 2. Stock"
    assert (package / "letter.txt").read_text().startswith("Küche 2. Stock: ")
    assert sorted(path.name for path in package.iterdir()) == ["empty.bin", "letter.txt"]
    record = json.loads((package.parent / "Küche 2. Stock.run.json").read_text())
    assert (record["run_id"], record["release"]) == (result.run_id, "latest")
    assert not upload.exists()
    assert (Path(toys.places.done) / "Küche 2. Stock" / "scan.json").is_file()
    assert metadata(result, "publish") == {
        "room": "http://127.0.0.1:3001/packages/K%C3%BCche%202.%20Stock/",
        "package": str(package),
        "upload": str(Path(toys.places.done) / upload.name),
    }


def test_outputs_show_numbers_settings_cost_and_a_small_picture(toys, instance):
    result = toys.process(write_toy_scan(toys.inbox / "toy"), instance)
    shown = metadata(result, "shades")
    assert 0.4 < shown["brightest"] < 0.6
    assert shown["settings"] == {"gain": 1.0, "keep": 3}
    assert shown["reused"] is False
    assert shown["seconds"] > 0
    assert 10 < shown["peak_memory_mb"] < 10_000
    assert shown["thumbnail"].startswith("![shades](data:image/jpeg;base64,")
    assert len(shown["thumbnail"]) < 40_000
    assert metadata(result, "scan")["source_format"] == "canonical"
    assert metadata(result, "scan")["frames"] == 5


def test_twice_gives_the_same_bytes_and_the_second_time_reuses(toys, instance, calls):
    upload = write_toy_scan(toys.corpus / "toy")  # not in the inbox: it stays where it is
    first = toys.process(upload, instance)
    before = toys.artefacts()
    second = toys.process(upload, instance)
    assert first.success
    assert second.success
    assert toys.artefacts() == before
    assert [metadata(second, step)["reused"] for step in ("scan", "shades", "mood", "package")] == [True] * 4
    assert "seconds" not in metadata(second, "mood")
    assert calls.read_text() == "x"
    assert upload.exists()


def test_recomputation_can_be_forced_and_compares_the_bytes(toys, instance, calls):
    upload = write_toy_scan(toys.corpus / "toy")
    toys.process(upload, instance)
    before = toys.artefacts()
    again = toys.process(upload, instance, tags={"geomagic/recompute": "true"})
    assert again.success
    assert metadata(again, "mood")["reused"] is False
    assert calls.read_text() == "xx"
    assert toys.artefacts() == before


def test_a_stage_that_gives_other_bytes_the_second_time_is_found_out(toys, instance, monkeypatch):
    monkeypatch.setattr(child, "_has_other_threads", lambda: False)  # so that the steps' processes have it patched too
    upload = write_toy_scan(toys.corpus / "toy")
    toys.process(upload, instance)
    monkeypatch.setattr(
        "tests.toy_stages.stages.mood.Mood", lambda shades, score: Mood(shades=shades, score=score + 1e-9)
    )
    again = toys.process(upload, instance, tags={"geomagic/recompute": "true"})
    assert not again.success
    assert "artefact mood/" in failure_words(again, "mood")
    assert "gave different bytes" in failure_words(again, "mood")


def test_other_settings_make_another_artefact_downstream_too(toys, instance, calls):
    upload = write_toy_scan(toys.corpus / "toy")
    one, two = (toys.process(upload, instance, mood={"passing_failures": n}) for n in (0, 1))
    for step, same in (("shades", True), ("mood", False), ("package", False)):
        assert (metadata(one, step)["identity"] == metadata(two, step)["identity"]) is same


def test_a_passing_failure_is_retried(toys, instance, calls):
    result = toys.process(write_toy_scan(toys.inbox / "toy"), instance, mood={"passing_failures": 2})
    assert result.success
    assert calls.read_text() == "xxx"


def test_after_its_retries_a_passing_failure_ends_the_run_and_the_upload_stays(toys, instance, calls):
    upload = write_toy_scan(toys.inbox / "toy")
    result = toys.process(upload, instance, mood={"passing_failures": 9})
    assert not result.success
    assert calls.read_text() == "xxx"
    assert upload.exists()
    assert not Path(toys.places.quarantine).exists()


def test_a_scan_rejected_by_a_stage_is_not_retried_and_goes_to_quarantine_with_the_reason(toys, instance, calls):
    upload = write_toy_scan(toys.inbox / "toy")
    result = toys.process(upload, instance, mood={"rejects": True})
    sentence = "mood: expected a merry room; got a sad one. Scan another room."
    assert not result.success
    assert calls.read_text() == "x"
    assert failure_words(result, "mood") == sentence
    assert not upload.exists()
    aside = Path(toys.places.quarantine) / "toy"
    assert (aside / "reason.txt").read_text() == sentence + "\n"
    assert (aside / "toy" / "scan.json").is_file()
    assert not Path(toys.places.packages).exists()


def test_a_full_disk_is_tried_again_and_then_said_in_one_sentence(toys, instance, calls, monkeypatch):
    upload = write_toy_scan(toys.inbox / "toy")

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("geomagic_dagster.resources.artefact_files.os.fsync", fsync)
    monkeypatch.setattr(child, "_has_other_threads", lambda: False)  # so that the steps' processes have it patched too
    result = toys.process(upload, instance)
    assert not result.success
    assert sum(event.event_type_value == "STEP_UP_FOR_RETRY" for event in result.all_events) == 2
    assert re.match(
        r"artefact scan/\w+ in .*/store: expected room to write it; got a full disk\. Free some space there, or point "
        r"GEOMAGIC_HOME at a larger disk\.$",
        failure_words(result, "scan"),
    )
    assert toys.artefacts() == {}
    assert upload.exists()


def test_what_is_no_scan_goes_to_quarantine(toys, instance):
    upload = toys.inbox / "holiday"
    upload.mkdir(parents=True)
    (upload / "beach.txt").write_text("sun")
    assert not toys.process(upload, instance).success
    reason = (Path(toys.places.quarantine) / "holiday" / "reason.txt").read_text()
    assert "holiday: expected a room scan; got a folder of no known format" in reason
    assert not upload.exists()


def test_a_rejected_scan_from_outside_of_the_inbox_is_not_touched(toys, instance):
    upload = write_toy_scan(toys.corpus / "toy")
    assert not toys.process(upload, instance, mood={"rejects": True}).success
    assert upload.exists()
    assert not Path(toys.places.quarantine).exists()


def test_an_upload_whose_image_is_cut_short_is_rejected_with_its_name(toys, instance):
    upload = write_toy_scan(toys.inbox / "toy")
    image = upload / "color" / "000001.png"
    image.write_bytes(image.read_bytes()[:100])
    assert not toys.process(upload, instance).success
    assert "000001.png" in (Path(toys.places.quarantine) / "toy" / "reason.txt").read_text()


def test_two_uploads_of_one_name_never_take_each_others_package(toys, instance):
    for seed in (1, 2):
        assert toys.process(write_toy_scan(toys.inbox / "toy", seed=seed), instance).success
    folders = sorted(path.name for path in Path(toys.places.packages).iterdir() if path.is_dir())
    assert folders[0] == "toy"
    assert len(folders) == 2
    assert len(folders[1]) == len("toy-12345678")
    assert sorted(path.name for path in Path(toys.places.done).iterdir()) == ["toy", "toy-2"]
    assert toys.process(write_toy_scan(toys.inbox / "toy", seed=2), instance).success
    assert len([path for path in Path(toys.places.packages).iterdir() if path.is_dir()]) == 2


def test_a_corrupt_artefact_is_set_aside_and_made_anew(toys, instance, calls):
    upload = write_toy_scan(toys.corpus / "toy")
    toys.process(upload, instance)
    before = toys.artefacts()
    damaged = next(Path(toys.places.store_url).glob("artefacts/mood/*/mood.shades.depth_m_bhw.npy"))
    damaged.write_bytes(b"\0" * damaged.stat().st_size)
    result = toys.process(upload, instance)
    assert result.success
    assert [metadata(result, step)["reused"] for step in ("shades", "mood", "package")] == [True, False, True]
    assert toys.artefacts() == before
    assert len(list(Path(toys.places.store_url).glob("corrupt/mood/*"))) == 1


def test_a_run_without_a_stage_that_packs_is_refused():
    with pytest.raises(StageError, match="expected a stage 'package', whose files are published; got shades"):
        process_scan_job(
            [stage for stage in find_stages("tests.toy_stages.stages") if stage.name == "shades"], "latest"
        )


# --- with a process for each step, as the daemon runs it --------------------------------------------


def toy_job():
    """The job for other processes; $TOY_HOME says where."""
    import os

    executor = multiprocess_executor.configured({"start_method": {"forkserver": {"preload_modules": ["dagster"]}}})
    toys = Toys(Path(os.environ["TOY_HOME"]), executor=executor, mood_timeout_s=HANG_S)
    return toys.defs.resolve_job_def("process_scan")


@pytest.fixture
def in_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    forkserver._forkserver._stop()  # the one that an earlier test started has the environment of then

    def run(upload: Path, instance: DagsterInstance, mood: dict | None = None, **options):
        config = {"ops": {"scan": {"config": {"upload": str(upload)}}, "mood": {"config": mood or {}}}}
        return execute_job(reconstructable(toy_job), instance=instance, run_config=config, **options)

    return run


@pytest.mark.slow
def test_each_step_in_its_process_retries_rejects_hangs_and_goes_on_from_a_failure(toys, calls, in_processes):
    with instance_for_test() as instance:
        upload = write_toy_scan(toys.inbox / "toy")
        failed = in_processes(upload, instance, mood={"passing_failures": 4})
        assert not failed.success
        assert calls.read_text() == "xxx"
        assert upload.exists()
        resumed = in_processes(
            upload,
            instance,
            mood={"passing_failures": 4},
            reexecution_options=ReexecutionOptions.from_failure(failed.run_id, instance),
        )
        assert resumed.success
        assert calls.read_text() == "xxxxx"
        started = {event.step_key for event in resumed.all_events if event.event_type_value == "STEP_START"}
        assert started == {"mood", "package", "publish"}
        assert not upload.exists()

        sad = write_toy_scan(toys.inbox / "sad", seed=3)
        assert not in_processes(sad, instance, mood={"rejects": True}).success
        assert calls.read_text() == "xxxxxx"
        assert (
            (Path(toys.places.quarantine) / "sad" / "reason.txt").read_text().startswith("mood: expected a merry room")
        )

        # one test, since the server that Dagster forks steps off keeps the environment of the first
        hung = write_toy_scan(toys.inbox / "hung", seed=4)
        result = in_processes(hung, instance, mood={"trouble": "hang with the lock", "troubles": 7})
        assert result.success
        kinds, said = said_of(instance, result.run_id, "mood")
        assert (said["failure"], kinds.count("STEP_UP_FOR_RETRY")) == ("timeout", 1)
        assert calls.read_text() == "xxxxxxxx"


# --- what native code does to it --------------------------------------------------------------------


def said_of(instance: DagsterInstance, run_id: str, step: str) -> tuple[list[str], dict]:
    """Which events a step had, and what its last failure, or attempt, says of itself."""
    kinds, said = [], {}
    for record in instance.get_records_for_run(run_id, limit=1000).records:
        event = record.event_log_entry.dagster_event
        if event is None or event.step_key != step:
            continue
        kinds.append(event.event_type_value)
        about = event.engine_event_data.metadata if event.event_type_value == "ENGINE_EVENT" else {}
        if "failure" in about:
            said = {name: value.value for name, value in about.items()} | {"sentence": event.message}
    return kinds, said


HANG_S = 6.0
"""The deadline of a step that hangs: the next attempt, which does not, must keep it, too, on a busy machine."""
TROUBLES = [
    ("hang", "passing", "timeout", "mood: expected an end within 6 s; got none, and it was told to end"),
    ("hang with the lock", "passing", "timeout", "mood: expected an end within 6 s; got none, and it did not even end"),
    ("hang in vain", "passing", "timeout", "mood: expected an end within 6 s; got none, and it did not even end"),
    ("killed", "passing", "killed", "mood: expected a result; got a process that was killed while it held"),
    ("crash", "passing", "crashed", "mood: expected a result; got a process that crashed (SIGSEGV)"),
    ("exit", "passing", "crashed", "mood: expected a result; got a process that ended by itself with code 3"),
    ("full GPU", "passing", "out_of_memory", "mood: expected room on the GPU; got a GPU without room (CUDA out of"),
    (
        "bug",
        "bug",
        "bug",
        "mood: expected a result; got KeyError: 'no such key'. This is a mistake in the code, filed as",
    ),
]


@pytest.mark.parametrize(
    ("trouble", "kind", "failure", "sentence"),
    [pytest.param(*each, id=each[0], marks=[pytest.mark.slow] if each[2] == "timeout" else []) for each in TROUBLES],
)
def test_a_step_in_trouble_costs_only_the_step_and_says_so(tmp_path, calls, instance, trouble, kind, failure, sentence):
    toys = Toys(tmp_path / "home", mood_timeout_s=HANG_S if failure == "timeout" else None)
    upload = write_toy_scan(toys.inbox / "toy")
    result = toys.process(upload, instance, mood={"trouble": trouble, "troubles": 1})
    kinds, said = said_of(instance, result.run_id, "mood")
    assert (said["failure_kind"], said["failure"]) == (kind, failure)
    assert said["sentence"].startswith(sentence)
    if kind == "bug":  # made again, it would only be made again
        assert not result.success
        assert "STEP_UP_FOR_RETRY" not in kinds
        [aside] = Path(toys.places.failed).iterdir()
        assert (aside / "toy").is_dir()
        assert said["sentence"] in (aside / "reason.txt").read_text()
        assert "geomagic inbox retry" in (aside / "reason.txt").read_text()
    else:
        assert result.success
        assert kinds.count("STEP_UP_FOR_RETRY") == 1
        assert calls.read_text() == "xx"
        assert not upload.exists()


@pytest.mark.slow
def test_a_hang_that_never_ends_is_given_up_after_the_retries_and_the_upload_stays(tmp_path, calls, instance):
    toys = Toys(tmp_path / "home", mood_timeout_s=HANG_S)
    upload = write_toy_scan(toys.inbox / "toy")
    result = toys.process(upload, instance, mood={"trouble": "hang", "troubles": 9})
    assert not result.success
    assert calls.read_text() == "xxx"
    assert upload.exists()


def test_numbers_that_are_none_and_threads_that_stay_are_said_and_stop_nothing(toys, calls, instance):
    result = toys.process(write_toy_scan(toys.inbox / "toy"), instance, mood={"trouble": "nothing", "troubles": 9})
    assert result.success
    assert "score" not in metadata(result, "mood")
    assert metadata(result, "mood")["out_of_range"].startswith("mood: expected score to be a number; got nan.")
    result = toys.process(
        write_toy_scan(toys.inbox / "toy2", seed=2), instance, mood={"trouble": "thread", "troubles": 9}
    )
    assert result.success


def test_a_long_step_tells_how_far_it_has_come_in_few_events(toys, instance):
    result = toys.process(write_toy_scan(toys.inbox / "toy"), instance, mood={"slow_s": 4.0})
    told = [
        (event.message, event.engine_event_data.metadata["progress"].value)
        for record in instance.get_records_for_run(result.run_id, limit=1000).records
        if (event := record.event_log_entry.dagster_event) is not None
        and event.step_key == "mood"
        and event.event_type_value == "ENGINE_EVENT"
        and "progress" in event.engine_event_data.metadata
    ]
    took_s = metadata(result, "mood")["seconds"]  # 4 s; longer on a busy machine
    assert 1 <= len(told) <= max(3, took_s - 1)
    ratios = [ratio for _, ratio in told]
    assert ratios == sorted(ratios)
    assert 0.3 * min(1, 4 / took_s) < ratios[0] < 0.9 or took_s > 8, "when exactly: guardrails/test_progress.py"
    assert re.fullmatch(r"mood: thoughts \d+ % \(\d+ of 100\), about \d+ s left", told[0][0])
    assert int(told[0][0].split("about ")[1].split()[0]) in (1, 2) or took_s > 4.5


def test_every_output_says_its_deadline_and_its_attempt(toys, calls, instance):
    result = toys.process(write_toy_scan(toys.inbox / "toy"), instance, mood={"passing_failures": 1})
    assert metadata(result, "mood")["deadline_s"] == 120.0
    assert metadata(result, "mood")["attempt"] == 2
    assert metadata(result, "shades")["attempt"] == 1


def test_a_corrupt_input_is_made_anew_from_what_made_it(toys, instance, monkeypatch):
    """The shades are damaged behind the back of a run that is about to use them."""
    assert toys.process(write_toy_scan(toys.inbox / "toy"), instance).success
    before = toys.artefacts()
    [damaged] = Path(toys.places.store_url).glob("artefacts/shades/*/shades.depth_m_bhw.npy")
    damaged.write_bytes(b"\0" * damaged.stat().st_size)
    monkeypatch.setattr(child, "_has_other_threads", lambda: False)
    shades = next(each for each in find_stages("tests.toy_stages.stages") if each.name == "shades")
    identity = damaged.parent.name
    there = trusted(shades, "shades", identity, toys.store, logging.getLogger())
    assert there.identity == identity
    assert toys.artefacts() == before
    assert len(list(Path(toys.places.store_url).glob("corrupt/shades/*"))) == 1
