"""What layout works from: points over the mesh, rays of the depth maps, and the heights of floor and ceiling.

Belongs here: sampling, choosing one storey, levelling, heights. Does not belong here: walls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.adjustment import adjust_heights
from geomagic_dagster.cv.camera import rotation_between
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import DepthMaps, Mesh, Poses

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

COLUMNS = 80  # of a depth map, taken evenly: 4,800 rays a view
MAX_VIEWS = 240
SAMPLES_A_M2 = 400  # points over the mesh: 5 cm apart
HEIGHT_SIGMA_SCALE = 1.0
HEIGHT_SIGMA_FLOOR_M = 0.0012


@dataclass(frozen=True, eq=False)
class Surface:
    """Points spread evenly over the mesh, with the normal towards the free side; each stands for `m2` of it."""

    point_m_p3: F64
    normal_p3: F64
    m2: float

    def turned(self, R_33: F64, about_3: F64) -> Surface:
        return replace(
            self, point_m_p3=(self.point_m_p3 - about_3) @ R_33.T + about_3, normal_p3=self.normal_p3 @ R_33.T
        )

    def take(self, chosen_p: NDArray[np.bool_]) -> Surface:
        return replace(self, point_m_p3=self.point_m_p3[chosen_p], normal_p3=self.normal_p3[chosen_p])


@dataclass(frozen=True, eq=False)
class Rays:
    """Every s-th pixel's ray of v views: `direction` for each metre of depth; depth 0 where nothing came back."""

    eye_m_v3: F64
    view_r: I64
    direction_r3: F64
    depth_m_r: F64

    def turned(self, R_33: F64, about_3: F64) -> Rays:
        eye = (self.eye_m_v3 - about_3) @ R_33.T + about_3
        return replace(self, eye_m_v3=eye, direction_r3=self.direction_r3 @ R_33.T)

    def points(self) -> tuple[F64, I64]:
        """What the rays met, (p, 3), and in which view."""
        hit = self.depth_m_r > 0
        view = self.view_r[hit]
        return self.eye_m_v3[view] + self.direction_r3[hit] * self.depth_m_r[hit, None], view


def sampled(mesh: Mesh) -> Surface:
    """Points at even steps of area, triangle by triangle: no random numbers."""
    corner_f33 = mesh.vertices_world_m_v3[mesh.triangles_f3].astype(np.float64)
    cross_f3 = np.cross(corner_f33[:, 1] - corner_f33[:, 0], corner_f33[:, 2] - corner_f33[:, 0])
    area_f = 0.5 * np.linalg.norm(cross_f3, axis=1)
    total = float(area_f.sum())
    if not total > 0.05:
        raise ScanRejected(
            "layout",
            expected="a surface of a room",
            received=f"a mesh of {len(area_f)} triangles and {total:.2f} m²",
            do="Scan again, slowly, one to three metres from walls and furniture, with the depth sensor uncovered.",
        )
    count = int(np.clip(total * SAMPLES_A_M2, 1000, 400_000))
    face_p = np.searchsorted(np.cumsum(area_f), (np.arange(count) + 0.5) / count * total)
    face_p = np.minimum(face_p, len(area_f) - 1)
    u = np.sqrt((np.arange(count) * 0.7548776662466927) % 1.0)[:, None]  # Roberts' R2 sequence
    v = ((np.arange(count) * 0.5698402909980532) % 1.0)[:, None]
    a, b, c = np.moveaxis(corner_f33[face_p], 1, 0)
    points = (1 - u) * a + u * (1 - v) * b + u * v * c
    return Surface(points, cross_f3[face_p] / (2 * area_f[face_p, None]), total / count)


