"""What is true of a made-up scan: poses, depth, surfaces, and the same views without furniture.

Belongs here: everything that a result is judged against. Does not belong here: how it is judged.

All of it is given in the true world (z up, floor at room.floor_z_m). The scan lives in the device's world, with
another origin and heading; `scan_T_world_44` takes the one to the other, exactly for a scan without pose errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.camera import invert_pose
from geomagic_dagster.scans.made_up import sensor
from geomagic_dagster.scans.made_up.room import MadeUpRoom, scene_of

if TYPE_CHECKING:
    from geomagic_dagster.scans.made_up.ray_kernels import Scene

F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cast:
    """What each pixel's ray meets."""

    depth_m_hw: F64
    surface_hw: NDArray[np.int32]
    """Walls 0 to k-1, floor k, ceiling k + 1, then the solids of fixtures and furniture, part by part."""
    cosine_hw: NDArray[np.float32]
    """Of the angle between ray and surface normal."""


def cast(scene: Scene, world_T_cam_44: F64, K_33: F64, size_wh: tuple[int, int]) -> Cast:
    """Exact depth and surfaces of one view."""
    from geomagic_dagster.scans.made_up import ray_kernels

    shape = size_wh[::-1]
    result = Cast(np.empty(shape), np.empty(shape, np.int32), np.empty(shape, np.float32))
    ray_kernels.cast_depth(scene, world_T_cam_44, K_33, result.depth_m_hw, result.surface_hw, result.cosine_hw)
    return result


def radiance_hw3(scene: Scene, world_T_cam_44: F64, K_33: F64, size_wh: tuple[int, int]) -> NDArray[np.float32]:
    """Linear colour of one view."""
    from geomagic_dagster.scans.made_up import ray_kernels

    shape = size_wh[::-1]
    result = np.empty((*shape, 3), np.float32)
    ray_kernels.render_colour(scene, world_T_cam_44, K_33, result, np.empty(shape, np.int32))
    return result


@dataclass(frozen=True, eq=False)
class Truth:
    """All that is true of a scan of b frames. Images are rendered when asked for."""

    room: MadeUpRoom
    world_T_cam_b44: F64
    scan_T_world_44: F64
    """From the true world to the device's world."""
    K_rgb_33: F64
    rgb_size_wh: tuple[int, int]
    K_depth_33: F64
    depth_size_wh: tuple[int, int]
    is_blurred_b: NDArray[np.bool_]
    """Which frames were given motion blur."""

    @property
    def world_T_scan_44(self) -> F64:
        """From the device's world to the true world."""
        return invert_pose(self.scan_T_world_44)

    def to_world(self, points_n3: NDArray[np.floating], pipeline_world_T_scan_44: F64 | None = None) -> F64:
        """Points of the device's world in the true world; with `Poses.world_T_scan_44`: points of the pipeline's mesh.

        The pipeline makes the device's world upright and calls it world; this undoes that first.
        """
        T = self.world_T_scan_44
        if pipeline_world_T_scan_44 is not None:
            T = T @ invert_pose(np.asarray(pipeline_world_T_scan_44, np.float64))
        return np.asarray(points_n3, np.float64) @ T[:3, :3].T + T[:3, 3]

    @cached_property
    def scene(self) -> Scene:
        return scene_of(self.room)

    @cached_property
    def scene_without_furniture(self) -> Scene:
        return scene_of(self.room.without_furniture())

    def depth_m_hw(self, frame: int) -> F64:
        """True depth (z) at the depth resolution; 0 through the window."""
        return cast(self.scene, self.world_T_cam_b44[frame], self.K_depth_33, self.depth_size_wh).depth_m_hw

    def depth_without_furniture_m_hw(self, frame: int) -> F64:
        """The same view of the empty room."""
        view = (self.world_T_cam_b44[frame], self.K_depth_33, self.depth_size_wh)
        return cast(self.scene_without_furniture, *view).depth_m_hw

    def rgb_hw3(self, frame: int) -> NDArray[np.uint8]:
        """Colour without blur, noise or change of exposure."""
        view = (self.world_T_cam_b44[frame], self.K_rgb_33, self.rgb_size_wh)
        return sensor.to_srgb(radiance_hw3(self.scene, *view))

    def rgb_without_furniture_hw3(self, frame: int) -> NDArray[np.uint8]:
        """The same view of the empty room, its light without the furniture's shadows."""
        view = (self.world_T_cam_b44[frame], self.K_rgb_33, self.rgb_size_wh)
        return sensor.to_srgb(radiance_hw3(self.scene_without_furniture, *view))

    def furniture_hw(self, frame: int) -> NDArray[np.int32]:
        """Which piece of `room.furniture` each pixel of the depth image shows; -1 for none."""
        view = (self.world_T_cam_b44[frame], self.K_depth_33, self.depth_size_wh)
        surface_hw = cast(self.scene, *view).surface_hw
        pieces = [-1] * (len(self.room.walls) + 2 + sum(len(each.parts) for each in self.room.fixtures))
        for index, piece in enumerate(self.room.furniture):
            pieces += [index] * len(piece.parts)
        return np.array(pieces, np.int32)[surface_hw]

    def surface_distance_m(self, points_world_m_n3: NDArray[np.floating]) -> F64:
        """Exact distance (n,) of points to the nearest true surface: shell, openings and furniture, but no window pane.

        Every face of every solid counts, also where one solid touches another.
        """
        from geomagic_dagster.scans.made_up import ray_kernels

        points = np.ascontiguousarray(points_world_m_n3, np.float64)
        distance_m_n = np.empty(len(points))
        ray_kernels.surface_distance(self.scene, points, distance_m_n)
        return distance_m_n

    def sample_surface(
        self,
        count: int,
        seed: int = 0,
        seen_only: bool = True,
        *,
        least_views: int = 1,
        range_m: tuple[float, float] = (0.2, sensor.FAR_M),
        least_cosine: float = sensor.GLANCING_COSINE[1],
    ) -> F64:
        """Points (count, 3) spread evenly over the true surfaces that face free space.

        Args:
            seen_only: only what the walk saw: in the depth image of `least_views` frames, unoccluded, within
                `range_m` of depth, and less glancing than `least_cosine`.
        Raises: ValueError where the walk saw nothing.
        """
        from geomagic_dagster.scans.made_up import ray_kernels

        rng = np.random.default_rng([self.room.seed, seed, 5])
        cam_T_world_b44 = invert_pose(self.world_T_cam_b44)
        found: list[F64] = []
        total = 0
        for _ in range(200):
            points, normals = _spread(self.scene, max(2 * count, 2000), rng)
            on_surface = self.surface_distance_m(points) < 1e-9
            free = np.empty(len(points), np.bool_)
            ray_kernels.mark_free(self.scene, points + 1e-3 * normals, free)
            points, normals = points[on_surface & free], normals[on_surface & free]
            if seen_only:
                views = np.empty(len(points), np.int64)
                ray_kernels.count_views(
                    self.scene, points, normals, cam_T_world_b44, self.K_depth_33, *self.depth_size_wh, *range_m,
                    least_cosine, views,
                )  # fmt: skip
                points = points[views >= least_views]
            found.append(points)
            total += len(points)
            if total >= count:
                return np.concatenate(found)[:count]
        raise ValueError(
            f"sample_surface: expected {count} points that {least_views} of {len(self.world_T_cam_b44)} frames see; "
            f"found {total}. Take more frames, or loosen range_m or least_cosine."
        )


