"""A small room whose every number is known: a textured box seen from a short walk inside it.

Depth of a box from inside is exact: along each pixel's ray the nearest of six planes.
"""

from __future__ import annotations

import json
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
def see() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Colour and depth of the box room from any pose."""
    return seen


# --- the same scan as each app would write it, from the formats' own descriptions ------------------

YUP_R_ZUP_33 = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
YDOWN_R_ZUP_33 = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


def in_world(turn_33: np.ndarray, pose_b44: np.ndarray) -> np.ndarray:
    turned = pose_b44.copy()
    turned[:, :3] = turn_33 @ pose_b44[:, :3]
    return turned


def put(folder: Path, name: str, content: bytes | str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def numbers(values: np.ndarray) -> str:
    return "\n".join(" ".join(repr(float(value)) for value in row) for row in np.atleast_2d(values)) + "\n"


def as_tum_rgbd(scan: Scan, folder: Path) -> None:
    from scipy.spatial.transform import Rotation

    rgb, depth, truth = ["# color images"], ["# depth maps"], ["# timestamp tx ty tz qx qy qz qw"]
    for i, (time, pose) in enumerate(zip(scan.recording.timestamp_s_b, scan.scan_T_cam_b44, strict=True)):
        put(folder, f"rgb/{i}.jpg", scan.recording.rgb.encoded(i))
        put(folder, f"depth/{i}.png", encode_png(scan.recording.depth[i] * np.uint16(5)))
        rgb.append(f"{time + 0.004:.6f} rgb/{i}.jpg")
        depth.append(f"{time:.6f} depth/{i}.png")
        quaternion = Rotation.from_matrix(pose[:3, :3]).as_quat()
        truth.append(f"{time - 0.003:.6f} " + numbers(np.concatenate([pose[:3, 3], quaternion])).strip())
    for name, lines in (("rgb.txt", rgb), ("depth.txt", depth), ("groundtruth.txt", truth)):
        put(folder, name, "\n".join(lines) + "\n")
    put(folder, "K.txt", numbers(K_33))


def as_seven_scenes(scan: Scan, folder: Path) -> None:
    for i, pose in enumerate(in_world(YDOWN_R_ZUP_33, scan.scan_T_cam_b44)):
        put(folder, f"frame-{i:06d}.color.jpg", scan.recording.rgb.encoded(i))
        put(folder, f"frame-{i:06d}.depth.png", scan.recording.depth.encoded(i))
        put(folder, f"frame-{i:06d}.pose.txt", numbers(pose))
    put(folder, "camera-intrinsics.txt", numbers(K_33))
    put(folder, "gravity-direction.txt", "0\n0.98\n0.2\n")


def as_hololens(scan: Scan, folder: Path) -> None:
    for i in range(len(scan.recording)):
        put(folder, f"images/{3 * i:05d}.jpg", scan.recording.rgb.encoded(i))
        put(folder, f"depth/{3 * i:05d}.png", scan.recording.depth.encoded(i))
    put(folder, "poses.txt", numbers(in_world(YUP_R_ZUP_33, scan.scan_T_cam_b44).reshape(-1, 16)))
    put(folder, "K.txt", numbers(K_33))


def as_nerfstudio(scan: Scan, folder: Path) -> None:
    frames = []
    for i, pose in enumerate(scan.scan_T_cam_b44 @ np.diag([1.0, -1, -1, 1])):
        put(folder, f"images/{i:04d}.jpg", scan.recording.rgb.encoded(i))
        put(folder, f"depth/{i:04d}.png", scan.recording.depth.encoded(i))
        depth = f"depth/{i:04d}.png"
        frames.append(
            {"file_path": f"./images/{i:04d}.jpg", "depth_file_path": depth, "transform_matrix": pose.tolist()}
        )
    lens = {"w": WIDTH, "h": HEIGHT, "fl_x": 52.0, "fl_y": 52.0, "cx": 32.0, "cy": 24.0}
    put(folder, "transforms.json", json.dumps({**lens, "frames": frames[::-1]}))


def as_canonical(scan: Scan, folder: Path) -> None:
    from geomagic_dagster.scans.formats import canonical

    canonical.write(scan, folder)


@pytest.fixture(scope="session")
def layouts() -> dict[str, Callable[[Scan, Path], None]]:
    """For each format a function that writes a scan in its layout into a folder."""
    return {
        "canonical": as_canonical,
        "hololens": as_hololens,
        "nerfstudio": as_nerfstudio,
        "seven_scenes": as_seven_scenes,
        "tum_rgbd": as_tum_rgbd,
    }
