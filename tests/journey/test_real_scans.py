"""The whole journey on the real scans, each made once, held to what was measured."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Furniture, Mesh
from geomagic_dagster.scans.reader import read_scan
from tests.journey.journeys import journey, points_on


@cache
def journey_of(path: Path) -> dict[str, Any]:
    return journey(read_scan(path))


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
    results = journey_of(real_scans / "hololens_office_kitchen")
    floor_m = results["poses"].floor_z_world_m
    assert floor_m == pytest.approx(-1.53, abs=0.02)
    assert height_of_level(results["mesh"], -0.2, 0.2, floor_m) == pytest.approx(0.0, abs=0.02)
    assert height_of_level(results["mesh"], 0.5, 1.0, floor_m) == pytest.approx(0.76, abs=0.03)
    manifest = json.loads(results["package"].files["manifest.json"])
    assert manifest["scan"]["name"] == "hololens_office_kitchen"


@pytest.mark.slow
def test_the_cabinet_stands_on_a_floor_at_zero(real_scans):
    results = journey_of(real_scans / "tum_fr3_cabinet")
    assert results["poses"].floor_z_world_m == pytest.approx(0.0, abs=0.01)
    # Its depth itself lies 2 cm low where the floor is far; the fused surface follows it.
    assert height_of_level(results["mesh"], -0.2, 0.2, 0.0) == pytest.approx(0.0, abs=0.02)


def test_the_flat_without_depth_is_told_apart_not_guessed(real_scans):
    with pytest.raises(ScanRejected, match="no depth and no metric scale"):
        journey(read_scan(Path(real_scans) / "studio_bedroom_rgb"))


@pytest.mark.slow
def test_tables_of_an_office_kitchen_are_76_cm_high(real_scans):
    results = journey_of(real_scans / "hololens_office_kitchen")
    result: Furniture = results["furniture"]
    top = result.centre_world_m_k3[:, 2] + 0.5 * result.size_m_k3[:, 2] - results["layout"].floor_z_world_m
    tables = [k for k, kind in enumerate(result.kind_k) if kind == "table"]
    assert len(tables) == 2
    np.testing.assert_allclose(top[tables], 0.76, atol=0.03)
    lengths = sorted(float(result.size_m_k3[k, :2].max()) for k in tables)
    assert lengths[0] == pytest.approx(1.0, abs=0.1)  # the round one
    assert lengths[1] == pytest.approx(3.0, abs=0.15)


@pytest.mark.slow
def test_the_cabinet_of_tum_has_its_height(real_scans):
    results = journey_of(real_scans / "tum_fr3_cabinet")
    result: Furniture = results["furniture"]
    # the camera walks around it; whatever else there is stands metres behind
    middle = np.median(results["poses"].world_T_cam_b44[:, :2, 3], axis=0)
    near = [k for k in range(len(result.kind_k)) if np.hypot(*(result.centre_world_m_k3[k, :2] - middle)) < 1.5]
    assert [result.kind_k[k] for k in near] == ["storage"]
    box = result.centre_world_m_k3[near[0]], result.size_m_k3[near[0]]
    vertices = results["mesh"].vertices_world_m_v3
    is_inner = (np.abs(vertices[:, :2] - box[0][:2]) < 0.15).all(1)  # its top, from the fused depth
    top = float(np.median(vertices[is_inner, 2])) - results["layout"].floor_z_world_m
    assert box[1][2] == pytest.approx(top, abs=0.03)
    assert 0.5 < top < 0.6
