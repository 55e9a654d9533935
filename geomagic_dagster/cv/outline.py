"""Which walls there are and in which order: the outline, from upright surfaces and from what rays passed through.

Belongs here: from evidence to the walls' order, rough to a few centimetres. Does not belong here: geometry that knows
nothing of rays (plan.py), and where exactly walls are (adjustment.py, layout.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.evidence import Heights, Rays, Surface
from geomagic_dagster.cv.plan import Grid, Lines, Support, find_lines, inside_by_cut, numbered, outline_of

F64 = NDArray[np.float64]

FREE_M = 0.22  # a line is no wall where rays pass this far behind its surface
JOIN_M, JOIN_RAD = 0.15, np.radians(12)  # lines nearer than this are the same wall, seen twice
UNSEEN_M2, BARE_M, HIDDEN_M, COVERED_M = 0.4, 0.6, 0.12, 0.03  # costs in square metres, see plan.inside_by_cut
LEAST_STRETCH_M = 0.2
# How much a surface is a wall: one up to the ceiling, one on the same line, one of furniture's height alone.
TALL_SHARE, WALL_SHARE, LOW_SHARE = 1.0, 0.9, 0.2
GUESSED_SHARE = 0.15  # a wall with less of its length seen is guessed
CLOSED_SHARE = 0.2  # of the outline may be guessed, or it is open
BOUNDED_SHARE = 0.75  # of what was seen must lie inside the walls
END_M = 1.0  # so long a stretch where seeing ended and no wall is known, and it is open


@dataclass(frozen=True, eq=False)
class Outline:
    """n walls in order, counter-clockwise; where open, the last has no neighbour."""

    lines: Lines
    is_closed: bool
    is_guessed_n: NDArray[np.bool_]
    seen_share_n: F64
    ends_m_n2: F64
    """Along each line: from where to where."""


def find_outline(
    surface: Surface,
    rays: Rays,
    heights: Heights,
    warnings: list[str],
    *,
    wall_m2: float,
    band_m: float,
    cell_m: float,
) -> Outline | None:
    """The walls in order, roughly where they are; None where there is no wall, or nothing between walls was seen.

    Args: wall_m2, band_m, cell_m: see LayoutParams.
    """
    z = surface.point_m_p3[:, 2]
    upright = (np.abs(surface.normal_p3[:, 2]) < 0.3) & (z > heights.low_m + 0.1) & (z < heights.high_m + 0.05)
    points = surface.point_m_p3[upright]
    angle_p = np.arctan2(surface.normal_p3[upright, 1], surface.normal_p3[upright, 0])
    if len(points) * surface.m2 < wall_m2:
        warnings.append("No walls were seen: the outline of the room is unknown.")
        return None
    everything = np.concatenate((points[:, :2], rays.eye_m_v3[:, :2]))
    grid = Grid.around(everything, 0.6, cell_m, 700)
    reach_vk = _reach(rays)
    free_yx = _free(grid, rays, reach_vk)

    behind = points[:, :2] - FREE_M * np.stack((np.cos(angle_p), np.sin(angle_p)), axis=1)
    is_free_behind_p = free_yx[grid.pixel(behind)]
    weight_p = surface.m2 * np.where(is_free_behind_p, 0.15, 1.0)
    lines, _ = find_lines(points[:, :2], angle_p, weight_p, band_m=band_m, least_weight=wall_m2)
    if len(lines) == 0:
        warnings.append("No walls were seen: the outline of the room is unknown.")
        return None
    lines = _joined(lines, points, angle_p, band_m)
    lines = lines.take(np.arange(min(len(lines), 40)))
    walls = len(lines)
    frontiers, corners_42 = _frontiers(grid, free_yx, lines)
    lines = lines.joined(frontiers)
    support, tops = _support(points, angle_p, lines, walls, heights)
    if heights.ceiling_m is not None:
        reach_vk = _reach_before_openings(rays, reach_vk, lines, walls, support)
    # what touches the raster's rim is outside: the raster must hold all that was seen in the room's own directions
    grid = Grid.around(np.concatenate((everything, corners_42)), 0.6, cell_m, 700)
    free_yx = _free(grid, rays, reach_vk)
    # where seeing ended is an end of the room only if walls alone do not bound what was seen
    for bounds in (lines.take(np.arange(walls)), lines):
        inside_yx, code_yx = inside_by_cut(
            grid, free_yx, bounds, support, unseen_m2=UNSEEN_M2, bare_m=BARE_M, hidden_m=HIDDEN_M, covered_m=COVERED_M
        )
        inside_yx = _main_part(grid, inside_yx, rays.eye_m_v3[:, :2])
        if (inside_yx & free_yx).sum() > BOUNDED_SHARE * free_yx.sum():
            break
    if not inside_yx.any():
        warnings.append("The walls that were seen do not bound any space that was seen: the outline is unknown.")
        return None
    order = outline_of(grid, inside_yx, code_yx, LEAST_STRETCH_M, lines)
    return _seen_walls(order, lines, walls, tops, warnings)


BEARINGS = 180
_BORDER_K = np.arange(BEARINGS + 1) / BEARINGS * 2 * np.pi - np.pi


def _reach(rays: Rays) -> F64:
    """(v, k): how far each view saw in each bearing, at whatever height; 0 where it did not look."""
    points, view_p = rays.points()
    away = points[:, :2] - rays.eye_m_v3[view_p, :2]
    bearing_p = np.floor((np.arctan2(away[:, 1], away[:, 0]) + np.pi) / (2 * np.pi) * BEARINGS).astype(np.int64)
    key_p, range_p = view_p * BEARINGS + bearing_p % BEARINGS, np.linalg.norm(away, axis=1)
    order = np.lexsort((range_p, key_p))
    every = np.arange(len(rays.eye_m_v3) * BEARINGS)
    first, last = (np.searchsorted(key_p[order], every, side=side) for side in ("left", "right"))
    reach = np.zeros(len(every))
    enough = last - first >= 4
    reach[enough] = range_p[order][last[enough] - 3]  # not the farthest: single pixels fly
    return reach.reshape(-1, BEARINGS)


def _reach_before_openings(rays: Rays, reach_vk: F64, lines: Lines, walls: int, support: Support) -> F64:
    """The same up to where a ray passes beneath a surface that reaches the ceiling: through a door, into a mirror."""
    middle_k = 0.5 * (_BORDER_K[:-1] + _BORDER_K[1:])
    direction_k2 = np.stack((np.cos(middle_k), np.sin(middle_k)), axis=1)
    result = reach_vk.copy()
    for i in range(walls):
        normal, along = lines.normal_n2[i], lines.along_n2[i]
        front_v = rays.eye_m_v3[:, :2] @ normal - lines.offset_m_n[i]
        towards_k = -(direction_k2 @ normal)
        at_vk = front_v[:, None] / np.where(towards_k > 0.05, towards_k, np.inf)
        s_vk = (rays.eye_m_v3[:, :2] @ along)[:, None] + at_vk * (direction_k2 @ along)
        passes = (front_v[:, None] > 0.1) & (towards_k > 0.05) & (at_vk < result)
        is_tall = support.at(np.full(s_vk.shape, i), s_vk) >= TALL_SHARE
        result = np.where(passes & is_tall, at_vk + 0.05, result)
    return result


def _free(grid: Grid, rays: Rays, reach_vk: F64) -> NDArray[np.bool_]:
    """(y, x): where at least two views looked through."""
    import cv2

    a, b = (np.stack((np.cos(t), np.sin(t)), axis=1) for t in (_BORDER_K[:-1], _BORDER_K[1:]))
    count_yx = np.zeros(grid.shape, np.int32)
    for eye, reach_k in zip(rays.eye_m_v3[:, :2], reach_vk, strict=True):
        fan = np.stack((eye + reach_k[:, None] * a, eye + reach_k[:, None] * b), axis=1).reshape(-1, 2)
        mask = np.zeros(grid.shape, np.uint8)
        cv2.fillPoly(mask, [np.rint((fan - grid.origin_2) / grid.cell_m).astype(np.int32)], 1)
        count_yx += mask
    return count_yx >= (2 if len(rays.eye_m_v3) >= 8 else 1)


def _joined(lines: Lines, points: F64, angle_p: F64, band_m: float) -> Lines:
    """Without lines that stand beside a stronger one of the same facing: one wall, seen twice through drift."""
    keep: list[int] = []
    middle_n = [_middle(points, angle_p, lines, i, band_m) for i in range(len(lines))]
    for i in range(len(lines)):  # strongest first
        twin = False
        for j in keep:
            turned = np.abs((lines.angle_rad_n[i] - lines.angle_rad_n[j] + np.pi) % (2 * np.pi) - np.pi)
            middle = middle_n[i]
            if turned > JOIN_RAD or middle is None:
                continue
            twin |= bool(abs(middle @ lines.normal_n2[j] - lines.offset_m_n[j]) < JOIN_M)
        if not twin:
            keep.append(i)
    return lines.take(keep)


def _middle(points: F64, angle_p: F64, lines: Lines, i: int, band_m: float) -> F64 | None:
    """Of the line's surface, (2,)."""
    mine = _on_line(points, angle_p, lines, i, band_m)
    return np.asarray(points[mine, :2].mean(axis=0), np.float64) if mine.any() else None


