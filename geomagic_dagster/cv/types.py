"""The nouns: what stages take and make. Shapes, units and axes are said here, once.

Everywhere inside: metres, seconds, radians; poses are camera-to-world; camera axes as in OpenCV
(x right, y down, z forward); world z up; the centre of the first pixel is (0, 0).

A field's name carries what it holds: `world_T_cam_b44` takes points of the camera to the world, one
4x4 matrix for each of b frames; `depth_m_bhw` is in metres. Letters: b frames, h rows, w columns,
v vertices, f triangles. Frames of reference: `scan` is the device's own world turned to z up by the
reader; `world` is the same with gravity exactly along -z (same origin); `cam` is a camera.

Does not belong here: anything that computes more than a lookup.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.containers import EncodedImages, Files

__all__ = ["DepthMaps", "Frames", "Furniture", "Layout", "Mesh", "Package", "Poses", "Recording", "Refinement", "Scan"]

F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Recording:
    """b moments of a walk: the images, and what the camera knew of each."""

    rgb: EncodedImages | None
    """(h, w, 3) uint8 each; None where the scan has no colour."""
    depth: EncodedImages | None
    """(h', w') uint16 each, seen through the same lens as rgb, often at a lower resolution; z, not ray length."""
    depth_confidence: EncodedImages | None
    """(h', w') uint8 each, from 0 (none) to `depth_confidence_max` (full)."""
    timestamp_s_b: F64
    """Rising. Seconds since whenever the device likes."""
    K_rgb_b33: F64 | None
    K_depth_b33: F64 | None
    """Pinhole intrinsics in pixels of the rgb and of the depth images."""
    metres_per_depth_unit: float = 0.001
    invalid_depth_units: tuple[int, ...] = (0,)
    """Stored values that mean "no depth here"."""
    depth_confidence_max: int = 2
    distortion_5: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    """k1 k2 p1 p2 k3 of OpenCV; removed by `rgb_hw3` and `depth_m_hw`."""

    def __len__(self) -> int:
        return len(self.timestamp_s_b)

    def select(self, index_b: NDArray[np.int64]) -> Recording:
        """The same recording with only these frames."""
        return replace(
            self,
            rgb=self.rgb.select(index_b) if self.rgb is not None else None,
            depth=self.depth.select(index_b) if self.depth is not None else None,
            depth_confidence=self.depth_confidence.select(index_b) if self.depth_confidence is not None else None,
            timestamp_s_b=self.timestamp_s_b[index_b],
            K_rgb_b33=self.K_rgb_b33[index_b] if self.K_rgb_b33 is not None else None,
            K_depth_b33=self.K_depth_b33[index_b] if self.K_depth_b33 is not None else None,
        )

    def rgb_hw3(self, index: int) -> NDArray[np.uint8]:
        """Colour of one frame without lens distortion, (h, w, 3) uint8."""
        assert self.rgb is not None and self.K_rgb_b33 is not None, "this recording has no colour"
        return self._undistorted(self.rgb[index], self.K_rgb_b33[index], nearest=False)

    def depth_m_hw(self, index: int) -> NDArray[np.float32]:
        """Depth of one frame in metres without lens distortion, (h, w) float32, 0 where there is none."""
        assert self.depth is not None and self.K_depth_b33 is not None, "this recording has no depth"
        units_hw = self.depth[index]
        depth_m_hw = units_hw.astype(np.float32) * np.float32(self.metres_per_depth_unit)
        depth_m_hw[np.isin(units_hw, self.invalid_depth_units)] = 0.0
        return self._undistorted(depth_m_hw, self.K_depth_b33[index], nearest=True)

    def depth_confidence_hw(self, index: int) -> NDArray[np.float32] | None:
        """The device's own trust in its depth, (h, w) float32 from 0 to 1; None where it gives none."""
        if self.depth_confidence is None:
            return None
        assert self.K_depth_b33 is not None, "this recording has no depth"
        confidence_hw = self.depth_confidence[index].astype(np.float32) / np.float32(self.depth_confidence_max)
        return self._undistorted(confidence_hw, self.K_depth_b33[index], nearest=True)

    def _undistorted(self, image: NDArray[Any], K_33: F64, *, nearest: bool) -> NDArray[Any]:
        if not any(self.distortion_5):
            return image
        import cv2

        size_wh = (image.shape[1], image.shape[0])
        maps = cv2.initUndistortRectifyMap(K_33, np.array(self.distortion_5), np.eye(3), K_33, size_wh, cv2.CV_32FC1)
        return cv2.remap(image, *maps, cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR, borderValue=0)


@dataclass(frozen=True, eq=False)
class Scan:
    """A walk through a room, as any reader of `scans/` gives it."""

    name: str
    source_format: str
    recording: Recording
    scan_T_cam_b44: F64 | None
    """Camera-to-world of each frame in the device's world, turned to z up; None where the scan has no poses."""
    is_metric: bool
    """False where lengths are in unknown units (structure from motion without a scale)."""
    down_scan_3: tuple[float, float, float] | None
    """Direction of gravity (length 1) where device or format vouch for it; None where nobody knows."""
    device: str = "unknown"
    consent: Literal["unknown", "process", "research"] = "unknown"
    """What the person who scanned agreed to: nothing said; processing only; also research."""


@dataclass(frozen=True, eq=False)
class Frames:
    """The frames worth keeping (b), and why the others (of n in the scan) were dropped."""

    recording: Recording
    scan_frame_b: NDArray[np.int64]
    """Row b here is frame `scan_frame_b[b]` of the scan."""
    sharpness_n: F64
    """Of every frame of the scan, relative to its neighbours: 1 as sharp as they, 0 fully blurred."""
    brightness_n: F64
    """Mean luminance of every frame of the scan, 0 black to 1 white."""
    dropped: tuple[tuple[int, str], ...]
    """(frame of the scan, why it was dropped)."""


