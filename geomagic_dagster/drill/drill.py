"""`geomagic drill`: the real thing in a throwaway folder, fed with uploads, while everything in it is broken.

It starts what `geomagic ui` starts, feeds it small made-up rooms, good ones and bad ones, half of them through the
intake and half by putting them into the inbox, and meanwhile kills its processes, fills its disk, cuts its store off
and hangs its stages, at moments that a seed decides. Then it waits until all is quiet, and counts.

Belongs here: the order of events, and the count. Does not belong here: single faults (faults.py), the code location
(location.py).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from geomagic_dagster.drill.faults import FAULTS, LASTS_S, Fault, Site
from geomagic_dagster.drill.place import answers, free_ports, zip_folder

GOOD_SHARE = 0.7
DISK_MB = 600
QUIET_S = 900.0
"""After the last fault everything has come to its end by then, all waits between attempts included."""


@dataclass
class Count:
    """What became of it all."""

    uploads: dict[str, bool]
    """Name of each upload, and whether it is a good one."""
    faults: Counter[str] = field(default_factory=Counter)
    packages: Counter[str] = field(default_factory=Counter)
    rejections: Counter[str] = field(default_factory=Counter)
    given_up: tuple[str, ...] = ()
    still_there: tuple[str, ...] = ()
    corrupt: tuple[str, ...] = ()
    artefacts: int = 0
    left_over: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def complaints(self) -> tuple[str, ...]:
        """A sentence for everything that is not as it should be; empty after a drill that went well."""
        said = []
        for name, is_good in self.uploads.items():
            packages, rejections = self.packages[name], self.rejections[name]
            expected = (1, 0) if is_good else (0, 1)
            if (packages, rejections) != expected:
                said.append(
                    f"upload {name}: expected {expected[0]} package and {expected[1]} rejection; got {packages} and "
                    f"{rejections}. Look for it with: geomagic logs --scan {name}"
                )
        for name in (self.packages.keys() | self.rejections.keys()) - self.uploads.keys():
            said.append(f"{name}: expected a package or rejection of an upload; got one of none")
        said += [f"upload {name}: expected a package or a rejection; got given up" for name in self.given_up]
        said += [f"upload {name}: expected the inbox to be empty; got it there still" for name in self.still_there]
        said += [f"{sentence}" for sentence in self.corrupt]
        said += [f"process {each}: expected to have ended; got it alive" for each in self.left_over]
        return tuple(said)


def drill(
    home: Path,
    uploads: int,
    faults: int,
    seed: int,
    say: Callable[[str], None],
    frames: int = 16,
    pace_s: float = 8.0,
) -> Count:
    """Runs a drill in `home`, which must not exist, and counts.

    Args:
        pace_s: seconds from one upload to the next, more or less.
    """
    started_s = time.monotonic()
    chance = random.Random(seed)
    home.mkdir(parents=True)
    small_disk = _SmallDisk(home / "disk", say)
    site_store, orders = home / "elsewhere" / "store", home / "orders"
    for folder in (site_store, orders, home / "waiting"):
        folder.mkdir(parents=True)
    say(f"making up {uploads} rooms")
    waiting = _make_uploads(home / "waiting", uploads, chance, frames)
    environment = _environment(home, small_disk.folder, site_store, orders)
    with open(home / "installation.log", "wb") as log:
        command = [sys.executable, "-m", "geomagic_dagster.drill.installation", *map(str, free_ports(4))]
        installation = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    count = Count({path.name: is_good for path, is_good in waiting})
    try:
        site = Site(installation.pid, site_store, small_disk.folder / "ballast", orders)
        ports = json.loads(_wait_for(lambda: (home / "ports.json").exists() and (home / "ports.json").read_text(), 120))
        _wait_for(lambda: answers(f"http://127.0.0.1:{ports['web']}/server_info"), 180, "the webserver")
        _wait_for(lambda: answers(f"http://127.0.0.1:{ports['intake']}/health"), 180, "the intake")
        _feed_and_break(site, home, waiting, faults, chance, count, say, ports["intake"], pace_s)
        _wait_until_quiet(home, environment, count, say)
    finally:
        for fault in FAULTS:
            if fault.mend:
                fault.mend(Site(installation.pid, site_store, small_disk.folder / "ballast", orders))
        installation.send_signal(signal.SIGTERM)
        try:
            installation.wait(60)
        except subprocess.TimeoutExpired:
            installation.kill()
        count.left_over = _left_over(home)
    _take_stock(home, environment, count)
    small_disk.unmount()
    count.seconds = time.monotonic() - started_s
    return count


# --- before ---------------------------------------------------------------------------------------


class _SmallDisk:
    """A folder that is a disk of its own and can be filled without harm; where nobody may mount one, it is plain."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
        self.is_mounted = shutil.which("mount") is not None and subprocess.run(command, check=False).returncode == 0
        if not self.is_mounted:
            say("no right to mount a small disk here: it is not filled in this drill")

    def unmount(self) -> None:
        if self.is_mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)


