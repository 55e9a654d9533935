"""Making a release the default, and taking that back: one new revision of the routing table each.

Belongs here: what stands in that one revision. Does not belong here: who may do it and whether the release was
approved (console/), the smoke scan that follows (smoke.py).

Neither needs the console, Dagster or any process of ours: only a place that can be written.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from geomagic_dagster.releases import routing_changes
from geomagic_dagster.releases.routing import RoutingRefused, RoutingStore, RoutingTable

Edit = Callable[[dict[str, Any]], None]
SMOKE = "smoke-"
"""How the names of smoke scans begin, and so those of their packages."""


def make_default(store: RoutingStore, release: str, *, by: str, why: str) -> RoutingTable:
    """Everything that no pin and no flight takes goes to it from now on, on probation: the watcher sends it a smoke
    scan, and goes back to the default of now unless that passes. Raises: RoutingRefused, RoutingUnavailable.
    """
    return store.change(on_probation(release), by=by, why=why)


def roll_back(store: RoutingStore, *, by: str, why: str) -> RoutingTable:
    """Back to the release that was the default before, at once and without probation.

    Raises: RoutingRefused where there was none, or it is not live any more; RoutingUnavailable.
    """
    return store.change(back_to_the_one_before(store), by=by, why=why)


def back_to_the_one_before(store: RoutingStore) -> Edit:
    """The change that takes the default of now back; refused where it is not the default any more when it is written.

    Raises: RoutingRefused, RoutingUnavailable.
    """
    table = store.read().table
    if table.probation:
        return off_probation(table.probation.release, failed=True)
    before = default_before(store, table)

    def edit(document: dict[str, Any]) -> None:
        if document["default"] != table.default:
            raise RoutingRefused(
                "roll back",
                expected=f"{table.default} as the default",
                received=document["default"],
                do="Somebody was quicker; look at: geomagic route show",
            )
        routing_changes.go_back_to(before)(document)

    return edit


def present_and_before(store: RoutingStore) -> tuple[str, str]:
    """The default now, and the one that rolling back makes it. Raises: RoutingRefused, RoutingUnavailable."""
    table = store.read().table
    return table.default, table.probation.previous if table.probation else default_before(store, table)


def default_before(store: RoutingStore, table: RoutingTable) -> str:
    """The last default before this table's that is still live. Raises: RoutingRefused."""
    earlier = [each.default for each in store.history() if each.revision < table.revision]
    defaults = ", ".join(dict.fromkeys([*earlier, table.default]))
    for release in reversed(earlier):
        if release != table.default and release in table.live:
            return release
    raise RoutingRefused(
        "roll back",
        expected=f"a release that was the default before {table.default} and is still live",
        received=f"live: {', '.join(table.live)}; defaults so far: {defaults}",
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
