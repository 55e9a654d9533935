"""The inner loops of surfels.py and alignment.py, compiled for the CPU: depth to planes, pairs of views to sums.

Belongs here: what those two say in words. Does not belong here: which pairs, and what is solved for.

Each frame or pair belongs to one thread, which adds up in the order written (no `fastmath`): the number of
threads changes nothing. Compiled code is cached beside this file, or where NUMBA_CACHE_DIR points.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, error_model="numpy")
def fit_planes(depth_m_hw, trust_hw, K_33, step, plane_hw3, spread_hw, share_hw, mean_trust_hw):
    """Plane a x + b y + c = 1 / z of 3 x 3 cells of step x step pixels around each cell, weighted by trust.

    Writes a, b, c; the root mean square residual of 1 / z, relative to it; the share of pixels with depth; the mean
    trust in the middle cell.
    """
    cells_h, cells_w = spread_hw.shape
    fx, fy, cx, cy = K_33[0, 0], K_33[1, 1], K_33[0, 2], K_33[1, 2]
    sums_hw = np.zeros((cells_h, cells_w, 11))
    for row in range(cells_h * step):
        y = (row - cy) / fy
        for column in range(cells_w * step):
            z = depth_m_hw[row, column]
            w = trust_hw[row, column]
            if not (z > 0.0 and w > 0.0):
                continue
            x, d = (column - cx) / fx, 1.0 / z
            s = sums_hw[row // step, column // step]
            s[0] += w
            s[1] += w * x
            s[2] += w * y
            s[3] += w * d
            s[4] += w * x * x
            s[5] += w * x * y
            s[6] += w * y * y
            s[7] += w * x * d
            s[8] += w * y * d
            s[9] += w * d * d
            s[10] += 1.0
    s = np.zeros(11)
    for row in range(1, cells_h - 1):  # at the rim errors of point and normal would go together
        for column in range(1, cells_w - 1):
            if sums_hw[row, column, 10] == 0.0:
                continue
            s[:] = 0.0
            for r in range(row - 1, row + 2):
                for c in range(column - 1, column + 2):
                    for k in range(11):
                        s[k] += sums_hw[r, c, k]
            n = s[0]
            x, y, d = s[1] / n, s[2] / n, s[3] / n
            xx, xy, yy = s[4] / n - x * x, s[5] / n - x * y, s[6] / n - y * y
            xd, yd, dd = s[7] / n - x * d, s[8] / n - y * d, s[9] / n - d * d
            det = xx * yy - xy * xy
            if not det > 1e-6 * (xx + yy) * (xx + yy):
                continue
            a, b = (yy * xd - xy * yd) / det, (xx * yd - xy * xd) / det
            plane_hw3[row, column, 0] = a
            plane_hw3[row, column, 1] = b
            plane_hw3[row, column, 2] = d - a * x - b * y
            spread_hw[row, column] = np.sqrt(max(0.0, dd - a * xd - b * yd)) / d
            share_hw[row, column] = s[10] / (9.0 * step * step)
            mean_trust_hw[row, column] = sums_hw[row, column, 0] / (step * step)


@numba.njit(cache=True)
def relative_pose(world_T_i_44, world_T_j_44):
    """Rotation (3, 3) and shift (3,) of frame i's points into frame j."""
    R, t = np.zeros((3, 3)), np.zeros(3)
    for k in range(3):
        for m in range(3):
            t[k] += world_T_j_44[m, k] * (world_T_i_44[m, 3] - world_T_j_44[m, 3])
            for h in range(3):
                R[k, h] += world_T_j_44[m, k] * world_T_i_44[m, h]
    return R, t


