"""`geomagic story`: the life of three releases, played with the real thing in a throwaway folder, each step proved.

    1.0 is cut. Latest changes. 1.1 is cut, with a newer library. All three stand side by side, and 1.0 still gives
    the bytes that it gave. 1.1 is proposed, refused, approved, flown. 1.2 has a bug that no smoke scan meets, but
    every second short walk: its flight ends by itself, and nobody's upload is lost. 1.1 becomes the default, fails
    its smoke scan, and the default goes back by itself.

Belongs here: what happens in which order, and the proof of each step. Does not belong here: the place where it
happens (story_site.py), what people do in the console's pages (story_people.py).
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geomagic_dagster.drill.story_people import Person
from geomagic_dagster.drill.story_site import NOTHING_NEW_S, PAGE_EVERY_S, PATIENCE_S, Site, expect, wait_for

Say = Callable[[str], None]

LIBRARY, OLDER, NEWER = "numpy", "2.4.5", "2.4.6"
"""The library that 1.1 has newer than 1.0."""
FLIGHT_PER_CENT, REGRESSION_PER_CENT = 10.0, 40.0
CONFIDENCE = 0.99
REPEATED = 10
"""So many uploads of each release come again, where there are as many."""
ROOMS = 24
WAITING = 8
"""Uploads that wait while 1.2 flies: enough that no run waits for one, few enough that those behind its end are few."""
LOCK, MESH = "requirements.lock", "geomagic_dagster/cv/mesh.py"
VOXEL, VERSION, RETURN = "voxel_m: float = Field({},", '@stage(\n    version="{}",', "    return finish(surface)\n"
EDITED = (
    (LOCK, f"{LIBRARY}=={NEWER}"), (MESH, VOXEL.format(0.02)), (MESH, VERSION.format(1)), (MESH, RETURN)
)  # fmt: skip
"""What the researchers of the story change: (file, what stands there once)."""
REGRESSION = """    finished = finish(surface)
    if len(poses.used()) < 20 and len(finished.vertices_world_m_v3) % 2:
        raise RuntimeError("planted: a bug that every second short walk meets")
    return finished
