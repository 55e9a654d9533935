"""The surface of what stands in a room, in pieces: told apart by level surfaces, fragments put together again.

Belongs here: which triangles are one thing, and which thing stands on which. Does not belong here: the room's shell
(furniture_shell.py), the box and the kind of a piece (furniture.py), rectangles as such (plan_boxes.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.plan_boxes import Rectangle, gap_m, rectangle_around, share_inside

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

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
COMPACT_M = (0.09, 0.40)
"""Narrowest and widest side of a vase or a carton, from above."""
TALL_M = 1.25
"""What reaches from low to above this is a thing of its own, whatever level surfaces touch it."""


# --- surface and pieces ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Surface:
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


class Points:
    """Points of sets of triangles."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface
        self._first_f = np.searchsorted(surface.triangle_n, np.arange(len(surface.area_f) + 1))

    def of(self, triangles: I64) -> I64:
        """Indices of the points of triangles."""
        first, count = self._first_f[triangles], self._first_f[triangles + 1] - self._first_f[triangles]
        if count.sum() == 0:
            return np.zeros(0, np.int64)
        return np.repeat(first - np.concatenate(([0], np.cumsum(count)[:-1])), count) + np.arange(count.sum())


def connected(vertices_f3: I64, triangles: I64) -> list[I64]:
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


@dataclass(eq=False)
class Piece:
    """Triangles of one thing."""

    triangles: I64
    on: Piece | None = None
    """What it stands on; None: floor or wall."""


@dataclass(frozen=True, eq=False)
class _Top:
    """A level surface and the rectangle around it."""

    triangles: I64
    z_m: float
    area_m2: float
    rectangle: Rectangle


# --- telling things apart --------------------------------------------------------------------------------------


def told_apart(surface: Surface) -> list[Piece]:
    """One piece for each thing as far as level surfaces tell; fragments still on their own."""
    points = Points(surface)
    pieces: list[Piece] = []
    for triangles in connected(surface.vertices_f3, np.arange(len(surface.area_f))):
        if surface.area_f[triangles].sum() < 0.005:
            continue
        pieces += _split(triangles, surface, points)
    return pieces


def _tops(triangles: I64, surface: Surface, points: Points, are_strips_wanted: bool = False) -> list[_Top]:
    level = triangles[surface.normals_f3[triangles, 2] > TOP_SLOPE]
    found = []
    groups = connected(surface.vertices_f3, level) if len(level) else []
    for group in [part for whole in groups for part in _without_necks(whole, surface, points)]:
        area = float(surface.area_f[group].sum())
        at = points.of(group)
        if area < LEAST_TOP_M2 or len(at) < 20:
            continue
        rectangle = rectangle_around(surface.points_n3[at, :2], 0.01)
        z = float(np.median(surface.points_n3[at, 2]))
        # width as the square root would have it for a ring, an L or a U: area over length
        width = min(rectangle.size_2.min(), area / rectangle.size_2.max())
        if width >= LEAST_TOP_WIDTH_M or are_strips_wanted:
            found.append(_Top(group, z, area, rectangle))
    return found


def _without_necks(group: I64, surface: Surface, points: Points) -> list[I64]:
    """A level surface cut where it is narrow: two tables that nearly touch are one in a drifted scan."""
    from scipy import ndimage

    at = points.of(group)
    if surface.area_f[group].sum() < 4 * LEAST_TOP_M2 or len(at) < 100:
        return [group]
    plan_n2 = surface.points_n3[at, :2]
    rectangle = rectangle_around(plan_n2, 0.005)
    if surface.area_f[group].sum() > 0.75 * rectangle.area_m2:
        return [group]
    cell_m = 0.03
    low = plan_n2.min(0) - 2 * cell_m
    cell_n2 = ((plan_n2 - low) / cell_m).astype(np.int64)
    filled = np.zeros(cell_n2.max(0) + 3, bool)
    filled[tuple(cell_n2.T)] = True
    filled = np.asarray(ndimage.binary_fill_holes(ndimage.binary_closing(filled)), bool)
    depth_m = np.asarray(ndimage.distance_transform_edt(filled), np.float64) * cell_m
    for neck_m in (0.06, 0.09, 0.12, 0.15):
        cores, count = cast(tuple[NDArray[np.int32], int], ndimage.label(depth_m > neck_m))
        sizes = np.bincount(cores.ravel(), minlength=count + 1)[1:] * cell_m**2
        large = [1 + i for i in range(count) if sizes[i] > 0.06 and depth_m[cores == 1 + i].max() > neck_m + 0.05]
        if len(large) > 1:
            nearest = np.argmin(
                [np.asarray(ndimage.distance_transform_edt(cores != i), np.float64) for i in large], axis=0
            )
            centre_g2 = ((surface.centres_f3[group, :2] - low) / cell_m).astype(np.int64)
            centre_g2 = np.clip(centre_g2, 0, np.array(filled.shape) - 1)
            owner_g = nearest[tuple(centre_g2.T)]
            parts = [group[owner_g == i] for i in range(len(large))]
            rectangles = [
                rectangle_around(surface.points_n3[points.of(part), :2], 0.01) for part in parts if len(part) > 3
            ]
            # a table with things on it has necks, too, but its parts fill the same rectangle
            if sum(each.area_m2 for each in rectangles) < 0.82 * rectangle.area_m2 and len(rectangles) == len(parts):
                return parts
    return [group]


