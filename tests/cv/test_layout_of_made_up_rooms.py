"""Layout held to the truth of furnished made-up rooms, scanned by a phone whose tracking drifts by 1 %."""

from __future__ import annotations

import numpy as np
import pytest

from bench.rooms import run
from geomagic_dagster.scans.made_up import PHONE_DRIFTING


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 6, 11, 23])  # L-shaped; a corner behind a wardrobe; large; oblique behind shelves
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
