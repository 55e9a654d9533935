"""An upload from the intake to its package, in a real installation: code server, daemon, warm process, intake."""

from __future__ import annotations

import concurrent.futures
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from dagster import DagsterRunStatus, RunsFilter

from geomagic_dagster.drill.place import free_ports
from geomagic_dagster.guardrails import processes
from geomagic_dagster.guardrails.processes import Process
from geomagic_dagster.jobs.local_run import REPOSITORY
from geomagic_dagster.launching.intake_server import send_path
from geomagic_dagster.launching.run_launcher import WORKER_TAG
from tests.launching.installation import Installation, environment, installed

pytestmark = [
    pytest.mark.skipif(not processes.is_supported, reason="runs are forked on Linux only"),
    pytest.mark.slow,
]

OURS = ("starter", "intake", "metrics", "rooms", "watcher", "console")
CRASH_POINTS = ("claimed", "placed", "assigned", "made", "submitted")


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("home") / "home", free_ports(1)[0]) as installation:
        yield installation


def test_an_upload_by_http_runs_in_a_fork_of_the_warm_process(installation):
    status, answer = installation.post("parlour.zip", installation.archive("parlour").read_bytes())
    assert (status, answer["upload"], answer["status"]) == (201, "parlour.zip", "STARTING")
    run = installation.wait_for_success("parlour.zip")
    assert run.run_id == answer["run_id"]
    assert Process.loads(run.tags[WORKER_TAG]).pid > 0
    assert run.remote_job_origin.location_name == "latest"  # so that it can be re-executed from the UI
    assert not any("No warm process" in str(event.user_message) for event in installation.instance.all_logs(run.run_id))
    assert (installation.home / "packages" / "parlour" / "letter.txt").is_file()
    assert (installation.home / "done" / "parlour.zip").is_file()
    assert len(installation.runs("parlour.zip")) == 1  # the sensor has left it alone


def test_a_path_is_moved_in_and_starts_at_once(installation):
    folder = installation.archive("cellar").with_suffix("")
    answer = send_path(installation.home / "dagster", folder)
    assert answer and answer["status"] == "STARTING", answer
    assert not folder.exists()
    installation.wait_for_success("cellar")


def test_a_worker_that_is_killed_is_found_and_its_run_is_started_again(installation):
    with installation.held():
        _, answer = installation.post("attic.zip", installation.archive("attic").read_bytes())
        first = answer["run_id"]
        installation.wait(lambda: installation.run(first).status == DagsterRunStatus.STARTED, "the start")
        os.kill(Process.loads(installation.run(first).tags[WORKER_TAG]).pid, signal.SIGKILL)
        killed_s = time.monotonic()
        installation.wait(lambda: installation.run(first).status == DagsterRunStatus.FAILURE, "its failure")
        print(f"found after {time.monotonic() - killed_s:.1f} s")
    second = installation.wait_for_success("attic.zip")
    assert second.parent_run_id == first
    assert len(installation.runs("attic.zip")) == 2
    messages = [str(event.user_message or event.message) for event in installation.instance.all_logs(first)]
    assert any("is gone" in message for message in messages)


def test_a_cancelled_run_ends(installation):
    with installation.held():
        _, answer = installation.post("shed.zip", installation.archive("shed").read_bytes())
        installation.wait(lambda: installation.run(answer["run_id"]).status == DagsterRunStatus.STARTED, "the start")
        worker = Process.loads(installation.run(answer["run_id"]).tags[WORKER_TAG])
        assert installation.instance.run_coordinator.cancel_run(answer["run_id"])
        installation.wait(lambda: installation.run(answer["run_id"]).status == DagsterRunStatus.CANCELED, "the end")
        installation.wait(lambda: not worker.is_alive(), "the end of its worker")


def test_the_next_run_starts_although_the_warm_process_was_killed(installation):
    starter = next(each.pid for each in installation.processes() if b"launching.starter" in _command(each.pid))
    os.kill(starter, signal.SIGKILL)
    status, answer = installation.post("hall.zip", installation.archive("hall").read_bytes())
    assert status == 201
    run = installation.wait_for_success("hall.zip")
    assert run.run_id == answer["run_id"] and WORKER_TAG in run.tags


def test_the_same_upload_twice_at_once_is_one_run(installation):
    content = installation.archive("study").read_bytes()
    with installation.held(), concurrent.futures.ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: installation.post("study.zip", content), range(4)))
        assert sorted(status for status, _ in answers) == [200, 200, 200, 201]
        assert len({answer["run_id"] for _, answer in answers}) == 1
    installation.wait_for_success("study.zip")


def test_the_same_path_twice_at_once_is_one_run(installation):
    path = installation.archive("den")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: send_path(installation.home / "dagster", path), range(4)))
    assert sum("run_id" in answer for answer in answers) == 1, answers
    installation.wait_for_success("den.zip")
    assert len(installation.runs("den.zip")) == 1


def test_another_upload_of_a_name_that_is_taken_gets_a_name_of_its_own(installation):
    with installation.held():
        _, first = installation.post("bath.zip", installation.archive("bath").read_bytes())
        _, second = installation.post("bath.zip", installation.archive("bath").read_bytes() + b"")
        again = installation.archive("other").read_bytes()
        _, third = installation.post("bath.zip", again)
    assert first["upload"] == "bath.zip"
    assert third["upload"] in ("bath-2.zip", "bath-3.zip") and third["upload"] != second["upload"]
    for answer in (first, second, third):
        installation.wait_for_success(answer["upload"])


