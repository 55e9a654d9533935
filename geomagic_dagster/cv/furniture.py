"""Furniture as boxes: what stands on the floor, on other things, or hangs on the walls.

Floor, ceiling and walls are taken out of the mesh; what remains falls into parts that hang together. Where parts
touch, level surfaces (seats, tops, mattresses) tell things apart: two that lie side by side are two things, what
rises from the inside of a table's top stands on it, what rises from the edge of a seat is its back. Each thing gets
an upright box. The hidden side of what stands against a wall is the wall.

Belongs here: from surface and layout to boxes. Does not belong here: floor, ceiling and walls themselves (layout.py);
the mesh without them (furniture_shell.py), its pieces (furniture_parts.py), rectangles (plan_boxes.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.furniture_chairs import Backrest, backrest, chair_of
from geomagic_dagster.cv.furniture_parts import (
    HANGING_M,
    SEAT_M,
    TOP_SLOPE,
    Piece,
    Points,
    Surface,
    put_together,
    told_apart,
)
from geomagic_dagster.cv.furniture_picture import drawn
from geomagic_dagster.cv.furniture_shell import UNKNOWN_SPREAD_M, Room, levelled, room_of, without_shell
from geomagic_dagster.cv.plan_boxes import Rectangle, rectangle_around
from geomagic_dagster.cv.stage import Field, Params, minutes, stage
from geomagic_dagster.cv.types import Furniture, Layout, Mesh

F64 = NDArray[np.float64]

ON_FLOOR, ON_WALL = -1, -2


class FurnitureParams(Params):
    shell_m: float = Field(0.04, gt=0, le=0.2, description="Surface this near to floor, ceiling or a wall is theirs.")
    smallest_m: float = Field(0.10, gt=0, description="A piece whose two longest edges are below this is left out.")
    thinnest_hung_m: float = Field(0.08, gt=0, description="Flatter things on a wall are pictures, not furniture.")
    largest_m: float = Field(5.0, gt=0, description="A box with a longer edge is no furniture (a tree, a facade).")
    samples_per_m2: float = Field(
        5_000, ge=500, description="Points drawn on the surface; more is slower and no better."
    )


HIDDEN_BACK_M = 0.12
"""A piece that ends this near to a wall reaches to it."""
HIDDEN_DEPTH_M = 0.75
"""Depth of what shows nothing but its tall front: how far it may be from front to wall."""
WALL_BEHIND_BACK_M = 0.15
"""A plate nearer to a wall hangs on it and is no chair's back."""
SHARED = 0.25
"""So much of its volume may lie in another box: sides are a few centimetres off."""
PILLAR_M = (2.4, 0.6)
"""What is higher than the first and narrower than the second is built in: a pillar, a pipe."""
FOOT_M = 0.20
"""Depth of the foot of what is thin and stands on something; fusion loses a foot of two centimetres."""
FIT_TRIM = 0.012
"""Share of the points that may lie outside of a side of a box: what noise and drift put there."""
SIZE_SIGMA_M, HEIGHT_SIGMA_M, PLACE_SIGMA_M = (0.010, 1.8), (0.004, 0.8), (0.013, 0.5)
"""One standard deviation: a constant, and a share of the walls' spread. Fitted on forty made-up rooms so that 95 % of
the errors lie within two; errors have long tails, so that somewhat more than 68 % lie within one."""
BEHIND_M = 0.02
"""Gap between a piece and the wall behind it."""


@stage(
    version="1",
    timeout=minutes(2),
    memory_gb=2,
    expects={"pieces": (1, 80), "floor_covered_m2": (0.1, 200.0), "largest_edge_m": (0.3, 5.0)},
)
def furniture(layout: Layout, mesh: Mesh, params: FurnitureParams = FurnitureParams()) -> Furniture:
    """Boxes of everything in the room that is not the room. Without a floor heights are above the lowest surface."""
    warnings: list[str] = []
    mesh = levelled(layout, mesh, warnings)
    room = room_of(layout, mesh, warnings)
    surface = without_shell(room, mesh, params.shell_m, params.samples_per_m2)
    if surface is None:
        return _boxes([], room)
    pieces = told_apart(surface)
    pieces = put_together(pieces, surface)
    return _boxes(_fitted(pieces, surface, room, params), room, surface.spread_m)


# --- boxes ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Fitted:
    piece: Piece
    kind: str
    rectangle: Rectangle
    bottom_m: float
    top_m: float
    on: Piece | None
    is_hung: bool
    sigma_2: F64
    """Of width and depth: larger where a side is hidden."""
    seen: float


