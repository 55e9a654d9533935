"""nerfstudio and instant-ngp: transforms.json, with or without depth.

Poses are camera-to-world in OpenGL camera axes, world roughly z up (nobody measured gravity). Where
frames have depth, the poses are in its metres. Without depth the poses mostly come from structure from
motion, whose unit nobody knows: such a scan is not metric. Pixels are counted from the corner of the
first one (as COLMAP does), so half a pixel is taken off the principal point. There are no times; frames
are taken in the order of their names. Written too.
"""

from __future__ import annotations

import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from geomagic_dagster.cv.camera import scaled_intrinsics
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans import writing
from geomagic_dagster.scans.files import ScanFiles
from geomagic_dagster.scans.formats import (
    F64,
    OPENGL_T_OPENCV_44,
    Finding,
    Reading,
    evenly_spaced_s,
    image_size_wh,
    images,
    left_out,
    named_file,
    numbers,
    read_json,
    tracked_frames,
    untimed,
)

NAME = "nerfstudio"
LOOKS_LIKE = "transforms.json with frames (file_path, transform_matrix, perhaps depth_file_path)"
NAMES_ITSELF = False

PINHOLE_MODELS = (None, "OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
DEPTH_UNIT_M = 0.001
LENS = ("k1", "k2", "p1", "p2", "k3")


def recognises(files: ScanFiles) -> bool:
    return "transforms.json" in files


def read(files: ScanFiles) -> Reading:
    shared = read_json(files, "transforms.json")
    frames = shared.get("frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise ScanRejected(
            "transforms.json: frames",
            expected="a list of frames",
            received=f"{frames!r:.40}",
            do="Upload the whole file as nerfstudio or instant-ngp wrote it.",
        )
    frames = [shared | frame | {"place": f"transforms.json: frames[{i}]"} for i, frame in enumerate(frames)]
    for frame in frames:
        frame["file_path"] = _image_name(files, frame)
    frames.sort(key=lambda frame: frame["file_path"])
    distortion_5 = _distortion(frames)
    pose_b44 = np.array([_pose(frame) for frame in frames])

    index, remarks = tracked_frames(pose_b44, [frame["file_path"] for frame in frames], "transforms.json")
    frames, pose_b44 = [frames[i] for i in index], pose_b44[index]
    with_depth = [i for i, frame in enumerate(frames) if frame.get("depth_file_path")]
    if with_depth:
        remarks += left_out(
            [f["file_path"] for f in frames if not f.get("depth_file_path")],
            len(frames),
            place="transforms.json",
            expected="depth_file_path of each frame",
            why="images without depth",
            do="Nothing, if they are few.",
        )
        frames, pose_b44 = [frames[i] for i in with_depth], pose_b44[with_depth]
    if any(frame.get("mask_path") for frame in frames):
        remarks.append(
            Finding("note", "transforms.json: mask_path", "no masks", "masks, which are not used", "Nothing.")
        )

    names = {"rgb": [frame["file_path"] for frame in frames]}
    sizes_wh = [_size_wh(files, frame) for frame in frames]
    K_rgb_b33 = np.array([_K(frame, *wh) for frame, wh in zip(frames, sizes_wh, strict=True)])
    K_depth_b33 = None
    if with_depth:
        names["depth"] = [named_file(files, str(frame["depth_file_path"]), frame["place"]) for frame in frames]
        depth_wh_of = {
            wh: image_size_wh(files, name)
            for name, wh in zip(reversed(names["depth"]), reversed(sizes_wh), strict=True)
        }
        K_depth_b33 = np.array(
            [
                scaled_intrinsics(K, depth_wh_of[wh][0] / wh[0], depth_wh_of[wh][1] / wh[1])
                for K, wh in zip(K_rgb_b33, sizes_wh, strict=True)
            ]
        )
    recording = Recording(
        rgb=images(files, names["rgb"]),
        depth=images(files, names["depth"]) if with_depth else None,
        depth_confidence=None,
        timestamp_s_b=evenly_spaced_s(np.arange(len(frames))),
        K_rgb_b33=K_rgb_b33,
        K_depth_b33=K_depth_b33,
        metres_per_depth_unit=_number(frames[0], "depth_unit_scale_factor", DEPTH_UNIT_M),
        distortion_5=distortion_5,
    )
    scan = Scan(
        files.stem, NAME, recording, pose_b44 @ OPENGL_T_OPENCV_44, is_metric=bool(with_depth), down_scan_3=None
    )
    return Reading(scan, (*remarks, untimed("transforms.json")), names, camera_axes="OpenGL")


def _image_name(files: ScanFiles, frame: dict[str, Any]) -> str:
    """The colour image of a frame; the oldest files leave out its ending."""
    path, place = str(frame.get("file_path", "")), frame["place"]
    for ending in ("", ".png", ".jpg"):
        if (plain := str(PurePosixPath(path + ending))) in files:
            return plain
    return named_file(files, path, place)


def _pose(frame: dict[str, Any]) -> F64:
    place, matrix = f"{frame['place']}.transform_matrix", frame.get("transform_matrix")
    if not isinstance(matrix, list) or len(matrix) not in (3, 4):
        raise ScanRejected(
            place,
            expected="a 4x4 matrix, row by row",
            received=f"{matrix!r:.40}",
            do="Upload the whole file as nerfstudio or instant-ngp wrote it.",
        )
    given = np.array([numbers(row if isinstance(row, list) else [row], 4, place) for row in matrix])
    return given if len(given) == 4 else np.vstack([given, [0, 0, 0, 1]])


def _size_wh(files: ScanFiles, frame: dict[str, Any]) -> tuple[int, int]:
    if "w" in frame and "h" in frame:
        w, h = int(_number(frame, "w")), int(_number(frame, "h"))
        if w > 0 and h > 0:
            return w, h
    return image_size_wh(files, frame["file_path"])


def _K(frame: dict[str, Any], w: int, h: int) -> F64:
    if "fl_x" in frame:
        fx = _number(frame, "fl_x")
    elif "camera_angle_x" in frame:
        fx = 0.5 * w / math.tan(0.5 * _number(frame, "camera_angle_x"))
    else:
        raise ScanRejected(
            frame["place"],
            expected="fl_x or camera_angle_x",
            received="neither",
            do="Write the focal length in pixels as fl_x into transforms.json.",
        )
    fy, cx, cy = _number(frame, "fl_y", fx), _number(frame, "cx", w / 2), _number(frame, "cy", h / 2)
    return np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])


