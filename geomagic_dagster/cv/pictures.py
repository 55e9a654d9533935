"""Pictures of the mesh: as a doll's house from outside and above, and to scale from straight above.

Belongs here: `perspective` and `top_down`, light and colour. Does not belong here: the floor plan (floor_plan.py).

Both are cast with Embree rays (embreex directly: trimesh's wrapper hides the barycentric coordinates and takes three
times as long). The same mesh gives the same bytes whatever the number of threads; between kinds of processor Embree may
round differently, and with it single pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Rays = Callable[[F64, F64], tuple[F64, F64]]
"""Columns (n,) and rows (n,) of a picture to origins (n, 3) and directions (n, 3) in the world."""

BACKGROUND_RGB = (58, 60, 64)  # darker than most walls: their cut tops and the gaps in them stand out
FIELD_OF_VIEW_RAD = 0.6  # vertical, of the perspective: a long lens, so that walls stay nearly upright
FRAME_FILL = 0.94  # share of the perspective's half width and half height that the room may fill
AMBIENT = 0.55  # light on what is seen edge-on; what faces the viewer has the captured colour itself


def srgb_to_linear(rgb_n3: NDArray[np.uint8]) -> F32:
    """8-bit sRGB to linear light, 0 to 1 (IEC 61966-2-1)."""
    level = np.arange(256) / 255.0
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return linear.astype(np.float32)[rgb_n3]


def linear_to_srgb(linear_n3: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Linear light to 8-bit sRGB; the inverse of `srgb_to_linear`."""
    linear = np.clip(linear_n3, 0.0, 1.0)
    level = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(level * 255.0).astype(np.uint8)


@dataclass(frozen=True)
class TopScale:
    """Where the picture from above lies: pixel (column, row) shows x = left_m + column * metres_per_px of the world,
    y = top_m - row * metres_per_px."""

    metres_per_px: float
    left_m: float
    top_m: float


@dataclass(frozen=True, eq=False)
class _Hits:
    """Where those h of many rays that met the surface met it first."""

    ray_h: NDArray[np.int64]
    distance_h: F32
    """In lengths of the ray's direction."""
    linear_h3: F32
    """Colour of the surface, linear light."""
    cosine_h: F32
    """Of the angle between ray and normal: 0 edge-on, 1 head-on."""


@dataclass(frozen=True, eq=False)
class Surface:
    """The mesh as it is drawn; colours in linear light, because light adds up there."""

    vertices_m_v3: F32
    triangles_f3: NDArray[np.int32]
    normals_v3: F32
    linear_v3: F32

    @cached_property
    def cross_f3(self) -> F64:
        """Towards the free side of each triangle; its length is twice the area."""
        a_f3, b_f3, c_f3 = np.moveaxis(self.vertices_m_v3.astype(np.float64)[self.triangles_f3], 1, 0)
        return np.cross(b_f3 - a_f3, c_f3 - a_f3)

    @cached_property
    def area_m2_f(self) -> F64:
        return np.linalg.norm(self.cross_f3, axis=1) / 2.0

    @cached_property
    def centre_m_3(self) -> F64:
        """Embree computes in float32: around the middle of the room it is exact to a micrometre."""
        return (self.vertices_m_v3.min(axis=0).astype(np.float64) + self.vertices_m_v3.max(axis=0)) / 2.0

    @cached_property
    def _embree_scene(self) -> Any:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        scene = EmbreeScene()
        vertices_v3 = (self.vertices_m_v3 - self.centre_m_3).astype(np.float32)
        TriangleMesh(scene, vertices_v3, np.ascontiguousarray(self.triangles_f3, np.int32))
        return scene

    def facing(self, towards: F64) -> Surface:
        """Only the triangles whose free side faces these directions, one (3,) or one for each triangle (f, 3).

        So one looks through near walls, and through the ceiling from above, into the room.
        """
        return replace(self, triangles_f3=self.triangles_f3[(self.cross_f3 * towards).sum(axis=1) > 0])

    def seen_by(self, camera: _Camera) -> Surface:
        return self.facing(camera.centre_m_3 - self.vertices_m_v3[self.triangles_f3[:, 0]])

    def cast(self, origin_m_n3: F64, direction_n3: F64) -> _Hits:
        """What rays from these points in these directions (of any length) meet first."""
        if len(self.triangles_f3) == 0:
            none_0 = np.zeros(0, np.float32)
            return _Hits(np.zeros(0, np.int64), none_0, none_0.reshape(0, 3), none_0)
        found = self._embree_scene.run(
            (origin_m_n3 - self.centre_m_3).astype(np.float32), direction_n3.astype(np.float32), output=True
        )
        ray_h = np.flatnonzero(found["primID"] >= 0)
        corner_h3 = self.triangles_f3[found["primID"][ray_h]]
        u_h, v_h = found["u"][ray_h], found["v"][ray_h]
        weight_h3 = np.stack((1 - u_h - v_h, u_h, v_h), axis=1)
        normal_h3 = np.einsum("hc,hci->hi", weight_h3, self.normals_v3[corner_h3])
        direction_h3 = direction_n3[ray_h].astype(np.float32)
        lengths_h = np.linalg.norm(normal_h3, axis=1) * np.linalg.norm(direction_h3, axis=1)
        cosine_h = np.abs(np.einsum("hi,hi->h", normal_h3, direction_h3)) / np.maximum(lengths_h, 1e-9)
        linear_h3 = np.einsum("hc,hci->hi", weight_h3, self.linear_v3[corner_h3])
        return _Hits(ray_h, found["tfar"][ray_h], linear_h3, cosine_h)


