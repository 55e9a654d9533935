"""Chairs of which only the back was seen: at a table, from behind or across it, the seat is hidden.

A thin upright plate of a backrest's width and height that stands or floats freely in the room is the back of a chair:
nothing else does. How deep its seat is nobody saw; chairs differ little.

Belongs here: knowing such a back, and the rectangle of its chair. Does not belong here: chairs whose seat was seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.furniture_parts import SEAT_M, TOP_SLOPE
from geomagic_dagster.cv.plan_boxes import Rectangle, gap_m, rectangle_around

F64 = NDArray[np.float64]

BACK_WIDTH_M, BACK_THICK_M, BACK_TOP_M = (0.30, 0.60), 0.20, (0.72, 1.12)
CHAIR_DEPTH_M = 0.5
"""Of dining and office chairs, back and seat: 0.45 to 0.58 m."""
SHALLOW_M = 0.36
"""A chair that is deeper showed its seat."""
AT_TABLE_M = 0.6
"""So near to its chair's back a table stands."""


@dataclass(frozen=True, eq=False)
class Backrest:
    """A back from above, and to which side of it the seat is as far as its own surface tells (-1, 1; 0 unknown)."""

    plate: Rectangle
    around: Rectangle
    """All that was seen of the chair, in the plate's axes."""
    across_2: F64
    seat_side: int


def backrest(at_n3: F64, normals_n3: F64, axes_rad: tuple[float, ...], point_m2: float) -> Backrest | None:
    """The back that a piece shows and hardly more; None where it is something else."""
    is_high = at_n3[:, 2] > SEAT_M[1]
    if is_high.sum() * point_m2 < 0.06 or is_high.mean() < 0.3:
        return None
    top = float(np.quantile(at_n3[:, 2], 0.998))
    if not BACK_TOP_M[0] < top < BACK_TOP_M[1]:
        return None
    plate = rectangle_around(at_n3[is_high, :2], 0.01, axes_rad)
    thin = int(np.argmin(plate.size_2))
    if plate.size_2[thin] > BACK_THICK_M or not BACK_WIDTH_M[0] < plate.size_2[1 - thin] < BACK_WIDTH_M[1]:
        return None
    is_level = normals_n3[:, 2] > TOP_SLOPE
    if (is_high & is_level).sum() * point_m2 > 0.05:  # a board or a top, not the rim of a back
        return None
    around = rectangle_around(at_n3[:, :2], 0.01, (plate.yaw_rad,))
    if abs(np.sin(2 * (around.yaw_rad - plate.yaw_rad))) > 1e-6:
        return None
    if around.size_2[thin] > SHALLOW_M or around.size_2[1 - thin] > BACK_WIDTH_M[1]:
        return None
    cos, sin = np.cos(plate.yaw_rad), np.sin(plate.yaw_rad)
    across_2 = np.array([[cos, sin], [-sin, cos]])[thin]
    seat_n = is_level & (at_n3[:, 2] > SEAT_M[0]) & (at_n3[:, 2] < SEAT_M[1])
    if seat_n.sum() * point_m2 > 0.01:
        side = int(np.sign(np.median((at_n3[seat_n, :2] - plate.centre_2) @ across_2)))
    else:  # who sees the seat's side of a back sees the seat, but over a table
        facing = float((normals_n3[is_high, :2] @ across_2).mean())
        side = -int(np.sign(facing)) if abs(facing) > 0.1 else 0
    return Backrest(plate, around, across_2, side)


def chair_of(back: Backrest, tables: list[Rectangle]) -> tuple[Rectangle, F64]:
    """The chair's rectangle, and how much of each of its edges nobody saw; at a table it faces the table."""
    side = back.seat_side
    near = [each for each in tables if gap_m(back.plate, each) < AT_TABLE_M]
    if near:
        seat_m = CHAIR_DEPTH_M - float(back.around.size_2.min())
        table = min(near, key=lambda each: abs(gap_m(back.plate, each) - seat_m))  # of two: before which the seat fits
        # towards the table's nearest place, which for a long table is not its middle
        local = table.local(back.plate.centre_2[None])[0]
        nearest = np.clip(local, -0.5 * table.size_2, 0.5 * table.size_2)
        cos, sin = np.cos(table.yaw_rad), np.sin(table.yaw_rad)
        towards_2 = (nearest - local) @ np.array([[cos, sin], [-sin, cos]])
        if abs(towards_2 @ back.across_2) > 0.7 * np.linalg.norm(towards_2):
            side = int(np.sign(towards_2 @ back.across_2))
    thin = int(np.argmin(back.plate.size_2))
    grow = CHAIR_DEPTH_M - float(back.around.size_2[thin])
    size_2, hidden_2 = back.around.size_2.copy(), np.zeros(2)
    size_2[thin], hidden_2[thin] = CHAIR_DEPTH_M, grow
    return Rectangle(back.around.centre_2 + 0.5 * side * grow * back.across_2, size_2, back.around.yaw_rad), hidden_2
