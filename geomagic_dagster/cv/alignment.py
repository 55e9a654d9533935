"""Many views of a room made to agree: one least squares adjustment of all poses over all pairs that overlap.

Each depth map becomes some thousand *surfels* (points with normals) by fitting planes to its inverse depth, which
is linear in the picture where a surface is flat. Surfels of one view fall on surfels of another; how far apart the
two surfaces lie there is the residual (point to plane, Chen & Medioni 1992, with the normals of both, Rusinkiewicz
2019). All pairs of views that overlap are solved for together, with what the device says of each step from view to
view, and of gravity, as priors; not pair by pair first, so that no pair has to be well determined by itself.
Where views come back to a place they agree only to the drift so far: residuals are taken up to that at first, and
round by round only nearer ones count (graduated non-convexity with the weights of Geman & McClure: Zhou, Park &
Koltun, "Fast global registration", ECCV 2016). A direction that no surface determines stays with the device.

A surface that n views see makes n (n - 1) pairs of which only n - 1 are news: each pair weighs 1 / n. That is then
the same as if each patch of surface were an unknown of its own (Liu & Zhang, "BALM", 2021), in the views' mean.

Does not belong here: the scan, the floor, what is told about the result (poses.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.camera import scaled_intrinsics

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

CELLS_ACROSS = 80
"""Surfels in a row of a picture."""
LEAST_SHARE = 0.6
"""Of the pixels around a surfel so many have depth."""
ROUGH = 2.5
"""A surfel whose pixels scatter so many times as widely about its plane as usual lies on an edge."""
LEAST_FACING = 0.26
"""Cosine of 75 degrees: more glancing surfaces are not used."""
LEAST_OVERLAP = 0.1
NEAR_FRAMES = 3
"""So many frames before and after are paired whatever else there is."""
PAIRS_A_FRAME = 24
STEP = 2
"""Every so many-th surfel of a view is held against the others."""
SURFELS_A_SAMPLE = 12.0
"""Depth noise is smooth over neighbouring pixels: at least so many of these surfels tell as much as one independent
one; how many is measured by how far each pair alone would still move its views when all agree as well as they can."""
OVERCONFIDENCE = 2.0
"""Views share their errors with all of their pairs, which makes pairs agree better than they should."""
SETTLED = 8
"""From this round on views are where surfaces want them, up to the errors of depth."""
LEAST_COSINE = 0.9
"""Of the angle between the normals of two surfels of the same surface."""
DRIFT, DRIFT_MOST_M = 0.02, 0.25
"""How far views that come back to a place may lie apart: a share of the way between them, and at most this."""
MEDIAN_CHI_SQUARED_6 = 5.348
"""Of a sum of six squared normal deviates."""
LEAST_IN_BIN = 200
ROUNDS = 12
FIRST_NOISE_M, LEAST_NOISE_M = 0.02, 0.001
"""Of residuals: at first, and at least."""
NOISE_BINS, NOISE_BINS_PER_M = 16, 2.0
"""How noise grows with distance is measured: phones' with the distance, structured light's with its square."""
SHRINK = 0.6
"""Of what still counts, from round to round."""
STEP_SIGMA, STEP_SIGMA_M = 0.015, 0.0015
"""Sigma of the device's step from view to view: a share of it, and a rest."""
TURN_SIGMA_RAD_PER_M, TURN_SIGMA_RAD = 0.002, 0.0008
STEP_LOST = 5.0
"""Steps that are off by more sigmas count less and less (Geman & McClure): tracking was lost for a moment."""
AGREES = 2.0
"""A view agrees with its neighbours where it is off by at most so many times what is usual."""
GRAVITY_SIGMA_RAD = 0.002
"""Sigma of the device's roll and pitch, which do not drift where it knows gravity."""


