"""Which releases were taken back, when, and by which revisions of the routing table they last got customers' uploads.

Belongs here: reading that off the table's history. Does not belong here: taking a release back (releases/), what
becomes of its uploads (again.py, rejected.py).

    revision   1    2    3    4    5    6    7      1.2 was taken back by revision 7, and got uploads by 5 and 6;
    1.2             10 %      10 % 20 % worse       the flight by revision 2 is another story
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from geomagic_dagster.flighting.smoke import seconds_of
from geomagic_dagster.releases.routing import RoutingStore, RoutingTable
from geomagic_dagster.releases.routing_table import NEVER


@dataclass(frozen=True)
class TakenBack:
    """A release that proved worse."""

    release: str
    revision: int
    """That took it back."""
    first: int
    last: int
    """Revisions by which it got uploads before that, without a gap: as a flight, as the default, or one after the
    other."""
    at_s: float
    """When it was taken back, seconds since 1970; 0, long ago, where the table does not say."""

    def routed(self, revision: str) -> bool:
        """Whether a run that was routed by this revision (as its tag says it) is one of those."""
        return revision.isdecimal() and self.first <= int(revision) <= self.last


class TakenBackReleases:
    """Follows the history of one table; reads it only where a release is taken back."""

    def __init__(self, routing: RoutingStore) -> None:
        self._routing = routing
        self._begin()

    def _begin(self) -> None:
        self._seen: RoutingTable = NEVER
        self._used: dict[str, tuple[int, int]] = {}
        """By release: the revisions of its last use."""
        self._taken_back: dict[str, TakenBack] = {}

    def look(self, table: RoutingTable) -> Mapping[str, TakenBack]:
        """By release, as of this table. Raises: OSError where the history cannot be read."""
        if not table.taken_back:
            return {}
        if table.revision < self._seen.revision:
            self._begin()
        if table.revision > self._seen.revision:
            for each in self._routing.history(after=self._seen.revision):
                if each.revision <= table.revision:
                    self._fold(each)
        return {release: said for release, said in self._taken_back.items() if release in table.taken_back}

    def _fold(self, table: RoutingTable) -> None:
        used_before = _in_use(self._seen)
        for release in _in_use(table):
            first = self._used[release][0] if release in used_before and release in self._used else table.revision
            self._used[release] = (first, table.revision)
        for release in set(table.taken_back) - set(self._seen.taken_back):
            if (used := self._used.get(release)) is not None:
                at_s = seconds_of(table.written_at) or 0.0
                self._taken_back[release] = TakenBack(release, table.revision, *used, at_s)
        for release in self._taken_back.keys() - set(table.taken_back):
            del self._taken_back[release]
        self._seen = table


def _in_use(table: RoutingTable) -> set[str]:
    """Releases that get customers' uploads, not copies of them."""
    return {table.default, *(flight.release for flight in table.flights if not flight.shadow)}
