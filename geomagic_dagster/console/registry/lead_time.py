"""From a commit to the first customer's scan, and to the default: for each change.

Belongs here: finding the first customer's scan among Dagster's runs, the differences, their medians. Does not belong
here: when a release became the default (sync.py copies it from the routing table's history).
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from django.db.models import Q

from geomagic_dagster.console.registry.models import Change, Release
from geomagic_dagster.flighting.promote import SMOKE
from geomagic_dagster.guardrails.tags import RELEASE_TAG, SHADOW_TAG, UPLOAD_TAG, VERSION_TAG
from geomagic_dagster.jobs.process_scan import JOB

PAGE = 100
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


def find_first_scans(instance: DagsterInstance) -> None:
    """Fills in the first customer's scan of every release that had traffic and has none yet."""
    for release in Release.objects.filter(first_scan_at=None).filter(
        Q(default_at__isnull=False) | Q(flighted_at__isnull=False)
    ):
        if (found := first_scan_at(instance, release)) is not None:
            release.first_scan_at = found
            release.save(update_fields=["first_scan_at"])


def first_scan_at(instance: DagsterInstance, release: Release) -> datetime | None:
    """When the first customer had a room from this version: a run of an upload that succeeded, for real."""
    cursor = None
    while True:
        records = instance.get_run_records(
            RunsFilter(job_name=JOB, tags={RELEASE_TAG: release.line}, statuses=[DagsterRunStatus.SUCCESS]),
            limit=PAGE,
            ascending=True,
            cursor=cursor,
        )
        for record in records:
            tags = record.dagster_run.tags
            is_customers = tags.get(UPLOAD_TAG) and not tags[UPLOAD_TAG].startswith(SMOKE)
            is_this = tags.get(VERSION_TAG, release.version) == release.version
            ended = datetime.fromtimestamp(record.end_time, UTC) if record.end_time else None
            if is_customers and is_this and tags.get(SHADOW_TAG) != "true" and ended and ended >= release.cut_at:
                return ended
        if len(records) < PAGE:
            return None
        cursor = records[-1].dagster_run.run_id


def changes() -> list[Lead]:
    """Every change, the newest first."""
    return [lead(each) for each in Change.objects.select_related("release").order_by("-committed_at")]


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
    recent = changes()[:RECENT]
    return Summary(
        len(recent),
        _median([each.to_scan for each in recent]),
        _median([each.to_default for each in recent]),
    )


def _median(times: list[timedelta | None]) -> timedelta | None:
    known = [each.total_seconds() for each in times if each is not None]
    return timedelta(seconds=statistics.median(known)) if known else None
