"""Making a release the default, and taking that back: one new revision of the routing table each.

Belongs here: what stands in that one revision. Does not belong here: who may do it and whether the release was
approved (console/), the smoke scan that follows (smoke.py).

Neither needs the console, Dagster or any process of ours: only a place that can be written.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from geomagic_dagster.releases import routing_changes
from geomagic_dagster.releases.routing import NEVER, RoutingRefused, RoutingStore, RoutingTable

Edit = Callable[[dict[str, Any]], None]
SMOKE = "smoke-"
"""How the names of smoke scans begin, and so those of their packages."""


def make_default(store: RoutingStore, release: str, *, by: str, why: str) -> RoutingTable:
    """Everything that no pin and no flight takes goes to it from now on, on probation: the watcher sends it a smoke
    scan, and goes back to the default of now unless that passes. Raises: RoutingRefused, RoutingUnavailable.
    """
    return store.change(on_probation(release), by=by, why=why)


def roll_back(store: RoutingStore, *, by: str, why: str, meant: str | None = None) -> RoutingTable:
    """Back to the release that was the default before, at once and without probation.

    Raises: RoutingRefused where there was none, or it is not live any more; RoutingUnavailable.
    """
    return store.change(back_to_the_one_before(store, meant), by=by, why=why)


def back_to_the_one_before(store: RoutingStore, meant: str | None = None) -> Edit:
    """The change that takes the default of now back; refused where it is not the default any more when it is written.

    Args:
        meant: the default that somebody saw when they decided. Of two who roll back at once, or of a person and the
            watcher, the second one would otherwise take back what the first one had just put in its place.
    Raises: RoutingRefused, RoutingUnavailable.
    """
    table = store.read().table
    expected = meant or table.default
    _must_be_default(expected, table.default)
    if table.probation:
        return off_probation(table.probation.release, failed=True)
    before = default_before(store, table)

    def edit(document: dict[str, Any]) -> None:
        _must_be_default(expected, document["default"])
        routing_changes.go_back_to(before)(document)

    return edit


def _must_be_default(expected: str, received: str) -> None:
    if received != expected:
        raise RoutingRefused(
            "roll back",
            expected=f"{expected} as the default",
            received=received,
            do="Somebody was quicker; look at the traffic, or: geomagic route show",
        )


def present_and_before(store: RoutingStore) -> tuple[str, str]:
    """The default now, and the one that rolling back makes it. Raises: RoutingRefused, RoutingUnavailable."""
    table = store.read().table
    return table.default, table.probation.previous if table.probation else default_before(store, table)


def default_before(store: RoutingStore, table: RoutingTable) -> str:
    """The last default before this table's that is still live and was not itself taken back. Raises: RoutingRefused."""
    defaults = [table.default]
    for each in chain(store.backwards(before=table.revision), [NEVER]):  # what held before anybody wrote a table, too
        if each.default not in defaults:
            if not table.is_taken_back(each.default):
                return each.default
            defaults.append(each.default)
    raise RoutingRefused(
        "roll back",
        expected=f"a release that was the default before {table.default}, is still live and was not taken back",
        received=f"live: {', '.join(table.live)}; defaults so far: {', '.join(reversed(defaults))}",
        do="Choose one: geomagic route default RELEASE",
    )


def on_probation(release: str) -> Edit:
    """The default changes; its smoke scan is named, and pinned to it, in the same revision."""

    def edit(document: dict[str, Any]) -> None:
        routing_changes.set_default(release)(document)
        if document["probation"]:
            name_smoke_scan(document)

    return edit


def name_smoke_scan(document: dict[str, Any]) -> None:
    """Names the smoke scan of a probation that has none, and pins it, so that no flight takes it."""
    probation = document["probation"]
    if not probation.get("smoke_upload"):
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        probation["smoke_upload"] = f"{SMOKE}{probation['release'].replace('.', '_')}-{stamp}"
    document["pins"] = {**document.get("pins", {}), probation["smoke_upload"]: probation["release"]}


def off_probation(release: str, *, failed: bool, since: str | None = None) -> Edit:
    """The smoke scan of this release passed, or the default goes back; its pin goes either way.

    Args:
        since: the probation that is meant, for whoever decided by its smoke scan; not a later one of the same release.
    """

    def edit(document: dict[str, Any]) -> None:
        probation = document.get("probation") or {}
        if since is not None and probation.get("since") != since:
            raise RoutingRefused(
                f"probation of {release}",
                expected=f"the one since {since}",
                received=f"one since {probation['since']}" if probation else "none",
                do="Somebody was quicker; nothing to do.",
            )
        done = routing_changes.roll_back if failed else routing_changes.end_probation
        done(release)(document)
        document.get("pins", {}).pop(probation.get("smoke_upload"), None)

    return edit
