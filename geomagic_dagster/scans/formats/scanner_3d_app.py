"""3D Scanner App (Laan Labs): all data of a LiDAR scan with an iPhone.

    frame_00000.json    cameraPoseARFrame: 16 numbers, row after row, camera-to-world; intrinsics: 9; time in seconds
    frame_00000.jpg     colour; not for every frame
    depth_00000.png     16-bit millimetres
    conf_00000.png      8-bit, 0 to 2
    info.json           about the scan; not needed

Poses are of ARKit's camera axes in a world with y up, kept upright by the device. Frames without colour are left out,
unless none has any.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geomagic_dagster.cv.camera import scaled_intrinsics
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans.files import ScanFiles
from geomagic_dagster.scans.formats import (
    DOWN_Z_3,
    ZUP_R_YUP_33,
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

NAME = "scanner_3d_app"
LOOKS_LIKE = "frame_00000.json with depth_00000.png, conf_00000.png and, for some frames, frame_00000.jpg"
NAMES_ITSELF = False

COLOUR_WH = (1920, 1440)
"""What the intrinsics are for where no image tells."""


def recognises(files: ScanFiles) -> bool:
    return bool(numbered(files, r"frame_(\d+)\.json"))


def read(files: ScanFiles) -> Reading:
    parts = {
        "poses": numbered(files, r"frame_(\d+)\.json"),
        "colour": numbered(files, r"frame_(\d+)\.jpe?g"),
        "depth": numbered(files, r"depth_(\d+)\.png"),
        "confidence": numbered(files, r"conf_(\d+)\.png"),
    }
    frames, left = in_common(parts, files.path.name)
    # that most frames have no colour is how the app records
    remarks = [replace(each, severity="note", do="Nothing; the app takes few pictures.") for each in left]
    said = [read_json(files, parts["poses"][i]) for i in frames]
    places = [parts["poses"][i] for i in frames]
    pose_b44 = np.array(
        [
            numbers(each.get("cameraPoseARFrame", ()), 16, f"{place}: cameraPoseARFrame").reshape(4, 4)
            for each, place in zip(said, places, strict=True)
        ]
    )
    index, lost = tracked_frames(pose_b44, places, "frame_*.json: cameraPoseARFrame")
    remarks += lost
    kinds = {"rgb": "colour", "depth": "depth", "depth_confidence": "confidence"}
    names = {kind: [parts[part][frames[i]] for i in index] for kind, part in kinds.items() if parts[part]}

    K_b33 = np.array(
        [numbers(said[i].get("intrinsics", ()), 9, f"{places[i]}: intrinsics").reshape(3, 3) for i in index]
    )
    rgb_wh = image_size_wh(files, names["rgb"][0]) if "rgb" in names else COLOUR_WH
    K_depth_b33 = None
    if "depth" in names:
        depth_wh = image_size_wh(files, names["depth"][0])
        K_depth_b33 = scaled_intrinsics(K_b33, depth_wh[0] / rgb_wh[0], depth_wh[1] / rgb_wh[1])
    has_confidence = "depth_confidence" in names and "depth" in names
    recording = Recording(
        rgb=images(files, names["rgb"]) if "rgb" in names else None,
        depth=images(files, names["depth"]) if "depth" in names else None,
        depth_confidence=images(files, names["depth_confidence"]) if has_confidence else None,
        timestamp_s_b=np.array([numbers([said[i].get("time")], 1, f"{places[i]}: time")[0] for i in index]),
        K_rgb_b33=K_b33 if "rgb" in names else None,
        K_depth_b33=K_depth_b33,
    )
    pose_b44 = arkit_poses(pose_b44[index])
    scan = Scan(files.stem, NAME, recording, pose_b44, is_metric=True, down_scan_3=DOWN_Z_3, device="ARKit device")
    return Reading(scan, tuple(remarks), names, zup_R_file_33=ZUP_R_YUP_33, camera_axes="OpenGL")
