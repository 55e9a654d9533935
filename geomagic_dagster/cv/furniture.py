"""Furniture as boxes: what stands on the floor, on other things, or hangs on the walls.

Floor, ceiling and walls are taken out of the mesh; what remains falls into parts that hang together. Where parts
touch, level surfaces (seats, tops, mattresses) tell things apart: two that lie side by side are two things, what
rises from the inside of a table's top stands on it, what rises from the edge of a seat is its back. Each thing gets
an upright box. The hidden side of what stands against a wall is the wall.

Belongs here: from surface and layout to boxes. Does not belong here: floor, ceiling and walls themselves (layout.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.stage import Field, Params, minutes, stage
from geomagic_dagster.cv.types import Furniture, Layout, Mesh

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

ON_FLOOR, ON_WALL = -1, -2


class FurnitureParams(Params):
    shell_m: float = Field(0.04, gt=0, le=0.2, description="Surface this near to floor, ceiling or a wall is theirs.")
    smallest_m: float = Field(0.10, gt=0, description="A piece whose two longest edges are below this is left out.")
    thinnest_hung_m: float = Field(0.08, gt=0, description="Flatter things on a wall are pictures, not furniture.")
    largest_m: float = Field(5.0, gt=0, description="A box with a longer edge is no furniture (a tree, a facade).")
    samples_per_m2: float = Field(
        5_000, ge=500, description="Points drawn on the surface; more is slower and no better."
    )


# ... what tells things apart (metres)
TOP_SLOPE = 0.8
"""Least z of the normal of a level surface: 37 degrees, since fusion rounds edges."""
LEAST_TOP_M2 = 0.04
LEAST_TOP_WIDTH_M = 0.22
"""A narrower level strip is an arm, a back or a board, and makes no piece of its own."""
RISE_M = 0.035
"""What ends lower than this above a top is its noise."""
SEAT_M = (0.25, 0.58)
"""Height of what one sits or lies on."""
BACK_M = 0.58
"""How far the back of a seat, or the headboard of a bed, rises above it at most."""
HANGING_M = 0.25
"""A piece whose lowest part is higher above the floor stands on something, hangs, or its legs were not seen."""
HIDDEN_BACK_M = 0.12
"""A piece that ends this near to a wall reaches to it."""
HIDDEN_DEPTH_M = 0.75
"""Depth of what shows nothing but its tall front: how far it may be from front to wall."""
SQUARE_COSTS = 1.15
"""A box is square to the walls if that makes it no larger than this: 1.29 is eight degrees of a square."""
DRIFT_M = 0.09
"""So far before a wall a surface that faces like it is still the wall, or flat on it."""
FOOT_M = 0.20
"""Depth of the foot of what is thin and stands on something; fusion loses a foot of two centimetres."""
TALL_M = 1.25
"""What reaches from low to above this is a thing of its own, whatever level surfaces touch it."""
FIT_TRIM = 0.012
"""Share of the points that may lie outside of a side of a box: what noise and drift put there."""
UNKNOWN_SPREAD_M = 0.02
"""How far walls stray from their planes where no wall tells."""
SIZE_SIGMA_M, HEIGHT_SIGMA_M, PLACE_SIGMA_M = (0.010, 1.8), (0.004, 0.8), (0.013, 0.5)
"""One standard deviation: a constant, and a share of the walls' spread. Fitted on forty made-up rooms so that 95 % of
the errors lie within two; errors have long tails, so that somewhat more than 68 % lie within one."""
BEHIND_M = 0.02
"""Gap between a piece and the wall behind it."""


KIND_RGB = {
    "table": (240, 200, 130), "chair": (170, 205, 240), "sofa": (150, 180, 230), "bed": (205, 185, 235),
    "storage": (200, 215, 165), "television": (150, 150, 160), "object": (225, 225, 225),
}  # fmt: skip
"""Of the picture."""


@stage(
    version="1",
    timeout=minutes(2),
    memory_gb=2,
    expects={"pieces": (1, 80), "floor_covered_m2": (0.1, 200.0), "largest_edge_m": (0.3, 5.0)},
)
def furniture(layout: Layout, mesh: Mesh, params: FurnitureParams = FurnitureParams()) -> Furniture:
    """Boxes of everything in the room that is not the room. Without a floor heights are above the lowest surface."""
    room = _room(layout, mesh, params)
    surface = _without_shell(room, mesh, params)
    if surface is None:
        return _boxes([], room)
    pieces = _told_apart(surface)
    pieces = _put_together(pieces, surface)
    return _boxes(_fitted(pieces, surface, room, params), room, surface.spread_m)


# --- the room's shell, and the surface without it ------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Room:
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
        x, y, z = np.asarray(points_n3, np.float64).T
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


@dataclass(frozen=True, eq=False)
class _Surface:
    """What is left of the mesh: triangles, and points spread evenly over them, in the room's axes."""

    points_n3: F64
    normals_n3: F64
    triangle_n: I64
    """Whose triangle each point is; ascending."""
    vertices_f3: I64
    normals_f3: F64
    centres_f3: F64
    area_f: F64
    point_m2: float
    spread_m: float
    """How far, typically, walls stray from their planes: what drift does to every box, too."""


def _room(layout: Layout, mesh: Mesh, params: FurnitureParams) -> _Room:
    warnings = []
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
    yaw = _dominant_rad(angle_w, weight_w)
    turned = _Room(yaw, floor_z, height, starts_w2, ends_w2, corners_n2 if layout.is_closed else corners_n2[:0], ())

    def plan(points_n2: F64) -> F64:
        return turned.from_world(np.column_stack((points_n2, np.zeros(len(points_n2)))))[:, :2]

    return replace(
        turned,
        starts_w2=plan(starts_w2),
        ends_w2=plan(ends_w2),
        polygon_n2=plan(turned.polygon_n2),
        warnings=tuple(warnings),
    )


def _dominant_rad(angle_n: F64, weight_n: F64) -> float:
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


