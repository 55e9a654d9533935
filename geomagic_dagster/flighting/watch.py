"""`geomagic watch`: ends flights of releases that are worse, tries out a new default, and goes back where it fails.

Belongs here: the loop, and what a verdict does to the routing table. Does not belong here: the verdicts themselves
(compare.py, smoke.py).

It remembers nothing that matters. The table says what flies and what is on probation; Dagster says what the runs did;
the same runs give the same verdict. So it may be killed at any moment: what it had not written it finds again, and
what it had written is not there any more to be done twice. A change is made to the table that is in force when it is
written, and refused if the flight or the probation that it is about is gone by then.

Where the table cannot be read, the last good one stays in force (releases/routing.py), the watcher says so, and goes
on watching. Where it cannot be written, it tries again at each look.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dagster import DagsterInstance

from geomagic_dagster.flighting.again import Again
from geomagic_dagster.flighting.compare import Limits, compare, compare_pairs
from geomagic_dagster.flighting.course import write_course
from geomagic_dagster.flighting.observe import Observed, Observer
from geomagic_dagster.flighting.promote import name_smoke_scan, off_probation
from geomagic_dagster.flighting.rejected import Rejected
from geomagic_dagster.flighting.runs import Pair, Ranges, Trial
from geomagic_dagster.flighting.smoke import Smoke, seconds_of
from geomagic_dagster.flighting.stuck import why_stuck
from geomagic_dagster.flighting.verdict import Verdict
from geomagic_dagster.guardrails.locks import held
from geomagic_dagster.guardrails.whole_files import replace_whole
from geomagic_dagster.releases.routing import (
    Flight,
    Probation,
    RoutingRefused,
    RoutingStore,
    RoutingTable,
)
from geomagic_dagster.releases.routing_changes import end_flight

BY = "watcher"
LOOK_EVERY_S = 3.0

log = logging.getLogger("geomagic.watch")


class CannotWatch(Exception):
    """Another watcher is running; `str()` is the place, what was expected, what came, and what to do next."""


@dataclass
class Counts:
    """What the watcher did since it was first started, and how it is; for the metrics."""

    looked_s: float = 0.0
    problems: int = 0
    """Looks that failed in part."""
    problem: str = ""
    """What is wrong now."""
    flights_ended: int = 0
    rollbacks: int = 0
    smoke_scans_passed: int = 0
    rolled_back_after_s: float | None = None
    """From the first bad run, or from the probation's start, to the change of the table; of the last one."""
    evidence: dict[str, float] = field(default_factory=dict)
    """Of each flight, as a part of what ends it."""
    sentences: dict[str, str] = field(default_factory=dict)
    """How each flight stands, for people."""