def _distortion(frames: list[dict[str, Any]]) -> tuple[float, ...]:
    lenses = {tuple(_number(frame, name, 0.0) for name in LENS) for frame in frames}
    fisheye = {
        frame["place"]
        for frame in frames
        if frame.get("is_fisheye") or frame.get("camera_model") not in PINHOLE_MODELS or _number(frame, "k4", 0.0) != 0
    }
    if fisheye:
        raise ScanRejected(
            min(fisheye),
            expected="a pinhole camera (OPENCV, PINHOLE)",
            received="a fisheye or unknown lens",
            do="Undistort the images first (COLMAP: image_undistorter).",
        )
    if len(lenses) > 1:
        raise ScanRejected(
            "transforms.json",
            expected="one lens (k1 k2 p1 p2 k3) for all frames",
            received=f"{len(lenses)} different ones",
            do="Undistort the images first.",
        )
    return lenses.pop()


def _number(values: dict[str, Any], key: str, default: float | None = None) -> float:
    return float(numbers([values.get(key, default)], 1, f"{values['place']}: {key}")[0])


def write(scan: Scan, folder: Path) -> list[str]:
    recording, remarks = scan.recording, writing.not_held(scan, NAME)
    writing.need(scan, NAME, "colour", "poses", *(["metres"] if recording.depth is not None else []))
    assert recording.rgb is not None and recording.K_rgb_b33 is not None and scan.scan_T_cam_b44 is not None
    if recording.depth is not None:
        writing.need_registered_depth(recording, NAME, same_size=False)
    elif scan.is_metric:
        remarks.append(
            f"Without depth {NAME} does not say that lengths are metres; whoever reads it takes them as unknown."
        )
    height, width = recording.rgb[0].shape[:2]
    shared: dict[str, Any] = {"camera_model": "OPENCV", "w": width, "h": height}
    shared |= dict(zip(LENS, recording.distortion_5, strict=True))
    if recording.depth is not None:
        shared["depth_unit_scale_factor"] = DEPTH_UNIT_M
    frames = []
    with writing.new_folder(folder) as beside:
        out = writing.Images(recording, beside, unit_m=DEPTH_UNIT_M, holds_lens=True)
        for i, pose_44 in enumerate(scan.scan_T_cam_b44 @ OPENGL_T_OPENCV_44):
            (fx, _, cx), (_, fy, cy), _ = recording.K_rgb_b33[i].tolist()
            frame = {"file_path": out.colour(i, f"images/{i:06d}"), "transform_matrix": pose_44.tolist()}
            frame |= {"fl_x": fx, "fl_y": fy, "cx": cx + 0.5, "cy": cy + 0.5}
            if recording.depth is not None:
                frame["depth_file_path"] = out.depth(i, f"depth/{i:06d}.png")
            frames.append(frame)
        writing.put(beside, "transforms.json", json.dumps({**shared, "frames": frames}, indent=1) + "\n")
        return remarks + out.remarks()
