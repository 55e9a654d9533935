"""Follows the routing table: which release takes an upload, and when that is decided anew.

Decided anew is only what no run has begun, and what lost its run, when the release was taken back (a rollback, a flight
that ended badly, a release that is not live any more) or no sensor of it has looked for a while: its code location
does not load, or is gone. It then goes where the table sends it without that release.

Belongs here: those rules. Does not belong here: how a decision is kept (assignments.py), the table (releases/).
"""

from __future__ import annotations

import json
import logging
import os
import time
from functools import cached_property
from pathlib import Path

from geomagic_dagster.guardrails.tags import FLAGS_TAG, FLIGHT_TAG, RELEASE_TAG, ROUTE_REVISION_TAG, SHADOWS_TAG
from geomagic_dagster.guardrails.whole_files import replace_whole
from geomagic_dagster.jobs.assignments import FOLDER, Assignment, assign, assign_anew, assigned
from geomagic_dagster.jobs.inbox import scan_name
from geomagic_dagster.releases.routing import Reading, Route, RoutingStore, RoutingTable

log = logging.getLogger("geomagic.routing")

GONE_S = 120.0
"""A release whose sensor has not looked for so long does not take its uploads. Sensors look every 3 s."""
GAP_S = 30.0
"""Who has not looked for so long begins anew to watch the others: they may have been down like itself."""


class Traffic:
    """Decides for one location, in one look over the inbox."""

    def __init__(self, inbox: Path, routing: RoutingStore, by: str, watching_since_s: float | None = None) -> None:
        """
        Args:
            by: who decides, for the record.
            watching_since_s: since when this one has looked at the inbox without a gap; None judges no other location.
        """
        self.inbox, self.by = inbox, by
        self._routing, self._since_s = routing, watching_since_s

    @cached_property
    def reading(self) -> Reading:
        """Raises: RoutingUnavailable."""
        return self._routing.read()

    @property
    def table(self) -> RoutingTable:
        return self.reading.table

    def of(self, upload: str, key: str) -> Assignment:
        """What holds for an upload, decided now if nobody has. Raises: RoutingUnavailable, OSError."""
        return assigned(self.inbox, key) or assign(
            self.inbox, upload, key, self.table.choose(scan_name(upload)), self.by
        )

    def elsewhere(self, held: Assignment, now_s: float | None = None) -> tuple[Route, str] | None:
        """Where an upload should go now, and why it cannot stay; None where it can. Raises: RoutingUnavailable."""
        scan, release, table = scan_name(held.upload), held.release, self.table
        is_newer = table.revision > held.route.revision and not self.reading.problem  # an old table takes nothing back
        if is_newer and table.is_taken_back(release) and (route := table.choose(scan)).release != release:
            return route, f"release {release} was taken back by revision {table.revision} of the routing table"
        if (gone_s := self._gone_s(held, time.time() if now_s is None else now_s)) > 0:
            if (route := table.choose(scan, without=release)).release != release:
                return route, f"no sensor of release {release} has looked for {gone_s:.0f} s"
            log.error(
                "%s: expected a sensor of release %s, the default; got none for %.0f s. It waits. "
                "Look at the code location in the UI, or make another release the default.",
                *(held.upload, release, gone_s),
            )
        return None

    def anew(self, held: Assignment, route: Route, why: str) -> Assignment:
        """Decides anew, and says so; what somebody else did meanwhile holds. Raises: OSError."""
        new = assign_anew(self.inbox, held, route, self.by, why)
        log.warning("%s: goes to release %s, not %s any more: %s", held.upload, new.release, held.release, why)
        return new

    def _gone_s(self, held: Assignment, now_s: float) -> float:
        """For how long nobody has looked for this release; 0 where that is no reason for anything."""
        if self._since_s is None or now_s - self._since_s <= GONE_S:
            return 0.0
        try:
            last_s = os.stat(_life(self.inbox, held.release)).st_mtime
        except FileNotFoundError:
            last_s = 0.0
        gone_s = now_s - max(last_s, held.decided_s)
        return gone_s if gone_s > GONE_S else 0.0


def sign_of_life(inbox: Path, release: str, now_s: float) -> float:
    """Says that the sensor of a release looks now; returns since when it has done so without a gap."""
    file = _life(inbox, release)
    try:
        is_going_on = 0 <= now_s - file.stat().st_mtime <= GAP_S
        since_s = float(json.loads(file.read_bytes())["since_s"]) if is_going_on else now_s
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        is_going_on, since_s = False, now_s
    if not is_going_on:
        replace_whole(file, json.dumps({"schema": 1, "release": release, "since_s": since_s}).encode())
    os.utime(file, (now_s, now_s))
    return since_s


def tags_of(held: Assignment) -> dict[str, str]:
    """What a run says of how its upload came to it."""
    route = held.route
    shadows = ",".join(
        f"{release}:{flight}" for release, flight in zip(route.shadows, route.shadow_flights, strict=True)
    )
    said = {FLIGHT_TAG: route.flight, FLAGS_TAG: ",".join(route.flags), SHADOWS_TAG: shadows}
    known = {tag: value for tag, value in said.items() if value}
    return {RELEASE_TAG: route.release, ROUTE_REVISION_TAG: str(route.revision), **known}


def shadow_flight(shadows: str, release: str) -> str | None:
    """The flight by which a release sees a copy, from the tag of the customer's run; None where it does not."""
    pairs = (each.partition(":") for each in shadows.split(","))
    return next((flight for name, _, flight in pairs if name == release), None)


def _life(inbox: Path, release: str) -> Path:
    return inbox / FOLDER / f"looks.{release}.json"
