"""What the runs did, read from Dagster's instance: each run once, when it has ended.

Belongs here: finding runs that ended, and what of their events a comparison needs. Does not belong here: judging it
(compare.py), how events are read fast (monitoring/event_log.py).

Runs are found by the time at which Dagster last changed them (public API). Those of the last `OVERLAP_S` are looked for
again, and known by their ids, so that a commit that comes late, or a clock that steps, loses none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from dagster import DagsterInstance, RunRecord, RunsFilter

from geomagic_dagster.flighting.runs import Outcome, Run
from geomagic_dagster.guardrails.tags import (
    FLIGHT_TAG,
    RELEASE_TAG,
    ROUTE_REVISION_TAG,
    SCAN_TAG,
    SHADOW_TAG,
    TAKEN_BACK_TAG,
    UPLOAD_TAG,
)
from geomagic_dagster.jobs.attempts import ENDED
from geomagic_dagster.jobs.process_scan import JOB
from geomagic_dagster.monitoring.event_log import live_run, new_events
from geomagic_dagster.monitoring.events import ENDS, FAILURES, NOTE, Event
from geomagic_dagster.monitoring.fold import COSTS, RUN_EXPIRED, UNKNOWN, LiveRun, why_of

OVERLAP_S = 60.0
PAGE = 500
REJECTED = "rejected"
TIMEOUT = "timeout"


@dataclass(frozen=True)
class Observed:
    """A run that ended, and how it had been routed."""

    run: Run
    upload: str
    sentence: str = ""
    """The last thing that it said of its failure."""
    flight: str | None = None
    is_shadow: bool = False
    revision: int | None = None
    """Of the routing table that chose its release; None where a person did."""


class Observer:
    """Follows one instance. What it knows is only a cache: after a restart it reads the same again."""

    def __init__(self, instance: DagsterInstance) -> None:
        self.instance = instance
        self.observed: dict[str, Observed] = {}
        """By run, in the order in which they were found."""
        self._passed: set[str] = set()
        """Runs that ended and say nothing."""
        self._since_s: float | None = None
        self._updated_s = 0.0

    def look(self, since_s: float) -> list[Observed]:
        """Every run of a scan that was made since then and has ended; it reads only those that are new."""
        if self._since_s is None or since_s < self._since_s:
            self._since_s, self._updated_s = since_s, since_s
        for record in self._ended():
            run_id = record.dagster_run.run_id
            if run_id not in self.observed and run_id not in self._passed:
                if (seen := self._observe(record)) is not None:
                    self.observed[run_id] = seen
                else:
                    self._passed.add(run_id)
        return list(self.observed.values())

    def forget(self) -> None:
        """Nothing is to be compared any more."""
        self.observed.clear()
        self._passed.clear()
        self._since_s = None

    def run(self, record: RunRecord) -> Observed | None:
        """What one run that has ended did."""
        return self.observed.get(record.dagster_run.run_id) or self._observe(record)

    def _ended(self) -> Iterable[RunRecord]:
        assert self._since_s is not None
        began_s = time.time()
        updated_s = self._updated_s - OVERLAP_S
        while True:
            page = self.instance.get_run_records(
                RunsFilter(
                    job_name=JOB,
                    statuses=ENDED,
                    created_after=datetime.fromtimestamp(self._since_s, UTC),
                    updated_after=datetime.fromtimestamp(updated_s, UTC),
                ),
                limit=PAGE,
                order_by="update_timestamp",
                ascending=True,
            )
            yield from page
            last_s = page[-1].update_timestamp.timestamp() if page else updated_s
            if len(page) < PAGE or last_s <= updated_s:
                break
            updated_s = last_s
        self._updated_s = began_s

    def _observe(self, record: RunRecord) -> Observed | None:
        run_id = record.dagster_run.run_id
        kept, _ = live_run(record)
        events = [event for _, events in new_events(self.instance, {run_id: kept}) for event in events]
        return observed(record, kept, sorted(events, key=lambda event: event.id))


def observed(record: RunRecord, kept: LiveRun, events: Iterable[Event]) -> Observed | None:
    """What a run did, from its events in order; None where it says nothing of its release: a person canceled it, or its
    upload had been given to another release before it began."""
    run = record.dagster_run
    started_s: float | None = None
    ended_s = record.end_time or record.update_timestamp.timestamp()
    end, has_expired = run.status.value.lower(), False
    noted: dict[str, list[str]] = {}
    why, sentence = (UNKNOWN, UNKNOWN), ""
    numbers: dict[str, float] = {}
    out_of_range: set[str] = set()
    headroom: list[float] = []
    for event in events:
        said: Mapping[str, float | str | bool] = event.data.get("metadata") or {}
        if event.kind == "PIPELINE_START":
            started_s = event.time_s
        elif event.kind == "STEP_OUTPUT":
            numbers |= {f"{event.step}.{name}": value for name, value in _floats(said).items() if name not in COSTS}
            headroom += _headroom(_floats(said).get("seconds"), _floats(said).get("deadline_s"))
            if "out_of_range" in said:
                out_of_range.add(event.step)
        elif event.kind == NOTE and "failure" in said:
            noted[event.step] = [str(said.get("failure_kind", UNKNOWN)), str(said["failure"])]
            sentence = str(event.data.get("message") or "")
        elif event.kind in FAILURES:
            why = why_of(event.data, noted.get(event.step))
        elif event.kind in (*ENDS, "PIPELINE_CANCELING"):
            has_expired = has_expired or bool(RUN_EXPIRED.search(str(event.data.get("message") or "")))
            if event.kind in ENDS:
                end, ended_s = ENDS[event.kind], event.time_s
    if (end == "canceled" and not has_expired) or run.tags.get(TAKEN_BACK_TAG) == "true":
        return None
    if has_expired:
        end, why, sentence = "failure", ("passing", TIMEOUT), "it passed the deadline of the scan as a whole"
    is_ok = end == "success"
    seconds = max(0.0, ended_s - started_s) if started_s is not None else None
    headroom += _headroom(seconds, kept.deadline_s)
    outcome: Outcome = "ok" if is_ok else REJECTED if why[1] == REJECTED else "failed"
    revision = run.tags.get(ROUTE_REVISION_TAG, "")
    return Observed(
        run=Run(
            run_id=run.run_id,
            scan=run.tags.get(SCAN_TAG, run.run_id),
            release=run.tags.get(RELEASE_TAG, UNKNOWN),
            ended_s=ended_s,
            outcome=outcome,
            failure="" if is_ok else why[1],
            kind="" if is_ok else why[0],
            seconds=seconds,
            headroom=min(headroom, default=None),
            numbers=numbers,
            out_of_range=frozenset(out_of_range),
        ),
        upload=run.tags.get(UPLOAD_TAG, ""),
        sentence="" if is_ok else sentence,
        flight=run.tags.get(FLIGHT_TAG) or None,
        is_shadow=run.tags.get(SHADOW_TAG) == "true",
        revision=int(revision) if revision.isdecimal() else None,
    )


def _floats(said: Mapping[str, float | str | bool]) -> dict[str, float]:
    return {name: value for name, value in said.items() if isinstance(value, float) and math.isfinite(value)}


def _headroom(seconds: float | None, deadline_s: float | None) -> list[float]:
    return [max(0.0, 1.0 - seconds / deadline_s)] if seconds is not None and deadline_s else []
