"""Doors, windows and passages: every wall looked at through all rays that reach it.

A wall's raster holds, cell by cell, how far behind the wall its surface lies, and where nothing came back. What
lies behind is a door's leaf, a recess, another room; what gives no depth and is framed by a recess is glass.

Belongs here: openings of walls that are known. Does not belong here: which walls there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.adjustment import Adjusted
from geomagic_dagster.cv.evidence import Heights, Rays
from geomagic_dagster.cv.plan import numbered

F64 = NDArray[np.float64]
Kind = Literal["door", "window", "passage", "niche"]


@dataclass(frozen=True)
class Opening:
    """A rectangle of a wall; lengths along it from its start, heights above the floor."""

    kind: Kind
    wall: int
    start_m: float
    width_m: float
    sill_m: float
    height_m: float
    confidence: float


OPENING_CELL_M = 0.03


def find_openings(
    start_m_n2: F64, end_m_n2: F64, fitted: Adjusted, rays: Rays, heights: Heights, *, least_m2: float, recess_m: float
) -> list[Opening]:
    """Openings and niches of n walls, each from its start to its end with the room to its left.

    Args: recess_m: a surface this far behind its wall belongs to an opening.
    """
    eye_v2 = fitted.eye_m_v2 + fitted.shift_m_v2
    turn_r = fitted.turn_rad_v[rays.view_r]
    direction = rays.direction_r3.copy()
    direction[:, 0] -= turn_r * rays.direction_r3[:, 1]
    direction[:, 1] += turn_r * rays.direction_r3[:, 0]
    found: list[Opening] = []
    for wall, (start, end) in enumerate(zip(start_m_n2, end_m_n2, strict=True)):
        found += _openings_of(wall, start, end, eye_v2, direction, rays, heights, least_m2, recess_m)
    return found


def _openings_of(
    wall: int,
    start: F64,
    end: F64,
    eye_v2: F64,
    direction: F64,
    rays: Rays,
    heights: Heights,
    least_m2: float,
    recess_m: float,
) -> list[Opening]:
    """Openings of one wall, from a raster over it: how far behind it its surface lies, and where no depth came back."""
    from scipy.ndimage import uniform_filter

    length, tall = float(np.linalg.norm(end - start)), heights.high_m - heights.low_m
    along = (end - start) / max(length, 1e-9)
    inward = np.array([-along[1], along[0]])
    shape = (max(1, round(tall / OPENING_CELL_M)), max(1, round(length / OPENING_CELL_M)))
    towards_r = -(direction[:, :2] @ inward)
    from_wall_v = (eye_v2 - start) @ inward
    away_r = from_wall_v[rays.view_r]
    steep_r = towards_r / np.linalg.norm(direction, axis=1)
    at_r = away_r / np.maximum(towards_r, 1e-9)
    chosen = np.flatnonzero((steep_r > 0.3) & (away_r > 0.2) & (at_r < 4.8))
    eye = eye_v2[rays.view_r[chosen]]
    cross = eye + at_r[chosen, None] * direction[chosen, :2]
    height = rays.eye_m_v3[rays.view_r[chosen], 2] + at_r[chosen] * direction[chosen, 2] - heights.low_m
    row = np.floor(height / OPENING_CELL_M).astype(int)
    column = np.floor(((cross - start) @ along) / OPENING_CELL_M).astype(int)
    ok = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    chosen, cell = chosen[ok], row[ok] * shape[1] + column[ok]
    depth_r = rays.depth_m_r[chosen]
    behind_r = (depth_r - at_r[chosen]) * towards_r[chosen]

    def total(which: NDArray[np.bool_], value: F64 | None = None) -> F64:
        weights = None if value is None else value[which]
        counts = np.bincount(cell[which], weights, minlength=shape[0] * shape[1]).reshape(shape)
        return np.asarray(uniform_filter(counts.astype(float), 3, mode="nearest"))

    none, reached = depth_r <= 0, (depth_r > 0) & (behind_r > -0.04)
    through = reached & (behind_r > 0.30)
    none_yx, reached_yx, through_yx = total(none), total(reached), total(through)
    known = none_yx + reached_yx
    mean_behind = total(reached, np.clip(behind_r, -0.1, 0.15)) / np.maximum(reached_yx, 1e-9)
    is_known = known > 0.3
    is_wall = is_known & (reached_yx > 0.2)
    flush = is_wall & (np.abs(mean_behind) < 0.04)
    if not flush.any():
        return []
    mean_behind -= np.median(mean_behind[flush])
    is_recessed = is_wall & (mean_behind > recess_m)
    is_empty = is_known & (none_yx > 0.6 * known)
    is_hole = _opened(is_recessed | _framed(_opened(is_empty), is_recessed, is_known))
    part_yx, count = numbered(is_hole)
    found = []
    for part in range(1, count + 1):
        mine = part_yx == part
        box = _recessed_box(mine & is_recessed)
        if box is None:
            continue
        low, high = box[0].start * OPENING_CELL_M, box[0].stop * OPENING_CELL_M
        left, right = box[1].start * OPENING_CELL_M, box[1].stop * OPENING_CELL_M
        width, rise = right - left, high - low
        filled = float(mine[box].mean())
        if width < 0.4 or rise < 0.4 or width * rise < least_m2 or filled < 0.55:
            continue
        is_through = through_yx[box].sum() > 0.5 * reached_yx[box].sum()
        kind: Kind = "window"
        if low < 0.3 and rise > 1.6:
            low, rise = 0.0, high
            kind = "passage" if is_through else "door"
        elif low < 0.3:
            kind = "niche"
        elif 1.7 < high < 2.4 and 0.6 < width < 1.4 and is_empty[box].mean() < 0.3 and _is_hidden_below(box, is_known):
            low, rise, kind = 0.0, high, "door"  # its lower part stands behind furniture
        confidence = float(np.clip(filled * min(1.0, float(np.mean(known[box] > 0.3)) * 1.1), 0, 1))
        found.append(Opening(kind, wall, left, width, low, rise, confidence))
    return found


def _recessed_box(recessed: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Rows and columns of what lies behind the wall in one part: glass is framed by it, a screen beside it is not."""
    from scipy.ndimage import binary_closing

    closed = np.asarray(binary_closing(np.pad(recessed, 2), np.ones((3, 3))), np.bool_)[2:-2, 2:-2]
    part_yx, count = numbered(closed)
    if count == 0:
        return None
    size = np.bincount(part_yx.ravel())
    size[0] = 0
    row, column = np.nonzero(np.isin(part_yx, np.flatnonzero(size > 0.15 * size.sum())))
    if len(row) == 0:
        return None
    low, high = (np.quantile(row, q, method="nearest") for q in (0.01, 0.99))
    left, right = (np.quantile(column, q, method="nearest") for q in (0.01, 0.99))
    return slice(int(low), int(high) + 1), slice(int(left), int(right) + 1)


