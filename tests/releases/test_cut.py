"""A release is cut from a clean commit, whole or not at all; a hotfix takes its place and changes what it names."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from geomagic_dagster.releases import environments, git, pinned, wheels, workspace
from geomagic_dagster.releases.cut import Cut, cut
from geomagic_dagster.releases.record import (
    Pinned,
    ReleaseError,
    read_release,
    record_folder,
    verify_record,
    write_release,
)
from geomagic_dagster.releases.replay import replay
from tests.releases.projects import borrowed_build, commit, copy_of_project, run_git

FRAMES = 12
pytestmark = pytest.mark.timeout(1800)  # a cut compiles, installs and processes a scan


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    """The project before its first release. Tests leave it as it was."""
    return copy_of_project(tmp_path_factory.mktemp("empty"))


@pytest.fixture
def project(empty, tmp_path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(empty, tmp_path / "project")


@pytest.fixture(scope="module")
def short_scan():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pinned, "FRAMES", FRAMES)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def released(empty, home, short_scan, tmp_path_factory) -> tuple[Path, Cut]:
    """(the project with 1.0 cut and committed, what cutting it said)."""
    project = shutil.copytree(empty, tmp_path_factory.mktemp("released") / "project")
    done = cut(project, home, "1.0", build=borrowed_build())
    return commit(project, "Release 1.0.0"), done


def never_built(*arguments, **options):
    raise AssertionError("expected to be refused before anything is built")


# --- who may cut what -----------------------------------------------------------------------------


def test_what_is_not_committed_is_named(project, tmp_path):
    (project / "note.txt").write_text("")
    (project / "README.md").write_text("")
    with pytest.raises(
        ReleaseError, match=r"expected nothing that is not committed.*; got (README.md, note.txt)\. Commit"
    ):
        cut(project, tmp_path / "home", "1.0", build=never_built)
    assert not (project / "releases").exists()


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(ReleaseError, match="not a git repository"):
        cut(tmp_path, tmp_path / "home", "1.0", build=never_built)


def test_a_hotfix_needs_a_release(empty, tmp_path):
    with pytest.raises(ReleaseError, match=r"release 1.0.1: expected a release 1.0 that it mends; got none. Cut 1.0\."):
        cut(empty, tmp_path, "1.0.1", build=never_built)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "branch", "words"),
    [
        ("1.0", "main", r"release 1.0.0: expected a line that is not taken; got 1.0, cut as 1.0.0 by Ada Byron .* The next line is 1.1; .* geomagic release cut 1.0.1, on a branch release-1.0"),
        ("1.0.0", "main", "expected a line that is not taken"),
        ("1.0.2", "release-1.0", "release 1.0.2: expected 1.0.1; got 1.0.0 as the newest of its line. Cut 1.0.1"),
        ("1.0.1", "main", "expected the branch release-1.0: .*; got the branch main. git switch --create release-1.0"),
    ],
)  # fmt: skip
def test_what_exists_is_never_cut_again_and_a_hotfix_comes_from_its_branch(released, tmp_path, name, branch, words):
    project = shutil.copytree(released[0], tmp_path / "project")
    if branch != "main":
        run_git(project, "switch", "--quiet", "--create", branch)
    with pytest.raises(ReleaseError, match=words):
        cut(project, tmp_path / "home", name, build=never_built)


def test_a_cut_that_fails_leaves_nothing_behind(project, tmp_path):
    def build(record: Path, home: Path, **options) -> environments.Environment:
        environment = borrowed_build()(record, home, **options)
        next(environment.folder.glob("lib/python3*/site-packages/geomagic_dagster/cv/mesh.py")).unlink()
        return environment

    before = (project / "workspace.yaml").read_text()
    with pytest.raises(ReleaseError, match="geomagic compile"):
        cut(project, tmp_path / "home", "1.0", build=build)
    assert run_git(project, "status", "--porcelain") == "" and (project / "workspace.yaml").read_text() == before
    assert environments.installed(tmp_path / "home", "1.0") is None
    assert environments.all_environments(tmp_path / "home") == []


# --- the wheel ------------------------------------------------------------------------------------


def test_the_same_commit_gives_the_same_wheel(empty, tmp_path):
    found = []
    commit_ = git.clean_commit(empty)
    for name, umask in (("one", 0o022), ("two", 0o077)):
        before = os.umask(umask)
        try:
            git.export(empty, commit_.sha, tmp_path / name)
            (tmp_path / name / "out").mkdir()
            found.append(wheels.build_wheel(tmp_path / name, "2.5.0", commit_.committed_s, tmp_path / name / "out"))
        finally:
            os.umask(before)
        time.sleep(1.1)  # zip files count in steps of two seconds, at best one
    assert found[0].name == found[1].name == "geomagic_dagster-2.5.0-py3-none-any.whl"
    assert found[0].read_bytes() == found[1].read_bytes()


def test_only_what_is_committed_is_in_the_wheel(project, tmp_path):
    (project / ".gitignore").write_text("*.secret.py\n")
    commit(project, "Ignore")
    (project / "geomagic_dagster" / "my.secret.py").write_text("")
    git.export(project, git.clean_commit(project).sha, tmp_path / "source")
    assert not list((tmp_path / "source").rglob("*.secret.py"))


# --- the record -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_record_says_all_that_the_release_is(released, empty):
    project, done = released
    release = verify_record(project / "releases" / "1.0")
    assert release == done.release
    assert (release.line, release.version, release.branch) == ("1.0", "1.0.0", "main")
    assert release.commit == git.clean_commit(empty).sha
    assert release.cut_by == "Ada Byron <ada@example.org>"
    assert [change.subject for change in release.changes] == ["Everything"]
    assert set(release.files) > {"manifest.json", "requirements.lock", "geomagic_dagster-1.0.0-py3-none-any.whl"}
    assert any(name.startswith("environment-") for name in release.files)
    assert release.pinned and {"scan", "depth", "package"} <= set(release.pinned.artefacts)
    assert {"room.glb", "room.json"} <= set(release.pinned.package)
    assert (project / "releases" / "1.0" / "requirements.lock").read_bytes() == (
        project / "requirements.lock"
    ).read_bytes()


@pytest.mark.slow
def test_nothing_else_in_the_checkout_changes_but_the_workspace(released):
    project, _ = released
    changed = run_git(project, "show", "--name-only", "--format=", "HEAD").splitlines()
    assert {path for path in changed if not path.startswith("releases/1.0/")} == {"workspace.yaml"}
    entries = yaml.safe_load((project / "workspace.yaml").read_text())["load_from"]
    assert entries[1]["python_module"] == {
        "module_name": "geomagic_dagster.definitions",
        "location_name": "1.0",
        "executable_path": ".home/releases/1.0/env/bin/python",
    }
    assert (project / "workspace.yaml").read_text().startswith("# Which code locations there are.\n")


@pytest.mark.slow
def test_the_release_is_installed_where_it_was_cut(released, home):
    environment = environments.installed(home, "1.0")
    assert environment is not None and environment.release == released[1].release
    there, left_out = workspace.locations(released[0] / "workspace.yaml", home)
    assert [entry["python_module"]["location_name"] for entry in there] == ["latest", "1.0"]
    assert there[1]["python_module"]["executable_path"] == str(environment.python) and left_out == []


@pytest.mark.slow
def test_a_release_that_is_not_installed_is_left_out_with_a_sentence(released, tmp_path):
    there, left_out = workspace.locations(released[0] / "workspace.yaml", tmp_path)
    assert [entry["python_module"]["location_name"] for entry in there] == ["latest"]
    assert left_out == ["release 1.0 is not installed, and left out: geomagic release install 1.0"]


@pytest.mark.slow
def test_entries_come_and_go_and_the_rest_of_the_file_stays(released, tmp_path):
    file = Path(shutil.copyfile(released[0] / "workspace.yaml", tmp_path / "workspace.yaml"))
    before = file.read_text()
    workspace.add(file, "1.0")
    assert file.read_text() == before
    workspace.add(file, "1.1")
    workspace.add(file, "1.10")
    assert workspace.lines(file) == {"1.0", "1.1", "1.10"}
    workspace.remove(file, "1.1")
    workspace.remove(file, "1.10")
    assert file.read_text() == before
    file.write_text("load_from: nothing\n")
    with pytest.raises(ReleaseError, match="expected a list load_from"):
        workspace.add(file, "1.1")


# --- a hotfix -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_hotfix_takes_the_place_names_what_it_changed_and_leaves_every_other_byte(released, home, tmp_path):
    project = shutil.copytree(released[0], tmp_path / "project")
    old = released[1].release
    run_git(project, "switch", "--quiet", "--create", "release-1.0")
    layout = project / "geomagic_dagster" / "cv" / "layout.py"
    layout.write_text(layout.read_text() + "\n# a remark\n")
    commit(project, "A remark in layout")
    before = environments.installed(home, "1.0")
    done = cut(project, home, "1.0.1", build=borrowed_build())
    assert any(re.fullmatch(r"layout: the same bytes \(its code changed\)", line) for line in done.differences)
    assert any("depth" in line and line.endswith("untouched, the same bytes") for line in done.differences)
    assert "package: the same bytes in every file" in done.differences
    assert [change.subject for change in done.release.changes] == ["A remark in layout", "Release 1.0.0"]
    assert done.release.previous == "1.0.0" and old.pinned and done.release.pinned
    assert done.release.pinned.artefacts == old.pinned.artefacts and done.release.pinned.package == old.pinned.package
    kept = record_folder(project / "releases", "1.0.0")
    assert verify_record(kept) == old and kept == project / "releases" / "1.0" / "history" / "1.0.0"
    now = environments.installed(home, "1.0")
    assert now and before and now.release.version == "1.0.1"
    assert before.python.exists()  # who still runs in it goes on; the next one sweeps it away


@pytest.mark.slow
def test_a_version_that_a_hotfix_replaced_is_still_the_one_that_is_replayed(released, home, tmp_path, monkeypatch):
    """The record of a package names 1.0.0 and a flag: it is made again from the history, with that flag."""
    records = Path(shutil.copytree(released[0] / "releases", tmp_path / "releases"))
    line = records / "1.0"
    shutil.copytree(line, line / "history" / "1.0.0")
    write_release(replace(released[1].release, version="1.0.1"), line)
    folder = tmp_path / "packages" / "room"
    folder.mkdir(parents=True)
    (folder / "room.glb").write_bytes(b"a room")
    said = {"version": "1.0.0", "scan": "s", "package": "p", "route": {"flags": "new_plane_fit"}}
    (tmp_path / "packages" / "room.run.json").write_text(json.dumps(said))
    asked = []

    def process(environment, scan, flags, weights):
        asked.append((environment.release.version, list(flags)))
        made_now = {"room.glb": sha256(b"a room").hexdigest(), "plan.svg": "0" * 64}
        return pinned.Result({"scan": {"identity": "s"}, "package": {"identity": "q"}}, made_now)

    monkeypatch.setattr(pinned, "process", process)
    published = tmp_path / "packages" / "room.run.json"
    done = replay(records, home, "1.0", tmp_path, package=published, build=borrowed_build())
    assert asked == [("1.0.0", ["new_plane_fit"])] and done.version == "1.0.0"
    assert done.same == ("room.glb",)
    assert done.differing == (
        "plan.svg: no such file then, sha256 000000000000... now",
        "identity of package: p then, q now",
    )
    with pytest.raises(ReleaseError, match=r"replay under 1.1: expected a result of 1.1; got one that 1.0.0 made"):
        replay(records, home, "1.1", tmp_path, package=published, build=never_built)
    with pytest.raises(ReleaseError, match="expected --package or --artefact: what it became then; got neither"):
        replay(records, home, "1.0", tmp_path, build=never_built)
    with pytest.raises(ReleaseError, match=r"expected <packages>/<scan>.run.json with the folder"):
        replay(records, home, "1.0", tmp_path, package=tmp_path / "other.json", build=never_built)


MANIFEST = {
    "stages": [
        {"name": name, "version": "1", "code_sha256": "a", "settings": {}, "libraries": {"numpy": "1"}, "weights": {},
         "inputs": [{"name": given} for given in inputs]}
        for name, inputs in {"depth": ["scan"], "mesh": ["depth"], "package": ["mesh"]}.items()
    ]
}  # fmt: skip
PINNED = Pinned(7, 24, "here", dict.fromkeys(["scan", "depth", "mesh", "package"], "0"), {"room.glb": "0"})


def changed(stage: str, **what) -> dict:
    return {"stages": [{**each, **what} if each["name"] == stage else each for each in MANIFEST["stages"]]}


def giving(files: dict[str, str] | None = None, /, **artefacts: str) -> Pinned:
    return replace(PINNED, artefacts=PINNED.artefacts | artefacts, package=PINNED.package | (files or {}))


@pytest.mark.parametrize(
    ("new", "manifest", "words"),
    [
        (PINNED, MANIFEST, ["depth, mesh, package: untouched, the same bytes", "package: the same bytes in every file"]),
        (PINNED, changed("mesh", version="2"), ["mesh: the same bytes (version 1 is 2)"]),
        (PINNED, changed("mesh", libraries={"numpy": "2", "torch": "1"}), ["mesh: the same bytes (numpy 1 is 2; torch none is 1)"]),
        (giving(mesh="1"), changed("mesh", settings={"a": 1}), ["mesh: other bytes (its settings changed)"]),
        (giving({"room.glb": "1"}, mesh="1", package="1"), changed("mesh", code_sha256="b"),
         ["package: other bytes (it takes mesh, which changed)", "package: other bytes in room.glb"]),
    ],
)  # fmt: skip
def test_a_hotfix_is_told_in_words(new, manifest, words):
    assert set(words) <= set(pinned.compare(PINNED, new, MANIFEST, manifest))


@pytest.mark.parametrize(
    ("new", "manifest", "words"),
    [
        (giving(mesh="1"), MANIFEST, "mesh: expected the bytes of the version before, .*; got other bytes"),
        (giving(depth="1", mesh="1"), changed("mesh", version="2"), "depth: expected the bytes of the version before"),
        (giving({"room.glb": "1"}), MANIFEST, "published room.glb: expected the bytes of the version before"),
        (giving(scan="1"), MANIFEST, "expected the same scan as before, .*; got another one. A hotfix leaves scans/"),
    ],
)
def test_a_hotfix_that_changes_what_it_does_not_name_is_refused(new, manifest, words):
    with pytest.raises(ReleaseError, match=words):
        pinned.compare(PINNED, new, MANIFEST, manifest)


@pytest.mark.slow
def test_a_hotfix_that_changes_bytes_behind_the_stages_is_not_cut(released, home, tmp_path, monkeypatch):
    project = shutil.copytree(released[0], tmp_path / "project")
    run_git(project, "switch", "--quiet", "--create", "release-1.0")
    with open(project / "README.md", "a") as file:
        file.write("A remark.\n")
    commit(project, "A remark")
    was = released[1].release.pinned
    assert was
    spoilt = replace(was, package=was.package | {"room.json": "0" * 64})
    monkeypatch.setattr(pinned, "pinned_scan", lambda environment, seed, frames, weights: (spoilt, None))
    before = environments.installed(home, "1.0")
    with pytest.raises(ReleaseError, match=r"published room.json: expected the bytes of the version before"):
        cut(project, home, "1.0.1", build=borrowed_build())
    assert read_release(project / "releases" / "1.0").version == "1.0.0"
    assert run_git(project, "status", "--porcelain") == "" and environments.installed(home, "1.0") == before