def _on_line(points: F64, angle_p: F64, lines: Lines, i: int, band_m: float) -> NDArray[np.bool_]:
    turned = np.abs((angle_p - lines.angle_rad_n[i] + np.pi) % (2 * np.pi) - np.pi)
    return (turned < np.radians(25)) & (np.abs(points[:, :2] @ lines.normal_n2[i] - lines.offset_m_n[i]) < band_m)


def _frontiers(grid: Grid, free_yx: NDArray[np.bool_], lines: Lines) -> tuple[Lines, F64]:
    """Where what was seen ends, along the main directions: the outline of a part of a room needs an end.

    And the corners (4, 2) of the rectangle of these directions around all that was seen.
    """
    angles = lines.angle_rad_n[0] + np.arange(4) * np.pi / 2
    places = grid.place(np.argwhere(free_yx).astype(np.float64))
    if len(places) == 0:
        return lines.take(np.zeros(0, np.int64)), np.zeros((0, 2))
    distance_pk = places @ np.stack((np.cos(angles), np.sin(angles)))
    found = Lines(angles, np.quantile(distance_pk, 0.002, axis=0))
    corners_42 = np.array([found.crossing(i - 1, i) for i in range(4)])
    # where a wall already ends it, there is nothing to add
    new = []
    for i in range(4):
        turned = np.abs((lines.angle_rad_n - angles[i] + np.pi) % (2 * np.pi) - np.pi)
        near = np.abs(lines.offset_m_n - found.offset_m_n[i]) < 0.3
        if not ((turned < JOIN_RAD) & near).any():
            new.append(i)
    return found.take(np.array(new, np.int64)), corners_42


