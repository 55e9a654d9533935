"""Deadlines: how long something may take, and what happens when it takes longer.

They nest. A stage's soft deadline raises `StageTimeout` inside the stage, which may clean up. Its hard deadline, a
grace later, ends the process even where native code holds the interpreter's lock, and leaves the tracebacks of all
threads. Around them lie the deadline of the scan, and behind it that of the run, which Dagster's daemon enforces.

Belongs here: declaring a deadline, arming it in this process, checking that they nest. Does not belong here: the
process that a stage runs in (child.py); how long one stage may take (its own file says so).
"""

from __future__ import annotations

import faulthandler
import math
import re
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO

from geomagic_dagster.cv.stage import Stage, StageError, minutes
from geomagic_dagster.guardrails.retries import longest_wait_s

STAGE_METRIC = "geomagic_stage_deadline_headroom_ratio"
SCAN_METRIC = "geomagic_scan_deadline_headroom_ratio"


class StageTimeout(TimeoutError):
    """A step did not end within its deadline. `str()` is a sentence with place, expected, received and what to do."""

    def __init__(
        self, place: str, seconds: float, *, is_hard: bool = False, may_pass: bool = True, around: str = ""
    ) -> None:
        """`around`: whose deadline it was that left so little for this one."""
        self.place, self.seconds, self.is_hard, self.may_pass, self.around = place, seconds, is_hard, may_pass, around
        how = "it did not even end when told to, and was killed" if is_hard else "it was told to end"
        left, do = "", "Its log shows where it was; if scans like this one need longer, raise timeout= in its file."
        if around:
            left = f", all that was left for {around}"
            do = "Look at what took so long before it, in the run's steps; its own deadline is longer."
        super().__init__(f"{place}: expected an end within {round(seconds, 3):g} s{left}; got none, and {how}. {do}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.place, self.seconds, self.is_hard, self.may_pass, self.around))


def _rebuild(place: str, seconds: float, is_hard: bool, may_pass: bool, around: str) -> StageTimeout:
    return StageTimeout(place, seconds, is_hard=is_hard, may_pass=may_pass, around=around)


@dataclass(frozen=True)
class Deadline:
    """How long `name` may take, and the metric that shows how near it comes to that."""

    name: str
    seconds: float
    metric: str
    may_pass: bool = True
    """Whether to try again after it."""
    around: str = ""
    """Whose deadline left it less than its own; nothing where it has all of that."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise StageError(
                f"deadline of {self.name}: expected a finite number of seconds above 0; got {self.seconds}. "
                "Write timeout=minutes(4)."
            )
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.metric):
            raise StageError(
                f"deadline of {self.name}: expected the name of the metric that watches it; got {self.metric!r}. "
                "A deadline that nobody watches is found out by a customer: write metric='geomagic_...'."
            )

    @property
    def grace_s(self) -> float:
        """For cleaning up, after which the process is ended: half as long again, between one and ten seconds."""
        return min(max(self.seconds / 2.0, 1.0), 10.0)

    @property
    def hard_s(self) -> float:
        return self.seconds + self.grace_s

    def within(self, remaining_s: float) -> Deadline:
        """The same, but not longer than what is left for the scan as a whole."""
        if self.seconds <= remaining_s:
            return self
        return replace(self, seconds=max(remaining_s, 0.001), around=SCAN.name)

    def expired(self, *, is_hard: bool = False) -> StageTimeout:
        """What is raised where it has passed."""
        return StageTimeout(self.name, self.seconds, is_hard=is_hard, may_pass=self.may_pass, around=self.around)


def stage_deadline(stage: Stage) -> Deadline:
    """The deadline that a stage declares; it is watched by the metric that all stages share."""
    return Deadline(stage.name, stage.timeout_s, STAGE_METRIC, may_pass=stage.retry_timeouts)


def longest_path_s(stages: Iterable[Stage]) -> float:
    """Seconds of the longest way through the stages when every attempt of every stage takes all that it may."""
    end_s: dict[str, float] = {}
    for each in stages:  # upstream first
        deadline = stage_deadline(each)
        cost_s = deadline.hard_s * (each.retries + 1) + longest_wait_s(each.retries)
        end_s[each.name] = cost_s + max((end_s.get(name, 0.0) for name in each.inputs), default=0.0)
    return max(end_s.values(), default=0.0)


def check_nesting(stages: Iterable[Stage], scan: Deadline) -> None:
    """Raises: StageError where the stages, with all of their retries, may take longer than the scan as a whole."""
    longest_s = longest_path_s(stages)
    if longest_s > scan.seconds:
        raise StageError(
            f"deadline of {scan.name}: expected at least {longest_s / 60:.1f} min, the longest way through the stages "
            f"with all retries; got {scan.seconds / 60:.1f} min. Lower timeout= or retries= of a stage, or raise it."
        )


@contextmanager
def soft_deadline(deadline: Deadline) -> Iterator[None]:
    """Raises `StageTimeout` inside the block when it takes too long, and behind it where the block swallowed that.

    Only in the main thread of a process: that is where signals are handled. The timer follows the monotonic clock, so
    a clock that is set does not matter.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("soft_deadline: expected the main thread of a process; got another one. Use child.call.")
    timeout = deadline.expired()
    has_expired = False

    def expire(signum: int, frame: object) -> None:
        nonlocal has_expired
        has_expired = True
        raise timeout

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, deadline.seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    if has_expired:
        raise timeout


@contextmanager
def hard_deadline(deadline: Deadline, traces: IO[str]) -> Iterator[None]:
    """Ends this process, whatever it does, with the tracebacks of all threads in `traces`, when the grace is over."""
    faulthandler.dump_traceback_later(deadline.hard_s, exit=True, file=traces)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


# --- the deadlines that are not of a stage --------------------------------------------------------

SCAN = Deadline("the scan as a whole", minutes(75), SCAN_METRIC)
"""From the start of a run to its end, all steps and retries in it. The stages' own must fit into it."""
RUN_S = SCAN.hard_s + minutes(2)
"""After so long Dagster's daemon ends the run itself (tag dagster/max_runtime)."""


def weights_deadline() -> Deadline:
    """For bringing one file of trained weights to this machine: 6 GB at 10 MB a second."""
    return Deadline("weights", minutes(10), STAGE_METRIC)


_seen: dict[str, tuple[float, float]] = {}


def read_deadline() -> Deadline:
    """For reading and checking an upload."""
    return Deadline("scan", minutes(3), STAGE_METRIC)


def remaining_s(run_id: str, started_s: float | None) -> float:
    """What is left of the scan's deadline in a run that began at `started_s` (seconds since 1970).

    The wall clock is asked once for a run in a process, and never trusted to say less than nothing; from there on the
    monotonic clock counts.
    """
    now = time.monotonic()
    if run_id not in _seen:
        passed_s = 0.0 if started_s is None else min(max(time.time() - started_s, 0.0), SCAN.seconds)
        _seen.clear()  # one run at a time in a process
        _seen[run_id] = (now, passed_s)
    first, passed_s = _seen[run_id]
    return SCAN.seconds - passed_s - (now - first)