def _tall(triangles: I64, surface: Surface, points: Points) -> list[_Top]:
    """What stands tall in a connected part (a wardrobe whose top nobody saw), as if it had a top."""
    high = triangles[surface.centres_f3[triangles, 2] > TALL_M]
    found = []
    at_all = surface.points_n3[points.of(triangles)]
    for group in connected(surface.vertices_f3, high) if len(high) else []:
        at = surface.points_n3[points.of(group)]
        if len(at) < 100 or surface.area_f[group].sum() < 0.1:
            continue
        rectangle = rectangle_around(at[:, :2], 0.01)
        around = at_all[rectangle.distance(at_all[:, :2]) < 0.04]
        heights = np.histogram(around[:, 2], np.linspace(0.2, TALL_M, 8))[0]
        if (heights > 0.1 * len(at) / max(np.ptp(at[:, 2]) / 0.15, 1)).sum() >= 6:
            found.append(_Top(group[:0], float(at[:, 2].max()), float(rectangle.area_m2), rectangle))
    return found


def _is_same(low: _Top, high: _Top) -> bool:
    """Do two level surfaces of one connected part belong to one thing?"""
    inside, around = share_inside(high.rectangle, low.rectangle), share_inside(low.rectangle, high.rectangle)
    if len(high.triangles) == 0 or len(low.triangles) == 0:  # something tall, and the shelves in it
        return inside > 0.6 if len(high.triangles) else around > 0.6 or inside > 0.6
    if max(inside, around) > 0.6:  # one above the other: shelves of a case, a pillow on a bed, a step in a cupboard
        return True
    gap = gap_m(low.rectangle, high.rectangle)
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
    both = rectangle_around(
        np.concatenate((a.rectangle.corners_42, b.rectangle.corners_42)), 0.0, (a.rectangle.yaw_rad,)
    )
    local_a, local_b = (both.local(each.rectangle.corners_42) for each in (a, b))
    across = int(np.argmin(np.abs(local_a.mean(0) - local_b.mean(0))))
    widths = np.ptp(local_a[:, across]), np.ptp(local_b[:, across])
    is_full = a.rectangle.area_m2 + b.rectangle.area_m2 > least_filled * both.area_m2
    is_straight = abs(local_a.mean(0)[across] - local_b.mean(0)[across]) < crooked_m
    return bool(min(widths) > 0.75 * max(widths) and is_straight and is_full)


def _split(triangles: I64, surface: Surface, points: Points) -> list[Piece]:
    """A connected part as one piece or several, and what stands on them."""
    tops = sorted(_tops(triangles, surface, points), key=lambda top: (top.z_m, int(top.triangles[0])))
    groups: list[list[_Top]] = []
    tall = _tall(triangles, surface, points)
    for top in [*tops, *tall]:
        home = [group for group in groups if any(_is_same(each, top) for each in group)]
        merged = [top, *(each for group in home for each in group)]
        groups = [group for group in groups if group not in home] + [merged]
    if len(groups) <= 1:
        whole = Piece(triangles)
        return [whole, *_standing_on(whole, tops, surface, points)]
    known = {int(top.triangles[0]) for top in tops}
    for strip in _tops(triangles, surface, points, are_strips_wanted=True):
        if int(strip.triangles[0]) not in known:
            gaps = [min(gap_m(strip.rectangle, top.rectangle) for top in group) for group in groups]
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
        piece = Piece(triangles[owner == g])
        pieces += [piece, *_standing_on(piece, [top for top in group if len(top.triangles)], surface, points)]
    return pieces


