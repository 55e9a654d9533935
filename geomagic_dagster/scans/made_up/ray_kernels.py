"""The made-up room's ray caster: what a ray meets first, how it is lit, how far a point is from the surface.

Belongs here: compiled loops over rays and points, and the one table of primitives that they read.
Does not belong here: what the primitives are (room.py, furniture.py) and what a phone makes of a picture
(sensor.py). Import it inside functions only: numba takes a second to load.

Every ray is exact (closed form, float64). The kernels release the GIL and run on one thread each, so that
frames are rendered side by side and the bytes never depend on the number of threads.

A surface has a number: walls 0 to k-1, floor k, ceiling k + 1, solid p is k + 2 + p.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

BOX, CYLINDER = 0, 1
"""Shapes of a solid. A cylinder stands upright; its half size is (radius, radius, half height)."""

PLASTER, STRIPES, BOARDS, WOOD, FABRIC, TILES, PICTURE, RUG, BOOKS, PLAIN, EMISSIVE, GLASS = range(12)
"""Patterns of a material. Nothing with the pattern GLASS gives depth or stops light."""

FLOOR_DECAL = -1
TOUCHING_M = 1e-7
"""A solid hides a wall, the floor or the ceiling only if nearer by this, so that flush faces never flicker."""
_STEP_OFF_M = 1e-4  # shadow rays start this far above the surface
_SKIRTING_M = 0.07


compiled = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)  # pyright: ignore[reportCallIssue]
"""Without reference counts: with them each call that passes the scene counts its 30 arrays up and down, atomically,
and everything takes ten times as long (and longer on two threads). So no kernel may allocate an array."""


class Scene(NamedTuple):
    """All that rays can meet, as arrays: k walls, p solids in g groups, q decals, m materials. World frame, metres."""

    floor_z: float
    ceiling_z: float
    corner_k2: np.ndarray
    """Footprint, counter-clockwise; wall i goes from corner i to the next; the room is to its left."""
    along_k2: np.ndarray
    length_k: np.ndarray
    hole_k4: np.ndarray
    """Opening of each wall: from, to along the wall, from, to in z; all zero where there is none."""
    wall_material_k: np.ndarray
    floor_material: int
    ceiling_material: int

    solid_shape_p: np.ndarray
    solid_centre_p3: np.ndarray
    solid_half_p3: np.ndarray
    solid_cos_sin_p2: np.ndarray
    solid_material_p: np.ndarray
    group_start: np.ndarray
    """(g + 1,): group g holds the solids from group_start[g] to group_start[g + 1]."""
    group_low_g3: np.ndarray
    group_high_g3: np.ndarray

    decal_surface_q: np.ndarray
    """Wall that a flat picture hangs on, or FLOOR_DECAL for a rug."""
    decal_centre_q2: np.ndarray
    decal_half_q2: np.ndarray
    decal_material_q: np.ndarray

    pattern_m: np.ndarray
    rgb_m3: np.ndarray
    rgb2_m3: np.ndarray
    """Linear reflectance."""
    scale_m: np.ndarray
    contrast_m: np.ndarray
    seed_m: np.ndarray

    lamp_3: np.ndarray
    lamp_rgb_3: np.ndarray
    towards_sun_3: np.ndarray
    sun_rgb_3: np.ndarray
    sky_rgb_3: np.ndarray
    ambient_rgb_3: np.ndarray
    window_wall: int
    """Wall that holds the window; -1 where there is none."""


# --- what a ray meets ------------------------------------------------------------------------------


@compiled
def _slab(origin, direction, half, near, far):
    """Narrows the interval (near, far) of a ray to where |coordinate| <= half."""
    if abs(direction) < 1e-14:
        if abs(origin) > half:
            return 1.0, 0.0
        return near, far
    a = (-half - origin) / direction
    b = (half - origin) / direction
    if a > b:
        a, b = b, a
    return max(near, a), min(far, b)


@compiled
def _enter_solid(s, p, ox, oy, oz, dx, dy, dz):
    """Ray parameter at which the ray enters solid p; infinity where it misses or starts inside."""
    cos, sin = s.solid_cos_sin_p2[p, 0], s.solid_cos_sin_p2[p, 1]
    rx, ry = ox - s.solid_centre_p3[p, 0], oy - s.solid_centre_p3[p, 1]
    lx, ly, lz = cos * rx + sin * ry, cos * ry - sin * rx, oz - s.solid_centre_p3[p, 2]
    mx, my = cos * dx + sin * dy, cos * dy - sin * dx
    near, far = _slab(lz, dz, s.solid_half_p3[p, 2], -np.inf, np.inf)
    if s.solid_shape_p[p] == BOX:
        near, far = _slab(lx, mx, s.solid_half_p3[p, 0], near, far)
        near, far = _slab(ly, my, s.solid_half_p3[p, 1], near, far)
    else:
        radius = s.solid_half_p3[p, 0]
        a = mx * mx + my * my
        b = lx * mx + ly * my
        c = lx * lx + ly * ly - radius * radius
        if a < 1e-14:
            if c > 0.0:
                return np.inf
        else:
            root = b * b - a * c
            if root <= 0.0:
                return np.inf
            root = math.sqrt(root)
            near, far = max(near, (-b - root) / a), min(far, (-b + root) / a)
    if near > far or near <= 0.0:
        return np.inf
    return near


@compiled
def _misses_group(s, g, ox, oy, oz, dx, dy, dz, limit):
    near, far = 0.0, limit
    low, high = s.group_low_g3, s.group_high_g3
    near, far = _slab(ox - 0.5 * (low[g, 0] + high[g, 0]), dx, 0.5 * (high[g, 0] - low[g, 0]), near, far)
    near, far = _slab(oy - 0.5 * (low[g, 1] + high[g, 1]), dy, 0.5 * (high[g, 1] - low[g, 1]), near, far)
    near, far = _slab(oz - 0.5 * (low[g, 2] + high[g, 2]), dz, 0.5 * (high[g, 2] - low[g, 2]), near, far)
    return near > far


@compiled
def _enter_wall(s, i, ox, oy, oz, dx, dy, dz):
    """Ray parameter at which a ray from inside meets wall i; infinity where it misses or passes the opening."""
    ex, ey = s.along_k2[i, 0], s.along_k2[i, 1]
    approach = -ey * dx + ex * dy  # along the inward normal (-ey, ex)
    if approach >= -1e-14:
        return np.inf
    rx, ry = ox - s.corner_k2[i, 0], oy - s.corner_k2[i, 1]
    t = -(-ey * rx + ex * ry) / approach
    if t <= 0.0:
        return np.inf
    u = (rx + t * dx) * ex + (ry + t * dy) * ey
    if u < -1e-9 or u > s.length_k[i] + 1e-9:
        return np.inf
    z = oz + t * dz
    if s.hole_k4[i, 0] < u < s.hole_k4[i, 1] and s.hole_k4[i, 2] <= z < s.hole_k4[i, 3]:
        return np.inf
    return t


@compiled
def first_hit(s, ox, oy, oz, dx, dy, dz):
    """(ray parameter, surface) of what a ray that starts inside the room meets first. It always meets something."""
    k = s.corner_k2.shape[0]
    best, surface = np.inf, -1
    for i in range(k):
        t = _enter_wall(s, i, ox, oy, oz, dx, dy, dz)
        if t < best:
            best, surface = t, i
    # Floor and ceiling need no polygon: a ray that leaves the footprint has met a wall or a pane before.
    if dz < 0.0:
        t = (s.floor_z - oz) / dz
        if 0.0 < t < best:
            best, surface = t, k
    elif dz > 0.0:
        t = (s.ceiling_z - oz) / dz
        if 0.0 < t < best:
            best, surface = t, k + 1
    best_solid = best - TOUCHING_M
    for g in range(s.group_low_g3.shape[0]):
        if _misses_group(s, g, ox, oy, oz, dx, dy, dz, best_solid):
            continue
        for p in range(s.group_start[g], s.group_start[g + 1]):
            t = _enter_solid(s, p, ox, oy, oz, dx, dy, dz)
            if t < best_solid:
                best_solid, best, surface = t, t, k + 2 + p
    return best, surface


@compiled
def _is_blocked(s, ox, oy, oz, dx, dy, dz, limit):
    """Does a wall or a solid other than glass stand before ray parameter `limit`?"""
    for g in range(s.group_low_g3.shape[0]):
        if _misses_group(s, g, ox, oy, oz, dx, dy, dz, limit):
            continue
        for p in range(s.group_start[g], s.group_start[g + 1]):
            if s.pattern_m[s.solid_material_p[p]] != GLASS and _enter_solid(s, p, ox, oy, oz, dx, dy, dz) < limit:
                return True
    for i in range(s.corner_k2.shape[0]):  # noqa: SIM110 - numba compiles no generator expressions
        if _enter_wall(s, i, ox, oy, oz, dx, dy, dz) < limit:
            return True
    return False


@compiled
def _local(s, p, x, y, z):
    rx, ry = x - s.solid_centre_p3[p, 0], y - s.solid_centre_p3[p, 1]
    cos, sin = s.solid_cos_sin_p2[p, 0], s.solid_cos_sin_p2[p, 1]
    return cos * rx + sin * ry, cos * ry - sin * rx, z - s.solid_centre_p3[p, 2]


@compiled
def _face(s, p, lx, ly, lz):
    """Which face of solid p a surface point lies on: 0 x, 1 y, 2 z; of a cylinder 0 side, 2 cap."""
    off_z = abs(abs(lz) - s.solid_half_p3[p, 2])
    if s.solid_shape_p[p] == CYLINDER:
        return 2 if off_z < abs(math.sqrt(lx * lx + ly * ly) - s.solid_half_p3[p, 0]) else 0
    off_x = abs(abs(lx) - s.solid_half_p3[p, 0])
    off_y = abs(abs(ly) - s.solid_half_p3[p, 1])
    if off_x <= off_y and off_x <= off_z:
        return 0
    return 1 if off_y <= off_z else 2


@compiled
def _normal(s, surface, x, y, z):
    """Outward normal (towards the free side) at a point of a surface."""
    k = s.corner_k2.shape[0]
    if surface < k:
        return -s.along_k2[surface, 1], s.along_k2[surface, 0], 0.0
    if surface < k + 2:
        return 0.0, 0.0, 1.0 if surface == k else -1.0
    p = surface - k - 2
    lx, ly, lz = _local(s, p, x, y, z)
    face = _face(s, p, lx, ly, lz)
    if face == 2:
        return 0.0, 0.0, 1.0 if lz > 0.0 else -1.0
    if s.solid_shape_p[p] == CYLINDER:
        radius = math.sqrt(lx * lx + ly * ly)
        nx, ny = lx / radius, ly / radius
    elif face == 0:
        nx, ny = (1.0 if lx > 0.0 else -1.0), 0.0
    else:
        nx, ny = 0.0, (1.0 if ly > 0.0 else -1.0)
    cos, sin = s.solid_cos_sin_p2[p, 0], s.solid_cos_sin_p2[p, 1]
    return cos * nx - sin * ny, sin * nx + cos * ny, 0.0


@compiled
def _material(s, surface):
    k = s.corner_k2.shape[0]
    if surface < k:
        return s.wall_material_k[surface]
    if surface < k + 2:
        return s.floor_material if surface == k else s.ceiling_material
    return s.solid_material_p[surface - k - 2]


@compiled
def cast_depth(s, world_T_cam_44, K_33, depth_m_hw, surface_hw, cosine_hw):
    """Depth along the camera's z, the surface, and the cosine of the angle to its normal, for every pixel.

    Glass gives depth 0. Writes into its last three arguments (float64, int32, float32).
    """
    T = world_T_cam_44
    ox, oy, oz = T[0, 3], T[1, 3], T[2, 3]
    for row in range(depth_m_hw.shape[0]):
        v = (row - K_33[1, 2]) / K_33[1, 1]
        for column in range(depth_m_hw.shape[1]):
            u = (column - K_33[0, 2]) / K_33[0, 0]
            dx = T[0, 0] * u + T[0, 1] * v + T[0, 2]
            dy = T[1, 0] * u + T[1, 1] * v + T[1, 2]
            dz = T[2, 0] * u + T[2, 1] * v + T[2, 2]
            t, surface = first_hit(s, ox, oy, oz, dx, dy, dz)  # direction has length 1 along z: t is the depth
            surface_hw[row, column] = surface
            depth_m_hw[row, column] = 0.0 if s.pattern_m[_material(s, surface)] == GLASS else t
            nx, ny, nz = _normal(s, surface, ox + t * dx, oy + t * dy, oz + t * dz)
            cosine_hw[row, column] = -(nx * dx + ny * dy + nz * dz) / math.sqrt(dx * dx + dy * dy + dz * dz)


# --- texture ---------------------------------------------------------------------------------------


@compiled
def _hash(a, b, c, seed):
    """A number in 0..1 for a cell of a grid (integer mixing as in xxHash's finish)."""
    h = np.uint32(a * 374761393 + b * 668265263 + c * 1274126177 + seed * 974634947)
    h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(2246822519))
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(3266489917))
    h = np.uint32(h ^ (h >> np.uint32(16)))
    return h / 4294967295.0


