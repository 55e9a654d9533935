"""From the files of an app that recorded depth and confidence only, 256 x 192, to the room's size."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from geomagic_dagster.cv.plan import area_m2
from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.guardrails.execution import run_stage
from geomagic_dagster.scans.convert import writers
from geomagic_dagster.scans.made_up import PHONE, make_room, scan_room
from geomagic_dagster.scans.reader import read_scan


def edges_m(corners_m_n2: np.ndarray) -> np.ndarray:
    """Lengths of a polygon's edges, turned so that the first is the longest."""
    length = np.linalg.norm(np.roll(corners_m_n2, -1, axis=0) - corners_m_n2, axis=1)
    return np.roll(length, -int(np.argmax(length)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 33, 35, 39])
def test_a_stray_scanner_recording_without_its_video_gives_the_room_to_3_cm(seed: int, tmp_path):
    made = scan_room(make_room(seed), PHONE.but(frames=90, size_wh=(256, 192)))
    depth_only = replace(made.scan, recording=replace(made.scan.recording, rgb=None, K_rgb_b33=None))
    writers()["stray_scanner"](depth_only, tmp_path / "recording")
    assert not (tmp_path / "recording" / "rgb.mp4").exists()
    scan = read_scan(tmp_path / "recording")
    assert scan.recording.rgb is None and scan.recording.depth is not None
    assert scan.recording.depth[0].shape == (192, 256) and scan.recording.depth_confidence is not None

    results: dict[str, Any] = {"scan": scan}
    for stage in find_stages():
        if set(stage.inputs) <= set(results) and stage.name != "package":
            inputs = {name: results[name] for name in stage.inputs}
            results[stage.name] = run_stage(stage, inputs, stage.params(), logging.getLogger("test")).result
    room, found = made.truth.room, results["layout"]

    assert found.is_closed and not found.wall_is_guessed_w.any()
    assert len(found.corners_world_m_n2) == len(room.footprint_world_m_n2)
    np.testing.assert_allclose(edges_m(found.corners_world_m_n2), edges_m(room.footprint_world_m_n2), atol=0.03)
    assert area_m2(found.corners_world_m_n2) == pytest.approx(room.floor_area_m2, rel=0.01)
    assert found.ceiling_z_world_m - found.floor_z_world_m == pytest.approx(room.ceiling_z_m, abs=0.01)

    mesh = results["mesh"]
    vertices = made.truth.to_world(mesh.vertices_world_m_v3, results["poses"].world_T_scan_44)
    error_m = made.truth.surface_distance_m(vertices)
    assert np.median(error_m) < 0.01 and np.quantile(error_m, 0.95) < 0.05
    pieces = results["furniture"]
    large = [piece for piece in room.furniture if np.prod(piece.size_m_3[:2]) > 0.3 and piece.parent is None]
    places = made.truth.to_world(pieces.centre_world_m_k3, results["poses"].world_T_scan_44)[:, :2]
    away_m = [np.linalg.norm(places - piece.centre_world_m_3[:2], axis=1).min() for piece in large]
    assert np.mean(np.array(away_m) < 0.2) >= 0.75, "a box where nearly every large piece stands"
