"""A scan small enough for a test, and right enough for the checks: a walk along a flat, striped wall."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geomagic_dagster.cv.containers import EncodedImages, encode_png
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans.formats import canonical


def toy_scan(name: str = "toy", frames: int = 5, seed: int = 0) -> Scan:
    rng = np.random.default_rng(seed)
    K_33 = np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])
    pose_b44 = np.tile(np.eye(4), (frames, 1, 1))
    # the camera looks along +y of a world with z up: its x is the world's x, its y (down) the world's -z
    pose_b44[:, :3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    pose_b44[:, 0, 3] = 0.05 * np.arange(frames)
    pose_b44[:, 2, 3] = 1.4
    rgb = [encode_png(rng.integers(60, 200, (48, 64, 3), dtype=np.uint8)) for _ in range(frames)]
    depth = [encode_png(np.full((48, 64), 2000, np.uint16)) for _ in range(frames)]
    return Scan(
        name=name,
        source_format="canonical",
        recording=Recording(
            rgb=EncodedImages(rgb),
            depth=EncodedImages(depth),
            depth_confidence=None,
            timestamp_s_b=np.arange(frames) / 10.0,
            K_rgb_b33=np.tile(K_33, (frames, 1, 1)),
            K_depth_b33=np.tile(K_33, (frames, 1, 1)),
        ),
        scan_T_cam_b44=pose_b44,
        is_metric=True,
        down_scan_3=(0.0, 0.0, -1.0),
        device="toy",
        consent="research",
    )


def write_toy_scan(folder: Path, **options) -> Path:
    canonical.write(toy_scan(folder.name, **options), folder)
    return folder
