"""Floor, ceiling, walls and openings: the room as a drawing has it, from surfaces and from what rays passed through.

What rays passed through, at any height, is room: a ray over a sofa shows that the floor behind it is room, and
the wall behind it is found above it. Upright surfaces give lines, the lines cut the plan into cells, and the
cells that are room are chosen together (plan.py). Then walls and drift are fitted together (adjustment.py), and
every wall is looked at through all rays that reach it: where they pass through or come back from nowhere, it is open.

Belongs here: what is floor, ceiling, wall or opening. Does not belong here: furniture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.adjustment import Adjusted, adjust_walls, without_place
from geomagic_dagster.cv.evidence import Heights, Rays, Surface, find_heights, levelling, one_storey, rays_of, sampled
from geomagic_dagster.cv.layout_picture import drawn
from geomagic_dagster.cv.openings import Opening, find_openings
from geomagic_dagster.cv.outline import Outline, find_outline
from geomagic_dagster.cv.plan import Lines, area_m2
from geomagic_dagster.cv.stage import Field, Params, ScanRejected, minutes, stage
from geomagic_dagster.cv.types import DepthMaps, Layout, Mesh, Poses

F64 = NDArray[np.float64]

BARE_M_ABOVE = 2.12  # the floor: over doors and nearly all furniture
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
    timeout=minutes(2),
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
    size = {"wall_m2": params.wall_m2, "band_m": params.band_m, "cell_m": params.cell_m}
    outline = find_outline(surface, rays, heights, warnings, **size)
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
    """The plan, (640, 640, 3)."""
    return drawn(layout)


# --- refined -------------------------------------------------------------------------------------------


def _fitted(outline: Outline, rays: Rays, heights: Heights, params: LayoutParams) -> tuple[Adjusted, str]:
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


def _openings(outline: Outline, fitted: Adjusted, rays: Rays, heights: Heights, params: LayoutParams) -> list[Opening]:
    """Of the walls that were seen."""
    corners = _corners(fitted.lines, outline)
    start = corners[: len(fitted.lines)]
    end = np.roll(corners, -1, axis=0)[: len(fitted.lines)]
    size = {"least_m2": params.opening_m2, "recess_m": params.recess_m}
    found = find_openings(start, end, fitted, rays, heights, **size)
    return [each for each in found if not outline.is_guessed_n[each.wall]]


def _in_openings(
    points: F64, height_p: F64, outline: Outline, fitted: Adjusted, holes: list[Opening]
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


def _right_angles(outline: Outline, free: Adjusted, params: LayoutParams) -> list[tuple[int, int, float]]:
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


def _corners(lines: Lines, outline: Outline) -> F64:
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
    outline: Outline, fitted: Adjusted, heights: Heights, openings: list[Opening], snapped: str, warnings: list[str]
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


def _corner_jacobian(outline: Outline, fitted: Adjusted) -> F64:
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