def _fitted(pieces: list[Piece], surface: Surface, room: Room, params: FurnitureParams) -> list[_Fitted]:
    points = Points(surface)
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
    backs: list[tuple[Piece, F64, Backrest]] = []
    has_load = {id(piece.on) for piece in pieces}
    for piece in pieces:
        index = points.of(piece.triangles)
        at, normals = surface.points_n3[index], surface.normals_n3[index]
        back = None
        if piece.on is None and id(piece) not in has_load and _nearest_wall_m(at, room) > WALL_BEHIND_BACK_M:
            back = backrest(at, normals, walls_rad, surface.point_m2)
        if back is not None:
            backs.append((piece, at, back))
            continue
        fit = _fit(piece, at, normals, room, walls_rad, surface, params)
        if fit is not None:
            fitted.append(fit)
    tables = [each.rectangle for each in fitted if each.kind == "table"]
    fitted += [_chair(*each, tables, surface) for each in backs]
    fitted = _without_shared_space(fitted, surface)
    kept = {id(each.piece) for each in fitted}
    for each in fitted:
        if each.on is not None and id(each.on) not in kept:
            each.on = None
    return fitted


def _without_shared_space(fitted: list[_Fitted], surface: Surface) -> list[_Fitted]:
    """Two things are never in one place: of two boxes that share space the one of which less was seen goes.

    It is a part of the other that did not hang together with it, or a bridge of noise. What stood on it stands on the
    other, if that is as high, or was a part of it. Under a table there is space.
    """
    kept: list[_Fitted] = []
    place_of: dict[int, _Fitted] = {}  # by what went: the box in whose place it was
    for each in sorted(fitted, key=lambda each: -float(surface.area_f[each.piece.triangles].sum())):
        others = [other for other in kept if "table" not in (each.kind, other.kind)]
        other = next((other for other in others if _shared_share(each, other) > SHARED), None)
        if other is None:
            kept.append(each)
        else:
            place_of[id(each.piece)] = other
    remaining = []
    for each in fitted:
        below = place_of.get(id(each.on))
        if each not in kept or (below is not None and abs(each.bottom_m - below.top_m) > 0.12):
            continue
        if below is not None:
            each.on = below.piece if below is not each else None
        remaining.append(each)
    return remaining


def _shared_share(a: _Fitted, b: _Fitted) -> float:
    """Of the smaller box's volume."""
    import cv2

    height = min(a.top_m, b.top_m) - max(a.bottom_m, b.bottom_m)
    if height <= 0 or np.hypot(*(a.rectangle.centre_2 - b.rectangle.centre_2)) > 5:
        return 0.0
    plan_a, plan_b = ((each.rectangle.corners_42 - a.rectangle.centre_2).astype(np.float32) for each in (a, b))
    volumes = [each.rectangle.area_m2 * (each.top_m - each.bottom_m) for each in (a, b)]
    return float(height * cv2.intersectConvexConvex(plan_a, plan_b)[0] / max(min(volumes), 1e-9))


def _chair(piece: Piece, at_n3: F64, back: Backrest, tables: list[Rectangle], surface: Surface) -> _Fitted:
    """The box of a chair that showed only its back."""
    rectangle, hidden = chair_of(back, tables)
    top = float(np.quantile(at_n3[:, 2], 0.998))
    known = 1.0 - float((hidden / rectangle.size_2).max())
    return _Fitted(
        piece, "chair", rectangle, 0.0, top, None, False, _sigma_2(hidden, surface),
        known * _seen_share(rectangle, top, len(at_n3), surface),
    )  # fmt: skip


def _sigma_2(hidden_2: F64, surface: Surface) -> F64:
    return SIZE_SIGMA_M[0] + SIZE_SIGMA_M[1] * surface.spread_m + 0.1 * hidden_2


def _seen_share(rectangle: Rectangle, height_m: float, points: int, surface: Surface) -> float:
    """Of a box's sides and top."""
    box_m2 = 2 * height_m * float(rectangle.size_2.sum()) + rectangle.area_m2
    return min(1.0, points * surface.point_m2 / box_m2)


