"""Uploads of scans that are over go after some days: nobody's home is kept for ever.

Belongs here: which uploads are old, what still needs one, and removing the others. Does not belong here: how often
(worker.py), how long (settings.py: nothing goes unless it is said there).

What goes is what people sent: the uploads in done/, failed/ and quarantine/, and packages that an operator quarantined.
What stays is what was made of it: published packages, results in the store, the tables' rows, the audit trail.

An upload's age counts from the moment when it came to where it lies: a rename changes that time on disk, and whatever
else does (a restored backup) only makes it younger.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dagster import DagsterRunStatus, RunsFilter
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from geomagic_dagster.console.registry.models import AuditEntry
from geomagic_dagster.console.scans.actions import where_upload_lies
from geomagic_dagster.console.scans.dagster_link import instance
from geomagic_dagster.console.scans.models import Scan
from geomagic_dagster.console.scans.outcomes import UNDONE
from geomagic_dagster.flighting.rejected import RECENT_S
from geomagic_dagster.guardrails.tags import SCAN_TAG
from geomagic_dagster.jobs import withdrawn
from geomagic_dagster.jobs.attempts import ALIVE
from geomagic_dagster.jobs.inbox import REASON, scan_name
from geomagic_dagster.releases.routing_table import RoutingTable

log = logging.getLogger("geomagic.console.retention")

BY, ACTION = "retention", "remove_upload"
AT_A_TIME = 200
"""Removed in one pass."""
ANOTHER_OF_THE_NAME = re.compile(r"-[0-9]+$")
REMOVED = re.compile(r"\.[0-9a-f]{32}\.removed")
"""What is on its way out is called so, and goes in the next pass where this one is killed."""


@dataclass(frozen=True)
class Old:
    """Something that was kept for long enough."""

    place: Path
    name: str
    """Of the upload; of a package's folder, in quarantine."""
    since: datetime
    scans: tuple[Scan, ...]
    """Whose upload it is; none where it came past Dagster."""
    still_needed: str
    """By what, in words; empty: it may go."""


def remove_old() -> int:
    """Removes what is old and needed by nothing; returns how much that was."""
    if not settings.UPLOADS_KEPT_DAYS:
        return 0
    for folder in _folders():
        for left in folder.glob(".*.removed"):
            if REMOVED.fullmatch(left.name):
                _delete(left)
    found = (each for each in old(settings.UPLOADS_KEPT_DAYS) if not each.still_needed)
    return sum(_remove(each) for each, _ in zip(found, range(AT_A_TIME), strict=False))


def old(days: float) -> Iterator[Old]:
    """Everything that lies where it does for longer than so many days. Raises: RoutingUnavailable."""
    table = settings.PLACES.routing().read().table
    before = timezone.now() - timedelta(days=days)
    for place, name in _kept():
        with suppress(FileNotFoundError):  # taken away since
            since = datetime.fromtimestamp(place.stat(follow_symlinks=False).st_ctime, UTC)
            if since < before:
                scans = _scans_of(place, name)
                yield Old(place, name, since, scans, _needed_by(name, scans, table))


def _folders() -> list[Path]:
    places = settings.PLACES
    aside = [Path(places.quarantine), Path(places.failed)]
    return [Path(places.done), *aside, withdrawn.folder_in(Path(places.quarantine))]


def _kept() -> Iterator[tuple[Path, str]]:
    """Everything that may grow old, with the name of its upload, or of the package's folder."""
    done, *aside, packages = _folders()
    for place in sorted(done.glob("[!.]*")):
        yield place, place.name
    for place in sorted(each for folder in aside for each in folder.glob("[!.]*")):
        inside = [each.name for each in place.iterdir() if each.name != REASON] if place.is_dir() else []
        yield place, inside[0] if len(inside) == 1 else place.name
    for place in sorted(each for each in packages.glob("[!.]*") if each.is_dir()):
        yield place, place.name


def _scans_of(place: Path, name: str) -> tuple[Scan, ...]:
    if place.parent.name == withdrawn.FOLDER:
        return tuple(Scan.objects.filter(package=name).exclude(quarantined_at=None))
    names = {name, ANOTHER_OF_THE_NAME.sub("", name)}
    found = ((scan, where_upload_lies(scan)) for scan in Scan.objects.filter(upload__in=names))
    return tuple(scan for scan, lies in found if lies is not None and place in (lies, lies.parent))


def _needed_by(name: str, scans: tuple[Scan, ...], table: RoutingTable) -> str:
    """What still needs an upload, in words; empty where nothing does."""
    called = {scan_name(each) for each in (name, *(scan.upload for scan in scans))}
    smoke = table.document.get("smoke") or {}
    flying = {each.id for each in table.flights}
    tried = table.probation.release if table.probation else None
    is_recent = timezone.now() - timedelta(seconds=RECENT_S)
    alive = [DagsterRunStatus.NOT_STARTED, *ALIVE]
    if any(not scan.is_over for scan in scans):
        return "its scan is not over"
    if any(instance().get_runs(RunsFilter(tags={SCAN_TAG: each}, statuses=alive), limit=1) for each in called):
        return "a run is about it"
    if called & {*table.pins, str(smoke.get("scan", ""))}:
        return "it is pinned, or the smoke scan"
    if any(each and (Path(settings.PLACES.corpus) / each).exists() for each in called):
        return "a scan of the corpus has its name"
    for scan in scans:
        if scan.release == tried or scan.runs.filter(flight__in=flying).exists():
            return "its release is flown, or on probation"
        if scan.state in UNDONE and scan.release in table.taken_back and (scan.finished_at or is_recent) >= is_recent:
            return "its release was taken back, and it may be taken up again"
    return ""


def _remove(each: Old) -> bool:
    """Its entry in the audit trail, then itself; False where somebody needs it since we looked."""
    aside = each.place.with_name(f".{uuid.uuid4().hex}.removed")
    said = {"place": str(each.place), "since": each.since.isoformat(timespec="seconds")}
    why = f"kept for {settings.UPLOADS_KEPT_DAYS:g} days, as GEOMAGIC_KEEP_UPLOADS_DAYS says"
    with transaction.atomic():
        now = list(Scan.objects.select_for_update().filter(pk__in=[scan.pk for scan in each.scans]))
        if any(not scan.is_over for scan in now):
            return False
        for what in [f"scan {scan.pk}" for scan in now] or [f"upload {each.name}"]:
            AuditEntry.objects.create(who=BY, action=ACTION, object=what[:200], before=said, reason=why)
        try:
            os.rename(each.place, aside)
        except FileNotFoundError:  # somebody took it away
            transaction.set_rollback(True)
            return False
    if each.place.parent.name == withdrawn.FOLDER:
        withdrawn.forget(Path(settings.PLACES.quarantine), each.name)
    _delete(aside)
    log.info("%s: removed, it lay there since %s", each.place, said["since"])
    return True


def _delete(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
