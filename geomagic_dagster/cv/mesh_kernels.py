"""The two inner loops of TSDF fusion, compiled for the CPU. The reference is the torch code in mesh.py.

Belongs here: what `mesh.py` also says in torch, loop for loop, with equal bits (a test holds the two
together). Does not belong here: anything that the reference does not do.

Why the bits are equal: coordinates are float32 sums in one written order, never a product and a sum in
one expression that a compiler may contract; products, quotients, floor and rint are correctly rounded by
IEEE 754 on every device; all that is accumulated is integer. No `fastmath`, so LLVM reorders nothing.
Each voxel belongs to one block and each block to one thread, so the number of threads changes nothing.

Compiled code is cached beside this file, or where NUMBA_CACHE_DIR points when that place is read-only.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(parallel=True, cache=True)
def mark_touched(depth_m_hw, direction_w3, direction_h3, origin_3, offsets_m, lowest_3, is_touched_xyz):
    """Marks the blocks that rays enter within the truncation of their surface; see `touch` in mesh.py.

    All coordinates are in blocks. Several threads may mark one block: they all write the same True.
    """
    height, width = depth_m_hw.shape
    for row in numba.prange(height):
        for column in range(width):
            z = depth_m_hw[row, column]
            if not z > 0:
                continue
            dx = direction_w3[column, 0] + direction_h3[row, 0]
            dy = direction_w3[column, 1] + direction_h3[row, 1]
            dz = direction_w3[column, 2] + direction_h3[row, 2]
            for s in range(offsets_m.shape[0]):
                along = z + offsets_m[s]
                px = along * dx
                py = along * dy
                pz = along * dz
                x = int(np.floor(px + origin_3[0])) - lowest_3[0]
                y = int(np.floor(py + origin_3[1])) - lowest_3[1]
                z_block = int(np.floor(pz + origin_3[2])) - lowest_3[2]
                is_touched_xyz[x, y, z_block] = True


@numba.njit(parallel=True, cache=True)
def integrate(
    depth_m_hw, rgbw_hw4, base_m3, step_3e3, slot_m, fade_q, quanta_per_m, colour_quanta, sdf_weight, rgb_weight
):
    """Adds one frame to the voxels of m blocks; see `integrate` in mesh.py."""
    height, width = depth_m_hw.shape
    width_f, height_f = np.float32(width), np.float32(height)
    edge = step_3e3.shape[1]
    full = (fade_q.shape[0] - 1) // 2
    full_f = np.float32(full)
    zero = np.float32(0)
    has_colour = rgb_weight.shape[0] > 0
    for m in numba.prange(slot_m.shape[0]):
        slot = slot_m[m]
        for i in range(edge):
            ui = base_m3[m, 0] + step_3e3[0, i, 0]
            vi = base_m3[m, 1] + step_3e3[0, i, 1]
            zi = base_m3[m, 2] + step_3e3[0, i, 2]
            for j in range(edge):
                uj = ui + step_3e3[1, j, 0]
                vj = vi + step_3e3[1, j, 1]
                zj = zi + step_3e3[1, j, 2]
                for k in range(edge):
                    z = zj + step_3e3[2, k, 2]
                    if not z > zero:
                        continue
                    x_px = (uj + step_3e3[2, k, 0]) / z
                    y_px = (vj + step_3e3[2, k, 1]) / z
                    if not (x_px >= zero and x_px < width_f and y_px >= zero and y_px < height_f):
                        continue
                    row, column = np.int64(y_px), np.int64(x_px)
                    weight = np.int32(rgbw_hw4[row, column, 3])
                    if weight == 0:
                        continue
                    distance = (depth_m_hw[row, column] - z) * quanta_per_m
                    quantum = np.int32(np.rint(min(max(distance, -full_f), full_f)))
                    if quantum <= -full:
                        continue
                    weight = max(np.int32(1), np.int32((weight * fade_q[quantum + full]) >> 8))
                    sdf_weight[slot, i, j, k, 0] += weight * quantum
                    sdf_weight[slot, i, j, k, 1] += weight
                    if has_colour and abs(quantum) <= colour_quanta:
                        rgb_weight[slot, i, j, k, 0] += weight * np.int32(rgbw_hw4[row, column, 0])
                        rgb_weight[slot, i, j, k, 1] += weight * np.int32(rgbw_hw4[row, column, 1])
                        rgb_weight[slot, i, j, k, 2] += weight * np.int32(rgbw_hw4[row, column, 2])
                        rgb_weight[slot, i, j, k, 3] += weight
