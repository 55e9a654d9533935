"""A release with an older Dagster than latest's, in one webserver and daemon with it: what crosses from one to the other.

Latest's webserver, daemon, intake, exporter and console are of its own Dagster; the release's code server, sensors,
warm process and runs are of the older one. Between them go snapshots of jobs and plans, the arguments of a run, the
rows of one database.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from geomagic_dagster.corpus import scans as corpus
from geomagic_dagster.definitions import places_from
from geomagic_dagster.drill.place import zip_folder
from geomagic_dagster.drill.story_people import Person
from geomagic_dagster.guardrails import processes
from geomagic_dagster.releases import wheels, workspace
from geomagic_dagster.releases.routing_changes import make_live, pin, start_flight
from geomagic_dagster.scans.formats import canonical
from geomagic_dagster.scans.made_up import PHONE, make_room, scan_room
from tests.releases.projects import commit, copy_of_project, cut_small, downloaded, edit
from tests.releases.side_by_side import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
DAGSTER, LIBRARIES = "1.12.22", "0.28.22"
"""The last of the minor version before 1.13, and its integrations."""
OTHERS = {f"dagster{name}": DAGSTER for name in ("", "-graphql", "-pipes", "-shared", "-webserver")}
OTHERS |= {"dagster-k8s": LIBRARIES, "dagster-postgres": LIBRARIES, "kubernetes": "35.0.0"}
DEADLINE = "timeout=minutes(0.25), retries=4"
HOLD = """    import os, pathlib, time
    while (pathlib.Path(os.environ["GEOMAGIC_HOME"]) / "hold").exists():
        time.sleep(0.05)
    recording = scan.recording
    n = len(recording)
"""
SEEDS = (1, 2)
BACKFILL = """mutation($params: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $params) {
    ... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}"""
BACKFILLED = """query($id: String!) {partitionBackfillOrError(backfillId: $id) {... on PartitionBackfill {status}}}"""
MATERIALIZED = """query($key: AssetKeyInput!) {assetOrError(assetKey: $key) {... on Asset {
    assetMaterializations(limit: 1) {partition runId metadataEntries {label}}}}}"""


@pytest.fixture(scope="module")
def other_dagster(tmp_path_factory) -> list[Path]:
    folder = Path(os.environ.get("GEOMAGIC_TEST_WHEELS") or tmp_path_factory.mktemp("wheels"))
    try:
        return downloaded(OTHERS, folder)
    except wheels.PipFailed as error:
        pytest.skip(f"no way to get the wheels of Dagster {DAGSTER} here: {error}")


@pytest.fixture(scope="module")
def site(tmp_path_factory, other_dagster) -> Iterator[Site]:
    """Release 1.0 is compiled and installed with the older Dagster. Its stage `frames` waits while the file `hold` is in
    the home, and has a quarter of a minute."""
    if not processes.is_supported:
        pytest.skip("runs are forked on Linux only")
    project, home = copy_of_project(tmp_path_factory.mktemp("project")), tmp_path_factory.mktemp("home")
    for name, version in OTHERS.items():
        edit(project / "requirements.lock", f"\n{name}=={metadata.version(name)}\n", f"\n{name}=={version}\n")
    frames = project / "geomagic_dagster" / "cv" / "frames.py"
    edit(frames, "timeout=minutes(3)", DEADLINE)
    edit(frames, "    recording = scan.recording\n    n = len(recording)\n", HOLD)
    commit(project, "An older Dagster")
    record = cut_small(tmp_path_factory.mktemp("cut"), project, home, *other_dagster)
    workspace.add(project / "workspace.yaml", "1.0")
    site = Site(project, record, home)
    with site.running():
        site.wait(lambda: site.has_loaded("latest", "1.0"), "both locations")
        routing = places_from(site.environment).routing()
        routing.change(make_live("1.0"), by="ada", why="a test")
        routing.change(start_flight("1.0", 1), by="ada", why="so that it is kept warm")
        site.wait(lambda: re.search(r"starter 1\.0 .*warm after", site.log()), "the warm process of 1.0")
        yield site


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> list[Path]:
    """Small rooms, each a zip."""
    folder = tmp_path_factory.mktemp("rooms")
    for seed in SEEDS:
        scan = scan_room(make_room(seed), PHONE.but(frames=16, size_wh=(160, 120))).scan
        canonical.write(replace(scan, name="room"), folder / f"room-{seed}")
        zip_folder(folder / f"room-{seed}", folder / f"room-{seed}.zip")
    return [folder / f"room-{seed}.zip" for seed in SEEDS]


@contextmanager
def held(site: Site) -> Iterator[None]:
    """The stage `frames` of 1.0 waits."""
    (site.home / "hold").touch()
    try:
        yield
    finally:
        (site.home / "hold").unlink()


def to_release(site: Site, name: str) -> None:
    """An upload of this name will be the release's."""
    places_from(site.environment).routing().change(pin(name, "1.0"), by="ada", why="a test")


def send(site: Site, room: Path, name: str) -> None:
    """To the intake."""
    to_release(site, name)
    request = urllib.request.Request(site.url("intake", f"scans/{name}.zip"), room.read_bytes(), method="POST")
    with urllib.request.urlopen(request, timeout=300) as answer:
        assert answer.status in (201, 202)


def run_of(site: Site, name: str) -> str:
    """The latest run of an upload."""
    return site.wait(lambda: site.runs(scan=name), f"a run of {name}")[0]


