"""What people do to releases and traffic: one function an action. Pages, API and scripts all call these.

Belongs here: for each action the right to it, the lifecycle's rule, the change, and its audit entry, in one
transaction. Does not belong here: the rules (releases/lifecycle.py), the rights (roles.py), the changes of the table
(releases/routing_changes.py), running something in staging (staging.py).

A change of traffic writes the table first: it is in force with that, whatever becomes of the console. Then comes the
audit entry. A crash in between leaves a revision without an entry, which sync.py makes up for; the other order
would leave an entry of something that never happened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.utils import timezone

from geomagic_dagster.console import roles
from geomagic_dagster.console.registry.audit import Actor, record
from geomagic_dagster.console.registry.deciding import (
    Edit,
    Refused,
    change_table,
    check_environment,
    check_no_open_incident,
    deciding,
    keep,
    release_of,
)
from geomagic_dagster.console.registry.models import Approval, Incident, Release, RoutingSync
from geomagic_dagster.flighting import promote
from geomagic_dagster.releases import lifecycle, routing_changes
from geomagic_dagster.releases.lifecycle import SIDES, IllegalStep, State
from geomagic_dagster.releases.routing import RoutingUnavailable
from geomagic_dagster.releases.routing_table import RoutingRefused, RoutingTable

REFUSALS = (roles.NotAllowed, IllegalStep, Refused, RoutingRefused, RoutingUnavailable)
"""What the functions here raise where the answer is no."""


# --- on the way to approval ------------------------------------------------------------------------


def stage(actor: Actor, version: str, reason: str) -> Release:
    """It is installed on this machine, and may be tried in staging."""
    with deciding(actor, "stage", reason):
        release = release_of(version)
        release.standing.check("stage")
        check_environment(release)
        release.staged_by, release.staged_at = actor.name, timezone.now()
        return keep(actor, release, "stage", reason)


def record_staging_test(actor: Actor, version: str, passed: bool, words: str) -> Release:
    """The outcome of the smoke scans in staging; `staging.py` ran them. It is tested only if they passed."""
    with deciding(actor, "test_in_staging", words):
        release = release_of(version)
        release.standing.check("test_in_staging")
        if passed:
            release.tested_by, release.tested_at = actor.name, timezone.now()
            return keep(actor, release, "test_in_staging", words)
        before = release.state
        if release.kept == State.TESTED:  # what passed before does not any more
            release.kept = State.STAGED
            release.save()
        record(actor, "test_in_staging", f"release {version}", before=before, after="failed", reason=words)
        return release


def propose(actor: Actor, version: str, reason: str) -> Release:
    """Asks the reviewers. Approvals of an earlier proposal do not count for this one."""
    with deciding(actor, "propose", reason):
        release = release_of(version)
        release.standing.check("propose")
        check_no_open_incident(release, "propose")
        release.proposed_by, release.proposed_at = actor.name, timezone.now()
        release.proposal += 1
        return keep(actor, release, "propose", reason)


def approve(actor: Actor, version: str, reason: str, side: str | None = None) -> Release:
    """One person's approval for one side ("engineering", "science"); approved once the quorum is there."""
    with deciding(actor, "approve", reason):
        side = side or side_of(actor)
        if SIDES.get(side) not in roles.roles_of(actor.user):
            raise roles.NotAllowed(
                f"approve {version} for {side}: expected the role {SIDES.get(side, 'of a side')}; "
                f"{actor.name} has {actor.role}. Ask somebody who has it."
            )
        release = release_of(version)
        release.standing.check("approve")
        check_no_open_incident(release, "approve")
        given = Approval.objects.filter(release=release, proposal=release.proposal).select_related("user")
        before = [each.user.get_username() for each in given]
        lifecycle.check_approver(version, actor.names, side, release.proposed_by, release.cut_by, before)
        Approval.objects.create(
            release=release,
            proposal=release.proposal,
            user=actor.user,
            side=side,
            reason=reason,
            manifest_sha256=release.manifest_sha256,
        )
        missing = missing_approvals(release)
        if not missing:
            release.approved_at = timezone.now()
        return keep(actor, release, "approve", reason, is_quorum=not missing, side=side, missing=list(missing))


