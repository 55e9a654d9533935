"""The smoke scan: one small scan through a new default, in production, before anybody trusts it.

Belongs here: making the scan, handing it to the intake, and whether what came out is right. Does not belong here: what
follows from that (watch.py), the write that makes a release the default (promote.py).

The scan is a small made-up room of which the walls are known, or a scan of the corpus that the routing table names
(`"smoke": {"scan": "kitchen", "deadline_s": 300}`). It goes the way of every upload: inbox, route, run, package. Its
name begins with `smoke-`, and so does that of its package; it is another one each time, so that nothing of an earlier
smoke scan is reused.

Everything needed to go on after a restart is in the table (which release, since when, which name), in Dagster (its
run) and in the inbox.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunsFilter

from geomagic_dagster.flighting.observe import Observer
from geomagic_dagster.flighting.runs import Ranges, Run
from geomagic_dagster.guardrails.tags import RELEASE_TAG, SHADOW_TAG, UPLOAD_TAG
from geomagic_dagster.jobs.attempts import ALIVE, ENDED
from geomagic_dagster.jobs.inbox import COMPLETE, claimed, move_to_free
from geomagic_dagster.releases.routing import Probation, RoutingTable
from geomagic_dagster.resources.places import Places

DEADLINE_S = 60.0
"""From the beginning of its run to its package: what it waited for before says nothing of the release."""
START_S = 25.0
"""By then there is a run of it, or its release does not load."""
BEGIN_S = 180.0
"""By then its run has begun: a release that nobody needed before has to import everything first, on a busy machine."""
LONGEST_S = 600.0
"""A default stays unproven for no longer, also where the watcher was not running."""
SEED, FRAMES = 1, 24
MAKING_S = 300.0
WALL_M, WALL_PART, HEIGHT_M = 0.05, 0.03, 0.05
"""How far a wall's length (the larger of the two), and the height of the room, may be off."""
SHOWN = 4


@dataclass(frozen=True)
class Truth:
    """What is true of the made-up room."""

    walls_m: tuple[float, ...]
    """Lengths, sorted."""
    height_m: float


@dataclass(frozen=True)
class SmokeScan:
    """A scan to send, and what has to come out."""

    folder: Path
    truth: Truth | None
    """None for a scan of which nothing is known."""
    deadline_s: float = DEADLINE_S


@dataclass(frozen=True)
class Standing:
    """How a probation stands."""

    what: Literal["send", "wait", "passed", "failed"]
    why: str = ""


