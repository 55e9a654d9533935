"""Archives a release: it costs nothing then, and comes back with one command, since its record stays.

Belongs here: which release may be archived, and the order of the steps. Does not belong here: environments
(environments.py), entries of the workspace (workspace.py).
"""

from __future__ import annotations

from pathlib import Path

from geomagic_dagster.releases import environments, workspace
from geomagic_dagster.releases.record import ReleaseError, Version
from geomagic_dagster.releases.routing_table import RoutingTable


def archive(workspace_file: Path, home: Path, name: str, table: RoutingTable) -> int:
    """Takes a release out of the workspace and removes its environment; returns the bytes that this freed.

    Raises: ReleaseError where the routing table still sends it uploads, or runs of it have not ended.
    """
    line = Version.parse(name).line
    if uses := uploads_for(line, table):
        raise ReleaseError(
            f"release {line}",
            expected="one that gets no uploads any more",
            received="; ".join(uses),
            do="Send them elsewhere first; see: geomagic route --help.",
        )
    workspace.remove(workspace_file, line)
    return environments.remove(home, line)


def uploads_for(line: str, table: RoutingTable) -> list[str]:
    """Why a release gets uploads, in words; empty where it gets none."""
    found = ["it is the default"] if table.default == line else []
    found += [
        f"flight {flight.id} sends it {flight.per_cent:g} %" for flight in table.flights if flight.release == line
    ]
    pinned = sorted(scan for scan, release in table.pins.items() if release == line)
    if pinned:
        more = f" and {len(pinned) - 3} more" if len(pinned) > 3 else ""
        found.append(f"these scans are pinned to it: {', '.join(pinned[:3])}{more}")
    if table.probation is not None and line in (table.probation.release, table.probation.previous):
        found.append("a new default is on probation, and it may be needed to go back to")
    return found
