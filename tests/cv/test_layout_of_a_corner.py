"""Layout of scans that cover only a corner of a furnished made-up room: an open outline of what was seen, no more."""

from __future__ import annotations

import numpy as np
import pytest

from bench.rooms import in_truth
from geomagic_dagster.cv.depth import depth
from geomagic_dagster.cv.frames import frames
from geomagic_dagster.cv.layout import layout, measure_layout
from geomagic_dagster.cv.mesh import mesh
from geomagic_dagster.cv.odometry import odometry
from geomagic_dagster.cv.poses import poses
from geomagic_dagster.scans.made_up import PHONE, Truth, make_room, scan_room

SEEN_M = 1.0
"""A wall of which the walk saw so much is to be drawn."""


def seen_along_m(truth: Truth) -> dict[int, tuple[float, float]]:
    """Of each wall that the walk saw: from where to where, along it from its first corner."""
    points = truth.sample_surface(6000)
    found = {}
    for i, wall in enumerate(truth.room.walls):
        start = np.array(wall.start_world_m_2)
        along = (np.array(wall.end_world_m_2) - start) / wall.length_m
        s, off = (points[:, :2] - start) @ along, (points[:, :2] - start) @ np.array([-along[1], along[0]])
        s = s[(np.abs(off) < 1e-6) & (s > 0) & (s < wall.length_m)]
        if len(s) >= 15:
            found[i] = float(s.min()), float(s.max())
    return found


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("seed", "corner"),
    [
        (5, 1),
        (8, 3),  # three walls, one aslant
        *(pytest.param(*each, marks=SLOW) for each in ((0, 0), (1, 1), (7, 3), (11, 3), (16, 0), (17, 3))),
    ],
)
def test_the_outline_is_open_and_its_walls_are_those_that_were_seen(seed: int, corner: int):
    made = scan_room(make_room(seed), PHONE.but(frames=50, size_wh=(240, 180), corner=corner))
    kept = frames(made.scan)
    posed = poses(kept, odometry(made.scan, kept))
    cleaned = depth(kept, posed)
    found = layout(posed, cleaned, mesh(kept, posed, cleaned))

    assert not found.is_closed
    assert any("Only a part of the room was seen" in warning for warning in found.warnings)
    assert not {"area_m2", "volume_m3"} & set(measure_layout(found))
    assert len(found.corners_world_m_n2) == len(found.wall_is_guessed_w) + 1

    walls, seen = made.truth.room.walls, seen_along_m(made.truth)
    corners = in_truth(found.corners_world_m_n2, made.truth, posed)
    drawn = {}
    for i in np.flatnonzero(~found.wall_is_guessed_w):
        middle = 0.5 * (corners[i] + corners[i + 1])
        off = {k: (corners[[i, i + 1]] - wall.start_world_m_2) @ _inward(wall) for k, wall in enumerate(walls)}
        inside = [
            k for k, wall in enumerate(walls) if 0 < (middle - wall.start_world_m_2) @ _along(wall) < wall.length_m
        ]
        k = min(inside, key=lambda k: np.abs(off[k]).max())
        assert np.abs(off[k]).max() < 0.03, f"wall {i} lies on the true wall {k}"
        low, high = sorted((corners[[i, i + 1]] - walls[k].start_world_m_2) @ _along(walls[k]))
        # at its corner a wall runs on behind what stands there
        assert low > seen[k][0] - 0.4 and high < seen[k][1] + 0.4, f"nothing of wall {i} is invented"
        drawn[k] = (low, high)
    assert set(drawn) >= {k for k, (low, high) in seen.items() if high - low > SEEN_M}
    place = made.truth.room.footprint_world_m_n2[corner]
    error_m = np.linalg.norm(corners - place, axis=1)
    assert error_m.min() < 0.03
    assert error_m.min() < 4 * found.corner_sigma_m_n[np.argmin(error_m)]


def _along(wall) -> np.ndarray:
    return np.subtract(wall.end_world_m_2, wall.start_world_m_2) / wall.length_m


def _inward(wall) -> np.ndarray:
    x, y = _along(wall)
    return np.array([-y, x])
