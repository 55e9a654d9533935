"""What compiles, what does not and why, and whether code is what a manifest says."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from geomagic_dagster.cv.code import code_behind
from geomagic_dagster.cv.containers import EncodedImages
from geomagic_dagster.cv.stage import StageError, find_stages
from geomagic_dagster.releases.installed import ReleaseBroken
from geomagic_dagster.releases.manifest import (
    PACKAGE,
    ManifestError,
    check_against,
    compile_manifest,
    manifest_sha256,
    newest_manifest,
    read_lock,
    read_manifest,
    recorded_manifest,
    to_json,
)
from geomagic_dagster.releases.nouns import schema_of, type_in_words
from tests.conftest import REPOSITORY

STAGES = find_stages()
LOCK = REPOSITORY / "requirements.lock"
MANIFEST = compile_manifest(STAGES, LOCK)
DEPTH = next(each for each in MANIFEST["stages"] if each["name"] == "depth")


def with_(name: str, **changes) -> list:
    return [replace(each, **changes) if each.name == name else each for each in STAGES]


def sealed(manifest: dict) -> dict:
    manifest["sha256"] = manifest_sha256(manifest)
    return manifest


# --- compiling -------------------------------------------------------------------------------------


def test_a_manifest_is_as_its_published_schema_says():
    schema = json.loads((PACKAGE / "releases" / "manifest.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for manifest in (MANIFEST, compile_manifest(find_stages("tests.toy_stages.stages"), None)):
        jsonschema.Draft202012Validator(schema).validate(json.loads(to_json(manifest)))


def test_everything_that_a_stage_declares_is_in_it_once():
    """A new field of Stage is in the manifest, or somebody said here why not."""
    left_out = {"function": "its code is", "description": "its code is", "params": "settings are"}
    named = {"timeout_s": "deadline_s"}
    fields = {named.get(field.name, field.name) for field in dataclasses.fields(STAGES[0])} - left_out.keys()
    assert fields | {"settings"} == MANIFEST["stages"][0].keys()
    assert [each["name"] for each in MANIFEST["stages"]] == [each.name for each in STAGES]


def test_settings_are_a_json_schema_with_defaults_and_limits():
    settings = MANIFEST["stages"][0]["settings"]["properties"]["blur_ratio"]
    assert (settings["default"], settings["minimum"], settings["maximum"]) == (0.75, 0, 1)


def test_the_same_commit_compiles_to_the_same_manifest_elsewhere_in_another_order_of_hashes(tmp_path):
    """Another folder, another seed of hashes, another day of the files, another locale."""
    copied = tmp_path / "elsewhere"
    shutil.copytree(PACKAGE, copied / "geomagic_dagster", copy_function=shutil.copy)
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(REPOSITORY / name, copied / name)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "geomagic_dagster.cli", "compile"],
        cwd=copied,
        env=os.environ | {"PYTHONPATH": str(copied), "PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Tokyo"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode() == to_json(MANIFEST)


def test_which_build_of_a_library_is_installed_does_not_matter():
    builds = [
        replace(each, libraries={n: f"{v.split('+')[0]}+cu130" for n, v in each.libraries.items()}) for each in STAGES
    ]
    assert compile_manifest(builds, LOCK) == MANIFEST
    check_against(builds, MANIFEST)


def test_its_digest_is_that_of_its_content(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(to_json(MANIFEST))
    assert read_manifest(path) == MANIFEST
    path.write_text(to_json(MANIFEST).replace('"retries": 2', '"retries": 3', 1))
    with pytest.raises(ManifestError, match=r"manifest\.json: expected a manifest with sha256 .*restore it from git"):
        read_manifest(path)
    path.write_text("[]")
    with pytest.raises(ManifestError, match=r"expected a manifest in JSON; got TypeError"):
        read_manifest(path)
    with pytest.raises(ManifestError, match=r"got no such file.*geomagic compile --output"):
        read_manifest(tmp_path / "none.json")


# --- what does not compile ---------------------------------------------------------------------------


def unknown_input():
    return with_("depth", inputs=("frames", "posess"))


def deadlines_that_do_not_nest():
    return with_("mesh", timeout_s=10_000.0)


def library_not_locked():
    return with_("mesh", libraries={"open3d": "0.19.0"})


def types_that_disagree():
    return with_("frames", returns=Inner)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (unknown_input, ["stage depth", "'posess'", "neither 'scan' nor a stage", "the stages are depth, frames"]),
        (deadlines_that_do_not_nest, ["deadline of the scan as a whole", "expected at least", "got 75.0 min", "Lower timeout="]),
        (types_that_disagree, ["takes frames as Frames, but stage frames returns Inner", "Make the two agree"]),
        (library_not_locked, ["stage mesh", "requirements.lock", "open3d 0.19.0", "pyproject.toml", "make lock"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_does_not_compile(stages, words):
    with pytest.raises(StageError) as refused:
        compile_manifest(stages(), LOCK)
    for word in words:
        assert word in str(refused.value)


def test_a_cycle_does_not_compile():
    waiting = with_("frames", inputs=("layout",), function=lambda layout: None)
    waiting[0].function.__annotations__["layout"] = next(each for each in STAGES if each.name == "layout").returns
    with pytest.raises(StageError, match="these stages wait for each other: .*layout.*Remove one of the arguments"):
        compile_manifest(waiting, LOCK)


def test_a_library_that_is_not_installed_here_does_not_compile(monkeypatch):
    known = code_behind(STAGES[0].function.__module__)
    monkeypatch.setattr("geomagic_dagster.releases.manifest.code_behind", lambda _: replace(known, unknown=("open3d",)))
    with pytest.raises(ManifestError, match=r"stage frames: .*got open3d, of no installed distribution.*make setup"):
        compile_manifest(STAGES, LOCK)


def test_other_fields_need_another_version():
    newest = copy.deepcopy(MANIFEST)
    depth = next(each for each in newest["stages"] if each["name"] == "depth")
    fields = depth["returns"]["fields"]["DepthMaps"]
    fields["depth_mm_bhw"] = fields.pop("depth_m_bhw")
    depth["returns"]["sha256"] = "0" * 64
    with pytest.raises(ManifestError) as refused:
        compile_manifest(STAGES, LOCK, newest=newest)
    for words in (
        f"stage depth: expected another version than '{DEPTH['version']}'",
        "DepthMaps, depth_mm_bhw: recorded array of float32, found nothing",
        "Raise version= in its @stage.",
    ):
        assert words in str(refused.value)
    assert compile_manifest(with_("depth", version="another"), LOCK, newest=newest)["stages"]
    depth["returns"]["fields"]["DepthMaps"] = {**fields, "depth_m_bhw": "array of float64"}
    del depth["returns"]["fields"]["DepthMaps"]["depth_mm_bhw"]
    with pytest.raises(ManifestError, match="depth_m_bhw: recorded array of float64, found array of float32"):
        compile_manifest(STAGES, LOCK, newest=newest)


def test_a_lock_that_pins_something_else_than_versions_is_refused(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "# pinned\n-i https://pypi.org\nNumPy==2.2.1 ; python_version > '3'\nruamel.yaml[x]==1 \\\n    --hash=sha256:0\n"
    )
    assert read_lock(lock) == {"numpy": "2.2.1", "ruamel-yaml": "1"}
    lock.write_text("numpy>=2\n")
    with pytest.raises(ManifestError, match=r"expected lines like numpy==2\.2\.1; got 'numpy>=2'"):
        read_lock(lock)


# --- the schema of an artefact ------------------------------------------------------------------------


@dataclass(frozen=True)
class Inner:
    kind: Literal["a", "b"]


@dataclass(frozen=True)
class Outer:
    parts: tuple[Inner, ...]
    picture: EncodedImages | None
    depth_m_hw: NDArray[np.float32]
    any_nn: np.ndarray
    named: dict[str, float]


def test_nouns_in_words():
    assert schema_of(Outer) == {
        "Inner": {"kind": '"a" | "b"'},
        "Outer": {
            "parts": "tuple[Inner, ...]",
            "picture": "EncodedImages | None",
            "depth_m_hw": "array of float32",
            "any_nn": "ndarray",
            "named": "dict[str, float]",
        },
    }
    assert schema_of(float) == {}
    assert type_in_words(None | int) == "int | None"


def test_two_nouns_of_one_name_are_refused():
    other = dataclasses.make_dataclass("Inner", [("x", int)], frozen=True)
    both = dataclasses.make_dataclass("Both", [("a", Inner), ("b", other)], frozen=True)
    with pytest.raises(StageError, match="expected a name of its own for each noun"):
        schema_of(both)


# --- code against a manifest ----------------------------------------------------------------------------


def test_the_code_that_was_compiled_is_what_its_manifest_says():
    check_against(STAGES, MANIFEST)
    check_against(STAGES, json.loads(to_json(MANIFEST)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(code_sha256="0" * 64), "stage depth, code_sha256: recorded "),
        (dict(version="nine"), f"stage depth, version: recorded {DEPTH['version']}, found nine"),
        (dict(timeout_s=300.0), "stage depth, deadline_s: recorded "),
        (dict(retries=7), f"stage depth, retries: recorded {DEPTH['retries']}, found 7"),
        (dict(flags=("new",)), 'stage depth, flags: recorded [], found ["new"]'),
        (dict(expects={}), "stage depth, expects, coverage: recorded "),
        (
            dict(libraries={"numpy": "1.0"}),
            f"stage depth, libraries, numpy: recorded {DEPTH['libraries']['numpy']}, found 1.0",
        ),
    ],
)
def test_other_code_is_named_by_stage_and_field(changes, words):
    with pytest.raises(ReleaseBroken) as refused:
        check_against(with_("depth", **changes), MANIFEST, "release 1.0.0", "Install it anew.")
    assert "release 1.0.0: its code is not what its manifest says: " in str(refused.value)
    assert words in str(refused.value)
    assert str(refused.value).endswith("Install it anew.")


def test_a_stage_too_few_and_one_too_many_are_named():
    fewer = [each for each in STAGES if each.name != "package"]
    with pytest.raises(ReleaseBroken, match=r"order of stages: recorded .*; stage package: recorded .*, found nothing"):
        check_against(fewer, MANIFEST)
    without = copy.deepcopy(MANIFEST)
    without["stages"].pop()
    with pytest.raises(ReleaseBroken, match=r"stage package: recorded nothing, found \{"):
        check_against(STAGES, sealed(without))


def test_an_edited_manifest_is_no_witness():
    edited = copy.deepcopy(MANIFEST)
    edited["stages"][0]["retries"] = 9
    with pytest.raises(ReleaseBroken, match=r"expected content with sha256 .*It was edited"):
        check_against(STAGES, edited)


# --- manifests of releases --------------------------------------------------------------------------------


@pytest.fixture
def releases(tmp_path) -> Path:
    for line, version in (("1.9", "1.9.0"), ("1.10", "1.10.1")):
        (tmp_path / line / "history").mkdir(parents=True)
        (tmp_path / line / "manifest.json").write_text(to_json(sealed({**MANIFEST, "python": version})))
        (tmp_path / line / "release.toml").write_text(f'version = "{version}"\n')
    old = tmp_path / "1.10" / "history" / "1.10.0"
    old.mkdir()
    (old / "manifest.json").write_text(to_json(sealed({**MANIFEST, "python": "1.10.0"})))
    (tmp_path / "README").touch()
    return tmp_path


def test_the_newest_release_is_that_of_the_highest_number(releases, tmp_path_factory):
    assert newest_manifest(releases)["python"] == "1.10.1"
    assert newest_manifest(tmp_path_factory.mktemp("none")) is None
    assert newest_manifest(releases / "nowhere") is None


def test_a_recorded_manifest_is_found_by_line_version_or_file(releases):
    found = {name: recorded_manifest(name, releases)["python"] for name in ("1.9", "1.9.0", "1.10", "1.10.0", "1.10.1")}
    assert found == {"1.9": "1.9.0", "1.9.0": "1.9.0", "1.10": "1.10.1", "1.10.0": "1.10.0", "1.10.1": "1.10.1"}
    assert recorded_manifest(str(releases / "1.9" / "manifest.json"), releases)["python"] == "1.9.0"
    with pytest.raises(ManifestError, match=r"release '2\.0': .*There are: 1\.9, 1\.10, latest"):
        recorded_manifest("2.0", releases)
    with pytest.raises(ManifestError, match=r"release '1\.10\.7': expected it in .*; got 1\.10\.1 there"):
        recorded_manifest("1.10.7", releases)
