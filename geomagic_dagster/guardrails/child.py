"""Calls a function in a process of its own, so that whatever becomes of it costs only this call.

It may hang in native code with the interpreter's lock held, be killed for memory, or crash: the caller gets an
exception that says so, with the tracebacks of all threads, and goes on. What the function logs and how far its loops
have come is told to the caller while it runs.

The process is forked off the caller where that is safe, which takes some 20 ms: on Linux, in a process that has no
threads but its main one (OpenMP, for one, hangs for ever in a process forked off one that used it). Everywhere else
it is forked off a server that has imported what takes seconds to import.

Belongs here: starting, watching and ending that process. Does not belong here: what it does; which failures pass
(failures.py).
"""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from geomagic_dagster.cv.stage import StageError, report_progress_to
from geomagic_dagster.guardrails import processes
from geomagic_dagster.guardrails.deadlines import Deadline, hard_deadline, soft_deadline

T = TypeVar("T")
Report = Callable[[str, int, int | None], None]
"""(what, done, total) of a long loop."""

PRELOADED = ("geomagic_dagster.definitions", "torch", "cv2")
START_S = 120.0
"""The process has begun by then, also on a busy machine and with all of its imports."""
LAST_RESORT_S = 5.0
"""So long after the hard deadline the caller kills the process itself: stopped, or waiting for a disk for ever."""
KILLED_S = 10.0
"""What was killed is gone by then, but where it waits in the kernel, for a disk or a device that does not answer."""
EXPIRED = 1
"""Exit code of a process that its hard deadline ended: that of `faulthandler`."""
REPORTS_PER_S = 5.0
MAX_LOG_LINES = 1000
"""Of one call that are handed on; the rest would only fill the event log."""


class ChildDied(Exception):
    """The process of a call ended without a word. `str()` is a sentence; `traces` are its threads' tracebacks."""

    def __init__(self, place: str, exit_code: int, memory_mb: float, traces: str) -> None:
        self.place, self.exit_code, self.memory_mb, self.traces = place, exit_code, memory_mb, traces
        super().__init__(f"{place}: expected a result; got {self.how_it_ended}")

    @property
    def was_killed(self) -> bool:
        """By SIGKILL, which is what the kernel sends when memory runs out (and shells call exit code 137)."""
        return self.exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL)

    @property
    def how_it_ended(self) -> str:
        if self.was_killed:
            return (
                f"a process that was killed while it held {self.memory_mb:.0f} MB, most likely because the machine's "
                "memory ran out. Run fewer at once, or give the stage more memory_gb."
            )
        if self.exit_code < 0:
            name = signal.Signals(-self.exit_code).name
            return f"a process that crashed ({name}) in native code. Its log shows where every thread was."
        return f"a process that ended by itself with code {self.exit_code}. Stages return or raise; they never exit."


class CaughtElsewhere(Exception):
    """Stands in for an exception that could not travel between processes; `str()` is what it said."""