class Smoke:
    """Smoke scans of one installation.

    Args:
        folder: where made-up scans are kept, and copied before they are sent.
        send: hands a folder of this disk to the intake, which moves it; False where none is running.
        ranges_of: expected ranges of a release's numbers.
    """

    def __init__(
        self,
        instance: DagsterInstance,
        places: Places,
        folder: Path,
        send: Callable[[Path], bool],
        ranges_of: Callable[[str], Ranges],
        *,
        start_s: float = START_S,
        at: Callable[[str], None] = lambda point: None,
    ) -> None:
        """`at` hears how far a smoke scan has come; tests end the process there."""
        self.instance, self.places, self.folder = instance, places, folder
        self._send, self._ranges_of, self._start_s, self._at = send, ranges_of, start_s, at

    def scan(self, table: RoutingTable) -> SmokeScan:
        """The scan that the table names, else the made-up room, made where it is not there yet."""
        named: Mapping[str, Any] = table.document.get("smoke") or {}
        deadline_s = float(named.get("deadline_s") or DEADLINE_S)
        if name := named.get("scan"):
            folder = Path(self.places.corpus) / str(name)
            if folder.parent != Path(self.places.corpus) or not folder.is_dir():
                raise FileNotFoundError(
                    f"smoke scan in the routing table: expected the name of a scan in {self.places.corpus}; got "
                    f"{name!r}. Add it (geomagic corpus add), or name another."
                )
            return SmokeScan(folder, None, deadline_s)
        folder, truth = made_up_room(self.folder)
        return SmokeScan(folder, truth, deadline_s)

    def stand(self, probation: Probation, scan: SmokeScan, seen_s: float, now_s: float) -> Standing:
        """How it stands with a probation that this process first saw at `seen_s`."""
        name = probation.smoke_upload
        records = [
            record
            for record in self.instance.get_run_records(RunsFilter(tags={UPLOAD_TAG: name}), limit=50)
            if record.dagster_run.tags.get(SHADOW_TAG) != "true"
        ]
        for record in records:
            if record.dagster_run.status == DagsterRunStatus.SUCCESS:
                return self._judged(record, probation, scan)
        latest = records[0] if records else None
        state = "no run of it was started"
        if latest is not None:
            state = f"its run {latest.dagster_run.run_id[:8]} is {latest.dagster_run.status.value.lower()}"
            if latest.dagster_run.status in ENDED:
                seen = Observer(self.instance).run(latest)
                if seen is None:
                    return Standing("failed", f"{state}: somebody canceled it")
                state += f" ({seen.run.failure}): {seen.sentence}".rstrip(": ")
                if seen.run.kind != "passing":  # else it is tried again, while there is time
                    return Standing("failed", state)
        since_s = seconds_of(probation.since) or seen_s
        created_s = min((record.create_timestamp.timestamp() for record in records), default=seen_s)
        waited_s = now_s - max(since_s, min(seen_s, created_s))
        began_s = min((_began_s(record) for record in records if record.start_time), default=None)
        if began_s is None and waited_s > BEGIN_S:
            return Standing("failed", f"expected its run to begin within {BEGIN_S:g} s; {state}")
        if began_s is not None and now_s - began_s > scan.deadline_s:
            return Standing("failed", f"expected its package within {scan.deadline_s:g} s; {state}")
        if now_s - since_s > max(LONGEST_S, scan.deadline_s):
            return Standing("failed", f"expected its package within {LONGEST_S:g} s in all; {state}")
        if latest is None and not self._is_in_the_inbox(name):
            return Standing("send")
        if latest is None and waited_s > self._start_s:
            return Standing(
                "failed", f"expected a run of it within {self._start_s:g} s; got none: the release does not load"
            )
        return Standing("wait", state)

    def send(self, scan: SmokeScan, name: str) -> None:
        """Puts a copy into the inbox, by the intake where it is running. Once, however often it is asked."""
        if self._is_in_the_inbox(name):
            return
        copy, inbox = self.folder / "sent" / name, Path(self.places.inbox)
        if not copy.exists():
            _copy_whole(scan.folder, copy)
        self._at("copied")
        if not self._send(copy) and not self._is_in_the_inbox(name):
            inbox.mkdir(parents=True, exist_ok=True)  # no intake: the sensor takes it up
            if os.stat(copy).st_dev == os.stat(inbox).st_dev:
                move_to_free(copy, inbox / name)
            else:
                _copy_whole(copy, inbox / name)
                shutil.rmtree(copy)
        self._at("sent")

    def withdraw(self, name: str) -> None:
        """Takes a smoke scan that failed out of the inbox, if no run works on it: no other release need process it."""
        inbox, aside = Path(self.places.inbox), self.folder / "sent" / f".{uuid.uuid4().hex}.partial"
        with claimed(inbox, name):
            alive = RunsFilter(tags={UPLOAD_TAG: name}, statuses=[DagsterRunStatus.NOT_STARTED, *ALIVE])
            if os.path.lexists(inbox / name) and not self.instance.get_runs(alive, limit=1):
                aside.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(inbox / name, aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _is_in_the_inbox(self, name: str) -> bool:
        return any(os.path.lexists(Path(place) / name) for place in (self.places.inbox, self.places.done))

    def _judged(self, record: RunRecord, probation: Probation, scan: SmokeScan) -> Standing:
        run = record.dagster_run
        if (release := run.tags.get(RELEASE_TAG)) != probation.release:
            return Standing("failed", f"expected a run of {probation.release}; got one of {release}")
        seen = Observer(self.instance).run(record)
        if seen is None or seen.run.seconds is None:
            return Standing("wait", "its run has ended; its events are not all there yet")
        took_s = seen.run.ended_s - _began_s(record)
        if took_s > scan.deadline_s:
            return Standing("failed", f"expected its package within {scan.deadline_s:g} s; got it after {took_s:.0f} s")
        ranges = self._ranges_of(probation.release)
        problems = out_of_range(seen.run, ranges)
        package = package_of(run.run_id, probation.smoke_upload, Path(self.places.packages))
        if package is None:
            problems.append(f"expected a package of run {run.run_id[:8]} in {self.places.packages}; got none")
        elif scan.truth is not None:
            problems += wrong_walls(package, scan.truth)
        if problems:
            more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
            return Standing("failed", "; ".join(problems[:SHOWN]) + more)
        walls = f", {len(scan.truth.walls_m)} walls as they are" if scan.truth else ""
        return Standing("passed", f"package after {took_s:.0f} s, {len(ranges)} numbers in their ranges{walls}")


def _began_s(record: RunRecord) -> float:
    return max(record.start_time or 0.0, record.create_timestamp.timestamp())


# --- what has to come out -------------------------------------------------------------------------


def out_of_range(run: Run, ranges: Ranges) -> list[str]:
    """A sentence for each number that lies outside of its range, or that its stage could not measure."""
    problems = []
    for name, (low, high) in sorted(ranges.items()):
        value = run.numbers.get(name)
        if value is None and name.partition(".")[0] not in run.out_of_range:
            continue
        if value is None or not low <= value <= high:
            received = "nothing that could be measured" if value is None else f"{value:g}"
            problems.append(f"expected {name} of {low:g} to {high:g}; got {received}")
    return problems


def wrong_walls(package: Path, truth: Truth) -> list[str]:
    """How the walls in a package differ from the true ones."""
    try:
        walls = json.loads((package / "room.json").read_bytes())["walls"]
        size_m = sorted((float(wall["dimensions"][0]), float(wall["dimensions"][1])) for wall in walls)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        return [f"{package / 'room.json'}: expected the walls of a room; got {type(error).__name__}: {error}"]
    if len(size_m) != len(truth.walls_m):
        return [f"expected {len(truth.walls_m)} walls; got {len(size_m)}"]
    problems = []
    for (length_m, height_m), true_m in zip(size_m, truth.walls_m, strict=True):
        if not abs(length_m - true_m) <= max(WALL_M, WALL_PART * true_m):
            problems.append(f"expected a wall of {true_m:.2f} m; got {length_m:.2f} m")
        if not abs(height_m - truth.height_m) <= HEIGHT_M:
            problems.append(f"expected a wall {truth.height_m:.2f} m high; got {height_m:.2f} m")
    return problems


def package_of(run_id: str, name: str, packages: Path) -> Path | None:
    """The folder of the package that a run made of this scan; it has another name where that one was taken."""
    for record in packages.glob(f"{name}*.run.json"):
        folder = record.with_name(record.name.removesuffix(".run.json"))
        if folder.is_dir() and json.loads(record.read_bytes()).get("run_id") == run_id:
            return folder
    return None


# --- the scan -------------------------------------------------------------------------------------


def made_up_room(folder: Path, seed: int = SEED, frames: int = FRAMES) -> tuple[Path, Truth]:
    """A clean walk through a made-up room, and its truth; made once."""
    place = folder / f"made_up_{seed}_{frames}"
    if not place.is_dir():
        partial = folder / f".{uuid.uuid4().hex}.partial"
        try:
            # in a process of its own: the compiled kernels would stay in the watcher's memory for good
            call = f"from {__name__} import write_made_up_room as w; import sys; w(sys.argv[1], {seed}, {frames})"
            subprocess.run([sys.executable, "-c", call, str(partial)], check=True, timeout=MAKING_S)
            move_to_free(partial, place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    said = json.loads((place / "truth.json").read_bytes())
    return place / "scan", Truth(tuple(said["walls_m"]), said["height_m"])


def write_made_up_room(place: str, seed: int, frames: int) -> None:
    """The scan, and `truth.json` beside it."""
    from dataclasses import replace

    from geomagic_dagster.scans.formats import canonical
    from geomagic_dagster.scans.made_up import CLEAN, make_room, scan_room

    room = make_room(seed)
    scan = scan_room(room, CLEAN.but(frames=frames)).scan
    canonical.write(replace(scan, name="smoke", consent="research"), Path(place) / "scan")
    walls_m = sorted(wall.length_m for wall in room.walls)
    truth = {"walls_m": walls_m, "height_m": room.ceiling_z_m - room.floor_z_m}
    (Path(place) / "truth.json").write_text(json.dumps(truth))


def seconds_of(text: str) -> float | None:
    """Seconds since 1970 of a time as tables write it; None for what is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _copy_whole(source: Path, target: Path) -> None:
    """A copy that appears with its mark of being complete, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        shutil.copytree(source, partial)
        (partial / COMPLETE).touch()
        move_to_free(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
