"""Replica (Straub et al., 2019) as NICE-SLAM (Zhu et al., CVPR 2022) rendered it.

    results/frame000000.jpg    colour
    results/depth000000.png    16-bit, 6553.5 units a metre
    traj.txt                   16 numbers a line, row after row, camera-to-world; line i is of frame i
    cam_params.json            {"camera": {"w", "h", "fx", "fy", "cx", "cy", "scale"}}, may be missing

Camera axes are OpenCV's, the world has z up. Nobody measured gravity: the floor has to tell. There are no times.
Without cam_params.json the camera is the data set's (1200x680, f 600, c 599.5 339.5), which is said. Written too.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans import writing
from geomagic_dagster.scans.files import ScanFiles
from geomagic_dagster.scans.formats import (
    F64,
    Finding,
    Reading,
    evenly_spaced_s,
    image_size_wh,
    images,
    in_common,
    numbered,
    numbers,
    read_json,
    text_lines,
    tracked_frames,
    untimed,
)

NAME = "replica"
LOOKS_LIKE = "traj.txt (16 numbers a line) and results/ with frame000000.jpg and depth000000.png"
NAMES_ITSELF = False

CAMERA = "cam_params.json"
DEFAULT_WH = (1200, 680)
DEFAULT_K_33 = np.array([[600.0, 0, 599.5], [0, 600.0, 339.5], [0, 0, 1]])
DEFAULT_SCALE = 6553.5


def recognises(files: ScanFiles) -> bool:
    return "traj.txt" in files and bool(_frames(files))


def read(files: ScanFiles) -> Reading:
    lines = text_lines(files, "traj.txt")
    parts = {
        "colour": _frames(files),
        "depth": numbered(files, r"results/depth(\d+)\.png"),
        "poses": {i: place for i, (place, _) in enumerate(lines)},
    }
    frames, remarks = in_common(parts, "results/")
    pose_b44 = np.array([numbers(lines[i][1], 16, lines[i][0]).reshape(4, 4) for i in frames])
    tracked, lost = tracked_frames(pose_b44, [parts["colour"][i] for i in frames], "traj.txt")
    index = np.array(frames)[tracked]
    names = {"rgb": [parts["colour"][i] for i in index]}
    if parts["depth"]:
        names["depth"] = [parts["depth"][i] for i in index]
    K_33, scale, said = _camera(files, names["rgb"][0])
    K_b33 = np.repeat(K_33[None], len(index), axis=0)
    recording = Recording(
        rgb=images(files, names["rgb"]),
        depth=images(files, names["depth"]) if "depth" in names else None,
        depth_confidence=None,
        timestamp_s_b=evenly_spaced_s(index),
        K_rgb_b33=K_b33,
        K_depth_b33=K_b33 if "depth" in names else None,
        metres_per_depth_unit=1 / scale,
    )
    scan = Scan(files.stem, NAME, recording, pose_b44[tracked], is_metric=True, down_scan_3=None, device="rendered")
    return Reading(scan, (*remarks, *lost, *said, untimed("traj.txt")), names)


def _frames(files: ScanFiles) -> dict[int, str]:
    return numbered(files, r"results/frame(\d+)\.(?:jpe?g|png)")


def _camera(files: ScanFiles, first: str) -> tuple[F64, float, list[Finding]]:
    """K (3, 3), units of depth a metre."""
    if CAMERA not in files:
        size_wh = image_size_wh(files, first)
        if size_wh != DEFAULT_WH:
            raise ScanRejected(
                CAMERA,
                expected=f"the camera's fx fy cx cy for images of {size_wh[0]}x{size_wh[1]}",
                received="none in the upload",
                do='Write {"camera": {"w", "h", "fx", "fy", "cx", "cy", "scale"}} into this file beside traj.txt.',
            )
        received = "none; taken as 600 600 599.5 339.5, depth 6553.5 units a metre"
        return DEFAULT_K_33, DEFAULT_SCALE, [Finding("note", CAMERA, "the camera's K", received, "Nothing.")]
    camera = read_json(files, CAMERA).get("camera")
    camera = camera if isinstance(camera, dict) else {}
    fx, fy, cx, cy, scale = numbers(
        [camera.get(key) for key in ("fx", "fy", "cx", "cy", "scale")], 5, f"{CAMERA}: camera: fx fy cx cy scale"
    )
    if not scale > 0:
        raise ScanRejected(
            f"{CAMERA}: scale",
            expected="units of depth a metre, above 0",
            received=f"{scale:g}",
            do="Write 6553.5, as the data set has it, or your own.",
        )
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), float(scale), []


def write(scan: Scan, folder: Path) -> list[str]:
    writing.need(scan, NAME, "colour", "depth", "poses", "metres")
    writing.need_registered_depth(scan.recording, NAME, same_size=True)
    recording, remarks = scan.recording, writing.not_held(scan, NAME)
    assert recording.rgb is not None and recording.K_rgb_b33 is not None and scan.scan_T_cam_b44 is not None
    K_33, said = writing.one_K(recording.K_rgb_b33)
    height, width = recording.rgb[0].shape[:2]
    (fx, _, cx), (_, fy, cy), _ = K_33.tolist()
    camera = {"w": width, "h": height, "fx": fx, "fy": fy, "cx": cx, "cy": cy, "scale": DEFAULT_SCALE}
    with writing.new_folder(folder) as beside:
        out = writing.Images(recording, beside, endings=("jpg",), unit_m=1 / DEFAULT_SCALE)
        for i in range(len(recording)):
            out.colour(i, f"results/frame{i:06d}")
            out.depth(i, f"results/depth{i:06d}.png")
        writing.put(beside, "traj.txt", writing.rows(scan.scan_T_cam_b44.reshape(-1, 16)))
        writing.put(beside, CAMERA, json.dumps({"camera": camera}, indent=2) + "\n")
        return remarks + said + out.remarks()