def side_of(actor: Actor) -> str:
    """The side that somebody speaks for. Raises: Refused where there are two."""
    sides = [side for side, role in SIDES.items() if role in roles.roles_of(actor.user)]
    if len(sides) != 1:
        raise Refused(f"approve: expected one side; {actor.name} may speak for {' and '.join(sides)}. Choose one.")
    return sides[0]


def missing_approvals(release: Release) -> tuple[str, ...]:
    """What the proposal still lacks, in words."""
    given = Approval.objects.filter(release=release, proposal=release.proposal).select_related("user")
    return lifecycle.missing_approvals(lifecycle.Approval(each.user.get_username(), each.side) for each in given)


def reject(actor: Actor, version: str, reason: str) -> Release:
    """Takes the proposal back, also after it was approved."""
    with deciding(actor, "reject", reason):
        release = release_of(version)
        release.standing.check("reject")
        release.approved_at = None
        return keep(actor, release, "reject", reason)


# --- traffic ---------------------------------------------------------------------------------------


def start_flight(
    actor: Actor, version: str, reason: str, per_cent: float, shadow: bool = False, may_change: tuple[str, ...] = ()
) -> RoutingTable:
    """Sends a share of the uploads to a release; as a shadow, copies of them. Again: changes the share.

    Args:
        may_change: numbers ("layout.area_m2", "layout.*") that the release is meant to change: they end no flight.
    """
    with deciding(actor, "start_flight", reason) as synced:
        release = release_of(version)
        release.standing.check("start_flight")
        check_no_open_incident(release, "start_flight")
        check_environment(release)
        edits = (
            routing_changes.make_live(release.line),
            routing_changes.start_flight(release.line, per_cent, shadow=shadow),
            _may_change(release.line, shadow, may_change),
        )
        return change_table(actor, synced, "start_flight", f"release {version}", reason, *edits)


def _may_change(line: str, shadow: bool, names: tuple[str, ...]) -> Edit:
    """Says so in the flight, where the watcher reads it."""

    def edit(document: dict[str, Any]) -> None:
        for each in document["flights"]:
            if names and each["release"] == line and bool(each.get("shadow")) is shadow:
                each["may_change"] = sorted(names)

    return edit


def end_flight(actor: Actor, flight: str, reason: str) -> RoutingTable:
    """Ends a flight by its id, or all flights of a line; what it took goes to the default."""
    with deciding(actor, "end_flight", reason) as synced:
        flights = {each.id: each.release for each in settings.PLACES.routing().read().table.flights}
        what = f"release {flights.get(flight, flight)}"
        return change_table(actor, synced, "end_flight", what, reason, routing_changes.end_flight(flight))


def make_default(actor: Actor, version: str, reason: str) -> RoutingTable:
    """One atomic write; a smoke scan then runs in production, and its failure takes it back."""
    with deciding(actor, "make_default", reason) as synced:
        release = release_of(version)
        release.standing.check("make_default")
        check_no_open_incident(release, "make_default")
        check_environment(release)
        edits = (routing_changes.make_live(release.line), promote.on_probation(release.line))
        return change_table(actor, synced, "make_default", f"release {version}", reason, *edits)


def roll_back(actor: Actor, reason: str, meant: str | None = None) -> RoutingTable:
    """The default before this one is the default again; an incident is opened for the one that is not.

    `meant`: the default that the actor saw; refused where somebody, or the watcher, took it back meanwhile.
    """
    with deciding(actor, "roll_back", reason) as synced:
        table = settings.PLACES.routing().read().table
        current = Release.objects.filter(line=table.default, is_current=True).first()
        what = f"release {current.version if current else table.default}"
        edit = promote.back_to_the_one_before(settings.PLACES.routing(), meant)
        return change_table(actor, synced, "roll_back", what, reason, edit)