@compiled
def _noise(x, y, z, seed):
    """Value noise in -1..1 with a period of one (Perlin 1985, values instead of gradients)."""
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    fx, fy, fz = x - i, y - j, z - k
    fx, fy, fz = fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy), fz * fz * (3.0 - 2.0 * fz)
    total = 0.0
    for corner in range(8):
        a, b, c = corner & 1, (corner >> 1) & 1, corner >> 2
        weight = (fx if a else 1.0 - fx) * (fy if b else 1.0 - fy) * (fz if c else 1.0 - fz)
        if weight > 0.0:
            total += weight * _hash(i + a, j + b, k + c, seed)
    return 2.0 * total - 1.0


@compiled
def _octaves(x, y, z, wavelength, width, seed):
    """Three octaves of noise; those finer than two pixels (`width` metres each) fade out instead of flickering."""
    total = 0.0
    weight = 0.6
    for octave in range(3):
        visible = min(1.0, wavelength / (2.0 * width) - 1.0)
        if visible <= 0.0:
            break
        total += weight * visible * _noise(x / wavelength, y / wavelength, z / wavelength, seed + 101 * octave)
        wavelength *= 0.37
        weight *= 0.65
    return total


@compiled
def _line(coordinate, period, thickness, width):
    """1 on lines that repeat every `period`, 0 between, softened to the pixel's width."""
    off = abs(coordinate - period * math.floor(coordinate / period + 0.5))
    soft = max(width, 1e-4)
    visible = min(1.0, period / (2.0 * soft))
    return visible * min(1.0, max(0.0, 0.5 + (0.5 * thickness - off) / soft))