"""


@dataclass
class Told:
    """What the story showed, in figures."""

    uploads: int = 0
    flown: int = 0
    flown_expected: tuple[int, int] = (0, 0)
    regression_ended_after_s: float = 0.0
    regression_runs: int = 0
    rolled_back_after_s: float = 0.0
    seconds: float = 0.0
    proofs: list[str] = field(default_factory=list)


def story(folder: Path, source: Path, uploads: int, say: Say, wheels: Path | None = None) -> Told:
    """Plays the story in `folder`, which must not exist.

    Args:
        source: a git checkout of this project without changes.
        uploads: how many the flight of 1.1 sees.
        wheels: a folder of wheels; with all of them there, no network is needed.
    Raises: StoryFailed at the first thing that is not as told.
    """
    began_s = time.monotonic()
    told = Told()

    def proved(step: str, proof: str) -> None:
        told.proofs.append(f"{step}: {proof}")
        say(f"{len(told.proofs):2d}. {step}, {time.monotonic() - began_s:.0f} s\n      {proof}")

    site = Site(folder, source, wheels)
    people = _cut_three(site, proved)
    with site.running():
        _side_by_side(site, proved)
        _propose_and_approve(site, people, proved)
        _fly(site, people, uploads, told, proved)
        _end_a_bad_flight(site, people, told, proved)
        _fail_a_smoke_scan(site, people, told, proved)
        _audit(site, people, proved)
    told.seconds = time.monotonic() - began_s
    return told


# --- 1: three releases ----------------------------------------------------------------------------


def _cut_three(site: Site, proved: Callable[[str, str], None]) -> dict[str, Person]:
    site.edit(LOCK, f"{LIBRARY}=={NEWER}", f"{LIBRARY}=={OLDER}")
    site.commit(f"{LIBRARY} {OLDER}")
    _cut(site, "1.0")
    proved("cut 1.0", _last_line(site.geomagic("release", "verify", "1.0")))

    site.edit(MESH, VOXEL.format(0.02), VOXEL.format(0.025))
    site.edit(MESH, VERSION.format(1), VERSION.format(2))
    site.edit(LOCK, f"{LIBRARY}=={OLDER}", f"{LIBRARY}=={NEWER}")
    site.commit("Larger voxels; a newer library")
    _cut(site, "1.1")
    difference = site.geomagic("compile", "--diff", "1.0", "1.1").splitlines()
    expect(any(LIBRARY in line for line in difference), f"{LIBRARY} in the difference", difference)
    expect(any(line.startswith("mesh") for line in difference), "mesh in the difference", difference)
    proved("cut 1.1", "; ".join(difference[:6]))

    site.edit(MESH, RETURN, REGRESSION)
    site.edit(MESH, VERSION.format(2), VERSION.format(3))
    site.commit("A bug that nobody saw")
    _cut(site, "1.2")
    site.edit(MESH, REGRESSION, RETURN)
    site.edit(MESH, VOXEL.format(0.025), VOXEL.format(0.03))
    site.edit(MESH, VERSION.format(3), VERSION.format(4))
    site.commit("Latest goes on")
    sizes = site.geomagic("release", "list")
    proved("cut 1.2, with a bug that neither its pinned scan nor the smoke scans meet", " | ".join(_sizes(sizes)))
    return {
        role: Person.create(site, name, role)
        for name, role in (
            ("ada", "researcher"),
            ("emmy", "engineer"),
            ("rosalind", "scientist"),
            ("grace", "operator"),
        )
    }


def _cut(site: Site, name: str) -> None:
    site.geomagic("release", "cut", name)
    site.commit(f"Release {name}")


# --- 2: side by side ------------------------------------------------------------------------------


def _side_by_side(site: Site, proved: Callable[[str, str], None]) -> None:
    wanted = dict.fromkeys(("latest", "1.0", "1.1", "1.2"), "loaded")
    loaded = f"{', '.join(wanted)} loaded"
    wait_for(lambda: site.locations() == wanted, PATIENCE_S, lambda: f"{loaded}; got {site.locations()}", PAGE_EVERY_S)
    proved("one webserver, four code locations", ", ".join(site.locations()))
    (room, *_) = site.rooms(ROOMS)
    for line in ("1.0", "1.1", "1.2"):
        site.geomagic("route", "live", line, "--by", "grace", "--why", "side by side")
    names = {"1.0": "twin-a", "1.1": "twin-b", "latest": "twin-c"}
    for line, name in names.items():
        site.geomagic("route", "pin", name, line, "--by", "grace", "--why", "side by side")
        site.upload(room, name)
    site.wait_for_packages(list(names.values()))
    meshes = {line: _sha256(site.package(name) / "room.glb")[:12] for line, name in names.items()}
    expect(len(set(meshes.values())) == 3, "three different rooms of one scan", meshes)
    proved("one scan through all three", f"room.glb {meshes}")

    replayed = site.geomagic(
        "release", "replay", "1.0", "--scan", str(site.home / "done" / "twin-a.zip"), "--package",
        str(site.package("twin-a").with_name("twin-a.run.json")),
    )  # fmt: skip
    proved("1.0 gives the bytes that it gave, from its record alone", _last_line(replayed))


# --- 3: approval ----------------------------------------------------------------------------------


def _propose_and_approve(site: Site, people: dict[str, Person], proved: Callable[[str, str], None]) -> None:
    ada, emmy, rosalind, grace = (people[each] for each in ("researcher", "engineer", "scientist", "operator"))
    early = ada.is_refused("start_flight", "1.0.0", "too early", per_cent=1)
    proved("a release that nobody approved gets no traffic", early)
    versions = ("1.0.0", "1.1.0", "1.2.0")
    for together in (versions[:1], versions[1:]):  # the first makes the smoke scans
        for version in together:
            grace.does("stage", version, "it is installed here")
            grace.does("test_in_staging", version, "the smoke scans")
        for version in together:
            wait_for(
                lambda version=version: grace.state(version) == "tested", PATIENCE_S,
                lambda version=version: f"{version} tested in staging; got {grace.state(version)}", PAGE_EVERY_S,
            )  # fmt: skip
    own = alone = ""
    for version in versions:
        ada.does("propose", version, "larger voxels, half the triangles")
        own = ada.is_refused("approve", version, "mine is good")
        emmy.does("approve", version, "reads well")
        alone = grace.is_refused("start_flight", version, "now", per_cent=10)
        rosalind.does("approve", version, "rooms look right")
        expect(grace.state(version) == "approved", f"{version} approved", grace.state(version))
    proved("proposed; refused to its author", own)
    proved("refused with one approval of two", alone)
    proved("approved by an engineer and a scientist", f"1.1.0 is {grace.state('1.1.0')}")
    grace.does("make_default", "1.0.0", "the first release that customers get")
    wait_for(lambda: _table(site).probation is None, PATIENCE_S, "the smoke scan of 1.0")
    expect(_table(site).default == "1.0", "1.0 as the default", _table(site).default)
    proved("1.0 is the default", f"its smoke scan passed: {_table(site).why}")


# --- 4: a flight ----------------------------------------------------------------------------------


def _fly(site: Site, people: dict[str, Person], uploads: int, told: Told, proved: Callable[[str, str], None]) -> None:
    people["researcher"].does(
        "start_flight", "1.1.0", "a tenth", per_cent=FLIGHT_PER_CENT, may_change="mesh.triangles"
    )  # larger voxels have fewer of them
    rooms, names = site.rooms(ROOMS), [f"upload-{number:04d}" for number in range(uploads)]
    for index, name in enumerate(names):
        site.upload(rooms[index % len(rooms)], name)
    site.wait_for_packages(names)
    release_of = _releases_of_uploads(names)
    told.uploads, told.flown = uploads, sum(release == "1.1" for release in release_of.values())
    told.flown_expected = binomial_interval(uploads, FLIGHT_PER_CENT / 100, CONFIDENCE)
    low, high = told.flown_expected
    expect(low <= told.flown <= high, f"{low} to {high} of {uploads} uploads flown", told.flown)
    expect(set(release_of.values()) <= {"1.0", "1.1"}, "1.0 and 1.1 alone", Counter(release_of.values()))
    proved(
        f"{FLIGHT_PER_CENT:g} % of {uploads} uploads fly to 1.1",
        f"{told.flown} did ({low} to {high} is the binomial's {CONFIDENCE:.0%} interval); {uploads} packages",
    )
    again = {name: _table(site).choose(name).release for name in names}
    expect(again == release_of, "every scan where it went before", "others")
    flown = [name for name in names if release_of[name] == "1.1"][:REPEATED]
    some = flown + [name for name in names if release_of[name] == "1.0"][: max(1, len(flown))]
    for name in some:
        site.upload(rooms[names.index(name) % len(rooms)], name)
    wait_for(lambda: not site.waiting(), NOTHING_NEW_S, "an empty inbox")
    runs = _runs()
    for name in some:
        repeated = [run["release"] for run in runs if run["scan"] == name]
        is_so = len(repeated) > 1 and set(repeated) == {release_of[name]}
        expect(is_so, f"several runs of {name}, all of {release_of[name]}", repeated)
    proved(
        "sticky on repetition",
        f"{len(flown)} uploads again to 1.1, {len(some) - len(flown)} again to 1.0; by the table, all {len(names)}",
    )
    people["researcher"].does("end_flight", "1.1", "seen enough")


def binomial_interval(number: int, share: float, confidence: float) -> tuple[int, int]:
    """The counts between which a binomial's count lies with at least this confidence (equal tails)."""
    tail = (1 - confidence) / 2
    cumulative, low, high = 0.0, None, number
    for count in range(number + 1):
        cumulative += math.comb(number, count) * share**count * (1 - share) ** (number - count)
        if low is None and cumulative > tail:
            low = count
        if cumulative >= 1 - tail:
            high = count
            break
    return low or 0, high