def rays_of(poses: Poses, depth: DepthMaps) -> Rays:
    used = np.array(poses.used(), np.int64)
    if len(used) > MAX_VIEWS:
        used = used[np.linspace(0, len(used) - 1, MAX_VIEWS).round().astype(int)]
    height, width = depth.depth_m_bhw.shape[1:]
    step = max(1, width // COLUMNS)
    row, column = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    directions, depths, views = [], [], []
    for view, i in enumerate(used):
        K = depth.K_b33[i]
        rays = np.stack(((column - K[0, 2]) / K[0, 0], (row - K[1, 2]) / K[1, 1], np.ones(row.shape)), axis=-1)
        directions.append(rays.reshape(-1, 3) @ poses.world_T_cam_b44[i, :3, :3].T)
        depths.append(np.asarray(depth.depth_m_bhw[i])[row, column].ravel().astype(np.float64))
        views.append(np.full(row.size, view))
    return Rays(
        poses.world_T_cam_b44[used, :3, 3], np.concatenate(views), np.concatenate(directions), np.concatenate(depths)
    )


def one_storey(surface: Surface, rays: Rays, warnings: list[str]) -> tuple[Surface, Rays]:
    """Where the cameras were at heights of more than one storey: the one with most views."""
    eye_z = np.sort(rays.eye_m_v3[:, 2])
    if eye_z[-1] - eye_z[0] < 2.0:
        return surface, rays
    count = np.searchsorted(eye_z, eye_z + 1.4, side="right") - np.arange(len(eye_z))
    low = float(eye_z[np.argmax(count)])
    keep_v = (rays.eye_m_v3[:, 2] >= low) & (rays.eye_m_v3[:, 2] <= low + 1.4)
    warnings.append(
        f"The scan spans several storeys: only the one with most views is drawn ({keep_v.sum()} of {len(keep_v)}). "
        "Scan each storey by itself."
    )
    middle = float(np.median(rays.eye_m_v3[keep_v, 2]))
    surface = surface.take(np.abs(surface.point_m_p3[:, 2] - middle) < 2.6)
    number_v = np.cumsum(keep_v) - 1
    keep_r = keep_v[rays.view_r]
    return surface, Rays(
        rays.eye_m_v3[keep_v], number_v[rays.view_r[keep_r]], rays.direction_r3[keep_r], rays.depth_m_r[keep_r]
    )


def levelling(surface: Surface, below_m: float, warnings: list[str]) -> tuple[F64, F64]:
    """(rotation, about which point) that makes a tilted floor level; none where it is level or was not seen.

    Nor where walls would lean by it: then gravity is right, and what looks like a floor is none.

    Args: below_m: all of the floor lies below this height.
    """
    nothing = np.eye(3), np.zeros(3)
    below = surface.point_m_p3[:, 2] < below_m
    points, normals = surface.point_m_p3[below], surface.normal_p3[below]
    up = normals[:, 2] > np.cos(np.radians(15))
    points, normals = points[up], normals[up]
    if len(points) * surface.m2 < 0.5:
        return nothing
    # the direction in which most of the level surface lies in few heights
    up_3 = np.median(normals, axis=0)
    for band_m in (0.10, 0.05, 0.03, 0.03):
        up_3 /= np.linalg.norm(up_3)
        height = points @ up_3
        counts, edges = np.histogram(height, np.arange(height.min(), height.max() + 0.08, 0.04))
        lowest = np.flatnonzero(counts > 0.3 * counts.max())[0]
        mine = np.abs(height - 0.5 * (edges[lowest] + edges[lowest + 1])) < band_m
        if mine.sum() * surface.m2 < 0.25:
            return nothing
        centre = points[mine].mean(axis=0)
        _, axes = np.linalg.eigh(np.cov((points[mine] - centre).T))
        up_3 = axes[:, 0] * np.sign(axes[2, 0])
    tilt_deg = float(np.degrees(np.arccos(np.clip(up_3[2], -1, 1))))
    if not 1.0 < tilt_deg < 15.0:
        return nothing
    upright = surface.normal_p3[np.abs(surface.normal_p3[:, 2]) < 0.3]
    if len(upright) * surface.m2 > 0.5 and np.abs(upright @ up_3).mean() > np.abs(upright[:, 2]).mean():
        return nothing
    warnings.append(
        f"The floor is tilted by {tilt_deg:.1f} degrees against gravity as the device has it: lengths and heights are "
        "measured along and above the floor."
    )
    return rotation_between(up_3, np.array([0.0, 0.0, 1.0])), centre


@dataclass(frozen=True, eq=False)
class Heights:
    floor_m: float | None
    floor_sigma_m: float
    ceiling_m: float | None
    ceiling_sigma_m: float
    floor_levels_m_l: F64
    ceiling_planes_l4: F64
    low_m: float
    """From here up there may be walls: the floor, or the lowest surface."""
    high_m: float
    """The ceiling, or the highest surface."""


def find_heights(surface: Surface, rays: Rays, warnings: list[str]) -> Heights:
    z, up = surface.point_m_p3[:, 2], surface.normal_p3[:, 2]
    eye_z = float(np.median(rays.eye_m_v3[:, 2]))
    floors = [(h, a) for h, a in _levels(z[up > 0.95], surface.m2) if eye_z - 2.6 < h < eye_z - 0.35]
    most = max((a for _, a in floors), default=0.0)
    floor = next((h for h, a in floors if a >= max(0.3, 0.25 * most)), None)  # the lowest that is large
    lowest = floor if floor is not None else eye_z - 1.2
    is_over = (up < -0.95) & (z > max(eye_z, lowest + 1.7))
    ceilings = [(h, a) for h, a in _levels(z[is_over], surface.m2) if a >= 0.3]
    ceiling = max(ceilings, key=lambda level: level[1])[0] if ceilings else None
    if floor is None:
        warnings.append("No floor was seen: heights above it are unknown. Tilt the phone down while you walk.")
    if ceiling is None:
        warnings.append("No ceiling was seen: the height of the room is unknown.")
    planes = _ceiling_planes(surface, max(eye_z, lowest + 1.2), ceilings)
    known = [h for h in (floor, ceiling) if h is not None]
    sigma = {}
    if known:
        points, view_p = rays.points()
        near = np.zeros(len(points), np.bool_)
        for height in known:
            near |= np.abs(points[:, 2] - height) < 0.2
        step_m = np.linalg.norm(np.diff(rays.eye_m_v3, axis=0), axis=1)
        levels, covariance, _ = adjust_heights(points[near, 2], view_p[near], step_m, np.array(known))
        if len(levels) == 2:  # what counts is the height between them
            apart = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)))
            each = float(np.hypot(HEIGHT_SIGMA_SCALE * apart, HEIGHT_SIGMA_FLOOR_M)) / np.sqrt(2)
            sigma = {known[0]: each, known[1]: each}
        else:
            sigma = {known[0]: 0.01}
        moved = dict(zip(known, levels, strict=True))
    else:
        moved = {}
    steps = [h for h, a in floors if floor is not None and a >= 1.0 and 0.05 < abs(h - floor) < 0.32]
    ordered = sorted(steps, key=lambda h: -dict(floors)[h])
    final_floor = float(moved[floor]) if floor is not None else None
    final_ceiling = float(moved[ceiling]) if ceiling is not None else None
    wall_z = z[np.abs(up) < 0.3]
    return Heights(
        floor_m=final_floor,
        floor_sigma_m=sigma.get(floor, 0.0) if floor is not None else 0.0,
        ceiling_m=final_ceiling,
        ceiling_sigma_m=sigma.get(ceiling, 0.0) if ceiling is not None else 0.0,
        floor_levels_m_l=np.array([] if final_floor is None else [final_floor, *ordered], np.float64),
        ceiling_planes_l4=planes,
        low_m=final_floor if final_floor is not None else float(np.quantile(z, 0.005)),
        high_m=final_ceiling
        if final_ceiling is not None
        else float(np.quantile(wall_z, 0.995))
        if len(wall_z)
        else eye_z,
    )


