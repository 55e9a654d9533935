"""A truncated signed distance function in sparse blocks of voxels, and the two loops that fuse a frame into it.

A truncated signed distance function (TSDF; Curless & Levoy, SIGGRAPH 1996) averages, in each voxel, how far
in front of the seen surface it lies. Voxels exist only in blocks near a surface (after Niessner et al., TOG
2013), so memory grows with the surface and not with the room's volume. Sums are integers: frames in any order,
on any number of threads, on any device give the same bytes.

Belongs here: what one frame tells the volume, the blocks, adding a frame to them in torch and in numba. Does not
belong here: the order of frames (mesh.py), the surface in the volume (mesh_surface.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.camera import invert_pose, scaled_intrinsics
from geomagic_dagster.cv.stage import ScanRejected, compute_device
from geomagic_dagster.cv.types import DepthMaps, Frames, Poses

if TYPE_CHECKING:
    import torch
    from torch import Tensor

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

# The integers of the sums. One frame adds at most FULL_WEIGHT * QUANTA to a voxel, so int32 holds MAX_FRAMES frames.
QUANTA = 1024  # steps from the surface to the truncation: 0.08 mm at 2 cm voxels
FULL_WEIGHT = 128  # of a fully trusted pixel at up to 1 m; falls with 1 / z^2, as a depth sensor's variance grows
MAX_FRAMES = (2**31 - 1) // (FULL_WEIGHT * QUANTA)
FADE_SHIFT = 18
FADE_ONE = 1 << FADE_SHIFT  # a fade of 1; times FULL_WEIGHT it is still an int32
FADE_FREE = FADE_ONE // 16  # of voxels seen to be free: enough to carve, too little to push a surface
COLOUR_VOXELS = 2.0  # voxels farther from the seen surface take no colour: it may be another surface's

GREY = 128  # of a scan without colour

BLOCK = 8  # voxels along a block's edge; measured: 16 takes 1.8 times the memory and 1.4 times the time
FARTHEST_M = 50.0  # no depth sensor of a room sees farther: a wrong unit
MEMORY_GB = 8.0
BLOCK_BYTES = BLOCK**3 * 6 * 4  # six int32 a voxel
MAX_BLOCKS = int(MEMORY_GB * 1e9 / 3 / BLOCK_BYTES)  # while the arrays grow there are an old one and one twice its size
LARGEST_VIEW = 2**30  # blocks of the box around one frame: the numba kernel marks them in one byte each
FIRST_BLOCKS = 16_384  # more than a furnished room takes


@dataclass(frozen=True, eq=False)
class View:
    """What one frame tells the volume, and from where."""

    place: str
    """For error messages."""
    depth_m_hw: F32
    rgbw_hw4: NDArray[np.uint8]
    """Colour seen at each depth pixel, and its weight: 0 exactly where there is no depth, at most FULL_WEIGHT."""
    world_T_cam_44: F64
    K_33: F64


def look(frames: Frames, poses: Poses, depth: DepthMaps, i: int) -> View | None:
    """Depth, colour and weight of frame i at the depth map's resolution; None where it has no depth."""
    import cv2

    z_hw = np.ascontiguousarray(depth.depth_m_bhw[i], np.float32)
    trust_hw = np.asarray(depth.confidence_255_bhw[i])
    is_seen_hw = (z_hw > 0) & (trust_hw > 0)
    place = f"mesh: frame {int(frames.scan_frame_b[i])}"
    if not is_seen_hw.any():
        return None
    if not z_hw.max() <= FARTHEST_M:  # also where it is not finite
        raise ScanRejected(
            place,
            expected=f"depth of a room in metres, at most {FARTHEST_M:.0f}",
            received=f"{float(z_hw.max()):.1f}",
            do="The depth unit is probably wrong; see `geomagic scan check`.",
        )
    rgb_hw3 = np.zeros((*z_hw.shape, 3), np.uint8)
    if frames.recording.rgb is not None:
        assert frames.recording.K_rgb_b33 is not None, "a recording with colour has its intrinsics"
        K_rgb_33 = frames.recording.K_rgb_b33[i]
        rgb_hw3 = _colour_at_depth(frames.recording.rgb_hw3(i), K_rgb_33, depth.K_b33[i], z_hw.shape)
    weight_hw = trust_hw * np.float32(FULL_WEIGHT / 255) / np.maximum(z_hw * z_hw, np.float32(1)) + np.float32(0.5)
    weight_hw = np.maximum(weight_hw.astype(np.uint8), 1) * is_seen_hw
    rgbw_hw4 = cv2.merge((rgb_hw3, weight_hw)).astype(np.uint8, copy=False)
    return View(place, z_hw, rgbw_hw4, poses.world_T_cam_b44[i], depth.K_b33[i])


