"""Reads Dagster's runs and events, each exactly once, from SQLite and Postgres alike.

Belongs here: finding runs that were not seen before, and reading the events of runs that may have new ones.
Does not belong here: what the events mean (fold.py).

Why this way. Dagster has no public call that gives the events of all runs in order. `fetch_run_status_changes`
knows of runs only, `get_event_records` of one kind of event at a time, and on the default SQLite storage ids count
anew in every run's own file, so that no cursor over all runs exists. What holds on every storage: ids grow within a
run, and runs are numbered. So new runs are found by their number (`get_run_records`, public), and each live run is
read on from its own cursor.

A run's events are read past `get_records_for_run`, which is public, with one statement of SQL on Dagster's table
`event_logs`: that call takes 26 ms for the first look at a run of SQLite (it checks the schema of that run's file)
and 2 ms for each one on, mostly for building objects of which a handful of fields are read here. This takes half a
millisecond. (Reading with several threads or processes was tried, and no faster on two cores.)
The columns are those of Dagster's own `SqlEventLogStorageTable`; the JSON in them is what every later Dagster must
read, since nobody rewrites old logs.

Commits that come late: on Postgres, a row may appear after one with a higher number. For runs, the last `OVERLAP`
are looked at again, known by their ids; for events, a cursor follows a minute behind (fold.py). A clock that
steps moves neither.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

import sqlalchemy
from dagster import DagsterInstance, DagsterRun, RunRecord, RunsFilter
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as EVENT_LOGS
from pydantic_core import from_json

from geomagic_dagster.monitoring.fold import (
    FAILURES,
    NOTE,
    READ,
    RESULTS,
    SETTLE_S,
    TIMES_ONLY,
    UNKNOWN,
    Event,
    LiveRun,
)

RELEASE_TAG = "geomagic/release"
DEADLINE_TAG = "geomagic/deadline_s"
RETRY_NUMBER_TAG = "dagster/retry_number"
OVERLAP = 50
RUNS_A_PAGE = 500
RUNS_A_QUERY = 50
EPOCH = datetime(1970, 1, 1)
NOTHING: Mapping[str, Any] = {}


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


def new_events(instance: DagsterInstance, runs: Mapping[str, LiveRun]) -> Iterator[tuple[str, list[Event]]]:
    """For each run that has any: its events behind its cursor, in the order of their ids."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise TypeError(
            f"event log of {instance.root_directory}: expected a storage on SQL, as SQLite and Postgres are; got "
            f"{type(storage).__name__}. Set `storage` in dagster.yaml to sqlite or postgres."
        )
    if storage.is_run_sharded:
        for run_id, run in runs.items():
            path = storage.path_for_shard(run_id)  # pyright: ignore[reportAttributeAccessIssue]
            if rows := _rows_of_file(path, run.read_to, run.is_past):
                yield run_id, [_event(row) for row in rows]
        return
    run_ids = list(runs)
    for first in range(0, len(run_ids), RUNS_A_QUERY):
        read_to = {run_id: runs[run_id].read_to for run_id in run_ids[first : first + RUNS_A_QUERY]}
        by_run: dict[str, list[Event]] = {}
        with storage.index_connection() as connection:
            for run_id, *row in connection.execute(_statement(read_to)):
                by_run.setdefault(run_id, []).append(_event(row))
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


_OF_FILE = f"""SELECT id, dagster_event_type, step_key, timestamp,
    CASE WHEN dagster_event_type IN ({", ".join(f"'{kind}'" for kind in TIMES_ONLY)}) THEN NULL ELSE event END
    FROM event_logs
    WHERE id > ? AND dagster_event_type IN ({", ".join(f"'{kind}'" for kind in READ)})
        AND (dagster_event_type != '{NOTE}' OR step_key IS NOT NULL)"""


def _rows_of_file(path: str, read_to: int, is_past: bool) -> list[Any]:
    """The rows behind an id; none where there is no file (yet, or any more)."""
    if not os.path.exists(path):
        return []
    # Open for writing, and never written: who only reads leaves the two files of the write-ahead log behind. A file
    # that nobody writes to any more, and that has no such log, is read without locks, in half the time.
    mode = "immutable=1" if is_past and not os.path.exists(f"{path}-wal") else "mode=rw"
    with closing(sqlite3.connect(f"file:{quote(path)}?{mode}", uri=True, timeout=20)) as connection:
        try:
            # Sorted here: SQLite would copy all of the events once more to sort them by their ids.
            return sorted(connection.execute(_OF_FILE, (read_to,)).fetchall())
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # Dagster makes the file first and its tables then
                return []
            raise


def _event(row: Any) -> Event:
    """An event of (id, kind, step, time in UTC, JSON or None)."""
    number, kind, step, at, content = row
    at = datetime.fromisoformat(at) if isinstance(at, str) else at
    return Event(number, kind, step or "", (at - EPOCH).total_seconds(), NOTHING if content is None else _data(content))


def _data(content: str) -> Mapping[str, Any]:
    """The few things that are read of an event; empty where it is not what it should be."""
    try:
        try:
            said = from_json(content)["dagster_event"]  # in half the time of json.loads,
        except ValueError:  # which also reads half a character, as broken names of files have
            said = json.loads(content)["dagster_event"]
        own = said["event_specific_data"] or {}
        data: dict[str, Any] = {"message": said["message"]}
        if said["event_type_value"] == NOTE:
            data["metadata"] = _metadata(own)
        elif said["event_type_value"] in RESULTS:
            data["metadata"] = _metadata(own.get("materialization", own))
        elif said["event_type_value"] in FAILURES:
            data["metadata"] = _metadata(own.get("user_failure_data") or {})
            data["classes"] = list(_classes(own.get("error")))
        elif own.get("failure_reason"):
            data["failure_reason"] = own["failure_reason"]["__enum__"]
    except (ValueError, KeyError, TypeError, AttributeError):  # fold.py counts it where it needs what is missing
        return NOTHING
    return data


def _metadata(data: Mapping[str, Any]) -> dict[str, float | str | bool]:
    """The floats, texts and truth values of an event's metadata, as Dagster writes it down."""
    found: dict[str, float | str | bool] = {}
    for entry in data.get("metadata_entries") or ():
        content = entry["entry_data"]
        value = content.get("value", content.get("text"))
        if isinstance(value, (float, str, bool)):
            found[entry["label"]] = value
    return found


def _classes(error: Mapping[str, Any] | None) -> Iterator[str]:
    """The class of an exception and of those behind it."""
    while error:
        yield str(error["cls_name"])
        error = error.get("cause")


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or 0)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
