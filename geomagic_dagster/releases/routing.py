"""Where the routing table lies, and how one revision follows another.

Belongs here: reading the revision that is in force, whatever happened to the others, and writing the next one. Does not
belong here: what a table says (routing_table.py), the changes that people make (routing_changes.py).

    <routing url>/000000012.json    one revision: created where none was, never changed

Two writers at once: both read 12, both try to create 13, one does; the other reads 13, makes its change to that, and
creates 14. So each revision is what one writer wrote to what it had read, never a mixture.

The highest valid revision is in force. Where the place does not answer, or what was in force is gone from it, the
copy on this machine's disk (`last_good`) is. Both are said in `Reading.problem`, in the log, and in a metric.

Reading is cheap: the revision that was in force last, and the one behind it, two requests. The whole place is listed
only once a minute.
"""

from __future__ import annotations

import copy
import inspect
import json
import logging
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from geomagic_dagster.guardrails.whole_files import create_whole, replace_whole
from geomagic_dagster.releases.routing_table import (
    NEVER,
    SCHEMA,
    Flag,
    Flight,
    Probation,
    Route,
    RoutingRefused,
    RoutingTable,
    check,
    parse,
    read_document,
)

__all__ = [
    "NEVER",
    "Flag",
    "Flight",
    "Probation",
    "Reading",
    "Route",
    "RoutingRefused",
    "RoutingStore",
    "RoutingTable",
    "RoutingUnavailable",
]

log = logging.getLogger("geomagic.routing")

FILE = re.compile(r"(\d{9})\.json")
LIST_AGAIN_S = 60.0
SAY_AGAIN_S = 600.0
"""A problem that stays is said so often; the metric says it all the time."""
MOST_ATTEMPTS = 200
LONGEST_PAUSE_S = 0.1
CONFLICT = "ConditionalRequestConflict"
"""What S3 answers to one of two who create the same file at the same moment."""
WRITE_ID = "write_id"
"""In the document: a writer whose answer got lost knows its own revision by it."""


class RoutingUnavailable(Exception):
    """Nothing says which table is in force: nothing may be routed now, and nothing is lost by waiting."""


@dataclass(frozen=True)
class Reading:
    """The table in force, and what is wrong with the place, if anything is."""

    table: RoutingTable
    problem: str | None = None


@dataclass
class _Known:
    """What this process knows of one place."""

    table: RoutingTable | None = None
    listed_s: float = float("-inf")
    said: tuple[str, float] = ("", float("-inf"))


_known: dict[tuple[str, str], _Known] = {}
_lock = threading.Lock()