@compiled
def _albedo(s, m, a, b, c, width):
    """Linear reflectance of material m at (a, b) on a face, c across it, for a pixel `width` metres wide."""
    pattern, scale, contrast, seed = s.pattern_m[m], s.scale_m[m], s.contrast_m[m], s.seed_m[m]
    mix, gain = 0.0, 1.0  # towards the second colour; brighter or darker
    if pattern in (PLASTER, EMISSIVE, PLAIN):
        gain += contrast * _octaves(a, b, c, scale, width, seed)
    elif pattern == STRIPES:
        mix = _line(a, scale, 0.5 * scale, width)
        mix = max(mix, 0.8 * _line(a + 0.5 * scale, scale, 0.06 * scale, width))
        gain += contrast * _octaves(a, b, c, 0.05, width, seed)
    elif pattern == BOARDS:
        row = math.floor(b / scale)
        shift = 1.3 * _hash(int(row), 7, 3, seed)
        board = math.floor((a + shift) / 1.3)
        tint = _hash(int(row), int(board), 5, seed)
        mix = 0.7 * tint + 0.3 * (0.5 + 0.5 * _octaves(a * 0.12, b, 10.0 * tint, 0.03, width, seed))
        gap = max(_line(b, scale, 0.004, width), _line(a + shift, 1.3, 0.004, width))
        gain += contrast * _octaves(a * 0.05, b, 31.0 * tint, 0.012, width, seed + 5) - 0.6 * gap
    elif pattern == WOOD:
        rings = _octaves(a * 0.15, b, c, scale, width, seed)
        mix = 0.5 + 0.5 * rings
        gain += contrast * _octaves(a * 0.08, b, c, 0.2 * scale, width, seed + 9)
    elif pattern == FABRIC:
        mix = 0.5 + 0.5 * _octaves(a, b, c, scale, width, seed)
        weave = _octaves(a, b, c, 0.012, width, seed + 3)
        gain += contrast * weave - 0.25 * max(_line(a, scale, 0.004, width), _line(b, scale, 0.004, width))
    elif pattern == TILES:
        tint = _hash(math.floor(a / scale + 0.5), math.floor(b / scale + 0.5), 1, seed)
        mix = max(_line(a + 0.5 * scale, scale, 0.006, width), _line(b + 0.5 * scale, scale, 0.006, width))
        gain += contrast * (tint - 0.5) + 0.5 * contrast * _octaves(a, b, c, 0.15, width, seed)
    elif pattern == RUG:
        ring = max(abs(a), 0.7 * abs(b)) + 0.05 * _line(a + b, 0.12, 0.06, width)
        mix = _line(ring, scale, 0.45 * scale, width)
        gain += contrast * _octaves(a, b, c, 0.02, width, seed)
    else:  # PICTURE, BOOKS: cells of their own colours
        if pattern == BOOKS:
            column = math.floor(a / scale)
            cell_a, cell_b = int(column), 0
            gain -= 0.7 * _line(a, scale, 0.004, width) - 0.5 * _line(b, 0.31, 0.015, width)
        else:
            warp = 0.6 * _noise(a / scale, b / scale, 0.0, seed + 1)
            cell_a = math.floor(a / scale + warp)
            cell_b = math.floor(b / scale - warp + 0.5 * cell_a)
        gain += contrast * _octaves(a, b, c, 0.05, width, seed)
        red = 0.04 + 0.65 * _hash(cell_a, cell_b, 1, seed) ** 2
        green = 0.04 + 0.60 * _hash(cell_a, cell_b, 2, seed) ** 2
        blue = 0.04 + 0.60 * _hash(cell_a, cell_b, 3, seed) ** 2
        keep = 0.45
        return (
            gain * (keep * s.rgb_m3[m, 0] + (1.0 - keep) * red),
            gain * (keep * s.rgb_m3[m, 1] + (1.0 - keep) * green),
            gain * (keep * s.rgb_m3[m, 2] + (1.0 - keep) * blue),
        )
    mix = min(1.0, max(0.0, mix))
    gain = max(0.0, gain)
    return (
        gain * ((1.0 - mix) * s.rgb_m3[m, 0] + mix * s.rgb2_m3[m, 0]),
        gain * ((1.0 - mix) * s.rgb_m3[m, 1] + mix * s.rgb2_m3[m, 1]),
        gain * ((1.0 - mix) * s.rgb_m3[m, 2] + mix * s.rgb2_m3[m, 2]),
    )


