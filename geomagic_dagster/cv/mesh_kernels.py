"""The two inner loops of TSDF fusion, compiled for the CPU. The reference is the torch code in tsdf.py.

Belongs here: what `TorchKernel` in tsdf.py says, with equal bits (a test holds the two together). Does not
belong here: anything that the reference does not do.

Why the bits are equal: each float32 sum, product and quotient is rounded by itself as IEEE 754 says, in the
order written, on every device (no `fastmath`: LLVM then neither reorders nor contracts); all that is
accumulated is integer. Each voxel belongs to one block and each block to one thread, so the number of threads
changes nothing.

Compiled code is cached beside this file, or where NUMBA_CACHE_DIR points when that place is read-only.
"""

from __future__ import annotations

import numba
import numpy as np

ZERO, HALF = np.float32(0), np.float32(0.5)
NONE, ONE = np.int32(0), np.int32(1)
BYTE = np.uint32(255)


@numba.njit(cache=True)
def mark_touched(depth_m_hw, direction_w3, direction_h3, origin_3, offsets_m, lowest_3, is_touched_xyz):
    """Marks the blocks that rays enter within the truncation of their surface, in units of blocks."""
    height, width = depth_m_hw.shape
    for row in range(height):
        for column in range(width):
            z = depth_m_hw[row, column]
            if not z > ZERO:
                continue
            dx = direction_w3[column, 0] + direction_h3[row, 0]
            dy = direction_w3[column, 1] + direction_h3[row, 1]
            dz = direction_w3[column, 2] + direction_h3[row, 2]
            for s in range(offsets_m.shape[0]):
                along = z + offsets_m[s]
                block_x = int(np.floor(along * dx + origin_3[0])) - lowest_3[0]
                block_y = int(np.floor(along * dy + origin_3[1])) - lowest_3[1]
                block_z = int(np.floor(along * dz + origin_3[2])) - lowest_3[2]
                is_touched_xyz[block_x, block_y, block_z] = True


@numba.njit(parallel=True, cache=True, error_model="numpy")
def integrate(
    depth_m_p,
    rgbw_p,
    width,
    height,
    base_m3,
    step_3v,
    slot_m,
    quanta,
    quanta_per_m,
    fade,
    fade_free,
    fade_shift,
    colour_quanta,
    sdf_weight_n2v,
    rgb_weight_n4v,
):
    """Adds one frame to the voxels of m blocks. `rgbw_p`: red in the lowest byte, weight in the highest.

    Loop by loop over the voxels of a block, so that LLVM turns all but the second into vector instructions:
    three times as fast as one loop that says the same.
    """
    width_px, height_px, row_px = np.float32(width), np.float32(height), np.int32(width)
    quanta, fade, colour_quanta = np.int32(quanta), np.int32(fade), np.int32(colour_quanta)
    farthest = np.float32(quanta)
    full_fade, fade_free = np.int32(1 << fade_shift), np.int32(fade_free)
    has_colour = rgb_weight_n4v.shape[0] > 0
    voxels = step_3v.shape[1]
    step_x_v, step_y_v, step_z_v = step_3v[0], step_3v[1], step_3v[2]
    for m in numba.prange(slot_m.shape[0]):
        slot = slot_m[m]
        base_x, base_y, base_z = base_m3[m, 0], base_m3[m, 1], base_m3[m, 2]
        pixel_v, rgbw_v = np.empty(voxels, np.int32), np.empty(voxels, np.uint32)
        distance_m_v = np.empty(voxels, np.float32)
        quantum_v, weight_v = np.empty(voxels, np.int32), np.empty(voxels, np.int32)

        for v in range(voxels):  # where each voxel falls
            z = base_z + step_z_v[v]
            x_px = (base_x + step_x_v[v]) / z
            y_px = (base_y + step_y_v[v]) / z
            is_inside = (z > ZERO) & (x_px >= ZERO) & (x_px < width_px) & (y_px >= ZERO) & (y_px < height_px)
            row, column = np.int32(y_px if is_inside else ZERO), np.int32(x_px if is_inside else ZERO)
            pixel_v[v] = row * row_px + column
            weight_v[v] = np.int32(is_inside)
            distance_m_v[v] = z

        for v in range(voxels):  # what is seen there
            p = np.uint32(pixel_v[v])
            rgbw_v[v] = rgbw_p[p]
            distance_m_v[v] = depth_m_p[p] - distance_m_v[v]

        is_any_seen = NONE
        for v in range(voxels):  # how far the voxel lies in front of it, and how much that is worth
            distance = distance_m_v[v] * quanta_per_m
            distance = distance if distance > -farthest else -farthest
            distance = distance if distance < farthest else farthest
            above_lowest = np.int32(distance + farthest + HALF)
            to_truncation = quanta + quanta - above_lowest
            to_truncation = to_truncation if to_truncation < above_lowest else above_lowest
            faded = to_truncation * fade
            faded = faded if faded < full_fade else full_fade
            faded = fade_free if (above_lowest > quanta) & (faded < fade_free) else faded
            full_weight = np.int32(rgbw_v[v] >> np.uint32(24))
            weight = (full_weight * faded) >> fade_shift
            weight = weight if weight > ONE else ONE
            is_seen = (weight_v[v] > NONE) & (full_weight > NONE) & (above_lowest > NONE)
            weight_v[v] = weight if is_seen else NONE
            quantum_v[v] = above_lowest - quanta
            is_any_seen |= weight_v[v]
        if is_any_seen == NONE:
            continue

        sdf_v, sdf_weight_v = sdf_weight_n2v[slot, 0], sdf_weight_n2v[slot, 1]
        for v in range(voxels):
            sdf_v[v] += weight_v[v] * quantum_v[v]
        for v in range(voxels):
            sdf_weight_v[v] += weight_v[v]

        if not has_colour:
            continue
        is_any_seen = NONE
        for v in range(voxels):  # only near the surface
            is_near = (quantum_v[v] <= colour_quanta) & (quantum_v[v] >= -colour_quanta)
            weight_v[v] = weight_v[v] if is_near else NONE
            is_any_seen |= weight_v[v]
        if is_any_seen == NONE:
            continue
        for channel in range(3):
            sums_v = rgb_weight_n4v[slot, channel]
            shift = np.uint32(8 * channel)
            for v in range(voxels):
                sums_v[v] += weight_v[v] * np.int32((rgbw_v[v] >> shift) & BYTE)
        rgb_weight_v = rgb_weight_n4v[slot, 3]
        for v in range(voxels):
            rgb_weight_v[v] += weight_v[v]