def _triangles(vertices_v3: F64, triangles_f3: NDArray[np.integer]) -> tuple[F64, F64]:
    """(normals (f, 3) of length 1, areas (f,)); a triangle without area has no normal (0)."""
    a, b, c = (vertices_v3[triangles_f3[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    twice = np.linalg.norm(cross, axis=1)
    return cross / np.maximum(twice, 1e-15)[:, None], 0.5 * twice


def _without_shell(room: _Room, mesh: Mesh, params: FurnitureParams) -> _Surface | None:
    """The surface that is neither floor, ceiling nor wall; None where nothing is left."""
    if len(mesh.triangles_f3) == 0:
        return None
    vertices_v3 = room.from_world(mesh.vertices_world_m_v3)
    triangles_f3 = np.asarray(mesh.triangles_f3, np.int64)
    normals_f3, area_f = _triangles(vertices_v3, triangles_f3)
    is_kept_v = (vertices_v3[:, 2] > params.shell_m) & (vertices_v3[:, 2] < room.height_m - params.shell_m - 0.02)
    centres_f3 = vertices_v3[triangles_f3].mean(1)
    if len(room.polygon_n2):
        is_kept_v &= _is_inside(vertices_v3[:, :2], room.polygon_n2, 0.15)
    is_wall_f = (normals_f3[:, 2] > TOP_SLOPE) & (centres_f3[:, 2] < DRIFT_M)  # the floor, where the scan drifted
    spreads = []
    for wall in range(len(room.starts_w2)):
        tolerance_m, shift_m, spread_m = _wall_spread(room, wall, centres_f3, normals_f3, area_f, params.shell_m)
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
        for group in _connected(triangles_f3, np.flatnonzero(is_facing_f)) if is_facing_f.any() else []:
            is_near = np.abs(off_f[group] - shift_m) < tolerance_m
            if area_f[group[is_near]].sum() > 0.2 * area_f[group].sum():  # else the back of a chair before the wall
                is_wall_f[group] = True
    if not len(room.polygon_n2):
        for axis_2, offset_m in _upright_planes(centres_f3, normals_f3, area_f, room):
            is_kept_v &= np.abs(vertices_v3[:, :2] @ axis_2 - offset_m) > params.shell_m
    is_kept_f = is_kept_v[triangles_f3].all(1) & (area_f > 0) & ~is_wall_f
    if not is_kept_f.any():
        return None
    triangles_f3, normals_f3, area_f = triangles_f3[is_kept_f], normals_f3[is_kept_f], area_f[is_kept_f]
    rng = np.random.default_rng(0)
    exact_f = area_f * params.samples_per_m2
    count_f = np.floor(exact_f + rng.random(len(exact_f))).astype(np.int64)
    triangle_n = np.repeat(np.arange(len(area_f)), count_f)
    u_n2 = rng.random((len(triangle_n), 2))
    folded_n = u_n2.sum(1) > 1
    u_n2[folded_n] = 1 - u_n2[folded_n]
    a, b, c = (vertices_v3[triangles_f3[triangle_n, k]] for k in range(3))
    points_n3 = a + u_n2[:, :1] * (b - a) + u_n2[:, 1:] * (c - a)
    return _Surface(
        points_n3, normals_f3[triangle_n], triangle_n, triangles_f3, normals_f3, vertices_v3[triangles_f3].mean(1),
        area_f, 1.0 / params.samples_per_m2,
        float(np.nanmedian(spreads)) if np.isfinite(spreads).any() else UNKNOWN_SPREAD_M,
    )  # fmt: skip


def _is_inside(points_n2: F64, polygon_k2: F64, margin_m: float) -> Mask:
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


def _wall_spread(
    room: _Room, wall: int, centres_f3: F64, normals_f3: F64, area_f: F64, shell_m: float
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


def _upright_planes(centres_f3: F64, normals_f3: F64, area_f: F64, room: _Room) -> Iterator[tuple[F64, float]]:
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


# --- telling things apart --------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Piece:
    """Triangles of one thing."""

    triangles: I64
    on: _Piece | None = None
    """What it stands on; None: floor or wall."""


@dataclass(frozen=True, eq=False)
class _Top:
    """A level surface and the rectangle around it."""

    triangles: I64
    z_m: float
    area_m2: float
    rectangle: _Rectangle


@dataclass(frozen=True, eq=False)
class _Rectangle:
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


def _connected(vertices_f3: I64, triangles: I64) -> list[I64]:
    """Groups of triangles that share vertices, largest first; among equals the one with the first triangle."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    used, compact = np.unique(vertices_f3[triangles], return_inverse=True)
    compact = compact.reshape(-1, 3)
    start, end = compact[:, [0, 1]].ravel(), compact[:, [1, 2]].ravel()
    graph = coo_matrix((np.ones(len(start), np.int8), (start, end)), shape=(len(used), len(used)))
    count, label_v = connected_components(graph, directed=False)
    label_f = label_v[compact[:, 0]]
    order = np.argsort(label_f, kind="stable")
    groups = np.split(triangles[order], np.cumsum(np.bincount(label_f, minlength=count))[:-1])
    return sorted(groups, key=lambda group: (-len(group), int(group[0])))


def _rectangle(points_n2: F64, trim: float = 0.005, axes_rad: tuple[float, ...] = (0.0,)) -> _Rectangle:
    """The smallest rectangle around all but a share of points, square to an axis where that costs little."""
    from scipy.spatial import ConvexHull, QhullError

    def around(yaw: float) -> _Rectangle:
        cos, sin = np.cos(yaw), np.sin(yaw)
        local = points_n2 @ np.array([[cos, -sin], [sin, cos]])
        low, high = np.quantile(local, trim, axis=0), np.quantile(local, 1 - trim, axis=0)
        middle = 0.5 * (low + high) @ np.array([[cos, sin], [-sin, cos]])
        return _Rectangle(middle, np.maximum(high - low, 1e-3), yaw)

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


class _Points:
    """Points of sets of triangles."""

    def __init__(self, surface: _Surface) -> None:
        self._surface = surface
        self._first_f = np.searchsorted(surface.triangle_n, np.arange(len(surface.area_f) + 1))

    def of(self, triangles: I64) -> I64:
        """Indices of the points of triangles."""
        first, count = self._first_f[triangles], self._first_f[triangles + 1] - self._first_f[triangles]
        if count.sum() == 0:
            return np.zeros(0, np.int64)
        return np.repeat(first - np.concatenate(([0], np.cumsum(count)[:-1])), count) + np.arange(count.sum())


def _told_apart(surface: _Surface) -> list[_Piece]:
    """One piece for each thing as far as level surfaces tell; fragments still on their own."""
    points = _Points(surface)
    pieces: list[_Piece] = []
    for triangles in _connected(surface.vertices_f3, np.arange(len(surface.area_f))):
        if surface.area_f[triangles].sum() < 0.005:
            continue
        pieces += _split(triangles, surface, points)
    return pieces


def _tops(triangles: I64, surface: _Surface, points: _Points, are_strips_wanted: bool = False) -> list[_Top]:
    level = triangles[surface.normals_f3[triangles, 2] > TOP_SLOPE]
    found = []
    groups = _connected(surface.vertices_f3, level) if len(level) else []
    for group in [part for whole in groups for part in _without_necks(whole, surface, points)]:
        area = float(surface.area_f[group].sum())
        at = points.of(group)
        if area < LEAST_TOP_M2 or len(at) < 20:
            continue
        rectangle = _rectangle(surface.points_n3[at, :2], 0.01)
        z = float(np.median(surface.points_n3[at, 2]))
        # width as the square root would have it for a ring, an L or a U: area over length
        width = min(rectangle.size_2.min(), area / rectangle.size_2.max())
        if width >= LEAST_TOP_WIDTH_M or are_strips_wanted:
            found.append(_Top(group, z, area, rectangle))
    return found


def _without_necks(group: I64, surface: _Surface, points: _Points) -> list[I64]:
    """A level surface cut where it is narrow: two tables that nearly touch are one in a drifted scan."""
    from scipy import ndimage

    at = points.of(group)
    if surface.area_f[group].sum() < 4 * LEAST_TOP_M2 or len(at) < 100:
        return [group]
    plan_n2 = surface.points_n3[at, :2]
    rectangle = _rectangle(plan_n2, 0.005)
    if surface.area_f[group].sum() > 0.75 * rectangle.area_m2:
        return [group]
    cell_m = 0.03
    low = plan_n2.min(0) - 2 * cell_m
    cell_n2 = ((plan_n2 - low) / cell_m).astype(np.int64)
    filled = np.zeros(cell_n2.max(0) + 3, bool)
    filled[tuple(cell_n2.T)] = True
    filled = ndimage.binary_fill_holes(ndimage.binary_closing(filled))
    depth_m = ndimage.distance_transform_edt(filled) * cell_m
    for neck_m in (0.06, 0.09, 0.12, 0.15):
        cores, count = ndimage.label(depth_m > neck_m)
        sizes = np.bincount(cores.ravel(), minlength=count + 1)[1:] * cell_m**2
        large = [1 + i for i in range(count) if sizes[i] > 0.06 and depth_m[cores == 1 + i].max() > neck_m + 0.05]
        if len(large) > 1:
            nearest = np.argmin([ndimage.distance_transform_edt(cores != i) for i in large], axis=0)
            centre_g2 = ((surface.centres_f3[group, :2] - low) / cell_m).astype(np.int64)
            centre_g2 = np.clip(centre_g2, 0, np.array(filled.shape) - 1)
            owner_g = nearest[tuple(centre_g2.T)]
            parts = [group[owner_g == i] for i in range(len(large))]
            rectangles = [_rectangle(surface.points_n3[points.of(part), :2], 0.01) for part in parts if len(part) > 3]
            # a table with things on it has necks, too, but its parts fill the same rectangle
            if sum(each.area_m2 for each in rectangles) < 0.82 * rectangle.area_m2 and len(rectangles) == len(parts):
                return parts
    return [group]


def _tall(triangles: I64, surface: _Surface, points: _Points) -> list[_Top]:
    """What stands tall in a connected part (a wardrobe whose top nobody saw), as if it had a top."""
    high = triangles[surface.centres_f3[triangles, 2] > TALL_M]
    found = []
    at_all = surface.points_n3[points.of(triangles)]
    for group in _connected(surface.vertices_f3, high) if len(high) else []:
        at = surface.points_n3[points.of(group)]
        if len(at) < 100 or surface.area_f[group].sum() < 0.1:
            continue
        rectangle = _rectangle(at[:, :2], 0.01)
        around = at_all[rectangle.distance(at_all[:, :2]) < 0.04]
        heights = np.histogram(around[:, 2], np.linspace(0.2, TALL_M, 8))[0]
        if (heights > 0.1 * len(at) / max(np.ptp(at[:, 2]) / 0.15, 1)).sum() >= 6:
            found.append(_Top(group[:0], float(at[:, 2].max()), float(rectangle.area_m2), rectangle))
    return found


def _share_inside(inner: _Rectangle, outer: _Rectangle, margin_m: float = 0.03) -> float:
    """How much of a rectangle lies in another (7 x 7 points)."""
    grid = (np.stack(np.meshgrid(np.arange(7), np.arange(7)), -1).reshape(-1, 2) + 0.5) / 7 - 0.5
    cos, sin = np.cos(inner.yaw_rad), np.sin(inner.yaw_rad)
    at = inner.centre_2 + (grid * inner.size_2) @ np.array([[cos, sin], [-sin, cos]])
    return float((outer.distance(at) < margin_m).mean())


def _gap_m(a: _Rectangle, b: _Rectangle) -> float:
    """Between two rectangles that do not cross; 0 or less where a corner lies in the other."""
    return float(min(a.distance(b.corners_42).min(), b.distance(a.corners_42).min()))


def _is_same(low: _Top, high: _Top) -> bool:
    """Do two level surfaces of one connected part belong to one thing?"""
    inside, around = _share_inside(high.rectangle, low.rectangle), _share_inside(low.rectangle, high.rectangle)
    if len(high.triangles) == 0 or len(low.triangles) == 0:  # something tall, and the shelves in it
        return inside > 0.6 if len(high.triangles) else around > 0.6 or inside > 0.6
    if max(inside, around) > 0.6:  # one above the other: shelves of a case, a pillow on a bed, a step in a cupboard
        return True
    gap = _gap_m(low.rectangle, high.rectangle)
    large, small = sorted((low, high), key=lambda top: -top.area_m2)
    if large.area_m2 > 1.0 and SEAT_M[0] < large.z_m < 0.7 and gap < 0.2 and small.z_m - large.z_m > 0.03:
        # a bed's pillows lie at its end, within its width; what stands beside it is smaller or lower
        local = large.rectangle.local(small.rectangle.corners_42)
        across = int(np.argmin(np.abs(local.mean(0)) / large.rectangle.size_2))
        is_within = np.abs(local[:, across]).max() < 0.5 * large.rectangle.size_2[across] + 0.06
        if small.z_m - large.z_m < 0.2 and small.area_m2 > 0.22 and is_within:
            return True
    if high.z_m - low.z_m < 0.04 and gap < 0.6 and _is_one_rectangle(low, high, 0.5, 0.05):
        return True  # a sideboard, parted by what stands on it
    if gap > 0.08:
        return False
    step = high.z_m - low.z_m
    if step < 0.04:  # cushions side by side: as deep as one another, and a full rectangle together
        return _is_one_rectangle(low, high)
    # the back of a sofa: thin, not much higher than its seat, and along it
    if not (SEAT_M[0] < low.z_m < SEAT_M[1] and step < BACK_M and high.rectangle.size_2.min() < 0.45):
        return False
    longer, shorter = sorted((low.rectangle, high.rectangle), key=lambda each: -each.size_2.max())
    local = longer.local(shorter.corners_42)[:, int(np.argmax(longer.size_2))]
    return bool(np.ptp(local) > 0.55 * longer.size_2.max() and np.abs(local).max() < 0.5 * longer.size_2.max() + 0.08)


def _is_one_rectangle(a: _Top, b: _Top, least_filled: float = 0.8, crooked_m: float = 0.12) -> bool:
    """Are two level surfaces as deep as one another, in one line, and together most of a rectangle?"""
    both = _rectangle(np.concatenate((a.rectangle.corners_42, b.rectangle.corners_42)), 0.0, (a.rectangle.yaw_rad,))
    local_a, local_b = (both.local(each.rectangle.corners_42) for each in (a, b))
    across = int(np.argmin(np.abs(local_a.mean(0) - local_b.mean(0))))
    widths = np.ptp(local_a[:, across]), np.ptp(local_b[:, across])
    is_full = a.rectangle.area_m2 + b.rectangle.area_m2 > least_filled * both.area_m2
    is_straight = abs(local_a.mean(0)[across] - local_b.mean(0)[across]) < crooked_m
    return bool(min(widths) > 0.75 * max(widths) and is_straight and is_full)


def _split(triangles: I64, surface: _Surface, points: _Points) -> list[_Piece]:
    """A connected part as one piece or several, and what stands on them."""
    tops = sorted(_tops(triangles, surface, points), key=lambda top: (top.z_m, int(top.triangles[0])))
    groups: list[list[_Top]] = []
    tall = _tall(triangles, surface, points)
    for top in [*tops, *tall]:
        home = [group for group in groups if any(_is_same(each, top) for each in group)]
        merged = [top, *(each for group in home for each in group)]
        groups = [group for group in groups if group not in home] + [merged]
    if len(groups) <= 1:
        whole = _Piece(triangles)
        return [whole, *_standing_on(whole, tops, surface, points)]
    known = {int(top.triangles[0]) for top in tops}
    for strip in _tops(triangles, surface, points, are_strips_wanted=True):
        if int(strip.triangles[0]) not in known:
            gaps = [min(_gap_m(strip.rectangle, top.rectangle) for top in group) for group in groups]
            nearest = int(np.argmin(gaps))
            if gaps[nearest] < 0.1 and strip.z_m - min(top.z_m for top in groups[nearest]) < BACK_M:
                groups[nearest].append(strip)
    # every triangle goes to the nearest thing, seen from above; under a table's top a seat goes first
    centres = surface.centres_f3[triangles]
    cost = np.empty((len(groups), len(triangles)))
    for g, group in enumerate(groups):
        off = np.min([np.maximum(top.rectangle.distance(centres[:, :2]), 0.0) for top in group], axis=0)
        z = max(top.z_m for top in group)
        rises = np.maximum(centres[:, 2] - z - (BACK_M if z < SEAT_M[1] else 0.4), 0.0)
        cost[g] = off + 0.5 * rises + 1e-3 * np.sqrt(sum(top.area_m2 for top in group))
    owner = np.argmin(cost, axis=0)
    row = {int(t): i for i, t in enumerate(triangles)}
    for g, group in enumerate(groups):
        for top in group:
            owner[[row[int(t)] for t in top.triangles]] = g
    pieces = []
    for g, group in enumerate(groups):
        piece = _Piece(triangles[owner == g])
        pieces += [piece, *_standing_on(piece, [top for top in group if len(top.triangles)], surface, points)]
    return pieces


def _standing_on(piece: _Piece, tops: list[_Top], surface: _Surface, points: _Points) -> list[_Piece]:
    """Takes what rises from the inside of a piece's tops out of it, as pieces of their own."""
    found: list[_Piece] = []
    for top in tops:
        if top.area_m2 < 0.08:
            continue
        is_bed = top.area_m2 > 1.2 and SEAT_M[0] < top.z_m < 0.7
        if is_bed:
            continue
        centres = surface.centres_f3[piece.triangles]
        is_above = centres[:, 2] > top.z_m + RISE_M
        is_top = np.isin(piece.triangles, top.triangles)
        rising = piece.triangles[is_above & ~is_top]
        if len(rising) == 0:
            continue
        taken = []
        for group in _connected(surface.vertices_f3, rising):
            at = surface.points_n3[points.of(group)]
            if len(at) < 15 or surface.area_f[group].sum() < 0.015 or np.quantile(at[:, 2], 0.98) < top.z_m + 0.08:
                continue
            if _rises_from_inside(at, top):
                taken.append(group)
        for group in taken:
            piece.triangles = np.setdiff1d(piece.triangles, group)
            found.append(_Piece(group, on=piece))
    return found


def _rises_from_inside(at_n3: F64, top: _Top) -> bool:
    """Does a part above a level surface stand on it, as a vase does, or belong to it, as a chair's back does?"""
    off = top.rectangle.distance(at_n3[:, :2])
    if (off > 0.03).mean() > 0.25:
        return False
    local = top.rectangle.local(at_n3[:, :2])
    size = np.quantile(local, 0.98, axis=0) - np.quantile(local, 0.02, axis=0)
    share = size / top.rectangle.size_2
    if share.min() > 0.75 or (
        share.max() > 0.85 and share.min() > 0.5
    ):  # the rest of a case above its shelf, the arms and the back of a sofa
        return False
    rise = float(np.quantile(at_n3[:, 2], 0.98)) - top.z_m
    is_at_edge = float(np.median(off)) > -0.12
    is_seat = SEAT_M[0] < top.z_m < SEAT_M[1] and rise < BACK_M
    return not (is_seat and is_at_edge and share.max() > 0.6)


# --- putting fragments together --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Box:
    rectangle: _Rectangle
    bottom_m: float
    top_m: float


def _box(at_n3: F64, axes_rad: tuple[float, ...] = (0.0,)) -> _Box:
    bottom, top = np.quantile(at_n3[:, 2], (0.005, 0.995))
    return _Box(_rectangle(at_n3[:, :2], axes_rad=axes_rad), float(bottom), float(top))


def _put_together(pieces: list[_Piece], surface: _Surface) -> list[_Piece]:
    """Fragments go to the piece they lie in or float beside; what lies on top of another stands on it."""
    points = _Points(surface)
    kept: list[tuple[_Piece, _Box, F64]] = []
    for piece in sorted(
        pieces,
        key=lambda each: (
            -float(surface.area_f[each.triangles].sum()),
            int(each.triangles[0]) if len(each.triangles) else -1,
        ),
    ):
        at = surface.points_n3[points.of(piece.triangles)]
        if len(at) < 10:
            continue
        box = _box(at)
        host, relation = None, ""
        if piece.on is None:
            host, relation = _host(at, box, kept)
        if host is not None and relation == "part":
            kept_at = next(i for i, (each, _, _) in enumerate(kept) if each is host)
            host.triangles = np.concatenate((host.triangles, piece.triangles))
            merged = np.concatenate((kept[kept_at][2], at))
            kept[kept_at] = (host, _box(merged), merged)
            continue
        if host is not None:
            piece.on = host
        kept.append((piece, box, at))
    return _without_gaps([piece for piece, _, _ in kept], surface)


def _without_gaps(pieces: list[_Piece], surface: _Surface) -> list[_Piece]:
    """Joins flat parts in one line that hang side by side (a shelf whose board was not seen) or stand on the same
    thing (a black screen, of which depth sensors see shreds)."""
    points = _Points(surface)
    joined: list[tuple[_Piece, _Box, F64]] = []
    for piece in pieces:
        at = surface.points_n3[points.of(piece.triangles)]
        box = _box(at)
        is_loose = (piece.on is not None or box.bottom_m > 0.8) and not any(each.on is piece for each in pieces)
        for i, (other, other_box, other_at) in enumerate(joined if is_loose else []):
            if other.on is piece.on and (piece.on is not None or other_box.bottom_m > 0.8):
                both = np.concatenate((at, other_at))
                both_box = _box(both)
                if _is_one_flat_thing(box, other_box, both_box, hangs=piece.on is None):
                    joined[i] = (other, both_box, both)
                    other.triangles = np.concatenate((other.triangles, piece.triangles))
                    break
        else:
            joined.append((piece, box, at))
    return [piece for piece, _, _ in joined]


def _is_one_flat_thing(a: _Box, b: _Box, both: _Box, hangs: bool) -> bool:
    thick, long = float(both.rectangle.size_2.min()), float(both.rectangle.size_2.max())
    gap = long - a.rectangle.size_2.max() - b.rectangle.size_2.max()
    if long > 1.4 or gap > 0.45:
        return False
    if hangs:
        return thick < 0.32 and abs(a.bottom_m - b.bottom_m) < 0.08
    thickest = max(a.rectangle.size_2.min(), b.rectangle.size_2.min())
    overlap = min(a.top_m, b.top_m) - max(a.bottom_m, b.bottom_m)
    return bool(thickest < 0.14 and thick < 0.16 and overlap > -0.2)


def _host(at_n3: F64, box: _Box, kept: list[tuple[_Piece, _Box, F64]]) -> tuple[_Piece | None, str]:
    """The larger piece that this one is a part of, or stands on."""
    best: tuple[float, _Piece | None, str] = (np.inf, None, "")
    for piece, other, other_at_n3 in kept:
        off = other.rectangle.distance(at_n3[:, :2])
        is_in_height = (at_n3[:, 2] > other.bottom_m - 0.05) & (at_n3[:, 2] < other.top_m + 0.03)
        inside = float(((off < 0.03) & is_in_height).mean())
        if inside > 0.6:
            best = min(best, (-inside, piece, "part"), key=lambda each: each[0])
            continue
        over = float((off < 0.02).mean())
        if piece.on is None and (_is_back_of(at_n3, box, other) or _is_back_of(other_at_n3, other, box)):
            best = min(best, (-1.0, piece, "part"), key=lambda each: each[0])
            continue
        if over > 0.7 and -0.08 < box.bottom_m - other.top_m < 0.12:
            best = min(best, (-over, piece, "on"), key=lambda each: each[0])
        elif over > 0.7 and other.bottom_m > HANGING_M and box.top_m < other.top_m:  # legs and foot beneath a top
            best = min(best, (-0.5 * over, piece, "part"), key=lambda each: each[0])
        elif len(at_n3) < 200 and float(np.median(off)) < 0.08 and is_in_height.mean() > 0.6:  # a crumb beside it
            best = min(best, (float(np.median(off)), piece, "part"), key=lambda each: each[0])
    return best[1], best[2]


def _is_back_of(at_n3: F64, box: _Box, seat_box: _Box) -> bool:
    """Is this the back of a chair whose slats were too thin to see?"""
    if not SEAT_M[0] < seat_box.top_m or seat_box.rectangle.size_2.max() > 0.75:
        return False
    if seat_box.top_m > 1.1 or not SEAT_M[0] + 0.3 < box.top_m < SEAT_M[1] + BACK_M or box.bottom_m > 0.9:
        return False
    width_m = box.rectangle.size_2.max()
    is_wide = max(0.25, 0.6 * seat_box.rectangle.size_2.min()) < width_m < 0.7
    off_n = seat_box.rectangle.distance(at_n3[:, :2])
    unseen_m = max(0.0, 0.42 - float(seat_box.rectangle.size_2.min()))
    is_beside = float(np.quantile(off_n, 0.9)) < 0.10 + unseen_m and float(np.median(off_n)) > -0.10
    return bool(is_wide and is_beside and box.rectangle.size_2.min() < 0.25)


# --- boxes ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Fitted:
    piece: _Piece
    kind: str
    rectangle: _Rectangle
    bottom_m: float
    top_m: float
    on: _Piece | None
    is_hung: bool
    sigma_2: F64
    """Of width and depth: larger where a side is hidden."""
    seen: float


def _fitted(pieces: list[_Piece], surface: _Surface, room: _Room, params: FurnitureParams) -> list[_Fitted]:
    points = _Points(surface)
    walls_rad = tuple(
        sorted(
            {
                round(float(np.mod(np.arctan2(*(b - a)[::-1]), np.pi / 2)), 3)
                for a, b in zip(room.starts_w2, room.ends_w2, strict=True)
            }
            | {0.0}
        )
    )
    fitted: list[_Fitted] = []
    for piece in pieces:
        index = points.of(piece.triangles)
        at = surface.points_n3[index]
        fit = _fit(piece, at, surface.normals_n3[index], room, walls_rad, surface, params)
        if fit is not None:
            fitted.append(fit)
    kept = {id(each.piece) for each in fitted}
    for each in fitted:
        if each.on is not None and id(each.on) not in kept:
            each.on = None
    return fitted


def _fit(
    piece: _Piece, at_n3: F64, normals_n3: F64, room: _Room, walls_rad: tuple[float, ...], surface: _Surface,
    params: FurnitureParams,
) -> _Fitted | None:  # fmt: skip
    """The box of a piece; None where it is none (too small, too large, flat on a wall, on the ceiling)."""
    rectangle = _rectangle(at_n3[:, :2], FIT_TRIM, walls_rad)
    in_corner_n = (np.abs(rectangle.local(at_n3[:, :2])) > 0.375 * rectangle.size_2).all(1)
    if in_corner_n.mean() < 0.015:  # a round thing has little near its rim's four outermost points: trim less of it
        rectangle = _rectangle(at_n3[:, :2], 0.2 * FIT_TRIM, walls_rad)
    bottom = float(np.quantile(at_n3[:, 2], 0.003))
    level_z = np.sort(at_n3[normals_n3[:, 2] > TOP_SLOPE, 2])
    top = _top_m(at_n3[:, 2], level_z, rectangle.area_m2 / surface.point_m2)
    if room.height_m - top < 0.15 and bottom > 1.6:
        return None  # a lamp on the ceiling
    is_hung = False
    nearest = np.inf
    for wall in range(len(room.starts_w2)):
        along, off, length = room.along_and_off(wall, at_n3[:, :2])
        if np.median(along) > -0.1 and np.median(along) < length + 0.1:
            nearest = min(nearest, float(np.quantile(off, 0.02)))
    lowest = bottom
    if piece.on is None and bottom > HANGING_M:
        is_hung = nearest < 0.15 and not _is_round(rectangle, normals_n3)  # a lamp's shade stands on its pole
    if piece.on is None and not is_hung:
        bottom = 0.0
    if piece.on is None:
        rectangle, hidden = _to_walls(rectangle, at_n3, normals_n3, top - bottom, room, is_hung)
    else:
        hidden = np.zeros(2)
    if not is_hung and piece.on is None and lowest > HANGING_M and _is_round(rectangle, normals_n3):
        rectangle = _around_circle(rectangle, at_n3, normals_n3)
    thinnest = float(rectangle.size_2.min())
    if (
        piece.on is not None
        and thinnest < FOOT_M - 0.03
        and rectangle.size_2.max() > 2 * thinnest
        and top - bottom > 0.3
    ):
        short = int(np.argmin(rectangle.size_2))  # so thin a thing would fall over: the foot it stands on was not seen
        size_2 = rectangle.size_2.copy()
        size_2[short] = FOOT_M
        hidden[short] = 0.1
        rectangle = replace(rectangle, size_2=size_2)
    sizes = np.sort([*rectangle.size_2, top - bottom])
    if sizes[1] < params.smallest_m or sizes[2] > params.largest_m or len(at_n3) * surface.point_m2 < 0.015:
        return None
    if (is_hung and thinnest < params.thinnest_hung_m) or top - bottom < (0.12 if piece.on is None else 0.06):
        return None
    if thinnest < (0.12 if piece.on is None else 0.05):  # what a drifted wall, a curtain or a pole leaves behind
        return None
    kind = _kind(rectangle.size_2, bottom, top, at_n3, normals_n3, piece, is_hung)
    box_m2 = 2 * (top - bottom) * rectangle.size_2.sum() + rectangle.area_m2
    sigma_2 = SIZE_SIGMA_M[0] + SIZE_SIGMA_M[1] * surface.spread_m + 0.1 * hidden
    return _Fitted(
        piece, kind, rectangle, bottom, top, piece.on, is_hung, sigma_2,
        min(1.0, len(at_n3) * surface.point_m2 / box_m2),
    )  # fmt: skip


def _top_m(z_n: F64, level_z_n: F64, plan_n: float) -> float:
    """Height of a piece: of its highest large level surface where next to nothing is above that, else of its rim.

    `plan_n`: so many points a level surface as large as its plan would have.
    """
    rim = float(np.quantile(z_n, 0.998))
    if len(level_z_n) < max(30, 0.15 * plan_n):
        return rim
    counts = np.searchsorted(level_z_n, level_z_n + 0.03) - np.arange(len(level_z_n))
    large = np.flatnonzero(counts > 0.15 * plan_n)
    if len(large) == 0:
        return rim
    start = level_z_n[large[-1]]
    top = float(np.median(level_z_n[(level_z_n >= start) & (level_z_n < start + 0.03)]))
    return top if (z_n > top + 0.03).mean() < 0.08 else rim


def _is_round(rectangle: _Rectangle, normals_n3: F64) -> bool:
    """Do upright surfaces face all ways (a cylinder: 5 of 9 within 45 +- 25 degrees) and not four?"""
    upright = normals_n3[np.abs(normals_n3[:, 2]) < 0.5]
    if len(upright) < 50 or not 0.22 < rectangle.size_2.max() < 0.6:
        return False
    angle = np.mod(np.arctan2(upright[:, 1], upright[:, 0]) - rectangle.yaw_rad, np.pi / 2)
    return bool((np.abs(angle - np.pi / 4) < np.radians(25)).mean() > 0.38)


def _around_circle(rectangle: _Rectangle, at_n3: F64, normals_n3: F64) -> _Rectangle:
    """The square around an upright cylinder of which perhaps only one side was seen: p = c + r n, least squares."""
    is_upright = np.abs(normals_n3[:, 2]) < 0.5
    at, normal = at_n3[is_upright, :2], normals_n3[is_upright, :2]
    normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    middle, facing = at.mean(0), normal.mean(0)
    spread = float(((normal - facing) ** 2).sum())
    radius = float(((at - middle) * (normal - facing)).sum()) / max(spread, 1e-9)
    if not 0.4 * rectangle.size_2.max() < radius < 0.8 * rectangle.size_2.max():
        return rectangle
    return _Rectangle(middle - radius * facing, np.full(2, 2 * radius), rectangle.yaw_rad)


def _to_walls(
    rectangle: _Rectangle, at_n3: F64, normals_n3: F64, height_m: float, room: _Room, is_hung: bool
) -> tuple[_Rectangle, F64]:
    """The rectangle with its hidden side at the wall, and how much of each edge nobody saw."""
    hidden = np.zeros(2)
    for wall in range(len(room.starts_w2)):
        edge = room.ends_w2[wall] - room.starts_w2[wall]
        length = float(np.hypot(*edge))
        inward = np.array([-edge[1], edge[0]]) / length
        axes = np.array(
            [
                [np.cos(rectangle.yaw_rad), np.sin(rectangle.yaw_rad)],
                [-np.sin(rectangle.yaw_rad), np.cos(rectangle.yaw_rad)],
            ]
        )
        across = int(np.argmax(np.abs(axes @ inward)))
        if abs(axes[across] @ inward) < np.cos(np.radians(8)):
            continue
        along, off, _ = room.along_and_off(wall, rectangle.corners_42)
        if along.max() < 0.05 or along.min() > length - 0.05:
            continue
        gap = float(off.min())
        depth, width = float(rectangle.size_2[across]), float(rectangle.size_2[1 - across])
        is_front = depth < 0.3 and width > 0.35 and height_m > 1.0
        reach = HIDDEN_DEPTH_M - depth if is_front else HIDDEN_BACK_M
        back_seen = float((normals_n3[:, :2] @ inward < -0.7).mean())
        if gap > reach or gap <= BEHIND_M or (back_seen > 0.1 and gap > 0.06):
            continue
        grow = gap - BEHIND_M
        size = rectangle.size_2.copy()
        size[across] += grow
        rectangle = _Rectangle(rectangle.centre_2 - 0.5 * grow * inward, size, rectangle.yaw_rad)
        hidden[across] += grow if is_front else 0.5 * grow
    return rectangle, hidden


def _kind(size_2: F64, bottom_m: float, top_m: float, at_n3: F64, normals_n3: F64, piece: _Piece, is_hung: bool) -> str:
    """A class from heights and proportions alone; "object" where these do not tell."""
    length, width, height = float(size_2.max()), float(size_2.min()), top_m - bottom_m
    if piece.on is not None:
        is_screen = length > 0.7 and width < 0.32 and height > 0.35 and length > 1.2 * height
        return "television" if is_screen else "object"
    if is_hung:
        is_screen = length > 0.6 and width < 0.12 and height > 0.35
        return "television" if is_screen else "storage" if width < 0.65 else "object"
    level_z = at_n3[normals_n3[:, 2] > TOP_SLOPE, 2]
    seat_z = level_z[(level_z > SEAT_M[0]) & (level_z < SEAT_M[1])]
    if len(seat_z):
        lies_low = len(seat_z) / len(level_z)
        seat_m = float(np.median(seat_z))
        is_long_sofa = width < 1.0 and length < 2.4 and top_m > 0.7 and _has_back_along(size_2, at_n3, seat_m)
        if (
            length > 1.7
            and width * length > 1.5
            and lies_low > 0.6
            and seat_m > 0.3
            and top_m < 1.3
            and not is_long_sofa
        ):
            return "bed"
        if top_m < 1.1 and lies_low > 0.35 and height > seat_m + 0.15 and length < 0.7:
            return "chair"
        is_seat = lies_low > 0.35 and height > seat_m + 0.15 and top_m < 1.1
        # higher with a plant or a lamp behind it
        is_low_seat = lies_low > 0.5 and length > 1.3 and seat_m > 0.32 and top_m < 1.5
        if 0.6 < width < 1.15 and length >= 0.7 and (is_seat or is_low_seat):
            return "sofa"
    if height > 1.1:
        return "storage" if length > 0.45 else "object"
    upright = float((np.abs(normals_n3[:, 2]) < 0.4).mean())
    if 0.3 < top_m < 1.15 and (level_z > top_m - 0.06).sum() > 0.5 * len(level_z):
        is_desk = width > 0.55 and length > 0.9 and 0.66 < top_m < 0.82
        if is_desk or (upright < 0.42 and width > 0.5):
            return "table"
        return "storage" if length > 0.35 else "object"
    return "storage" if height > 0.4 and length > 0.6 and upright > 0.6 else "object"


def _has_back_along(size_2: F64, at_n3: F64, seat_m: float) -> bool:
    """Does something rise along the long side (a sofa) and not only at the short one (a bed)?"""
    high = at_n3[at_n3[:, 2] > seat_m + 0.15, :2]
    if len(high) < 20:
        return False
    rectangle = _rectangle(high, 0.02)
    return bool(rectangle.size_2.max() > 0.8 * size_2.max())


def measure_furniture(furniture: Furniture) -> dict[str, float]:
    """Numbers of a result; without any piece only their count."""
    numbers = {"pieces": float(len(furniture.kind_k))}
    for name in ("table", "chair", "sofa", "bed", "storage", "television", "object"):
        numbers[f"{name}_pieces"] = float(sum(kind == name for kind in furniture.kind_k))
    if len(furniture.kind_k):
        is_on_floor_k = furniture.stands_on_k == ON_FLOOR
        numbers["on_floor_pieces"] = float(is_on_floor_k.sum())
        numbers["floor_covered_m2"] = float(np.prod(furniture.size_m_k3[is_on_floor_k, :2], axis=1).sum())
        numbers["largest_edge_m"] = float(furniture.size_m_k3.max())
        numbers["size_sigma_median_m"] = float(np.median(furniture.size_sigma_m_k3))
        numbers["confidence_median"] = float(np.median(furniture.confidence_k))
    return numbers


def preview_furniture(furniture: Furniture) -> NDArray[np.uint8]:
    """The boxes from above, (h, w, 3), about 640 pixels wide or high, a grid line a metre, with kinds and sizes."""
    import cv2

    corners_k42 = [
        _Rectangle(centre[:2], size[:2], float(yaw)).corners_42
        for centre, size, yaw in zip(
            furniture.centre_world_m_k3, furniture.size_m_k3, furniture.yaw_world_rad_k, strict=True
        )
    ]
    if not corners_k42:
        picture = np.full((120, 640, 3), 255, np.uint8)
        cv2.putText(
            picture, "no furniture found", (170, 68), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (90, 90, 90), 2, cv2.LINE_AA
        )
        return picture
    # square to what stands there, as on a plan
    yaw = -_dominant_rad(furniture.yaw_world_rad_k, np.prod(furniture.size_m_k3[:, :2], axis=1))
    turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    turned = [each @ turn for each in corners_k42]
    low, high = np.vstack(turned).min(0) - 0.2, np.vstack(turned).max(0) + 0.2
    scale = 640 / float((high - low).max())
    width, height = (round(scale * float(edge)) for edge in high - low)
    picture = np.full((height, width, 3), 255, np.uint8)

    def pixels(points_n2: F64) -> NDArray[np.int32]:
        return np.round((points_n2 - low) * scale * [1, -1] + [0, height - 1]).astype(np.int32)

    for metre in range(int(np.ceil(low[0])), int(high[0]) + 1):
        cv2.line(
            picture, *(tuple(map(int, p)) for p in pixels(np.array([[metre, low[1]], [metre, high[1]]]))), (230,) * 3
        )
    for metre in range(int(np.ceil(low[1])), int(high[1]) + 1):
        cv2.line(
            picture, *(tuple(map(int, p)) for p in pixels(np.array([[low[0], metre], [high[0], metre]]))), (230,) * 3
        )
    top_k = furniture.centre_world_m_k3[:, 2] + 0.5 * furniture.size_m_k3[:, 2]
    for k in np.argsort(top_k, kind="stable"):  # as seen from above
        outline, colour = pixels(turned[k]), KIND_RGB.get(furniture.kind_k[k], KIND_RGB["object"])
        filled = picture.copy()
        cv2.fillPoly(filled, [outline], colour)
        picture = cv2.addWeighted(filled, 0.75, picture, 0.25, 0)
        cv2.polylines(picture, [outline], True, tuple(c // 2 for c in colour), 1, cv2.LINE_AA)
    for k, kind in enumerate(furniture.kind_k):  # words last, above all areas
        edges = furniture.size_m_k3[k]
        lines = [kind, f"{edges[0]:.2f} x {edges[1]:.2f}", f"h {edges[2]:.2f}"]
        if scale * edges[:2].max() < 60:
            lines = [kind] if scale * edges[:2].max() > 30 else []
        middle = pixels(turned[k].mean(0)[None])[0]
        for row, line in enumerate(lines):
            (wide, high_px), _ = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 0.36, 1)
            at = int(middle[0] - wide / 2), int(middle[1] + 13 * (row - (len(lines) - 1) / 2) + high_px / 2)
            cv2.putText(picture, line, at, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (20, 20, 20), 1, cv2.LINE_AA)
    return picture


def _boxes(fitted: list[_Fitted], room: _Room, spread_m: float = UNKNOWN_SPREAD_M) -> Furniture:
    order = sorted(
        fitted, key=lambda each: (each.on is not None, -each.rectangle.area_m2, tuple(each.rectangle.centre_2))
    )
    index = {id(each.piece): i for i, each in enumerate(order)}
    count = len(order)
    centre, size, yaw, stands = (
        np.zeros((count, 3)),
        np.zeros((count, 3)),
        np.zeros(count),
        np.full(count, ON_FLOOR, np.int64),
    )
    size_sigma, centre_sigma = np.zeros((count, 3)), np.zeros((count, 3))
    for i, each in enumerate(order):
        bottom = each.bottom_m
        if each.on is not None:
            stands[i] = index[id(each.on)]
            below = order[int(stands[i])]
            if abs(bottom - below.top_m) < 0.12:
                bottom = min(below.top_m, bottom)
        elif each.is_hung:
            stands[i] = ON_WALL
        centre[i] = [*each.rectangle.centre_2, 0.5 * (bottom + each.top_m)]
        size[i] = [*each.rectangle.size_2, each.top_m - bottom]
        yaw[i] = each.rectangle.yaw_rad + room.world_yaw_rad
        size_sigma[i] = [*each.sigma_2, HEIGHT_SIGMA_M[0] + HEIGHT_SIGMA_M[1] * spread_m]
        centre_sigma[i, :2] = PLACE_SIGMA_M[0] + PLACE_SIGMA_M[1] * spread_m + 0.1 * (each.sigma_2 - each.sigma_2.min())
        centre_sigma[i, 2] = 0.6 * size_sigma[i, 2]
    return Furniture(
        kind_k=tuple(each.kind for each in order),
        centre_world_m_k3=room.to_world(centre),
        size_m_k3=size,
        yaw_world_rad_k=np.mod(yaw + np.pi, 2 * np.pi) - np.pi,
        size_sigma_m_k3=size_sigma,
        centre_sigma_m_k3=centre_sigma,
        confidence_k=np.array([float(np.clip(2.0 * each.seen, 0.1, 1.0)) for each in order]),
        stands_on_k=stands,
        warnings=room.warnings,
    )
