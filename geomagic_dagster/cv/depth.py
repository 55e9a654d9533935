"""Cleaned metric depth for each frame, with a confidence for each pixel.

First each depth map by itself: out of range, doubted by the device, or *flying* (a pixel that mixes the
front and the back of an edge and hangs in the air between them). Then each against its neighbours: a point
that other frames see too is trusted, a point that other frames look straight through is removed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.camera import invert_pose, project, transform, unproject
from geomagic_dagster.cv.containers import scratch_array
from geomagic_dagster.cv.stage import Field, Params, ScanRejected, compute_device, minutes, progress, stage
from geomagic_dagster.cv.types import DepthMaps, Frames, Poses

if TYPE_CHECKING:
    from torch import Tensor


class DepthParams(Params):
    near_m: float = Field(0.1, ge=0, description="Ignore everything nearer than this.")
    far_m: float = Field(8.0, gt=0, description="Ignore everything beyond this.")
    max_incidence_deg: float = Field(
        85.0, gt=45, lt=90, description="Remove surfaces seen at a flatter angle: flying pixels."
    )
    tolerance_m: float = Field(
        0.03, gt=0, description="Two frames agree on a point at 1 m within this; in proportion beyond."
    )
    neighbours: int = Field(
        4, ge=0, le=16, description="Compare each frame with this many others. 0: trust every frame alone."
    )


@stage(
    version="1",
    timeout=minutes(3),
    gpu=True,
    memory_gb=4,
    expects={"coverage": (0.2, 1.0), "confidence_mean": (0.2, 1.0)},
)
def depth(frames: Frames, poses: Poses, params: DepthParams = DepthParams()) -> DepthMaps:
    """Removes what is no surface and says how far to trust the rest.

    Raises: ScanRejected where no frame has usable depth.
    """
    import torch

    recording, device = frames.recording, compute_device()
    assert recording.K_depth_b33 is not None, "the odometry stage rejects scans without depth"
    shape_bhw = (len(recording), *recording.depth_m_hw(0).shape)
    K_b33 = torch.tensor(recording.K_depth_b33, dtype=torch.float32, device=device)

    single_m_bhw, trust_bhw = scratch_array(shape_bhw, np.float32), scratch_array(shape_bhw, np.uint8)
    for i in progress(poses.used(), "depth maps cleaned"):
        depth_m_hw, trust_hw = _clean_alone(recording.depth_m_hw(i), recording.depth_confidence_hw(i), K_b33[i], params)
        single_m_bhw[i], trust_bhw[i] = depth_m_hw.cpu().numpy(), trust_hw.cpu().numpy()
    if not any(single.any() for single in single_m_bhw):
        raise ScanRejected(
            "depth",
            expected=f"surfaces between {params.near_m} and {params.far_m} m away",
            received="no usable depth in any frame",
            do="Check the depth unit with `geomagic scan check`; scan with surfaces within a few metres.",
        )

    depth_m_bhw, confidence_255_bhw = scratch_array(shape_bhw, np.float32), scratch_array(shape_bhw, np.uint8)
    for i in progress(poses.used(), "depth maps compared"):
        agree_hw, through_hw = _compare(
            i, _choose_neighbours(i, poses, params.neighbours), single_m_bhw, K_b33, poses, params
        )
        keep_hw = ~((through_hw >= 2) & (through_hw > agree_hw)).cpu().numpy()
        # A point seen once may be right; one that two others confirm is.
        share_hw = (0.4 + 0.3 * agree_hw.clamp(max=2)).cpu().numpy() if params.neighbours else 1.0
        kept_m_hw = single_m_bhw[i] * keep_hw
        depth_m_bhw[i] = kept_m_hw
        confidence_255_bhw[i] = np.where(kept_m_hw > 0, np.maximum(1, np.rint(trust_bhw[i] * share_hw)), 0)
    return DepthMaps(depth_m_bhw=depth_m_bhw, confidence_255_bhw=confidence_255_bhw, K_b33=recording.K_depth_b33)


def measure_depth(depth: DepthMaps) -> dict[str, float]:
    has_depth = pixels = trust = 0
    nearest_m, median_m = np.inf, []
    for depth_m_hw, confidence_hw in zip(depth.depth_m_bhw, depth.confidence_255_bhw, strict=True):
        valid_m = depth_m_hw[depth_m_hw > 0]
        if len(valid_m) == 0:
            continue
        has_depth += len(valid_m)
        pixels += depth_m_hw.size
        trust += int(confidence_hw.sum())
        nearest_m = min(nearest_m, float(valid_m.min()))
        median_m.append(float(np.median(valid_m)))
    return {
        "coverage": has_depth / max(1, pixels),
        "confidence_mean": trust / 255 / max(1, has_depth),
        "depth_median_m": float(np.median(median_m)) if median_m else 0.0,
        "depth_nearest_m": nearest_m if median_m else 0.0,
    }


def preview_depth(depth: DepthMaps) -> NDArray[np.uint8]:
    """Depth (near warm, far cold) above confidence of three frames along the walk."""
    import cv2

    picks = np.linspace(0, len(depth.depth_m_bhw) - 1, 5).round().astype(int)[1:4]
    columns = []
    for i in picks:
        depth_m_hw = cv2.resize(np.asarray(depth.depth_m_bhw[i]), (213, 160), interpolation=cv2.INTER_NEAREST)
        trust_hw = cv2.resize(np.asarray(depth.confidence_255_bhw[i]), (213, 160), interpolation=cv2.INTER_NEAREST)
        shade_hw = np.clip(255 * (1 - depth_m_hw / 6.0), 0, 255).astype(np.uint8)
        colour_hw3 = cv2.applyColorMap(shade_hw, cv2.COLORMAP_TURBO)[..., ::-1] * (depth_m_hw > 0)[..., None]
        columns.append(np.vstack([colour_hw3, np.repeat(trust_hw[..., None], 3, axis=2)]))
    return np.hstack(columns).astype(np.uint8)


def _clean_alone(
    depth_m_hw: NDArray[np.float32], device_trust_hw: NDArray[np.float32] | None, K_33: Tensor, params: DepthParams
) -> tuple[Tensor, Tensor]:
    """(h, w) metres with 0 where nothing is left, and (h, w) uint8 trust from the device and the viewing angle."""
    import torch
    from kornia.filters import box_blur
    from kornia.geometry.depth import depth_to_normals

    z_hw = torch.from_numpy(np.ascontiguousarray(depth_m_hw)).to(K_33.device)
    valid_hw = torch.isfinite(z_hw) & (z_hw >= params.near_m) & (z_hw <= params.far_m)
    trust_hw = torch.ones_like(z_hw)
    if device_trust_hw is not None:
        trust_hw = torch.from_numpy(np.ascontiguousarray(device_trust_hw)).to(z_hw)
        valid_hw &= trust_hw > 0
    z_hw = torch.where(valid_hw, z_hw, torch.zeros_like(z_hw))
    valid_hw &= ~_is_flying(z_hw, K_33, params.max_incidence_deg)
    z_hw = torch.where(valid_hw, z_hw, torch.zeros_like(z_hw))
    # The viewing angle from a map without holes and with less noise: the mean of what is valid within 5 x 5.
    mean_hw, share_hw = box_blur(torch.stack((z_hw, valid_hw.to(z_hw)))[None], (5, 5))[0]
    normal_3hw = depth_to_normals((mean_hw / share_hw.clamp(min=0.01))[None, None], K_33[None])[0]
    ray_3hw = torch.nn.functional.normalize(unproject(torch.ones_like(z_hw)[None], K_33[None])[0], dim=-1).permute(
        2, 0, 1
    )
    facing_hw = (normal_3hw * ray_3hw).sum(0).clamp(0.25, 1.0)
    return z_hw, torch.where(valid_hw, torch.round(255 * trust_hw * facing_hw), torch.zeros_like(z_hw)).to(torch.uint8)


def _is_flying(z_m_hw: Tensor, K_33: Tensor, max_incidence_deg: float) -> Tensor:
    """(h, w): pixels that mix the front and the back of an edge, and pixels without any neighbour.

    Seen at incidence a, depth changes by z tan(a) / f from pixel to pixel. A pixel at the rim of a surface has
    a small step to one of its sides, a flying one has large steps to both.
    """
    import torch

    steepest = float(np.tan(np.radians(max_incidence_deg)))
    steep_hw, alone_hw = torch.zeros_like(z_m_hw, dtype=torch.bool), torch.ones_like(z_m_hw, dtype=torch.bool)
    for axis, focal_px in ((1, K_33[0, 0]), (0, K_33[1, 1])):
        before_hw = z_m_hw.roll(1, axis)
        step_hw = torch.where((before_hw > 0) & (z_m_hw > 0), (z_m_hw - before_hw).abs(), torch.inf)
        smaller_hw = torch.minimum(step_hw, step_hw.roll(-1, axis))
        steep_hw |= torch.isfinite(smaller_hw) & (smaller_hw > steepest * z_m_hw / focal_px)
        alone_hw &= torch.isinf(smaller_hw)
    return steep_hw | alone_hw


def _choose_neighbours(i: int, poses: Poses, count: int) -> list[int]:
    """Used frames near in time that look the same way from another place: at least 5 cm aside."""
    pose_b44 = poses.world_T_cam_b44
    alike_b = pose_b44[:, :3, 2] @ pose_b44[i, :3, 2] > 0.7
    aside_m_b = np.linalg.norm(pose_b44[:, :3, 3] - pose_b44[i, :3, 3], axis=1)
    candidates = np.flatnonzero(poses.is_used_b & alike_b & (aside_m_b > 0.05) & (aside_m_b < 1.5))
    return [int(j) for j in candidates[np.argsort(np.abs(candidates - i), kind="stable")[:count]]]


def _compare(
    i: int, neighbours: list[int], depth_m_bhw: NDArray[np.float32], K_b33: Tensor, poses: Poses, params: DepthParams
) -> tuple[Tensor, Tensor]:
    """For each pixel of frame i: how many neighbours see its point (h, w), and how many look through it (h, w)."""
    import torch

    z_i_hw = torch.from_numpy(np.ascontiguousarray(depth_m_bhw[i])).to(K_b33.device)
    points_hw3 = unproject(z_i_hw[None], K_b33[i : i + 1])[0]
    agree_hw, through_hw = (torch.zeros(z_i_hw.shape, dtype=torch.int32, device=K_b33.device) for _ in range(2))
    height, width = z_i_hw.shape
    for j in neighbours:
        cam_j_T_cam_i = invert_pose(poses.world_T_cam_b44[j]) @ poses.world_T_cam_b44[i]
        pixel_hw2, z_hw = project(transform(points_hw3.new_tensor(cam_j_T_cam_i), points_hw3), K_b33[j])
        x_hw, y_hw = pixel_hw2.round().long().unbind(-1)
        inside_hw = (z_i_hw > 0) & (z_hw > params.near_m) & (x_hw >= 0) & (x_hw < width) & (y_hw >= 0) & (y_hw < height)
        z_j_hw = torch.from_numpy(np.ascontiguousarray(depth_m_bhw[j])).to(K_b33.device)
        seen_hw = torch.where(
            inside_hw, z_j_hw[y_hw.clamp(0, height - 1), x_hw.clamp(0, width - 1)], torch.zeros_like(z_hw)
        )
        tolerance_hw = params.tolerance_m * z_hw.clamp(min=1.0)
        agree_hw += (seen_hw > 0) & ((seen_hw - z_hw).abs() <= tolerance_hw)
        through_hw += (seen_hw > 0) & (seen_hw > z_hw + 3 * tolerance_hw)
    return agree_hw, through_hw
