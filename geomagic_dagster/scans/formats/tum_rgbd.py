"""TUM RGB-D: the benchmark of Sturm et al. (IROS 2012), and what others record in its layout.

Poses are camera-to-world by motion capture, depth is 16-bit at 5000 a metre, registered to colour.
Colour, depth and poses have clocks of their own and are put together by nearest time, within 0.02 s, as the
benchmark's own associate.py does; a frame has the time of its depth image.

The world of the motion capture has z up by its floor, but no device measured gravity, and others who
use the layout have other worlds. So gravity is left open here, and the floor levels the scan.

No file says which camera it was. The benchmark's three are known by name (freiburg1 or fr1, and so on: in the
comments of rgb.txt, the folder's name or the upload's); any other camera is given as a 3x3 matrix in K.txt.
Without either the scan is refused: the wrong one of the three bends every surface by centimetres.

Written too: with K.txt, and with times as exact as they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans import writing
from geomagic_dagster.scans.files import ScanFiles
from geomagic_dagster.scans.formats import (
    F64,
    Reading,
    images,
    left_out,
    named_file,
    numbers,
    poses_of_quaternions,
    read_matrix,
    read_text,
    text_lines,
    tracked_frames,
)

NAME = "tum_rgbd"
LOOKS_LIKE = "rgb.txt and depth.txt (lines of time and file name), groundtruth.txt for poses"
NAMES_ITSELF = False

MAX_TIME_APART_S = 0.02
"""The benchmark's own: half of a frame at 30 frames/s, and a little."""
METRES_PER_DEPTH_UNIT = 1 / 5000
NO_DISTORTION = (0.0, 0.0, 0.0, 0.0, 0.0)


class Camera(NamedTuple):
    device: str
    fx_fy_cx_cy: tuple[float, float, float, float]
    distortion_5: tuple[float, ...]


