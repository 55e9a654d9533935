"""What an event of Dagster's log adds to the numbers: pure functions, the same events give the same numbers.

Belongs here: what is known of a live run, and which event changes what. Does not belong here: what is read of an
event (events.py), where events come from (event_log.py), what the metrics are called and mean (counts.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from geomagic_dagster.monitoring.counts import Change, Counts
from geomagic_dagster.monitoring.events import ENDS, FAILURES, NOTE, STARTS, Event

UNKNOWN = "unknown"
SETTLE_S = 60.0
"""An event is waited for so long: writers on other machines commit out of order, and some write after a run ended."""
RUN_EXPIRED = re.compile("exceed(ed|ing) maximum runtime", re.IGNORECASE)

COSTS = ("seconds", "peak_memory_mb", "deadline_s", "attempt")
"""Floats of a step's metadata that say what it cost; all others are the stage's own numbers."""

FAILURE_OF_CLASS = {
    "ScanRejected": ("permanent", "rejected"),
    "StageError": ("bug", "bug"),
    "Broken": ("permanent", "corrupt"),
    "StageTimeout": ("passing", "timeout"),
    "Unavailable": ("passing", "unreachable"),
    "OutOfMemoryError": ("passing", "out_of_memory"),
    "MemoryError": ("passing", "out_of_memory"),
    "ChildProcessCrashException": ("passing", "killed"),
}
"""Where neither an event nor a note before it says the kind: steps that are not ours."""


@dataclass
class LiveRun:
    """A run that has not ended, or not for long; all that is kept of it."""

    job: str
    release: str
    created_s: float
    deadline_s: float | None = None
    is_past: bool = False
    """Whether it had ended long ago when it was found."""
    read_to: int = 0
    """Every event up to this id was counted."""
    ahead: list[int] = field(default_factory=list)
    """Ids beyond it that were counted, too."""
    started_s: float | None = None
    steps_started_s: dict[str, float] = field(default_factory=dict)
    """When the attempts began that are going on."""
    has_step: bool = False
    has_expired: bool = False
    failure: list[str] = field(default_factory=list)
    """Kind and failure of the step that failed last."""
    why: dict[str, list[str]] = field(default_factory=dict)
    """Kind and failure of the attempt that failed last, by step."""
    ended_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def begin(run: LiveRun, is_retry: bool, counts: Counts) -> None:
    """Counts what is to be counted of a run when it is first seen."""
    if is_retry:
        counts.apply([("geomagic_run_retries_total", (run.release, run.job), 1.0)])


def fold(run: LiveRun, events: list[Event], counts: Counts, now_s: float) -> None:
    """Counts the events of a run that were not counted yet; in the order of their ids."""
    seen = set(run.ahead)
    for event in events:
        if event.id <= run.read_to or event.id in seen:
            continue
        try:
            changes = list(_changes(run, event, now_s))
        except (TypeError, ValueError, KeyError, AttributeError):  # Dagster wrote it in another way than we know
            changes = [("geomagic_exporter_unreadable_events_total", (), 1.0)]
        counts.apply(changes)
        seen.add(event.id)
    times_s = {event.id: event.time_s for event in events}
    for number in sorted(seen):
        if times_s.get(number, now_s) > now_s - SETTLE_S:
            break
        run.read_to = max(run.read_to, number)
        seen.discard(number)
    run.ahead = sorted(seen)


def is_over(run: LiveRun, now_s: float) -> bool:
    """Whether a run ended so long ago that nothing more is to come."""
    return run.is_past or (run.ended_s is not None and run.ended_s <= now_s - SETTLE_S)


def _changes(run: LiveRun, event: Event, now_s: float) -> Iterator[Change]:
    release, stage = _release_and_stage(run, event.step)
    where = (release, run.job)
    step = (*where, stage)
    if event.kind == "PIPELINE_START":
        run.started_s = event.time_s
    elif event.kind in STARTS:
        run.steps_started_s[event.step] = event.time_s
        if not run.has_step:
            run.has_step = True
            yield ("geomagic_run_first_step_wait_seconds", where, max(0.0, event.time_s - run.created_s))
    elif event.kind == "STEP_SUCCESS":
        yield from _attempt(run, event, (*step, "success"))
        yield ("geomagic_steps_total", (*step, "success", "", ""), 1.0)
    elif event.kind in FAILURES:
        why = why_of(event.data, run.why.pop(event.step, None))
        if event.kind == "STEP_FAILURE":
            run.failure = list(why)
            yield from _attempt(run, event, (*step, "failure"))
            yield ("geomagic_steps_total", (*step, "failure", *why), 1.0)
        else:
            yield from _attempt(run, event, (*step, "retry"))
            yield ("geomagic_step_retries_total", (*step, *why), 1.0)
        if why[1] == "timeout":
            yield ("geomagic_step_timeouts_total", step, 1.0)
            yield from _headroom("stage", (release, stage), 1.0, 1.0)
    elif event.kind == ("ASSET_MATERIALIZATION" if _is_asset(event.step) else "STEP_OUTPUT"):
        yield from _result((release, stage), event.data["metadata"])
    elif event.kind == NOTE and event.step:
        said = event.data.get("metadata", {})
        if "failure" in said:
            run.why[event.step] = [str(said.get("failure_kind", UNKNOWN)), str(said["failure"])]
        if "progress" in said:
            yield ("geomagic_stage_progress_ratio", (release, stage), said["progress"])
    elif event.kind == "PIPELINE_CANCELING":
        run.has_expired = run.has_expired or bool(RUN_EXPIRED.search(event.data.get("message") or ""))
    elif event.kind in ENDS and run.ended_s is None:
        run.ended_s = min(event.time_s, now_s)
        yield from _end_of_run(run, where, event)


def _attempt(run: LiveRun, event: Event, labels: tuple[str, ...]) -> Iterator[Change]:
    began_s = run.steps_started_s.pop(event.step, None)
    if began_s is not None:
        yield ("geomagic_step_duration_seconds", labels, max(0.0, event.time_s - began_s))


def _result(stage: tuple[str, str], metadata: Mapping[str, Any]) -> Iterator[Change]:
    seconds, deadline_s = metadata.get("seconds"), metadata.get("deadline_s")
    if metadata.get("reused") is True:
        yield ("geomagic_stage_reused_total", stage, 1.0)
    if seconds is not None:
        yield ("geomagic_stage_duration_seconds", stage, seconds)
        if deadline_s:
            yield from _headroom("stage", stage, seconds, deadline_s)
    if "peak_memory_mb" in metadata:
        yield ("geomagic_stage_peak_memory_bytes", stage, metadata["peak_memory_mb"] * 2**20)
    if "out_of_range" in metadata:
        yield ("geomagic_stage_out_of_range_total", stage, 1.0)
    for name, value in metadata.items():
        if isinstance(value, float) and name not in COSTS:
            yield ("geomagic_stage_number_values", (*stage, name), value)


def _end_of_run(run: LiveRun, where: tuple[str, str], event: Event) -> Iterator[Change]:
    outcome, why = ENDS[event.kind], ("", "")
    run.has_expired = run.has_expired or bool(RUN_EXPIRED.search(event.data.get("message") or ""))
    if run.has_expired:
        outcome, why = "failure", ("passing", "timeout")
        yield ("geomagic_run_timeouts_total", where, 1.0)
    elif outcome == "failure":
        reason = event.data.get("failure_reason", UNKNOWN).rpartition(".")[2].lower()
        why = (run.failure[0], run.failure[1]) if run.failure else (UNKNOWN, reason)
    yield ("geomagic_runs_total", (*where, outcome, *why), 1.0)
    if run.started_s is not None:
        seconds = max(0.0, event.time_s - run.started_s)
        yield ("geomagic_run_duration_seconds", (*where, outcome), seconds)
        if run.deadline_s:
            yield from _headroom("scan", where, seconds, run.deadline_s)
    run.steps_started_s.clear()


def _headroom(of: str, labels: tuple[str, str], seconds: float, deadline_s: float) -> Iterator[Change]:
    ratio = max(0.0, 1.0 - seconds / deadline_s)
    yield (f"geomagic_{of}_deadline_headroom_ratio", labels, ratio)


def _is_asset(step: str) -> bool:
    return "__" in step


def _release_and_stage(run: LiveRun, step: str) -> tuple[str, str]:
    """An op is called like its stage; an asset's step "v1_0__depth", after the key that the release gave it."""
    if not _is_asset(step):
        return run.release, step
    prefix, _, stage = step.partition("__")
    if run.release == UNKNOWN:
        run.release = re.sub(r"(?<=\d)_(?=\d)", ".", prefix[1:]) if re.fullmatch(r"v\d\w*", prefix) else prefix
    return run.release, stage


def why_of(data: Mapping[str, Any], noted: list[str] | None) -> tuple[str, str]:
    """Kind and failure as the event says them, or a note before it; else by the class of an exception in it."""
    said = data.get("metadata", {})
    if "failure_kind" in said or "failure" in said:
        return str(said.get("failure_kind", UNKNOWN)), str(said.get("failure", UNKNOWN))
    if noted is not None:
        return noted[0], noted[1]
    known = (FAILURE_OF_CLASS[name] for name in data.get("classes", ()) if name in FAILURE_OF_CLASS)
    return next(known, (UNKNOWN, UNKNOWN))
