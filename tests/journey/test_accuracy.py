"""The whole journey on made-up rooms, held to their exact truth."""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy.spatial import KDTree

from geomagic_dagster.scans.made_up import PHONE, PHONE_DRIFTING, make_room, scan_room
from tests.journey.journeys import journey, points_on

ALL_ROOMS = int(os.environ.get("GEOMAGIC_ROOMS", "0")) >= 10
"""GEOMAGIC_ROOMS=10 holds all of them to it, in a quarter of an hour."""
SAMPLES = 2_000_000
"""Points on the mesh, about 4 mm apart: completeness is then not that of the sampling."""


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
