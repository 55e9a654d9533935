"""Many views of a room made to agree: one least squares adjustment of all poses over all pairs that overlap.

Surfels of one view (surfels.py) fall on surfels of another; how far apart the two surfaces lie there is the residual
(point to plane, Chen & Medioni 1992). All pairs of views that overlap are solved for together, with what the device
says of each step from view to view, and of gravity, as priors; not pair by pair first, so that no pair has to be well
determined by itself. A direction that no surface determines stays with the device.

Views that come back to a place agree only to the drift so far: residuals are taken up to that at first, and round by
round only nearer ones count (graduated non-convexity with the weights of Geman & McClure: Zhou, Park & Koltun, "Fast
global registration", ECCV 2016).

How much a residual tells is measured in the scan itself. Its noise, by distance. And by how much depth is wrong over
whole surfaces, which more pixels do not mend: when views agree as well as they can, each pair by itself still pulls
somewhere else; what it pulls more than noise alone would is what its pixels have in common.

A surface that n views see makes n (n - 1) / 2 pairs of which only n - 1 are news: each pair weighs 2 / n, half of it
for each of its two directions. That is the same as if each patch of surface were an unknown of its own, in the views'
mean (Liu & Zhang, "BALM", 2021).

Does not belong here: the scan, the floor, what is told about the result (poses.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.surfels import Surfels

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

# --- which views are held against each other
LEAST_OVERLAP = 0.1
NEAR_VIEWS = 3
"""So many views before and after are paired whatever else there is."""
PAIRS_A_VIEW = 24
"""And so many others."""
OVERLAP_STEP, COARSE_STEP, STEP = 6, 4, 2
"""Every so many-th surfel is taken to see whether views overlap; until they are settled; to align them."""
LEAST_COSINE = 0.9
"""Of the angle between the normals of two surfels of the same surface."""

# --- round by round
ROUNDS = 12
SHRINK = 0.6
"""Of what still counts, from round to round."""
DRIFT, DRIFT_LEAST_M, DRIFT_MOST_M = 0.02, 0.01, 0.25
"""How far views that come back to a place may lie apart: a share of the way between them."""
SETTLED = 8
"""From this round on views are where surfaces want them, up to the errors of depth."""

# --- what a residual tells
FIRST_NOISE_M, LEAST_NOISE_M = 0.02, 0.001
"""Sigma of residuals before it is measured; and at least."""
NOISE_BINS, NOISE_BINS_PER_M, LEAST_IN_BIN = 16, 2.0, 200
"""Noise is measured by distance: that of phones grows with it, that of structured light with its square."""
SURFELS_A_SAMPLE = 6.0
"""Depth noise is smooth over neighbouring pixels: at least so many surfels tell as much as one independent one."""
MEDIAN_CHI_SQUARED_6 = 5.348
"""Of a sum of six squared normal deviates."""

# --- what the device tells
STEP_SIGMA, STEP_SIGMA_M = 0.015, 0.0015
"""Sigma of the device's step from view to view: a share of it, and a rest."""
TURN_SIGMA_RAD_PER_M, TURN_SIGMA_RAD = 0.002, 0.0008
STEP_LOST = 5.0
"""Steps that are off by more sigmas count less and less (Geman & McClure): tracking was lost for a moment."""
AGREES = 2.0
"""A view agrees with its neighbours where it is off by at most so many times what is usual."""


@dataclass(frozen=True, eq=False)
class Aligned:
    """b poses that agree, and how well."""

    world_T_cam_b44: F64
    anchor: int
    """The view that stays where the device had it."""
    pairs: int
    """Of views that overlap, each counted once."""
    loop_closures: int
    """Those of them with a view between them, in time, that is paired with neither."""
    before_m_b: F64
    """Median distance between a view's surfaces and the same ones in other views, as the device had them; NaN alone."""
    after_m_b: F64


