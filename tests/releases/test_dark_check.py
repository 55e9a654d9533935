"""Old and new code on the same scans: the same bytes, or the stage where it begins to differ."""

from __future__ import annotations

import copy
import shutil
import stat
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from geomagic_dagster.cli import app
from geomagic_dagster.cli.common import write_made_up_scan
from geomagic_dagster.cv.stage import ScanRejected, find_stages
from geomagic_dagster.releases.dark_check import Interpreter, NoDigest, compare, dark_check, interpreter
from geomagic_dagster.releases.digest import digest_scan
from geomagic_dagster.releases.installed import InstalledRelease
from geomagic_dagster.releases.manifest import PACKAGE
from tests.conftest import REPOSITORY
from tests.toy_stages.scans import write_toy_scan

TOYS = find_stages("tests.toy_stages.stages")


@pytest.fixture(scope="module")
def digest(tmp_path_factory) -> dict:
    return digest_scan(write_toy_scan(tmp_path_factory.mktemp("scans") / "toy"), TOYS)


def test_a_digest_names_every_artefact_by_what_it_holds(digest, tmp_path):
    assert [each["stage"] for each in digest["stages"]] == ["scan", "shades", "mood", "package"]
    assert (digest["schema"], digest["scan"], digest["made_by"]) == (1, "toy", {"release": "latest"})
    assert digest["rejected"] is None
    assert digest["stages"][-1]["files"].keys() == {"letter.txt", "empty.bin", "artefact.json"}
    again = digest_scan(write_toy_scan(tmp_path / "toy"), TOYS)
    assert again == digest
    other = digest_scan(write_toy_scan(tmp_path / "other" / "toy", seed=1), TOYS)
    assert all(a["sha256"] != b["sha256"] for a, b in zip(other["stages"], digest["stages"], strict=True))


def test_a_flag_that_is_on_shows_in_the_digest(digest, tmp_path):
    on = digest_scan(write_toy_scan(tmp_path / "toy"), TOYS, flags=["dimmer"])
    found = compare(digest, on)
    assert not found.is_same
    assert found.sentence() == (
        "toy: shades differs first (artefact.json, shades.brightness_b.npy), then mood, package; "
        "files of the package: letter.txt"
    )


def test_a_scan_that_is_rejected_has_a_digest_too(tmp_path):
    (tmp_path / "empty").mkdir()
    rejected = digest_scan(tmp_path / "empty", TOYS)
    assert (rejected["stages"], rejected["scan"]) == ([], "empty")
    assert rejected["rejected"].startswith("empty")
    same = compare(rejected, rejected)
    assert same.is_same
    assert same.sentence() == "empty: the same in 0 artefacts, and rejected with the same sentence"


def test_equal_digests_are_the_same_whoever_made_them(digest):
    new = copy.deepcopy(digest)
    new["made_by"] = {"release": "1.1"}
    new["stages"][1]["identity"] = "0" * 32
    found = compare(digest, new)
    assert found.is_same
    assert found.sentence() == "toy: the same in 4 artefacts"


def test_what_only_one_of_them_has_is_told_but_is_no_difference_of_what_people_receive(digest):
    new = copy.deepcopy(digest)
    new["stages"].insert(3, {"stage": "light", "identity": "0" * 32, "sha256": "0" * 64, "files": {}})
    found = compare(digest, new)
    assert found.is_same
    assert found.sentence() == "toy: the same in 4 artefacts; stage light is only in the new code"
    assert "stage light is only in the old code" in compare(new, digest).sentence()


def test_one_that_rejects_what_the_other_processed_differs(digest):
    new = {**copy.deepcopy(digest), "rejected": "mood: no."}
    new["stages"] = new["stages"][:2]
    found = compare(digest, new)
    assert not found.is_same
    assert found.sentence() == "toy: old: processed; new: rejected (mood: no.)"


def test_names_of_interpreters(tmp_path):
    assert interpreter("latest", tmp_path).python == Path(sys.executable)
    assert interpreter("1.0", tmp_path).python == tmp_path / "releases/1.0/env/bin/python"
    assert interpreter("/x/bin/python", tmp_path).python == Path("/x/bin/python")


