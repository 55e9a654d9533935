"""What changed between two manifests: in words, and all of it."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.releases.diff import diff_in_words
from geomagic_dagster.releases.manifest import PACKAGE, compile_manifest
from tests.conftest import REPOSITORY

MANIFEST = json.loads(json.dumps(compile_manifest(find_stages(), REPOSITORY / "requirements.lock")))


def changed(edit) -> list[str]:
    new = copy.deepcopy(MANIFEST)
    edit(new, {each["name"]: each for each in new["stages"]})
    return diff_in_words(MANIFEST, new)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Every place in a document, containers included."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        found += places(each, (*path, key))
    return found


PLACES = places(MANIFEST)
VALIDATOR = jsonschema.Draft202012Validator(json.loads((PACKAGE / "releases" / "manifest.schema.json").read_text()))


def edited(value: Any, how: str) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        is_digest = len(value) == 64
        return value[:-1] + ("0" if value[-1] != "0" else "1") if is_digest else f"{value}x"
    if isinstance(value, dict):
        new = next(iter(value.values()), "1")
        return {**value, "brand_new": [0.0, 1.0] if how == "added a range" else copy.deepcopy(new)}
    return [*value, "brand_new"] if isinstance(value, list) else "something"


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from(["changed", "added a range", "removed"]))
def test_any_single_change_gives_at_least_one_line(place, how):
    new = copy.deepcopy(MANIFEST)
    parent = new
    for key in place[:-1]:
        parent = parent[key]
    if how == "removed":
        parent.pop(place[-1])
    else:
        parent[place[-1]] = edited(parent[place[-1]], how)
    assume(VALIDATOR.is_valid(new))  # else it is no manifest
    assert diff_in_words(MANIFEST, new), (place, how)
    assert diff_in_words(new, MANIFEST), (place, how)


def test_equal_manifests_give_no_lines():
    assert diff_in_words(MANIFEST, copy.deepcopy(MANIFEST)) == []


def test_a_deadline_a_retry_and_a_size_are_said_in_a_person_s_units():
    def edit(_, stages):
        stages["depth"].update(
            deadline_s=stages["depth"]["deadline_s"] + 120, retries=5, gpu=not stages["depth"]["gpu"]
        )

    before = next(each for each in MANIFEST["stages"] if each["name"] == "depth")
    minutes = before["deadline_s"] / 60
    assert changed(edit) == [
        f"depth: deadline {minutes:g} min -> {minutes + 2:g} min",
        f"depth: retries {before['retries']} -> 5",
        f"depth: gpu {'true -> false' if before['gpu'] else 'false -> true'}",
    ]


def test_code_and_version_are_one_line():
    assert changed(lambda _, s: s["layout"].update(code_sha256="0" * 64, version="9")) == [
        "layout: code changed, version 1 -> 9"
    ]
    assert changed(lambda _, s: s["layout"].update(code_sha256="0" * 64)) == ["layout: code changed, version still 1"]
    assert changed(lambda _, s: s["layout"].update(version="9")) == ["layout: version 1 -> 9, same code"]


def test_settings_that_came_went_or_have_another_default():
    def edit(_, stages):
        settings = stages["frames"]["settings"]["properties"]
        settings["blur_ratio"]["default"] = 0.5
        del settings["max_frames"]
        settings["gain"] = {"default": 2.0, "type": "number"}

    assert changed(edit) == [
        "frames: setting blur_ratio: default 0.75 -> 0.5",
        "frames: new setting gain = 2.0",
        "frames: setting max_frames removed",
    ]


def test_a_library_is_said_once_with_the_stages_that_import_it():
    def edit(new, stages):
        new["lock"]["packages"].update(trimesh="6.0", tqdm="5.0")
        new["lock"]["sha256"] = "0" * 64
        del new["lock"]["packages"]["yarl"]
        stages["package"]["libraries"]["trimesh"] = "6.0"

    packages = MANIFEST["lock"]["packages"]
    assert changed(edit) == [
        f"tqdm {packages['tqdm']} -> 5.0",
        f"trimesh {packages['trimesh']} -> 6.0 (in package)",
        f"yarl {packages['yarl']}: removed",
    ]


def test_stages_and_inputs_that_came_went_or_were_renamed():
    def edit(new, stages):
        stages["mesh"]["inputs"][0]["name"] = "pictures"
        stages["layout"]["inputs"].append({"name": "frames", "type": "Frames"})
        new["stages"].remove(stages["furniture"])
        new["stages"].append({**stages["depth"], "name": "light"})

    assert changed(edit) == [
        "furniture: stage removed, version 1",
        "mesh: input frames is pictures now",
        "layout: now takes frames (Frames)",
        "light: new stage, version 1, takes frames, poses, makes DepthMaps",
    ]


def test_what_a_stage_returns_is_said_by_field():
    def edit(_, stages):
        fields = stages["depth"]["returns"]["fields"]["DepthMaps"]
        fields["depth_m_bhw"] = "array of float64"
        fields["far_m"] = "float"

    assert changed(edit) == [
        "depth: its result: field DepthMaps.depth_m_bhw: array of float32 -> array of float64",
        "depth: its result: new field DepthMaps.far_m: float",
    ]


def test_the_rest_has_sentences_too():
    def edit(new, stages):
        new["deadlines"]["scan_s"] += 600
        new["platform_sha256"] = new["reading_sha256"] = "0" * 64
        stages["mesh"]["flags"] = new["flags"] = ["new_fusion"]
        stages["mesh"]["weights"] = {"net": "sha256:" + "a" * 64}
        stages["package"]["expects"]["warnings"] = [None, 9.0]

    assert changed(edit) == [
        "mesh: new flag new_fusion",
        "mesh: new weights net: sha256:aaaaaaaaaaaa",
        "package: expected range of warnings: 0.0 to 6.0 -> any to 9.0",
        'flags: [] -> ["new_fusion"]',
        "the scan as a whole: deadline 75 min -> 85 min",
        "reading and checking of scans: code changed",
        "the platform around the stages: code changed",
    ]


def test_the_lock_alone():
    assert changed(lambda new, _: new["lock"].update(sha256="0" * 64)) == [
        "dependency lock: same versions, other content"
    ]
    assert "dependency lock: removed" in changed(lambda new, _: new.update(lock=None))


def test_the_order_of_stages():
    assert changed(lambda new, _: new["stages"].reverse())[0].startswith("order of the stages: frames, odometry")