def _levels(z_p: F64, m2: float) -> list[tuple[float, float]]:
    """(height, area) of level surfaces, lowest first: peaks of the histogram of heights."""
    if len(z_p) == 0:
        return []
    from scipy.ndimage import maximum_filter1d

    edges = np.arange(z_p.min() - 0.1, z_p.max() + 0.12, 0.02)
    counts = np.convolve(np.histogram(z_p, edges)[0], [1, 1, 1], "same")
    peaks = np.flatnonzero((counts == maximum_filter1d(counts, 7)) & (counts * m2 > 0.1))
    levels: list[tuple[float, float]] = []
    for peak in peaks:
        height = 0.5 * (edges[peak] + edges[peak + 1])
        mine = z_p[np.abs(z_p - height) < 0.05]
        height = float(np.median(mine))
        if not levels or height - levels[-1][0] > 0.05:
            levels.append((height, len(mine) * m2))
    return levels


def _ceiling_planes(surface: Surface, above_m: float, level: list[tuple[float, float]]) -> F64:
    """(l, 4) a, b, c, area of level and sloped parts of the ceiling, largest first."""
    chosen = (surface.normal_p3[:, 2] < -0.4) & (surface.point_m_p3[:, 2] > above_m)
    points, normals = surface.point_m_p3[chosen], surface.normal_p3[chosen]
    planes = []
    for height, area in level:
        planes.append((0.0, 0.0, height, area))
        keep = np.abs(points[:, 2] - height) > 0.06
        points, normals = points[keep], normals[keep]
    for _ in range(6):
        sloped = normals[:, 2] > -np.cos(np.radians(4))
        if sloped.sum() * surface.m2 < 0.5:
            break
        angle = np.round(np.degrees(np.arctan2(normals[:, 1], normals[:, 0])) / 15).astype(int) % 24
        steep = np.round(np.degrees(np.arccos(-normals[:, 2])) / 10).astype(int)
        key = np.where(sloped, angle * 100 + steep, -1)
        values, counts = np.unique(key[sloped], return_counts=True)
        normal = normals[key == values[np.argmax(counts)]].mean(axis=0)
        normal /= np.linalg.norm(normal)
        alike = normals @ normal > np.cos(np.radians(15))
        offset = points @ normal
        bins = np.floor(offset[alike] / 0.06).astype(int)
        values, counts = np.unique(bins, return_counts=True)
        mine = alike & (np.abs(offset - 0.06 * (values[np.argmax(counts)] + 0.5)) < 0.09)
        if mine.sum() * surface.m2 < 0.5:
            break
        design = np.column_stack((points[mine, :2], np.ones(mine.sum())))
        (a, b, c), *_ = np.linalg.lstsq(design, points[mine, 2], rcond=None)
        planes.append((float(a), float(b), float(c), float(mine.sum() * surface.m2)))
        points, normals = points[~mine], normals[~mine]
    table = np.array(planes, np.float64).reshape(-1, 4)
    return table[np.argsort(-table[:, 3], kind="stable")]
