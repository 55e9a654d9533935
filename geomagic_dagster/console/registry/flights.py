"""What flights have done, in numbers, and the uploads that were taken up again after one of them ended badly.

Belongs here: counting the runs that the console follows (scans/), and what the audit trail says of a flight. Does not
belong here: the verdict on a flight (flighting/ gives it, with statistics, and ends flights by itself).
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db.models import Max, Q, QuerySet
from django.utils.dateparse import parse_datetime

from geomagic_dagster.console.registry.models import AuditEntry
from geomagic_dagster.console.scans.models import Run
from geomagic_dagster.flighting.course import Course, read_course
from geomagic_dagster.releases.routing_table import Flight, RoutingTable

METRICS = "metrics"
"""Where the watcher leaves what it thinks of flights."""
WATCHER = "watcher.json"
SUCCESS, FAILURE = "SUCCESS", "FAILURE"
SHOWN = 200
"""Uploads of one flight or release, at most."""
ENDED_SHOWN = 10


@dataclass(frozen=True)
class Numbers:
    """Of one side of a flight."""

    release: str
    runs: int
    failed: int
    median_s: float | None

    @property
    def failed_per_cent(self) -> float | None:
        return 100 * self.failed / self.runs if self.runs else None


@dataclass(frozen=True)
class Flown:
    """A flight, its own runs, and those of the default over the same time."""

    flight: Flight
    own: Numbers
    default: Numbers
    evidence: float | None
    """That it is worse, as a part of what ends the flight; None where no watcher looked yet."""
    sentence: str = ""
    """How it stands, as the watcher says it."""

    @property
    def evidence_per_cent(self) -> float | None:
        return None if self.evidence is None else 100 * self.evidence

    @property
    def sides(self) -> tuple[Numbers, Numbers]:
        return self.own, self.default


def flown(table: RoutingTable) -> list[Flown]:
    """Every flight of a table with its numbers."""
    found, evidence, sentences = [], _of_watcher("evidence"), _of_watcher("sentences")
    for flight in table.flights:
        runs = Run.objects.filter(status__in=(SUCCESS, FAILURE))
        if (since := parse_datetime(flight.started_at)) is not None:
            runs = runs.filter(created_at__gte=since)
        of_default = runs.filter(release=table.default, flight="", is_shadow=False)
        found.append(
            Flown(
                flight,
                _numbers(flight.release, runs.filter(flight=flight.id)),
                _numbers(table.default, of_default),
                evidence.get(flight.id),
                sentences.get(flight.id, ""),
            )
        )
    return found


@dataclass(frozen=True)
class Story:
    """A flight from its start to its end, which it may not have come to."""

    id: str
    numbers: tuple[Numbers, ...]
    """One for each release; a flight has one."""
    entries: tuple[AuditEntry, ...]
    """What was done to it, the newest first."""
    again: Again
    course: Course | None
    """Of the evidence that it is worse; None where no watcher has judged it."""


@dataclass(frozen=True)
class Again:
    """Uploads that went back into the inbox, as the release that could not use them was taken back."""

    runs: tuple[Run, ...]
    """Those of that release, each with its scan; the newest first."""
    number: int
    """Of all of them."""


def story(flight: str) -> Story | None:
    """None where neither a table nor a run knows of such a flight."""
    runs = Run.objects.filter(flight=flight)
    about = AuditEntry.objects.exclude(revision=None).filter(Q(before__icontains=flight) | Q(after__icontains=flight))
    entries = tuple(
        each
        for each in about.order_by("-revision")
        if any(
            words.startswith((f"flight {flight}:", f"flight {flight} "))
            for words in (each.after or {}).get("words", ())
        )
    )
    if not entries and not runs.exists():
        return None
    releases = sorted(set(runs.values_list("release", flat=True)))
    ended = runs.filter(status__in=(SUCCESS, FAILURE))
    numbers = tuple(_numbers(release, ended.filter(release=release)) for release in releases)
    return Story(flight, numbers, entries, again(runs), read_course(settings.HOME / METRICS, flight))


def again(runs: QuerySet[Run]) -> Again:
    """Of these runs, those whose uploads were taken up again."""
    found = runs.exclude(taken_up_again=None)
    return Again(tuple(found.select_related("scan").order_by("-created_at")[:SHOWN]), found.count())


def ended(table: RoutingTable | None) -> list[str]:
    """The last flights that fly no more, and had runs; by their ids."""
    flying = [each.id for each in table.flights] if table else []
    found = Run.objects.exclude(flight="").exclude(flight__in=flying).values("flight").annotate(at=Max("created_at"))
    return [each["flight"] for each in found.order_by("-at")[:ENDED_SHOWN]]


def _of_watcher(what: str) -> dict[str, Any]:
    """What the watcher keeps of its verdicts, by flight."""
    try:
        return json.loads((settings.HOME / METRICS / WATCHER).read_bytes()).get(what, {})
    except (OSError, ValueError, AttributeError):  # none has looked yet: the page says so
        return {}


def _numbers(release: str, runs: QuerySet[Run]) -> Numbers:
    seen = list(runs.values_list("status", "started_at", "ended_at"))
    seconds = [(end - start).total_seconds() for status, start, end in seen if status == SUCCESS and start and end]
    return Numbers(
        release,
        len(seen),
        sum(status == FAILURE for status, *_ in seen),
        statistics.median(seconds) if seconds else None,
    )