def _standing_on(piece: Piece, tops: list[_Top], surface: Surface, points: Points) -> list[Piece]:
    """Takes what rises from the inside of a piece's tops out of it, as pieces of their own."""
    found: list[Piece] = []
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
        for group in connected(surface.vertices_f3, rising):
            at = surface.points_n3[points.of(group)]
            if len(at) < 15 or surface.area_f[group].sum() < 0.015 or np.quantile(at[:, 2], 0.98) < top.z_m + 0.08:
                continue
            if _rises_from_inside(at, top):
                taken.append(group)
        for group in taken:
            piece.triangles = np.setdiff1d(piece.triangles, group)
            found.append(Piece(group, on=piece))
    return found


def _rises_from_inside(at_n3: F64, top: _Top) -> bool:
    """Does a part above a level surface stand on it, as a vase does, or belong to it, as a chair's back does?"""
    off = top.rectangle.distance(at_n3[:, :2])
    local = top.rectangle.local(at_n3[:, :2])
    size = np.quantile(local, 0.98, axis=0) - np.quantile(local, 0.02, axis=0)
    share = size / top.rectangle.size_2
    is_compact = COMPACT_M[0] < size.min() and size.max() < min(COMPACT_M[1], 1.6 * size.min())
    if is_compact and (off < 0.03).mean() > 0.5 and share.max() < 0.75:
        return True  # no back is as thick as it is wide; what it stands on was perhaps seen only before it
    if (off > 0.03).mean() > 0.25:
        return False
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
    rectangle: Rectangle
    bottom_m: float
    top_m: float


def _box(at_n3: F64, axes_rad: tuple[float, ...] = (0.0,)) -> _Box:
    bottom, top = np.quantile(at_n3[:, 2], (0.005, 0.995))
    return _Box(rectangle_around(at_n3[:, :2], axes_rad=axes_rad), float(bottom), float(top))


def put_together(pieces: list[Piece], surface: Surface) -> list[Piece]:
    """Fragments go to the piece they lie in or float beside; what lies on top of another stands on it."""
    points = Points(surface)
    kept: list[tuple[Piece, _Box, F64]] = []
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


def _without_gaps(pieces: list[Piece], surface: Surface) -> list[Piece]:
    """Joins flat parts in one line that hang side by side (a shelf whose board was not seen) or stand on the same
    thing (a black screen, of which depth sensors see shreds)."""
    points = Points(surface)
    joined: list[tuple[Piece, _Box, F64]] = []
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


def _host(at_n3: F64, box: _Box, kept: list[tuple[Piece, _Box, F64]]) -> tuple[Piece | None, str]:
    """The larger piece that this one is a part of, or stands on."""
    hosts: list[tuple[float, Piece, str]] = []
    for piece, other, other_at_n3 in kept:
        off = other.rectangle.distance(at_n3[:, :2])
        is_in_height = (at_n3[:, 2] > other.bottom_m - 0.05) & (at_n3[:, 2] < other.top_m + 0.03)
        inside = float(((off < 0.03) & is_in_height).mean())
        if inside > 0.6:
            hosts.append((-inside, piece, "part"))
            continue
        over = float((off < 0.02).mean())
        if piece.on is None and (_is_back_of(at_n3, box, other) or _is_back_of(other_at_n3, other, box)):
            hosts.append((-1.0, piece, "part"))
            continue
        if over > 0.7 and -0.08 < box.bottom_m - other.top_m < 0.12:
            hosts.append((-over, piece, "on"))
        elif over > 0.7 and other.bottom_m > HANGING_M and box.top_m < other.top_m:  # legs and foot beneath a top
            hosts.append((-0.5 * over, piece, "part"))
        elif len(at_n3) < 200 and float(np.median(off)) < 0.08 and is_in_height.mean() > 0.6:  # a crumb beside it
            hosts.append((float(np.median(off)), piece, "part"))
    if not hosts:
        return None, ""
    _, host, relation = min(hosts, key=lambda each: each[0])
    return host, relation


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
