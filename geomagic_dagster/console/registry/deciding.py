"""What all actions share: rights and reasons first, one at a time, the table before its audit entry.

Belongs here: the frame around an action, and the checks that several of them make. Does not belong here: the actions
(service.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import transaction

from geomagic_dagster.console import roles
from geomagic_dagster.console.registry.audit import Actor, record
from geomagic_dagster.console.registry.models import Release, RoutingSync
from geomagic_dagster.console.registry.sync import follow, lock, sync_releases
from geomagic_dagster.console.registry.table_words import changed
from geomagic_dagster.releases import environments
from geomagic_dagster.releases.lifecycle import State
from geomagic_dagster.releases.record import ReleaseError
from geomagic_dagster.releases.routing_table import RoutingTable

Edit = Callable[[dict[str, Any]], None]
KEPT_AFTER = {
    "stage": State.STAGED,
    "test_in_staging": State.TESTED,
    "propose": State.PROPOSED,
    "approve": State.APPROVED,
    "reject": State.TESTED,
}
"""What the console keeps after a step."""


class Refused(ValueError):
    """An action that cannot be done as asked; the words say why, and what to do."""


def check_environment(release: Release) -> environments.Environment:
    """The release's environment. Raises: Refused where it is not installed here, or another version is."""
    do = f"Install it: geomagic release install {release.version}"
    try:
        found = environments.installed(settings.HOME, release.line)
    except (ReleaseError, StopIteration) as error:
        raise Refused(f"{release}: expected its environment; it cannot be read: {error} {do}") from error
    if found is None:
        place = environments.line_folder(settings.HOME, release.line) / environments.ENV
        raise Refused(f"{release}: expected its environment at {place}; got none. {do}")
    if (found.release.version, found.release.commit) != (release.version, release.commit):
        got = f"{found.release.version} from commit {found.release.commit[:12]}"
        raise Refused(f"{found.folder}: expected {release.version} from commit {release.commit[:12]}; got {got}. {do}")
    return found


def check_no_open_incident(release: Release, step: str) -> None:
    if incident := release.incidents.filter(closed_at=None).first():
        raise Refused(
            f"{release.version}: {step} expects no open incident; got “{incident.title}”, opened by "
            f"{incident.opened_by}. Next legal step: close incident {incident.pk}."
        )


@contextmanager
def deciding(actor: Actor, action: str, reason: str) -> Iterator[RoutingSync]:
    """The right and the reason; then one at a time, with everything read up to now."""
    roles.require(actor.user, action)
    if not reason.strip():
        raise Refused(f"{action}: expected a reason; got none. Say in a few words why: it goes into the audit trail.")
    with transaction.atomic():
        synced = lock()
        sync_releases(settings.RELEASES)
        follow(synced)
        yield synced


def release_of(version: str) -> Release:
    try:
        return Release.objects.select_for_update().get(version=version)
    except Release.DoesNotExist:
        known = ", ".join(Release.objects.values_list("version", flat=True)) or "none at all"
        raise Refused(f"release {version}: expected one that was cut ({known}). Cut it, or choose another.") from None


def keep(actor: Actor, release: Release, step: str, reason: str, is_quorum: bool = True, **more: Any) -> Release:
    """Moves what the console keeps, and says so in the audit trail."""
    before = str(Release.objects.get(pk=release.pk).state)
    if not (step == "approve" and not is_quorum):
        release.kept = KEPT_AFTER.get(step, release.kept)
    release.save()
    after = {"state": str(release.state)} | more
    record(actor, step, f"release {release.version}", before={"state": before}, after=after, reason=reason)
    return release


def change_table(actor: Actor, synced: RoutingSync, action: str, what: str, reason: str, *edits: Edit) -> RoutingTable:
    """Writes the table, then its audit entry; refused where somebody changed the table after it was looked at."""

    def edit(document: dict[str, Any]) -> None:
        for each in edits:
            each(document)

    store = settings.PLACES.routing()
    old = store.read().table
    table = store.change(edit, by=actor.name, why=reason, only_if=synced.revision)
    change = changed(old, table)
    after = change.after | {"words": list(change.words)}
    record(actor, action, what, before=change.before, after=after, reason=reason, revision=table.revision)
    follow(synced)
    return table
