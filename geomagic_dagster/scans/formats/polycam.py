"""Polycam's raw data: an iPhone app's ARKit keyframes, with LiDAR depth where the phone has it.

    keyframes/corrected_cameras/<us>.json    t_00 ... t_23: rows of a 3x4 camera-to-world; fx fy cx cy, width, height
    keyframes/corrected_images/<us>.jpg      the numbers of the names are microseconds
    keyframes/depth/<us>.png                 16-bit millimetres, smaller than the image
    keyframes/confidence/<us>.png            8-bit: 0, 127 or 255
    keyframes/cameras/, keyframes/images/    the same before Polycam aligned them once more

The corrected cameras are taken where they are there; Polycam leaves them out of long walks (above 700 or 1400 frames).
Poses are of ARKit's camera axes in a world with y up, kept upright by the device. Newer exports of corrected cameras
have no width and height: the image tells. `blur_score` (lower is blurrier) is not used; the stage `frames` measures
blur itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geomagic_dagster.cv.camera import scaled_intrinsics
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans.files import ScanFiles
from geomagic_dagster.scans.formats import (
    DOWN_Z_3,
    F64,
    ZUP_R_YUP_33,
    Finding,
    Reading,
    arkit_poses,
    image_size_wh,
    images,
    in_common,
    numbered,
    numbers,
    read_json,
    tracked_frames,
)

NAME = "polycam"
LOOKS_LIKE = "keyframes/ with images/ and cameras/ (or corrected_images/ and corrected_cameras/), depth/"
NAMES_ITSELF = False

CONFIDENCE_MAX = 255


def recognises(files: ScanFiles) -> bool:
    return any(_numbered(files, folder, "json") for folder in ("cameras", "corrected_cameras"))


def read(files: ScanFiles) -> Reading:
    remarks = []
    corrected = {folder: _numbered(files, f"corrected_{folder}", ending) for folder, ending in _FOLDERS}
    plain = {folder: _numbered(files, folder, ending) for folder, ending in _FOLDERS}
    taken = corrected if all(corrected.values()) else plain
    if taken is plain:
        expected, received = "cameras that Polycam aligned (corrected_cameras/)", "none; taken as ARKit tracked them"
        remarks.append(Finding("note", "keyframes/", expected, received, "Nothing; in long walks Polycam has none."))
    parts = {
        "cameras": taken["cameras"],
        "images": taken["images"],
        "depth": _numbered(files, "depth", "png"),
        "confidence": _numbered(files, "confidence", "png"),
    }
    frames, left = in_common(parts, "keyframes/")
    remarks += left
    cameras = [read_json(files, parts["cameras"][i]) | {"place": parts["cameras"][i]} for i in frames]
    pose_b44 = np.array([_pose(camera) for camera in cameras])
    index, lost = tracked_frames(pose_b44, [camera["place"] for camera in cameras], "keyframes/")
    remarks += lost
    cameras, frames = [cameras[i] for i in index], [frames[i] for i in index]
    kinds = {"rgb": "images", "depth": "depth", "depth_confidence": "confidence"}
    names = {kind: [parts[part][i] for i in frames] for kind, part in kinds.items() if parts[part]}

    K_rgb_b33 = K_depth_b33 = None
    rgb_wh = image_size_wh(files, names["rgb"][0]) if "rgb" in names else None
    K_b33, wh_b2 = _intrinsics(cameras, rgb_wh)
    if rgb_wh is not None:
        K_rgb_b33 = _scaled(K_b33, wh_b2, rgb_wh)
    if "depth" in names:
        K_depth_b33 = _scaled(K_b33, wh_b2, image_size_wh(files, names["depth"][0]))
    has_confidence = "depth_confidence" in names and "depth" in names
    recording = Recording(
        rgb=images(files, names["rgb"]) if "rgb" in names else None,
        depth=images(files, names["depth"]) if "depth" in names else None,
        depth_confidence=images(files, names["depth_confidence"]) if has_confidence else None,
        timestamp_s_b=np.array(frames) / 1e6,
        K_rgb_b33=K_rgb_b33,
        K_depth_b33=K_depth_b33,
        depth_confidence_max=CONFIDENCE_MAX,
    )
    pose_b44 = arkit_poses(pose_b44[index])
    scan = Scan(files.stem, NAME, recording, pose_b44, is_metric=True, down_scan_3=DOWN_Z_3, device="ARKit device")
    return Reading(scan, tuple(remarks), names, zup_R_file_33=ZUP_R_YUP_33, camera_axes="OpenGL")


_FOLDERS = (("cameras", "json"), ("images", "jpe?g|png"))


def _numbered(files: ScanFiles, folder: str, endings: str) -> dict[int, str]:
    return numbered(files, rf"(?:keyframes/)?{folder}/(\d+)\.(?:{endings})")  # keyframes/ may be all that was packed


def _pose(camera: dict[str, Any]) -> F64:
    """(4, 4) as it stands in the file."""
    values = [camera.get(f"t_{r}{c}") for r in range(3) for c in range(4)]
    return np.vstack([numbers(values, 12, f"{camera['place']}: t_00 to t_23").reshape(3, 4), [0, 0, 0, 1]])


def _intrinsics(cameras: list[dict[str, Any]], rgb_wh: tuple[int, int] | None) -> tuple[F64, F64]:
    """K (b, 3, 3), and the (b, 2) width and height that it is for."""
    K_b33, wh_b2 = np.tile(np.eye(3), (len(cameras), 1, 1)), np.empty((len(cameras), 2))
    for i, camera in enumerate(cameras):
        values = [camera.get(key) for key in ("fx", "fy", "cx", "cy")]
        K_b33[i, [0, 1, 0, 1], [0, 1, 2, 2]] = numbers(values, 4, f"{camera['place']}: fx fy cx cy")
        size = [camera.get("width"), camera.get("height")]
        wh_b2[i] = rgb_wh if rgb_wh and None in size else numbers(size, 2, f"{camera['place']}: width height")
    return K_b33, wh_b2


def _scaled(K_b33: F64, from_wh_b2: F64, to_wh: tuple[int, int]) -> F64:
    return np.array(
        [scaled_intrinsics(K, to_wh[0] / w, to_wh[1] / h) for K, (w, h) in zip(K_b33, from_wh_b2, strict=True)]
    )