def _support(points: F64, angle_p: F64, lines: Lines, walls: int, heights: Heights) -> tuple[Support, Support]:
    """How much each place along each line looks like a wall, and where there is any surface at all."""
    step = 0.06
    reach = float(np.linalg.norm(points[:, :2], axis=1).max()) + 1.0
    bins = int(2 * reach / step) + 1
    share, seen = np.zeros((len(lines), bins)), np.zeros((len(lines), bins))
    tall = heights.high_m - 0.25 if heights.ceiling_m is not None else min(heights.low_m + 1.9, heights.high_m - 0.25)
    for i in range(walls):
        mine = _on_line(points, angle_p, lines, i, JOIN_M)
        k = np.floor((points[mine, :2] @ lines.along_n2[i] + reach) / step).astype(int)
        top = np.full(bins, -np.inf)
        np.maximum.at(top, k, points[mine, 2])
        count = np.bincount(k, minlength=bins)
        known = count >= 2
        is_tall = known & (top > tall)
        is_wall = is_tall.sum() > 0.25 * known.sum()  # in part up to the ceiling: then the rest was only not seen
        value = np.where(is_tall, TALL_SHARE, np.where(known, WALL_SHARE if is_wall else LOW_SHARE, 0.0))
        share[i] = _closed_gaps(value, round(0.25 / step))
        seen[i] = _closed_gaps(known.astype(float), round(0.25 / step))
    return Support(-reach, step, share), Support(-reach, step, seen)