@compiled
def _decal(s, surface, a, b):
    """Index of the picture or rug at (a, b) of a surface; -1 for none."""
    for q in range(s.decal_surface_q.shape[0]):
        if (
            s.decal_surface_q[q] == surface
            and abs(a - s.decal_centre_q2[q, 0]) <= s.decal_half_q2[q, 0]
            and abs(b - s.decal_centre_q2[q, 1]) <= s.decal_half_q2[q, 1]
        ):
            return q
    return -1


@compiled
def _surface_colour(s, surface, x, y, z, width):
    """(red, green, blue) linear reflectance of a surface point."""
    k = s.corner_k2.shape[0]
    m = _material(s, surface)
    c = 3.7 * surface  # no two walls alike
    if surface <= k:
        if surface < k:
            if z < s.floor_z + _SKIRTING_M:
                return 0.72, 0.70, 0.66
            a = (x - s.corner_k2[surface, 0]) * s.along_k2[surface, 0]
            a += (y - s.corner_k2[surface, 1]) * s.along_k2[surface, 1]
            b = z
            q = _decal(s, surface, a, b)
        else:
            a, b = x, y
            q = _decal(s, FLOOR_DECAL, a, b)
        if q >= 0:
            m = s.decal_material_q[q]
            a, b, c = a - s.decal_centre_q2[q, 0], b - s.decal_centre_q2[q, 1], 0.0
            rim = min(s.decal_half_q2[q, 0] - abs(a), s.decal_half_q2[q, 1] - abs(b))
            if surface < k and rim < 0.025:
                return 0.05, 0.04, 0.03  # frame
    elif surface == k + 1:
        a, b = x, y
    else:
        p = surface - k - 2
        lx, ly, lz = _local(s, p, x, y, z)
        face = _face(s, p, lx, ly, lz)
        if s.solid_shape_p[p] == CYLINDER and face == 0:
            a, b, c = lz, math.atan2(ly, lx) * s.solid_half_p3[p, 0], 1.3 * p
        elif face == 2:
            a, b, c = lx, ly, lz
        elif face == 0:
            a, b, c = ly, lz, lx
        else:
            a, b, c = lx, lz, ly
    return _albedo(s, m, a, b, c, width)