class RoutingStore:
    """The tables at `url`, a local folder or an fsspec URL that can create a file only where there is none.

    Args:
        url: "/some/folder", "s3://bucket/prefix".
        last_good: file on this machine's disk that keeps the table that was in force last.
    """

    def __init__(self, url: str, last_good: Path) -> None:
        self.url, self.last_good = url, Path(last_good)
        self.fs: AbstractFileSystem
        self.fs, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self._is_local = isinstance(self.fs, LocalFileSystem)
        with _lock:
            self._known = _known.setdefault((url, str(last_good)), _Known())

    # --- reading ----------------------------------------------------------------------------------

    def read(self) -> Reading:
        """The table in force. Raises: RoutingUnavailable where neither the place nor this machine knows any."""
        known = self._known.table or self._read_last_good()
        try:
            reading, listed = self._look(known)
        except Exception as error:  # whatever a file system of somebody else raises when nobody answers
            if known is None:
                raise RoutingUnavailable(
                    f"routing table in {self.url}: expected a place that answers; got {_words(error)}. No table is "
                    "known on this machine either: nothing is routed until it answers."
                ) from error
            reading = Reading(
                known, f"{self.url}: expected a place that answers; got {_words(error)}. {_in_force(known)}"
            )
            listed = False
        if listed:
            self._known.listed_s = time.monotonic()
        if reading.table.revision:
            self._remember(reading.table)
        self._say(reading.problem)
        return reading

    def on_this_machine(self) -> RoutingTable | None:
        """The table that was in force when anybody on this machine read it last; asks nobody but the local disk."""
        return self._read_last_good()

    def history(self, after: int = 0) -> Iterator[RoutingTable]:
        """Every valid revision behind `after`, the oldest first."""
        yield from self._valid(number for number in self._numbers() if number > after)

    def backwards(self, before: int) -> Iterator[RoutingTable]:
        """Every valid revision in front of `before`, the newest first; each is read when it is asked for."""
        yield from self._valid(number for number in reversed(self._numbers()) if number < before)

    def _valid(self, numbers: Iterable[int]) -> Iterator[RoutingTable]:
        for number in numbers:
            try:
                yield self._get(number)
            except RoutingRefused as error:
                log.warning("%s", error)

    def _look(self, known: RoutingTable | None) -> tuple[Reading, bool]:
        """What is in force, and whether the whole place was listed."""
        is_due = time.monotonic() - self._known.listed_s > LIST_AGAIN_S
        if known is not None and not is_due:
            newest, problems = self._climb(known)
            if newest is not None:
                return Reading(newest, _joined(problems, newest)), False
        return self._highest(self._numbers(), known), True

    def _highest(self, numbers: list[int], known: RoutingTable | None) -> Reading:
        """What is in force where these revisions are there."""
        problems: list[str] = []
        for number in reversed(numbers):
            if known is not None and number < known.revision:
                break
            try:
                table = self._get(number)
            except RoutingRefused as error:
                problems.append(str(error))
                continue
            return Reading(table, _joined(problems, table))
        if known is not None:
            there = f"revision {numbers[-1]} as the highest" if numbers else "no table at all"
            problems.append(f"{self.url}: expected revision {known.revision}, which was in force; got {there}.")
            return Reading(known, _joined(problems, known))
        if numbers:
            raise RoutingRefused(
                self.url, expected="one valid revision", received=" ".join(problems), do="Put one of them right."
            )
        return Reading(NEVER)

    def _climb(self, known: RoutingTable) -> tuple[RoutingTable | None, list[str]]:
        """The highest valid revision from what is known upwards; None where what is known is gone."""
        problems: list[str] = []
        newest: RoutingTable | None = None
        number = known.revision
        while True:
            try:
                newest, problems = self._get(number), []
            except FileNotFoundError:
                break
            except RoutingRefused as error:
                problems.append(str(error))
                newest = newest or known
            number += 1
        return (None if number == known.revision else newest), problems

    def _numbers(self) -> list[int]:
        """The revisions that are there, ascending."""
        self.fs.invalidate_cache(self._root)
        try:
            paths = self.fs.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        matches = (FILE.fullmatch(str(path).rsplit("/", 1)[-1]) for path in paths)
        return sorted(int(match.group(1)) for match in matches if match)

    def _get(self, number: int) -> RoutingTable:
        """Raises: FileNotFoundError, RoutingRefused where it is broken."""
        place = f"routing table {self._file(number)}"
        self.fs.invalidate_cache(self._root)  # s3fs asks its last listing whether a file is there
        table = parse(self.fs.cat_file(self._file(number)), place)
        if table.revision != number:
            raise RoutingRefused(
                place, expected=f"revision {number}", received=str(table.revision), do="Never change one by hand."
            )
        return table

    def _file(self, number: int) -> str:
        return f"{self._root}/{number:09d}.json"

    # --- writing ----------------------------------------------------------------------------------

    def change(
        self, edit: Callable[[dict[str, Any]], None], *, by: str, why: str, only_if: int | None = None
    ) -> RoutingTable:
        """Writes the next revision: the document of the one in force, as `edit` changed it.

        Args:
            edit: changes the document; called again where another writer was first. Refuses by RoutingRefused.
            only_if: the revision that has to be in force still, for whoever decided by looking at it.

        Raises: RoutingRefused, RoutingUnavailable.
        """
        for name, said in (("by", by), ("why", why)):
            if not said.strip():
                raise RoutingRefused(
                    f"change of the routing table, {name}", expected="words", received="nothing", do="Say who and why."
                )
        for attempt in range(MOST_ATTEMPTS):
            number, base = self._next()
            if only_if is not None and base.revision != only_if:
                raise RoutingRefused(
                    "change of the routing table",
                    expected=f"revision {only_if}, which it was decided by",
                    received=f"revision {base.revision}, by {base.written_by}: {base.why}",
                    do="Look again.",
                )
            table = _edited(base, edit, number, by.strip(), why.strip())
            if self._create(number, table):
                self._remember(table)
                return table
            time.sleep(random.uniform(0, min(LONGEST_PAUSE_S, 0.002 * 2**attempt)))
        raise RoutingUnavailable(
            f"{self.url}: expected a turn to write; got none in {MOST_ATTEMPTS} attempts. Try again."
        )

    def _next(self) -> tuple[int, RoutingTable]:
        """The number to write, and the table that it follows."""
        known = self._known.table or self._read_last_good()
        try:
            numbers = self._numbers()  # before the table is read: what comes in between makes our number a taken one
            reading = self._highest(numbers, known)
        except Exception as error:
            raise RoutingUnavailable(
                f"{self.url}: expected a place that can be written; got {_words(error)}. Nothing was changed."
            ) from error
        self._say(reading.problem)
        return max([reading.table.revision, *numbers]) + 1, reading.table

    def _create(self, number: int, table: RoutingTable) -> bool:
        """Whether this revision is ours now; it appears whole, and only where none is."""
        content, path = (json.dumps(table.document, indent=1) + "\n").encode(), self._file(number)
        try:
            if self._is_local:
                create_whole(Path(path), content)
            else:
                self._create_elsewhere(path, content)
        except FileExistsError:
            with suppress(RoutingRefused, FileNotFoundError):
                return self._get(number).document.get(WRITE_ID) == table.document[WRITE_ID]
            return False
        except OSError as error:
            if CONFLICT in str(error):
                return False
            raise RoutingUnavailable(
                f"{self.url}: expected a place that can be written; got {_words(error)}. Look at "
                "`geomagic route show`: the change is there, or has to be made again."
            ) from error
        return True

    def _create_elsewhere(self, path: str, content: bytes) -> None:
        write = getattr(self.fs, "_pipe_file", None)  # of s3fs, gcsfs, adlfs: a conditional request
        if write is None and type(self.fs).pipe_file is not AbstractFileSystem.pipe_file:
            write = self.fs.pipe_file
        if write is None or "mode" not in inspect.signature(write).parameters:
            # fsspec's own pipe_file looks first and writes then: two writers may both see none
            raise RoutingUnavailable(
                f"{self.url}: expected a store that creates a file only where there is none (a local folder, s3, gs, "
                f"abfs); got {type(self.fs).__name__}, which cannot. Point GEOMAGIC_ROUTING at one that can."
            )
        self.fs.pipe_file(path, content, mode="create")

    # --- what this machine remembers ----------------------------------------------------------------

    def _remember(self, table: RoutingTable) -> None:
        known = self._known.table
        if known is not None and known.revision > table.revision:
            return
        self._known.table = table
        kept = self._read_last_good()
        if kept is not None and kept.revision >= table.revision:
            return
        content = json.dumps({"schema": 1, "url": self.url, "table": table.document}).encode()
        try:
            replace_whole(self.last_good, content)
        except OSError as error:
            log.error("%s: expected to keep the routing table there; got: %s", self.last_good, error.strerror or error)

    def _read_last_good(self) -> RoutingTable | None:
        try:
            kept = json.loads(self.last_good.read_bytes())
            return read_document(kept["table"], str(self.last_good)) if kept["url"] == self.url else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s: expected the copy of a routing table; got %s. It is written anew.", self.last_good, error)
            return None

    def _say(self, problem: str | None) -> None:
        said, when_s = self._known.said
        if problem and (problem != said or time.monotonic() - when_s > SAY_AGAIN_S):
            log.error("routing table: %s", problem)
            self._known.said = (problem, time.monotonic())
        elif not problem and said:
            log.info("routing table: good again")
            self._known.said = ("", float("-inf"))


def now_text() -> str:
    """The time as tables write it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _edited(base: RoutingTable, edit: Callable[[dict[str, Any]], None], number: int, by: str, why: str) -> RoutingTable:
    document: dict[str, Any] = copy.deepcopy(dict(base.document))
    document = {"live": list(base.live), "flights": [], "pins": {}, "flags": {}, "probation": None} | document
    edit(document)
    document["schema"] = max(SCHEMA, base.schema)
    document |= {"revision": number, "written_at": now_text(), "written_by": by, "why": why}
    document[WRITE_ID] = uuid.uuid4().hex
    table = read_document(json.loads(json.dumps(document)), "the routing table after this change")
    check(table)
    return replace(table, document=document)


def _joined(problems: list[str], table: RoutingTable) -> str | None:
    return " ".join([*problems, _in_force(table)]) if problems else None


def _in_force(table: RoutingTable) -> str:
    return f"Revision {table.revision} stays in force."


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