@dataclass(frozen=True, eq=False)
class Surfels:
    """Points with normals on a grid over each of b views; weight 0 where there is none."""

    point_cam_m_bhw3: NDArray[np.float32]
    normal_cam_bhw3: NDArray[np.float32]
    """Towards the camera."""
    weight_bhw: NDArray[np.float32]
    """The device's trust, 0 to 1."""
    K_b33: F64
    """Intrinsics in cells."""

    def in_world(self, world_T_cam_b44: F64) -> tuple[F64, F64, F64]:
        """(p, 3) points, (p, 3) normals, (p,) area in m2 that each stands for."""
        is_there = self.weight_bhw > 0
        b_p = np.nonzero(is_there)[0]
        point, normal = self.point_cam_m_bhw3[is_there].astype(np.float64), self.normal_cam_bhw3[is_there]
        facing = -(normal * point).sum(1) / np.linalg.norm(point, axis=1)
        area = point[:, 2] ** 2 / (self.K_b33[b_p, 0, 0] * self.K_b33[b_p, 1, 1] * facing)
        turn = world_T_cam_b44[b_p, :3, :3]
        return (
            np.einsum("pij,pj->pi", turn, point) + world_T_cam_b44[b_p, :3, 3],
            np.einsum("pij,pj->pi", turn, normal),
            area,
        )