# --- light -----------------------------------------------------------------------------------------


@compiled
def _reaches_window(s, x, y, z, dx, dy, dz):
    """Ray parameter at which a ray passes the window's pane; 0 where it does not."""
    i = s.window_wall
    ex, ey = s.along_k2[i, 0], s.along_k2[i, 1]
    approach = -ey * dx + ex * dy
    if approach >= -1e-9:
        return 0.0
    rx, ry = x - s.corner_k2[i, 0], y - s.corner_k2[i, 1]
    t = -(-ey * rx + ex * ry) / approach
    u, height = (rx + t * dx) * ex + (ry + t * dy) * ey, z + t * dz
    inside = s.hole_k4[i, 0] < u < s.hole_k4[i, 1] and s.hole_k4[i, 2] < height < s.hole_k4[i, 3]
    # 0.1 m further: the frame stands behind the wall's plane
    return t - 0.1 / approach if inside and t > 0.0 else 0.0


@compiled
def _backdrop(s, dx, dy, dz):
    """What the window shows: sky, and trees below the horizon."""
    up = dz / math.sqrt(dx * dx + dy * dy + dz * dz)
    angle = math.atan2(dy, dx)
    trees = 0.10 + 0.10 * _octaves(angle, 0.0, 0.0, 0.25, 0.005, 77)
    if up < trees:
        leaf = 0.5 + 0.5 * _octaves(angle, up, 0.0, 0.05, 0.002, 99)
        return 0.15 + 0.2 * leaf, 0.25 + 0.35 * leaf, 0.10 + 0.15 * leaf
    return 0.9 * s.sky_rgb_3[0], 0.9 * s.sky_rgb_3[1], 0.9 * s.sky_rgb_3[2]


