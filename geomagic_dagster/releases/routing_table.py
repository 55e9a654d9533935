"""What a routing table says: which release takes which scan, and which flags are on for it.

Belongs here: one table as a value, reading one that newer code wrote, and the rules that every table keeps. Does not
belong here: where tables lie and how one follows another (routing.py), the changes people make (routing_changes.py).

The table is the only thing that releases of different ages share, so the format only grows: what a reader does not
know it leaves alone, and keeps when it writes.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1
LATEST = "latest"
RELEASE = re.compile(r"latest|(0|[1-9]\d*)\.(0|[1-9]\d*)")
FLAG = re.compile(r"[a-z][a-z0-9_]*")


class RoutingRefused(ValueError):
    """This is no routing table, or a change that may not be made; one sentence says why and what to do."""

    def __init__(self, place: str, *, expected: str, received: str, do: str) -> None:
        super().__init__(f"{place}: expected {expected}; got {received}. {do}")


@dataclass(frozen=True)
class Flight:
    """A share of the scans that goes to a release; as a shadow, the release only sees a copy of them."""

    id: str
    release: str
    per_cent: float
    shadow: bool = False
    started_at: str = ""

    def takes(self, scan: str) -> bool:
        return bucket(self.id, scan) < self.per_cent


@dataclass(frozen=True)
class Flag:
    """For whom a feature flag is on: everybody, a share of the scans, the scans named."""

    on: bool = False
    per_cent: float = 0.0
    scans: tuple[str, ...] = ()

    def is_on(self, name: str, scan: str) -> bool:
        return self.on or scan in self.scans or bucket(name, scan) < self.per_cent


@dataclass(frozen=True)
class Probation:
    """A new default whose smoke scan has not passed yet, and the release to go back to."""

    release: str
    previous: str
    since: str = ""
    smoke_upload: str = ""


@dataclass(frozen=True)
class Route:
    """What becomes of one scan."""

    release: str
    flight: str | None = None
    """The flight that it is part of."""
    shadows: tuple[str, ...] = ()
    """Releases that see a copy of it."""
    flags: tuple[str, ...] = ()
    """Those that are on for it, sorted."""
    revision: int = 0
    """Of the table that said so."""
    shadow_flights: tuple[str, ...] = ()
    """The flight of each of the shadows, in the same order."""


@dataclass(frozen=True)
class RoutingTable:
    """One revision of the table."""

    revision: int
    default: str
    live: tuple[str, ...]
    flights: tuple[Flight, ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, Flag] = field(default_factory=dict)
    probation: Probation | None = None
    taken_back: tuple[str, ...] = ()
    """Releases that proved worse: what was routed to them and has not begun is routed anew."""
    written_at: str = ""
    written_by: str = ""
    why: str = ""
    schema: int = SCHEMA
    document: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The whole of it as it was read, also what this code does not know."""

    def is_taken_back(self, release: str) -> bool:
        return release not in self.live or release in self.taken_back

    def choose(self, scan: str, without: str = "") -> Route:
        """Where a scan goes: its pin, else the first flight that takes it, else the default.

        A flight takes its share of all scans, by a hash of the flight and the scan: the same scan always meets the
        same answer, and none leaves a flight because another one ended. Of two flights the second one sees only what
        the first one left. What is not live gets nothing, whatever the table says of it.

        Args:
            without: a release that cannot take the scan now; pins and flights to it do not count.
        """
        flight = None
        pin = self.pins.get(scan)
        if pin in self.live and pin != without:
            release = str(pin)
        else:
            flown = (each for each in self.flights if self._is_flown(each, False) and each.release != without)
            flight = next((each for each in flown if each.takes(scan)), None)
            release = flight.release if flight else self.default
        copies: dict[str, str] = {}
        for each in self.flights:
            if self._is_flown(each, True) and each.release != release and each.takes(scan):
                copies.setdefault(each.release, each.id)
        return Route(
            release=release,
            flight=flight.id if flight else None,
            shadows=tuple(copies),
            flags=tuple(sorted(name for name, flag in self.flags.items() if flag.is_on(name, scan))),
            revision=self.revision,
            shadow_flights=tuple(copies.values()),
        )

    def _is_flown(self, flight: Flight, shadow: bool) -> bool:
        return flight.shadow is shadow and flight.release in self.live