def _environment(home: Path, disk: Path, store: Path, orders: Path) -> dict[str, str]:
    named = {f"GEOMAGIC_{name.upper()}": str(home / name) for name in ("inbox", "done", "quarantine", "failed")}
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GEOMAGIC_", "DAGSTER_"))},
        **named,
        "GEOMAGIC_HOME": str(home),
        "GEOMAGIC_STORE": f"unreliable://{store}",
        "GEOMAGIC_CACHE": str(disk / "cache"),
        "GEOMAGIC_PACKAGES": str(disk / "packages"),
        "GEOMAGIC_DRILL": str(orders),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }


def _make_uploads(folder: Path, number: int, chance: random.Random, frames: int) -> list[tuple[Path, bool]]:
    """(archive, whether it is a good one): rooms that differ, under names of their own, and what is no room."""
    from dataclasses import replace

    from geomagic_dagster.scans.formats import canonical
    from geomagic_dagster.scans.made_up import PHONE, make_room, scan_room

    options = PHONE.but(frames=frames, size_wh=(160, 120))
    rooms = [scan_room(make_room(seed), options).scan for seed in range(min(number, 3))]
    made = []
    for index in range(number):
        is_good = chance.random() < GOOD_SHARE
        path = folder / f"{'room' if is_good else 'bad'}-{index:03d}.zip"
        scan = rooms[index % len(rooms)]
        if is_good:
            canonical.write(replace(scan, name=path.stem), folder / path.stem)
        elif index % 2:
            canonical.write(
                replace(scan, name=path.stem, recording=replace(scan.recording, depth=None)), folder / path.stem
            )
        else:
            (folder / path.stem).mkdir()
            (folder / path.stem / "holiday.txt").write_text("sun")
        zip_folder(folder / path.stem, path)
        shutil.rmtree(folder / path.stem)
        made.append((path, is_good))
    return made


# --- meanwhile ------------------------------------------------------------------------------------


def _feed_and_break(
    site: Site,
    home: Path,
    waiting: list[tuple[Path, bool]],
    faults: int,
    chance: random.Random,
    count: Count,
    say: Callable[[str], None],
    intake_port: int,
    pace_s: float,
) -> None:
    """Uploads come one after the other; as long as there is work, faults strike, each kind as often as the others."""
    possible = [fault for fault in FAULTS if fault.name != "disk full" or (home / "disk").is_mount()]
    plan = [possible[index % len(possible)] for index in range(faults)]
    chance.shuffle(plan)
    fault_pace_s = 0.6 * pace_s * len(waiting) / max(faults, 1)  # so that they end before the uploads do
    next_upload_s = time.monotonic()
    next_fault_s = next_upload_s + fault_pace_s
    lasting: list[tuple[float, Fault]] = []
    until_s = next_upload_s + 4.0 * pace_s * len(waiting) + QUIET_S
    while waiting or lasting or (plan and _has_work(home)):
        now_s = time.monotonic()
        if now_s > until_s:
            break
        for due_s, fault in [each for each in lasting if each[0] <= now_s]:
            assert fault.mend
            fault.mend(site)
            lasting.remove((due_s, fault))
        if waiting and (now_s >= next_upload_s or not _has_work(home)):
            _upload(waiting.pop(0)[0], home / "inbox", intake_port, chance)
            next_upload_s = now_s + chance.uniform(0.5, 1.5) * pace_s
        if plan and now_s >= next_fault_s and not lasting:
            fault = plan.pop()
            if not fault.strike(site, chance):  # nothing to do it to right now: another time
                plan.insert(0, fault)
                next_fault_s = now_s + 0.2
                continue
            count.faults[fault.name] += 1
            say(f"{sum(count.faults.values()):3d}/{faults} {fault.name}")
            if fault.mend:
                lasting.append((now_s + chance.uniform(*LASTS_S), fault))
            next_fault_s = now_s + chance.uniform(0.3, 1.7) * fault_pace_s
        time.sleep(0.05)


