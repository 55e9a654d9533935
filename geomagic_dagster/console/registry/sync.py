"""Copies into the console what is decided elsewhere: cut releases, and the routing table's history.

Belongs here: reading the releases/ of the checkout and the revisions of the table, and keeping what lists and rules
need of them. Does not belong here: changing a table (service.py), Dagster's runs (lead_time.py).

The table's history is the truth about traffic. The console writes a revision first and its audit entry after it, in
one transaction; should it die between the two, or somebody else write a revision (the command line, the watcher), the
entry is missing here, and is made from the revision's own `by` and `why` the next time anybody looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from geomagic_dagster.console.registry.lead_time import find_first_scans
from geomagic_dagster.console.registry.models import AuditEntry, Change, Incident, Release, RoutingSync
from geomagic_dagster.console.registry.table_words import Changed, changed
from geomagic_dagster.flighting import watch
from geomagic_dagster.releases.record import HISTORY, LOCK, MANIFEST, RELEASE, ReleaseError, read_release
from geomagic_dagster.releases.record import Release as Record
from geomagic_dagster.releases.routing import RoutingUnavailable
from geomagic_dagster.releases.routing_table import NEVER, RoutingRefused, RoutingTable


@dataclass(frozen=True)
class Seen:
    """What a page sees: the table in force, and what is wrong, in words."""

    table: RoutingTable | None
    problems: tuple[str, ...] = ()


def look() -> Seen:
    """Brings everything up to date, for a page: it opens also where something does not answer, and says so."""
    problems = _look_at_records(settings.RELEASES)
    try:
        problems += filter(None, [sync_routing()])
        table = settings.PLACES.routing().read().table
    except (RoutingUnavailable, RoutingRefused) as error:
        return Seen(None, (*problems, str(error)))
    find_first_scans()
    return Seen(table, tuple(problems))


_looked: dict[Path, tuple[object, list[str]]] = {}
"""Folders of records: how they were when a page looked last, and what was wrong then."""


def _look_at_records(records: Path) -> list[str]:
    """As `sync_releases`, but only where a record changed: a page that is only read need not wait for a writer."""
    now = sorted((str(path), path.stat().st_mtime_ns) for path in records.glob(f"**/{RELEASE}"))
    if _looked.get(records, (None,))[0] != now:
        _looked[records] = (now, sync_releases(records))
    return list(_looked[records][1])


# --- cut releases ----------------------------------------------------------------------------------


@transaction.atomic
def sync_releases(records: Path) -> list[str]:
    """Every release that is recorded in `records`, also those whose place a hotfix took; what cannot be read."""
    problems = []
    now = sorted(path.parent for path in records.glob(f"*/{RELEASE}"))
    before = sorted(path.parent for path in records.glob(f"*/{HISTORY}/*/{RELEASE}"))
    for folder in (*before, *now):
        try:
            problems += _copy_record(read_release(folder), folder, is_current=folder in now)
        except ReleaseError as error:
            problems.append(str(error))
    return problems


def _copy_record(record: Record, folder: Path, is_current: bool) -> list[str]:
    fields = {
        "line": record.line,
        "commit": record.commit,
        "branch": record.branch,
        "manifest_sha256": record.files.get(MANIFEST, ""),
        "lock_sha256": record.files.get(LOCK, ""),
        "python": record.python,
        "cut_by": record.cut_by,
        "cut_at": _time(record.cut_at),
        "is_current": is_current,
    }
    release, is_new = Release.objects.get_or_create(version=record.version, defaults=fields)
    if not is_new:
        if release.is_current != is_current:
            release.is_current = is_current
            release.save(update_fields=["is_current"])
        copied, said = (release.commit, release.manifest_sha256), (fields["commit"], fields["manifest_sha256"])
        if copied == said:
            return []
        return [
            f"{folder}: expected release {release} as it was found first, commit {copied[0][:12]} and manifest "
            f"{copied[1][:12]}; got commit {said[0][:12]} and manifest {said[1][:12]}. What people approved is the "
            "first: restore it from git."
        ]
    AuditEntry.objects.create(
        at=_time(record.cut_at),
        who=record.cut_by[:150],
        action="cut",
        object=f"release {record.version}",
        after={"commit": record.commit, "manifest": release.manifest_sha256},
    )
    for each in record.changes:
        Change.objects.create(
            release=release, commit=each.commit, title=each.subject[:500], committed_at=_time(each.authored_at)
        )
    return []


# --- the routing table -----------------------------------------------------------------------------


def sync_routing() -> str | None:
    """The table's history up to now; what is wrong with its place, in words, if anything is."""
    store = settings.PLACES.routing()
    reading = store.read()
    if RoutingSync.objects.filter(revision=reading.table.revision).exists():
        return reading.problem
    with transaction.atomic():
        follow(lock())
    return reading.problem


