"""From a commit to the first customer's scan, and to the default: for each change.

Belongs here: finding the first customer's scan among the runs that the console follows, the differences, their
medians. Does not belong here: when a release became the default (sync.py copies it from the routing table's history).
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Min, Q, QuerySet

from geomagic_dagster.console.registry.models import Change, Release
from geomagic_dagster.console.scans.models import Run
from geomagic_dagster.flighting.promote import SMOKE

SUCCESS = "SUCCESS"
RECENT = 50
"""Changes that the medians are of."""


@dataclass(frozen=True)
class Lead:
    """One change on its way."""

    change: Change
    to_scan: timedelta | None
    to_default: timedelta | None


@dataclass(frozen=True)
class Summary:
    """The middle of the last changes."""

    changes: int
    to_scan: timedelta | None
    to_default: timedelta | None


def find_first_scans() -> None:
    """Fills in the first customer's scan of every release that had traffic and has none yet."""
    had_traffic = Q(default_at__isnull=False) | Q(flighted_at__isnull=False)
    for release in Release.objects.filter(had_traffic, first_scan_at=None):
        if (found := first_scan_at(release)) is not None:
            release.first_scan_at = found
            release.save(update_fields=["first_scan_at"])


def first_scan_at(release: Release) -> datetime | None:
    """When the first customer had a room from this version: no shadow, no smoke scan, no version before it."""
    runs = Run.objects.filter(
        Q(version=release.version) | Q(version=""),
        release=release.line,
        status=SUCCESS,
        is_shadow=False,
        ended_at__gte=release.cut_at,
    )
    return runs.exclude(scan__upload__startswith=SMOKE).aggregate(first=Min("ended_at"))["first"]


def changes() -> QuerySet[Change]:
    """Every change, the newest first, with its release; nothing is read before somebody asks for a part."""
    return Change.objects.select_related("release").order_by("-committed_at", "-pk")


def lead(change: Change) -> Lead:
    """How long one change took."""
    release = change.release
    return Lead(
        change,
        release.first_scan_at - change.committed_at if release.first_scan_at else None,
        release.default_at - change.committed_at if release.default_at else None,
    )


def summary() -> Summary:
    """The medians over the last changes that came so far."""
    recent = [lead(each) for each in changes()[:RECENT]]
    return Summary(
        len(recent),
        _median([each.to_scan for each in recent]),
        _median([each.to_default for each in recent]),
    )


def _median(times: list[timedelta | None]) -> timedelta | None:
    known = [each.total_seconds() for each in times if each is not None]
    return timedelta(seconds=statistics.median(known)) if known else None
