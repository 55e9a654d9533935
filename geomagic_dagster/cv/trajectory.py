"""A camera's walk in numbers and in a picture: what every stage that makes poses shows of them.

Does not belong here: anything that changes a pose.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.types import Poses

F64 = NDArray[np.float64]

SIZE_PX = 320


def walk_numbers(poses: Poses) -> dict[str, float]:
    """How long the walk of the used frames was, and how high above the floor; what is unknown is left out."""
    position_b3 = poses.world_T_cam_b44[poses.is_used_b, :3, 3]
    numbers = {"path_length_m": float(np.linalg.norm(np.diff(position_b3, axis=0), axis=1).sum())}
    if poses.floor_z_world_m is not None:
        numbers["floor_z_world_m"] = poses.floor_z_world_m
        numbers["camera_height_m"] = float(np.median(position_b3[:, 2])) - poses.floor_z_world_m
    return numbers


def draw_walk(poses: Poses, before_m_b3: F64 | None = None) -> NDArray[np.uint8]:
    """The walk from above: start green, end red, cut grey, where it was before light blue; a bar of a metre."""
    import cv2

    x_y_b2 = poses.world_T_cam_b44[:, :2, 3]
    every_n2 = x_y_b2 if before_m_b3 is None else np.concatenate((x_y_b2, before_m_b3[:, :2]))
    low_2, extent_m = every_n2.min(0) - 0.5, float(np.ptp(every_n2, axis=0).max()) + 1.0
    scale = (SIZE_PX - 10) / extent_m
    picture = np.full((SIZE_PX, SIZE_PX, 3), 250, np.uint8)

    def pixels(points_n2: F64) -> list[tuple[int, int]]:
        return [(int(x), SIZE_PX - 1 - int(y)) for x, y in np.round((points_n2 - low_2) * scale)]

    if before_m_b3 is not None:
        for old, new, is_used in zip(pixels(before_m_b3[:, :2]), pixels(x_y_b2), poses.is_used_b, strict=True):
            if is_used:
                cv2.line(picture, old, new, (205, 220, 240), 1, cv2.LINE_AA)
                cv2.circle(picture, old, 1, (120, 160, 220), -1)
    for i, pixel in enumerate(pixels(x_y_b2)):
        part = i / max(1, len(x_y_b2) - 1)
        colour = (int(220 * part), int(180 * (1 - part)), 40) if poses.is_used_b[i] else (170, 170, 170)
        cv2.circle(picture, pixel, 2, colour, -1)
    cv2.line(picture, (8, SIZE_PX - 8), (8 + round(scale), SIZE_PX - 8), (0, 0, 0), 2)
    return picture