class _Traceback(Exception):
    """The traceback of an exception in the process where it was raised; shown as its cause."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def call(
    function: Callable[[Any, logging.Logger], T],
    argument: Any,
    *,
    deadline: Deadline,
    log: logging.Logger,
    report: Report | None = None,
) -> T:
    """`function(argument, log)` in a process of its own. Function, argument and result are pickled.

    Raises: what the function raises, with its traceback; StageTimeout where it took too long; ChildDied where its
    process ended otherwise.
    """
    context = _process_context()
    ours, theirs = context.Pipe()
    descriptor, traces = tempfile.mkstemp(prefix="geomagic-traces-")
    os.close(descriptor)
    process = context.Process(
        target=_serve,
        args=(function, argument, deadline, theirs, traces, log.name, os.getpid(), dict(os.environ)),
        name=deadline.name,
    )
    try:
        process.start()
        theirs.close()
        return _answer(process, ours, deadline, log, report, Path(traces))
    finally:  # also when the run is cancelled
        _end(process)
        ours.close()
        Path(traces).unlink(missing_ok=True)


def _process_context() -> Any:
    """How the process is made, see above."""
    if processes.is_supported and not _has_other_threads():
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _has_other_threads() -> bool:
    """Whether this process has threads besides its main one and those that the processes of Dagster's steps have,
    which only wait and hold nothing of ours."""
    known = sum(thread.name in ("QueueFeederThread", "termination-handler") for thread in threading.enumerate())
    return len(processes.threads()) > known


def _answer(
    process: Any,
    connection: Connection,
    deadline: Deadline,
    log: logging.Logger,
    report: Report | None,
    traces: Path,
) -> Any:
    last_resort = time.monotonic() + START_S
    expires_s = last_resort
    memory_mb = 0.0
    while True:
        if connection.poll(0):
            try:
                kind, *content = connection.recv()
            except (EOFError, OSError):  # it died, or is about to, perhaps in the middle of a message
                break
            if kind == "started":
                expires_s = content[0] + deadline.hard_s
                last_resort = time.monotonic() + deadline.hard_s + LAST_RESORT_S
            elif kind == "log":
                log.log(*content)
            elif kind == "progress":
                if report is not None:
                    report(*content)
            elif kind == "result":
                return content[0]
            else:
                error, text = content
                raise error from _Traceback(text)
            continue
        memory_mb = _memory_mb(process.pid) or memory_mb
        if time.monotonic() > last_resort:
            process.kill()
            break
        if process.exitcode is not None and not connection.poll(0):
            break
        wait([connection, process.sentinel], timeout=0.5)
    process.join(KILLED_S)
    written = traces.read_text(errors="replace")
    if written:
        log.error(f"{deadline.name}: where every thread was when its process ended:\n{written}")
    if process.exitcode is None:
        log.error(
            f"{deadline.name}: expected process {process.pid} to end when it was killed; got it there still, since it "
            "waits for a disk or a device that does not answer. It is left behind. Look at that disk (dmesg)."
        )
    has_expired = process.exitcode == EXPIRED and time.monotonic() >= expires_s  # a full disk takes no traces
    if time.monotonic() > last_resort or has_expired or written.startswith("Timeout ("):
        raise deadline.expired(is_hard=True)
    raise ChildDied(deadline.name, process.exitcode or 0, memory_mb, written)


def _end(process: Any) -> None:
    """The process is gone when this returns, however it feels about that, and so is what it started.

    But for one that even the kernel cannot end now: whoever waited for it has waited long enough.
    """
    if (pid := process.pid) is None:
        return
    if process.exitcode is None:
        process.join(1.0)  # after its answer it has nothing left to do
    for end in (process.terminate, process.kill):
        if process.exitcode is None:
            end()
            process.join(2.0)
    if process.exitcode is not None:
        process.close()
    _end_what_it_started(pid)


def _end_what_it_started(group: int) -> None:
    """A program that a stage called, or processes that it shared its work out to: nobody else knows of them."""
    if not processes.is_supported:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, 0)  # there is none, as a rule
        ours = os.getsid(0)  # and not a group of somebody else, who has got this number since
        if any(session == ours for session in processes.sessions_in_group(group)):
            os.killpg(group, signal.SIGKILL)


def _memory_mb(pid: int | None) -> float | None:
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024
    return None


# --- in the new process --------------------------------------------------------------------------


def _serve(
    function: Callable[[Any, logging.Logger], Any],
    argument: Any,
    deadline: Deadline,
    connection: Connection,
    traces: str,
    log_name: str,
    parent: int,
    environment: dict[str, str],
) -> None:
    _die_with(parent)
    if processes.is_supported:
        os.setpgid(0, 0)  # with whatever it starts, which ends with it
    if dict(os.environ) != environment:  # the server that we are forked off has that of its start
        os.environ.clear()
        os.environ.update(environment)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the caller ends us in order
    lock = threading.Lock()

    def send(*message: Any) -> None:
        with lock, suppress(BrokenPipeError):
            connection.send(message)

    log = _log_to(send, log_name)
    report_progress_to(_throttled(send))
    with open(traces, "w") as file:
        faulthandler.enable(file)  # where it was when it crashed
        send("started", time.monotonic())
        try:
            with hard_deadline(deadline, file):
                with soft_deadline(deadline):
                    result = function(argument, log)
                if leaked := _left_threads():
                    log.warning(
                        f"{deadline.name}: expected no thread to be left; got {', '.join(leaked)}. They end here; "
                        "join them in the stage."
                    )
                send("result", result)
                if leaked:  # an ordinary exit would wait for them
                    connection.close()
                    sys.stderr.flush()
                    os._exit(0)
        except BaseException as error:
            if isinstance(error, SystemExit) and error.code == _LEAVE:
                raise
            said = traceback.format_exc()
            if isinstance(error, SystemExit):  # handed on as it is, it would end whoever waits
                error = StageError(
                    f"{deadline.name}: expected it to return or to raise; got exit({error.code!r}). Raise an exception."
                )
            send("error", _travelling(error), said)
        finally:
            faulthandler.disable()


def _left_threads() -> list[str]:
    """Names of threads that keep this process from ending."""
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    return sorted(thread.name for thread in others if not thread.daemon)


_LEAVE = 128 + signal.SIGTERM


def _leave(signum: int, frame: object) -> None:
    raise SystemExit(_LEAVE)


def _die_with(parent: int) -> None:
    """This process ends when the one that made it does, whatever it is doing: a call that nobody waits for is waste."""
    if not processes.is_supported:
        return
    processes.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        # forked off the server: the kernel tells of its end only, so that of the caller is looked for
        threading.Thread(target=_follow, args=(parent,), name="follow-parent", daemon=True).start()


def _follow(pid: int) -> None:
    with suppress(ProcessLookupError):
        caller = processes.Process.of(pid)
        while caller.is_alive():
            time.sleep(1.0)
    os._exit(1)


def _travelling(error: BaseException) -> BaseException:
    """The error where it can be pickled and back, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return CaughtElsewhere(f"{type(error).__name__}: {error}")
    return error


def _throttled(send: Callable[..., None]) -> Report:
    last_s: dict[str, float] = {}

    def report(what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if done == total or now - last_s.get(what, -1.0) >= 1.0 / REPORTS_PER_S:
            last_s[what] = now
            send("progress", what, done, total)

    return report


def _log_to(send: Callable[..., None], name: str) -> logging.Logger:
    """A logger whose lines the caller logs; what libraries log stays with this process's own handlers."""
    log = logging.Logger(name, logging.DEBUG)  # not known to the logging module: no handlers of the caller
    count = 0

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            nonlocal count
            count += 1
            if count <= MAX_LOG_LINES:
                send("log", record.levelno, record.getMessage())
            elif count == MAX_LOG_LINES + 1:
                send("log", logging.WARNING, f"{name}: more than {MAX_LOG_LINES} lines; the rest is not kept")

    log.addHandler(Handler())
    return log
