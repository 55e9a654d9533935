"""A release whose stages have trained weights: cut, brought to another machine, replayed a year later."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.releases import environments, pinned
from geomagic_dagster.releases.cut import cut
from geomagic_dagster.releases.manifest import compile_manifest, read_manifest
from geomagic_dagster.releases.record import ReleaseError, read_release
from geomagic_dagster.releases.replay import Replay, replay
from geomagic_dagster.releases.weights import bring_here, check, uses, wanted_by_release
from geomagic_dagster.resources.weights import WeightStore
from tests.conftest import REPOSITORY
from tests.releases.projects import borrowed_build, commit, copy_of_project, edit
from tests.releases.records import write_record
from tests.toy_stages.networks import UNTRAINED, digest_of

A, B = "sha256:" + 64 * "a", "sha256:" + 64 * "b"


def test_who_uses_what_is_read_off_the_stages_and_every_record(tmp_path):
    write_record(tmp_path / "1.1", "1.1.1", glass={"net": A}, chairs={"net": A, "other": B})
    write_record(tmp_path / "1.1" / "history" / "1.1.0", "1.1.0", glass={"net": B})
    found = uses(tmp_path, find_stages("tests.toy_stages.trained"))
    assert found == {
        UNTRAINED: ["latest guess: net"],
        A: ["1.1.1 glass: net", "1.1.1 chairs: net"],
        B: ["1.1.1 chairs: other", "1.1.0 glass: net"],
    }
    wanted = wanted_by_release(tmp_path / "1.1")
    assert wanted == {A: "stage glass, weights net and stage chairs, weights net", B: "stage chairs, weights other"}
    assert uses(REPOSITORY / "releases", []) == {}, "1.0 has none"


def test_the_manifest_names_the_digests_that_are_wanted(tmp_path):
    manifest = compile_manifest(find_stages("tests.toy_stages.trained"), None)
    assert {each["name"]: each["weights"] for each in manifest["stages"]}["guess"] == {"net": UNTRAINED}


def test_what_is_wrong_with_weights_is_said_of_the_release(tmp_path):
    record = write_record(tmp_path / "1.1", "1.1.0", glass={"net": A})
    store = WeightStore(f"unreliable://{tmp_path}/far/weights", tmp_path / "cache")
    for ask in (bring_here, check):
        with pytest.raises(
            ReleaseError, match=rf"release 1.1.0: expected its weights.*glass, weights net.*{A}.*no such"
        ):
            ask(record, store)
    Path(tmp_path / "far.away").touch()
    with pytest.raises(
        ReleaseError, match=r"release 1.1.0: expected its weights.*connection refused.*Then say it again"
    ):
        bring_here(record, store)
    (record / "manifest.json").write_text("[]")
    with pytest.raises(ReleaseError, match=r"manifest.json: expected the manifest of a release; got .* from git"):
        bring_here(record, store)


def test_a_release_whose_weights_nobody_has_is_not_cut(tmp_path, monkeypatch):
    """Refused as soon as it has compiled, before a scan is processed; the environment is none in this test."""
    project = copy_of_project(tmp_path / "project")
    before = (project / "workspace.yaml").read_text()

    def build(draft: Path, home: Path, **options) -> environments.Environment:
        folder = home / "releases" / "1.0" / "env-new"
        folder.mkdir()
        return environments.Environment(folder, read_release(draft), "here")

    def compile_only(environment, home, *arguments):
        assert arguments[0] == "compile"
        Path(arguments[2]).write_text(json.dumps({"stages": [{"name": "glass", "weights": {"net": A}}]}))

    monkeypatch.setattr(pinned, "geomagic", compile_only)
    with pytest.raises(
        ReleaseError, match=r"release 1.0.0: expected its weights.*stage glass, weights net: .* add FILE"
    ):
        cut(project, tmp_path / "home", "1.0", build=build)
    assert not (project / "releases").exists() and (project / "workspace.yaml").read_text() == before
    assert environments.installed(tmp_path / "home", "1.0") is None
    assert not list((tmp_path / "home" / "releases" / "1.0").glob("env-*"))


def test_a_release_asked_by_its_own_commands_finds_the_files_of_this_machine(tmp_path):
    """In an empty home, as cutting and replaying ask it."""
    net = tmp_path / "net.bin"
    net.write_bytes(b"numbers")
    store = WeightStore(str(tmp_path / "weights"), tmp_path / "cache")
    record = write_record(tmp_path / "releases" / "1.1", "1.1.0", glass={"net": digest_of(net)})
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    environment = environments.Environment(tmp_path / "env", read_release(record), "here")
    check_weights = ("weights", "check", "--checkout", str(tmp_path))
    with pytest.raises(ReleaseError, match=f"expected {digest_of(net)} in {store.here}; got no such file"):
        pinned.geomagic(environment, tmp_path / "empty", *check_weights, weights=store.here)
    store.add(net)
    pinned.geomagic(environment, tmp_path / "empty", *check_weights, weights=store.here)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_release_with_weights_is_cut_and_replayed_on_a_machine_whose_store_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(pinned, "FRAMES", 12)
    net = tmp_path / "net.bin"
    net.write_bytes(os.urandom(10_000))
    project = copy_of_project(tmp_path / "project")
    stage = project / "geomagic_dagster" / "cv" / "frames.py"
    nouns, body = (
        "from geomagic_dagster.cv.types import Frames, Recording, Scan\n",
        "    recording = scan.recording\n    n =",
    )
    edit(stage, "    memory_gb=2,\n", f'    memory_gb=2,\n    weights={{"net": "{digest_of(net)}"}},\n')
    edit(stage, nouns, f"{nouns}from geomagic_dagster.cv.weights import weights\n")
    edit(stage, body, f'    weights("net").read_bytes()\n{body}')
    commit(project, "A network in frames")
    far = WeightStore(f"unreliable://{tmp_path}/far/weights", tmp_path / "first" / "cache" / "weights")
    far.add(net)
    done = cut(project, tmp_path / "first", "1.0", weights=far, build=borrowed_build())  # it processes a scan
    manifest = {each["name"]: each for each in read_manifest(done.record / "manifest.json")["stages"]}
    assert manifest["frames"]["weights"] == {"net": digest_of(net)}
    assert not any(net.read_bytes() in path.read_bytes() for path in done.record.rglob("*") if path.is_file())

    # another machine: installing brings the file, then the store goes away
    there = WeightStore(far.url, tmp_path / "second" / "cache" / "weights")
    assert bring_here(done.record, there) == there.here and there.is_here(digest_of(net))
    Path(tmp_path / "far.away").touch()
    environment = environments.installed(tmp_path / "first", "1.0")
    monkeypatch.setattr(environments, "build", lambda record, home, **options: environment)
    replayed = replay_of(project, tmp_path, there, monkeypatch)
    assert replayed.differing == () and replayed.same == ("a.npy",)
    shutil.rmtree(there.here)
    with pytest.raises(ReleaseError, match="release 1.0.0: expected its weights.*connection refused"):
        replay_of(project, tmp_path, there, monkeypatch)


def replay_of(project: Path, folder: Path, weights: WeightStore, monkeypatch) -> Replay:
    """The replay of a result, but for the minutes that the scan takes; cutting has just done the same."""
    then = {"stage": "frames", "identity": "f", "value": {}, "numbers": {}, "files": {"a.npy": {"sha256": 64 * "1"}}}
    (folder / "artefact.json").write_text(json.dumps(then))

    def process(environment, scan, flags, weights_here):
        assert weights_here == weights.here and list(weights_here.iterdir())
        return pinned.Result({"frames": then}, {})

    monkeypatch.setattr(pinned, "process", process)
    return replay(
        project / "releases", folder / "second", "1.0", folder,
        artefact=folder / "artefact.json", weights=weights, build=environments.build,
    )  # fmt: skip