def _nearest_wall_m(at_n3: F64, room: Room) -> float:
    """How near a piece comes to the walls before which it stands."""
    nearest = np.inf
    for wall in range(len(room.starts_w2)):
        along, off, length = room.along_and_off(wall, at_n3[:, :2])
        if np.median(along) > -0.1 and np.median(along) < length + 0.1:
            nearest = min(nearest, float(np.quantile(off, 0.02)))
    return nearest


def _fit(
    piece: Piece, at_n3: F64, normals_n3: F64, room: Room, walls_rad: tuple[float, ...], surface: Surface,
    params: FurnitureParams,
) -> _Fitted | None:  # fmt: skip
    """The box of a piece; None where it is none (too small, too large, flat on a wall, on the ceiling)."""
    rectangle = rectangle_around(at_n3[:, :2], FIT_TRIM, walls_rad)
    in_corner_n = (np.abs(rectangle.local(at_n3[:, :2])) > 0.375 * rectangle.size_2).all(1)
    if in_corner_n.mean() < 0.015:  # a round thing has little near its rim's four outermost points: trim less of it
        rectangle = rectangle_around(at_n3[:, :2], 0.2 * FIT_TRIM, walls_rad)
    bottom = float(np.quantile(at_n3[:, 2], 0.003))
    level_z = np.sort(at_n3[normals_n3[:, 2] > TOP_SLOPE, 2])
    top = _top_m(at_n3[:, 2], level_z, rectangle.area_m2 / surface.point_m2)
    if room.height_m - top < 0.15 and bottom > 1.6:
        return None  # a lamp on the ceiling
    if top > PILLAR_M[0] and rectangle.size_2.max() < PILLAR_M[1]:
        return None
    is_hung = False
    lowest = bottom
    if piece.on is None and bottom > HANGING_M:
        is_hung = _nearest_wall_m(at_n3, room) < 0.15 and not _is_round(
            rectangle, normals_n3
        )  # a lamp's shade stands on its pole
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
    return _Fitted(
        piece, kind, rectangle, bottom, top, piece.on, is_hung, _sigma_2(hidden, surface),
        _seen_share(rectangle, top - bottom, len(at_n3), surface),
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


def _is_round(rectangle: Rectangle, normals_n3: F64) -> bool:
    """Do upright surfaces face all ways (a cylinder: 5 of 9 within 45 +- 25 degrees) and not four?"""
    upright = normals_n3[np.abs(normals_n3[:, 2]) < 0.5]
    if len(upright) < 50 or not 0.22 < rectangle.size_2.max() < 0.6:
        return False
    angle = np.mod(np.arctan2(upright[:, 1], upright[:, 0]) - rectangle.yaw_rad, np.pi / 2)
    return bool((np.abs(angle - np.pi / 4) < np.radians(25)).mean() > 0.38)


def _around_circle(rectangle: Rectangle, at_n3: F64, normals_n3: F64) -> Rectangle:
    """The square around an upright cylinder of which perhaps only one side was seen: p = c + r n, least squares."""
    is_upright = np.abs(normals_n3[:, 2]) < 0.5
    at, normal = at_n3[is_upright, :2], normals_n3[is_upright, :2]
    normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    middle, facing = at.mean(0), normal.mean(0)
    spread = float(((normal - facing) ** 2).sum())
    radius = float(((at - middle) * (normal - facing)).sum()) / max(spread, 1e-9)
    if not 0.4 * rectangle.size_2.max() < radius < 0.8 * rectangle.size_2.max():
        return rectangle
    return Rectangle(middle - radius * facing, np.full(2, 2 * radius), rectangle.yaw_rad)


def _to_walls(
    rectangle: Rectangle, at_n3: F64, normals_n3: F64, height_m: float, room: Room, is_hung: bool
) -> tuple[Rectangle, F64]:
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
        rectangle = Rectangle(rectangle.centre_2 - 0.5 * grow * inward, size, rectangle.yaw_rad)
        hidden[across] += grow if is_front else 0.5 * grow
    return rectangle, hidden


def _kind(size_2: F64, bottom_m: float, top_m: float, at_n3: F64, normals_n3: F64, piece: Piece, is_hung: bool) -> str:
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
    rectangle = rectangle_around(high, 0.02)
    return bool(rectangle.size_2.max() > 0.8 * size_2.max())


def _boxes(fitted: list[_Fitted], room: Room, spread_m: float = UNKNOWN_SPREAD_M) -> Furniture:
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


# --- numbers and picture -----------------------------------------------------------------------------------------


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
    """The boxes from above, (h, w, 3), about 640 pixels wide or high."""
    return drawn(furniture)
