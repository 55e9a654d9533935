"""What can go wrong on purpose: each fault is done to a running installation and, where it lasts, undone again.

Belongs here: faults, and finding the processes to do them to. Does not belong here: when (drill.py).
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from geomagic_dagster.drill.unreliable import AWAY
from geomagic_dagster.guardrails import processes
from geomagic_dagster.guardrails.processes import descendants

LASTS_S = (1.0, 4.0)
"""How long a fault lasts that does: from, to."""


@dataclass(frozen=True)
class Site:
    """A running installation that faults are done to."""

    supervisor: int
    """Its pid."""
    store: Path
    """Folder that the store really is."""
    ballast: Path
    """A file on the disk of uploads and cache; while it is large, that disk is full."""
    orders: Path


@dataclass(frozen=True)
class Fault:
    name: str
    strike: Callable[[Site, random.Random], bool]
    """Does it; False where there is nothing to do it to right now."""
    mend: Callable[[Site], None] | None = None


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def parent_of(pid: int) -> int:
    """0 for a process that has ended meanwhile."""
    try:
        return processes.parent_of(pid)
    except ProcessLookupError:
        return 0


def starters(site: Site) -> set[int]:
    return {pid for pid in descendants(site.supervisor) if "launching.starter" in command_of(pid)}


def run_workers(site: Site) -> list[int]:
    """Processes of runs: forked off a starter, whose command line they share, and led by it or adopted."""
    found = []
    of_starter = starters(site)
    roots = {pid for pid in of_starter if parent_of(pid) == site.supervisor}
    for pid in of_starter - roots:
        if parent_of(pid) in roots | {site.supervisor, 1} or parent_of(pid) not in of_starter:
            found.append(pid)
    return sorted(found)


def step_processes(site: Site) -> list[int]:
    """Those that do the work of a step; a worker has others too, that copy its output into Dagster's log."""
    workers = set(run_workers(site))
    return sorted(pid for pid in starters(site) if parent_of(pid) in workers)


def members(site: Site, mark: str) -> list[int]:
    return sorted(
        pid for pid in descendants(site.supervisor) if mark in command_of(pid) and parent_of(pid) == site.supervisor
    )


def killing(find: Callable[[Site], list[int]]) -> Callable[[Site, random.Random], bool]:
    def strike(site: Site, chance: random.Random) -> bool:
        pids = find(site)
        if not pids:
            return False
        try:
            os.kill(chance.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    return strike


def cut_the_store_off(site: Site, chance: random.Random) -> bool:
    Path(f"{site.store}{AWAY}").touch()
    return True


def bring_the_store_back(site: Site) -> None:
    Path(f"{site.store}{AWAY}").unlink(missing_ok=True)


def fill_the_disk(site: Site, chance: random.Random) -> bool:
    """To the last byte; the folder is a small disk of its own (drill.py)."""
    with open(site.ballast, "wb", buffering=0) as file:
        block = b"\0" * 2**20
        for size in (len(block), 4096, 1):
            try:
                while True:
                    file.write(block[:size])
            except OSError:
                continue
    return True


def free_the_disk(site: Site) -> None:
    site.ballast.unlink(missing_ok=True)


def order_a_hang(site: Site, chance: random.Random) -> bool:
    (site.orders / f"hang-{chance.getrandbits(32):08x}").touch()
    return True


def take_order(orders: Path, kind: str) -> bool:
    """Takes one order of a kind, which then is nobody else's."""
    for order in sorted(orders.glob(f"{kind}*")):
        try:
            order.rename(order.with_name(f"taken-{order.name}"))
        except FileNotFoundError:
            continue
        return True
    return False


FAULTS = (
    Fault("step killed", killing(step_processes)),
    Fault("run worker killed", killing(run_workers)),
    Fault("code server killed", killing(lambda site: members(site, "code-server"))),
    Fault("daemon killed", killing(lambda site: members(site, "dagster._daemon"))),
    Fault("starter killed", killing(lambda site: members(site, "launching.starter"))),
    Fault("disk full", fill_the_disk, free_the_disk),
    Fault("store away", cut_the_store_off, bring_the_store_back),
    Fault("stage hangs", order_a_hang),
)
