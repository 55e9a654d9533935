"""A small room whose every number is known: a textured box seen from a short walk inside it.

Depth of a box from inside is exact: along each pixel's ray the nearest of six planes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geomagic_dagster.cv.containers import EncodedImages, encode_jpeg, encode_png
from geomagic_dagster.cv.types import Recording, Scan

SIZE_M = np.array([5.0, 4.0, 2.6])
WIDTH, HEIGHT = 64, 48
K_33 = np.array([[52.0, 0, 31.5], [0, 52.0, 23.5], [0, 0, 1]])


def walk_b44(frames: int) -> np.ndarray:
    """Camera-to-world poses: an arc through the room, looking about and a little down. World z up."""
    poses = np.tile(np.eye(4), (frames, 1, 1))
    for i in range(frames):
        turn, tilt = 0.3 + 0.16 * i, 0.25 + 0.1 * np.sin(0.7 * i)
        forward = np.array([np.cos(turn) * np.cos(tilt), np.sin(turn) * np.cos(tilt), -np.sin(tilt)])
        right = np.array([np.sin(turn), -np.cos(turn), 0.0])
        poses[i, :3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
        poses[i, :3, 3] = [1.8 + 0.12 * i % 1.5, 1.6 + 0.5 * np.sin(0.3 * i), 1.4 + 0.02 * i]
    return poses


def seen(pose_44: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour (h, w, 3) uint8 and depth (h, w) uint16 millimetres of the box from one pose."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    ray_cam = np.stack([(x - K_33[0, 2]) / K_33[0, 0], (y - K_33[1, 2]) / K_33[1, 1], np.ones_like(x, float)], -1)
    ray = ray_cam @ pose_44[:3, :3].T
    with np.errstate(divide="ignore"):
        far = np.where(ray > 0, (SIZE_M - pose_44[:3, 3]) / ray, -pose_44[:3, 3] / ray)
    depth_m = far.min(axis=-1)
    point = pose_44[:3, 3] + ray * depth_m[..., None]
    squares = (np.floor(point / 0.4 + 1e-6).sum(axis=-1) % 2).astype(int)
    rgb = np.array([[200, 180, 160], [90, 110, 130]], np.uint8)[squares]
    return rgb, np.rint(1000 * depth_m).astype(np.uint16)


@pytest.fixture(scope="session")
def box_room() -> Callable[..., Scan]:
    """Makes the scan in memory: `box_room(frames=12)`."""

    def make(frames: int = 12) -> Scan:
        poses = walk_b44(frames)
        views = [seen(pose) for pose in poses]
        K_b33 = np.repeat(K_33[None], frames, axis=0)
        recording = Recording(
            rgb=EncodedImages(encode_jpeg(rgb) for rgb, _ in views),
            depth=EncodedImages(encode_png(depth) for _, depth in views),
            depth_confidence=EncodedImages(encode_png(np.full((HEIGHT, WIDTH), 2, np.uint8)) for _ in views),
            timestamp_s_b=0.1 * np.arange(frames) + 1e6 / 3,
            K_rgb_b33=K_b33,
            K_depth_b33=K_b33,
        )
        return Scan("box", "made by hand", recording, poses, True, (0.0, 0.0, -1.0), "a ruler", "research")

    return make


@pytest.fixture(scope="session")
def box_files(box_room: Callable[..., Scan], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scan in the canonical layout; copy it before you change it."""
    from geomagic_dagster.scans.formats import canonical

    folder = tmp_path_factory.mktemp("scans") / "box"
    canonical.write(box_room(), folder)
    return folder
