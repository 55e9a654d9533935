"""HoloLens, as DeepVideoMVS (Duzceker et al., CVPR 2021) lays out its recordings.

Line i of poses.txt is the row-major camera-to-world of the i-th image by name, in OpenCV axes and a world
with y up, which the device keeps upright by its own accelerometer: gravity is vouched for. Depth is 16-bit
millimetres, 0 for none, with holes where it was warped to colour. There are no times.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np

from geomagic_dagster.cv.camera import scaled_intrinsics
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans.files import ScanFiles
from geomagic_dagster.scans.formats import (
    ZUP_R_YUP_33,
    Reading,
    evenly_spaced_s,
    image_size_wh,
    images,
    left_out,
    numbers,
    read_matrix,
    text_lines,
    tracked_frames,
    turned,
    untimed,
)

NAME = "hololens"
LOOKS_LIKE = "poses.txt (16 numbers a line), K.txt, images/ and depth/"
NAMES_ITSELF = False


def recognises(files: ScanFiles) -> bool:
    return "poses.txt" in files and "K.txt" in files and bool(_in_folder(files, "images"))


def read(files: ScanFiles) -> Reading:
    rgb_names, lines = _in_folder(files, "images"), text_lines(files, "poses.txt")
    if len(lines) != len(rgb_names):
        raise ScanRejected(
            "poses.txt",
            expected=f"a line for each of the {len(rgb_names)} images",
            received=f"{len(lines)} lines",
            do="Upload all images; line i belongs to the i-th of them.",
        )
    pose_b44 = np.array([numbers(line, 16, place).reshape(4, 4) for place, line in lines])
    index, remarks = tracked_frames(pose_b44, rgb_names, "poses.txt")

    depth_by_stem = {PurePosixPath(name).stem: name for name in _in_folder(files, "depth")}
    if depth_by_stem:
        stems = [PurePosixPath(name).stem for name in rgb_names]
        paired = {
            "expected": "a depth image of the same name for each image",
            "do": "Upload the missing files, if they are many.",
        }
        remarks += left_out(
            [rgb_names[i] for i in index if stems[i] not in depth_by_stem],
            len(rgb_names),
            place="depth/",
            why="images without depth",
            **paired,
        )
        remarks += left_out(
            [depth_by_stem[stem] for stem in sorted(set(depth_by_stem) - set(stems))],
            len(depth_by_stem),
            place="images/",
            why="depth images without colour",
            **paired,
        )
        index = np.array([i for i in index if stems[i] in depth_by_stem], np.int64)
        if not len(index):
            raise ScanRejected("depth/", expected=paired["expected"], received="not one such pair", do=paired["do"])

    names = {"rgb": [rgb_names[i] for i in index]}
    K_b33 = np.repeat(read_matrix(files, "K.txt", (3, 3))[None], len(index), axis=0)
    K_depth_b33 = None
    if depth_by_stem:
        names["depth"] = [depth_by_stem[PurePosixPath(name).stem] for name in names["rgb"]]
        rgb_wh, depth_wh = image_size_wh(files, names["rgb"][0]), image_size_wh(files, names["depth"][0])
        K_depth_b33 = scaled_intrinsics(K_b33, depth_wh[0] / rgb_wh[0], depth_wh[1] / rgb_wh[1])
    recording = Recording(
        rgb=images(files, names["rgb"]),
        depth=images(files, names["depth"]) if depth_by_stem else None,
        depth_confidence=None,
        timestamp_s_b=evenly_spaced_s(index),
        K_rgb_b33=K_b33,
        K_depth_b33=K_depth_b33,
    )
    scan = Scan(
        files.stem,
        NAME,
        recording,
        turned(ZUP_R_YUP_33, pose_b44[index]),
        is_metric=True,
        down_scan_3=(0.0, 0.0, -1.0),
        device="HoloLens",
    )
    return Reading(scan, (*remarks, untimed("poses.txt")), names, zup_R_file_33=ZUP_R_YUP_33)


def _in_folder(files: ScanFiles, folder: str) -> list[str]:
    return [name for name in files.names() if PurePosixPath(name).parent.name == folder and name.count("/") == 1]