def lock() -> RoutingSync:
    """Held to the end of the transaction: one at a time decides about traffic."""
    RoutingSync.objects.get_or_create(pk=1)
    return RoutingSync.objects.select_for_update().get(pk=1)


def follow(synced: RoutingSync) -> None:
    """Copies every revision behind the one that was copied last."""
    store = settings.PLACES.routing()
    try:
        tables = list(store.history(after=max(0, synced.revision - 1)))
    except OSError as error:
        raise RoutingUnavailable(
            f"{store.url}: expected a place that answers; got {type(error).__name__}: {error}. Try again when it does; "
            "`geomagic route` changes traffic without the console."
        ) from error
    old = NEVER
    for table in tables:
        if table.revision > synced.revision:
            change = changed(old, table)
            _copy(table, change)
            synced.revision = table.revision
        old = table
    synced.save()
    _copy_traffic(old)


def _copy(table: RoutingTable, change: Changed) -> None:
    if not AuditEntry.objects.filter(revision=table.revision).exists():
        AuditEntry.objects.create(
            at=_time(table.written_at),
            who=table.written_by[:150],
            action=change.action,
            object=change.what,
            before=change.before,
            after=change.after | {"words": list(change.words)},
            reason=table.why,
            revision=table.revision,
        )
    when = _time(table.written_at)
    for line in {table.default, *(each.release for each in table.flights)}:
        if (release := _version_at(line, when)) is not None:
            field = "default_at" if table.default == line else "flighted_at"
            if getattr(release, field) is None:
                setattr(release, field, when)
                release.save(update_fields=[field])
    if change.rolled_back:
        open_incident_of(table, change.rolled_back, f"{change.rolled_back} was rolled back to {table.default}")
    elif table.written_by == watch.BY:
        for flight in change.ended:
            open_incident_of(table, flight.release, f"The flight of {flight.release} was ended by the watcher")


def _version_at(line: str, when: datetime) -> Release | None:
    """Which version of a line got its traffic then: a hotfix takes the place of the one before."""
    versions = Release.objects.filter(line=line).order_by("-cut_at")
    return versions.filter(cut_at__lte=when).first() or versions.last()


def open_incident_of(table: RoutingTable, line: str, title: str) -> None:
    """An incident that a revision of the table tells of; once."""
    Incident.objects.get_or_create(
        revision=table.revision,
        defaults={
            "release": Release.objects.filter(line=line, is_current=True).first(),
            "title": title,
            "opened_by": table.written_by[:150],
            "opened_at": _time(table.written_at),
            "words": table.why,
        },
    )


def _copy_traffic(table: RoutingTable) -> None:
    flown = {each.release for each in table.flights}
    for release in Release.objects.all():
        traffic = "default" if table.default == release.line else "flight" if release.line in flown else "none"
        if not release.is_current:
            traffic = "none"
        if traffic == "default" and release.default_at is None:  # a hotfix in the place of the default
            release.default_at = max(release.cut_at, _time(table.written_at))
        if traffic != release.traffic or release.default_at:
            release.traffic = traffic
            release.save(update_fields=["traffic", "default_at"])


def _time(said: Any) -> datetime:
    parsed = parse_datetime(str(said)) if said else None
    return parsed or timezone.now()
