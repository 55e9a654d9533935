"""Calls in a process of their own: whatever becomes of it, the caller hears of it in time and goes on."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import logging
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from geomagic_dagster.cv.stage import ScanRejected, StageError, progress
from geomagic_dagster.guardrails import child
from geomagic_dagster.guardrails.child import CaughtElsewhere, ChildDied, call
from geomagic_dagster.guardrails.deadlines import Deadline, StageTimeout
from geomagic_dagster.guardrails.processes import Process

LONG = Deadline("nap", 300.0, "geomagic_nap_ratio")
SHORT = Deadline("nap", 1.0, "geomagic_nap_ratio")
LOG = logging.getLogger("test")


@dataclass(frozen=True)
class WithTimeToTidy(Deadline):
    """A busy machine may give a process nothing for a second, which is all the grace of a deadline that short."""

    grace_s = 60.0


SHORT_WITH_GRACE = WithTimeToTidy("nap", 1.0, "geomagic_nap_ratio")


@pytest.fixture(params=["fork", "forkserver"])
def started(request, monkeypatch):
    """Both ways to make the process."""
    monkeypatch.setattr(child, "_has_other_threads", lambda: request.param == "forkserver")
    monkeypatch.setattr(child, "PRELOADED", ())
    return request.param


def double(number: int, log: logging.Logger) -> int:
    log.info("doubling")
    for _ in progress(range(3), "steps"):
        pass
    return 2 * number


def hold_the_lock(_: None, log: logging.Logger) -> None:
    sum(itertools.repeat(0, 10**13))


def ask_to_exit(_: None, log: logging.Logger) -> None:
    raise SystemExit(3)


def sleep_and_tidy(place: Path, log: logging.Logger) -> None:
    try:
        time.sleep(60)
    finally:
        place.write_text("tidy")


def swallow_the_deadline(_: None, log: logging.Logger) -> str:
    try:
        time.sleep(60)
    except TimeoutError:
        return "as if nothing had happened"
    return ""


def die(how: int, log: logging.Logger) -> None:
    os.kill(os.getpid(), how)


def crash(_: None, log: logging.Logger) -> None:
    ctypes.string_at(0)


def leave(code: int, log: logging.Logger) -> None:
    os._exit(code)


def reject(_: None, log: logging.Logger) -> None:
    raise ScanRejected("nap", expected="a bed", received="a chair", do="Lie down.")


class Unpicklable(Exception):
    def __init__(self, *, why: str) -> None:
        super().__init__(why)


def raise_unpicklable(_: None, log: logging.Logger) -> None:
    raise Unpicklable(why="the bed is short")


def leak(_: None, log: logging.Logger) -> str:
    threading.Thread(target=time.sleep, args=(600,), name="forgotten").start()
    return "done"


def chatter(lines: int, log: logging.Logger) -> None:
    for number in range(lines):
        log.info(f"line {number}")


def test_the_result_the_lines_and_the_progress_come_back(started, caplog):
    heard = []
    with caplog.at_level(logging.INFO):
        assert call(double, 21, deadline=LONG, log=LOG, report=lambda *what: heard.append(what)) == 42
    assert "doubling" in caplog.text
    assert heard[0] == ("steps", 0, 3)
    assert heard[-1] == ("steps", 3, 3)


def test_a_process_that_holds_the_interpreters_lock_is_ended_and_leaves_its_traceback(started, caplog):
    call(double, 1, deadline=LONG, log=LOG)  # the server is there
    took_s = []
    while len(took_s) < 3 and not (took_s and took_s[-1] < 12.0):  # a busy machine may take longer once
        started_s = time.monotonic()
        with pytest.raises(StageTimeout) as caught:
            call(hold_the_lock, None, deadline=SHORT, log=LOG)
        assert caught.value.is_hard
        took_s.append(time.monotonic() - started_s)
    assert 2.0 <= took_s[-1] < 12.0, took_s  # a second, and one of grace
    assert "hold_the_lock" in caplog.text
    assert str(caught.value) == (
        "nap: expected an end within 1 s; got none, and it did not even end when told to, and was killed. "
        "Its log shows where it was; if scans like this one need longer, raise timeout= in its file."
    )


def test_the_soft_deadline_lets_the_function_tidy_up(started, tmp_path):
    with pytest.raises(StageTimeout, match="it was told to end") as caught:
        call(sleep_and_tidy, tmp_path / "room", deadline=SHORT_WITH_GRACE, log=LOG)
    assert not caught.value.is_hard
    assert (tmp_path / "room").read_text() == "tidy"


def test_a_deadline_that_the_function_swallowed_counts_all_the_same(started):
    with pytest.raises(StageTimeout):
        call(swallow_the_deadline, None, deadline=SHORT_WITH_GRACE, log=LOG)


def test_a_killed_process_is_said_to_have_run_out_of_memory(started):
    with pytest.raises(ChildDied) as caught:
        call(die, signal.SIGKILL, deadline=LONG, log=LOG)
    assert caught.value.was_killed
    assert str(caught.value).startswith("nap: expected a result; got a process that was killed while it held ")
    assert "memory ran out. Run fewer at once, or give the stage more memory_gb." in str(caught.value)


def test_a_crash_in_native_code_leaves_where_it_was(started, caplog):
    with pytest.raises(ChildDied, match=r"crashed \(SIGSEGV\) in native code. Its log shows") as caught:
        call(crash, None, deadline=LONG, log=LOG)
    assert not caught.value.was_killed
    assert "Segmentation fault" in caught.value.traces
    assert "in crash" in caplog.text


def test_a_function_that_exits_is_told_not_to(started):
    with pytest.raises(ChildDied, match="ended by itself with code 3. Stages return or raise; they never exit"):
        call(leave, 3, deadline=LONG, log=LOG)


def test_a_function_that_asks_to_exit_does_not_end_who_waits(started):
    with pytest.raises(
        StageError, match=r"^nap: expected it to return or to raise; got exit\(3\)\. Raise an exception"
    ):
        call(ask_to_exit, None, deadline=LONG, log=LOG)


def test_exceptions_come_back_as_they_are_with_their_traceback(started):
    with pytest.raises(ScanRejected, match="nap: expected a bed; got a chair") as caught:
        call(reject, None, deadline=LONG, log=LOG)
    assert "in reject" in str(caught.value.__cause__)
    with pytest.raises(CaughtElsewhere, match="Unpicklable: the bed is short"):
        call(raise_unpicklable, None, deadline=LONG, log=LOG)


def tell_the_weather(_: None, log: logging.Logger) -> str:
    return os.environ["WEATHER"]


def test_the_environment_is_that_of_the_caller_as_it_is_now(started, monkeypatch):
    for weather in ("rain", "sun"):
        monkeypatch.setenv("WEATHER", weather)
        assert call(tell_the_weather, None, deadline=LONG, log=LOG) == weather


def test_a_leaked_thread_is_named_and_keeps_nobody_waiting(started, caplog):
    started_s = time.monotonic()
    assert call(leak, None, deadline=LONG, log=LOG) == "done"
    assert "nap: expected no thread to be left; got forgotten. They end here; join them in the stage." in caplog.text
    assert time.monotonic() - started_s < 30


def test_a_thousand_lines_are_handed_on_and_no_more(started, caplog):
    with caplog.at_level(logging.INFO):
        call(chatter, 5000, deadline=LONG, log=LOG)
    lines = [record.getMessage() for record in caplog.records if "line" in record.getMessage()]
    assert lines[999] == "line 999"
    assert lines[1000:] == ["test: more than 1000 lines; the rest is not kept"]


def call_a_program(place: Path, log: logging.Logger) -> None:
    program = subprocess.Popen(["sleep", "600"])
    place.write_text(str(program.pid))
    program.wait()


def test_a_program_that_the_function_called_ends_with_it(started, tmp_path):
    with pytest.raises(StageTimeout):
        call(call_a_program, tmp_path / "pid", deadline=SHORT_WITH_GRACE, log=LOG)
    program = int((tmp_path / "pid").read_text())
    wait_for(lambda: not alive(program))


def alive(pid: int) -> bool:
    try:
        return Process.of(pid).is_alive()
    except ProcessLookupError:
        return False


def die_in_the_middle_of_a_message(_: None, log: logging.Logger) -> None:
    for each in gc.get_objects():
        if type(each) is Connection and not each.closed:
            os.write(each.fileno(), struct.pack("!i", 100_000) + b"the beginning")
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_that_is_killed_in_the_middle_of_a_message_is_said_to_be_killed(monkeypatch):
    monkeypatch.setattr(child, "_has_other_threads", lambda: False)
    with pytest.raises(ChildDied) as caught:
        call(die_in_the_middle_of_a_message, None, deadline=LONG, log=LOG)
    assert caught.value.was_killed


def test_a_deadline_is_one_also_where_its_tracebacks_find_no_room(started, monkeypatch):
    monkeypatch.setattr(child.tempfile, "mkstemp", lambda prefix: (os.open("/dev/full", os.O_RDWR), "/dev/full"))
    monkeypatch.setattr(Path, "read_text", lambda self, **options: "")
    monkeypatch.setattr(Path, "unlink", lambda self, **options: None)
    with pytest.raises(StageTimeout) as caught:
        call(hold_the_lock, None, deadline=SHORT, log=LOG)
    assert caught.value.is_hard


def stop(place: Path, log: logging.Logger) -> None:
    place.write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGSTOP)


def test_nobody_waits_for_one_that_even_the_kernel_cannot_end(tmp_path, monkeypatch, caplog):
    """It waits for a disk that does not answer. Here nobody kills it, which comes to the same."""
    monkeypatch.setattr(child, "_has_other_threads", lambda: False)
    for name in ("LAST_RESORT_S", "KILLED_S"):
        monkeypatch.setattr(child, name, 0.2)
    with monkeypatch.context() as patch:
        for way in ("kill", "terminate"):
            patch.setattr(multiprocessing.process.BaseProcess, way, lambda self: None)
        patch.setattr(child, "_end_what_it_started", lambda group: None)
        with pytest.raises(StageTimeout) as caught:
            call(stop, tmp_path / "pid", deadline=Deadline("nap", 0.2, "geomagic_nap_ratio"), log=LOG)
    assert caught.value.is_hard
    pid = int((tmp_path / "pid").read_text())
    assert f"nap: expected process {pid} to end when it was killed; got it there still" in caplog.text
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: multiprocessing.active_children() == [])


def test_nothing_is_left_over_after_any_of_it(started, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for function, argument in ((double, 1), (die, signal.SIGKILL), (crash, None), (leak, None)):
        with contextlib.suppress(ChildDied):
            call(function, argument, deadline=LONG, log=LOG)
    assert multiprocessing.active_children() == []
    assert list(tmp_path.glob("geomagic-traces-*")) == []


CALLER = """
import sys, logging
from tests.guardrails import test_child
from geomagic_dagster.guardrails import child
child.PRELOADED = ()
if __name__ == "__main__":
    child._has_other_threads = lambda: sys.argv[1] == "forkserver"
    child.call(test_child.tell_and_hang, sys.argv[2], deadline=test_child.LONG, log=logging.getLogger())
"""


def tell_and_hang(place: str, log: logging.Logger) -> None:
    Path(place).write_text(str(os.getpid()))
    time.sleep(600)


@pytest.mark.parametrize("started", ["fork", "forkserver"])
def test_the_process_ends_when_its_caller_is_killed(started, tmp_path):
    (tmp_path / "caller.py").write_text(CALLER)
    root = Path(__file__).parents[2]
    caller = subprocess.Popen(
        [sys.executable, tmp_path / "caller.py", started, tmp_path / "pid"],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
    )
    process = Process.of(int(wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())))
    caller.kill()
    caller.wait()
    wait_for(lambda: not process.is_alive())


def wait_for(condition, seconds: float = 240.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain")