def test_in_the_environment_of_a_release_there_is_no_latest(tmp_path, monkeypatch):
    installed = InstalledRelease("1.0", "1.0.1", "abc", tmp_path, None)
    monkeypatch.setattr("geomagic_dagster.releases.dark_check.installed_release", lambda: installed)
    with pytest.raises(NoDigest, match=r"latest: expected this command in the environment of the checkout; .*1\.0\.1"):
        interpreter("latest", tmp_path)


def test_a_flag_that_no_stage_declares_is_refused(tmp_path):
    with pytest.raises(
        ScanRejected, match=r"feature flags: expected those that a stage declares \(.*dimmer.*got dimer"
    ):
        digest_scan(write_toy_scan(tmp_path / "toy"), TOYS, flags=["dimer"])


def test_both_sides_are_told_the_device_and_nothing_of_this_installation(monkeypatch):
    monkeypatch.setenv("GEOMAGIC_DEVICE", "cpu")
    monkeypatch.setenv("GEOMAGIC_STORE", "/somewhere")
    monkeypatch.setenv("PYTHONPATH", "/checkout")
    here, there = (
        Interpreter("latest", Path(sys.executable))._environment(),
        Interpreter("1.0", Path("x"))._environment(),
    )
    for each in (here, there):
        assert each["GEOMAGIC_DEVICE"] == "cpu"
        assert "GEOMAGIC_STORE" not in each
    assert (here.get("PYTHONPATH"), there.get("PYTHONPATH")) == ("/checkout", None)


def test_an_interpreter_that_gives_no_digest_says_why(tmp_path):
    scan = tmp_path / "room"
    with pytest.raises(
        NoDigest, match=r"1\.0, scan room: expected a Python at .*No such file.*geomagic release install 1\.0"
    ):
        interpreter("1.0", tmp_path).digest(scan)
    wrong = tmp_path / "python"
    wrong.write_text("#!/bin/sh\necho 'No such command: digest' >&2\nexit 2\n")
    wrong.chmod(wrong.stat().st_mode | stat.S_IEXEC)
    with pytest.raises(NoDigest, match=r"got exit code 2 and\n  No such command: digest\nRun it alone: .*digest"):
        Interpreter("old", wrong).digest(scan)


def python_with(folder: Path, edits: dict[str, tuple[str, str]]) -> Path:
    """A Python whose package is a copy of this one, with a line of some stages edited; returns it."""
    shutil.copytree(
        PACKAGE, folder / "code" / "geomagic_dagster", ignore=shutil.ignore_patterns("__pycache__", "static")
    )
    for stage, (line, other) in edits.items():
        path = folder / "code" / "geomagic_dagster" / "cv" / f"{stage}.py"
        source = path.read_text()
        assert source.count(line) == 1
        path.write_text(source.replace(line, other))
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={folder}/code exec "{sys.executable}" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IEXEC)
    return python


@pytest.mark.slow
def test_a_planted_change_is_found_at_its_stage_and_a_mere_edit_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # which no other environment may see
    corpus = tmp_path / "corpus"
    write_made_up_scan(corpus / "room", 3, frames=14, clean=False)
    line = '"measurements.csv": measurements_csv(document),'
    edits = {
        "layout": ("def measure_layout(", "# an edit that does nothing\ndef measure_layout("),
        "package": (line, line.replace("(document)", '(document) + b"\\n"')),
    }
    planted = python_with(tmp_path, edits)
    done = CliRunner().invoke(app, ["dark-check", "latest", str(planted), "--corpus", str(corpus)])
    assert done.exit_code == 1, done.output
    files = "manifest.json, measurements.csv"
    assert f"room: package differs first ({files}); files of the package: {files}\n" in done.stdout
    assert f"0 of 1 scans gave the same bytes in latest and {planted}, all flags off" in done.stdout


def test_every_scan_is_said_as_soon_as_it_is_known(digest, monkeypatch):
    monkeypatch.setattr(Interpreter, "digest", lambda self, scan: {**digest, "scan": scan.name})
    said: list[str] = []
    found = dark_check(Interpreter("a", Path("a")), Interpreter("b", Path("b")), map(Path, ("one", "two")), said.append)
    assert said == ["one: the same in 4 artefacts", "two: the same in 4 artefacts"]
    assert all(each.is_same for each in found)
