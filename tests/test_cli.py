"""The command line as a person uses it: in a process of its own, reading what it prints and its exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from geomagic_dagster.cv.stage import find_stages

GEOMAGIC = str(Path(sys.executable).with_name("geomagic"))


@pytest.fixture
def geomagic(tmp_path):
    """Runs `geomagic ...` with a home of its own; returns (exit code, standard output, standard error)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GEOMAGIC", "DAGSTER"))}
    environment |= {"GEOMAGIC_HOME": str(tmp_path / "a home"), "COLUMNS": "200"}

    def run(*arguments: str | Path, **more: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [GEOMAGIC, *map(str, arguments)], env=environment | more, cwd=tmp_path, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


def test_help_names_every_command_and_loads_nothing_heavy(geomagic):
    code, out, _ = geomagic("--help")
    assert code == 0
    assert all(command in out for command in ("run", "ui", "stages", "scan", "corpus", "room"))
    heavy = ["dagster", "torch", "kornia", "cv2", "numba", "pydantic", "numpy"]
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, geomagic_dagster.cli; print([m for m in {heavy} if m in sys.modules])"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert loaded.strip() == "[]"


def test_stages_lists_the_journey_with_its_settings(geomagic):
    code, out, _ = geomagic("stages")
    assert code == 0
    assert (
        out.index("frames")
        < out.index("odometry")
        < out.index("poses")
        < out.index("depth")
        < out.index("mesh")
        < out.index("package")
    )
    assert "far_m = 8.0" in out
    assert "max_incidence_deg = 85.0" in out, "no name is cut short on a terminal of 80 columns"


def test_nothing_to_tell_is_told(geomagic):
    code, out, err = geomagic("inbox", "list")
    assert (code, out) == (0, "") and "nothing waits in " in err and "nothing was put aside" in err
    code, out, err = geomagic("logs", "--scan", "rooom", "--no-follow")
    assert (code, out) == (0, "") and "rooom: expected a run of a scan of this name; got none so far. Look at" in err


def test_a_made_up_scan_is_written_checked_and_becomes_a_package(geomagic, tmp_path):
    scan = tmp_path / "room with ümlaut"
    assert geomagic("scan", "make-up", scan, "--seed", "3", "--frames", "20")[0] == 0

    code, out, _ = geomagic("scan", "check", scan)
    assert code == 0
    assert "20" in out

    code, out, err = geomagic("run", scan)
    assert code == 0, err
    package = tmp_path / "a home" / "packages" / "room with ümlaut"
    assert {path.name for path in package.iterdir()} == {
        "room.glb", "room.json", "plan.svg", "plan.png", "measurements.csv", "preview.png", "top.png", "manifest.json"
    }  # fmt: skip
    assert str(package) in out
    assert "make ui" in out
    assert f"geomagic room show '{package}'" in out
    assert all(name in out for name in ("frames", "odometry", "poses", "depth", "mesh", "package"))
    assert json.loads((package / "manifest.json").read_text())["scan"]["name"] == "room with ümlaut"

    code, out, _ = geomagic("run", scan)
    assert code == 0
    assert out.count("reused") == 1 + len(find_stages()), "the scan and every stage"

    code, _, err = geomagic("scan", "make-up", scan)
    assert code == 2
    assert "expected a folder that is not there yet. Choose another, or remove it first." in err


@pytest.fixture
def package(tmp_path) -> Path:
    """A published package, as little as one may be."""
    package = tmp_path / "a home" / "packages" / "my room"
    package.mkdir(parents=True)
    (package / "manifest.json").write_text("{}")
    return package


def test_a_room_is_shown_by_its_folder_or_its_name_in_one_file_beside_it(geomagic, package, tmp_path):
    beside = package.with_name("my room.html")
    for which in (package, f"{package}/", "my room"):
        code, out, err = geomagic("room", "show", which, "--no-open")
        assert (code, out.strip(), err) == (0, str(beside), "")
        assert "<h1>my room</h1>" in beside.read_text()
        beside.unlink()
    elsewhere = tmp_path / "page.html"
    assert geomagic("room", "show", "my room", "--no-open", "--output", elsewhere)[1].strip() == str(elsewhere)
    assert elsewhere.is_file() and not beside.exists()
    assert [path.name for path in package.iterdir()] == ["manifest.json"]


def test_showing_a_room_opens_the_browser_on_its_file(geomagic, package, tmp_path):
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\necho \"$1\" > '{tmp_path}/opened'\n")
    browser.chmod(0o755)
    code, out, _ = geomagic("room", "show", package, BROWSER=f"{browser} %s")
    assert code == 0
    assert (tmp_path / "opened").read_text().strip() == Path(out.strip()).as_uri()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), ("nothing: expected the folder of a package, or the name of one", "packages", "`geomagic run`")),
        (("..",), ("expected a package: a folder with room.glb", "`geomagic run`")),
        (("my room", "--output", "no/such/folder/page.html"), ("page.html: expected to write here", "--output")),
    ],
    ids=["no such package", "a folder that is none", "nowhere to write"],
)
def test_a_room_that_cannot_be_shown_ends_with_one_sentence_and_exit_code_2(geomagic, package, arguments, words):
    code, out, err = geomagic("room", "show", *arguments, "--no-open")
    assert (code, out) == (2, "")
    assert all(word in err for word in words)
    assert len(err.strip().splitlines()) == 1