@compiled
def _radiance(s, ox, oy, oz, dx, dy, dz, pixel_rad):
    """(red, green, blue) that a ray sees, and its surface. Lambert; shadows of lamp and sun; sky light unshadowed."""
    k = s.corner_k2.shape[0]
    t, surface = first_hit(s, ox, oy, oz, dx, dy, dz)
    x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
    m = _material(s, surface)
    if s.pattern_m[m] == GLASS:
        red, green, blue = _backdrop(s, dx, dy, dz)
        return red, green, blue, surface
    nx, ny, nz = _normal(s, surface, x, y, z)
    reach = t * math.sqrt(dx * dx + dy * dy + dz * dz)
    facing = max(0.25, -(nx * dx + ny * dy + nz * dz) * t / reach)
    width = reach * pixel_rad / facing
    red, green, blue = _surface_colour(s, surface, x, y, z, width)
    if s.pattern_m[m] == EMISSIVE:
        return 1.6 * red, 1.6 * green, 1.6 * blue, surface
    x, y, z = x + _STEP_OFF_M * nx, y + _STEP_OFF_M * ny, z + _STEP_OFF_M * nz

    # ambient: a little more from above; darker in the corners between walls, floor and ceiling
    ambient = 0.85 + 0.15 * nz
    if surface < k:
        ambient *= 1.0 - 0.35 * math.exp(-(s.ceiling_z - z) / 0.2) - 0.35 * math.exp(-(z - s.floor_z) / 0.2)
    light_r, light_g, light_b = ambient * s.ambient_rgb_3[0], ambient * s.ambient_rgb_3[1], ambient * s.ambient_rgb_3[2]

    lx, ly, lz = s.lamp_3[0] - x, s.lamp_3[1] - y, s.lamp_3[2] - z
    square = lx * lx + ly * ly + lz * lz
    lambert = (nx * lx + ny * ly + nz * lz) / math.sqrt(square)
    if lambert > 0.0 and not _is_blocked(s, x, y, z, lx, ly, lz, 1.0):
        lambert /= square + 0.3  # a lamp has a size: no singularity beneath it
        light_r += lambert * s.lamp_rgb_3[0]
        light_g += lambert * s.lamp_rgb_3[1]
        light_b += lambert * s.lamp_rgb_3[2]

    if s.window_wall >= 0:
        i = s.window_wall
        hx, hy, hz = s.towards_sun_3[0], s.towards_sun_3[1], s.towards_sun_3[2]
        lambert = nx * hx + ny * hy + nz * hz
        if lambert > 0.0:
            pane = _reaches_window(s, x, y, z, hx, hy, hz)
            if pane > 0.0 and not _is_blocked(s, x, y, z, hx, hy, hz, pane):
                light_r += lambert * s.sun_rgb_3[0]
                light_g += lambert * s.sun_rgb_3[1]
                light_b += lambert * s.sun_rgb_3[2]
        # the window as an area light, seen as a disc (form factor of a small patch)
        u = 0.5 * (s.hole_k4[i, 0] + s.hole_k4[i, 1])
        wx = s.corner_k2[i, 0] + u * s.along_k2[i, 0] - x
        wy = s.corner_k2[i, 1] + u * s.along_k2[i, 1] - y
        wz = 0.5 * (s.hole_k4[i, 2] + s.hole_k4[i, 3]) - z
        square = wx * wx + wy * wy + wz * wz
        at_patch = (nx * wx + ny * wy + nz * wz) / math.sqrt(square)
        at_window = -(-s.along_k2[i, 1] * wx + s.along_k2[i, 0] * wy) / math.sqrt(square)
        if at_patch > 0.0 and at_window > 0.0:
            area = (s.hole_k4[i, 1] - s.hole_k4[i, 0]) * (s.hole_k4[i, 3] - s.hole_k4[i, 2])
            factor = at_patch * at_window * area / (math.pi * square + area)
            light_r += factor * s.sky_rgb_3[0]
            light_g += factor * s.sky_rgb_3[1]
            light_b += factor * s.sky_rgb_3[2]
    return red * light_r, green * light_g, blue * light_b, surface