def _spread(scene: Scene, count: int, rng: np.random.Generator) -> tuple[F64, F64]:
    """(points, outward normals), each (count, 3), by area over rectangles that hold every face, and cylinders' sides.

    A rectangle may reach over its face (the footprint's bounding box, the cap's square, a wall's opening): such
    points lie on no surface, and the caller drops them.
    """
    from geomagic_dagster.scans.made_up import ray_kernels

    low, high = scene.corner_k2.min(axis=0), scene.corner_k2.max(axis=0)
    height, up = scene.ceiling_z - scene.floor_z, np.array([0.0, 0.0, 1.0])
    flat = [np.array([high[0] - low[0], 0, 0]), np.array([0, high[1] - low[1], 0])]
    # origin, two edges, normal
    faces = [
        (np.array([*low, scene.floor_z]), *flat, up),
        (np.array([*low, scene.ceiling_z]), *flat, -up),
    ]
    for corner, along, length in zip(scene.corner_k2, scene.along_k2, scene.length_k, strict=True):
        inward = np.array([-along[1], along[0], 0.0])
        faces.append((np.array([*corner, scene.floor_z]), length * np.array([*along, 0.0]), height * up, inward))
    sides = []  # of cylinders: centre, radius, height
    for p, (centre, half) in enumerate(zip(scene.solid_centre_p3, scene.solid_half_p3, strict=True)):
        cos, sin = scene.solid_cos_sin_p2[p]
        axes = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], up])
        is_box = scene.solid_shape_p[p] == ray_kernels.BOX
        for normal in range(3) if is_box else (2,):
            a, b = (i for i in range(3) if i != normal)
            for sign in (-1.0, 1.0):
                origin = centre + sign * half[normal] * axes[normal] - half[a] * axes[a] - half[b] * axes[b]
                faces.append((origin, 2 * half[a] * axes[a], 2 * half[b] * axes[b], sign * axes[normal]))
        if not is_box:
            sides.append((centre, half[0], 2 * half[2]))
    origin, edge_a, edge_b, normal = (np.array(column) for column in zip(*faces, strict=True))
    areas = [*np.linalg.norm(np.cross(edge_a, edge_b), axis=1), *(2 * np.pi * r * h for _, r, h in sides)]
    chosen = rng.choice(len(areas), count, p=np.array(areas) / np.sum(areas))
    s, t = rng.random((2, count, 1))
    index = np.minimum(chosen, len(faces) - 1)
    points, normals = origin[index] + s * edge_a[index] + t * edge_b[index], normal[index]
    for i, (centre, radius, side_height) in enumerate(sides):
        here = chosen == len(faces) + i
        angle = 2.0 * np.pi * s[here, 0]
        normals[here] = np.stack((np.cos(angle), np.sin(angle), np.zeros_like(angle)), axis=1)
        points[here] = centre + radius * normals[here] + (t[here] - 0.5) * side_height * up
    return points, normals
