"""The made-up room's walk: where the camera really is, and where the device believes it is.

Belongs here: camera paths and errors of the device's poses. Does not belong here: images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.scans.made_up import plan
from geomagic_dagster.scans.made_up.room import MadeUpRoom

F64 = NDArray[np.float64]

_FRAMES_A_TURN = 60
_STEP_M = 0.02
_CORNER_M = (1.0, 2.2)
"""How far from a corner somebody stands who scans only that corner."""


def walk_world_T_cam_b44(room: MadeUpRoom, frames: int, rng: np.random.Generator) -> F64:
    """Camera-to-world of a person with a phone: once round the free floor, turning and looking up and down.

    The path is the same however many frames are taken of it. Raises: ValueError for a room without free floor.
    """
    path_n2 = _floor_path(room, rng)
    s_b = np.linspace(0.0, 1.0, frames, endpoint=False)
    x_b, y_b = (np.interp(s_b, np.linspace(0.0, 1.0, len(path_n2)), path_n2[:, i]) for i in (0, 1))

    turns = max(1, round(frames / _FRAMES_A_TURN))
    phases = rng.uniform(0.0, 2.0 * np.pi, 8)
    yaw_b = _look_across(room, np.stack((x_b, y_b), axis=1), 2.0 * np.pi * turns * s_b, phases[0])
    yaw_b += 0.25 * np.sin(2.0 * np.pi * 3 * s_b + phases[1])
    # An odd number of nods on the same turns: where the first turn looked up, the next looks down.
    pitch_b = np.radians(-13.0 + 27.0 * np.sin(2.0 * np.pi * (2 * turns + 1) * s_b + phases[2]))
    roll_b = np.radians(2.0) * np.sin(2.0 * np.pi * 4 * s_b + phases[3])
    z_b = room.floor_z_m + 1.5 + 0.08 * np.sin(2.0 * np.pi * 2 * s_b + phases[4])
    z_b += 0.015 * np.sin(2.0 * np.pi * 19 * s_b + phases[5])  # steps
    yaw_b += np.radians(0.6) * np.sin(2.0 * np.pi * 17 * s_b + phases[6])
    pitch_b += np.radians(0.6) * np.sin(2.0 * np.pi * 23 * s_b + phases[7])
    return look_b44(np.stack((x_b, y_b, z_b), axis=1), yaw_b, pitch_b, roll_b)


def corner_world_T_cam_b44(room: MadeUpRoom, corner: int, frames: int, rng: np.random.Generator) -> F64:
    """Camera-to-world of a person who stays before one corner and looks only there, up and down and to both sides.

    Raises: ValueError for a room without that corner, or without free floor before it.
    """
    if corner >= len(room.footprint_world_m_n2):
        raise ValueError(f"corner: expected 0 to {len(room.footprint_world_m_n2) - 1}; got {corner}")
    floor = _free_floor(room)
    place = room.footprint_world_m_n2[corner]
    away_m_yx = np.linalg.norm(floor.centres_yx2() - place, axis=-1)
    is_there = floor.largest_part()[0] & (away_m_yx > _CORNER_M[0]) & (away_m_yx < _CORNER_M[1])
    if not is_there.any():
        raise ValueError(
            f"made-up room {room.seed} ({room.shape}): expected free floor before corner {corner}; got none"
        )
    roomiest = np.unravel_index(int(np.argmax(np.where(is_there, floor.clearance_m_yx, -1.0))), is_there.shape)
    middle, radius_m = floor.centres_yx2()[roomiest], min(floor.clearance_m_yx[roomiest] - 0.6 * plan.BODY_M, 0.5)
    s_b, phases = np.linspace(0.0, 2.0 * np.pi, frames, endpoint=False), rng.uniform(0.0, 2.0 * np.pi, 4)
    plan_b2 = middle + radius_m * np.stack((np.cos(s_b + phases[0]), np.sin(s_b + phases[0])), axis=1)
    towards_b2 = place - plan_b2
    yaw_b = np.arctan2(towards_b2[:, 1], towards_b2[:, 0]) + np.radians(40) * np.sin(2 * s_b + phases[1])
    pitch_b = np.radians(-10.0 + 28.0 * np.sin(5 * s_b + phases[2]))
    z_b = room.floor_z_m + 1.5 + 0.08 * np.sin(3 * s_b + phases[3])
    return look_b44(np.column_stack((plan_b2, z_b)), yaw_b, pitch_b, np.zeros(frames))


def _look_across(room: MadeUpRoom, eye_m_b2: F64, turned_rad_b: F64, start_rad: float) -> F64:
    """Headings (b,) that turn as given, from the start and in the sense that look farthest: across the room."""
    best_m, best_b = -1.0, turned_rad_b
    for sense in (-1.0, 1.0):
        for start in start_rad + np.arange(0.0, 2.0 * np.pi, np.pi / 8):
            yaw_b = start + sense * turned_rad_b
            directions_b2 = np.stack((np.cos(yaw_b), np.sin(yaw_b)), axis=1)
            sight_m = np.minimum(plan.sight_m(eye_m_b2, directions_b2, room.footprint_world_m_n2), 3.0).mean()
            if sight_m > best_m:
                best_m, best_b = sight_m, yaw_b
    return best_b


def look_b44(eye_world_m_b3: F64, yaw_rad_b: F64, pitch_rad_b: F64, roll_rad_b: F64) -> F64:
    """Camera-to-world (b, 4, 4) of level cameras (OpenCV axes) turned by yaw about z, then pitch (up), then roll."""
    cos_yaw, sin_yaw = np.cos(yaw_rad_b), np.sin(yaw_rad_b)
    cos_pitch, sin_pitch = np.cos(pitch_rad_b), np.sin(pitch_rad_b)
    forward = np.stack((cos_pitch * cos_yaw, cos_pitch * sin_yaw, sin_pitch), axis=1)
    right = np.stack((sin_yaw, -cos_yaw, np.zeros_like(sin_yaw)), axis=1)
    down = np.cross(forward, right)
    cos_roll, sin_roll = np.cos(roll_rad_b)[:, None], np.sin(roll_rad_b)[:, None]
    world_T_cam_b44 = np.tile(np.eye(4), (len(eye_world_m_b3), 1, 1))
    world_T_cam_b44[:, :3, 0] = cos_roll * right + sin_roll * down
    world_T_cam_b44[:, :3, 1] = cos_roll * down - sin_roll * right
    world_T_cam_b44[:, :3, 2] = forward
    world_T_cam_b44[:, :3, 3] = eye_world_m_b3
    return world_T_cam_b44


def _free_floor(room: MadeUpRoom) -> plan.FreeFloor:
    floor = plan.FreeFloor.of(room.footprint_world_m_n2)
    for piece in room.furniture:
        floor = floor.without(np.array(piece.centre_world_m_3[:2]), np.array(piece.size_m_3[:2]), piece.yaw_rad)
    return floor


def _floor_path(room: MadeUpRoom, rng: np.random.Generator) -> F64:
    """A smooth closed path (n, 2) over the free floor that comes near every part of it; slower where it turns about."""
    from scipy import ndimage
    from skimage.graph import route_through_array

    floor = _free_floor(room)
    walkable, _ = floor.largest_part()
    cells = np.argwhere(walkable)
    if not len(cells):
        raise ValueError(f"made-up room {room.seed} ({room.shape}): expected free floor to walk on; got none")
    # prefer the middle of the free floor; the rest is as good as closed
    cost = np.where(walkable, 1.0 + 0.3 / np.maximum(floor.clearance_m_yx, 0.05), 1e6)

    stops = [cells[rng.integers(len(cells))]]
    for _ in range(6):  # the cell farthest from all stops so far is the next (farthest-point sampling)
        away = np.min([np.hypot(*(cells - stop).T) for stop in stops], axis=0)
        if away.max() * plan.CELL_M < 0.5:
            break
        stops.append(cells[int(np.argmax(away))])
    tour, rest = [stops[0]], list(stops[1:])
    while rest:
        nearest = int(np.argmin([np.hypot(*(stop - tour[-1])) for stop in rest]))
        tour.append(rest.pop(nearest))
    legs = []
    for a, b in zip(tour, [*tour[1:], tour[0]], strict=True):
        leg, _ = route_through_array(cost, tuple(a), tuple(b), fully_connected=True, geometric=True)
        legs += leg[:-1]
    path = floor.origin_2 + plan.CELL_M * np.array(legs or [tour[0]], np.float64)[:, ::-1]
    path = np.concatenate((path, path[:1]))
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    length = np.concatenate(([0.0], np.cumsum(steps)))
    even = np.arange(0.0, max(length[-1], _STEP_M), _STEP_M)
    path = np.stack([np.interp(even, length, path[:, i]) for i in (0, 1)], axis=1)
    for sigma_m in (0.3, 0.2, 0.1, 0.05):  # as round as the furniture allows
        smooth = ndimage.gaussian_filter1d(path, sigma_m / _STEP_M, axis=0, mode="wrap")
        row, column = np.rint((smooth - floor.origin_2) / plan.CELL_M).astype(int).T[::-1]
        if floor.clearance_m_yx[row, column].min() > 0.6 * plan.BODY_M:
            break
    return np.concatenate((smooth, smooth[:1]))


def rotation_about(axis_3: F64, angle_rad: float) -> F64:
    """Rotation (3, 3) about an axis of length 1 (Rodrigues)."""
    x, y, z = axis_3
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle_rad) * skew + (1.0 - np.cos(angle_rad)) * skew @ skew


def drift_m_b3(world_T_cam_b44: F64, fraction: float, rng: np.random.Generator) -> F64:
    """Error of position, (b, 3), that grows along the walk: smooth, random, at the end `fraction` of its length."""
    from scipy import ndimage

    step_m = np.linalg.norm(np.diff(world_T_cam_b44[:, :3, 3], axis=0), axis=1)
    frames = len(world_T_cam_b44)
    heading = rng.normal(size=3) * (1.0, 1.0, 0.3)  # height drifts less than the plan: gravity is known
    wander = ndimage.gaussian_filter1d(rng.normal(size=(frames, 3)), frames / 12, axis=0, mode="nearest")
    wander *= 0.6 / max(float(wander.std()), 1e-12)
    rate = (heading / np.linalg.norm(heading) + wander * (1.0, 1.0, 0.3))[1:] * step_m[:, None]
    error = np.concatenate((np.zeros((1, 3)), np.cumsum(rate, axis=0)))
    return error * (fraction * step_m.sum() / max(float(np.linalg.norm(error[-1])), 1e-12))


DRIFT_TURN_RAD_PER_M = 0.1
"""How far the heading has turned for each metre that the position has drifted."""


def believed_poses_b44(
    world_T_cam_b44: F64,
    *,
    drift: float,
    noise_m: float,
    noise_rad: float,
    jump: tuple[int, float] | None,
    rng: np.random.Generator,
) -> F64:
    """The device's poses, still in the true world: the true ones with drift, jitter and a jump (see ScanOptions)."""
    believed = world_T_cam_b44.copy()
    frames = len(believed)
    error_m_b3 = drift_m_b3(world_T_cam_b44, drift, rng)
    turn_sense = rng.choice([-1.0, 1.0])
    jitter_m_b3, jitter_b3 = rng.normal(size=(2, frames, 3))
    jump_heading = rng.uniform(0.0, 2.0 * np.pi)
    for i in range(frames):
        turn = turn_sense * DRIFT_TURN_RAD_PER_M * float(np.linalg.norm(error_m_b3[i]))
        shake = noise_rad * jitter_b3[i]
        angle = float(np.linalg.norm(shake))
        rotation = rotation_about(shake / max(angle, 1e-12), angle) @ rotation_about(np.array([0.0, 0.0, 1.0]), turn)
        believed[i, :3, :3] = rotation @ believed[i, :3, :3]
        believed[i, :3, 3] += error_m_b3[i] + noise_m * jitter_m_b3[i]
        if jump is not None and i >= jump[0]:
            believed[i, :2, 3] += jump[1] * np.array([np.cos(jump_heading), np.sin(jump_heading)])
    return believed