class Watcher:
    """Watches one installation. Call `look()` every few seconds.

    Args:
        ranges_of: expected ranges ("stage.number") of a release's numbers.
        kept: file for the counts.
        at: hears how far it has come; tests end the process there.
    """

    def __init__(
        self,
        instance: DagsterInstance,
        routing: RoutingStore,
        smoke: Smoke,
        ranges_of: Callable[[str], Ranges],
        again: Again,
        rejected: Rejected,
        kept: Path,
        *,
        limits: Limits = Limits(),
        now: Callable[[], float] = time.time,
        at: Callable[[str], None] = lambda point: None,
    ) -> None:
        self.routing, self.smoke, self.limits = routing, smoke, limits
        self.again, self.rejected = again, rejected
        self.observer = Observer(instance)
        self.verdicts: dict[str, Verdict] = {}
        """The latest of each flight."""
        self._ranges_of, self._kept, self._now, self._at = ranges_of, kept, now, at
        self._tables: dict[int, RoutingTable] = {}
        self._judged: dict[str, tuple[int, ...]] = {}
        self._first_seen_s: dict[str, float] = {}
        self.counts = read_counts(kept)

    def prepare(self) -> None:
        """Makes what takes long and a new default would have to wait for; without it, it is made then."""
        with self._saying("smoke scan", []):
            self.smoke.scan(self.routing.read().table)

    def look(self) -> None:
        """Once over everything. What fails is said, and tried again at the next look; the rest goes on."""
        problems: list[str] = []
        with self._saying("routing table", problems):
            reading = self.routing.read()
            if reading.problem:
                problems.append(reading.problem)
            table = reading.table
            with self._saying("probation", problems):
                self._look_at_probation(table)
            with self._saying("flights", problems):
                self._look_at_flights(table, problems)
            with self._saying("failed uploads", problems):
                self.again.look(table)
            with self._saying("rejected uploads", problems):
                self.rejected.look(table)
        if problems:
            self.counts.problems += 1
        self.counts.problem, self.counts.looked_s = " ".join(problems)[:500], self._now()
        with self._saying(str(self._kept), problems):
            replace_whole(self._kept, json.dumps(asdict(self.counts)).encode())

    @contextmanager
    def _saying(self, place: str, problems: list[str]) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is may pass; the metrics tell somebody if it does not
            problems.append(f"{place}: {type(error).__name__}: {error}")
            log.exception("%s: the watcher could not look; it tries again", place)

    # --- flights ----------------------------------------------------------------------------------

    def _look_at_flights(self, table: RoutingTable, problems: list[str]) -> None:
        flights = [flight for flight in table.flights if flight.release in table.live]
        self.verdicts = {flight.id: self.verdicts[flight.id] for flight in flights if flight.id in self.verdicts}
        self.counts.evidence, self.counts.sentences = {}, {}
        if not flights:
            self.observer.forget()
            self._tables.clear()
            self._judged.clear()
            return
        seen = self.observer.look(min(self._began_s(flight) for flight in flights))
        self._learn({each.revision for each in seen if each.revision is not None})
        instance, inbox = self.observer.instance, Path(self.smoke.places.inbox)
        for flight in flights:
            verdict = self._verdict(flight, seen, table, problems)
            self.counts.evidence[flight.id] = verdict.evidence / verdict.needed
            self.counts.sentences[flight.id] = verdict.sentence
            if verdict.is_worse:
                self._end(flight, verdict.sentence, verdict.first_bad_s)
            elif not flight.shadow and (stuck := why_stuck(instance, inbox, flight, table, self._now())):
                self._end(flight, *stuck)

    def _verdict(self, flight: Flight, seen: Sequence[Observed], table: RoutingTable, problems: list[str]) -> Verdict:
        trials, pairs = self._trials(flight, seen), self._pairs(flight, seen)
        known = (len(trials), len(pairs), table.revision)
        if self._judged.get(flight.id) == known and flight.id in self.verdicts:
            return self.verdicts[flight.id]
        ranges = {**self._ranges_of(flight.release), **self._ranges_of(table.default)}
        said: dict[str, Any] = {
            "may_change": _may_change(table, flight.id),
            "flight": f"release {flight.release}",
            "other": f"the default {table.default}",
            "limits": self.limits,
        }
        verdict = compare_pairs(pairs, ranges, **said) if flight.shadow else compare(trials, ranges, **said)
        self.verdicts[flight.id], self._judged[flight.id] = verdict, known
        with self._saying(f"course of {flight.id}", problems):  # a full disk keeps no bad flight in the air
            write_course(self._kept.parent, flight.id, verdict)
        return verdict

    def _trials(self, flight: Flight, seen: Sequence[Observed]) -> list[Trial]:
        """Runs whose release the lot of this flight decided: no pins, no shadows, nothing that a person chose, and
        nothing that another release had to take because its own did not load."""
        trials = []
        for each in seen:
            table = self._tables.get(each.revision or -1)
            then = next((other for other in table.flights if other.id == flight.id), None) if table else None
            if table is None or then is None or each.is_shadow or each.run.scan in table.pins:
                continue
            is_flight = each.flight == flight.id and each.run.release == flight.release
            is_other = each.flight is None and each.run.release == table.default
            if (is_flight or is_other) and is_flight == then.takes(each.run.scan):
                trials.append(Trial(each.run, is_flight, then.per_cent / 100.0))
        return trials

    def _pairs(self, flight: Flight, seen: Sequence[Observed]) -> list[Pair]:
        """Shadow runs of this flight, each with the run that the customer got."""
        given: dict[str, Observed] = {}
        for each in seen:
            table = self._tables.get(each.revision or -1)
            if table and not each.is_shadow and each.flight is None and each.run.release == table.default:
                given.setdefault(each.run.scan, each)
        shadows = (each for each in seen if each.is_shadow and each.flight == flight.id)
        return [Pair(each.run, given[each.run.scan].run) for each in shadows if each.run.scan in given]

    def _learn(self, revisions: set[int]) -> None:
        """Reads the tables that routed these runs; a share may have changed during a flight."""
        if unknown := revisions - self._tables.keys():
            for table in self.routing.history(after=min(unknown) - 1):
                self._tables[table.revision] = table

    def _end(self, flight: Flight, sentence: str, since_s: float | None) -> None:
        self._at("worse")
        if not self._change(end_flight(flight.id, taken_back=True), f"flight {flight.id} ended: {sentence}"):
            return
        self._at("ended")
        after_s = max(0.0, self._now() - (since_s or self._now()))
        self.counts.flights_ended += 1
        self.counts.rolled_back_after_s = after_s
        del self.counts.evidence[flight.id], self.counts.sentences[flight.id]
        log.error("flight %s of %s ended, rolled_back_after_s=%.1f: %s", flight.id, flight.release, after_s, sentence)

    def _began_s(self, flight: Flight) -> float:
        return seconds_of(flight.started_at) or self._first_seen_s.setdefault(flight.id, self._now())

    # --- probation --------------------------------------------------------------------------------

    def _look_at_probation(self, table: RoutingTable) -> None:
        probation = table.probation
        if probation is None:
            return
        if not probation.smoke_upload or probation.smoke_upload not in table.pins:
            table = self.routing.change(_named(probation), by=BY, why=f"smoke scan for the new default {table.default}")
            probation = table.probation
            if probation is None or not probation.smoke_upload:
                return
        seen_s = self._first_seen_s.setdefault(probation.smoke_upload, self._now())
        try:
            scan = self.smoke.scan(table)
        except FileNotFoundError as error:
            self._finish(probation, seen_s, failed=True, why=str(error))
            return
        standing = self.smoke.stand(probation, scan, seen_s, self._now())
        if standing.what == "send":
            self.smoke.send(scan, probation.smoke_upload)
            log.info("%s: sent to try out %s", probation.smoke_upload, probation.release)
        elif standing.what in ("passed", "failed"):
            self._finish(probation, seen_s, failed=standing.what == "failed", why=standing.why)

    def _finish(self, probation: Probation, seen_s: float, *, failed: bool, why: str) -> None:
        self._at("judged")
        said = f"smoke scan {probation.smoke_upload} of {probation.release} {'failed' if failed else 'passed'}: {why}"
        if failed:
            said += f". The default is {probation.previous} again."
        if not self._change(off_probation(probation.release, failed=failed, since=probation.since), said):
            return
        self._at("finished")
        self._first_seen_s.pop(probation.smoke_upload, None)
        if failed:
            after_s = max(0.0, self._now() - (seconds_of(probation.since) or seen_s))
            self.counts.rollbacks += 1
            self.counts.rolled_back_after_s = after_s
            log.error("default %s rolled back, rolled_back_after_s=%.1f: %s", probation.release, after_s, said)
            self.smoke.withdraw(probation.smoke_upload)
        else:
            self.counts.smoke_scans_passed += 1
            log.info("%s", said)

    def _change(self, edit: Callable[[dict], None], why: str) -> bool:
        """Whether the table was changed; False where somebody was quicker. Raises: RoutingUnavailable."""
        try:
            self.routing.change(edit, by=BY, why=why)
        except RoutingRefused as refused:
            log.warning("nothing to do any more: %s", refused)
            return False
        return True


