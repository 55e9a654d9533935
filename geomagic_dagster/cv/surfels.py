"""Depth maps as surfels: some thousand points with normals a view, only where a surface is flat and well seen.

Where a surface is flat the inverse of its depth is linear in the picture, so a plane is fitted to that, over 3 x 3
cells of a coarse grid: its point and normal have the noise of some hundred pixels taken together, and where no plane
fits (edges, flying pixels) there is no surfel.

Does not belong here: what surfels are used for (alignment.py, floor.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.camera import scaled_intrinsics

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]

CELLS_ACROSS = 80
"""Surfels in a row of a picture."""
LEAST_SHARE = 0.6
"""Of the pixels around a surfel so many have depth."""
ROUGH = 2.5
"""A surfel whose pixels scatter so many times as widely about its plane as usual lies on an edge."""
SMOOTH = 0.0005
"""... as usual, but at least so much, as a share of depth."""
LEAST_FACING = 0.26
"""Cosine of 75 degrees: more glancing surfaces are not used."""
FARTHEST_M = 100.0


@dataclass(frozen=True, eq=False)
class Surfels:
    """Points with normals on a grid over each of b views; weight 0 where there is none."""

    point_cam_m_bhw3: F32
    normal_cam_bhw3: F32
    """Towards the camera."""
    weight_bhw: F32
    """The device's trust, 0 to 1."""
    K_b33: F64
    """Intrinsics in cells."""

    def in_world(self, world_T_cam_b44: F64) -> tuple[F64, F64, F64]:
        """(p, 3) points, (p, 3) normals, (p,) area in m2 that each stands for."""
        is_there = self.weight_bhw > 0
        b_p = np.nonzero(is_there)[0]
        point_p3 = self.point_cam_m_bhw3[is_there].astype(np.float64)
        normal_p3 = self.normal_cam_bhw3[is_there].astype(np.float64)
        facing_p = -(normal_p3 * point_p3).sum(1) / np.linalg.norm(point_p3, axis=1)
        area_p = point_p3[:, 2] ** 2 / (self.K_b33[b_p, 0, 0] * self.K_b33[b_p, 1, 1] * facing_p)
        turn_p33 = world_T_cam_b44[b_p, :3, :3]
        in_world_p3 = np.einsum("pij,pj->pi", turn_p33, point_p3) + world_T_cam_b44[b_p, :3, 3]
        return in_world_p3, np.einsum("pij,pj->pi", turn_p33, normal_p3), area_p


def surfels_of(depth_and_trust: Iterable[tuple[F32, F32]], K_b33: F64) -> Surfels:
    """Surfels of b views.

    Args:
        depth_and_trust: of each view (h, w) metres with 0 where there is none, and (h, w) trust from 0 to 1.
        K_b33: intrinsics in pixels.
    """
    from geomagic_dagster.cv import alignment_kernels

    planes, spreads, trusts, step = [], [], [], 1
    for (depth_m_hw, trust_hw), K_33 in zip(depth_and_trust, K_b33, strict=True):
        step = max(1, round(depth_m_hw.shape[1] / CELLS_ACROSS))
        shape = (depth_m_hw.shape[0] // step, depth_m_hw.shape[1] // step)
        plane_hw3, spread_hw, share_hw, trust_cells_hw = (np.zeros((*shape, *rest)) for rest in ((3,), (), (), ()))
        alignment_kernels.fit_planes(
            np.ascontiguousarray(depth_m_hw, np.float32), np.ascontiguousarray(trust_hw, np.float32),
            np.array(K_33, np.float64), step, plane_hw3, spread_hw, share_hw, trust_cells_hw,
        )  # fmt: skip
        planes.append(plane_hw3)
        spreads.append(np.where(share_hw >= LEAST_SHARE, spread_hw, np.inf))
        trusts.append(trust_cells_hw)
    plane, spread, trust = np.stack(planes), np.stack(spreads), np.stack(trusts)
    K_cells_b33 = scaled_intrinsics(K_b33, 1 / step, 1 / step)
    row, column = np.mgrid[: plane.shape[1], : plane.shape[2]]
    ray = np.ones_like(plane)
    ray[..., 0] = (column - K_cells_b33[:, None, None, 0, 2]) / K_cells_b33[:, None, None, 0, 0]
    ray[..., 1] = (row - K_cells_b33[:, None, None, 1, 2]) / K_cells_b33[:, None, None, 1, 1]
    nearness = (plane * ray).sum(-1)  # 1 / z
    steepness = np.maximum(np.linalg.norm(plane, axis=-1), 1e-9)  # 1 / distance of the plane
    facing = nearness / (steepness * np.linalg.norm(ray, axis=-1))
    is_seen = np.isfinite(spread) & (nearness > 1 / FARTHEST_M) & (facing > LEAST_FACING)
    if is_seen.any():
        is_seen &= spread <= ROUGH * max(float(np.median(spread[is_seen])), SMOOTH)
    z = is_seen / np.where(is_seen, nearness, 1.0)
    return Surfels(
        point_cam_m_bhw3=(ray * z[..., None]).astype(np.float32),
        normal_cam_bhw3=(-plane / steepness[..., None]).astype(np.float32),
        weight_bhw=np.where(is_seen, trust, 0.0).astype(np.float32),
        K_b33=K_cells_b33,
    )