NEVER = RoutingTable(
    0, LATEST, (LATEST,), document={"schema": SCHEMA, "revision": 0, "default": LATEST, "live": [LATEST]}
)
"""What holds where nobody ever wrote a table."""


def bucket(what: str, scan: str) -> float:
    """Where a scan stands between 0 and 100 for a flight or a flag; for another one it stands elsewhere."""
    digest = hashlib.sha256(f"{what}:{scan}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * 100


# --- reading and checking -------------------------------------------------------------------------


def parse(content: bytes | str, place: str = "routing table") -> RoutingTable:
    """A table from its bytes. Raises: RoutingRefused."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RoutingRefused(
            place, expected="JSON", received=f"{error}", do="Look at the file; `geomagic route history` lists the rest."
        ) from error
    return read_document(document, place)


def read_document(document: Any, place: str = "routing table") -> RoutingTable:
    """A table from its document: what this code needs has to be right, the rest is left alone.

    Raises: RoutingRefused.
    """
    top = _Fields(document, place)
    live = tuple(top.each("live", top.get("live", list, [LATEST]), str))
    table = RoutingTable(
        revision=top.get("revision", int),
        default=top.get("default", str),
        live=live,
        flights=tuple(_flight(_Fields(each, f"{place}, flights")) for each in top.get("flights", list, [])),
        pins=dict(top.get("pins", dict, {})),
        flags={
            name: _flag(_Fields(each, f"{place}, flag {name}")) for name, each in top.get("flags", dict, {}).items()
        },
        taken_back=tuple(top.each("taken_back", top.get("taken_back", list, []), str)),
        probation=_probation(top.get("probation", dict, None), place),
        written_at=top.get("written_at", str, ""),
        written_by=top.get("written_by", str, ""),
        why=top.get("why", str, ""),
        schema=top.get("schema", int, SCHEMA),
        document=document,
    )
    top.each("pins", list(table.pins.values()), str)
    if table.revision < 0:
        raise RoutingRefused(
            f"{place}, revision", expected="0 or more", received=str(table.revision), do="Write a new one."
        )
    if table.default not in live:
        raise RoutingRefused(
            f"{place}, default",
            expected=f"a live release ({', '.join(live)})",
            received=repr(table.default),
            do="Make it live first, or choose another one.",
        )
    return table


def check(table: RoutingTable) -> None:
    """The rules for a table that is about to be written. Raises: RoutingRefused."""
    for name in table.live:
        if not RELEASE.fullmatch(name):
            raise RoutingRefused("live", expected="latest or a line like 1.0", received=repr(name), do="Name the line.")
    if table.default in table.taken_back:
        raise RoutingRefused(
            "default",
            expected="a release that was not taken back",
            received=f"{table.default}, which was",
            do="Choose another one.",
        )
    for flight in table.flights:
        place = f"flight {flight.id or '(without an id)'} of {flight.release}"
        if not flight.id or [each.id for each in table.flights].count(flight.id) > 1:
            raise RoutingRefused(place, expected="an id of its own", received=repr(flight.id), do="Give it another.")
        _check_live(table, place, flight.release)
        _check_per_cent(place, flight.per_cent)
        if flight.release in table.taken_back and not flight.shadow:
            raise RoutingRefused(
                place, expected="a release that was not taken back", received="one that was", do="End the flight."
            )
        if flight.release == table.default:
            raise RoutingRefused(
                place,
                expected="a release that is not the default",
                received=f"{flight.release}, which takes everything else already",
                do="End the flight, or choose another release.",
            )
        if [(each.release, each.shadow) for each in table.flights].count((flight.release, flight.shadow)) > 1:
            kind = "shadow flight" if flight.shadow else "flight"
            raise RoutingRefused(
                place, expected=f"one {kind} a release", received="a second one", do="Change the share of the first."
            )
    total = math.fsum(flight.per_cent for flight in table.flights if not flight.shadow)
    if total > 100:
        raise RoutingRefused(
            "flights", expected="at most 100 per cent in all", received=f"{total:g}", do="Make one of them smaller."
        )
    for scan, release in table.pins.items():
        _check_live(table, f"pin of {scan}", release)
    for name, flag in table.flags.items():
        if not FLAG.fullmatch(name):
            raise RoutingRefused(
                "flag", expected="a name like new_plane_fit", received=repr(name), do="Use the stage's name for it."
            )
        _check_per_cent(f"flag {name}", flag.per_cent)
    if table.probation:
        _check_live(table, "probation, release to go back to", table.probation.previous)
        if table.probation.release != table.default:
            raise RoutingRefused(
                "probation",
                expected=f"the default, {table.default}",
                received=table.probation.release,
                do="Only a new default is on probation: end it when the default changes.",
            )


def _check_live(table: RoutingTable, place: str, release: str) -> None:
    if release not in table.live:
        raise RoutingRefused(
            place,
            expected=f"a live release ({', '.join(table.live)})",
            received=repr(release),
            do="Make it live first, or choose another one.",
        )


def _check_per_cent(place: str, per_cent: float) -> None:
    if not 0 <= per_cent <= 100:
        raise RoutingRefused(
            place, expected="a share from 0 to 100 per cent", received=f"{per_cent:g}", do="Choose one between them."
        )


def _flight(fields: _Fields) -> Flight:
    return Flight(
        id=fields.get("id", str),
        release=fields.get("release", str),
        per_cent=fields.get("per_cent", float),
        shadow=fields.get("shadow", bool, False),
        started_at=fields.get("started_at", str, ""),
    )


def _flag(fields: _Fields) -> Flag:
    return Flag(
        on=fields.get("on", bool, False),
        per_cent=fields.get("per_cent", float, 0.0),
        scans=tuple(fields.each("scans", fields.get("scans", list, []), str)),
    )


def _probation(document: Any, place: str) -> Probation | None:
    if document is None:
        return None
    fields = _Fields(document, f"{place}, probation")
    return Probation(
        release=fields.get("release", str),
        previous=fields.get("previous", str),
        since=fields.get("since", str, ""),
        smoke_upload=fields.get("smoke_upload", str, None) or "",
    )


_REQUIRED: Any = object()
_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


class _Fields:
    """The fields of one object of the document that this code knows."""

    def __init__(self, document: Any, place: str) -> None:
        if not isinstance(document, dict):
            raise RoutingRefused(place, expected="an object", received=_shown(document), do="Look at the file.")
        self.document, self.place = document, place

    def get(self, name: str, kind: type, default: Any = _REQUIRED) -> Any:
        value = self.document.get(name, default)
        if value is default and default is not _REQUIRED:
            return value
        if value is _REQUIRED:
            raise RoutingRefused(f"{self.place}, {name}", expected=_WORDS[kind], received="nothing", do="Say it.")
        return self._of(name, value, kind)

    def each(self, name: str, values: list[Any], kind: type) -> list[Any]:
        return [self._of(name, value, kind) for value in values]

    def _of(self, name: str, value: Any, kind: type) -> Any:
        allowed = (int, float) if kind is float else kind
        is_right = isinstance(value, allowed) and (kind is bool or not isinstance(value, bool))
        if not is_right or (kind is float and not -1e9 < value < 1e9):  # neither NaN nor without end
            raise RoutingRefused(
                f"{self.place}, {name}", expected=_WORDS[kind], received=_shown(value), do="Correct it."
            )
        return value


def _shown(value: Any) -> str:
    return repr(value)[:80]