def set_pin(actor: Actor, scan: str, line: str | None, reason: str) -> RoutingTable:
    """One scan always goes to one release; None: where the others go."""
    with deciding(actor, "set_pin", reason) as synced:
        edit = routing_changes.pin(scan, line) if line else routing_changes.unpin(scan)
        return change_table(actor, synced, "set_pin", f"scan {scan}", reason, edit)


def set_flag(
    actor: Actor, name: str, reason: str, *, on: bool = False, per_cent: float = 0.0, scans: tuple[str, ...] = ()
) -> RoutingTable:
    """For whom a feature flag is on; nobody, where nothing is said."""
    with deciding(actor, "set_flag", reason) as synced:
        edit = routing_changes.set_flag(name, on=on, per_cent=per_cent, scans=scans)
        return change_table(actor, synced, "set_flag", f"flag {name}", reason, edit)


# --- out of service --------------------------------------------------------------------------------


def archive(actor: Actor, version: str, reason: str) -> Release:
    """Out of service; it can come back."""
    with deciding(actor, "archive", reason) as synced:
        release = release_of(version)
        release.standing.check("archive")
        _take_off(actor, synced, release, reason)
        release.archived_by, release.archived_at = actor.name, timezone.now()
        return keep(actor, release, "archive", reason)


def restore(actor: Actor, version: str, reason: str) -> Release:
    """Back as it was. Traffic comes by a flight or as the default, as ever."""
    with deciding(actor, "restore", reason):
        release = release_of(version)
        release.standing.check("restore")
        release.archived_by, release.archived_at = "", None
        return keep(actor, release, "restore", reason)


def revoke(actor: Actor, version: str, reason: str) -> Release:
    """Out of service for good."""
    with deciding(actor, "revoke", reason) as synced:
        release = release_of(version)
        release.standing.check("revoke")
        _take_off(actor, synced, release, reason, routing_changes.revoke)
        release.revoked_by, release.revoked_at = actor.name, timezone.now()
        return keep(actor, release, "revoke", reason)


def _take_off(
    actor: Actor,
    synced: RoutingSync,
    release: Release,
    reason: str,
    change: Callable[[str], Edit] = routing_changes.take_off,
) -> None:
    table = settings.PLACES.routing().read().table
    if release.is_current and release.line in table.live:
        change_table(actor, synced, "take_off", f"release {release.version}", reason, change(release.line))


# --- incidents -------------------------------------------------------------------------------------


def open_incident(actor: Actor, title: str, reason: str, version: str | None = None) -> Incident:
    """Something went wrong; while it is open, its release gets no new traffic."""
    with deciding(actor, "open_incident", reason):
        release = release_of(version) if version else None
        incident = Incident.objects.create(release=release, title=title, opened_by=actor.name, words=reason)
        record(actor, "open_incident", f"incident {incident.pk}: {title}", after="open", reason=reason)
        return incident


def close_incident(actor: Actor, incident_id: int, reason: str) -> Incident:
    """What was found, and what was done about it."""
    with deciding(actor, "close_incident", reason):
        incident = Incident.objects.select_for_update().filter(pk=incident_id).first()
        if incident is None:
            raise Refused(f"incident {incident_id}: expected one that was opened; got none. See the list of incidents.")
        if not incident.is_open:
            raise Refused(f"incident {incident_id}: expected an open one; {incident.closed_by} closed it already.")
        incident.closed_by, incident.closed_at, incident.closed_because = actor.name, timezone.now(), reason
        incident.save()
        what = f"incident {incident.pk}: {incident.title}"
        record(actor, "close_incident", what, before="open", after="closed", reason=reason)
        return incident