@compiled
def render_colour(s, world_T_cam_44, K_33, radiance_hw3, surface_hw):
    """Linear radiance of every pixel, (h, w, 3) float32, and its surface, int32; written into the last two arguments.

    One ray a pixel, and four more where the surface changes within the pixel's neighbourhood.
    """
    T = world_T_cam_44
    ox, oy, oz = T[0, 3], T[1, 3], T[2, 3]
    height, width = radiance_hw3.shape[0], radiance_hw3.shape[1]
    pixel_rad = 1.0 / K_33[0, 0]
    for second in range(2):
        for row in range(height):
            for column in range(width):
                samples = 1
                if second:
                    here = surface_hw[row, column]
                    if (
                        here == surface_hw[max(row - 1, 0), column]
                        and here == surface_hw[min(row + 1, height - 1), column]
                        and here == surface_hw[row, max(column - 1, 0)]
                        and here == surface_hw[row, min(column + 1, width - 1)]
                    ):
                        continue
                    samples = 4
                red, green, blue = 0.0, 0.0, 0.0
                for sample in range(samples):
                    shift_u = 0.0 if samples == 1 else (sample & 1) * 0.5 - 0.25
                    shift_v = 0.0 if samples == 1 else (sample >> 1) * 0.5 - 0.25
                    u = (column + shift_u - K_33[0, 2]) / K_33[0, 0]
                    v = (row + shift_v - K_33[1, 2]) / K_33[1, 1]
                    dx = T[0, 0] * u + T[0, 1] * v + T[0, 2]
                    dy = T[1, 0] * u + T[1, 1] * v + T[1, 2]
                    dz = T[2, 0] * u + T[2, 1] * v + T[2, 2]
                    r, g, b, surface = _radiance(s, ox, oy, oz, dx, dy, dz, pixel_rad)
                    red, green, blue = red + r, green + g, blue + b
                    if not second:
                        surface_hw[row, column] = surface
                radiance_hw3[row, column, 0] = red / samples
                radiance_hw3[row, column, 1] = green / samples
                radiance_hw3[row, column, 2] = blue / samples


# --- points and surfaces ---------------------------------------------------------------------------


@compiled
def _to_segment(s, i, x, y):
    """Distance in the plane from (x, y) to wall i, and the place along it."""
    rx, ry = x - s.corner_k2[i, 0], y - s.corner_k2[i, 1]
    u = rx * s.along_k2[i, 0] + ry * s.along_k2[i, 1]
    nearest = min(max(u, 0.0), s.length_k[i])
    return math.hypot(rx - nearest * s.along_k2[i, 0], ry - nearest * s.along_k2[i, 1]), u


@compiled
def is_inside_footprint(s, x, y):
    inside = False
    k = s.corner_k2.shape[0]
    for i in range(k):
        ax, ay = s.corner_k2[i, 0], s.corner_k2[i, 1]
        bx, by = s.corner_k2[(i + 1) % k, 0], s.corner_k2[(i + 1) % k, 1]
        if (ay > y) != (by > y) and x < ax + (y - ay) / (by - ay) * (bx - ax):
            inside = not inside
    return inside