def _closed_gaps(value_k: F64, width: int) -> F64:
    from scipy.ndimage import grey_closing

    return np.asarray(grey_closing(value_k, size=2 * (width // 2) + 1))


def _main_part(grid: Grid, inside_yx: NDArray[np.bool_], eye_m_v2: F64) -> NDArray[np.bool_]:
    """The connected part in which most views were taken, without holes."""
    from scipy.ndimage import binary_fill_holes

    part_yx, count = numbered(inside_yx)
    if count == 0:
        return inside_yx
    at_eye = np.bincount(part_yx[grid.pixel(eye_m_v2)], minlength=count + 1)
    size = np.bincount(part_yx.ravel(), minlength=count + 1)
    at_eye[0] = size[0] = 0
    best = int(np.lexsort((size, at_eye))[-1])
    return np.asarray(binary_fill_holes(part_yx == best))


def _seen_walls(order: list[int], lines: Lines, walls: int, seen: Support, warnings: list[str]) -> Outline | None:
    """Which walls of the closed outline were seen; cut open where too much of it was not."""
    count = len(order)
    if count < 3:
        warnings.append("The walls that were seen do not bound any space that was seen: the outline is unknown.")
        return None
    ring = lines.take(order)
    corners = np.array([ring.crossing(i - 1, i) for i in range(count)])
    ends = np.stack(((corners * ring.along_n2).sum(1), (np.roll(corners, -1, axis=0) * ring.along_n2).sum(1)), axis=1)
    length = ends[:, 1] - ends[:, 0]
    share, surface_ends = np.zeros(count), ends.copy()
    for i, line in enumerate(order):
        s = np.arange(ends[i, 0] + 0.03, ends[i, 1], 0.06)
        if line >= walls or len(s) == 0:
            continue
        there = seen.at(np.full(len(s), line), s) > 0
        share[i] = there.mean()
        if there.any():
            surface_ends[i] = s[there][0] - 0.03, s[there][-1] + 0.03
    is_guessed = share < GUESSED_SHARE
    unseen_m = float((length * (1 - share)).sum())
    if is_guessed.all():
        warnings.append("No walls were seen: the outline of the room is unknown.")
        return None
    is_end = np.array(order) >= walls
    has_long_end = bool((length[is_end] > END_M).any())
    if (unseen_m <= CLOSED_SHARE * length.sum() and not has_long_end) or not is_guessed.any():
        if is_guessed.any():
            warnings.append(f"{is_guessed.sum()} of {count} walls were never seen and are guessed.")
        return Outline(ring, True, is_guessed, share, ends)
    # open: the longest run of unseen walls goes
    start = next(i for i in range(count) if not is_guessed[i])
    turned = [(start + i) % count for i in range(count)]
    runs: list[list[int]] = []
    for i in turned:
        if is_guessed[i]:
            if runs and (runs[-1][-1] + 1) % count == i:
                runs[-1].append(i)
            else:
                runs.append([i])
    gone = max(runs, key=lambda run: sum(length[i] for i in run))
    kept = [(gone[-1] + 1 + i) % count for i in range(count - len(gone))]
    ends = ends[kept]
    ends[0, 0] = max(ends[0, 0], surface_ends[kept[0], 0])  # an open end is where its wall was last seen
    ends[-1, 1] = min(ends[-1, 1], surface_ends[kept[-1], 1])
    warnings.append(
        "Only a part of the room was seen: the outline is open"
        + (f" and {is_guessed[kept].sum()} of {len(kept)} walls are guessed. " if is_guessed[kept].any() else ". ")
        + "Scan the rest of the room for its area."
    )
    return Outline(ring.take(kept), False, is_guessed[kept], share[kept], ends)
