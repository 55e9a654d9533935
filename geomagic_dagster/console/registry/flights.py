"""What the flights of now have done so far, in numbers.

Belongs here: counting the runs that the console follows (scans/). Does not belong here: the verdict on a flight
(flighting/ gives it, with statistics, and ends flights by itself).
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass

from django.conf import settings
from django.db.models import QuerySet
from django.utils.dateparse import parse_datetime

from geomagic_dagster.console.scans.models import Run
from geomagic_dagster.releases.routing_table import Flight, RoutingTable

WATCHER = "metrics/watcher.json"
SUCCESS, FAILURE = "SUCCESS", "FAILURE"


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

    @property
    def evidence_per_cent(self) -> float | None:
        return None if self.evidence is None else 100 * self.evidence

    @property
    def sides(self) -> tuple[Numbers, Numbers]:
        return self.own, self.default


def flown(table: RoutingTable) -> list[Flown]:
    """Every flight of a table with its numbers."""
    found, evidence = [], _evidence()
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
            )
        )
    return found


def _evidence() -> dict[str, float]:
    """What the watcher keeps of its verdicts, by flight."""
    try:
        return json.loads((settings.HOME / WATCHER).read_bytes()).get("evidence", {})
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
