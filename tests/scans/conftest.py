"""A small room whose every number is known: a textured box seen from a short walk inside it.

Depth of a box from inside is exact: along each pixel's ray the nearest of six planes.
"""

from __future__ import annotations

import json
import struct
import zlib
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


def colour_video(path: Path, pictures: EncodedImages) -> None:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = pictures[0].shape[:2]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (width, height))
    for picture in pictures:
        video.write(picture[..., ::-1])
    video.release()


def quaternions(pose_b44: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(pose_b44[:, :3, :3]).as_quat()


ARKIT_T_OPENCV_44 = np.diag([1.0, -1, -1, 1])


def as_stray_scanner(scan: Scan, folder: Path) -> None:
    poses = in_world(YUP_R_ZUP_33, scan.scan_T_cam_b44)
    lines = ["timestamp, frame, x, y, z, qx, qy, qz, qw"]
    for i, (time, pose, quaternion) in enumerate(
        zip(scan.recording.timestamp_s_b, poses, quaternions(poses), strict=True)
    ):
        put(folder, f"depth/{i:06d}.png", scan.recording.depth.encoded(i))
        put(folder, f"confidence/{i:06d}.png", scan.recording.depth_confidence.encoded(i))
        values = ", ".join(repr(float(value)) for value in (*pose[:3, 3], *quaternion))
        lines.append(f"{time!r}, {i:06d}, {values}".replace("np.float64(", "").replace(")", ""))
    colour_video(folder / "rgb.mp4", scan.recording.rgb)
    put(folder, "odometry.csv", "\n".join(lines) + "\n")
    put(folder, "imu.csv", "timestamp, a_x, a_y, a_z, alpha_x, alpha_y, alpha_z\n")
    put(folder, "camera_matrix.csv", numbers(K_33).replace(" ", ", "))


def as_record3d(scan: Scan, folder: Path) -> None:
    import lzfse

    poses = in_world(YUP_R_ZUP_33, scan.scan_T_cam_b44) @ ARKIT_T_OPENCV_44
    table = np.hstack([quaternions(poses), poses[:, :3, 3]])
    for i in range(len(poses)):
        put(folder, f"rgbd/{i}.jpg", scan.recording.rgb.encoded(i))
        put(folder, f"rgbd/{i}.depth", lzfse.compress((scan.recording.depth[i] / 1000).astype("<f4").tobytes()))
        put(folder, f"rgbd/{i}.conf", lzfse.compress(scan.recording.depth_confidence[i].tobytes()))
    metadata = {
        "poses": table.tolist(),
        "initPose": table[0].tolist(),
        "K": K_33.T.ravel().tolist(),
        "w": WIDTH, "h": HEIGHT, "dw": WIDTH, "dh": HEIGHT, "fps": 10,
        "frameTimestamps": scan.recording.timestamp_s_b.tolist(),
    }  # fmt: skip
    put(folder, "metadata", json.dumps(metadata))
    put(folder, "icon", scan.recording.rgb.encoded(0))


def as_polycam(scan: Scan, folder: Path) -> None:
    for i, pose in enumerate(in_world(YUP_R_ZUP_33, scan.scan_T_cam_b44) @ ARKIT_T_OPENCV_44):
        stem = str(round(1e6 * scan.recording.timestamp_s_b[i]))
        camera = {f"t_{r}{c}": pose[r, c] for r in range(3) for c in range(4)}
        camera |= {"fx": 52.0, "fy": 52.0, "cx": 31.5, "cy": 23.5, "width": WIDTH, "height": HEIGHT, "blur_score": 50.0}
        for which in ("", "corrected_"):
            put(folder, f"keyframes/{which}cameras/{stem}.json", json.dumps(camera))
            put(folder, f"keyframes/{which}images/{stem}.jpg", scan.recording.rgb.encoded(i))
        put(folder, f"keyframes/depth/{stem}.png", scan.recording.depth.encoded(i))
        put(folder, f"keyframes/confidence/{stem}.png", encode_png(np.full((HEIGHT, WIDTH), 255, np.uint8)))
    put(folder, "mesh_info.json", "{}")


def as_scanner_3d_app(scan: Scan, folder: Path) -> None:
    for i, pose in enumerate(in_world(YUP_R_ZUP_33, scan.scan_T_cam_b44) @ ARKIT_T_OPENCV_44):
        put(folder, f"frame_{i:05d}.jpg", scan.recording.rgb.encoded(i))
        put(folder, f"depth_{i:05d}.png", scan.recording.depth.encoded(i))
        put(folder, f"conf_{i:05d}.png", scan.recording.depth_confidence.encoded(i))
        frame = {"cameraPoseARFrame": pose.ravel().tolist(), "intrinsics": K_33.ravel().tolist()}
        put(
            folder,
            f"frame_{i:05d}.json",
            json.dumps(frame | {"time": scan.recording.timestamp_s_b[i], "frame_index": i}),
        )
    put(folder, "info.json", "{}")


def as_arkitscenes(scan: Scan, folder: Path) -> None:
    from scipy.spatial.transform import Rotation

    lines = []
    for i, pose in enumerate(scan.scan_T_cam_b44):
        stem = f"41069021_{scan.recording.timestamp_s_b[i]:.3f}"
        put(folder, f"lowres_wide/{stem}.png", encode_png(scan.recording.rgb[i]))
        put(folder, f"lowres_depth/{stem}.png", scan.recording.depth.encoded(i))
        put(folder, f"confidence/{stem}.png", scan.recording.depth_confidence.encoded(i))
        put(folder, f"lowres_wide_intrinsics/{stem}.pincam", f"{WIDTH} {HEIGHT} 52.0 52.0 31.5 23.5\n")
        cam_T_world = np.linalg.inv(pose)
        turn = Rotation.from_matrix(cam_T_world[:3, :3]).as_rotvec()
        lines.append(numbers(np.concatenate([[scan.recording.timestamp_s_b[i] + 0.003], turn, cam_T_world[:3, 3]])))
    put(folder, "lowres_wide.traj", "".join(lines))


def as_scannet(scan: Scan, folder: Path) -> None:
    K_44 = np.eye(4)
    K_44[:3, :3] = K_33
    for i, pose in enumerate(scan.scan_T_cam_b44):
        put(folder, f"color/{i}.jpg", scan.recording.rgb.encoded(i))
        put(folder, f"depth/{i}.png", scan.recording.depth.encoded(i))
        put(folder, f"pose/{i}.txt", numbers(pose))
    for camera in ("color", "depth"):
        put(folder, f"intrinsic/intrinsic_{camera}.txt", numbers(K_44))
        put(folder, f"intrinsic/extrinsic_{camera}.txt", numbers(np.eye(4)))


def as_scannet_sens(scan: Scan, folder: Path) -> None:
    K_44 = np.eye(4)
    K_44[:3, :3] = K_33
    matrices = np.stack([K_44, np.eye(4), K_44, np.eye(4)]).astype("<f4").tobytes()
    content = struct.pack("<IQ", 4, 15) + b"StructureSensor" + matrices
    sizes = (WIDTH, HEIGHT, WIDTH, HEIGHT)
    content += struct.pack("<2i4IfQ", 2, 1, *sizes, 1000.0, len(scan.recording))
    for i, pose in enumerate(scan.scan_T_cam_b44):
        rgb, depth = scan.recording.rgb.encoded(i), zlib.compress(scan.recording.depth[i].tobytes())
        time_us = round(1e6 * scan.recording.timestamp_s_b[i])
        content += (
            pose.astype("<f4").tobytes() + struct.pack("<4Q", time_us, time_us, len(rgb), len(depth)) + rgb + depth
        )
    put(folder, "scene0000_00.sens", content + struct.pack("<Q", 0))
    put(folder, "scene0000_00.txt", "sceneType = Apartment\n")


def as_colmap(scan: Scan, folder: Path) -> None:
    cam_T_world = np.linalg.inv(scan.scan_T_cam_b44)
    lines = ["# Image list with two lines of data per image:"]
    for i, (quaternion, pose) in enumerate(zip(quaternions(cam_T_world), cam_T_world, strict=True)):
        put(folder, f"images/{i:04d}.jpg", scan.recording.rgb.encoded(i))
        values = numbers(np.concatenate([quaternion[[3, 0, 1, 2]], pose[:3, 3]])).strip()
        lines += [f"{i + 1} {values} 1 {i:04d}.jpg", "10.5 11.5 -1 20.0 21.0 7" if i % 2 else ""]
    put(folder, "sparse/0/images.txt", "\n".join(lines) + "\n")
    put(folder, "sparse/0/cameras.txt", f"# Camera list\n1 PINHOLE {WIDTH} {HEIGHT} 52.0 52.0 32.0 24.0\n")
    put(folder, "sparse/0/points3D.txt", "# 3D point list\n")


def as_replica(scan: Scan, folder: Path) -> None:
    for i in range(len(scan.recording)):
        units = np.rint(scan.recording.depth[i] / 1000 * 6553.5).astype(np.uint16)
        put(folder, f"results/frame{i:06d}.jpg", scan.recording.rgb.encoded(i))
        put(folder, f"results/depth{i:06d}.png", encode_png(units))
    put(folder, "traj.txt", numbers(scan.scan_T_cam_b44.reshape(-1, 16)))
    camera = {"w": WIDTH, "h": HEIGHT, "fx": 52.0, "fy": 52.0, "cx": 31.5, "cy": 23.5, "scale": 6553.5}
    put(folder, "cam_params.json", json.dumps({"camera": camera}))


def as_redwood(scan: Scan, folder: Path) -> None:
    log = ""
    for i, pose in enumerate(in_world(YDOWN_R_ZUP_33, scan.scan_T_cam_b44)):
        put(folder, f"color/{i + 1:05d}.jpg", scan.recording.rgb.encoded(i))
        put(folder, f"depth/{i + 1:05d}.png", scan.recording.depth.encoded(i))
        log += f"{i} {i} {i + 1}\n{numbers(pose)}"
    put(folder, "trajectory.log", log)
    camera = {"width": WIDTH, "height": HEIGHT, "intrinsic_matrix": K_33.T.ravel().tolist()}
    put(folder, "intrinsic.json", json.dumps(camera))


@pytest.fixture(scope="session")
def layouts() -> dict[str, Callable[[Scan, Path], None]]:
    """For each format a function that writes a scan in its layout into a folder."""
    return {name.removeprefix("as_"): each for name, each in globals().items() if name.startswith("as_")}


@pytest.fixture
def laid_out(layouts, box_room, tmp_path: Path) -> Callable[[str], Path]:
    """Writes the box room in the layout of a format: `laid_out("polycam")` gives its folder."""

    def write(name: str) -> Path:
        layouts[name](box_room(), tmp_path / "room")
        return tmp_path / "room"

    return write