@dataclass(frozen=True, eq=False)
class _Camera:
    """A pinhole camera that looks down at the room."""

    world_R_cam_33: F64
    centre_m_3: F64
    focal_px: float
    width_px: int
    height_px: int

    @classmethod
    def framing(cls, points_m_n3: F64, azimuth_rad: float, elevation_rad: float, width: int, height: int) -> _Camera:
        """As near as can be with all points in the picture, seen from this azimuth (of the viewer) and elevation.

        In camera axes a point is in view where |x - cx| <= tx (z - cz), and so for y: two bounds for each of
        cx and cy, which leave room for each other only where the camera (cx, cy, cz) stands far enough back.
        """
        level = np.cos(elevation_rad)
        towards_viewer_3 = np.array([level * np.cos(azimuth_rad), level * np.sin(azimuth_rad), np.sin(elevation_rad)])
        right_3 = np.array([-np.sin(azimuth_rad), np.cos(azimuth_rad), 0.0])
        world_R_cam_33 = np.stack((right_3, np.cross(-towards_viewer_3, right_3), -towards_viewer_3), axis=1)
        focal_px = height / 2.0 / np.tan(FIELD_OF_VIEW_RAD / 2.0)
        points_cam_n3 = np.einsum("ni,ij->nj", points_m_n3, world_R_cam_33)  # no BLAS, see rays
        centre_cam_3 = np.full(3, np.inf)
        for axis, size in enumerate((width, height)):
            slope = FRAME_FILL * size / 2.0 / focal_px
            high = (points_cam_n3[:, axis] - slope * points_cam_n3[:, 2]).max()
            low = (-points_cam_n3[:, axis] - slope * points_cam_n3[:, 2]).max()
            centre_cam_3[axis] = (high - low) / 2.0
            centre_cam_3[2] = min(centre_cam_3[2], -(high + low) / (2.0 * slope))
        return cls(world_R_cam_33, world_R_cam_33 @ centre_cam_3, focal_px, width, height)

    def rays(self, x_px_n: F64, y_px_n: F64) -> tuple[F64, F64]:
        right_3, down_3, forward_3 = self.world_R_cam_33.T
        across_n1 = ((x_px_n - (self.width_px - 1) / 2.0) / self.focal_px)[:, None]
        along_n1 = ((y_px_n - (self.height_px - 1) / 2.0) / self.focal_px)[:, None]
        # no matrix product: how BLAS rounds depends on the number of threads
        direction_n3 = across_n1 * right_3 + along_n1 * down_3 + forward_3
        return np.broadcast_to(self.centre_m_3, direction_n3.shape), direction_n3


def perspective(
    surface: Surface, cut_z_m: float, width: int, height: int, elevation_rad: float
) -> tuple[NDArray[np.uint8], float]:
    """The room below the cut as a doll's house, (height, width, 3), and the share of the picture that it covers.

    Eight directions stand for choice: 30 and 60 degrees off the walls' main direction in each quarter, so that
    no wall is seen edge-on. The one that sees the largest surface, in square metres, wins.
    """
    shown_v3 = surface.vertices_m_v3.astype(np.float64)
    shown_v3[:, 2] = np.minimum(shown_v3[:, 2], cut_z_m)
    main_rad = _main_direction_rad(surface)

    def view(turn_rad: float, scale: float) -> _Camera:
        size = round(width * scale), round(height * scale)
        return _Camera.framing(shown_v3, main_rad + turn_rad, elevation_rad, *size)

    def seen_m2(turn_rad: float) -> float:
        camera = view(turn_rad, 1 / 8)
        y_px, x_px = np.mgrid[: camera.height_px, : camera.width_px].reshape(2, -1).astype(np.float64)
        origin_n3, direction_n3, start_n = _from_cut(*camera.rays(x_px, y_px), cut_z_m)
        hits = surface.seen_by(camera).cast(origin_n3, direction_n3)
        # a pixel of a plane at right angles to the view has (depth / focal length)^2; a slanted surface has more
        pixel_m2_h = ((start_n[hits.ray_h] + hits.distance_h) / camera.focal_px) ** 2
        return float((pixel_m2_h / np.maximum(hits.cosine_h, 0.2)).sum())

    turns_rad = [quarter * np.pi / 2 + off for quarter in range(4) for off in (np.pi / 6, np.pi / 3)]
    camera = view(max(turns_rad, key=seen_m2), 1.0)
    return _draw(surface.seen_by(camera), camera.rays, height, width, cut_z_m)


