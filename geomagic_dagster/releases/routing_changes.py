"""The changes that people, and the watcher, make to the routing table; each one for `RoutingStore.change`.

Belongs here: what one change does to the document, and when it makes no sense. Does not belong here: the rules that
hold for every table (routing_table.check), who may change it (console/).

    store.change(set_default("1.1"), by="ada", why="approved on Monday")
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from geomagic_dagster.releases.routing import now_text
from geomagic_dagster.releases.routing_table import RoutingRefused

Edit = Callable[[dict[str, Any]], None]


def make_live(release: str) -> Edit:
    """It may get traffic from now on; it gets none yet."""

    def edit(document: dict[str, Any]) -> None:
        if release not in document["live"]:
            document["live"].append(release)
            _trust(document, release)

    return edit


def take_off(release: str) -> Edit:
    """It gets no traffic any more, and nothing may send it some. Refused while something does."""

    def edit(document: dict[str, Any]) -> None:
        _must_be_live(document, release)
        uses = ["it is the default"] if document["default"] == release else []
        uses += [f"flight {each['id']}" for each in _flights(document) if each["release"] == release]
        uses += [f"the pin of {scan}" for scan, pinned in document.get("pins", {}).items() if pinned == release]
        probation = document.get("probation")
        uses += ["the default on probation goes back to it"] if probation and probation["previous"] == release else []
        if uses:
            raise RoutingRefused(
                f"take {release} off",
                expected="a release without traffic",
                received=", ".join(uses),
                do="End that first.",
            )
        document["live"].remove(release)

    return edit


def revoke(release: str) -> Edit:
    """It gets no traffic any more, as it proved wrong: what was routed to it is routed anew."""

    def edit(document: dict[str, Any]) -> None:
        take_off(release)(document)
        _distrust(document, release)

    return edit


def set_default(release: str, smoke_upload: str | None = None) -> Edit:
    """Everything that no pin and no flight takes goes to it.

    It is on probation until `end_probation` or `roll_back`. Its own flights end: it takes everything now.
    """

    def edit(document: dict[str, Any]) -> None:
        _must_be_live(document, release)
        previous, probation = document["default"], document.get("probation")
        if release == previous:
            raise RoutingRefused(
                f"default {release}", expected="another release than now", received="the same", do="Nothing to do."
            )
        if probation and probation["previous"] != release:
            raise RoutingRefused(
                f"default {release}",
                expected="a default that has passed its smoke scan",
                received=f"{previous}, which is on probation since {probation.get('since') or 'a while'}",
                do=f"Wait for it, or go back to {probation['previous']} first.",
            )
        document["default"] = release
        _trust(document, release)
        document["flights"] = [each for each in _flights(document) if each["release"] != release]
        document["probation"] = None
        if not probation:
            document["probation"] = {"release": release, "previous": previous, "since": now_text()}
            if smoke_upload:
                document["probation"]["smoke_upload"] = smoke_upload

    return edit


def end_probation(release: str) -> Edit:
    """The default has passed its smoke scan."""

    def edit(document: dict[str, Any]) -> None:
        _must_be_on_probation(document, release)
        document["probation"] = None

    return edit


def roll_back(release: str | None = None) -> Edit:
    """Back to the default that was there before the one on probation, which is taken back.

    Args:
        release: the one that has to be on probation, for whoever decided by its smoke scan.
    """

    def edit(document: dict[str, Any]) -> None:
        _must_be_on_probation(document, release)
        go_back_to(document["probation"]["previous"])(document)

    return edit


def go_back_to(release: str) -> Edit:
    """Makes an earlier release the default again and takes back the one that is it now: what was routed to that one
    and has not begun is routed anew, its flights end. Without probation: the release was the default before."""

    def edit(document: dict[str, Any]) -> None:
        _must_be_live(document, release)
        worse = document["default"]
        if release == worse:
            raise RoutingRefused(
                f"go back to {release}", expected="another release than now", received="the same", do="Nothing to do."
            )
        smoke_upload = (document.get("probation") or {}).get("smoke_upload")
        document.get("pins", {}).pop(smoke_upload, None)
        document["default"], document["probation"] = release, None
        document["flights"] = [each for each in _flights(document) if each["release"] not in (worse, release)]
        _trust(document, release)
        _distrust(document, worse)

    return edit


def start_flight(release: str, per_cent: float, *, shadow: bool = False, flight_id: str | None = None) -> Edit:
    """Sends a share of the scans to a release, or a copy of them; where it flies already, changes the share.

    A share that grows keeps the scans that it had.
    """

    def edit(document: dict[str, Any]) -> None:
        _must_be_live(document, release)
        if not shadow:
            _trust(document, release)
        if per_cent <= 0:
            raise RoutingRefused(
                f"flight of {release}",
                expected="a share above 0 per cent",
                received=f"{per_cent:g}",
                do="End it instead.",
            )
        for each in _flights(document):
            if each["release"] == release and bool(each.get("shadow")) is shadow:
                each["per_cent"] = float(per_cent)
                return
        document["flights"] = [
            *_flights(document),
            {
                "id": flight_id or f"f-{uuid.uuid4().hex[:8]}",
                "release": release,
                "per_cent": float(per_cent),
                "shadow": shadow,
                "started_at": now_text(),
            },
        ]

    return edit


def end_flight(flight: str, *, taken_back: bool = False) -> Edit:
    """Ends one flight by its id, or all flights of a release.

    Args:
        taken_back: the release proved worse, so what was routed to it and has not begun is routed anew. Otherwise what
            was routed to it stays with it.
    """

    def edit(document: dict[str, Any]) -> None:
        ended = [each for each in _flights(document) if flight in (each["id"], each["release"])]
        if taken_back:
            worse = {each["release"] for each in ended}
            ended = [each for each in _flights(document) if each["release"] in worse]
            for release in worse:
                _distrust(document, release)
        left = [each for each in _flights(document) if each not in ended]
        if not ended:
            there = ", ".join(f"{each['id']} of {each['release']}" for each in left) or "none at all"
            raise RoutingRefused(
                f"end flight {flight}",
                expected="the id or the release of a flight",
                received=f"these: {there}",
                do="Choose one.",
            )
        document["flights"] = left

    return edit


def pin(scan: str, release: str) -> Edit:
    """One scan always goes to one release."""

    def edit(document: dict[str, Any]) -> None:
        _must_be_live(document, release)
        document.setdefault("pins", {})[scan] = release

    return edit


def unpin(scan: str) -> Edit:
    """One scan goes where the others go."""

    def edit(document: dict[str, Any]) -> None:
        pins = document.setdefault("pins", {})
        if scan not in pins:
            raise RoutingRefused(
                f"unpin {scan}",
                expected="a scan that is pinned",
                received=", ".join(pins) or "none",
                do="Look at: geomagic route show",
            )
        del pins[scan]

    return edit


def set_flag(
    name: str, *, on: bool | None = None, per_cent: float | None = None, scans: tuple[str, ...] | None = None
) -> Edit:
    """For whom a flag is on. `on=True`: everybody; `on=False`: nobody, unless a share or scans are said with it."""

    def edit(document: dict[str, Any]) -> None:
        flag = document.setdefault("flags", {}).setdefault(name, {"on": False, "per_cent": 0.0, "scans": []})
        if on is not None:
            flag["on"] = on
        if on is False:
            flag |= {"per_cent": 0.0, "scans": []}
        if per_cent is not None:
            flag["per_cent"] = float(per_cent)
        if scans is not None:
            flag["scans"] = sorted(set(scans))

    return edit


def _trust(document: dict[str, Any], release: str) -> None:
    document["taken_back"] = [each for each in document.get("taken_back", []) if each != release]


def _distrust(document: dict[str, Any], release: str) -> None:
    document["taken_back"] = sorted({*document.get("taken_back", []), release})


def _flights(document: dict[str, Any]) -> list[dict[str, Any]]:
    return document.get("flights", [])


def _must_be_live(document: dict[str, Any], release: str) -> None:
    if release not in document["live"]:
        raise RoutingRefused(
            f"release {release}",
            expected=f"a live one ({', '.join(document['live'])})",
            received=release,
            do=f'Make it live first: geomagic route live {release} --why "..."',
        )


def _must_be_on_probation(document: dict[str, Any], release: str | None) -> None:
    probation = document.get("probation")
    if not probation or (release is not None and probation["release"] != release):
        raise RoutingRefused(
            "probation",
            expected=f"{release or 'a default'} on probation",
            received=f"{probation['release']} on probation"
            if probation
            else f"default {document['default']}, not on it",
            do="Look at: geomagic route show",
        )
