from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dagster import AssetKey, DagsterInstance

from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.definitions import defs, places_from, release_from
from geomagic_dagster.releases.record import released, verify_record
from geomagic_dagster.releases.workspace import lines
from tests.conftest import REPOSITORY, workspace_of_latest

HEAVY = ("torch", "kornia", "cv2", "numba", "scipy", "skimage", "trimesh", "fast_simplification", "embreex")


def in_fresh_process(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_loading_the_code_location_imports_nothing_heavy():
    loaded = json.loads(
        in_fresh_process("import geomagic_dagster.definitions, sys, json; print(json.dumps(sorted(sys.modules)))")
    )
    assert [module for module in HEAVY if module in loaded] == []


def test_every_stage_is_an_asset_and_an_op():
    names = {stage.name for stage in find_stages()}
    keys = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    job = defs.resolve_job_def("process_scan")
    assert keys == {f"latest/{name}" for name in names | {"scan"}}
    assert {node.name for node in job.nodes} == names | {"scan", "publish"}
    for name in names:
        [op] = [node.definition for node in job.nodes if node.name == name]
        asset = defs.resolve_assets_def(AssetKey(["latest", name]))
        assert op.description == asset.op.description
        assert op.retry_policy == asset.op.retry_policy
        assert set(op.input_dict) == set(asset.op.input_dict)


def test_the_environment_says_where_everything_lies(tmp_path):
    places = places_from(
        {"GEOMAGIC_HOME": str(tmp_path), "GEOMAGIC_STORE": "s3://bucket/rooms", "GEOMAGIC_DEVICE": "cpu"}
    )
    assert places.inbox == str(tmp_path / "inbox")
    assert places.store_url == "s3://bucket/rooms"
    assert places.device == "cpu"
    assert places_from({}).inbox == str(Path(".home").absolute() / "inbox")
    assert places_from({"GEOMAGIC_INBOX": "in"}).inbox == str(Path("in").absolute())
    assert places_from({}).device is None
    assert places_from({}).rooms_url == "http://127.0.0.1:3001"
    assert places_from({"GEOMAGIC_ROOMS_URL": "rooms.example/r"}).rooms_url == "rooms.example/r", "no folder"
    assert (release_from({}), release_from({"GEOMAGIC_RELEASE": "1.0"})) == ("latest", "1.0")


def test_a_release_has_keys_and_a_group_of_its_own():
    program = """
from geomagic_dagster.definitions import defs
print(*[key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()])
"""
    assert all(key.startswith("v1_0/") for key in in_fresh_process(program, GEOMAGIC_RELEASE="1.0").split())


def test_the_embedded_instance_is_as_it_says(tmp_path, monkeypatch):
    (tmp_path / "dagster.yaml").write_bytes((REPOSITORY / "dagster.yaml").read_bytes())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with DagsterInstance.get() as instance:
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_max_resume_run_attempts == 0
        assert instance.run_retries_enabled
        assert instance.run_retries_retry_on_asset_or_op_failure is False
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 2
        assert (tmp_path / "history").is_dir()


def test_the_workspace_holds_latest_and_releases_that_are_recorded():
    first, *releases = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())["load_from"]
    assert first == {"python_module": {"module_name": "geomagic_dagster.definitions", "location_name": "latest"}}
    named = lines(REPOSITORY / "workspace.yaml")
    assert len(named) == len(releases)
    assert named <= {each.line for each in released(REPOSITORY / "releases")}


def test_every_record_of_a_release_is_as_it_was_cut():
    for each in released(REPOSITORY / "releases"):
        assert verify_record(REPOSITORY / "releases" / each.line) == each


@pytest.mark.slow
def test_dagster_itself_accepts_the_workspace(tmp_path):
    (tmp_path / "dagster.yaml").write_bytes((REPOSITORY / "dagster.yaml").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", str(workspace_of_latest(tmp_path))],
        cwd=REPOSITORY,
        env=os.environ | {"DAGSTER_HOME": str(tmp_path), "GEOMAGIC_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Validation successful for code location latest" in done.stdout + done.stderr