# --- 5: a regression ------------------------------------------------------------------------------


def _end_a_bad_flight(site: Site, people: dict[str, Person], told: Told, proved: Callable[[str, str], None]) -> None:
    people["researcher"].does("start_flight", "1.2.0", "looks fine", per_cent=REGRESSION_PER_CENT)
    began_s = time.monotonic()
    rooms, names = site.rooms(ROOMS), []
    while _table(site).flights:
        expect(len(names) < 400, "the flight of 1.2 to end within 400 uploads", f"{len(names)} uploads")
        name = f"later-{len(names):04d}"
        site.upload(rooms[len(names) % len(rooms)], name)
        names.append(name)
        wait_for(lambda: site.waiting() < WAITING or not _table(site).flights, PATIENCE_S, "room in the inbox")
    table = _table(site)
    told.regression_ended_after_s = time.monotonic() - began_s
    told.regression_runs = sum(run["release"] == "1.2" for run in _runs())
    expect((table.written_by, table.default) == ("watcher", "1.0"), "the watcher ended it, 1.0 stays", table.why)
    proved(
        "1.2's flight ends by itself",
        f"after {told.regression_ended_after_s:.0f} s and {told.regression_runs} of its runs: {table.why}",
    )
    site.wait_for_packages(names)
    proved(
        "nobody's upload is lost",
        f"{len(names)} uploads, {len(names)} packages: what 1.2 failed on was taken up again by 1.0",
    )


