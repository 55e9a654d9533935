"""What one revision of the routing table changed, as an action and in words.

Belongs here: the difference of two tables. Does not belong here: who changed it, where it is kept (sync.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from geomagic_dagster.flighting.promote import SMOKE
from geomagic_dagster.releases.routing_table import Flag, Flight, RoutingTable


class Changed(NamedTuple):
    """What happened between two revisions."""

    action: str
    """As roles.py calls it."""
    what: str
    """What it was done to: "release 1.1", "flag new_plane_fit"."""
    words: tuple[str, ...]
    before: dict[str, Any]
    after: dict[str, Any]
    rolled_back: str | None = None
    """The release that is the default no more because it failed or somebody took it back."""
    ended: tuple[Flight, ...] = ()


def changed(old: RoutingTable, new: RoutingTable) -> Changed:
    """The difference, the most important part first."""
    parts: list[tuple[str, str, str]] = []
    rolled_back = None
    if old.default != new.default:
        # Whatever becomes the default is on probation at first; what was there before needs none.
        was_rolled_back = old.revision > 0 and new.probation is None
        rolled_back = old.default if was_rolled_back else None
        action = "roll_back" if was_rolled_back else "make_default"
        parts.append((action, f"release {old.default if was_rolled_back else new.default}", _default_words(old, new)))
    elif old.probation and not new.probation:
        parts.append(("end_probation", f"release {new.default}", f"{new.default} passed its smoke scan"))
    before, after = {each.id: each for each in old.flights}, {each.id: each for each in new.flights}
    ended = tuple(before[each] for each in before.keys() - after.keys())
    for each in after.values():
        if each.id not in before:
            parts.append(("start_flight", f"release {each.release}", f"flight {each.id}: {_flight(each)}"))
        elif before[each.id] != each:
            words = f"flight {each.id}: {_flight(each)}, before {before[each.id].per_cent:g} %"
            parts.append(("start_flight", f"release {each.release}", words))
    parts += [("end_flight", f"release {each.release}", f"flight {each.id} ended: {_flight(each)}") for each in ended]
    pins, pins_now = (_of_customers(each) for each in (old.pins, new.pins))
    parts += _mapping(pins, pins_now, "set_pin", "scan", lambda release: f"goes to {release}")
    parts += _mapping(old.flags, new.flags, "set_flag", "flag", flag_words)
    for each in new.live:
        if each not in old.live:
            parts.append(("make_live", f"release {each}", f"{each} may get traffic"))
    for each in old.live:
        if each not in new.live:
            parts.append(("take_off", f"release {each}", f"{each} may get no traffic any more"))
    action, what, _ = parts[0] if parts else ("change_table", "routing table", "")
    return Changed(action, what, tuple(words for *_, words in parts), summary(old), summary(new), rolled_back, ended)


def summary(table: RoutingTable) -> dict[str, Any]:
    """The table in one flat object, for the audit trail."""
    return {
        "default": table.default,
        "live": list(table.live),
        "flights": [f"{each.id}: {_flight(each)}" for each in table.flights],
        "pins": dict(table.pins),
        "flags": {name: flag_words(flag) for name, flag in table.flags.items()},
        "probation": table.probation.release if table.probation else None,
    }


def flag_words(flag: Flag) -> str:
    """For whom a flag is on."""
    if flag.on:
        return "on for every scan"
    parts = [f"on for {flag.per_cent:g} % of the scans"] if flag.per_cent else []
    parts += [f"on for {', '.join(flag.scans)}"] if flag.scans else []
    return " and ".join(parts) or "off"


def _of_customers(pins: Mapping[str, str]) -> dict[str, str]:
    """Without those of smoke scans, which come and go with a new default."""
    return {scan: release for scan, release in pins.items() if not scan.startswith(SMOKE)}


def _default_words(old: RoutingTable, new: RoutingTable) -> str:
    ending = ", on probation until its smoke scan has passed" if new.probation else ""
    return f"default {new.default}, before {old.default}{ending}"


def _flight(flight: Flight) -> str:
    return f"{flight.per_cent:g} % to {flight.release}{' as a shadow' if flight.shadow else ''}"


def _mapping(old: Mapping, new: Mapping, action: str, kind: str, words: Any) -> list[tuple[str, str, str]]:
    parts = [
        (action, f"{kind} {name}", f"{kind} {name} {words(new[name])}") for name in new if old.get(name) != new[name]
    ]
    return parts + [(action, f"{kind} {name}", f"{kind} {name} as all others") for name in old if name not in new]