@compiled
def _solid_distance(s, p, x, y, z):
    """Signed distance to the surface of solid p, negative inside (Quilez, Distance functions)."""
    lx, ly, lz = _local(s, p, x, y, z)
    qz = abs(lz) - s.solid_half_p3[p, 2]
    if s.solid_shape_p[p] == CYLINDER:
        qx, qy = math.hypot(lx, ly) - s.solid_half_p3[p, 0], -np.inf
    else:
        qx, qy = abs(lx) - s.solid_half_p3[p, 0], abs(ly) - s.solid_half_p3[p, 1]
    outside = math.sqrt(max(qx, 0.0) ** 2 + max(qy, 0.0) ** 2 + max(qz, 0.0) ** 2)
    return outside + min(max(qx, qy, qz), 0.0)


@compiled
def surface_distance(s, points_n3, distance_m_n):
    """Distance of points to the nearest surface: walls without their openings, floor, ceiling, solids but glass."""
    k = s.corner_k2.shape[0]
    for n in range(points_n3.shape[0]):
        x, y, z = points_n3[n, 0], points_n3[n, 1], points_n3[n, 2]
        best = np.inf
        to_outline = np.inf
        for i in range(k):
            flat, u = _to_segment(s, i, x, y)
            to_outline = min(to_outline, flat)
            over = max(s.floor_z - z, z - s.ceiling_z, 0.0)
            u0, u1, z0, z1 = s.hole_k4[i, 0], s.hole_k4[i, 1], s.hole_k4[i, 2], s.hole_k4[i, 3]
            if u0 < u < u1 and z0 < z < z1:
                over = min(u - u0, u1 - u, z - z0, z1 - z)
            best = min(best, math.hypot(flat, over))
        if is_inside_footprint(s, x, y):
            to_outline = 0.0
        best = min(best, math.hypot(to_outline, z - s.floor_z), math.hypot(to_outline, z - s.ceiling_z))
        for p in range(s.solid_shape_p.shape[0]):
            if s.pattern_m[s.solid_material_p[p]] != GLASS:
                best = min(best, abs(_solid_distance(s, p, x, y, z)))
        distance_m_n[n] = best


@compiled
def mark_free(s, points_n3, is_free_n):
    """Which points lie in no solid, and inside the room or in the recess of an opening (0.1 m behind its wall)."""
    for n in range(points_n3.shape[0]):
        x, y, z = points_n3[n, 0], points_n3[n, 1], points_n3[n, 2]
        free = is_inside_footprint(s, x, y) and s.floor_z < z < s.ceiling_z
        for i in range(s.corner_k2.shape[0]):
            flat, u = _to_segment(s, i, x, y)
            in_hole = s.hole_k4[i, 0] < u < s.hole_k4[i, 1] and s.hole_k4[i, 2] < z < s.hole_k4[i, 3]
            free = free or (in_hole and flat < 0.1)
        for p in range(s.solid_shape_p.shape[0]):
            free = free and _solid_distance(s, p, x, y, z) > 0.0
        is_free_n[n] = free


@compiled
def count_views(s, points_n3, normals_n3, cam_T_world_b44, K_33, width, height, near_m, far_m, min_cosine, views_n):
    """How many of b frames see each surface point: in the image, within range, not too glancing, nothing before it."""
    for n in range(points_n3.shape[0]):
        x, y, z = points_n3[n, 0], points_n3[n, 1], points_n3[n, 2]
        nx, ny, nz = normals_n3[n, 0], normals_n3[n, 1], normals_n3[n, 2]
        views = 0
        for frame in range(cam_T_world_b44.shape[0]):
            T = cam_T_world_b44[frame]
            cz = T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3]
            if cz < near_m or cz > far_m:
                continue
            cx = T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3]
            cy = T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3]
            u, v = K_33[0, 0] * cx / cz + K_33[0, 2], K_33[1, 1] * cy / cz + K_33[1, 2]
            if u < 0.0 or v < 0.0 or u > width - 1.0 or v > height - 1.0:
                continue
            reach = math.sqrt(cx * cx + cy * cy + cz * cz)
            # from the point back to the camera, in the world
            bx = -(T[0, 0] * cx + T[1, 0] * cy + T[2, 0] * cz)
            by = -(T[0, 1] * cx + T[1, 1] * cy + T[2, 1] * cz)
            bz = -(T[0, 2] * cx + T[1, 2] * cy + T[2, 2] * cz)
            if (nx * bx + ny * by + nz * bz) / reach < min_cosine:
                continue
            t, _ = first_hit(s, x + bx, y + by, z + bz, -bx, -by, -bz)
            if t > 1.0 - 1e-5:
                views += 1
        views_n[n] = views
