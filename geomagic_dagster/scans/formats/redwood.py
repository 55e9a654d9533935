"""Redwood (Choi, Zhou, Koltun, CVPR 2015), and what Open3D's reconstruction system reads and writes.

    color/*.jpg or .png, depth/*.png    put together in the order of their names; depth is 16-bit millimetres
    trajectory.log                      for each frame a line of three integers, the first one its place in that order,
                                        and four rows of camera-to-world
    intrinsic.json                      Open3D's: width, height, intrinsic_matrix (nine, column after column); may be
                                        missing

Camera axes are OpenCV's, and the world has those of the first camera: x right, y down, z forward. It is turned to z up
by this; nobody measured gravity, so the floor has to tell. Without intrinsic.json the camera is PrimeSense's (640x480,
f 525, c 319.5 239.5), which is said. There are no times. Written too.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath

import numpy as np

from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans import writing
from geomagic_dagster.scans.files import UPLOAD_AGAIN, ScanFiles
from geomagic_dagster.scans.formats import (
    F64,
    ZUP_R_YDOWN_33,
    Finding,
    Reading,
    evenly_spaced_s,
    image_size_wh,
    images,
    left_out,
    numbers,
    read_json,
    text_lines,
    tracked_frames,
    turned,
    untimed,
)

NAME = "redwood"
LOOKS_LIKE = "trajectory.log (three integers, then four rows, for each frame), color/ and depth/"
NAMES_ITSELF = False

LOG = "trajectory.log"
CAMERA = "intrinsic.json"
DEFAULT_WH = (640, 480)
DEFAULT_K_33 = np.array([[525.0, 0, 319.5], [0, 525.0, 239.5], [0, 0, 1]])


def recognises(files: ScanFiles) -> bool:
    return LOG in files and any(re.match(r"(color|rgb|image)/", name) for name in files.names())


def read(files: ScanFiles) -> Reading:
    rgb_names = next(found for each in ("color", "rgb", "image") if (found := _in_folder(files, each)))
    depth_names = _in_folder(files, "depth")
    if depth_names and len(depth_names) != len(rgb_names):
        raise ScanRejected(
            "depth/",
            expected=f"a depth image for each of the {len(rgb_names)} colour images",
            received=f"{len(depth_names)}",
            do="Upload all images; the i-th of one belongs to the i-th of the other.",
        )
    numbers_b, pose_b44 = _trajectory(files, len(rgb_names))
    remarks = left_out(
        [name for i, name in enumerate(rgb_names) if i not in set(numbers_b)],
        len(rgb_names),
        place=LOG,
        expected="a pose for each frame",
        why="images without",
        do="Nothing, if they are few.",
    )
    tracked, lost = tracked_frames(pose_b44, [rgb_names[i] for i in numbers_b], LOG)
    index = np.array(numbers_b)[tracked]
    names = {"rgb": [rgb_names[i] for i in index]}
    if depth_names:
        names["depth"] = [depth_names[i] for i in index]
    K_33, said = _camera(files, names["rgb"][0])
    K_b33 = np.repeat(K_33[None], len(index), axis=0)
    recording = Recording(
        rgb=images(files, names["rgb"]),
        depth=images(files, names["depth"]) if depth_names else None,
        depth_confidence=None,
        timestamp_s_b=evenly_spaced_s(index),
        K_rgb_b33=K_b33,
        K_depth_b33=K_b33 if depth_names else None,
    )
    pose_b44 = turned(ZUP_R_YDOWN_33, pose_b44[tracked])
    scan = Scan(files.stem, NAME, recording, pose_b44, is_metric=True, down_scan_3=None)
    return Reading(scan, (*remarks, *lost, *said, untimed(LOG)), names, zup_R_file_33=ZUP_R_YDOWN_33)


def _in_folder(files: ScanFiles, folder: str) -> list[str]:
    found = [name for name in files.names() if re.fullmatch(rf"{folder}/[^/]+\.(jpe?g|png)", name)]
    # 2 before 10, where numbers have no leading zeros
    return sorted(found, key=lambda name: [(len(n), n) for n in re.findall(r"\d+", PurePosixPath(name).stem)])


def _trajectory(files: ScanFiles, frames: int) -> tuple[list[int], F64]:
    """Which frames the log has, rising, and their poses (b, 4, 4) as they stand."""
    lines = text_lines(files, LOG)
    if not lines or len(lines) % 5:
        raise ScanRejected(
            LOG,
            expected="five lines for each frame: three integers, then four rows",
            received=f"{len(lines)} lines",
            do=UPLOAD_AGAIN,
        )
    pose_of: dict[int, list[F64]] = {}
    for at in range(0, len(lines), 5):
        place, line = lines[at]
        first = numbers(line, 3, place)[0]
        if first not in range(frames) or int(first) in pose_of:
            raise ScanRejected(
                place,
                expected=f"the number of a frame, 0 to {frames - 1}, each once",
                received=f"{first:g}",
                do="Upload all images and their trajectory.log.",
            )
        pose_of[int(first)] = [numbers(line, 4, place) for place, line in lines[at + 1 : at + 5]]
    frame_b = sorted(pose_of)
    return frame_b, np.array([pose_of[i] for i in frame_b])


def _camera(files: ScanFiles, first: str) -> tuple[F64, list[Finding]]:
    if CAMERA in files:
        matrix = read_json(files, CAMERA).get("intrinsic_matrix", ())
        return numbers(matrix, 9, f"{CAMERA}: intrinsic_matrix").reshape(3, 3).T, []
    size_wh = image_size_wh(files, first)
    if size_wh != DEFAULT_WH:
        raise ScanRejected(
            CAMERA,
            expected=f"the camera's K for images of {size_wh[0]}x{size_wh[1]}",
            received="none in the upload",
            do="Write Open3D's PinholeCameraIntrinsic into this file beside trajectory.log.",
        )
    received = "none; taken as 525 525 319.5 239.5"
    return DEFAULT_K_33, [Finding("note", CAMERA, "the camera's K", received, "Nothing, for PrimeSense cameras.")]


def write(scan: Scan, folder: Path) -> list[str]:
    writing.need(scan, NAME, "colour", "depth", "poses", "metres")
    writing.need_registered_depth(scan.recording, NAME, same_size=True)
    recording, remarks = scan.recording, writing.not_held(scan, NAME)
    assert recording.rgb is not None and recording.K_rgb_b33 is not None and scan.scan_T_cam_b44 is not None
    K_33, said = writing.one_K(recording.K_rgb_b33)
    height, width = recording.rgb[0].shape[:2]
    camera = {"width": width, "height": height, "intrinsic_matrix": K_33.T.ravel().tolist()}
    with writing.new_folder(folder) as beside:
        out, log = writing.Images(recording, beside), ""
        for i, pose_44 in enumerate(turned(ZUP_R_YDOWN_33.T, scan.scan_T_cam_b44)):
            out.colour(i, f"color/{i:06d}")
            out.depth(i, f"depth/{i:06d}.png")
            log += f"{i} {i} {i + 1}\n{writing.rows(pose_44)}"
        writing.put(beside, LOG, log)
        writing.put(beside, CAMERA, json.dumps(camera, indent=2) + "\n")
        return remarks + said + out.remarks()