@dataclass(frozen=True, eq=False)
class Refinement:
    """How the poses of b frames came from the odometry."""

    odometry_world_T_cam_b44: F64
    """Where the device said that the camera was, in the same world."""
    anchor: int
    """Row of the frame that stayed where the device had it: the first used one that fits its neighbours."""
    pairs: int
    """Pairs of frames that see the same surfaces and were held against each other."""
    loop_closures: int
    """Those of them between which the camera went elsewhere and came back."""
    disagreement_before_m: float | None
    """Median distance between the same surfaces in the pairs' frames, by the odometry; None without any pair."""
    disagreement_after_m: float | None


@dataclass(frozen=True, eq=False)
class Poses:
    """Where the camera was for each of the b kept frames, with gravity along -z."""

    world_T_cam_b44: F64
    world_T_scan_44: F64
    """A pure rotation: what made the device's world upright."""
    is_used_b: NDArray[np.bool_]
    """False where a frame was cut because its pose does not fit the others."""
    disagreement_m_b: F64
    """Median distance between a frame's depth and that of its neighbours; NaN where nothing overlaps."""
    gravity_from: Literal["device", "floor"]
    floor_z_world_m: float | None
    """Height of the floor; None where no floor was seen."""
    floor_tilt_deg: float | None
    """Angle between the floor and the horizontal as gravity has it; None where no floor was seen."""
    cuts: tuple[tuple[int, str], ...]
    """(frame of the scan, why its pose was cut)."""
    refinement: Refinement | None = None
    """What was done to the odometry; None where these poses are the odometry."""

    def used(self) -> list[int]:
        """The frames that were not cut, as indices of rows here."""
        return [int(i) for i in np.flatnonzero(self.is_used_b)]


@dataclass(frozen=True, eq=False)
class DepthMaps:
    """Cleaned depth of the b kept frames; frames that poses cut have none."""

    depth_m_bhw: NDArray[np.float32]
    """z in metres; 0 where there is none."""
    confidence_255_bhw: NDArray[np.uint8]
    """0 no trust to 255 full trust; 0 exactly where there is no depth."""
    K_b33: F64
    """Intrinsics in pixels of these maps."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """The surface of the room in the world frame."""

    vertices_world_m_v3: NDArray[np.float32]
    triangles_f3: NDArray[np.int32]
    """Counter-clockwise seen from the free side."""
    rgb_v3: NDArray[np.uint8]
    normals_world_v3: NDArray[np.float32]
    voxel_m: float
    """Edge of the voxels it was extracted from."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Floor, ceiling, walls and openings of the room. Sigmas are standard deviations, calibrated on made-up rooms."""

    corners_world_m_n2: F64
    """Footprint, counter-clockwise seen from above. Wall i runs from corner i to corner i + 1, on the room's side of
    the wall; where `is_closed` the last one runs back to corner 0."""
    is_closed: bool
    """False where only a part of the room was seen: then the polygon has two open ends."""
    wall_is_guessed_w: NDArray[np.bool_]
    """True for a wall that nobody saw and that only closes the footprint."""
    wall_sigma_m_w: F64
    """Of the wall's distance from where it is said to be, at right angles to it."""
    wall_confidence_w: F64
    """0 to 1."""
    corner_sigma_m_n: F64
    length_sigma_m_w: F64
    floor_z_world_m: float | None
    floor_sigma_m: float
    ceiling_z_world_m: float | None
    """Of the largest level part; None where no ceiling was seen."""
    ceiling_sigma_m: float
    floor_levels_world_m_l: F64
    """Heights of all level parts of the floor, largest first (steps, platforms)."""
    ceiling_planes_l4: F64
    """(l, 4) a, b, c, area_m2 of the parts of the ceiling, z = a x + b y + c, largest first; a = b = 0 where level."""
    opening_kind_k: tuple[Literal["door", "window", "passage"], ...]
    opening_wall_k: NDArray[np.int64]
    opening_start_m_k: F64
    """Along the wall from its first corner to the opening's nearer edge."""
    opening_width_m_k: F64
    opening_sill_m_k: F64
    """Lower edge above the floor."""
    opening_height_m_k: F64
    opening_sigma_m_k: F64
    opening_confidence_k: F64
    area_sigma_m2: float
    snapped: str
    """What was snapped to what, and on what evidence; empty where nothing was."""
    warnings: tuple[str, ...]
    """Sentences for a person: what was not seen, what was guessed."""


@dataclass(frozen=True, eq=False)
class Furniture:
    """Oriented boxes of what stands in the room, hangs on its walls or stands on something else (k pieces)."""

    kind_k: tuple[str, ...]
    """RoomPlan's categories (storage, bed, table, sofa, chair, television, ...), else "object"."""
    centre_world_m_k3: F64
    size_m_k3: F64
    """Width along the box's own x, depth along its y, height."""
    yaw_world_rad_k: F64
    """Of the box's own x from the world's x, about z."""
    size_sigma_m_k3: F64
    centre_sigma_m_k3: F64
    confidence_k: F64
    stands_on_k: NDArray[np.int64]
    """Index of the piece that it stands on; -1 the floor; -2 it hangs on a wall."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Package:
    """What the person receives: room.glb, room.json, floor plan, measurements, pictures, manifest.json."""

    files: Files
