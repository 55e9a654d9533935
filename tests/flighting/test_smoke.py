"""The smoke scan itself, what has to come out of it, and where expected ranges come from."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from typer.testing import CliRunner

from geomagic_dagster.cli import app
from geomagic_dagster.flighting.expected import ranges_of_release, ranges_of_stages
from geomagic_dagster.flighting.runs import Run
from geomagic_dagster.flighting.smoke import Truth, made_up_room, out_of_range, seconds_of, wrong_walls
from geomagic_dagster.monitoring.watcher import families
from tests.flighting.conftest import House


@pytest.mark.slow
def test_the_made_up_room_is_made_once_and_reads_as_a_scan_with_its_truth(tmp_path):
    from geomagic_dagster.scans.reader import read_scan

    folder, truth = made_up_room(tmp_path, frames=3)
    made_s = folder.stat().st_mtime_ns
    assert len(read_scan(folder, "smoke").recording) == 3
    assert len(truth.walls_m) >= 4 and truth.walls_m == tuple(sorted(truth.walls_m)) and 2.0 < truth.height_m < 4.0
    assert made_up_room(tmp_path, frames=3) == (folder, truth) and folder.stat().st_mtime_ns == made_s
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made_up_1_3"]


def room(folder: Path, *dimensions) -> Path:
    (folder / "room.json").write_text(json.dumps({"walls": [{"dimensions": each} for each in dimensions]}))
    return folder


def test_walls_are_held_to_the_truth(tmp_path):
    truth = Truth((2.0, 4.0), 2.5)
    assert wrong_walls(room(tmp_path, [4.1, 2.5, 0], [2.04, 2.52, 0]), truth) == []
    assert wrong_walls(room(tmp_path, [4.2, 2.5, 0], [2.0, 2.6, 0]), truth) == [
        "expected a wall 2.50 m high; got 2.60 m",
        "expected a wall of 4.00 m; got 4.20 m",
    ]
    assert wrong_walls(room(tmp_path, [float("nan"), 2.5, 0], [2.0, 2.5, 0]), truth)
    assert wrong_walls(room(tmp_path), truth) == ["expected 2 walls; got 0"]
    (tmp_path / "room.json").write_text("{}")
    assert "expected the walls of a room; got KeyError" in wrong_walls(tmp_path, truth)[0]


def test_numbers_are_held_to_their_ranges_and_a_stage_that_did_not_run_is_none():
    ranges = {"depth.coverage": (0.2, 1.0), "layout.walls": (3, 40)}
    run = Run("1", "smoke", "1.0", 0.0, "ok", numbers={"depth.coverage": 0.1}, out_of_range=frozenset({"layout"}))
    assert out_of_range(run, ranges) == [
        "expected depth.coverage of 0.2 to 1; got 0.1",
        "expected layout.walls of 3 to 40; got nothing that could be measured",
    ]
    assert out_of_range(Run("1", "smoke", "1.0", 0.0, "ok"), ranges) == []


def test_ranges_are_those_of_the_installed_release_s_manifest(tmp_path):
    place = tmp_path / "1.0" / "env" / "geomagic-release"
    place.mkdir(parents=True)
    stages = [{"name": "depth", "expects": {"coverage": [0.2, None]}}, {"name": "package", "expects": {}}]
    (place / "manifest.json").write_text(json.dumps({"stages": stages}))
    assert ranges_of_release("1.0", tmp_path) == {"depth.coverage": (0.2, float("inf"))}


def test_a_release_that_is_not_installed_here_is_held_to_the_ranges_of_this_checkout(tmp_path):
    from geomagic_dagster.cv.stage import find_stages

    ranges = ranges_of_release("latest", tmp_path)
    assert ranges == ranges_of_stages(find_stages()) and ranges["depth.coverage"] == (0.2, 1.0)


def test_a_smoke_scan_that_got_no_run_is_withdrawn_when_its_default_is_rolled_back(house: House):
    from geomagic_dagster.flighting.promote import make_default

    house.live("1.0")
    house.plans["1.0"] = {"does not load": True}
    make_default(house.routing, "1.0", by="ada", why="approved")
    clock = [time.time()]
    watcher = house.watcher(now=lambda: clock[0])
    watcher.look()
    assert (Path(house.places.inbox) / house.sends[0]).is_dir()
    clock[0] += 30
    watcher.look()
    table = house.routing.read().table
    assert table.default == "latest" and table.is_taken_back("1.0") and not watcher.counts.problem
    assert [path.name for path in Path(house.places.inbox).iterdir() if path.name[0] != "."] == []


def test_a_time_that_is_none_is_none():
    assert seconds_of("2026-01-31T12:00:00.500Z") == 1769860800.5
    assert seconds_of("") is None


def values(found: list[Metric]) -> dict[str, float]:
    return {sample.name: sample.value for family in found for sample in family.samples}


def test_what_the_watcher_says_of_itself_reaches_the_page_for_prometheus(house: House):
    file = house.home / "watcher.json"
    assert list(families(file, 0.0)) == [], "nothing where no watcher ever ran"
    house.live("1.1")
    house.fly("1.1", 50)
    house.watcher().look()
    said = values(list(families(file, time.time() + 10)))
    assert said["geomagic_watcher_age_seconds"] == pytest.approx(10, abs=5)
    assert said["geomagic_watcher_problem"] == said["geomagic_flights_ended_total"] == 0.0
    assert said["geomagic_flight_evidence_ratio"] == 0.01
    file.write_text("{")
    assert list(families(file, 0.0)) == []


def test_watch_once_says_how_the_flights_stand(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOMAGIC_HOME", str(tmp_path))
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setattr("geomagic_dagster.guardrails.logs.log_everything_as_logfmt", lambda: None)
    done = CliRunner().invoke(app, ["watch", "--once"])
    assert done.exit_code == 0 and done.output.splitlines()[-1] == "no flights", done.output
