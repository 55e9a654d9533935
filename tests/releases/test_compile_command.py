"""`geomagic compile` as a person and a pull request use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from geomagic_dagster.cli import app
from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.releases.manifest import MANIFEST, compile_manifest, manifest_sha256, read_manifest, to_json
from tests.conftest import REPOSITORY


@pytest.fixture
def releases(tmp_path) -> Path:
    """A folder of one release, 1.0, whose depth was allowed less time and took no setting of its own."""
    manifest = compile_manifest(find_stages(), REPOSITORY / "requirements.lock")
    depth = next(each for each in manifest["stages"] if each["name"] == "depth")
    depth["deadline_s"] -= 60
    depth["settings"]["properties"].pop("far_m")
    (tmp_path / "1.0").mkdir()
    (tmp_path / "1.0" / MANIFEST).write_text(to_json(manifest | {"sha256": manifest_sha256(manifest)}))
    return tmp_path


def geomagic(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["compile", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, done.stdout, done.stderr


def test_without_more_it_prints_the_manifest_and_with_output_it_writes_it(tmp_path):
    code, out, _ = geomagic()
    assert code == 0
    code, said, _ = geomagic("--output", tmp_path / "m.json")
    assert code == 0
    assert (tmp_path / "m.json").read_text() == out
    manifest = read_manifest(tmp_path / "m.json")
    assert said.startswith(f"{manifest['sha256'][:12]}: frames ")
    assert said.endswith("; flags: none\n")


def test_check_writes_nothing_and_fails_where_the_file_is_out_of_date(tmp_path, releases):
    path = releases / "1.0" / MANIFEST
    before = path.read_bytes()
    code, _, error = geomagic("--check", "--output", path)
    assert code == 1
    assert f"{path}: expected what the stages compile to; got another manifest:" in error
    assert "  depth: new setting far_m = 8.0\n" in error
    assert f"`geomagic compile --output {path}` writes it anew." in error
    assert path.read_bytes() == before
    geomagic("--output", path)
    assert geomagic("--check", "--output", path)[0] == 0
    assert geomagic("--check")[0] == 0


def test_diff_says_what_changed_since_a_release(releases):
    code, out, _ = geomagic("--diff", "1.0", "latest", "--releases", releases)
    assert code == 0
    [deadline, setting] = out.splitlines()
    assert deadline.startswith("depth: deadline ")
    assert setting == "depth: new setting far_m = 8.0"
    assert geomagic("--diff", "latest", "latest", "--releases", releases)[1] == "nothing changed\n"
    code, _, error = geomagic("--diff", "9.9", "latest", "--releases", releases)
    assert code == 2
    assert error.startswith("release '9.9': expected one that is recorded in ")
    assert "There are: 1.0, latest." in error


def test_stages_that_do_not_compile_end_with_one_sentence(tmp_path, releases):
    path = releases / "1.0" / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["stages"][0]["returns"]["fields"]["Frames"]["sharpness_n"] = "array of float32"
    path.write_text(to_json(manifest | {"sha256": manifest_sha256(manifest)}))
    code, out, error = geomagic("--releases", releases, "--output", tmp_path / "m.json")
    assert (code, out) == (2, "")
    assert error.startswith("stage frames: expected another version than ")
    assert "Frames, sharpness_n: recorded array of float32, found array of float64. Raise version=" in error
    assert not (tmp_path / "m.json").exists()
    lock = tmp_path / "empty.lock"
    lock.touch()
    code, _, error = geomagic("--lock", lock)
    assert code == 2
    assert error.startswith("stage frames: expected its libraries in empty.lock; got numpy ")