def align(surfels: Surfels, world_T_cam_b44: F64, gravity_sigma_rad: float) -> Aligned:
    """Poses (b, 4, 4), z up, moved so that all views agree.

    The first view that fits its neighbours stays as it is: nothing in the scan can tell where the whole lies.

    Args:
        gravity_sigma_rad: sigma of the device's roll and pitch, which do not drift.
    """
    b = len(world_T_cam_b44)
    device_b44 = np.ascontiguousarray(world_T_cam_b44, np.float64)
    pairs = _Pairs.of(surfels, device_b44)
    if not len(pairs.first_p):
        return Aligned(device_b44, 0, 0, 0, np.full(b, np.nan), np.full(b, np.nan))
    centre_3 = device_b44[:, :3, 3].mean(axis=0)
    sums = _Sums.of(pairs, surfels, centre_3, STEP)
    sums.update(device_b44, np.full(NOISE_BINS, FIRST_NOISE_M), pairs.drift_m_p)
    before_m_b = pairs.median_by_view(sums.residual_m_pn, b)
    anchor = _first_that_agrees(pairs, sums.residual_m_pn, b)
    free = np.delete(np.arange(6 * b), slice(6 * anchor, 6 * anchor + 6))

    pose_b44, surfels_a_sample = device_b44, SURFELS_A_SAMPLE
    noise_m_d = sums.noise_m_d()
    for k in range(ROUNDS):
        if k in (0, SETTLED):
            sums = _Sums.of(pairs, surfels, centre_3, STEP if k else COARSE_STEP)
        sums.update(pose_b44, noise_m_d, pairs.drift_m_p * SHRINK**k)
        noise_m_d = sums.noise_m_d()
        if k == SETTLED:
            surfels_a_sample = max(SURFELS_A_SAMPLE, sums.surfels_a_sample())
        matrix, right = np.zeros((6 * b, 6 * b)), np.zeros(6 * b)
        sums.add_to(matrix, right, pairs.weight_p * (sums.step / STEP) ** 2 / surfels_a_sample)
        _add_device(matrix, right, pose_b44, device_b44, centre_3, gravity_sigma_rad)
        motion = np.zeros(6 * b)
        motion[free] = np.linalg.solve(matrix[np.ix_(free, free)], -right[free])
        pose_b44 = _moved(pose_b44, motion.reshape(b, 6), centre_3)
    sums.update(pose_b44, noise_m_d, pairs.drift_m_p)
    after_m_b = pairs.median_by_view(sums.residual_m_pn, b)
    return Aligned(pose_b44, anchor, len(pairs.first_p) // 2, pairs.loop_closures(b), before_m_b, after_m_b)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Views that overlap, each pair in both directions."""

    first_p: I64
    second_p: I64
    weight_p: F64
    """1 / n where n views see the same."""
    drift_m_p: F64
    """How far apart the device may have the same surface."""

    @classmethod
    def of(cls, surfels: Surfels, device_b44: F64) -> _Pairs:
        """Neighbours in time that overlap, and others evenly over the rest of the walk."""
        from geomagic_dagster.cv import alignment_kernels

        b = len(device_b44)
        step_m = np.linalg.norm(np.diff(device_b44[:, :3, 3], axis=0), axis=1)
        way_m_b = np.concatenate(([0.0], np.cumsum(step_m)))

        def drift_m(i: I64, j: I64) -> F64:
            return np.minimum(DRIFT_MOST_M, DRIFT_LEAST_M + DRIFT * np.abs(way_m_b[i] - way_m_b[j]))

        i, j = (index.astype(np.int64) for index in np.triu_indices(b, 1))
        share = np.zeros(len(i))
        alignment_kernels.overlaps(
            surfels.point_cam_m_bhw3, surfels.weight_bhw, surfels.K_b33, device_b44, i, j, OVERLAP_STEP,
            0.05 + drift_m(i, j), share,
        )  # fmt: skip
        does_overlap = np.zeros((b, b), np.bool_)
        does_overlap[i, j] = does_overlap[j, i] = share >= LEAST_OVERLAP
        chosen = np.zeros((b, b), np.bool_)
        for k in range(b):
            others = np.flatnonzero(does_overlap[k])
            is_near = np.abs(others - k) <= NEAR_VIEWS
            near, others = others[is_near], others[~is_near]
            if len(others) > PAIRS_A_VIEW:
                others = others[np.linspace(0, len(others) - 1, PAIRS_A_VIEW).round().astype(int)]
            chosen[k, near] = chosen[k, others] = True
        first, second = (index.astype(np.int64) for index in np.nonzero(chosen | chosen.T))
        views_b = 1 + np.bincount(first, minlength=b)
        return cls(first, second, 2 / (views_b[first] + views_b[second]), drift_m(first, second))

    def median_by_view(self, residual_m_pn: F32, b: int) -> F64:
        """(b,) medians of the size of residuals of each view; NaN without any."""
        median_m_b = np.full(b, np.nan)
        for i in range(b):
            size = np.abs(residual_m_pn[self.first_p == i])
            size = size[~np.isnan(size)]
            if len(size):
                median_m_b[i] = np.median(size)
        return median_m_b

    def loop_closures(self, b: int) -> int:
        is_pair = np.eye(b, dtype=np.bool_)
        is_pair[self.first_p, self.second_p] = True
        return sum(
            bool((~is_pair[i, i:j] & ~is_pair[j, i:j]).any())
            for i, j in zip(self.first_p, self.second_p, strict=True)
            if i < j
        )


@dataclass(frozen=True, eq=False)
class _Sums:
    """The normal equations of each pair (6 unknowns: shift, and turn about a centre), and its residuals."""

    pairs: _Pairs
    surfels: Surfels
    centre_3: F64
    step: int
    """Every so many-th surfel."""
    normal_p66: F64
    right_p6: F64
    residual_m_pn: F32
    """NaN where there is none."""
    distance_m_pn: F32

    @classmethod
    def of(cls, pairs: _Pairs, surfels: Surfels, centre_3: F64, step: int) -> _Sums:
        p, (height, width) = len(pairs.first_p), surfels.weight_bhw.shape[1:]
        residual_m_pn = np.full((p, -(-height // step) * -(-width // step)), np.nan, np.float32)
        empty = np.zeros((p, 6, 6)), np.zeros((p, 6)), residual_m_pn, np.ones_like(residual_m_pn)
        return cls(pairs, surfels, centre_3, step, *empty)

    def update(self, pose_b44: F64, noise_m_d: F64, reach_m_p: F64) -> None:
        from geomagic_dagster.cv import alignment_kernels

        self.residual_m_pn[:] = np.nan
        alignment_kernels.pair_sums(
            self.surfels.point_cam_m_bhw3, self.surfels.normal_cam_bhw3, self.surfels.weight_bhw, self.surfels.K_b33,
            pose_b44, self.centre_3, self.pairs.first_p, self.pairs.second_p, self.step, noise_m_d, NOISE_BINS_PER_M,
            reach_m_p, LEAST_COSINE, self.normal_p66, self.right_p6, self.residual_m_pn, self.distance_m_pn,
        )  # fmt: skip

    def add_to(self, matrix: F64, right: F64, weight_p: F64) -> None:
        from geomagic_dagster.cv import alignment_kernels

        normal_p66, right_p6 = self.normal_p66 * weight_p[:, None, None], self.right_p6 * weight_p[:, None]
        alignment_kernels.add_edges(self.pairs.first_p, self.pairs.second_p, normal_p66, right_p6, matrix, right)

    def noise_m_d(self) -> F64:
        """Robust sigma of residuals in each bin of distance, never less than nearer; without enough, as nearer."""
        residual_m_pn, distance_m_pn = self.residual_m_pn[::3], self.distance_m_pn[::3]  # a third tells it as well
        is_there = ~np.isnan(residual_m_pn)
        size, bin_ = np.abs(residual_m_pn[is_there]), (distance_m_pn[is_there] * NOISE_BINS_PER_M).astype(np.int64)
        noise_m_d = np.full(NOISE_BINS, LEAST_NOISE_M)
        for d in range(NOISE_BINS):
            here = size[bin_ == d]
            if len(here) >= LEAST_IN_BIN:
                noise_m_d[d] = max(LEAST_NOISE_M, 1.4826 * float(np.median(here)))
        return np.maximum.accumulate(noise_m_d)

    def surfels_a_sample(self) -> float:
        """How many surfels tell as much as one would if all were independent.

        A pair of independent residuals pulls on its six unknowns with a chi squared of six degrees of freedom.
        """
        size_p = np.trace(self.normal_p66, axis1=1, axis2=2)
        is_there = size_p > 0
        if not is_there.any():
            return 0.0
        normal_p66, right_p6 = self.normal_p66[is_there], self.right_p6[is_there]
        normal_p66 = normal_p66 + 1e-9 * size_p[is_there, None, None] * np.eye(6)
        chi_squared_p = (right_p6 * np.linalg.solve(normal_p66, right_p6[:, :, None])[:, :, 0]).sum(1)
        return float(np.median(chi_squared_p)) / MEDIAN_CHI_SQUARED_6


def _first_that_agrees(pairs: _Pairs, residual_m_pn: F32, b: int) -> int:
    """The first view that is not off its neighbours in time: with such a one the whole room would be off."""
    is_there_pn = ~np.isnan(residual_m_pn)
    total_m_p = np.abs(np.where(is_there_pn, residual_m_pn, 0)).sum(axis=1, dtype=np.float64)
    count_p = is_there_pn.sum(axis=1)
    mean_m_p = total_m_p / np.maximum(count_p, 1)
    is_near_p = (np.abs(pairs.first_p - pairs.second_p) <= NEAR_VIEWS) & (count_p > 0)
    off_m_b = np.full(b, np.inf)
    for i in np.unique(pairs.first_p[is_near_p]):
        off_m_b[i] = np.median(mean_m_p[is_near_p & (pairs.first_p == i)])
    return int(np.argmax(off_m_b <= AGREES * np.median(off_m_b[np.isfinite(off_m_b)]))) if is_near_p.any() else 0


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
    alignment_kernels.add_edges(np.arange(1, b), np.arange(b - 1), normal_p66, right_p6, matrix, right)
    tilt = _rotation_vectors(turned)
    for k in range(2):
        at = 6 * np.arange(b) + 3 + k
        matrix[at, at] += 1 / gravity_sigma_rad**2
        right[at] += tilt[:, k] / gravity_sigma_rad**2


def _robust(off_p3: F64, weight_p: F64) -> F64:
    return weight_p / (1 + weight_p * (off_p3**2).sum(1) / STEP_LOST**2) ** 2


def _moved(pose_b44: F64, motion_b6: F64, centre_3: F64) -> F64:
    """Poses after a small motion (shift, turn about a centre) of each."""
    import cv2

    moved_b44 = pose_b44.copy()
    for i, motion in enumerate(motion_b6):
        if motion.any():
            turn_33 = cv2.Rodrigues(motion[3:])[0]
            moved_b44[i, :3, :3] = turn_33 @ pose_b44[i, :3, :3]
            moved_b44[i, :3, 3] = turn_33 @ (pose_b44[i, :3, 3] - centre_3) + centre_3 + motion[:3]
    return moved_b44


def _rotation_vectors(rotation_n33: F64) -> F64:
    """(n, 3) axis times angle of small rotations, to the third order."""
    skewed = rotation_n33 - rotation_n33.transpose(0, 2, 1)
    sine = 0.5 * np.stack((skewed[:, 2, 1], skewed[:, 0, 2], skewed[:, 1, 0]), axis=1)
    return sine * (1 + (sine**2).sum(axis=1, keepdims=True) / 6)


def _skew(vector_n3: F64) -> F64:
    x, y, z = vector_n3.T
    o = np.zeros_like(x)
    return np.stack((o, -z, y, z, o, -x, -y, x, o), axis=1).reshape(-1, 3, 3)