def _named(probation: Probation) -> Callable[[dict], None]:
    def edit(document: dict) -> None:
        there = document.get("probation") or {}
        if there.get("since") != probation.since or there.get("release") != probation.release:
            raise RoutingRefused(
                "smoke scan",
                expected=f"{probation.release} on probation",
                received=str(there.get("release") or "none"),
                do="Nothing: it is over.",
            )
        name_smoke_scan(document)

    return edit


def _may_change(table: RoutingTable, flight: str) -> tuple[str, ...]:
    entry = next((each for each in table.document.get("flights", ()) if each.get("id") == flight), {})
    return tuple(str(name) for name in entry.get("may_change") or ())


def read_counts(kept: Path) -> Counts:
    """What the watcher said of itself after its last look."""
    try:
        said = json.loads(kept.read_bytes())
        return Counts(**{name: said[name] for name in Counts.__dataclass_fields__ if name in said})
    except FileNotFoundError:
        return Counts()
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("%s: expected the counts of a watcher; got %s. They begin anew.", kept, error)
        return Counts()


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Holds this file for this process; the kernel lets go of it however the process ends. Raises: CannotWatch."""
    with ExitStack() as lock:
        try:
            lock.enter_context(held(path, wait=False))
        except BlockingIOError as error:
            raise CannotWatch(
                f"{path}: expected no other watcher of this installation; got one that is running. It is enough."
            ) from error
        yield


def serve(watcher: Watcher, stop: threading.Event, every_s: float = LOOK_EVERY_S) -> None:
    """Looks every few seconds until `stop` is set."""
    watcher.prepare()
    while not stop.is_set():
        watcher.look()
        stop.wait(every_s)
