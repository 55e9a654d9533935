"""Walls and camera drift fitted together: one least squares adjustment of planes seen from many places.

A phone's position drifts by about one per cent of its path, so the same wall seen twice lies in two places.
Where each view of each wall lies is measured to millimetres, so walls and a small shift and turn of every view
are solved for together, with the drift between neighbouring views held to what tracking does. What it gives is
walls, their covariance, and the corrections: poses and mesh stay as they are, and the corrections have mean zero,
so the walls lie in the middle of the mesh's.

Sources: planes as landmarks, Kaess, "Simultaneous localization and mapping with infinite planes", ICRA 2015;
robust weights of Tukey, with the scale from the median; a covariance free of the choice of origin and heading by
the S-transformation, Baarda, "S-transformations and criterion matrices", 1973.

Does not belong here: which walls there are (plan.py, layout.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.plan import Lines

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

BANDS_M = (0.14, 0.10, 0.07, 0.05, 0.05, 0.04)
"""How far from its wall a point may lie, round by round, while the corrections settle."""
BARE_ROUNDS, BARE_SAMPLES = 3, 5.0
"""So many rounds use only the bare part of a wall, if that has so many independent points."""
CUT = 3.0
"""Points farther off than so many sigmas are of something else: a door's leaf, the back of a bookcase."""
POINTS_A_SAMPLE = 20.0
"""Depth noise is smooth over neighbouring pixels: so many points tell as much as one independent one."""
DRIFT_PER_M, DRIFT_M = 0.015, 0.001
"""Sigma of the drift between neighbouring views: a share of the way between them, and a rest."""
TURN_RAD_PER_M, TURN_RAD = 0.002, 0.0007
ANYWHERE_M, ANYWHERE_RAD = 1.0, 0.2
"""Sigma of each view's whole correction: so weak that it only fixes where the whole lies and how it is turned."""
WALL_ANGLE_RAD, WALL_OFFSET_M = 0.02, 0.3
"""Sigma of the lines as they were found: a wall of which little is seen does not turn after furniture."""
RIGHT_ANGLE_RAD = np.radians(0.05)
"""Sigma of an angle that was snapped."""


@dataclass(frozen=True, eq=False)
class Adjusted:
    """n walls, and the corrections of v views."""

    lines: Lines
    covariance_2n2n: F64
    """Of angle and offset (about `centre_2`), wall by wall; includes where the whole lies."""
    centre_2: F64
    shift_m_v2: F64
    turn_rad_v: F64
    eye_m_v2: F64
    samples_n: F64
    """Independent points that each wall was fitted to."""

    def corrected(self, points_m_p2: F64, view_p: I64) -> F64:
        """Points in the adjusted frame."""
        x, y = (points_m_p2 - self.eye_m_v2[view_p]).T
        turn_p = self.turn_rad_v[view_p]
        return points_m_p2 + self.shift_m_v2[view_p] + turn_p[:, None] * np.stack((-y, x), axis=1)


