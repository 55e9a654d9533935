"""A mesh without its room's shell: floor, ceiling and walls taken out, drifted as they are; points on what remains.

Belongs here: the room's axes, and which surface is the room's own. Does not belong here: finding walls (layout.py);
what the remaining surface is (furniture_parts.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.evidence import levelling, sampled
from geomagic_dagster.cv.furniture_parts import TOP_SLOPE, Surface, connected
from geomagic_dagster.cv.plan_boxes import dominant_rad, is_in_polygon
from geomagic_dagster.cv.types import Layout, Mesh

F64 = NDArray[np.float64]

DRIFT_M = 0.09
"""So far before a wall a surface that faces like it is still the wall, or flat on it."""
UNKNOWN_SPREAD_M = 0.02
"""How far walls stray from their planes where no wall tells."""


@dataclass(frozen=True, eq=False)
class Room:
    """The shell in axes along the walls, floor at z = 0."""

    world_yaw_rad: float
    """Of the room's x axis."""
    floor_z_world_m: float
    height_m: float
    """Of the ceiling; infinite where there is none."""
    starts_w2: F64
    ends_w2: F64
    """Walls; the room is to the left of each."""
    polygon_n2: F64
    """The closed footprint; no rows where it is open."""
    warnings: tuple[str, ...]

    def from_world(self, points_n3: F64) -> F64:
        cos, sin = np.cos(self.world_yaw_rad), np.sin(self.world_yaw_rad)
        x, y, z = points_n3.T
        return np.column_stack((cos * x + sin * y, -sin * x + cos * y, z - self.floor_z_world_m))

    def to_world(self, points_n3: F64) -> F64:
        cos, sin = np.cos(self.world_yaw_rad), np.sin(self.world_yaw_rad)
        x, y, z = points_n3.T
        return np.column_stack((cos * x - sin * y, sin * x + cos * y, z + self.floor_z_world_m))

    def along_and_off(self, wall: int, points_n2: F64) -> tuple[F64, F64, float]:
        """How far along a wall, and how far before it, points are; and the wall's length."""
        edge = self.ends_w2[wall] - self.starts_w2[wall]
        length = float(np.hypot(*edge))
        along_2 = edge / max(length, 1e-9)
        offset_n2 = points_n2 - self.starts_w2[wall]
        return offset_n2 @ along_2, offset_n2 @ np.array([-along_2[1], along_2[0]]), length


FLOOR_BELOW_M = 1.1
"""A floor that is tilted by a few degrees lies within this of the floor's height in the layout."""


def levelled(layout: Layout, mesh: Mesh, warnings: list[str]) -> Mesh:
    """The mesh turned as layout turned it where gravity is off, so that both have the floor level."""
    _, area_f = _triangles(np.asarray(mesh.vertices_world_m_v3, np.float64), mesh.triangles_f3)
    if layout.floor_z_world_m is None or area_f.sum() < 0.1:
        return mesh
    R_33, about_3 = levelling(sampled(mesh), layout.floor_z_world_m + FLOOR_BELOW_M, warnings)
    if np.array_equal(R_33, np.eye(3)):
        return mesh
    vertices_v3 = (mesh.vertices_world_m_v3 - about_3) @ R_33.T + about_3
    return replace(mesh, vertices_world_m_v3=vertices_v3.astype(np.float32))