def _upload(path: Path, inbox: Path, intake_port: int, chance: random.Random) -> None:
    """Through the intake, or, where it does not answer and for half of them anyway, into the inbox by hand."""
    inbox.mkdir(parents=True, exist_ok=True)
    if chance.random() < 0.5:
        request = urllib.request.Request(
            f"http://127.0.0.1:{intake_port}/scans/{path.name}", data=path.read_bytes(), method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                if answer.status < 300:
                    return
        except OSError:
            # no answer is no answer: it may have been taken in all the same, and whoever uploads sends it again
            if any(
                (inbox.parent / folder / path.name).exists() for folder in ("inbox", "done", "quarantine", "failed")
            ):
                return
    shutil.copyfile(path, inbox / f".{path.name}.part")
    (inbox / f".{path.name}.part").rename(inbox / path.name)


def _has_work(home: Path) -> bool:
    return any((home / "inbox").glob("[!.]*"))


def _wait_until_quiet(home: Path, environment: dict[str, str], count: Count, say: Callable[[str], None]) -> None:
    say("waiting until all is quiet")
    until_s = time.monotonic() + QUIET_S
    while _has_work(home) and time.monotonic() < until_s:
        time.sleep(0.5)
    time.sleep(3.0)  # the runs end after their uploads have left


def _wait_for(condition: Callable[[], object], seconds: float, what: str = "the installation") -> str:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        if value := condition():
            return str(value)
        time.sleep(0.1)
    raise TimeoutError(f"drill: expected {what} within {seconds:.0f} s; got nothing. Look at installation.log.")


# --- after ----------------------------------------------------------------------------------------


def _take_stock(home: Path, environment: dict[str, str], count: Count) -> None:
    from geomagic_dagster.jobs.inbox import scan_name

    by_stem = {scan_name(name): name for name in count.uploads}

    def upload_of(name: str) -> str:
        stem = scan_name(name)
        return by_stem.get(stem) or by_stem.get(stem.rpartition("-")[0], name)

    packages = Path(environment["GEOMAGIC_PACKAGES"])
    for path in packages.glob("[!.]*/") if packages.is_dir() else ():
        if (path / "manifest.json").is_file():
            count.packages[upload_of(path.name)] += 1
    for path in _aside(home / "quarantine"):
        count.rejections[upload_of(path.name)] += 1
    count.given_up = tuple(path.name for path in _aside(home / "failed"))
    count.still_there = tuple(sorted(path.name for path in (home / "inbox").glob("[!.]*")))
    count.corrupt, count.artefacts = _corrupt_artefacts(home, environment)


def _aside(folder: Path) -> list[Path]:
    """Uploads that were put aside; not what whoever took one up again had no time to clear away: its reason alone."""
    return sorted(path for path in folder.glob("[!.]*") if any(each.name != "reason.txt" for each in path.iterdir()))


def _corrupt_artefacts(home: Path, environment: dict[str, str]) -> tuple[tuple[str, ...], int]:
    """Everything in the store read again, where it really is."""
    from geomagic_dagster.resources.store import ArtefactCorrupt, ArtefactStore

    store = ArtefactStore(environment["GEOMAGIC_STORE"].removeprefix("unreliable://"), home / "no-cache")
    said, number = [], 0
    for record in sorted((Path(store.url) / "artefacts").glob("*/*/artefact.json")):
        number += 1
        try:
            store.load(record.parent.parent.name, record.parent.name)
        except ArtefactCorrupt as error:
            said.append(str(error))
    return tuple(said), number


def _left_over(home: Path) -> tuple[str, ...]:
    """Living processes that know of this drill."""
    mark = f"GEOMAGIC_HOME={home}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX":
                    found.append(f"{folder.name} {(folder / 'cmdline').read_bytes().replace(bytes(1), b' ').decode()}")
        except OSError:
            continue
    return tuple(sorted(found))
