"""Project, unproject, transform: the mathematics that stages share.

Belongs here: functions on torch tensors (any device, batched) and on single numpy matrices, that more
than one stage needs. Does not belong here: anything with settings. Source of the pinhole model:
Hartley & Zisserman, Multiple View Geometry, ch. 6; pixel centres at integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def unproject(depth_m_bhw: Tensor, K_b33: Tensor) -> Tensor:
    """Points of a depth map in its camera, (b, h, w, 3) metres. Depth is z, not ray length; 0 gives the origin."""
    from kornia.geometry.depth import depth_to_3d_v2

    return depth_to_3d_v2(depth_m_bhw, K_b33)


def project(points_cam_m: Tensor, K_33: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (..., 2) and depth z (...) of camera points (..., 3). Behind the camera z <= 0 and no pixel is right."""
    import torch

    z_m = points_cam_m[..., 2]
    safe_z_m = z_m.masked_fill(z_m.abs() < 1e-9, 1e-9)
    x_px = points_cam_m[..., 0] / safe_z_m * K_33[0, 0] + K_33[0, 2]
    y_px = points_cam_m[..., 1] / safe_z_m * K_33[1, 1] + K_33[1, 2]
    return torch.stack((x_px, y_px), dim=-1), z_m


def transform(b_T_a_44: Tensor, points_a: Tensor) -> Tensor:
    """Points (..., 3) of frame a in frame b."""
    return points_a @ b_T_a_44[:3, :3].T + b_T_a_44[:3, 3]


def invert_pose(b_T_a_44: NDArray[np.float64]) -> NDArray[np.float64]:
    """a_T_b of one or many rigid 4x4 matrices; exact transpose instead of a general inverse."""
    rotation = np.swapaxes(b_T_a_44[..., :3, :3], -1, -2)
    inverse = np.zeros_like(b_T_a_44)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ b_T_a_44[..., :3, 3, None])[..., 0]
    inverse[..., 3, 3] = 1.0
    return inverse


def scaled_intrinsics(K_33: NDArray[np.float64], scale_x: float, scale_y: float) -> NDArray[np.float64]:
    """Intrinsics, one 3x3 or many, of the same view at another resolution. The image's edge lies at -0.5."""
    scaled = np.array(K_33, dtype=np.float64, copy=True)
    scaled[..., 0, :] *= scale_x
    scaled[..., 1, :] *= scale_y
    scaled[..., 0, 2] += (scale_x - 1.0) / 2.0
    scaled[..., 1, 2] += (scale_y - 1.0) / 2.0
    return scaled


def rotation_between(from_3: NDArray[np.float64], to_3: NDArray[np.float64]) -> NDArray[np.float64]:
    """The smallest rotation (3, 3) that takes one direction to another (Rodrigues)."""
    a, b = (np.asarray(v, np.float64) / np.linalg.norm(v) for v in (from_3, to_3))
    cross, cosine = np.cross(a, b), float(a @ b)
    if cosine < -1.0 + 1e-12:  # opposite: half a turn about any axis at right angles
        axis = np.cross(a, np.eye(3)[np.argmin(np.abs(a))])
        axis /= np.linalg.norm(axis)
        return np.asarray(2.0 * np.outer(axis, axis) - np.eye(3), np.float64)
    x, y, z = (float(v) for v in cross)
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + skew + skew @ skew / (1.0 + cosine), np.float64)
