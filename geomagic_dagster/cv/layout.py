"""Floor, ceiling, walls and openings: the room as a drawing has it, from surfaces and from what rays passed through.

What rays passed through, at any height, is room: a ray over a sofa shows that the floor behind it is room, and
the wall behind it is found above it. Upright surfaces give lines, the lines cut the plan into cells, and the
cells that are room are chosen together (plan.py). Then walls and drift are fitted together (adjustment.py), and
every wall is looked at through all rays that reach it: where they pass through or come back from nowhere, it is open.

Belongs here: what is floor, ceiling, wall or opening. Does not belong here: furniture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.adjustment import Adjusted, adjust_walls, without_place
from geomagic_dagster.cv.evidence import Heights, Rays, Surface, find_heights, levelling, one_storey, rays_of, sampled
from geomagic_dagster.cv.openings import Opening, find_openings
from geomagic_dagster.cv.plan import Grid, Lines, Support, area_m2, find_lines, inside_by_cut, numbered, outline_of
from geomagic_dagster.cv.stage import Field, Params, ScanRejected, minutes, stage
from geomagic_dagster.cv.types import DepthMaps, Layout, Mesh, Poses

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

FREE_M = 0.22  # a line is no wall where rays pass this far behind its surface
JOIN_M, JOIN_RAD = 0.15, np.radians(12)  # lines nearer than this are the same wall, seen twice
UNSEEN_M2, BARE_M, HIDDEN_M, COVERED_M = 0.4, 0.6, 0.12, 0.03  # costs in square metres, see plan.inside_by_cut
LEAST_STRETCH_M = 0.2
# How much a surface is a wall: one up to the ceiling, one on the same line, one of furniture's height alone.
TALL_SHARE, WALL_SHARE, LOW_SHARE = 1.0, 0.9, 0.2
BARE_M_ABOVE = 2.12  # the floor: over doors and nearly all furniture
GUESSED_SHARE = 0.15  # a wall with less of its length seen is guessed
CLOSED_SHARE = 0.2  # of the outline may be guessed, or it is open
BOUNDED_SHARE = 0.75  # of what was seen must lie inside the walls
END_M = 1.0  # so long a stretch where seeing ended and no wall is known, and it is open
WALL_SIGMA_FLOOR_M = 0.001
# What the adjustment's own covariance is multiplied with: its noise model leaves out what is not flat, not upright
# and not independent. Measured on made-up rooms: bench/rooms.py.
STEADY_SCALE, DRIFTING_SCALE, DRIFTING_M = 0.6, 0.95, 0.03


class LayoutParams(Params):
    wall_m2: float = Field(0.35, gt=0, description="Least surface of a wall.")
    band_m: float = Field(0.08, gt=0, le=0.3, description="Half the thickness in which surface belongs to one line.")
    cell_m: float = Field(0.03, gt=0, le=0.2, description="Raster of the plan; larger where the place is very large.")
    snap_deg: float = Field(2.5, ge=0, lt=10, description="Walls this near to a right angle are set to it. 0: never.")
    opening_m2: float = Field(0.3, gt=0, description="Least area of a door or window.")
    recess_m: float = Field(0.02, gt=0, description="A surface this far behind its wall belongs to an opening.")


@stage(
    version="1",
    timeout=minutes(4),
    memory_gb=3,
    expects={
        "area_m2": (2.0, 500.0),
        "ceiling_height_m": (1.8, 6.0),
        "walls": (3, 40),
        "guessed_walls": (0, 2),
        "wall_sigma_worst_m": (0.0, 0.05),
    },
)
def layout(poses: Poses, depth: DepthMaps, mesh: Mesh, params: LayoutParams = LayoutParams()) -> Layout:
    """The room's outline, heights and openings, each with its uncertainty.

    Raises: ScanRejected where there is no surface, or neither a floor nor a wall.
    """
    warnings: list[str] = []
    surface = sampled(mesh)
    rays = rays_of(poses, depth)
    surface, rays = one_storey(surface, rays, warnings)
    below_eyes_m = float(np.median(rays.eye_m_v3[:, 2])) - 0.4
    levelled_R_world_33, about_3 = levelling(surface, below_eyes_m, warnings)
    surface, rays = surface.turned(levelled_R_world_33, about_3), rays.turned(levelled_R_world_33, about_3)
    heights = find_heights(surface, rays, warnings)
    outline = _outline(surface, rays, heights, params, warnings)
    if outline is None:
        return _floor_only(surface, heights, warnings)
    fitted, snapped = _fitted(outline, rays, heights, params)
    openings = [each for each in _openings(outline, fitted, rays, heights, params) if each.kind != "niche"]
    return _layout(outline, fitted, heights, openings, snapped, warnings)


def measure_layout(layout: Layout) -> dict[str, float]:
    """What is known of the room in metres and square metres; what is unknown is left out."""
    numbers: dict[str, float] = {
        "walls": len(layout.wall_is_guessed_w),
        "guessed_walls": int(layout.wall_is_guessed_w.sum()),
        "is_closed": float(layout.is_closed),
        "openings": len(layout.opening_kind_k),
        "floor_levels": len(layout.floor_levels_world_m_l),
        "warnings": len(layout.warnings),
    }
    if len(layout.wall_is_guessed_w):
        ends = np.roll(layout.corners_world_m_n2, -1, axis=0)[: len(layout.wall_is_guessed_w)]
        length_m_w = np.linalg.norm(ends - layout.corners_world_m_n2[: len(ends)], axis=1)
        numbers["perimeter_m"] = float(length_m_w.sum())
        numbers["wall_sigma_worst_m"] = float(layout.wall_sigma_m_w.max())
        numbers["wall_confidence_mean"] = float(layout.wall_confidence_w.mean())
    if layout.is_closed:
        numbers["area_m2"] = area_m2(layout.corners_world_m_n2)
        numbers["area_sigma_m2"] = layout.area_sigma_m2
    if layout.floor_z_world_m is not None:
        numbers["floor_z_world_m"] = layout.floor_z_world_m
        if layout.ceiling_z_world_m is not None:
            numbers["ceiling_height_m"] = layout.ceiling_z_world_m - layout.floor_z_world_m
            if layout.is_closed:
                numbers["volume_m3"] = numbers["area_m2"] * numbers["ceiling_height_m"]
    return numbers


def preview_layout(layout: Layout) -> NDArray[np.uint8]:
    """The plan: walls black, guessed ones dashed grey, doors and passages brown, windows blue, lengths in metres."""
    import cv2

    size = 640
    picture = np.full((size, size, 3), 252, np.uint8)
    corners = layout.corners_world_m_n2
    if len(corners) < 2:
        cv2.putText(picture, "no walls seen", (220, 320), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (90, 90, 90), 1, cv2.LINE_AA)
        return picture
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = (size - 150) / max(float((high - low).max()), 0.5)
    shift = 0.5 * (low + high)

    def pixel(point: F64) -> tuple[int, int]:
        x, y = (point - shift) * scale
        return round(size / 2 + float(x)), round(size / 2 - float(y))

    ends = np.roll(corners, -1, axis=0)[: len(layout.wall_is_guessed_w)]
    if layout.is_closed:
        cv2.fillPoly(picture, [np.array([pixel(c) for c in corners], np.int32)], (240, 236, 228))
    for i, (start, end) in enumerate(zip(corners, ends, strict=False)):
        length = float(np.linalg.norm(end - start))
        along = (end - start) / max(length, 1e-9)
        outward = np.array([along[1], -along[0]])
        if layout.wall_is_guessed_w[i]:
            for part in np.arange(0.0, length, 0.3):
                dash = (pixel(start + along * part), pixel(start + along * min(part + 0.15, length)))
                cv2.line(picture, *dash, (150, 150, 150), 2, cv2.LINE_AA)
        else:
            cv2.line(picture, pixel(start), pixel(end), (30, 30, 30), 5, cv2.LINE_AA)
        text = f"{length:.2f}"
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        x, y = pixel(0.5 * (start + end) + outward * 26 / scale)
        at = (x - width // 2, y + height // 2)
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (60, 60, 60), 1, cv2.LINE_AA)
    colours = {"door": (170, 105, 40), "passage": (220, 170, 90), "window": (60, 130, 220)}
    for k, kind in enumerate(layout.opening_kind_k):
        wall = int(layout.opening_wall_k[k])
        along = (ends[wall] - corners[wall]) / np.linalg.norm(ends[wall] - corners[wall])
        a = corners[wall] + along * layout.opening_start_m_k[k]
        b = a + along * layout.opening_width_m_k[k]
        cv2.line(picture, pixel(a), pixel(b), colours[kind], 9, cv2.LINE_AA)
    notes = [f"{area_m2(corners):.1f} m2" if layout.is_closed else "open: only a part was seen"]
    if layout.floor_z_world_m is not None and layout.ceiling_z_world_m is not None:
        notes.append(f"ceiling {layout.ceiling_z_world_m - layout.floor_z_world_m:.2f} m")
    cv2.putText(picture, ", ".join(notes), (12, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (30, 30, 30), 1, cv2.LINE_AA)
    cv2.line(picture, (12, size - 14), (12 + round(scale), size - 14), (0, 0, 0), 2)
    cv2.putText(picture, "1 m", (14, size - 20), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return picture


# --- the outline ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Outline:
    """n walls in order, counter-clockwise; where open, the last has no neighbour."""

    lines: Lines
    is_closed: bool
    is_guessed_n: NDArray[np.bool_]
    seen_share_n: F64
    ends_m_n2: F64
    """Along each line: from where to where."""


def _outline(
    surface: Surface, rays: Rays, heights: Heights, params: LayoutParams, warnings: list[str]
) -> _Outline | None:
    z = surface.point_m_p3[:, 2]
    upright = (np.abs(surface.normal_p3[:, 2]) < 0.3) & (z > heights.low_m + 0.1) & (z < heights.high_m + 0.05)
    points = surface.point_m_p3[upright]
    angle_p = np.arctan2(surface.normal_p3[upright, 1], surface.normal_p3[upright, 0])
    if len(points) * surface.m2 < params.wall_m2:
        warnings.append("No walls were seen: the outline of the room is unknown.")
        return None
    everything = np.concatenate((points[:, :2], rays.eye_m_v3[:, :2]))
    grid = Grid.around(everything, 0.6, params.cell_m, 700)
    reach_vk = _reach(rays)
    free_yx = _free(grid, rays, reach_vk)

    behind = points[:, :2] - FREE_M * np.stack((np.cos(angle_p), np.sin(angle_p)), axis=1)
    is_free_behind_p = free_yx[grid.pixel(behind)]
    weight_p = surface.m2 * np.where(is_free_behind_p, 0.15, 1.0)
    lines, _ = find_lines(points[:, :2], angle_p, weight_p, band_m=params.band_m, least_weight=params.wall_m2)
    if len(lines) == 0:
        warnings.append("No walls were seen: the outline of the room is unknown.")
        return None
    lines = _joined(lines, points, angle_p, params.band_m)
    lines = lines.take(np.arange(min(len(lines), 40)))
    walls = len(lines)
    frontiers, corners_42 = _frontiers(grid, free_yx, lines)
    lines = lines.joined(frontiers)
    support, tops = _support(points, angle_p, lines, walls, heights)
    if heights.ceiling_m is not None:
        reach_vk = _reach_before_openings(rays, reach_vk, lines, walls, support)
    # what touches the raster's rim is outside: the raster must hold all that was seen in the room's own directions
    grid = Grid.around(np.concatenate((everything, corners_42)), 0.6, params.cell_m, 700)
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


def _seen_walls(order: list[int], lines: Lines, walls: int, seen: Support, warnings: list[str]) -> _Outline | None:
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
        return _Outline(ring, True, is_guessed, share, ends)
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
    return _Outline(ring.take(kept), False, is_guessed[kept], share[kept], ends)


# --- refined -------------------------------------------------------------------------------------------


def _fitted(outline: _Outline, rays: Rays, heights: Heights, params: LayoutParams) -> tuple[Adjusted, str]:
    points, view_p = rays.points()
    chosen = (points[:, 2] > heights.low_m + 0.1) & (points[:, 2] < heights.high_m - 0.05)
    is_bare = points[chosen, 2] > min(heights.low_m + BARE_M_ABOVE, heights.high_m - 0.3)
    height_p = points[chosen, 2] - heights.low_m
    points, view_p = points[chosen, :2], view_p[chosen]
    ends = outline.ends_m_n2 + np.array([0.08, -0.08])
    free = adjust_walls(points, view_p, is_bare, rays.eye_m_v3[:, :2], outline.lines, ends, [])
    pairs = _right_angles(outline, free, params)
    holes = _openings(outline, free, rays, heights, params)
    if not pairs and not holes:
        return free, ""
    is_wall = ~_in_openings(free.corrected(points, view_p), height_p, outline, free, holes)
    points, view_p, is_bare = points[is_wall], view_p[is_wall], is_bare[is_wall]
    snapped = adjust_walls(points, view_p, is_bare, rays.eye_m_v3[:, :2], outline.lines, ends, pairs)
    if not pairs:
        return snapped, ""
    off = [abs(_off_square(free.lines, i, j, angle)) for i, j, angle in pairs]
    together = sorted({i for pair in pairs for i in pair[:2]})
    return snapped, (
        f"Walls {', '.join(str(i) for i in together)} were set at right angles to each other: "
        f"the free fit was off by at most {np.degrees(max(off)):.2f} degrees."
    )


def _openings(outline: _Outline, fitted: Adjusted, rays: Rays, heights: Heights, params: LayoutParams) -> list[Opening]:
    """Of the walls that were seen."""
    corners = _corners(fitted.lines, outline)
    start = corners[: len(fitted.lines)]
    end = np.roll(corners, -1, axis=0)[: len(fitted.lines)]
    size = {"least_m2": params.opening_m2, "recess_m": params.recess_m}
    found = find_openings(start, end, fitted, rays, heights, **size)
    return [each for each in found if not outline.is_guessed_n[each.wall]]


def _in_openings(
    points: F64, height_p: F64, outline: _Outline, fitted: Adjusted, holes: list[Opening]
) -> NDArray[np.bool_]:
    """Points that belong to a door's leaf, a window's frame, the back of a niche."""
    corners, result = _corners(fitted.lines, outline), np.zeros(len(points), np.bool_)
    for hole in holes:
        along, normal = fitted.lines.along_n2[hole.wall], fitted.lines.normal_n2[hole.wall]
        s, off = (points - corners[hole.wall]) @ along - hole.start_m, (points - corners[hole.wall]) @ normal
        rise = height_p - hole.sill_m
        result |= (
            (np.abs(off) < 0.3)
            & (s > -0.06)
            & (s < hole.width_m + 0.06)
            & (rise > -0.06)
            & (rise < hole.height_m + 0.06)
        )
    return result


def _off_square(lines: Lines, i: int, j: int, angle: float) -> float:
    return float((lines.angle_rad_n[j] - lines.angle_rad_n[i] - angle + np.pi) % (2 * np.pi) - np.pi)


def _right_angles(outline: _Outline, free: Adjusted, params: LayoutParams) -> list[tuple[int, int, float]]:
    """Each wall that stands square to the longest wall of its kind, as far as the fit can tell."""
    limit = np.radians(params.snap_deg)
    length = outline.ends_m_n2[:, 1] - outline.ends_m_n2[:, 0]
    pairs, done = [], np.zeros(len(length), np.bool_)
    for i in np.argsort(-np.where(outline.is_guessed_n, 0, length), kind="stable"):
        if done[i]:
            continue
        done[i] = True
        for j in range(len(length)):
            if done[j]:
                continue
            between = free.lines.angle_rad_n[j] - free.lines.angle_rad_n[i]
            angle = np.round(between / (np.pi / 2)) * np.pi / 2
            if abs(_off_square(free.lines, int(i), j, float(angle))) < limit:
                pairs.append((int(i), j, float(angle)))
                done[j] = True
    return pairs


def _corners(lines: Lines, outline: _Outline) -> F64:
    """(n, 2), and where open one more."""
    count = len(lines)
    corners = [lines.crossing(i - 1, i) for i in range(0 if outline.is_closed else 1, count)]
    if not outline.is_closed:
        first, last = (
            lines.offset_m_n[i] * lines.normal_n2[i] + outline.ends_m_n2[i, side] * lines.along_n2[i]
            for i, side in ((0, 0), (count - 1, 1))
        )
        corners = [first, *corners, last]
    return np.array(corners)


# --- the noun ------------------------------------------------------------------------------------------


def _layout(
    outline: _Outline, fitted: Adjusted, heights: Heights, openings: list[Opening], snapped: str, warnings: list[str]
) -> Layout:
    corners = _corners(fitted.lines, outline)
    jacobian = _corner_jacobian(outline, fitted)
    covariance = without_place(corners, jacobian @ fitted.covariance_2n2n @ jacobian.T) * _sigma_scale(fitted) ** 2
    if not outline.is_closed:  # an open end lies where seeing ended, not where the wall does
        for corner, wall in ((0, 0), (len(corners) - 1, len(fitted.lines) - 1)):
            along = fitted.lines.along_n2[wall]
            covariance[2 * corner : 2 * corner + 2, 2 * corner : 2 * corner + 2] += 0.05**2 * np.outer(along, along)
    count = len(fitted.lines)
    wall_sigma, length_sigma = np.zeros(count), np.zeros(count)
    for i in range(count):
        j = (i + 1) % len(corners)
        along = (corners[j] - corners[i]) / np.linalg.norm(corners[j] - corners[i])
        inward = np.array([-along[1], along[0]])
        middle, stretch = np.zeros(2 * len(corners)), np.zeros(2 * len(corners))
        middle[2 * i : 2 * i + 2] += 0.5 * inward
        middle[2 * j : 2 * j + 2] += 0.5 * inward
        stretch[2 * i : 2 * i + 2], stretch[2 * j : 2 * j + 2] = -along, along
        wall_sigma[i] = np.sqrt(middle @ covariance @ middle + WALL_SIGMA_FLOOR_M**2)
        length_sigma[i] = np.sqrt(stretch @ covariance @ stretch + 2 * WALL_SIGMA_FLOOR_M**2)
    variance = np.diag(covariance)
    corner_sigma = np.sqrt(variance[0::2] + variance[1::2] + 2 * WALL_SIGMA_FLOOR_M**2)
    wall_sigma[outline.is_guessed_n] = np.maximum(wall_sigma[outline.is_guessed_n], 0.3)
    before, after = np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0)
    gradient = 0.5 * np.stack((after[:, 1] - before[:, 1], before[:, 0] - after[:, 0]), axis=1).ravel()
    area_sigma = float(np.sqrt(gradient @ (covariance + WALL_SIGMA_FLOOR_M**2 * np.eye(len(gradient))) @ gradient))
    return Layout(
        corners_world_m_n2=corners,
        is_closed=outline.is_closed,
        wall_is_guessed_w=outline.is_guessed_n,
        wall_sigma_m_w=wall_sigma,
        wall_confidence_w=np.clip(outline.seen_share_n * np.exp(-wall_sigma / 0.1), 0.0, 1.0),
        corner_sigma_m_n=corner_sigma,
        length_sigma_m_w=length_sigma,
        floor_z_world_m=heights.floor_m,
        floor_sigma_m=heights.floor_sigma_m,
        ceiling_z_world_m=heights.ceiling_m,
        ceiling_sigma_m=heights.ceiling_sigma_m,
        floor_levels_world_m_l=heights.floor_levels_m_l,
        ceiling_planes_l4=heights.ceiling_planes_l4,
        opening_kind_k=tuple(each.kind for each in openings if each.kind != "niche"),
        opening_wall_k=np.array([each.wall for each in openings], np.int64),
        opening_start_m_k=np.array([each.start_m for each in openings], np.float64),
        opening_width_m_k=np.array([each.width_m for each in openings], np.float64),
        opening_sill_m_k=np.array([each.sill_m for each in openings], np.float64),
        opening_height_m_k=np.array([each.height_m for each in openings], np.float64),
        opening_sigma_m_k=np.full(len(openings), 0.02),
        opening_confidence_k=np.array([each.confidence for each in openings], np.float64),
        area_sigma_m2=area_sigma if outline.is_closed else 0.0,
        snapped=snapped,
        warnings=tuple(warnings),
    )


def _sigma_scale(fitted: Adjusted) -> float:
    """More where the corrections are large: drift keeps its direction, which the adjustment's model does not know."""
    drift_m = float(np.sqrt((fitted.shift_m_v2**2).sum(axis=1).mean()))
    return STEADY_SCALE + (DRIFTING_SCALE - STEADY_SCALE) * min(1.0, drift_m / DRIFTING_M)