def test_an_intake_that_is_killed_leaves_an_upload_that_is_processed_once(installation):
    paths = {point: installation.archive(f"killed when {point}") for point in CRASH_POINTS}

    def die(point: str) -> int:
        command = [
            sys.executable,
            "-m",
            "tests.launching.intake_process",
            str(paths[point]),
            str(installation.inbox),
            point,
        ]
        return subprocess.run(command, cwd=REPOSITORY, env=environment(installation.home), check=False).returncode

    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert set(pool.map(die, CRASH_POINTS)) == {-signal.SIGKILL}
    assert paths["claimed"].exists()  # nothing has happened yet: whoever sent it still has it
    assert "run_id" in (send_path(installation.home / "dagster", paths["claimed"]) or {})
    for path in paths.values():
        installation.wait_for_success(path.name)
    time.sleep(6)  # a tick of the sensor, and more
    assert {point: len(installation.runs(path.name)) for point, path in paths.items()} == dict.fromkeys(CRASH_POINTS, 1)


def test_no_more_runs_at_once_than_there_is_room_for(installation):
    contents = [installation.archive(f"flat {number}").read_bytes() for number in range(6)]
    most, is_over = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_over.is_set():
            most = max(most, installation.instance.get_runs_count(RunsFilter(statuses=[DagsterRunStatus.STARTED])))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: installation.post(f"flat%20{n}.zip", contents[n]), range(6)))
    for _, answer in answers:
        installation.wait_for_success(answer["upload"])
    is_over.set()
    watcher.join()
    assert sorted({answer["status"] for _, answer in answers}) == ["QUEUED", "STARTING"]
    assert most == 2


def test_every_line_of_our_own_processes_is_logfmt(installation):
    """Dagster's own (webserver, daemon, code servers) write as Dagster does; an address is an answer, and no line."""
    installation.post("porch.zip", installation.archive("porch").read_bytes())
    installation.wait_for_success("porch.zip")
    lines = [line.split("| ", 1) for line in installation.log().splitlines() if line.startswith(OURS)]
    assert {name.split()[0] for name, _ in lines} >= {"starter", "intake"}
    assert [said for _, said in lines if not re.match(r"ts=\S+Z level=\w+ msg=|http://\S+ ", said)] == []


# --- what is not taken in -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "status", "sentence"),
    [
        ("room.txt", b"x", 400, "expected a plain file name that ends like an archive"),
        (".zip", b"x", 400, "expected a plain file name"),
        ("..%2Froom.zip", b"x", 404, ""),
        ("%00.zip", b"x", 400, "expected a plain file name"),
        ("a" * 300 + ".zip", b"x", 400, "expected a plain file name"),
        ("room.zip", b"no archive", 422, "expected a whole upload; got an archive without its end"),
        ("room.zip", b"", 422, "expected a whole upload"),
    ],
)
def test_what_cannot_be_an_upload_is_refused_with_a_sentence(installation, name, content, status, sentence):
    with suppress(ValueError):  # an answer that is no JSON
        answered, answer = installation.post(name, content)
        assert (answered, sentence in answer["error"]) == (status, True), answer
    assert not list(installation.inbox.glob(".*.part")) and not (installation.inbox / "room.zip").exists()


def test_a_page_in_a_browser_cannot_send_uploads(installation):
    status, answer = installation.post("room.zip", b"x", origin="https://example.com")
    assert status == 403 and "GEOMAGIC_INTAKE_TOKEN" in answer["error"]


def test_a_sender_that_hangs_up_leaves_nothing(installation):
    with socket.create_connection(("127.0.0.1", installation.intake_port)) as client:
        client.sendall(b"POST /scans/lost.zip HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nPK")
        installation.wait(lambda: list(installation.inbox.glob(".*.part/lost.zip")), "the beginning of it")
    installation.wait(lambda: not list(installation.inbox.glob(".*.part")), "its removal")
    assert not (installation.inbox / "lost.zip").exists()


# --- the end --------------------------------------------------------------------------------------


def test_nothing_is_left_running_by_a_supervisor_that_is_killed(tmp_path):  # one that is told to end: see `installed`
    with installed(tmp_path / "home", free_ports(1)[0]) as installation:
        (installation.home / "hold").touch()
        _, answer = installation.post("den.zip", installation.archive("den").read_bytes())
        installation.wait(lambda: installation.run(answer["run_id"]).status == DagsterRunStatus.STARTED, "the start")
        everybody = installation.processes()
        assert Process.loads(installation.run(answer["run_id"]).tags[WORKER_TAG]) in everybody
        installation.supervisor.kill()
        installation.supervisor.wait(90)
        deadline = time.monotonic() + 90
        while left := {process for process in everybody if process.is_alive()}:
            assert time.monotonic() < deadline, [_command(process.pid) for process in left]
            time.sleep(0.1)


def _command(pid: int) -> bytes:
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().replace(b"\0", b" ")
    return b""
