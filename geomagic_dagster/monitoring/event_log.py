"""Reads Dagster's runs and events, each exactly once, from SQLite and Postgres alike.

Belongs here: finding runs that were not seen before, and reading the events of runs that may have new ones.
Does not belong here: what is read of an event (events.py), SQLite's files (run_files.py), what events mean (fold.py).

Why this way. Dagster has no public call that gives the events of all runs in order. `fetch_run_status_changes`
knows of runs only, `get_event_records` of one kind of event at a time, and on the default SQLite storage ids count
anew in every run's own file, so that no cursor over all runs exists. What holds on every storage: ids grow within a
run, and runs are numbered. So new runs are found by their number (`get_run_records`, public), and each live run is
read on from its own cursor.

A run's events are read past `get_records_for_run`, which is public, with one statement of SQL on Dagster's table
`event_logs`: that call takes 26 ms for the first look at a run of SQLite (it checks the schema of that run's file)
and 2 ms for each one on, mostly for building objects of which a handful of fields are read here. This takes half a
millisecond, and where there is a backlog, other processes take most of that (run_files.py).
The columns are those of Dagster's own `SqlEventLogStorageTable`.

Commits that come late: on Postgres, a row may appear after one with a higher number. For runs, the last `OVERLAP`
are looked at again, known by their ids; for events, a cursor follows a minute behind (fold.py). A clock that
steps moves neither.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy
from dagster import DagsterInstance, DagsterRun, RunRecord, RunsFilter
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as EVENT_LOGS

from geomagic_dagster.monitoring.events import NOTE, READ, TIMES_ONLY, Event, event_of
from geomagic_dagster.monitoring.fold import SETTLE_S, UNKNOWN, LiveRun
from geomagic_dagster.monitoring.run_files import Readers, RunFile, events_of

RELEASE_TAG = "geomagic/release"
DEADLINE_TAG = "geomagic/deadline_s"
RETRY_NUMBER_TAG = "dagster/retry_number"
OVERLAP = 50
RUNS_A_PAGE = 500
RUNS_A_QUERY = 50
BACKLOG = 250
"""Runs of the past, of those to be read at once, from which on it pays to start readers."""


@dataclass
class Seen:
    """Which runs were found so far."""

    recent: dict[str, int] = field(default_factory=dict)
    """The runs with the highest numbers, by their ids."""
    created_s: float = 0.0
    """When the latest of all was made."""

    def add(self, record: RunRecord) -> None:
        self.recent[record.dagster_run.run_id] = record.storage_id
        self.created_s = max(self.created_s, record.create_timestamp.timestamp())
        while len(self.recent) > OVERLAP:
            del self.recent[min(self.recent, key=lambda run_id: self.recent[run_id])]


def new_runs(instance: DagsterInstance, seen: Seen, limit: int = RUNS_A_PAGE) -> tuple[list[RunRecord], bool]:
    """Up to `limit` runs that were not found before, and whether there may be more."""
    oldest = instance.get_run_records(RunsFilter(run_ids=list(seen.recent)), 1, ascending=True) if seen.recent else []
    if oldest:
        page = instance.get_run_records(limit=limit, ascending=True, cursor=oldest[0].dagster_run.run_id)
        return [record for record in page if record.dagster_run.run_id not in seen.recent], len(page) == limit
    # A first look, or somebody deleted all the latest runs, with whom the place went that we had come to.
    reached = max(seen.recent.values(), default=-1)
    found: list[RunRecord] = []
    cursor = None
    while True:
        page = instance.get_run_records(limit=limit, ascending=True, cursor=cursor)
        found += [r for r in page if r.storage_id > reached or r.create_timestamp.timestamp() >= seen.created_s]
        if len(page) < limit or len(found) >= limit:
            return found[:limit], len(found) > limit or len(page) == limit
        cursor = page[-1].dagster_run.run_id


def live_run(record: RunRecord) -> tuple[LiveRun, bool]:
    """What is kept of a run that was found, and whether Dagster started it in the place of one that died."""
    run: DagsterRun = record.dagster_run
    kept = LiveRun(
        job="assets" if run.job_name.startswith("__ASSET_JOB") else run.job_name,
        release=run.tags.get(RELEASE_TAG) or UNKNOWN,
        created_s=record.create_timestamp.timestamp(),
        deadline_s=_positive(run.tags.get(DEADLINE_TAG)),
        is_past=bool(run.is_finished and record.end_time and record.end_time < time.time() - SETTLE_S),
    )
    return kept, RETRY_NUMBER_TAG in run.tags


def still_there(instance: DagsterInstance, run_ids: list[str]) -> set[str]:
    """Those of the runs that nobody deleted."""
    there: set[str] = set()
    for first in range(0, len(run_ids), RUNS_A_PAGE):
        there.update(instance.get_run_ids(RunsFilter(run_ids=run_ids[first : first + RUNS_A_PAGE])))
    return there


def new_events(
    instance: DagsterInstance, runs: Mapping[str, LiveRun], readers: Readers | None = None
) -> Iterator[tuple[str, list[Event]]]:
    """For each run that has any: its events behind its cursor, in the order of their ids.

    `readers` help where there is a backlog in files.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise TypeError(
            f"event log of {instance.root_directory}: expected a storage on SQL, as SQLite and Postgres are; got "
            f"{type(storage).__name__}. Set `storage` in dagster.yaml to sqlite or postgres."
        )
    if storage.is_run_sharded:
        path_of = storage.path_for_shard  # pyright: ignore[reportAttributeAccessIssue]
        files = [RunFile(path_of(run_id), run.read_to, run.is_past) for run_id, run in runs.items()]
        if readers is not None and sum(file.is_past for file in files) >= BACKLOG:
            read = readers.read(files)
        else:
            read = map(events_of, files)
        yield from ((run_id, events) for run_id, events in zip(runs, read, strict=True) if events)
        return
    run_ids = list(runs)
    for first in range(0, len(run_ids), RUNS_A_QUERY):
        read_to = {run_id: runs[run_id].read_to for run_id in run_ids[first : first + RUNS_A_QUERY]}
        by_run: dict[str, list[Event]] = {}
        with storage.index_connection() as connection:
            rows: Any = connection.execute(_statement(read_to))
            for run_id, *row in rows:
                by_run.setdefault(run_id, []).append(event_of(row))
        yield from by_run.items()


def _statement(read_to: Mapping[str, int]) -> Any:
    columns = EVENT_LOGS.c
    behind = (sqlalchemy.and_(columns.run_id == run_id, columns.id > number) for run_id, number in read_to.items())
    return (
        sqlalchemy.select(
            columns.run_id,
            columns.id,
            columns.dagster_event_type,
            columns.step_key,
            columns.timestamp,
            sqlalchemy.case((columns.dagster_event_type.in_(TIMES_ONLY), None), else_=columns.event),
        )
        .where(
            columns.dagster_event_type.in_(READ),
            sqlalchemy.or_(columns.dagster_event_type != NOTE, columns.step_key.is_not(None)),
            sqlalchemy.or_(*behind),
        )
        .order_by(columns.id)
    )


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or 0)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
