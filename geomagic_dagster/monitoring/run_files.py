"""Reads the events of runs that lie in files of their own, as Dagster's SQLite storage keeps them.

Belongs here: one file to its events, and helpers that read many files at once. Does not belong here: which files
(event_log.py), what the events mean (fold.py). Nothing of Dagster is imported here: run as a program, this is such a
helper. It reads requests from its input and ends with it, so that none is left over however the exporter dies.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geomagic_dagster.monitoring.fold import READ, TIMES_ONLY, Event

MANY = 100
"""As many files are worth starting helpers for, which takes a quarter of a second."""
HELPERS = min(4, os.cpu_count() or 1)
AHEAD = 32
"""Requests that a helper has before it: fewer than fill a pipe, so that asking never waits."""

_SELECT = f"""SELECT id, dagster_event_type, step_key, timestamp,
    CASE WHEN dagster_event_type IN ({", ".join(f"'{kind}'" for kind in TIMES_ONLY)}) THEN NULL ELSE event END
    FROM event_logs
    WHERE id > ? AND dagster_event_type IN ({", ".join(f"'{kind}'" for kind in READ)}) ORDER BY id"""


def events_of_file(path: str, read_to: int) -> list[Event]:
    """The events behind an id; none where there is no file (yet, or any more)."""
    if not os.path.exists(path):
        return []
    # Open for writing, and never written: who only reads leaves the two files of the write-ahead log behind.
    with closing(sqlite3.connect(f"{Path(path).as_uri()}?mode=rw", uri=True, timeout=20)) as connection:
        try:
            return [event_of_row(row) for row in connection.execute(_SELECT, (read_to,))]
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # Dagster makes the file first and its tables then
                return []
            raise


def event_of_row(row: Any) -> Event:
    """An event of (id, kind, step, time in UTC, JSON or None)."""
    number, kind, step, time, content = row
    time = datetime.fromisoformat(time) if isinstance(time, str) else time
    return Event(number, kind, step or "", time.replace(tzinfo=UTC).timestamp(), _data(content))


def _data(content: str | None) -> dict[str, Any]:
    """What an event says of its own kind, without pictures; empty where it is not what it should be."""
    if content is None:
        return {}
    try:
        said = json.loads(content).get("dagster_event") or {}
        data = (said.get("event_specific_data") or {}) | {"message": said.get("message")}
        data = data.get("materialization", data)
        if "metadata_entries" in data:
            data["metadata_entries"] = [e for e in data["metadata_entries"] if "md_str" not in e["entry_data"]]
    except (ValueError, AttributeError, KeyError, TypeError):
        return {"metadata_entries": [None]}  # fold.py counts it as unreadable where it needs what is missing
    return data


class Readers:
    """Reads files; with helpers, once there are many."""

    def __init__(self) -> None:
        self.helpers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *error: object) -> None:
        for helper in self.helpers:
            helper.kill()
            helper.communicate()

    def events(self, requests: list[tuple[str, int]]) -> Iterator[list[Event]]:
        """The events of each (path, id), in the order of the requests."""
        if len(requests) < MANY and not self.helpers:
            yield from (events_of_file(*request) for request in requests)
            return
        if not self.helpers:
            command = [sys.executable, "-m", __name__]
            self.helpers = [
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                for _ in range(HELPERS)
            ]
        ahead = AHEAD * len(self.helpers)
        for number in range(len(requests) + ahead):
            if number < len(requests):
                self._ask(number, requests[number])
            if 0 <= number - ahead < len(requests):
                yield self._answer(number - ahead)

    def _ask(self, number: int, request: tuple[str, int]) -> None:
        asked = self.helpers[number % len(self.helpers)].stdin
        assert asked is not None
        asked.write(json.dumps(request) + "\n")
        asked.flush()

    def _answer(self, number: int) -> list[Event]:
        helper = self.helpers[number % len(self.helpers)]
        assert helper.stdout is not None
        line = helper.stdout.readline()
        if not line.endswith("\n"):
            raise ChildProcessError(
                f"{__name__}: expected the events of a file; got the end of the helper that reads it (exit code "
                f"{helper.wait()}). Its last words are in this log; the next look tries again."
            )
        return [Event(*event) for event in json.loads(line)]


def answer(requests: Iterable[str]) -> Iterator[str]:
    """A line of events for each line that asks for a file."""
    for line in requests:
        path, read_to = json.loads(line)
        yield json.dumps(events_of_file(path, read_to), separators=(",", ":")) + "\n"


if __name__ == "__main__":
    for line in answer(sys.stdin):
        sys.stdout.write(line)
        sys.stdout.flush()
