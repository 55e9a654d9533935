"""The floor among the surfaces of a scan: the lowest large level one below the camera.

Belongs here: what the stages that place the camera both need. Does not belong here: the floor's outline, levels and
uncertainty, which are the layout's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


class Floor(NamedTuple):
    z_m: float
    """Middle height of what was seen of it."""
    up_3: F64
    tilt_deg: float
    """Of `up_3` against z."""


def find_floor(
    points_m_p3: F64, normals_p3: F64, area_m2_p: F64, camera_z_m: float, steepest_deg: float
) -> Floor | None:
    """The lowest large level surface below the camera; None where there is none.

    Args:
        points_m_p3, normals_p3: surfaces, z up, normals towards the camera.
        area_m2_p: how much surface each point stands for.
        steepest_deg: a surface tilted less than this may be the floor.
    """
    level_p = (normals_p3[:, 2] > np.cos(np.radians(steepest_deg))) & (points_m_p3[:, 2] < camera_z_m - 0.2)
    if not len(points_m_p3) or area_m2_p[level_p].sum() < 0.01 * area_m2_p.sum():
        return None
    z_p, weight_p = points_m_p3[level_p, 2], area_m2_p[level_p]
    edges_m = np.arange(z_p.min() - 0.05, z_p.max() + 0.07, 0.02)
    mass = np.convolve(np.histogram(z_p, edges_m, weights=weight_p)[0], [0.25, 0.5, 1.0, 0.5, 0.25], mode="same")
    is_peak = (mass >= np.roll(mass, 1)) & (mass >= np.roll(mass, -1)) & (mass > 0.25 * mass.max())
    peak_m = edges_m[np.flatnonzero(is_peak)[0]] + 0.01
    floor_p3 = points_m_p3[level_p & (np.abs(points_m_p3[:, 2] - peak_m) < 0.06)]
    # The plane through the middle of what lies there; twice, the second time without what is not floor.
    for reach_m in (0.06, 0.03):
        design = np.column_stack([floor_p3[:, :2] - floor_p3[:, :2].mean(0), np.ones(len(floor_p3))])
        slope_x, slope_y, height_m = np.linalg.lstsq(design, floor_p3[:, 2], rcond=None)[0]
        off_m = floor_p3[:, 2] - design @ (slope_x, slope_y, height_m)
        floor_p3 = floor_p3[np.abs(off_m - np.median(off_m)) < reach_m]
    up_3 = np.array([-slope_x, -slope_y, 1.0]) / np.sqrt(slope_x**2 + slope_y**2 + 1.0)
    tilt_deg = float(np.degrees(np.arccos(np.clip(up_3[2], -1.0, 1.0))))
    return Floor(z_m=float(np.median(floor_p3[:, 2])), up_3=up_3, tilt_deg=tilt_deg)
