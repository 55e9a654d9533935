"""Rectangles in plan: the smallest around points, how two lie to one another, and the axes of what is built square.

Belongs here: plane geometry of upright boxes. Does not belong here: what a box is (furniture.py, furniture_parts.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

SQUARE_COSTS = 1.15
"""A box is square to the walls if that makes it no larger than this: 1.29 is eight degrees of a square."""


@dataclass(frozen=True, eq=False)
class Rectangle:
    """In plan: centre and edges (metres); yaw of the first edge."""

    centre_2: F64
    size_2: F64
    yaw_rad: float

    def local(self, points_n2: F64) -> F64:
        cos, sin = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        return (points_n2 - self.centre_2) @ np.array([[cos, -sin], [sin, cos]])

    def distance(self, points_n2: F64) -> F64:
        """Of points from the filled rectangle; below 0 inside."""
        over = np.abs(self.local(points_n2)) - 0.5 * self.size_2
        return np.where((over > 0).any(1), np.linalg.norm(np.maximum(over, 0), axis=1), over.max(1))

    @property
    def corners_42(self) -> F64:
        cos, sin = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * self.size_2
        return self.centre_2 + corners @ np.array([[cos, sin], [-sin, cos]])

    @property
    def area_m2(self) -> float:
        return float(np.prod(self.size_2))


def rectangle_around(points_n2: F64, trim: float = 0.005, axes_rad: tuple[float, ...] = (0.0,)) -> Rectangle:
    """The smallest rectangle around all but a share of points, square to an axis where that costs little."""
    from scipy.spatial import ConvexHull, QhullError

    def around(yaw: float) -> Rectangle:
        cos, sin = np.cos(yaw), np.sin(yaw)
        local = points_n2 @ np.array([[cos, -sin], [sin, cos]])
        low, high = np.quantile(local, trim, axis=0), np.quantile(local, 1 - trim, axis=0)
        middle = 0.5 * (low + high) @ np.array([[cos, sin], [-sin, cos]])
        return Rectangle(middle, np.maximum(high - low, 1e-3), yaw)

    square = min((around(yaw) for yaw in axes_rad), key=lambda each: each.area_m2)
    if len(points_n2) < 20:
        return square
    try:
        hull = points_n2[ConvexHull(points_n2).vertices]
    except QhullError:  # all points on one line
        return square
    edges = np.roll(hull, -1, axis=0) - hull
    angles = np.unique(np.round(np.mod(np.arctan2(edges[:, 1], edges[:, 0]), np.pi / 2), 2))
    thin = points_n2[:: max(1, len(points_n2) // 1000)]
    if len(angles) > 45:
        angles = np.linspace(0, np.pi / 2, 45, endpoint=False)

    def area(yaw: float) -> float:
        cos, sin = np.cos(yaw), np.sin(yaw)
        local = thin @ np.array([[cos, -sin], [sin, cos]])
        return float(np.prod(np.quantile(local, 1 - trim, axis=0) - np.quantile(local, trim, axis=0)))

    free = around(float(min(angles, key=area)))
    return square if square.area_m2 < SQUARE_COSTS * free.area_m2 else free


def share_inside(inner: Rectangle, outer: Rectangle, margin_m: float = 0.03) -> float:
    """How much of a rectangle lies in another (7 x 7 points)."""
    grid = (np.stack(np.meshgrid(np.arange(7), np.arange(7)), -1).reshape(-1, 2) + 0.5) / 7 - 0.5
    cos, sin = np.cos(inner.yaw_rad), np.sin(inner.yaw_rad)
    at = inner.centre_2 + (grid * inner.size_2) @ np.array([[cos, sin], [-sin, cos]])
    return float((outer.distance(at) < margin_m).mean())


def gap_m(a: Rectangle, b: Rectangle) -> float:
    """Between two rectangles that do not cross; 0 or less where a corner lies in the other."""
    return float(min(a.distance(b.corners_42).min(), b.distance(a.corners_42).min()))


def is_in_polygon(points_n2: F64, polygon_k2: F64, margin_m: float) -> Mask:
    """Which points lie inside a simple polygon or nearer to it than the margin."""
    x, y = points_n2.T
    inside = np.zeros(len(x), bool)
    near = np.zeros(len(x), bool)
    for (ax, ay), (bx, by) in zip(polygon_k2, np.roll(polygon_k2, -1, axis=0), strict=True):
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) / (by - ay) * (bx - ax))
        share = np.clip(
            ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / max((bx - ax) ** 2 + (by - ay) ** 2, 1e-12), 0, 1
        )
        near |= np.hypot(x - ax - share * (bx - ax), y - ay - share * (by - ay)) < margin_m
    return inside | near


def dominant_rad(angle_n: F64, weight_n: F64) -> float:
    """The direction modulo a quarter turn that most weight is along or across; 0 without any weight."""
    if len(angle_n) == 0 or weight_n.sum() <= 0:
        return 0.0
    bins = np.round(np.mod(angle_n, np.pi / 2) / (np.pi / 180)).astype(np.int64) % 90
    mass = np.bincount(bins, weight_n, 90)
    smooth = sum(np.roll(mass, k) for k in (-2, -1, 0, 1, 2))
    peak = np.argmax(smooth) * np.pi / 180
    off_n = np.mod(angle_n - peak + np.pi / 4, np.pi / 2) - np.pi / 4
    near_n = np.abs(off_n) < np.radians(4)
    return float(peak + np.average(off_n[near_n], weights=weight_n[near_n]) if weight_n[near_n].sum() > 0 else peak)