def room_of(layout: Layout, mesh: Mesh, warnings: list[str]) -> Room:
    """The room of a layout; its axes from the walls, or from upright surfaces where there is no wall."""
    vertices_v3 = np.asarray(mesh.vertices_world_m_v3, np.float64)
    corners_n2 = np.asarray(layout.corners_world_m_n2, np.float64).reshape(-1, 2)
    following_n2 = np.roll(corners_n2, -1, axis=0)
    count = len(corners_n2) if layout.is_closed else max(len(corners_n2) - 1, 0)
    starts_w2, ends_w2 = corners_n2[:count], following_n2[:count]
    is_long_w = np.hypot(*(ends_w2 - starts_w2).T) > 1e-6
    starts_w2, ends_w2 = starts_w2[is_long_w], ends_w2[is_long_w]

    floor_z = layout.floor_z_world_m
    if floor_z is None:
        floor_z = float(np.quantile(vertices_v3[:, 2], 0.01)) if len(vertices_v3) else 0.0
        warnings.append("No floor was seen: heights of furniture are above the lowest surface.")
    ceiling_z = layout.ceiling_z_world_m
    height = float("inf") if ceiling_z is None else ceiling_z - floor_z

    if len(starts_w2):
        edges_w2 = ends_w2 - starts_w2
        angle_w, weight_w = np.arctan2(edges_w2[:, 1], edges_w2[:, 0]), np.hypot(*edges_w2.T)
    else:  # upright surfaces, whatever they are
        normals_f3, area_f = _triangles(vertices_v3, mesh.triangles_f3)
        angle_w, weight_w = np.arctan2(normals_f3[:, 1], normals_f3[:, 0]), area_f * (np.abs(normals_f3[:, 2]) < 0.3)
    yaw = dominant_rad(angle_w, weight_w)
    turned = Room(yaw, floor_z, height, starts_w2, ends_w2, corners_n2 if layout.is_closed else corners_n2[:0], ())

    def plan(points_n2: F64) -> F64:
        return turned.from_world(np.column_stack((points_n2, np.zeros(len(points_n2)))))[:, :2]

    return replace(
        turned,
        starts_w2=plan(starts_w2),
        ends_w2=plan(ends_w2),
        polygon_n2=plan(turned.polygon_n2),
        warnings=tuple(warnings),
    )


