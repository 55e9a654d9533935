"""The whole journey on made-up rooms, held to their exact truth, and on the real scans, held to what was measured."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial import KDTree

from geomagic_dagster.cv.stage import ScanRejected, find_stages
from geomagic_dagster.cv.types import Mesh, Scan
from geomagic_dagster.guardrails.execution import run_stage
from geomagic_dagster.scans.made_up import PHONE, PHONE_DRIFTING, make_room, scan_room

ALL_ROOMS = int(os.environ.get("GEOMAGIC_ROOMS", "0")) >= 10
"""GEOMAGIC_ROOMS=10 holds all of them to it, in a quarter of an hour."""
SAMPLES = 2_000_000
"""Points on the mesh, about 4 mm apart: completeness is then not that of the sampling."""


def journey(scan: Scan) -> dict[str, Any]:
    """Every stage with its default settings; the result of each by its name."""
    results: dict[str, Any] = {"scan": scan}
    for stage in find_stages():
        inputs = {name: results[name] for name in stage.inputs}
        results[stage.name] = run_stage(stage, inputs, stage.params(), logging.getLogger("journey")).result
    return results


def points_on(mesh: Mesh, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, 3) points evenly over the mesh's area, and the normals (count, 3) of their triangles."""
    a, b, c = (mesh.vertices_world_m_v3[mesh.triangles_f3[:, i]].astype(np.float64) for i in range(3))
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1)
    rng = np.random.default_rng(0)
    face = rng.choice(len(area), count, p=area / area.sum())
    u, v = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    return (1 - u) * a[face] + u * (1 - v) * b[face] + u * v * c[face], cross[face] / area[face, None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "phone"),
    [*((seed, PHONE) for seed in range(10)), *((seed, PHONE_DRIFTING) for seed in (0, 3, 4, 9))]
    if ALL_ROOMS
    else [(1, PHONE), (3, PHONE_DRIFTING), (4, PHONE_DRIFTING)],  # each takes most of a minute
)
def test_the_mesh_of_a_phone_scan_is_within_8_mm_and_covers_90_per_cent_of_what_was_seen(seed, phone):
    made = scan_room(make_room(seed), phone)
    results = journey(made.scan)
    mesh, truth = results["mesh"], made.truth
    points, normals = points_on(mesh, SAMPLES)
    points = truth.to_world(points, results["poses"].world_T_scan_44)
    accuracy_m = truth.surface_distance_m(points[:100_000])
    assert 0.001 < accuracy_m.mean() <= 0.008, "under a millimetre would be no phone's noise"
    assert np.quantile(accuracy_m, 0.95) < 0.03
    seen = truth.sample_surface(30_000)
    completeness = (KDTree(points).query(seen)[0] < 0.02).mean()
    assert 0.90 <= completeness <= 1.0
    on_floor = np.abs(points[:, 2] - truth.room.floor_z_m) < 0.02
    assert normals[on_floor, 2].mean() > 0.9, "the floor faces up"
    assert 10_000 < len(mesh.triangles_f3) <= 100_000
    kept, blurred = results["frames"], set(np.flatnonzero(truth.is_blurred_b))
    dropped_as_blurred = {frame for frame, reason in kept.dropped if reason.startswith("blurred")}
    assert dropped_as_blurred <= blurred, "no sharp frame is called blurred"
    assert len(dropped_as_blurred) >= 0.4 * len(blurred), "of which some are hardly blurred"


def height_of_level(mesh: Mesh, low_m: float, high_m: float, floor_m: float) -> float:
    """Height above the floor, between two heights, at which most surface faces up."""
    points, normals = points_on(mesh, 200_000)
    height = points[normals[:, 2] > 0.95, 2] - floor_m
    height = height[(height > low_m) & (height < high_m)]
    counts, edges = np.histogram(height, np.arange(low_m, high_m, 0.01))
    at = edges[np.argmax(counts)]
    return float(np.median(height[np.abs(height - at - 0.005) < 0.03]))


@pytest.mark.slow
def test_the_office_kitchen_has_its_floor_and_its_long_table_where_they_were_measured(real_scans):
    from geomagic_dagster.scans.reader import read_scan

    results = journey(read_scan(real_scans / "hololens_office_kitchen"))
    floor_m = results["poses"].floor_z_world_m
    assert floor_m == pytest.approx(-1.53, abs=0.02)
    assert height_of_level(results["mesh"], -0.2, 0.2, floor_m) == pytest.approx(0.0, abs=0.02)
    assert height_of_level(results["mesh"], 0.5, 1.0, floor_m) == pytest.approx(0.76, abs=0.03)
    manifest = json.loads(results["package"].files["manifest.json"])
    assert manifest["scan"]["name"] == "hololens_office_kitchen"


@pytest.mark.slow
def test_the_cabinet_stands_on_a_floor_at_zero(real_scans):
    from geomagic_dagster.scans.reader import read_scan

    results = journey(read_scan(real_scans / "tum_fr3_cabinet"))
    assert results["poses"].floor_z_world_m == pytest.approx(0.0, abs=0.01)
    # Its depth itself lies 2 cm low where the floor is far; the fused surface follows it.
    assert height_of_level(results["mesh"], -0.2, 0.2, 0.0) == pytest.approx(0.0, abs=0.02)


def test_the_flat_without_depth_is_told_apart_not_guessed(real_scans):
    from geomagic_dagster.scans.reader import read_scan

    with pytest.raises(ScanRejected, match="no depth and no metric scale"):
        journey(read_scan(Path(real_scans) / "studio_bedroom_rgb"))