def _colour_at_depth(
    rgb_hw3: NDArray[np.uint8], K_rgb_33: F64, K_depth_33: F64, depth_shape_hw: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Colour (h, w, 3) at each pixel of a depth map seen through the same lens."""
    import cv2

    if rgb_hw3.shape[:2] == depth_shape_hw and np.allclose(K_rgb_33, K_depth_33):
        return rgb_hw3
    shrink = min(K_depth_33[0, 0] / K_rgb_33[0, 0], K_depth_33[1, 1] / K_rgb_33[1, 1])
    if shrink < 0.75:  # average first: picking single pixels of a large image is noise
        height, width = rgb_hw3.shape[:2]
        small_wh = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        rgb_hw3 = cv2.resize(rgb_hw3, small_wh, interpolation=cv2.INTER_AREA).astype(np.uint8)
        K_rgb_33 = scaled_intrinsics(K_rgb_33, small_wh[0] / width, small_wh[1] / height)
    rgb_T_depth_33 = K_rgb_33 @ np.linalg.inv(K_depth_33)  # of pixels
    size_wh = (depth_shape_hw[1], depth_shape_hw[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(rgb_hw3, rgb_T_depth_33[:2], size_wh, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return warped.astype(np.uint8)


class BlockVolume:
    """Voxels near the surface, in blocks of BLOCK^3 that are found by their place (x, y, z in blocks).

    Voxel (i, j, k) of the world lies at voxel_m * (i, j, k); v counts the voxels of a block, k fastest.
    `sdf_weight_n2v` int32: sum of weight * distance in quanta; sum of weight.
    `rgb_weight_n4v` int32: sums of weight * red, green, blue; sum of their weight. No rows without colour.
    """

    def __init__(self, voxel_m: float, truncation_voxels: float, has_colour: bool, device: torch.device) -> None:
        self.voxel_m, self.truncation_voxels, self.has_colour = voxel_m, truncation_voxels, has_colour
        self._device = device
        self._key_n = np.zeros(0, np.int64)  # ascending
        self._slot_n = np.zeros(0, np.int64)  # row of each key in the arrays
        self.sdf_weight_n2v = self._zeros(FIRST_BLOCKS, 2)
        self.rgb_weight_n4v = self._zeros(FIRST_BLOCKS if has_colour else 0, 4)

    def __len__(self) -> int:
        return len(self._key_n)

    @property
    def truncation_m(self) -> float:
        return self.voxel_m * self.truncation_voxels

    @property
    def block_m(self) -> float:
        return self.voxel_m * BLOCK

    def coords_n3(self) -> I32:
        """All blocks in ascending order, whatever came first."""
        return _coords(self._key_n)

    def find(self, coords_m3: I32) -> I64:
        """Rows (m,) of blocks in the arrays; -1 where there is none."""
        return self._find(_key(coords_m3))

    def find_or_add(self, coords_m3: I32, place: str) -> I64:
        """Rows (m,) of blocks that do not repeat; adds those that are new.

        Raises: ScanRejected before memory is gone.
        """
        if len(coords_m3) and np.abs(coords_m3).max() >= FARTHEST_BLOCK:
            raise self.too_large(np.vstack([np.zeros((1, 3)), coords_m3]), place)
        key_m = _key(coords_m3)
        slot_m = self._find(key_m)
        is_new_m = slot_m < 0
        count = len(self) + int(is_new_m.sum())
        if count > MAX_BLOCKS:
            raise self.too_large(np.vstack([self.coords_n3(), coords_m3]), place)
        if count > len(self):
            slot_m[is_new_m] = np.arange(len(self), count)
            at = np.searchsorted(self._key_n, key_m[is_new_m])  # new keys ascend, as coordinates do
            self._key_n = np.insert(self._key_n, at, key_m[is_new_m])
            self._slot_n = np.insert(self._slot_n, at, slot_m[is_new_m])
            self._grow_to(count)
        return slot_m

    def _find(self, key_m: I64) -> I64:
        if len(self) == 0:
            return np.full(len(key_m), -1)
        position = np.minimum(np.searchsorted(self._key_n, key_m), len(self) - 1)
        return np.where(self._key_n[position] == key_m, self._slot_n[position], -1)

    def _zeros(self, blocks: int, channels: int) -> Tensor:
        import torch

        shape = (blocks, channels, BLOCK**3)
        if self._device.type == "cpu":  # numpy's zeros take no memory until they are written
            return torch.from_numpy(np.zeros(shape, np.int32))
        return torch.zeros(shape, dtype=torch.int32, device=self._device)

    def _grow_to(self, count: int) -> None:
        old = len(self.sdf_weight_n2v)
        if count <= old:
            return
        blocks = min(MAX_BLOCKS, max(count, 2 * old))
        for name in ("sdf_weight_n2v", "rgb_weight_n4v") if self.has_colour else ("sdf_weight_n2v",):
            grown = self._zeros(blocks, getattr(self, name).shape[1])
            grown[:old] = getattr(self, name)
            setattr(self, name, grown)

    def too_large(self, coords_n3: NDArray[np.number], place: str) -> ScanRejected:
        extent_m = (np.ptp(coords_n3, axis=0) + 1) * self.block_m
        return ScanRejected(
            place,
            expected=f"a surface that fits {MAX_BLOCKS:,} blocks of {self.block_m * 100:.0f} cm, which is what voxels "
            f"of {self.voxel_m * 100:.1f} cm may take of {MEMORY_GB:.0f} GB",
            received=f"more, over {extent_m[0]:.0f} x {extent_m[1]:.0f} x {extent_m[2]:.0f} m",
            do="For a room this is a wrong depth unit or lost tracking (see `geomagic scan check`); "
            "for a very large place raise voxel_m.",
        )


KEY_BITS = 21  # of each axis
FARTHEST_BLOCK = 1 << (KEY_BITS - 1)  # a million to either side of the origin


def _key(coords_m3: I32) -> I64:
    """One integer for each block; ascending keys are ascending coordinates x, y, z."""
    x, y, z = (coords_m3.astype(np.int64) + FARTHEST_BLOCK).T
    return (x << 2 * KEY_BITS) | (y << KEY_BITS) | z


def _coords(key_n: I64) -> I32:
    axes = [(key_n >> shift) & ((1 << KEY_BITS) - 1) for shift in (2 * KEY_BITS, KEY_BITS, 0)]
    return (np.stack(axes, axis=-1) - FARTHEST_BLOCK).astype(np.int32)


def choose_kernel(name: str) -> Kernel:
    import torch

    device = compute_device()
    if name == "torch" or (name == "auto" and device.type != "cpu"):
        return TorchKernel(device)
    return NumbaKernel(torch.device("cpu"))


class Kernel(ABC):
    """The two loops over pixels and voxels; both kinds give equal bits (see mesh_kernels.py for why)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @abstractmethod
    def touch(self, view: View, volume: BlockVolume) -> I32:
        """Blocks (m, 3), ascending, that a frame's rays enter within the truncation of their surface."""

    @abstractmethod
    def integrate(self, view: View, volume: BlockVolume, coords_m3: I32, slot_m: I64) -> None:
        """Adds a frame to the voxels of m blocks, rows `slot_m` of the volume.

        A voxel takes the distance along the optical axis between itself and the surface seen in the pixel
        it falls on, unless it lies more than the truncation behind that surface.
        """


@dataclass(frozen=True, eq=False)
class Rays:
    """The pixels that `touch` walks along, in units of blocks: point = origin + z (direction_w + direction_h)."""

    depth_m_hw: F32
    direction_w3: F32
    direction_h3: F32
    origin_3: F32
    offsets_m: F32
    """Where along a ray blocks are looked up, relative to its depth."""


def _rays(view: View, volume: BlockVolume) -> Rays:
    truncation_m, block_m = volume.truncation_m, volume.block_m
    pixel_at_farthest_m = float(view.depth_m_hw.max()) / min(view.K_33[0, 0], view.K_33[1, 1])
    stride = max(1, int(block_m / 4 / pixel_at_farthest_m))  # four rays through the width of a block see its corners
    every = (slice(None, None, stride), slice(None, None, stride))
    seen_m_hw = view.depth_m_hw[every] * (view.rgbw_hw4[(*every, 3)] > 0)
    columns, rows = (np.arange(0, size, stride) for size in view.depth_m_hw.shape[::-1])
    x_w = (columns - view.K_33[0, 2]) / view.K_33[0, 0]
    y_h = (rows - view.K_33[1, 2]) / view.K_33[1, 1]
    right_3, down_3, forward_3, origin_3 = view.world_T_cam_44[:3].T / block_m
    steps = int(np.ceil(2 * truncation_m / (block_m / 2))) + 1
    return Rays(
        depth_m_hw=seen_m_hw,
        direction_w3=(x_w[:, None] * right_3).astype(np.float32),
        direction_h3=(y_h[:, None] * down_3 + forward_3).astype(np.float32),
        origin_3=origin_3.astype(np.float32),
        offsets_m=np.linspace(-truncation_m, truncation_m, steps).astype(np.float32),
    )


@dataclass(frozen=True, eq=False)
class Projection:
    """Voxels to pixels by one sum: (x z, y z, z) of voxel v of block m = base_m3[m] + step_3v[:, v]."""

    base_m3: F32
    step_3v: F32
    quanta_per_m: np.float32
    fade: int
    """A weight is cut to fade * (QUANTA - |distance|) / FADE_ONE: from one voxel off the surface on it falls, so that
    a thin board's two faces disturb each other less (Curless & Levoy, section 3), and to both sides alike: where
    frames disagree, a surface that weighs more in front than behind is pushed back by their disagreement."""
    colour_quanta: int


def _projection(view: View, volume: BlockVolume, coords_m3: I32) -> Projection:
    K_33 = view.K_33.copy()
    K_33[:2, 2] += 0.5  # so that cutting off the fraction rounds to the nearest pixel centre
    pixel_T_world_34 = K_33 @ invert_pose(view.world_T_cam_44)[:3]
    axis_33, offset_3 = pixel_T_world_34[:, :3].T, pixel_T_world_34[:, 3]

    def along_axes(points_m_n3: F64) -> F64:  # not a matrix product, whose order of summing is the library's
        return points_m_n3[:, :1] * axis_33[0] + points_m_n3[:, 1:2] * axis_33[1] + points_m_n3[:, 2:] * axis_33[2]

    voxels_v3 = np.stack(np.unravel_index(np.arange(BLOCK**3), (BLOCK, BLOCK, BLOCK)), axis=-1)
    voxel_quanta = QUANTA / volume.truncation_voxels
    return Projection(
        base_m3=(along_axes(coords_m3 * np.float64(volume.block_m)) + offset_3).astype(np.float32),
        step_3v=np.ascontiguousarray(along_axes(voxels_v3 * np.float64(volume.voxel_m)).T, np.float32),
        quanta_per_m=np.float32(QUANTA / volume.truncation_m),
        fade=int(FADE_ONE / (QUANTA - voxel_quanta)),
        colour_quanta=int(COLOUR_VOXELS * voxel_quanta),
    )


class TorchKernel(Kernel):
    """The reference, on any device."""

    def touch(self, view: View, volume: BlockVolume) -> I32:
        import torch

        rays = _rays(view, volume)
        z_hw, direction_w3, direction_h3, origin_3, offsets_m = (
            torch.from_numpy(a).to(self.device)
            for a in (rays.depth_m_hw, rays.direction_w3, rays.direction_h3, rays.origin_3, rays.offsets_m)
        )
        along_p = (z_hw[..., None] + offsets_m)[z_hw > 0]
        direction_p3 = (direction_w3 + direction_h3[:, None])[z_hw > 0]
        points_blocks = along_p[..., None] * direction_p3[:, None]
        blocks_p3 = torch.floor(points_blocks + origin_3).to(torch.int32).reshape(-1, 3)
        return torch.unique(blocks_p3, dim=0).cpu().numpy()  # ascending, first axis first

    def integrate(self, view: View, volume: BlockVolume, coords_m3: I32, slot_m: I64) -> None:
        import torch

        projection = _projection(view, volume, coords_m3)
        height, width = view.depth_m_hw.shape
        depth_m_p = torch.from_numpy(view.depth_m_hw).to(self.device).flatten()
        rgbw_p4 = torch.from_numpy(view.rgbw_hw4).to(self.device).reshape(-1, 4)
        step_3v = torch.from_numpy(projection.step_3v).to(self.device)
        base_m3 = torch.from_numpy(projection.base_m3).to(self.device)
        slot_m_ = torch.from_numpy(slot_m).to(self.device)

        # Where each voxel falls.
        x_z_mv, y_z_mv, z_mv = (base_m3[:, None] + step_3v.T).unbind(-1)
        x_px_mv, y_px_mv = x_z_mv / z_mv, y_z_mv / z_mv
        is_inside_mv = (z_mv > 0) & (x_px_mv >= 0) & (x_px_mv < width) & (y_px_mv >= 0) & (y_px_mv < height)
        column_mv, row_mv = (torch.where(is_inside_mv, px, 0).to(torch.int64) for px in (x_px_mv, y_px_mv))
        pixel_mv = row_mv * width + column_mv

        # How far it lies in front of what is seen there, and how much that is worth.
        rgbw_mv4 = rgbw_p4[pixel_mv].to(torch.int32)
        distance_mv = ((depth_m_p[pixel_mv] - z_mv) * float(projection.quanta_per_m)).clamp(-QUANTA, QUANTA)
        above_lowest_mv = (distance_mv + QUANTA + 0.5).to(torch.int32)
        to_truncation_mv = torch.minimum(above_lowest_mv, 2 * QUANTA - above_lowest_mv)
        faded_mv = (to_truncation_mv * projection.fade).clamp(max=FADE_ONE)
        faded_mv = torch.where(above_lowest_mv > QUANTA, faded_mv.clamp(min=FADE_FREE), faded_mv)
        weight_mv = ((rgbw_mv4[..., 3] * faded_mv) >> FADE_SHIFT).clamp(min=1)
        weight_mv *= is_inside_mv & (rgbw_mv4[..., 3] > 0) & (above_lowest_mv > 0)
        quantum_mv = above_lowest_mv - QUANTA

        volume.sdf_weight_n2v[slot_m_] += torch.stack((weight_mv * quantum_mv, weight_mv), dim=1)
        if volume.has_colour:
            near_weight_mv = weight_mv * (quantum_mv.abs() <= projection.colour_quanta)
            rgb_m3v = rgbw_mv4[..., :3].movedim(-1, 1) * near_weight_mv[:, None]
            volume.rgb_weight_n4v[slot_m_] += torch.cat((rgb_m3v, near_weight_mv[:, None]), dim=1)


class NumbaKernel(Kernel):
    """The fast path on a CPU."""

    def touch(self, view: View, volume: BlockVolume) -> I32:
        from geomagic_dagster.cv.mesh_kernels import mark_touched

        rays = _rays(view, volume)
        z_m = rays.depth_m_hw[rays.depth_m_hw > 0]
        direction_lowest_3 = rays.direction_w3.min(0) + rays.direction_h3.min(0)
        direction_highest_3 = rays.direction_w3.max(0) + rays.direction_h3.max(0)
        along_2 = np.array([z_m.min() + rays.offsets_m[0], z_m.max() + rays.offsets_m[-1]])
        corners = np.stack([along * d for along in along_2 for d in (direction_lowest_3, direction_highest_3)])
        lowest_3 = np.floor(corners.min(0) + rays.origin_3).astype(np.int64) - 1
        highest_3 = np.floor(corners.max(0) + rays.origin_3).astype(np.int64) + 1
        if np.prod(highest_3 - lowest_3 + 1.0) > LARGEST_VIEW:
            raise volume.too_large(np.stack([lowest_3, highest_3]), view.place)
        is_touched_xyz = np.zeros(highest_3 - lowest_3 + 1, np.bool_)
        mark_touched(
            rays.depth_m_hw,
            rays.direction_w3,
            rays.direction_h3,
            rays.origin_3,
            rays.offsets_m,
            lowest_3,
            is_touched_xyz,
        )
        return (np.argwhere(is_touched_xyz) + lowest_3).astype(np.int32)

    def integrate(self, view: View, volume: BlockVolume, coords_m3: I32, slot_m: I64) -> None:
        from geomagic_dagster.cv.mesh_kernels import integrate

        projection = _projection(view, volume, coords_m3)
        height, width = view.depth_m_hw.shape
        integrate(
            view.depth_m_hw.reshape(-1),
            view.rgbw_hw4.view("<u4").reshape(-1),
            width,
            height,
            projection.base_m3,
            projection.step_3v,
            slot_m,
            QUANTA,
            projection.quanta_per_m,
            projection.fade,
            FADE_FREE,
            FADE_SHIFT,
            projection.colour_quanta,
            volume.sdf_weight_n2v.numpy(),
            volume.rgb_weight_n4v.numpy(),
        )