def _corner_jacobian(outline: _Outline, fitted: Adjusted) -> F64:
    """Of the corners by the walls' angles and offsets about `fitted.centre_2`: by differences, it is small."""
    lines, step = fitted.lines, 1e-5
    columns = []
    for wall in range(len(lines)):
        for what in (0, 1):
            moved = []
            for sign in (-1.0, 1.0):
                angle = lines.angle_rad_n.copy()
                offset = lines.offset_m_n - lines.normal_n2 @ fitted.centre_2
                (angle if what == 0 else offset)[wall] += sign * step
                normal = np.array([np.cos(angle[wall]), np.sin(angle[wall])])
                absolute = lines.offset_m_n.copy()
                absolute[wall] = offset[wall] + normal @ fitted.centre_2
                moved.append(_corners(Lines(angle, absolute), outline))
            columns.append((moved[1] - moved[0]).ravel() / (2 * step))
    return np.stack(columns, axis=1)


def _floor_only(surface: Surface, heights: Heights, warnings: list[str]) -> Layout:
    """What is left without walls: the heights."""
    if heights.floor_m is None and heights.ceiling_m is None:
        raise ScanRejected(
            "layout",
            expected="a floor, a ceiling or a wall",
            received=f"{len(surface.point_m_p3) * surface.m2:.1f} m² of surface that is none of them",
            do="Scan a room: walk once around with the phone tilted down a little, one to three metres from the walls.",
        )
    none, none_2 = np.zeros(0), np.zeros((0, 2))
    return Layout(
        corners_world_m_n2=none_2, is_closed=False, wall_is_guessed_w=np.zeros(0, np.bool_), wall_sigma_m_w=none,
        wall_confidence_w=none, corner_sigma_m_n=none, length_sigma_m_w=none, floor_z_world_m=heights.floor_m,
        floor_sigma_m=heights.floor_sigma_m, ceiling_z_world_m=heights.ceiling_m,
        ceiling_sigma_m=heights.ceiling_sigma_m, floor_levels_world_m_l=heights.floor_levels_m_l,
        ceiling_planes_l4=heights.ceiling_planes_l4, opening_kind_k=(), opening_wall_k=np.zeros(0, np.int64),
        opening_start_m_k=none, opening_width_m_k=none, opening_sill_m_k=none, opening_height_m_k=none,
        opening_sigma_m_k=none, opening_confidence_k=none, area_sigma_m2=0.0, snapped="", warnings=tuple(warnings),
    )  # fmt: skip