CAMERAS = {  # https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats
    "1": Camera("Kinect (freiburg1)", (517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "2": Camera("Kinect (freiburg2)", (520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "3": Camera("Xtion (freiburg3)", (535.4, 539.2, 320.1, 247.6), NO_DISTORTION),
}


def recognises(files: ScanFiles) -> bool:
    return "rgb.txt" in files and "depth.txt" in files


def read(files: ScanFiles) -> Reading:
    rgb_s, rgb_names = _index(files, "rgb.txt")
    depth_s, depth_names = _index(files, "depth.txt")
    rgb_of_depth = _mutually_nearest(depth_s, rgb_s)
    paired = np.flatnonzero(rgb_of_depth >= 0)
    if not len(paired):
        raise ScanRejected(
            "rgb.txt and depth.txt",
            expected=f"colour and depth within {MAX_TIME_APART_S} s of each other",
            received="not one such pair",
            do="Look whether both files count time by the same clock.",
        )
    pairs = {
        "expected": f"colour and depth within {MAX_TIME_APART_S} s of each other",
        "do": "Nothing, if they are few.",
    }
    unpaired_rgb = [name for i, name in enumerate(rgb_names) if i not in set(rgb_of_depth[paired].tolist())]
    unpaired_depth = [name for name, i in zip(depth_names, rgb_of_depth, strict=True) if i < 0]
    remarks = left_out(unpaired_rgb, len(rgb_names), place="rgb.txt", why="colour images without depth", **pairs)
    remarks += left_out(unpaired_depth, len(depth_names), place="depth.txt", why="depth images without colour", **pairs)

    pose_b44 = None
    if "groundtruth.txt" in files:
        pose_b44 = _poses_at(files, depth_s[paired])
        kept, lost = tracked_frames(pose_b44, [depth_names[i] for i in paired], "groundtruth.txt")
        paired, pose_b44, remarks = paired[kept], pose_b44[kept], remarks + lost

    camera, K_33 = _camera(files)
    K_b33 = np.repeat(K_33[None], len(paired), axis=0)
    names = {"rgb": [rgb_names[rgb_of_depth[i]] for i in paired], "depth": [depth_names[i] for i in paired]}
    recording = Recording(
        rgb=images(files, names["rgb"]),
        depth=images(files, names["depth"]),
        depth_confidence=None,
        timestamp_s_b=depth_s[paired],
        K_rgb_b33=K_b33,
        K_depth_b33=K_b33,
        metres_per_depth_unit=METRES_PER_DEPTH_UNIT,
        distortion_5=camera.distortion_5,
    )
    scan = Scan(files.stem, NAME, recording, pose_b44, is_metric=True, down_scan_3=None, device=camera.device)
    return Reading(scan, tuple(remarks), names)


def _index(files: ScanFiles, name: str) -> tuple[F64, list[str]]:
    """Times (n,) and file names of rgb.txt or depth.txt."""
    times, names = [], []
    for place, line in text_lines(files, name):
        words = line.split(maxsplit=1)  # a name may hold spaces
        if len(words) != 2:
            raise ScanRejected(
                place, expected="a time and a file name", received=line[:80], do="Write one image a line."
            )
        times.append(numbers(words[0], 1, place)[0])
        names.append(named_file(files, words[1], place))
    if not names:
        raise ScanRejected(name, expected="lines of time and file name", received="none", do="Upload the whole index.")
    return np.array(times), names


def _mutually_nearest(a_s: F64, b_s: F64) -> np.ndarray:
    """For each time of a the index of the one of b that is nearest, and whose nearest it is; else -1."""
    b_of_a, a_of_b = _nearest(a_s, b_s), _nearest(b_s, a_s)
    is_pair = (a_of_b[b_of_a] == np.arange(len(a_s))) & (np.abs(b_s[b_of_a] - a_s) <= MAX_TIME_APART_S)
    return np.where(is_pair, b_of_a, -1)


def _nearest(wanted_s: F64, times_s: F64) -> np.ndarray:
    order = np.argsort(times_s, kind="stable")
    after = np.searchsorted(times_s[order], wanted_s).clip(0, len(order) - 1)
    before = (after - 1).clip(0)
    is_before = np.abs(times_s[order[before]] - wanted_s) <= np.abs(times_s[order[after]] - wanted_s)
    return order[np.where(is_before, before, after)]


def _poses_at(files: ScanFiles, times_s: F64) -> F64:
    """(b, 4, 4) the pose nearest in time; NaN where none is within reach."""
    lines = text_lines(files, "groundtruth.txt")
    places = [place for place, _ in lines]
    table = np.array([numbers(line, 8, place) for place, line in lines]).reshape(-1, 8)
    if not len(table):
        raise ScanRejected(
            "groundtruth.txt",
            expected="lines of t tx ty tz qx qy qz qw",
            received="none",
            do="Upload the whole file, or leave it out.",
        )
    pose_n44 = poses_of_quaternions(table[:, 1:4], table[:, 4:], places)
    nearest = _nearest(times_s, table[:, 0])
    pose_b44 = pose_n44[nearest]
    pose_b44[np.abs(table[nearest, 0] - times_s) > MAX_TIME_APART_S] = np.nan
    return pose_b44


def _camera(files: ScanFiles) -> tuple[Camera, F64]:
    if "K.txt" in files:
        return Camera("unknown", (0, 0, 0, 0), NO_DISTORTION), read_matrix(files, "K.txt", (3, 3))
    comments = " ".join(line for line in read_text(files, "rgb.txt").splitlines() if line.startswith("#"))
    said = set()
    for text in (comments, files.top, files.stem):
        said |= set(re.findall(r"(?<![a-z])(?:freiburg|fr)_?([123])(?!\d)", text, re.IGNORECASE))
    if len(said) != 1:
        raise ScanRejected(
            "the camera's K",
            expected="one of freiburg1, freiburg2 or freiburg3 in the folder's name, or a file K.txt",
            received="none of them" if not said else "several: " + ", ".join(f"freiburg{n}" for n in sorted(said)),
            do="Put the camera's 3x3 matrix (fx 0 cx, 0 fy cy, 0 0 1) into K.txt beside rgb.txt.",
        )
    camera = CAMERAS[said.pop()]
    fx, fy, cx, cy = camera.fx_fy_cx_cy
    return camera, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def write(scan: Scan, folder: Path) -> list[str]:
    writing.need(scan, NAME, "colour", "depth", "metres")
    writing.need_registered_depth(scan.recording, NAME, same_size=True)
    recording, remarks = scan.recording, writing.not_held(scan, NAME, holds=("times",))
    assert recording.K_rgb_b33 is not None
    K_33, said = writing.one_K(recording.K_rgb_b33)
    with writing.new_folder(folder) as beside:
        out = writing.Images(recording, beside, unit_m=METRES_PER_DEPTH_UNIT)
        rgb, depth = "# timestamp filename\n", "# timestamp filename\n"
        for i, time_s in enumerate(recording.timestamp_s_b.tolist()):
            rgb += f"{time_s!r} {out.colour(i, f'rgb/{i:06d}')}\n"
            depth += f"{time_s!r} {out.depth(i, f'depth/{i:06d}.png')}\n"
        writing.put(beside, "rgb.txt", rgb)
        writing.put(beside, "depth.txt", depth)
        writing.put(beside, "K.txt", writing.rows(K_33))
        if scan.scan_T_cam_b44 is not None:
            xyzw_b4 = writing.quaternions_xyzw(scan.scan_T_cam_b44)
            table = np.hstack([recording.timestamp_s_b[:, None], scan.scan_T_cam_b44[:, :3, 3], xyzw_b4])
            writing.put(beside, "groundtruth.txt", "# timestamp tx ty tz qx qy qz qw\n" + writing.rows(table))
        return remarks + said + out.remarks()
