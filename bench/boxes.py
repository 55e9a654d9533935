"""Boxes of furniture beside the truth of a made-up room: which are right, and whether their sigmas are honest.

Which pieces count: those of which the walk saw at least 30 % of the surface that faces free space, and whose longest
edge is above 15 cm. Rugs and pictures have no thickness and do not count. A found box is right where it shares at
least half of the union with a true one (oriented, in 3D; matched one to one, most in common first). The true box
stands where it truly stands, as the first frame has it.

Belongs here: judging boxes. Does not belong here: outlines and openings (rooms.py), what a test asks (tests/cv).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.types import Furniture, Poses
from geomagic_dagster.scans.made_up import Truth
from geomagic_dagster.scans.made_up.plan import rectangle_corners

F64 = NDArray[np.float64]
LEAST_SEEN, LEAST_EDGE_M, LEAST_IOU = 0.30, 0.15, 0.5

Box = tuple[F64, F64, float]
"""Centre, size, yaw."""


@dataclass(eq=False)
class JudgedBoxes:
    """The boxes of one room. Pieces that do not count are neither right nor missed, and their boxes not false."""

    right: Counter[str] = field(default_factory=Counter)
    """By true kind."""
    missed: Counter[str] = field(default_factory=Counter)
    false: Counter[str] = field(default_factory=Counter)
    """By the kind that they were taken for."""
    taken_for: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(true kind, found kind) of each match."""
    best_iou_of_missed: list[tuple[str, float]] = field(default_factory=list)
    errors_over_sigma_m6: F64 = field(default_factory=lambda: np.zeros((0, 6)))
    """Of each match whose edges can be told apart: width, depth, height, then the centre."""


def judge_boxes(result: Furniture, truth: Truth, poses: Poses) -> JudgedBoxes:
    """The boxes of a scan against all pieces that really stood there."""
    from scipy.optimize import linear_sum_assignment

    true, found, judged = true_boxes(truth, poses), found_boxes(result), JudgedBoxes()
    common = np.array([[iou(t, f) for f in found] for t in true]).reshape(len(true), len(found))
    match = {int(t): int(f) for t, f in zip(*linear_sum_assignment(-common), strict=True) if common[t, f] >= LEAST_IOU}
    errors = []
    for t, (piece, share) in enumerate(zip(truth.room.furniture, seen_share(truth), strict=True)):
        if share >= LEAST_SEEN and max(piece.size_m_3) > LEAST_EDGE_M:
            (judged.right if t in match else judged.missed)[piece.kind] += 1
            if t not in match:
                judged.best_iou_of_missed.append((piece.kind, float(common[t].max(initial=0.0))))
        if t in match:
            (centre, size, yaw), k = true[t], match[t]
            judged.taken_for[piece.kind, result.kind_k[k]] += 1
            turn = yaw - result.yaw_world_rad_k[k]
            if abs(np.sin(2 * turn)) < 0.5:  # else nobody can say which edge is which: a round table
                size = size[[1, 0, 2]] if abs(np.sin(turn)) > 0.7 else size
                off = (result.size_m_k3[k] - size) / result.size_sigma_m_k3[k]
                moved = (result.centre_world_m_k3[k] - centre) / result.centre_sigma_m_k3[k]
                errors.append(np.concatenate((off, moved)))
    judged.false = Counter(result.kind_k[k] for k in range(len(found)) if k not in match.values())
    judged.errors_over_sigma_m6 = np.array(errors).reshape(-1, 6)
    return judged


def precision_and_recall(rooms: list[JudgedBoxes]) -> tuple[float, float]:
    right, missed, false = (sum(getattr(room, name).total() for room in rooms) for name in ("right", "missed", "false"))
    return right / max(right + false, 1), right / max(right + missed, 1)


def seen_share(truth: Truth) -> F64:
    """Of each piece: how much of its free surface has a seen point within 4 cm."""
    from scipy.spatial import KDTree

    surface = truth.sample_surface(30_000, seen_only=False)
    distance_m, _ = KDTree(truth.sample_surface(90_000)).query(surface)
    shares = []
    for piece in truth.room.furniture:
        cos, sin = np.cos(piece.yaw_rad), np.sin(piece.yaw_rad)
        local = (surface - piece.centre_world_m_3) @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        is_its = (np.abs(local) <= 0.5 * np.array(piece.size_m_3) + 1e-3).all(1)
        shares.append(float((distance_m[is_its] < 0.04).mean()) if is_its.any() else 0.0)
    return np.array(shares)


def true_boxes(truth: Truth, poses: Poses) -> list[Box]:
    """In the pipeline's world, as the first frame has it."""
    world_T_true = poses.world_T_scan_44 @ truth.scan_T_world_44
    pieces = truth.room.furniture
    centre_true = np.array([piece.centre_world_m_3 for piece in pieces]).reshape(-1, 3)
    centres = centre_true @ world_T_true[:3, :3].T + world_T_true[:3, 3]
    yaw = float(np.arctan2(world_T_true[1, 0], world_T_true[0, 0]))
    return [(c, np.array(p.size_m_3), p.yaw_rad + yaw) for c, p in zip(centres, pieces, strict=True)]


def found_boxes(result: Furniture) -> list[Box]:
    return list(zip(result.centre_world_m_k3, result.size_m_k3, map(float, result.yaw_world_rad_k), strict=True))


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two upright boxes."""
    import cv2

    (centre_a, size_a, _), (centre_b, size_b, _) = a, b
    height = min(centre_a[2] + size_a[2] / 2, centre_b[2] + size_b[2] / 2)
    height -= max(centre_a[2] - size_a[2] / 2, centre_b[2] - size_b[2] / 2)
    if height <= 0 or np.hypot(*(centre_a - centre_b)[:2]) > 3:
        return 0.0
    plan_a, plan_b = (rectangle_corners(c[:2] - centre_a[:2], s[:2], y).astype(np.float32) for c, s, y in (a, b))
    common = height * cv2.intersectConvexConvex(plan_a, plan_b)[0]
    return float(common / (np.prod(size_a) + np.prod(size_b) - common))