def adjust_walls(
    points_m_p2: F64,
    view_p: I64,
    is_bare_p: NDArray[np.bool_],
    eye_m_v2: F64,
    lines: Lines,
    ends_m_n2: F64,
    right_angles: list[tuple[int, int, float]],
) -> Adjusted:
    """Fits n walls to the points near them.

    Args:
        view_p: which view each point comes from.
        is_bare_p: points above doors and furniture: while the corrections settle these are trusted alone.
        eye_m_v2: where the views are; neighbours in this order are neighbours in time.
        ends_m_n2: from where to where along each line (Lines.along_n2) points count.
        right_angles: (i, j, angle): wall j's normal is turned by exactly this angle from wall i's.
    """
    centre_2 = eye_m_v2.mean(axis=0)
    points, eyes = points_m_p2 - centre_2, eye_m_v2 - centre_2
    angle_n = lines.angle_rad_n.copy()
    offset_n = lines.offset_m_n - lines.normal_n2 @ centre_2
    found_angle_n, found_offset_n = angle_n.copy(), offset_n.copy()
    start_n2 = ends_m_n2 - (lines.along_n2 @ centre_2)[:, None]
    views, walls = len(eyes), len(lines)
    correction_v3 = np.zeros((views, 3))
    near = _near(points, Lines(angle_n, offset_n), start_n2, BANDS_M[0] + 0.1)
    normal_matrix, samples_n = np.eye(3 * views + 2 * walls), np.zeros(walls)
    bare = [index[is_bare_p[index]] for index in near]
    for number, band_m in enumerate(BANDS_M):
        rows = []
        for wall in range(walls):
            is_settling = number < BARE_ROUNDS and len(bare[wall]) > BARE_SAMPLES * POINTS_A_SAMPLE
            index = bare[wall] if is_settling else near[wall]
            view_k = view_p[index]
            from_eye = points[index] - eyes[view_k]
            x, y = from_eye.T
            turned = np.stack((-y, x), axis=1)
            moved = points[index] + correction_v3[view_k, :2] + correction_v3[view_k, 2:] * turned
            normal = np.array([np.cos(angle_n[wall]), np.sin(angle_n[wall])])
            residual = moved @ normal - offset_n[wall]
            ok = np.abs(residual) < band_m
            scale = np.clip(1.4826 * np.median(np.abs(residual[ok])) if ok.any() else 0.0, 0.004, 0.03)
            cut = min(band_m, CUT * scale)
            weight = np.clip(1 - (residual / cut) ** 2, 0, None) ** 2 / (scale**2 * POINTS_A_SAMPLE)
            ok = weight > 0
            across = np.array([-normal[1], normal[0]])
            jacobian = np.stack(
                (
                    np.full(ok.sum(), normal[0]),
                    np.full(ok.sum(), normal[1]),
                    turned[ok] @ normal,
                    moved[ok] @ across,
                    np.full(ok.sum(), -1.0),
                ),
                axis=1,
            )
            samples_n[wall] = ok.sum() / POINTS_A_SAMPLE
            rows.append((wall, view_k[ok], jacobian, residual[ok], weight[ok]))
        normal_matrix, right_side = _normal_equations(rows, views, walls)
        _add_drift(normal_matrix, right_side, correction_v3, eyes)
        for i, j, angle in right_angles:
            a, b = 3 * views + 2 * i, 3 * views + 2 * j
            off = (angle_n[j] - angle_n[i] - angle + np.pi) % (2 * np.pi) - np.pi
            _add_row(normal_matrix, right_side, {a: -1.0, b: 1.0}, off, RIGHT_ANGLE_RAD)
        for wall in range(walls):
            a = 3 * views + 2 * wall
            _add_row(normal_matrix, right_side, {a: 1.0}, angle_n[wall] - found_angle_n[wall], WALL_ANGLE_RAD)
            _add_row(normal_matrix, right_side, {a + 1: 1.0}, offset_n[wall] - found_offset_n[wall], WALL_OFFSET_M)
        step = np.linalg.solve(normal_matrix, -right_side)
        correction_v3 += step[: 3 * views].reshape(-1, 3)
        angle_n += step[3 * views :: 2]
        offset_n += step[3 * views + 1 :: 2]
    covariance = np.asarray(np.linalg.inv(normal_matrix)[3 * views :, 3 * views :], np.float64)
    normal_n2 = np.stack((np.cos(angle_n), np.sin(angle_n)), axis=1)
    return Adjusted(
        lines=Lines(angle_n, offset_n + normal_n2 @ centre_2),
        covariance_2n2n=covariance,
        centre_2=centre_2,
        shift_m_v2=correction_v3[:, :2],
        turn_rad_v=correction_v3[:, 2],
        eye_m_v2=eye_m_v2,
        samples_n=samples_n,
    )


def _near(points: F64, lines: Lines, ends_n2: F64, reach_m: float) -> list[I64]:
    near = []
    for normal, along, offset, (start, end) in zip(
        lines.normal_n2, lines.along_n2, lines.offset_m_n, ends_n2, strict=True
    ):
        s = points @ along
        near.append(np.flatnonzero((np.abs(points @ normal - offset) < reach_m) & (s > start) & (s < end)))
    return near


def _normal_equations(rows: list, views: int, walls: int) -> tuple[F64, F64]:
    """Sums over points, view by view and wall by wall: five unknowns touch each other."""
    size = 3 * views + 2 * walls
    matrix, right = np.zeros((size, size)), np.zeros(size)
    view_index = 3 * np.arange(views)[:, None] + np.arange(3)
    for wall, view_k, jacobian, residual, weight in rows:
        at_v5 = np.concatenate((view_index, np.tile(3 * views + 2 * wall + np.arange(2), (views, 1))), axis=1)
        for i in range(5):
            total = np.bincount(view_k, weight * jacobian[:, i] * residual, minlength=views)
            np.add.at(right, at_v5[:, i], total)
            for j in range(5):
                total = np.bincount(view_k, weight * jacobian[:, i] * jacobian[:, j], minlength=views)
                np.add.at(matrix, (at_v5[:, i], at_v5[:, j]), total)
    return matrix, right