def made_by(site: Site, name: str) -> tuple[str, str]:
    """(release, version) of a package, once it is there."""
    packages = site.home / "packages"
    site.wait((packages / name / "room.glb").is_file, f"the package of {name}")
    said = json.loads((packages / f"{name}.run.json").read_bytes())  # it is written before the package appears
    return said["release"], said["version"]


def test_each_location_says_its_own_dagster(site):
    ours = metadata.version("dagster")
    versions = {
        name: {each["name"]: each["version"] for each in there["dagsterLibraryVersions"]}
        for name, there in site.locations().items()
    }
    assert {name: said["dagster"] for name, said in versions.items()} == {"latest": ours, "1.0": DAGSTER}
    assert ours != DAGSTER


def test_a_run_made_by_the_intake_keeps_the_deadlines_and_retries_of_the_release(site, rooms):
    """Latest's Dagster made it, of snapshots that the other one gave; the other one tries its step again."""
    with held(site):
        send(site, rooms[0], "by-intake")
        run = run_of(site, "by-intake")
        site.wait(lambda: site.events(run, "ExecutionStepUpForRetryEvent"), "a second attempt")
    assert site.ended(run) == "SUCCESS", site.log()[-4000:]
    assert any("frames: expected an end within 15 s" in said for said in site.events(run, "EngineEvent"))
    assert any(said.startswith("frames: ") for said in site.events(run, "ExecutionStepRestartEvent"))
    assert site.tags(run)["geomagic/version"] == "1.0.0"
    assert made_by(site, "by-intake") == ("1.0", "1.0.0")


def test_the_sensor_of_the_release_takes_what_was_put_into_the_inbox(site, rooms):
    """Latest's daemon asks it, and makes the run that it asks for."""
    to_release(site, "by-sensor")
    inbox = site.home / "inbox"
    shutil.copyfile(rooms[0], inbox / ".by-sensor.part")
    (inbox / ".by-sensor.part").rename(inbox / "by-sensor.zip")
    assert made_by(site, "by-sensor") == ("1.0", "1.0.0")
    run = run_of(site, "by-sensor")
    assert site.ended(run) == "SUCCESS" and site.tags(run)["dagster/sensor_name"] == "upload_sensor"


def test_assets_of_the_release_are_materialized(site, rooms):
    """By a backfill of latest's daemon, of a partition that latest's sensor added."""
    corpus.add(rooms[0].with_suffix(""), site.home / "corpus", name="known", consent="research")

    def partitions() -> set[str]:
        nodes = site.locations()["1.0"]["repositories"][0]["assetNodes"]
        return {key for node in nodes for key in node["partitionKeys"]}

    site.wait(lambda: "known" in partitions(), "the partition")
    keys = [{"path": ["v1_0", name]} for name in ("scan", "frames", "odometry")]
    params = {"assetSelection": keys, "partitionNames": ["known"], "tags": []}
    backfill = site.ask(BACKFILL, params=params)["launchPartitionBackfill"]["backfillId"]
    status = lambda: site.ask(BACKFILLED, id=backfill)["partitionBackfillOrError"]["status"]  # noqa: E731
    site.wait(lambda: status() not in ("REQUESTED", "COMPLETING"), "the end of the backfill")
    assert status() == "COMPLETED_SUCCESS", site.log()[-4000:]
    for key in keys:
        (made,) = site.ask(MATERIALIZED, key=key)["assetOrError"]["assetMaterializations"]
        assert made["partition"] == "known" and len(made["metadataEntries"]) > 5


def test_when_all_is_killed_in_the_middle_of_a_run_the_upload_is_packaged_after_a_restart(site, rooms):
    with held(site):
        send(site, rooms[1], "killed")
        run = run_of(site, "killed")
        site.wait(lambda: site.events(run, "ExecutionStepStartEvent"), "its first step")
        everybody = [site.supervisor.pid, *processes.descendants(site.supervisor.pid)]
        for pid in everybody:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        site.supervisor.wait()
    site.start()
    site.wait(lambda: site.has_loaded("latest", "1.0"), "both locations")
    assert made_by(site, "killed") == ("1.0", "1.0.0")
    assert site.ended(run) == "FAILURE" and site.ended(site.runs(scan="killed")[0]) == "SUCCESS"
    site.wait((site.home / "done" / "killed.zip").is_file, "the upload put away")


def test_the_exporter_and_the_console_know_what_the_release_did(site, rooms):
    if not site.runs(scan="by-intake"):  # this test alone
        test_a_run_made_by_the_intake_keeps_the_deadlines_and_retries_of_the_release(site, rooms)

    def counted(metric: str, **labels: str) -> bool:
        lines = [line for line in site.get("metrics", "metrics").splitlines() if line.startswith(f"{metric}{{")]
        mine = [line for line in lines if all(f'{name}="{value}"' in line for name, value in labels.items())]
        return any(float(line.rpartition(" ")[2]) >= 1 for line in mine)

    for metric, labels in (
        ("geomagic_runs_total", {"release": "1.0", "outcome": "success", "job": "process_scan"}),
        ("geomagic_step_retries_total", {"release": "1.0", "step": "frames"}),
        ("geomagic_step_timeouts_total", {"release": "1.0", "step": "frames"}),
    ):
        site.wait(lambda metric=metric, labels=labels: counted(metric, **labels), f"{metric} of {labels}")
    person = Person.create(site, "grace", "operator")  # pyright: ignore[reportArgumentType] - all that it asks for
    row = re.compile(r">by-intake</a>.*?</tr>", re.DOTALL)
    found = site.wait(lambda: row.search(person.page("admin/scans/scan/")), "the scan on the console")
    assert "done" in found[0] and "1.0.0" in found[0]