def _is_hidden_below(box: tuple[slice, slice], is_known: NDArray[np.bool_]) -> bool:
    return bool(is_known[: box[0].start, box[1]].mean() < 0.4)


def _opened(mask_yx: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without gaps below 15 cm and without what is narrower than 20."""
    from scipy.ndimage import binary_closing, binary_opening

    closed = binary_closing(np.pad(mask_yx, 4), np.ones((5, 5)))
    return np.asarray(binary_opening(closed, np.ones((7, 7))), np.bool_)[4:-4, 4:-4]


def _framed(
    is_empty: NDArray[np.bool_], is_recessed: NDArray[np.bool_], is_known: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Parts without depth that have a recessed frame: glass. A black screen before the wall has none."""
    part_yx, count = numbered(is_empty)
    framed = [_rim_share(part_yx == part, is_recessed, is_known) > 0.25 for part in range(1, count + 1)]
    return np.array([False, *framed], np.bool_)[part_yx]


def _rim_share(mine: NDArray[np.bool_], is_recessed: NDArray[np.bool_], is_known: NDArray[np.bool_]) -> float:
    """How much of what surrounds a part lies behind the wall."""
    from scipy.ndimage import binary_dilation

    rim = np.asarray(binary_dilation(mine, iterations=2), np.bool_) & ~mine & is_known
    return float(is_recessed[rim].mean()) if rim.any() else 0.0
