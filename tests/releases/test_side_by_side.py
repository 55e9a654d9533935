"""latest and a release with another version of a library, in one webserver and daemon."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.definitions import build_definitions
from geomagic_dagster.guardrails import processes
from geomagic_dagster.launching.locations import Member, location_members, workspace_of
from geomagic_dagster.launching.serve import Supervisor
from geomagic_dagster.releases import environments, pinned, workspace
from geomagic_dagster.releases.record import read_release, with_hashes, write_release
from geomagic_dagster.resources.places import Places
from tests.releases.projects import borrowing, commit, copy_of_project, edit, other_version, small_record
from tests.releases.side_by_side import Site

DEADLINE_S = 600.0
pytestmark = pytest.mark.timeout(1800)
LIBRARY = "trimesh"
OURS = metadata.version(LIBRARY)
OTHER = f"{OURS}.999"


# --- the table ------------------------------------------------------------------------------------


def entry(name: str, python: str | None = None) -> dict[str, Any]:
    target = {"module_name": "geomagic_dagster.definitions", "location_name": name}
    return {"python_module": target | ({"executable_path": python} if python else {})}


def test_a_release_is_one_code_server_and_warm_only_while_it_gets_uploads(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("GEOMAGIC_RELEASE", "latest")
    table = location_members([entry("latest"), entry("1.0", "/env/bin/python")], tmp_path, {"1.0"}.__contains__)
    members = {member.name: member for member in table}
    assert list(members)[0::2] == ["code latest", "code 1.0"] or not processes.is_supported
    code = members["code 1.0"]
    assert code.command[:5] == ("/env/bin/python", "-m", "dagster", "api", "grpc")
    assert code.env is not None and not {"PYTHONPATH", "GEOMAGIC_RELEASE"} & code.env.keys()
    assert code.env["PYTHONSAFEPATH"] == "1"
    assert members["code latest"].env is None and members["code latest"].command[0] == sys.executable
    if processes.is_supported:
        assert members["starter latest"].is_wanted is None
        wanted = members["starter 1.0"].is_wanted
        assert wanted is not None and wanted()
    sockets = json.dumps(workspace_of([entry("latest"), entry("1.0", "/env/bin/python")], tmp_path))
    assert "1.0.sock" in sockets and "latest.sock" in sockets and "/env" not in sockets


def test_only_latest_keeps_the_partitions_of_the_corpus(tmp_path):
    """All releases share them; two that add the same ones at once would collide in the database."""
    for release, sensors in {"latest": {"corpus_sensor", "upload_sensor"}, "1.0": {"upload_sensor"}}.items():
        defs = build_definitions(find_stages("tests.toy_stages.stages"), Places.in_home(tmp_path), release)
        assert {sensor.name for sensor in defs.sensors or ()} >= sensors
        assert ("corpus_sensor" in {sensor.name for sensor in defs.sensors or ()}) == (release == "latest")


def test_no_two_releases_have_an_asset_key_in_common(tmp_path):
    keys = [
        {key.to_user_string() for key in build_definitions(find_stages(), Places.in_home(tmp_path), release).resolve_all_asset_keys()}
        for release in ("latest", "1.0", "1.1", "10.1", "1.01")
    ]  # fmt: skip
    assert sum(map(len, keys)) == len(set.union(*keys))


# --- the supervisor follows the table --------------------------------------------------------------


def sleeping(name: str, **said: Any) -> Member:
    return Member(name, (sys.executable, "-c", "import time; time.sleep(600)"), **said)


@pytest.fixture
def supervised(monkeypatch) -> Iterator[Callable[..., Supervisor]]:
    started: list[Supervisor] = []
    monkeypatch.setattr("geomagic_dagster.launching.serve.LOOK_S", 0.0)
    monkeypatch.setattr("geomagic_dagster.launching.serve.Supervisor._reap_orphans", lambda self: None)

    def make(*tables: tuple[Member, ...]) -> Supervisor:
        coming = iter(tables[1:])
        supervisor = Supervisor(tables[0], lambda: next(coming, None) if may_look else None)
        supervisor.may_look = may_look  # type: ignore[attr-defined]
        started.append(supervisor)
        return supervisor

    may_look: list[bool] = []
    yield make
    for supervisor in started:
        for child in supervisor.children:
            if child.process is not None:
                child.process.kill()
                child.process.wait()


def turn(supervisor: Supervisor, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not until():
        assert time.monotonic() < deadline
        supervisor._follow()
        supervisor._start_what_is_due()
        supervisor._pass_on(0.01)
        supervisor._look_after()
        supervisor._end_what_is_not_wanted()


def pids(supervisor: Supervisor) -> dict[str, int]:
    return {child.member.name: child.process.pid for child in supervisor.children if child.process}


def test_what_is_new_comes_what_changed_is_replaced_what_is_gone_ends(supervised):
    first = (sleeping("a"), sleeping("b"), sleeping("web", knows="1"))
    second = (sleeping("a"), sleeping("c"), sleeping("web", knows="2"))
    supervisor = supervised(first, second)
    turn(supervisor, lambda: len(pids(supervisor)) == 3)
    before = pids(supervisor)
    supervisor.may_look.append(True)
    turn(supervisor, lambda: pids(supervisor).keys() == {"a", "c", "web"} and pids(supervisor)["web"] != before["web"])
    assert pids(supervisor)["a"] == before["a"]
    assert [child.member.name for child in supervisor.children] == ["a", "c", "web"]


def test_a_warm_process_comes_and_goes_with_its_uploads_and_never_under_a_run(supervised, tmp_path):
    wanted: list[bool] = []
    child_s = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    member = Member("starter 1.0", (sys.executable, "-c", child_s), is_wanted=lambda: bool(wanted))
    supervisor = supervised((member, sleeping("other")))
    turn(supervisor, lambda: "other" in pids(supervisor))
    assert "starter 1.0" not in pids(supervisor)
    wanted.append(True)
    turn(supervisor, lambda: "starter 1.0" in pids(supervisor))
    starter = pids(supervisor)["starter 1.0"]
    turn(supervisor, lambda: bool(list(processes.descendants(starter))))
    wanted.clear()
    for _ in range(20):
        turn(supervisor, lambda: True)
    assert pids(supervisor)["starter 1.0"] == starter  # its run is not done
    for pid in processes.descendants(starter):
        os.kill(pid, signal.SIGKILL)
    turn(supervisor, lambda: "starter 1.0" not in pids(supervisor))


# --- the real thing ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    if not processes.is_supported:
        pytest.skip("runs are forked on Linux only")
    home = tmp_path_factory.mktemp("home")
    project = copy_of_project(tmp_path_factory.mktemp("project"))
    edit(project / "requirements.lock", f"{LIBRARY}=={OURS}\n", f"{LIBRARY}=={OTHER}\n")
    commit(project, "Another trimesh")
    record = small_record(tmp_path_factory.mktemp("cut"), project)
    wheel = other_version(LIBRARY, OTHER, home / "elsewhere")
    environments.install(record, home, fill=borrowing(wheel))
    for line in ("1.0", "0.9"):  # 0.9 is in the workspace, and not installed
        workspace.add(project / "workspace.yaml", line)
    site = Site(project, record, home)
    with site.running():
        site.wait(lambda: site.has_loaded("latest", "1.0"), "both locations")
        yield site


@pytest.mark.slow
def test_both_are_in_one_webserver_and_what_is_not_installed_is_left_out(site):
    there = site.locations()
    keys = {
        name: {"/".join(node["assetKey"]["path"]) for repository in each["repositories"] for node in repository["assetNodes"]}
        for name, each in there.items()
    }  # fmt: skip
    assert "v1_0/depth" in keys["1.0"] and "latest/depth" in keys["latest"] and not keys["1.0"] & keys["latest"]
    sensors = {name: {each["name"] for each in there[name]["repositories"][0]["sensors"]} for name in there}
    assert "upload_sensor" in sensors["1.0"] and "corpus_sensor" not in sensors["1.0"]
    lines = [line for line in site.log().splitlines() if "0.9" in line]
    assert lines == ["release 0.9 is not installed, and left out: geomagic release install 0.9"]


@pytest.mark.slow
def test_each_runs_its_own_code_with_its_own_libraries(site, tmp_path):
    """The same scan by both: same bytes, since only the number of the library's version differs, but no result is
    shared, since it does."""
    environment = environments.installed(site.home, "1.0")
    assert environment
    scan = tmp_path / "room"
    pinned.geomagic(
        environment, tmp_path / "made", "scan", "make-up", str(scan), "--seed", "5", "--frames", "12", "--clean"
    )
    packages = {}
    for name in ("1.0", "latest"):
        run = site.launch(name, {"ops": {"scan": {"config": {"upload": str(scan)}}}})
        assert site.ended(run) == "SUCCESS", site.log()[-4000:]
        assert site.tags(run)["geomagic/release"] == name
        packages[name] = {path.name: path.read_bytes() for path in (site.home / "packages" / "room").iterdir()}
    assert packages["1.0"] == packages["latest"]
    records = [
        json.loads(path.read_bytes())
        for path in (site.home / "store" / "artefacts" / "package").glob("*/artefact.json")
    ]
    said = {(record["made_by"]["release"], record["libraries"][LIBRARY]) for record in records}
    assert said == {("1.0", OTHER), ("latest", OURS)}
    depths = list((site.home / "store" / "artefacts" / "depth").iterdir())
    assert len(depths) == 1  # no library of this stage differs: made once, used by both


@pytest.mark.slow
def test_a_location_that_is_not_what_its_manifest_says_shows_why_and_the_other_goes_on(site):
    environment = environments.installed(site.home, "1.0")
    assert environment
    manifest = environment.folder / "geomagic-release" / "manifest.json"
    good = manifest.read_bytes()
    manifest.write_bytes(good.replace(b'"retries": 2', b'"retries": 9', 1))
    os.kill(site.wait(lambda: site.code_server("1.0"), "its code server"), signal.SIGKILL)
    words = "expected the manifest of release 1.0.0; got another one"

    def says_so() -> bool:  # at first it says that nobody answers, until its process is there again
        return any(words in each["message"] for each in site.locations()["1.0"].get("causes") or ())

    site.wait(says_so, f"the words: {words}")
    assert "repositories" in site.locations()["latest"]
    manifest.write_bytes(good)
    os.kill(site.wait(lambda: site.code_server("1.0"), "its code server"), signal.SIGKILL)
    site.wait(lambda: site.has_loaded("latest", "1.0"), "both locations again")


@pytest.mark.slow
def test_a_hotfix_takes_over_and_an_archived_release_goes_while_everything_runs(site, tmp_path):
    before = site.wait(lambda: site.code_server("1.0"), "its code server")
    hotfix = shutil.copytree(site.record, tmp_path / "record")
    release = read_release(hotfix)
    write_release(with_hashes(replace(release, version="1.0.1"), hotfix), hotfix)
    wheel = other_version(LIBRARY, OTHER, tmp_path)
    environment = environments.install(hotfix, site.home, fill=borrowing(wheel))
    site.wait(
        lambda: (
            Path(f"/proc/{site.code_server('1.0')}/cmdline").read_bytes().startswith(os.fsencode(environment.python))
        ),
        "the new code server",
    )
    assert site.code_server("1.0") != before
    site.wait(lambda: site.has_loaded("latest", "1.0"), "the mended release")
    workspace.remove(site.project / "workspace.yaml", "1.0")
    assert environments.remove(site.home, "1.0") > 0  # waits for its processes, which the supervisor ends
    site.wait(lambda: site.has_loaded("latest"), "latest alone")
    assert not (site.home / "releases" / "1.0").exists()