def _add_drift(matrix: F64, right: F64, correction_v3: F64, eyes: F64) -> None:
    step_m = np.linalg.norm(np.diff(eyes, axis=0), axis=1)
    sigma_m, sigma_rad = DRIFT_M + DRIFT_PER_M * step_m, TURN_RAD + TURN_RAD_PER_M * step_m
    for k in range(3):
        sigma = sigma_rad if k == 2 else sigma_m
        anywhere = ANYWHERE_RAD if k == 2 else ANYWHERE_M
        at = 3 * np.arange(len(eyes)) + k
        matrix[at, at] += 1 / anywhere**2
        right[at] += correction_v3[:, k] / anywhere**2
        weight, difference = 1 / sigma**2, np.diff(correction_v3[:, k])
        a, b = at[:-1], at[1:]
        matrix[a, a] += weight
        matrix[b, b] += weight
        matrix[a, b] -= weight
        matrix[b, a] -= weight
        right[a] -= weight * difference
        right[b] += weight * difference


def _add_row(matrix: F64, right: F64, row: dict[int, float], residual: float, sigma: float) -> None:
    for i, a in row.items():
        right[i] += a * residual / sigma**2
        for j, b in row.items():
            matrix[i, j] += a * b / sigma**2


def adjust_heights(height_m_p: F64, view_p: I64, step_m_v: F64, levels_m_l: F64) -> tuple[F64, F64, F64]:
    """(levels (l,), their covariance (l, l), the views' shifts (v,)): floor and ceiling with the drift of height.

    Args: step_m_v: the way from each view to the next (v - 1,).
    """
    views, count = len(step_m_v) + 1, len(levels_m_l)
    levels, shift_v = levels_m_l.astype(np.float64).copy(), np.zeros(views)
    matrix = np.eye(views + count)
    for band_m in (0.12, 0.08, 0.05, 0.04):
        matrix, right = np.zeros((views + count, views + count)), np.zeros(views + count)
        for i in range(count):
            residual = height_m_p + shift_v[view_p] - levels[i]
            ok = np.abs(residual) < band_m
            if not ok.any():
                continue
            scale = float(np.clip(1.4826 * np.median(np.abs(residual[ok])), 0.004, 0.03))
            weight = np.clip(1 - (residual / min(band_m, 4.685 * scale)) ** 2, 0, None) ** 2
            weight /= scale**2 * POINTS_A_SAMPLE
            total = np.bincount(view_p, weight, minlength=views)
            moment = np.bincount(view_p, weight * residual, minlength=views)
            a = np.arange(views)
            matrix[a, a] += total
            matrix[a, views + i] -= total
            matrix[views + i, a] -= total
            matrix[views + i, views + i] += total.sum()
            right[a] += moment
            right[views + i] -= moment.sum()
        weight = 1 / (DRIFT_M + 0.5 * DRIFT_PER_M * step_m_v) ** 2
        a, b, difference = np.arange(views - 1), np.arange(1, views), np.diff(shift_v)
        matrix[a, a] += weight
        matrix[b, b] += weight
        matrix[a, b] -= weight
        matrix[b, a] -= weight
        right[a] -= weight * difference
        right[b] += weight * difference
        every = np.arange(views)
        matrix[every, every] += 1 / ANYWHERE_M**2
        right[every] += shift_v / ANYWHERE_M**2
        at = views + np.arange(count)
        matrix[at, at] += 1e-6
        step = np.linalg.solve(matrix, -right)
        shift_v += step[:views]
        levels += step[views:]
    return levels, np.asarray(np.linalg.inv(matrix)[views:, views:], np.float64), shift_v


def without_place(points_m_n2: F64, covariance_2n2n: F64) -> F64:
    """Covariance of n points' coordinates (x0, y0, x1, ...) free of where the whole lies and how it is turned."""
    x, y = (points_m_n2 - points_m_n2.mean(axis=0)).T
    rigid = np.zeros((2 * len(x), 3))
    rigid[0::2, 0] = rigid[1::2, 1] = 1.0
    rigid[0::2, 2], rigid[1::2, 2] = -y, x
    keep = np.eye(2 * len(x)) - rigid @ np.linalg.pinv(rigid)
    return keep @ covariance_2n2n @ keep.T