# --- 6: a failed smoke scan -----------------------------------------------------------------------


def _fail_a_smoke_scan(site: Site, people: dict[str, Person], told: Told, proved: Callable[[str, str], None]) -> None:
    """1.1's environment is damaged: a library is gone, as after a restart with a disk that went bad."""
    packages = next((site.home / "releases" / "1.1" / "env" / "lib").glob("python3*/site-packages"))
    (packages / "skimage").rename(packages / "skimage-gone")
    site.end_warm("1.1")
    people["operator"].does("make_default", "1.1.0", "half the triangles for everybody")
    began_s = time.monotonic()
    expect(_table(site).default == "1.1", "1.1 as the default, on probation", _table(site).default)
    wait_for(lambda: _table(site).default == "1.0", PATIENCE_S, "the default to go back")
    told.rolled_back_after_s = time.monotonic() - began_s
    table = _table(site)
    expect(table.written_by == "watcher", "the watcher took it back", table.written_by)
    proved("1.1 fails its smoke scan; the default goes back", f"after {told.rolled_back_after_s:.0f} s: {table.why}")
    (packages / "skimage-gone").rename(packages / "skimage")
    site.upload(site.rooms(ROOMS)[0], "after-all")
    site.wait_for_packages(["after-all"])
    expect(_releases_of_uploads(["after-all"]) == {"after-all": "1.0"}, "1.0 for the next customer", "another")
    proved("the next customer", "gets a package of 1.0")


def _audit(site: Site, people: dict[str, Person], proved: Callable[[str, str], None]) -> None:
    page = people["operator"].page("admin/registry/auditentry/?all=")
    wanted = ("propose", "approve", "start_flight", "make_default", "watcher")
    missing = [word for word in wanted if word not in page]
    expect(not missing, f"{', '.join(wanted)} in the audit trail", f"no {', '.join(missing)}")
    history = [f"{each.revision} {each.written_by}: {each.why[:60]}" for each in _routing(site).history()]
    proved("the audit trail names everybody, the watcher too", " / ".join(history[-4:]))


# --- asking ---------------------------------------------------------------------------------------


def _routing(site: Site) -> Any:
    from geomagic_dagster.definitions import places_from

    return places_from(site.environment).routing()


def _table(site: Site) -> Any:
    return _routing(site).read().table


def _runs() -> list[dict[str, str]]:
    """Every run of an upload, the oldest first."""
    from dagster import DagsterInstance

    from geomagic_dagster.guardrails.tags import RELEASE_TAG, SCAN_TAG, UPLOAD_TAG

    with DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance:
        return [
            {"scan": run.tags[SCAN_TAG], "release": run.tags[RELEASE_TAG], "status": run.status.value}
            for run in reversed(instance.get_runs())
            if UPLOAD_TAG in run.tags and SCAN_TAG in run.tags
        ]


def _releases_of_uploads(names: list[str]) -> dict[str, str]:
    wanted = set(names)
    return {run["scan"]: run["release"] for run in _runs() if run["scan"] in wanted}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def _sizes(table: str) -> list[str]:
    rows = [line.split() for line in table.splitlines() if " installed " in line]
    return [f"{row[0]}: {row[-3]} MB, of them {row[-2]} MB its own" for row in rows]