@numba.njit(parallel=True, cache=True, error_model="numpy")
def overlaps(point_bhw3, weight_bhw, K_b33, world_T_cam_b44, first_p, second_p, step, reach_m_p, share_p):
    """Share of every step-th surfel of one frame that lies on a surfel of the other, within a reach."""
    height, width = weight_bhw.shape[1:]
    for p in numba.prange(first_p.shape[0]):
        i, j = first_p[p], second_p[p]
        R, t = relative_pose(world_T_cam_b44[i], world_T_cam_b44[j])
        fx, fy, cx, cy = K_b33[j, 0, 0], K_b33[j, 1, 1], K_b33[j, 0, 2], K_b33[j, 1, 2]
        total, shared = 0, 0
        for row in range(step // 2, height, step):
            for column in range(step // 2, width, step):
                if not weight_bhw[i, row, column] > 0.0:
                    continue
                total += 1
                q = point_bhw3[i, row, column]
                z = R[2, 0] * q[0] + R[2, 1] * q[1] + R[2, 2] * q[2] + t[2]
                if not z > 0.1:
                    continue
                x = (R[0, 0] * q[0] + R[0, 1] * q[1] + R[0, 2] * q[2] + t[0]) / z * fx + cx
                y = (R[1, 0] * q[0] + R[1, 1] * q[1] + R[1, 2] * q[2] + t[1]) / z * fy + cy
                if not (x > -0.5 and y > -0.5 and x < width - 0.5 and y < height - 0.5):
                    continue
                c, r = int(x + 0.5), int(y + 0.5)
                if weight_bhw[j, r, c] > 0.0 and abs(point_bhw3[j, r, c, 2] - z) < reach_m_p[p]:
                    shared += 1
        share_p[p] = shared / total if total > 0 else 0.0


@numba.njit(parallel=True, cache=True, error_model="numpy")
def pair_sums(
    point_bhw3, normal_bhw3, weight_bhw, K_b33, world_T_cam_b44, centre_3,
    first_p, second_p, step, noise_m_d, bins_per_m, reach_m_p, least_cosine,
    normal_p66, right_p6, residual_pn, distance_pn,
):  # fmt: skip
    """Point-to-plane residuals of every step-th surfel of a view against another view, and their normal equations.

    The residual is n_q . (p - q) for a surfel p and the surfel q of the other view that it falls on. Its derivative by
    a motion of the first view (shift, turn about `centre_3`) is (n, (p - centre) x n), by one of the second minus that.
    For n the normal of p is taken: were it that of q, its error, times that q is not exactly where p falls, would pull
    the grid of one view onto that of the other (the errors of p and q are independent). Weights:
    Geman and McClure's, and 1 / noise^2 at that distance.
    `residual_pn` and `distance_pn` hold the residuals, NaN where there is none, and how far away it is, in metres.
    """
    height, width = weight_bhw.shape[1:]
    for p in numba.prange(first_p.shape[0]):
        i, j = first_p[p], second_p[p]
        R_j, t_j = world_T_cam_b44[j, :3, :3], world_T_cam_b44[j, :3, 3]
        R, t = relative_pose(world_T_cam_b44[i], world_T_cam_b44[j])
        fx, fy, cx, cy = K_b33[j, 0, 0], K_b33[j, 1, 1], K_b33[j, 0, 2], K_b33[j, 1, 2]
        H, g, a = np.zeros((6, 6)), np.zeros(6), np.zeros(6)
        n, m, s, o = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
        index = -1
        for row in range((i + j) % step, height, step):
            for column in range((i + j) % step, width, step):
                index += 1
                residual_pn[p, index] = np.nan
                w = weight_bhw[i, row, column]
                if not w > 0.0:
                    continue
                q = point_bhw3[i, row, column]
                for k in range(3):
                    s[k] = R[k, 0] * q[0] + R[k, 1] * q[1] + R[k, 2] * q[2] + t[k]
                if not s[2] > 0.1:
                    continue
                x, y = s[0] / s[2] * fx + cx, s[1] / s[2] * fy + cy
                if not (x > -0.5 and y > -0.5 and x < width - 0.5 and y < height - 0.5):
                    continue
                c, r = int(x + 0.5), int(y + 0.5)
                w *= weight_bhw[j, r, c]
                if not w > 0.0:
                    continue
                q = normal_bhw3[i, row, column]
                cosine = 0.0
                for k in range(3):
                    m[k] = R[k, 0] * q[0] + R[k, 1] * q[1] + R[k, 2] * q[2]
                    cosine += m[k] * normal_bhw3[j, r, c, k]
                if cosine < least_cosine:
                    continue
                residual = 0.0
                for k in range(3):
                    residual += normal_bhw3[j, r, c, k] * (s[k] - point_bhw3[j, r, c, k])
                distance = 0.5 * (point_bhw3[i, row, column, 2] + point_bhw3[j, r, c, 2])
                sigma = noise_m_d[min(int(distance * bins_per_m), noise_m_d.shape[0] - 1)]
                reach = max(reach_m_p[p], 2.5 * sigma)
                if not abs(residual) < 3.0 * reach:
                    continue
                residual_pn[p, index], distance_pn[p, index] = residual, distance
                ratio = 1.0 / (1.0 + (residual / reach) ** 2)
                w *= ratio * ratio / (sigma * sigma)
                for k in range(3):
                    n[k] = R_j[k, 0] * m[0] + R_j[k, 1] * m[1] + R_j[k, 2] * m[2]
                    o[k] = R_j[k, 0] * s[0] + R_j[k, 1] * s[1] + R_j[k, 2] * s[2] + t_j[k] - centre_3[k]
                a[0], a[1], a[2] = n[0], n[1], n[2]
                a[3] = o[1] * n[2] - o[2] * n[1]
                a[4] = o[2] * n[0] - o[0] * n[2]
                a[5] = o[0] * n[1] - o[1] * n[0]
                for k in range(6):
                    g[k] += w * a[k] * residual
                    for h in range(k + 1):
                        H[k, h] += w * a[k] * a[h]
        for k in range(6):
            right_p6[p, k] = g[k]
            for h in range(k + 1):
                normal_p66[p, k, h] = H[k, h]
                normal_p66[p, h, k] = H[k, h]


@numba.njit(cache=True)
def add_edges(first_p, second_p, normal_p66, right_p6, matrix, right):
    """Adds to the normal equations of 6 unknowns a frame what depends on the difference of two frames' motions."""
    for p in range(first_p.shape[0]):
        i, j = 6 * first_p[p], 6 * second_p[p]
        for k in range(6):
            right[i + k] += right_p6[p, k]
            right[j + k] -= right_p6[p, k]
            for h in range(6):
                value = normal_p66[p, k, h]
                matrix[i + k, i + h] += value
                matrix[j + k, j + h] += value
                matrix[i + k, j + h] -= value
                matrix[j + k, i + h] -= value
