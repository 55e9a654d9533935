"""The made-up room's plan: rectangles and polygons in the plane, and the floor that is free to walk on.

Belongs here: geometry of the floor plan in numpy. Does not belong here: heights, furniture, cameras.
Polygons are (n, 2) metres, counter-clockwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

CELL_M = 0.05
"""Raster of the free floor."""
BODY_M = 0.25
"""Half the width of a person: how near to furniture they walk."""
FROM_WALL_M = 0.35
"""How near to a wall they walk."""


def rectangle_corners(centre_2: F64, size_2: F64, yaw_rad: float) -> F64:
    """Corners (4, 2) of a rectangle, counter-clockwise."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * size_2
    return np.asarray(centre_2) + corners @ np.array([[cos, sin], [-sin, cos]])


def overlap(a_n2: F64, b_n2: F64, margin_m: float = 0.0) -> bool:
    """Do two convex polygons (or segments) come nearer than the margin? (Separating axes.)"""
    for polygon in (a_n2, b_n2):
        edges = np.roll(polygon, -1, axis=0) - polygon
        for x, y in edges:
            axis = np.array([-y, x]) / np.hypot(x, y)
            a, b = a_n2 @ axis, b_n2 @ axis
            if a.min() - b.max() >= margin_m or b.min() - a.max() >= margin_m:
                return False
    return True


def is_inside(points_n2: F64, polygon_k2: F64) -> NDArray[np.bool_]:
    """Which points lie inside a simple polygon (even-odd rule)."""
    x, y = points_n2[..., 0], points_n2[..., 1]
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(polygon_k2, np.roll(polygon_k2, -1, axis=0), strict=True):
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) / (by - ay) * (bx - ax))
    return inside


def fits(rectangle_42: F64, polygon_k2: F64) -> bool:
    """Does a rectangle lie wholly inside a simple polygon?"""
    if not is_inside(rectangle_42, polygon_k2).all():
        return False
    walls = zip(polygon_k2, np.roll(polygon_k2, -1, axis=0), strict=True)
    return not any(overlap(rectangle_42, np.stack(wall)) for wall in walls)


def area_m2(polygon_k2: F64) -> float:
    """Signed area (shoelace); above 0 for a counter-clockwise polygon."""
    following = np.roll(polygon_k2, -1, axis=0)
    return float(0.5 * np.sum(polygon_k2[:, 0] * following[:, 1] - following[:, 0] * polygon_k2[:, 1]))


def distance_to_outline(points_n2: F64, polygon_k2: F64) -> F64:
    """Distance of points to the nearest edge of a polygon."""
    best = np.full(points_n2.shape[:-1], np.inf)
    for start, end in zip(polygon_k2, np.roll(polygon_k2, -1, axis=0), strict=True):
        edge = end - start
        along = np.clip((points_n2 - start) @ edge / (edge @ edge), 0.0, 1.0)
        best = np.minimum(best, np.linalg.norm(points_n2 - start - along[..., None] * edge, axis=-1))
    return best


def sight_m(eye_b2: F64, direction_b2: F64, polygon_k2: F64) -> F64:
    """How far each eye inside a polygon sees in its direction (length 1) before it meets an edge; (b,)."""
    best = np.full(len(eye_b2), np.inf)
    for start, end in zip(polygon_k2, np.roll(polygon_k2, -1, axis=0), strict=True):
        edge, to_start = end - start, start - eye_b2
        turn = direction_b2[:, 0] * edge[1] - direction_b2[:, 1] * edge[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = (to_start[:, 0] * edge[1] - to_start[:, 1] * edge[0]) / turn
            along = (to_start[:, 0] * direction_b2[:, 1] - to_start[:, 1] * direction_b2[:, 0]) / turn
        best = np.where((reach > 0) & (along >= 0) & (along <= 1), np.minimum(best, reach), best)
    return best


def distance_to_rectangle(points_n2: F64, centre_2: F64, size_2: F64, yaw_rad: float) -> F64:
    """Distance of points to a filled rectangle; 0 inside."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    local = (points_n2 - np.asarray(centre_2)) @ np.array([[cos, -sin], [sin, cos]])
    return np.linalg.norm(np.maximum(np.abs(local) - 0.5 * np.asarray(size_2), 0.0), axis=-1)


@dataclass(frozen=True, eq=False)
class FreeFloor:
    """Where a person can stand: a raster over the footprint with the distance to what is in the way."""

    origin_2: F64
    """Centre of cell (0, 0)."""
    clearance_m_yx: F64
    """Distance to the nearest furniture, or to the nearest wall less (FROM_WALL_M - BODY_M); below 0 outside."""

    @classmethod
    def of(cls, footprint_k2: F64) -> FreeFloor:
        """The floor of an empty room."""
        low, high = footprint_k2.min(axis=0), footprint_k2.max(axis=0)
        floor = cls(low + 0.5 * CELL_M, np.zeros(np.ceil((high - low) / CELL_M).astype(int)[::-1]))
        centres = floor.centres_yx2()
        outline = distance_to_outline(centres, footprint_k2) - (FROM_WALL_M - BODY_M)
        return replace(floor, clearance_m_yx=np.where(is_inside(centres, footprint_k2), outline, -1.0))

    def without(self, centre_2: F64, size_2: F64, yaw_rad: float) -> FreeFloor:
        """The same floor with one more rectangle in the way."""
        to_it = distance_to_rectangle(self.centres_yx2(), centre_2, size_2, yaw_rad)
        return replace(self, clearance_m_yx=np.minimum(self.clearance_m_yx, to_it))

    def centres_yx2(self) -> F64:
        rows, columns = self.clearance_m_yx.shape
        x, y = np.meshgrid(np.arange(columns) * CELL_M, np.arange(rows) * CELL_M)
        return np.stack((x, y), axis=-1) + self.origin_2

    def largest_part(self) -> tuple[NDArray[np.bool_], float]:
        """The largest connected part that a person can walk, as a mask, and its share of all that is walkable."""
        from scipy import ndimage

        walkable = self.clearance_m_yx >= BODY_M
        labels = np.zeros(walkable.shape, np.int32)
        if ndimage.label(walkable, output=labels) == 0:
            return walkable, 0.0
        cells = np.bincount(labels.ravel())[1:]
        return labels == 1 + int(np.argmax(cells)), float(cells.max() / cells.sum())