def test_rooms_are_served_and_a_taken_port_is_said(geomagic, package, tmp_path):
    environment = os.environ | {"GEOMAGIC_HOME": str(tmp_path / "a home")}
    server = subprocess.Popen([GEOMAGIC, "room", "serve", "--port", "0"], stdout=subprocess.PIPE, env=environment)
    try:
        port = re.match(rb"http://127.0.0.1:(\d+) ", server.stdout.readline())[1].decode()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/packages/my%20room/", timeout=120) as page:
            assert b"<h1>my room</h1>" in page.read()
        code, _, err = geomagic("room", "serve", "--port", port)
        assert code == 2
        assert f"127.0.0.1:{port}: expected a free port" in err
    finally:
        server.terminate()
        server.communicate(timeout=120)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path, ("expected a",)),
        (lambda path: path.mkdir() or path, ("expected", "got")),
        (lambda path: path.write_bytes(b"PK\5\6" + bytes(18)) and path.rename(path.with_suffix(".zip")), ("expected",)),
        (lambda path: path.write_text("hello") and path, ("expected",)),
    ],
    ids=["nothing there", "an empty folder", "an empty zip", "a text file"],
)
def test_what_is_no_scan_ends_with_one_sentence_and_exit_code_2(geomagic, tmp_path, make, words):
    path = make(tmp_path / "upload")
    code, out, err = geomagic("scan", "check", path)
    assert code == 2
    assert all(word in out + err for word in words)
    code, out, err = geomagic("run", path)
    assert code == 2
    sentence = err.strip().splitlines()[-1]
    assert all(word in sentence for word in words)
    packages = tmp_path / "a home" / "packages"
    assert not packages.exists() or list(packages.iterdir()) == []


def test_the_flat_without_depth_is_rejected_saying_so(geomagic, real_scans):
    code, _, err = geomagic("run", real_scans / "studio_bedroom_rgb")
    assert code == 2
    assert "depth" in err
    assert "metric scale" in err


def test_the_corpus_takes_made_up_rooms_and_refuses_scans_without_consent(geomagic, real_scans):
    assert geomagic("corpus", "list")[1] == ""
    assert geomagic("corpus", "add", "--seed", "2")[0] == 0
    assert geomagic("corpus", "list")[1].split() == ["made_up_2"]
    code, _, err = geomagic("corpus", "add", real_scans / "tum_fr3_cabinet")
    assert code == 2
    assert "consent" in err
    assert geomagic("corpus", "add", real_scans / "tum_fr3_cabinet", "--agreed")[0] == 0


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk in memory with some options; it is gone after the test."""
    place = tmp_path / "small disk"
    place.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this test mounts a small disk, which takes root: {done.stderr.strip()}")
        return place

    yield mount
    subprocess.run(["umount", place], capture_output=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [("size=256k", "No space left on device. Free some space"), ("ro", "Read-only file system. Point GEOMAGIC_HOME")],
    ids=["full disk", "read-only disk"],
)
def test_a_disk_that_takes_nothing_ends_in_one_sentence_and_nothing_half_written(geomagic, small_disk, options, words):
    disk = small_disk(options)
    code, _, err = geomagic("scan", "make-up", disk / "scan", "--frames", "10")
    assert code == 2
    assert words in err
    assert list(disk.iterdir()) == []
    code, _, err = geomagic("run", GEOMAGIC_HOME=str(disk / "home"))
    assert code == 2
    assert words in err
    assert not (disk / "home" / "packages").exists()


def test_a_file_in_the_place_of_a_folder_is_said(geomagic, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = geomagic("scan", "make-up", tmp_path / "file" / "scan", "--frames", "2")
    assert code == 2
    assert "File exists" in err
    assert str(tmp_path / "file") in err