def _triangles(vertices_v3: F64, triangles_f3: NDArray[np.integer]) -> tuple[F64, F64]:
    """(normals (f, 3) of length 1, areas (f,)); a triangle without area has no normal (0)."""
    a, b, c = (vertices_v3[triangles_f3[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    twice = np.linalg.norm(cross, axis=1)
    return cross / np.maximum(twice, 1e-15)[:, None], 0.5 * twice


def without_shell(room: Room, mesh: Mesh, shell_m: float, samples_per_m2: float) -> Surface | None:
    """The surface that is neither floor, ceiling nor wall; None where nothing is left."""
    if len(mesh.triangles_f3) == 0:
        return None
    vertices_v3 = room.from_world(np.asarray(mesh.vertices_world_m_v3, np.float64))
    triangles_f3 = np.asarray(mesh.triangles_f3, np.int64)
    normals_f3, area_f = _triangles(vertices_v3, triangles_f3)
    is_kept_v = (vertices_v3[:, 2] > shell_m) & (vertices_v3[:, 2] < room.height_m - shell_m - 0.02)
    centres_f3 = vertices_v3[triangles_f3].mean(1)
    if len(room.polygon_n2):
        is_kept_v &= is_in_polygon(vertices_v3[:, :2], room.polygon_n2, 0.15)
    is_wall_f = (normals_f3[:, 2] > TOP_SLOPE) & (centres_f3[:, 2] < DRIFT_M)  # the floor, where the scan drifted
    spreads = []
    for wall in range(len(room.starts_w2)):
        tolerance_m, shift_m, spread_m = _wall_spread(room, wall, centres_f3, normals_f3, area_f, shell_m)
        spreads.append(spread_m)
        along_v, off_v, length = room.along_and_off(wall, vertices_v3[:, :2])
        is_there_v = (along_v > -0.15) & (along_v < length + 0.15)
        # behind a wall: up to what an opening's recess takes, lest a niche of the next wall is lost
        is_kept_v &= ~(is_there_v & (off_v < shift_m + tolerance_m) & (off_v > -0.3))
        # and what faces the room like the wall, a little before it: the wall where the scan drifted
        along_f, off_f, _ = room.along_and_off(wall, centres_f3[:, :2])
        edge_2 = (room.ends_w2[wall] - room.starts_w2[wall]) / length
        is_facing_f = normals_f3[:, :2] @ np.array([-edge_2[1], edge_2[0]]) > 0.85
        is_facing_f &= (np.abs(off_f - shift_m) < DRIFT_M) & (along_f > -0.1) & (along_f < length + 0.1)
        for group in connected(triangles_f3, np.flatnonzero(is_facing_f)) if is_facing_f.any() else []:
            is_near = np.abs(off_f[group] - shift_m) < tolerance_m
            if area_f[group[is_near]].sum() > 0.2 * area_f[group].sum():  # else the back of a chair before the wall
                is_wall_f[group] = True
    if not len(room.polygon_n2):
        for axis_2, offset_m in _upright_planes(centres_f3, normals_f3, area_f, room):
            is_kept_v &= np.abs(vertices_v3[:, :2] @ axis_2 - offset_m) > shell_m
    is_kept_f = is_kept_v[triangles_f3].all(1) & (area_f > 0) & ~is_wall_f
    if not is_kept_f.any():
        return None
    triangles_f3, normals_f3, area_f = triangles_f3[is_kept_f], normals_f3[is_kept_f], area_f[is_kept_f]
    rng = np.random.default_rng(0)
    exact_f = area_f * samples_per_m2
    count_f = np.floor(exact_f + rng.random(len(exact_f))).astype(np.int64)
    triangle_n = np.repeat(np.arange(len(area_f)), count_f)
    u_n2 = rng.random((len(triangle_n), 2))
    folded_n = u_n2.sum(1) > 1
    u_n2[folded_n] = 1 - u_n2[folded_n]
    a, b, c = (vertices_v3[triangles_f3[triangle_n, k]] for k in range(3))
    points_n3 = a + u_n2[:, :1] * (b - a) + u_n2[:, 1:] * (c - a)
    return Surface(
        points_n3, normals_f3[triangle_n], triangle_n, triangles_f3, normals_f3, vertices_v3[triangles_f3].mean(1),
        area_f, 1.0 / samples_per_m2,
        float(np.nanmedian(spreads)) if np.isfinite(spreads).any() else UNKNOWN_SPREAD_M,
    )  # fmt: skip


def _wall_spread(
    room: Room, wall: int, centres_f3: F64, normals_f3: F64, area_f: F64, shell_m: float
) -> tuple[float, float, float]:
    """(tolerance, shift, spread) in metres: how thick the wall is, and how far it stands from where layout has it."""
    edge = room.ends_w2[wall] - room.starts_w2[wall]
    inward_2 = np.array([-edge[1], edge[0]]) / np.hypot(*edge)
    along_f, off_f, length = room.along_and_off(wall, centres_f3[:, :2])
    is_its_f = (normals_f3[:, :2] @ inward_2 > 0.85) & (np.abs(off_f) < 0.15) & (along_f > 0) & (along_f < length)
    if area_f[is_its_f].sum() < 0.3:
        return shell_m, 0.0, float("nan")
    off, weight = off_f[is_its_f], area_f[is_its_f]
    for reach in (0.15, 0.08):
        order = np.argsort(off)
        middle = float(off[order][np.searchsorted(np.cumsum(weight[order]), 0.5 * weight.sum())])
        near = np.abs(off - middle) < reach
        off, weight = off[near], weight[near]
    spread = float(np.sqrt(np.average((off - middle) ** 2, weights=weight)))
    return float(np.clip(1.5 * spread, shell_m, 1.4 * shell_m)), middle, spread


def _upright_planes(centres_f3: F64, normals_f3: F64, area_f: F64, room: Room) -> Iterator[tuple[F64, float]]:
    """Planes along the room's axes that are walls although layout closed no footprint: large, and reaching higher
    than furniture does."""
    reach_m = min(room.height_m - 0.2, 2.25)
    for axis_2 in (np.array([1.0, 0.0]), np.array([0.0, 1.0])):
        is_across_f = np.abs(normals_f3[:, :2] @ axis_2) > 0.9
        offset_f = centres_f3[is_across_f, :2] @ axis_2
        if len(offset_f) == 0:
            continue
        low = offset_f.min()
        bins = np.round((offset_f - low) / 0.02).astype(np.int64)
        mass = np.bincount(bins, area_f[is_across_f])
        high = np.bincount(bins, area_f[is_across_f] * (centres_f3[is_across_f, 2] > reach_m), len(mass))
        for at in np.flatnonzero(
            (np.convolve(mass, np.ones(3), "same") > 1.0) & (np.convolve(high, np.ones(3), "same") > 0.1)
        ):
            yield axis_2, float(low + 0.02 * at)
