"""One event of Dagster's log: which kinds are read, and what is read of each.

Belongs here: from a row of the log to an `Event`. Does not belong here: how rows are found (event_log.py,
run_files.py), what an event adds to the numbers (fold.py), nor any import that can be spared: readers are processes
that load no more than this (run_files.py).

The JSON in a row is what every later Dagster must read, since nobody rewrites old logs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic_core import from_json

ENDS = {"PIPELINE_SUCCESS": "success", "PIPELINE_FAILURE": "failure", "PIPELINE_CANCELED": "canceled"}
STARTS = ("STEP_START", "STEP_RESTARTED")
TIMES_ONLY = ("PIPELINE_START", *STARTS, "STEP_SUCCESS")
"""Of these only the time is of interest: what else they hold is not read."""
FAILURES = ("STEP_FAILURE", "STEP_UP_FOR_RETRY")
RESULTS = ("STEP_OUTPUT", "ASSET_MATERIALIZATION")
NOTE = "ENGINE_EVENT"
"""What a step says while it runs: how far it has come, and why an attempt failed, which Dagster itself forgets where
the step is tried again."""
READ = (*TIMES_ONLY, *ENDS, "PIPELINE_CANCELING", *FAILURES, *RESULTS, NOTE)
"""The kinds of events that are read at all."""
TEXT_LENGTH = 200
"""A text of an event's metadata is kept so far: more than a name has, less than a picture that is written as one."""
EPOCH = datetime(1970, 1, 1)
NOTHING: Mapping[str, Any] = {}


class Event(NamedTuple):
    """One row of the log.

    `data` holds, for results, failures and notes, the floats, truth values and (first characters of the) texts of their
    `metadata`, and for failures the `classes` of the exception and of those behind it; for others and notes the
    `message`, and for runs that failed the `failure_reason`.
    """

    id: int
    kind: str
    step: str
    time_s: float
    data: Mapping[str, Any]


Row = Sequence[Any]
"""Id, kind, step, time in UTC (a datetime, or a text on SQLite), JSON (None for `TIMES_ONLY`)."""
Fields = tuple[int, str, str, float, Mapping[str, Any]]
"""An `Event` as a plain tuple, which crosses the border of a process in a third of the time."""


def fields_of(row: Row) -> Fields:
    number, kind, step, at, content = row
    at = datetime.fromisoformat(at) if isinstance(at, str) else at
    return number, kind, step or "", (at - EPOCH).total_seconds(), NOTHING if content is None else data_of(content)


def event_of(row: Row) -> Event:
    return Event._make(fields_of(row))


def data_of(content: str) -> Mapping[str, Any]:
    """The few things that are read of an event; empty where it is not what it should be."""
    try:
        try:
            said = from_json(content)["dagster_event"]  # in half the time of json.loads,
        except ValueError:  # which also reads half a character, as broken names of files have
            said = json.loads(content)["dagster_event"]
        own = said["event_specific_data"] or {}
        kind = said["event_type_value"]
        if kind in RESULTS:
            return {"metadata": _metadata(own.get("materialization", own))}
        if kind in FAILURES:
            return {
                "metadata": _metadata(own.get("user_failure_data") or {}),
                "classes": list(_classes(own.get("error"))),
            }
        data: dict[str, Any] = {"message": said["message"]}
        if kind == NOTE:
            data["metadata"] = _metadata(own)
        elif own.get("failure_reason"):
            data["failure_reason"] = own["failure_reason"]["__enum__"]
    except (ValueError, KeyError, TypeError, AttributeError):  # fold.py counts it where it needs what is missing
        return NOTHING
    return data


def _metadata(data: Mapping[str, Any]) -> dict[str, float | str | bool]:
    """The floats, texts (cut short) and truth values of an event's metadata, as Dagster writes it down."""
    found: dict[str, float | str | bool] = {}
    for entry in data.get("metadata_entries") or ():
        content = entry["entry_data"]
        value = content.get("value", content.get("text"))
        if isinstance(value, str):
            found[entry["label"]] = value[:TEXT_LENGTH]
        elif isinstance(value, (float, bool)):
            found[entry["label"]] = value
    return found


def _classes(error: Mapping[str, Any] | None) -> Iterator[str]:
    """The class of an exception and of those behind it."""
    while error:
        yield str(error["cls_name"])
        error = error.get("cause")