def surfels_of(depth_m_bhw: NDArray[np.float32], trust_bhw: NDArray[np.float32], K_b33: F64) -> Surfels:
    """Planes fitted to 3 x 3 cells of inverse depth, where they fit: no edges, no flying pixels, nothing glancing."""
    from geomagic_dagster.cv import alignment_kernels

    b, height, width = depth_m_bhw.shape
    step = max(1, round(width / CELLS_ACROSS))
    shape = (b, height // step, width // step)
    plane = np.zeros((*shape, 3))
    spread, share, trust = np.full(shape, np.inf), np.zeros(shape), np.zeros(shape)
    alignment_kernels.fit_planes(depth_m_bhw, trust_bhw, K_b33, step, plane, spread, share, trust)
    K_cells_b33 = scaled_intrinsics(K_b33, 1 / step, 1 / step)
    row, column = np.mgrid[: shape[1], : shape[2]]
    ray = np.ones((*shape, 3))
    ray[..., 0] = (column - K_cells_b33[:, None, None, 0, 2]) / K_cells_b33[:, None, None, 0, 0]
    ray[..., 1] = (row - K_cells_b33[:, None, None, 1, 2]) / K_cells_b33[:, None, None, 1, 1]
    nearness = (plane * ray).sum(-1)  # 1 / z
    steepness = np.linalg.norm(plane, axis=-1)  # 1 / distance of the plane
    is_seen = (share >= LEAST_SHARE) & (nearness > 0.01)
    usual = float(np.median(spread[is_seen])) if is_seen.any() else 0.0
    is_seen &= spread <= ROUGH * max(usual, 5e-4)
    z = 1 / np.where(is_seen, nearness, 1.0)
    facing = nearness / (np.maximum(steepness, 1e-9) * np.linalg.norm(ray, axis=-1))
    is_seen &= facing > LEAST_FACING
    return Surfels(
        point_cam_m_bhw3=(ray * z[..., None] * is_seen[..., None]).astype(np.float32),
        normal_cam_bhw3=(-plane / np.maximum(steepness, 1e-9)[..., None]).astype(np.float32),
        weight_bhw=np.where(is_seen, trust, 0.0).astype(np.float32),
        K_b33=K_cells_b33,
    )


@dataclass(frozen=True, eq=False)
class Aligned:
    """b poses that agree, and how well."""

    world_T_cam_b44: F64
    pairs_p2: I64
    """Pairs of views that overlap, each once."""
    loop_closures: int
    """Pairs of views that overlap though some view between them overlaps neither."""
    anchor: int
    """The view that stays where the device had it."""
    before_m_b: F64
    """Median distance between a view's surfaces and the same ones in other views, as the device had them; NaN alone."""
    after_m_b: F64


def align(surfels: Surfels, world_T_cam_b44: F64, gravity_sigma_rad: float = GRAVITY_SIGMA_RAD) -> Aligned:
    """Poses (b, 4, 4), z up, moved so that all views agree; the first one that fits its neighbours stays as it is."""
    from geomagic_dagster.cv import alignment_kernels

    b = len(world_T_cam_b44)
    device_b44 = np.ascontiguousarray(world_T_cam_b44, np.float64)
    position = device_b44[:, :3, 3]
    path_m_b = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(position, axis=0), axis=1))))
    pairs_p2 = _pairs(surfels, device_b44, path_m_b)
    nothing = np.full(b, np.nan)
    if not len(pairs_p2):
        return Aligned(device_b44, pairs_p2, 0, 0, nothing, nothing)
    centre_3 = position.mean(axis=0)
    first = np.concatenate((pairs_p2[:, 0], pairs_p2[:, 1]))
    second = np.concatenate((pairs_p2[:, 1], pairs_p2[:, 0]))
    views_b = 1 + np.bincount(first, minlength=b)
    share_p = 2 / (views_b[first] + views_b[second])
    drift_m_p = np.minimum(DRIFT_MOST_M, 0.01 + DRIFT * np.abs(path_m_b[first] - path_m_b[second]))
    height, width = surfels.weight_bhw.shape[1:]
    residual_pn = np.full((len(first), -(-height // STEP) * -(-width // STEP)), np.nan, np.float32)
    distance_pn = np.ones_like(residual_pn)
    normal_p66, right_p6 = np.zeros((len(first), 6, 6)), np.zeros((len(first), 6))

    def hold_against_each_other(pose_b44: F64, noise_m_d: F64, reach_m_p: F64) -> None:
        residual_pn[:] = np.nan
        alignment_kernels.pair_sums(
            surfels.point_cam_m_bhw3, surfels.normal_cam_bhw3, surfels.weight_bhw, surfels.K_b33, pose_b44, centre_3,
            first, second, STEP, noise_m_d, NOISE_BINS_PER_M, reach_m_p, LEAST_COSINE, normal_p66, right_p6, residual_pn, distance_pn,
        )  # fmt: skip

    pose_b44, noise_m_d = device_b44.copy(), np.full(NOISE_BINS, FIRST_NOISE_M)
    before_m_b, surfels_a_sample, anchor = nothing, SURFELS_A_SAMPLE, 0
    for k in range(ROUNDS):
        hold_against_each_other(pose_b44, noise_m_d, drift_m_p * SHRINK**k)
        if k == 0:
            before_m_b = _median_by_view(residual_pn, first, b)
            is_near_p = np.abs(first - second) <= NEAR_FRAMES
            anchor = _first_that_agrees(_median_by_view(residual_pn[is_near_p], first[is_near_p], b))
        if k == SETTLED:
            surfels_a_sample = max(SURFELS_A_SAMPLE, OVERCONFIDENCE * _surfels_a_sample(normal_p66, right_p6))
        weight_p = share_p / surfels_a_sample
        matrix, right = np.zeros((6 * b, 6 * b)), np.zeros(6 * b)
        noise_m_d = _noise_m_d(residual_pn, distance_pn)
        alignment_kernels.add_edges(
            first, second, normal_p66 * weight_p[:, None, None], right_p6 * weight_p[:, None], matrix, right
        )
        _add_device(matrix, right, pose_b44, device_b44, centre_3, gravity_sigma_rad)
        free = np.delete(np.arange(6 * b), slice(6 * anchor, 6 * anchor + 6))
        motion = np.zeros(6 * b)
        motion[free] = np.linalg.solve(matrix[np.ix_(free, free)], -right[free])
        pose_b44 = _moved(pose_b44, motion.reshape(b, 6), centre_3)
    hold_against_each_other(pose_b44, noise_m_d, drift_m_p)
    return Aligned(
        pose_b44, pairs_p2, _loop_closures(pairs_p2, b), anchor, before_m_b, _median_by_view(residual_pn, first, b)
    )


def _noise_m_d(residual_pn: NDArray[np.float32], distance_pn: NDArray[np.float32]) -> F64:
    """Robust sigma of residuals in each bin of distance, never less than nearer; without enough, as of the nearer."""
    is_there = ~np.isnan(residual_pn)
    size, bin_ = np.abs(residual_pn[is_there]), (distance_pn[is_there] * NOISE_BINS_PER_M).astype(np.int64)
    if not len(size):
        return np.full(NOISE_BINS, FIRST_NOISE_M)
    noise_m_d = np.full(NOISE_BINS, LEAST_NOISE_M)
    for d in range(NOISE_BINS):
        here = size[bin_ == d]
        if len(here) >= LEAST_IN_BIN:
            noise_m_d[d] = max(LEAST_NOISE_M, 1.4826 * float(np.median(here)))
    return np.maximum.accumulate(noise_m_d)


def _first_that_agrees(disagreement_m_b: F64) -> int:
    """The first view that is not off its neighbours: the whole room would be off with it."""
    return int(np.argmax(disagreement_m_b <= AGREES * np.nanmedian(disagreement_m_b)))


def _surfels_a_sample(normal_p66: F64, right_p6: F64) -> float:
    """By how much the pairs' pulls on their six unknowns exceed what independent residuals would give (chi squared)."""
    size_p = np.trace(normal_p66, axis1=1, axis2=2)
    normal_p66, right_p6, size_p = normal_p66[size_p > 0], right_p6[size_p > 0], size_p[size_p > 0]
    if not len(size_p):
        return 0.0
    pull_p6 = np.linalg.solve(normal_p66 + 1e-9 * size_p[:, None, None] * np.eye(6), right_p6[:, :, None])[:, :, 0]
    return float(np.median((right_p6 * pull_p6).sum(1))) / MEDIAN_CHI_SQUARED_6


def _median_by_view(residual_pn: NDArray[np.float32], first_p: I64, b: int) -> F64:
    medians = np.full(b, np.nan)
    for i in range(b):
        size = np.abs(residual_pn[first_p == i])
        size = size[~np.isnan(size)]
        if len(size):
            medians[i] = np.median(size)
    return medians


def _pairs(surfels: Surfels, world_T_cam_b44: F64, path_m_b: F64) -> I64:
    """(p, 2) views that overlap, the earlier one first: neighbours, and others evenly over the rest of the walk."""
    from geomagic_dagster.cv import alignment_kernels

    b = len(world_T_cam_b44)
    i, j = np.triu_indices(b, 1)
    i, j = i.astype(np.int64), j.astype(np.int64)
    share = np.zeros(len(i))
    reach = np.minimum(DRIFT_MOST_M, 0.05 + DRIFT * np.abs(path_m_b[i] - path_m_b[j]))
    alignment_kernels.overlaps(
        surfels.point_cam_m_bhw3, surfels.weight_bhw, surfels.K_b33, world_T_cam_b44, i, j, 6, reach, share
    )
    is_near = j - i <= NEAR_FRAMES
    overlap = np.zeros((b, b))
    overlap[i, j] = overlap[j, i] = np.where(share >= LEAST_OVERLAP, share, 0.0)
    chosen = np.zeros((b, b), np.bool_)
    chosen[i[is_near], j[is_near]] = share[is_near] >= LEAST_OVERLAP
    for k in range(b):
        others = np.flatnonzero((overlap[k] > 0) & (np.abs(np.arange(b) - k) > NEAR_FRAMES))
        if len(others) > PAIRS_A_FRAME:
            others = others[np.unique(np.linspace(0, len(others) - 1, PAIRS_A_FRAME).round().astype(int))]
        chosen[np.minimum(k, others), np.maximum(k, others)] = True
    return np.argwhere(chosen).astype(np.int64)


def _loop_closures(pairs_p2: I64, b: int) -> int:
    """Pairs with a view between them in time that is paired with neither."""
    is_pair = np.eye(b, dtype=np.bool_)
    is_pair[pairs_p2[:, 0], pairs_p2[:, 1]] = is_pair[pairs_p2[:, 1], pairs_p2[:, 0]] = True
    return sum(bool((~is_pair[i, i:j] & ~is_pair[j, i:j]).any()) for i, j in pairs_p2)


def _add_device(
    matrix: F64, right: F64, pose_b44: F64, device_b44: F64, centre_3: F64, gravity_sigma_rad: float
) -> None:
    """Priors: each step from view to view, its shift in the earlier view's axes; roll and pitch of each view."""
    from geomagic_dagster.cv import alignment_kernels

    b = len(pose_b44)
    turned = pose_b44[:, :3, :3] @ device_b44[:, :3, :3].transpose(0, 2, 1)  # from the device's world into this one
    step_device = np.diff(device_b44[:, :3, 3], axis=0)
    off_shift = np.diff(pose_b44[:, :3, 3], axis=0) - np.einsum("pij,pj->pi", turned[:-1], step_device)
    off_turn = _rotation_vectors(turned[1:] @ turned[:-1].transpose(0, 2, 1))
    step_m = np.linalg.norm(step_device, axis=1)
    weight_shift = _robust(off_shift, 1 / (STEP_SIGMA_M**2 + (STEP_SIGMA * step_m) ** 2))
    weight_turn = _robust(off_turn, 1 / (TURN_SIGMA_RAD**2 + (TURN_SIGMA_RAD_PER_M * step_m) ** 2))
    # a motion (v, w) about the centre shifts a point by v + w x (point - centre)
    jacobian = np.zeros((b - 1, 3, 6))
    jacobian[:, :, :3] = np.eye(3)
    jacobian[:, :, 3:] = -_skew(pose_b44[1:, :3, 3] - centre_3)
    normal_p66 = weight_shift[:, None, None] * jacobian.transpose(0, 2, 1) @ jacobian
    right_p6 = weight_shift[:, None] * np.einsum("pki,pk->pi", jacobian, off_shift)
    for k in range(3):
        normal_p66[:, 3 + k, 3 + k] += weight_turn
        right_p6[:, 3 + k] += weight_turn * off_turn[:, k]
    later, earlier = np.arange(1, b), np.arange(b - 1)
    alignment_kernels.add_edges(later, earlier, normal_p66, right_p6, matrix, right)
    tilt = _rotation_vectors(turned)
    for k in (3, 4):
        at = 6 * np.arange(b) + k
        matrix[at, at] += 1 / gravity_sigma_rad**2
        right[at] += tilt[:, k - 3] / gravity_sigma_rad**2


def _robust(off_p3: F64, weight_p: F64) -> F64:
    return weight_p / (1 + weight_p * (off_p3**2).sum(1) / STEP_LOST**2) ** 2


def _moved(pose_b44: F64, motion_b6: F64, centre_3: F64) -> F64:
    """Poses after a small motion (shift, turn about a centre) of each."""
    import cv2

    moved = pose_b44.copy()
    for i, motion in enumerate(motion_b6):
        turn = cv2.Rodrigues(motion[3:])[0]
        moved[i, :3, :3] = turn @ pose_b44[i, :3, :3]
        moved[i, :3, 3] = turn @ (pose_b44[i, :3, 3] - centre_3) + centre_3 + motion[:3]
    return moved


def _rotation_vectors(rotation_n33: F64) -> F64:
    """(n, 3) axis times angle of small rotations, exact to the third order."""
    skewed = rotation_n33 - rotation_n33.transpose(0, 2, 1)
    sine = 0.5 * np.stack((skewed[:, 2, 1], skewed[:, 0, 2], skewed[:, 1, 0]), axis=1)
    size = np.linalg.norm(sine, axis=1, keepdims=True)
    return sine * (1 + size**2 / 6)


def _skew(vector_n3: F64) -> F64:
    x, y, z = vector_n3.T
    o = np.zeros_like(x)
    return np.stack((o, -z, y, z, o, -x, -y, x, o), axis=1).reshape(-1, 3, 3)
