"""The files in which Dagster's SQLite keeps the events of one run each, and processes that read many of them.

Belongs here: reading such a file, and sharing many of them out. Does not belong here: which runs are read
(event_log.py), what is read of an event (events.py) and what it means (fold.py).

Most of a first look goes to opening these files (SQLite reads the schema of each one anew) and to their JSON. A reader
does both in a process of its own, so that a second core helps; threads would wait for each other's lock. It is this
module as a program and no fork, since the exporter has threads by then. Its work comes over a socket of which the
exporter alone holds the other end, so it ends when the exporter does, however that ends. Readers live for one look,
and are started for a backlog only: the few runs of a working day are read on the spot.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any, NamedTuple
from urllib.parse import quote

from geomagic_dagster.monitoring.events import NOTE, READ, TIMES_ONLY, Event, Row, event_of, fields_of

log = logging.getLogger("geomagic.metrics")

READERS = 2
"""Counting takes a third of the time of reading: a third reader would wait for it."""
FILES_AT_ONCE = 25
ASKED_AHEAD = 2
"""So many lots of files are a reader's at a time: one to read, one to go on with at once."""
END_WITHIN_S = 10.0
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(64 * 2**20)}
"""For glibc: freed memory is kept, up to so much. A process as small as a reader would give it back and get it anew for
every file, which costs a fifth of its time."""


class RunFile(NamedTuple):
    path: str
    read_to: int
    """Only the events behind this id are read."""
    is_past: bool
    """Whether the run ended so long ago that nobody writes to it any more."""


class ReaderDied(Exception):
    """A reader ended before its work was done."""


def events_of(file: RunFile) -> list[Event]:
    """Its events, in the order of their ids."""
    return [event_of(row) for row in rows_of(file)]


_ROWS = f"""SELECT id, dagster_event_type, step_key, timestamp,
    CASE WHEN dagster_event_type IN ({", ".join(f"'{kind}'" for kind in TIMES_ONLY)}) THEN NULL ELSE event END
    FROM event_logs
    WHERE id > ? AND dagster_event_type IN ({", ".join(f"'{kind}'" for kind in READ)})
        AND (dagster_event_type != '{NOTE}' OR step_key IS NOT NULL)"""


def rows_of(file: RunFile) -> list[Row]:
    """Its rows, in the order of their ids; none where there is no file (yet, or any more)."""
    path = file.path
    if not os.path.exists(path):
        return []
    # Open for writing, and never written: who only reads leaves the two files of the write-ahead log behind. A file
    # that nobody writes to any more, and that has no such log, is read without locks, in half the time.
    mode = "immutable=1" if file.is_past and not os.path.exists(f"{path}-wal") else "mode=rw"
    with closing(sqlite3.connect(f"file:{quote(path)}?{mode}", uri=True, timeout=20)) as connection:
        try:
            # Sorted here: SQLite would copy all of the events once more to sort them by their ids.
            return sorted(connection.execute(_ROWS, (file.read_to,)).fetchall())
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # Dagster makes the file first and its tables then
                return []
            raise
        except sqlite3.DatabaseError as error:  # of a disk that failed: one run shall not hide all the others
            log.error("%s: expected the events of a run; got %s. None of them is counted. Delete the run.", path, error)
            return []


class Readers:
    """Processes that read; started when they are first needed, gone after the `with`."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count or READERS
        self._started: list[tuple[subprocess.Popen[bytes], Connection]] = []

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> None:
        for _, connection in self._started:
            connection.close()  # it ends by that
        for process, _ in self._started:
            try:
                process.wait(END_WITHIN_S)
            except subprocess.TimeoutExpired:  # a disk that does not answer
                process.kill()
                process.wait()
        self._started.clear()

    def read(self, files: Sequence[RunFile]) -> Iterator[list[Event]]:
        """The events of each file, in the order of the files. Raises: ReaderDied; whatever reading one raised."""
        while len(self._started) < self.count:
            self._started.append(_start())
        lots = [files[first : first + FILES_AT_ONCE] for first in range(0, len(files), FILES_AT_ONCE)]
        asked: deque[tuple[subprocess.Popen[bytes], Connection]] = deque()
        try:
            for number, lot in enumerate(lots):
                asked.append(self._started[number % self.count])
                _ask(*asked[-1], lot)
                if len(asked) == self.count * ASKED_AHEAD:
                    yield from _answer(*asked[0])
                    asked.popleft()
            while asked:
                yield from _answer(*asked[0])
                asked.popleft()
        finally:
            if asked:  # what is still to come would be taken for the answer to the next question
                self.end()


def _start() -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=os.environ | KEEP_MEMORY,
        )
    return process, Connection(ours.detach())


def _ask(process: subprocess.Popen[bytes], connection: Connection, lot: Sequence[RunFile]) -> None:
    try:
        connection.send([tuple(file) for file in lot])
    except OSError as error:
        raise _died(process) from error


def _answer(process: subprocess.Popen[bytes], connection: Connection) -> Iterator[list[Event]]:
    try:
        answer: Any = connection.recv()
    except (EOFError, OSError) as error:
        raise _died(process) from error
    if isinstance(answer, Exception):
        raise answer
    for events in answer:
        yield [Event._make(fields) for fields in events]


def _died(process: subprocess.Popen[bytes]) -> ReaderDied:
    process.wait(END_WITHIN_S)
    return ReaderDied(
        f"reader of the event log (process {process.pid}): expected the events of up to {FILES_AT_ONCE} runs; got its "
        f"end (exit code {process.returncode}). Nothing is lost: the next look reads them again. If it stays so, look "
        "for what ends processes on this machine (dmesg says when memory ran out)."
    )


def main(descriptor: int) -> None:
    """Reads what it is asked for until nobody can ask any more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # They go to the whole group of processes; the exporter ends its look first, and its readers with it.
        signal.signal(number, signal.SIG_IGN)
    with Connection(descriptor) as connection:
        while True:
            try:
                lot = connection.recv()
            except (EOFError, ConnectionResetError):
                return
            try:
                answer: Any = [[fields_of(row) for row in rows_of(RunFile(*file))] for file in lot]
            except Exception as error:  # it is raised where the events are waited for
                answer = error
            try:
                connection.send(answer)
            except (BrokenPipeError, ConnectionResetError):
                return


if __name__ == "__main__":
    main(int(sys.argv[1]))