def top_down(surface: Surface, cut_z_m: float, max_px: int) -> tuple[NDArray[np.uint8], TopScale]:
    """The room from straight above, to scale, with a bar of one metre below it; and its scale.

    Right is +x; down the picture is -y of the world, which is +z of room.glb. Metres per pixel is the finest
    of 1, 2, 5, 10, 20, ... with which the room fits.
    """
    low_3, high_3 = surface.vertices_m_v3.min(axis=0), surface.vertices_m_v3.max(axis=0)
    longer_m = max(float((high_3 - low_3)[:2].max()), 1.0)  # at least as long as the bar
    metres_per_px = next(
        step * 10.0**power for power in range(-4, 9) for step in (1, 2, 5) if longer_m <= step * 10.0**power * max_px
    )
    margin_px = 24
    left_m = float(np.floor(low_3[0] / metres_per_px) - margin_px) * metres_per_px
    top_m = float(np.ceil(high_3[1] / metres_per_px) + margin_px) * metres_per_px
    width = int(np.ceil((high_3[0] - left_m) / metres_per_px)) + margin_px + 1
    height = int(np.ceil((top_m - low_3[1]) / metres_per_px)) + margin_px + 1
    width = max(width, round(1.0 / metres_per_px) + 4 * margin_px)

    def rays(x_px_n: F64, y_px_n: F64) -> tuple[F64, F64]:
        origin_n3 = np.stack(
            (left_m + x_px_n * metres_per_px, top_m - y_px_n * metres_per_px, np.full_like(x_px_n, high_3[2] + 1.0)),
            axis=1,
        )
        return origin_n3, np.broadcast_to(np.array([0.0, 0.0, -1.0]), origin_n3.shape)

    picture_hw3, _ = _draw(surface.facing(np.array([0.0, 0.0, 1.0])), rays, height, width, cut_z_m)
    scale = TopScale(metres_per_px, left_m, top_m)
    return np.concatenate((picture_hw3, _scale_bar(width, round(1.0 / metres_per_px), margin_px))), scale


def _scale_bar(width: int, metre_px: int, left_px: int) -> NDArray[np.uint8]:
    """(40, width, 3): a white bar of exactly one metre, and "1 m"."""
    import cv2

    strip_hw3 = np.full((40, width, 3), BACKGROUND_RGB, np.uint8)
    strip_hw3[14:18, left_px : left_px + metre_px] = 255
    anchor_px = (left_px + metre_px + 8, 22)
    cv2.putText(strip_hw3, "1 m", anchor_px, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
    return strip_hw3


def _draw(surface: Surface, rays: Rays, height: int, width: int, cut_z_m: float) -> tuple[NDArray[np.uint8], float]:
    """(h, w, 3) uint8 of what lies below the cut, four rays a pixel, and the share of it that is not background.

    The light comes from the viewer and is soft: what faces it has its captured colour, the rest is darker.
    """
    picture_hw3 = np.empty((height, width, 3), np.uint8)
    background_3 = srgb_to_linear(np.array(BACKGROUND_RGB, np.uint8))
    covered = 0
    band_rows = max(1, 2**18 // width)  # bounds the memory
    for first in range(0, height, band_rows):
        y_px, x_px = np.mgrid[first : min(first + band_rows, height), :width].reshape(2, -1).astype(np.float64)
        sum_n3 = np.tile(4.0 * background_3, (len(x_px), 1))
        for dy, dx in ((-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25)):
            origin_n3, direction_n3, _ = _from_cut(*rays(x_px + dx, y_px + dy), cut_z_m)
            hits = surface.cast(origin_n3, direction_n3)
            light_h1 = (AMBIENT + (1.0 - AMBIENT) * hits.cosine_h)[:, None]
            sum_n3[hits.ray_h] += hits.linear_h3 * light_h1 - background_3
            covered += len(hits.ray_h)
        picture_hw3[first : first + band_rows] = linear_to_srgb(sum_n3 / 4.0).reshape(-1, width, 3)
    return picture_hw3, covered / (4.0 * height * width)


def _from_cut(origin_m_n3: F64, direction_n3: F64, cut_z_m: float) -> tuple[F64, F64, F64]:
    """The same rays, beginning where they come down through the cut, and how far along that is.

    So the cut is exact, straight also through triangles that cross it. It needs rays that point down: those of
    top.png do, and those of preview.png since its elevation is above half the field of view.
    """
    start_n = np.maximum((cut_z_m - origin_m_n3[:, 2]) / direction_n3[:, 2], 0.0)
    return origin_m_n3 + start_n[:, None] * direction_n3, direction_n3, start_n


def _main_direction_rad(surface: Surface) -> float:
    """Direction in the plan, of four a quarter turn apart, that most of the walls' surface faces.

    The mean over upright triangles of exp(4 i angle), weighted by area: the four directions count as one.
    """
    upright_f = np.abs(surface.cross_f3[:, 2]) < 0.2 * 2.0 * surface.area_m2_f
    across_f = surface.cross_f3[upright_f, 0] + 1j * surface.cross_f3[upright_f, 1]
    weight_f = np.abs(across_f)
    return float(np.angle((weight_f * np.exp(4j * np.angle(across_f))).sum())) / 4.0
