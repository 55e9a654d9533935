"""Layout held to the truth of furnished made-up rooms, scanned by a phone whose tracking drifts by 1 %."""

from __future__ import annotations

import numpy as np
import pytest

from bench.rooms import run
from geomagic_dagster.scans.made_up import PHONE_DRIFTING


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed",
    [
        1,  # L-shaped
        6,  # a corner behind a wardrobe
        11,  # large
        pytest.param(
            23,  # oblique behind shelves
            marks=pytest.mark.xfail(
                reason="layout finds this wall or not as poses differ by millimetres: found with perfect poses, "
                "with a tenth of the drift, and with the drift left in; not with 4 mm left of it",
                strict=False,
            ),
        ),
    ],
)
def test_walls_height_area_and_openings_are_as_promised(seed):
    room = run(seed, PHONE_DRIFTING.but(frames=100))
    assert room.has_all_walls
    assert 0.0001 < room.literal_error_m_n.mean() <= 0.015 and room.literal_error_m_n.max() <= 0.025
    assert 0.0001 < room.corner_error_m_n.mean() <= 0.006 and room.corner_error_m_n.max() <= 0.012, "of the shape"
    assert abs(room.ceiling_error_m) <= 0.01
    assert abs(room.area_error) <= 0.01
    assert room.found == 2 and room.invented <= 1
    ratio = np.array([abs(error) / sigma for error, sigma in room.calibration["wall"]])
    assert ratio.max() < 6.0, "no wall is farther off than its sigma can explain"
