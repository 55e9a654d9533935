"""ScanNet (Dai et al., CVPR 2017), unpacked from its .sens, in either of the two layouts of its exporters.

    color/0.jpg, depth/0.png, pose/0.txt                        SensReader in Python
    intrinsic/intrinsic_color.txt, intrinsic_depth.txt          4x4 (or 3x3)

    frame-000000.color.jpg, .depth.pgm, .pose.txt, _info.txt    SensReader in C++; PGM of 16 bits

Poses are camera-to-world, OpenCV camera axes, rows of -inf where tracking was lost. Depth is 16-bit millimetres and has
a K of its own; that its camera sits at the place of the colour camera is ScanNet's own assumption. The world has z up
as far as its makers turned it; no device vouches for it, so gravity is left open. There are no times. The first layout
is written too.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans import writing
from geomagic_dagster.scans.files import UPLOAD_AGAIN, ScanFiles
from geomagic_dagster.scans.formats import (
    F64,
    Reading,
    decoded,
    evenly_spaced_s,
    images,
    in_common,
    made_images,
    numbered,
    numbers,
    read_matrix,
    read_text,
    text_lines,
    tracked_frames,
    untimed,
)

NAME = "scannet"
LOOKS_LIKE = "color/, depth/, pose/ and intrinsic/; or frame-000000.color.jpg with .depth.pgm and .pose.txt"
NAMES_ITSELF = False

INFO = "_info.txt"


def recognises(files: ScanFiles) -> bool:
    folders = {name.partition("/")[0] for name in files.names()}
    return {"color", "depth", "pose", "intrinsic"} <= folders or bool(numbered(files, r"frame-(\d+)\.depth\.pgm"))


def read(files: ScanFiles) -> Reading:
    is_pgm = bool(numbered(files, r"frame-(\d+)\.depth\.pgm"))
    patterns = (
        (r"frame-(\d+)\.color\.(?:jpe?g|png)", r"frame-(\d+)\.depth\.pgm", r"frame-(\d+)\.pose\.txt")
        if is_pgm
        else (r"color/(\d+)\.(?:jpe?g|png)", r"depth/(\d+)\.png", r"pose/(\d+)\.txt")
    )
    parts = {what: numbered(files, each) for what, each in zip(("colour", "depth", "poses"), patterns, strict=True)}
    for what, found in parts.items():
        if not found:
            raise ScanRejected(files.path.name, expected=f"files of {what}", received="none", do=UPLOAD_AGAIN)
    frames, remarks = in_common(parts, files.path.name)
    pose_b44 = np.array([read_matrix(files, parts["poses"][i], (4, 4)) for i in frames])
    tracked, lost = tracked_frames(pose_b44, [parts["poses"][i] for i in frames], "poses")
    index = np.array(frames)[tracked]
    names = {"rgb": [parts["colour"][i] for i in index], "depth": [parts["depth"][i] for i in index]}
    unit_m = 0.001
    if is_pgm:
        K_rgb_33, K_depth_33, unit_m = _info(files)
        depth = made_images(lambda name=name: decoded(files, name) for name in names["depth"])
    else:
        K_rgb_33, K_depth_33 = (_K(files, f"intrinsic/intrinsic_{camera}.txt") for camera in ("color", "depth"))
        depth = images(files, names["depth"])
    recording = Recording(
        rgb=images(files, names["rgb"]),
        depth=depth,
        depth_confidence=None,
        timestamp_s_b=evenly_spaced_s(index),
        K_rgb_b33=np.repeat(K_rgb_33[None], len(index), axis=0),
        K_depth_b33=np.repeat(K_depth_33[None], len(index), axis=0),
        metres_per_depth_unit=unit_m,
    )
    scan = Scan(files.stem, NAME, recording, pose_b44[tracked], is_metric=True, down_scan_3=None, device="iPad")
    return Reading(scan, (*remarks, *lost, untimed("pose/")), names)


def _K(files: ScanFiles, name: str) -> F64:
    """(3, 3) from a matrix of 4x4 or 3x3."""
    size = 4 if len(text_lines(files, name)) == 4 else 3
    return read_matrix(files, name, (size, size))[:3, :3]


def _info(files: ScanFiles) -> tuple[F64, F64, float]:
    """K of colour, K of depth, metres of a unit of depth: lines of "name = values"."""
    said = dict(re.findall(r"^\s*(\w+)\s*=\s*(.*?)\s*$", read_text(files, INFO), re.MULTILINE))
    K_rgb_33, K_depth_33 = (
        numbers(said.get(key, ""), 16, f"{INFO}: {key}").reshape(4, 4)[:3, :3]
        for key in ("m_calibrationColorIntrinsic", "m_calibrationDepthIntrinsic")
    )
    shift = float(numbers(said.get("m_depthShift", "1000"), 1, f"{INFO}: m_depthShift")[0])
    if not shift > 0:
        raise ScanRejected(f"{INFO}: m_depthShift", expected="above 0", received=f"{shift}", do=UPLOAD_AGAIN)
    return K_rgb_33, K_depth_33, 1 / shift


def write(scan: Scan, folder: Path) -> list[str]:
    writing.need(scan, NAME, "colour", "depth", "poses", "metres")
    recording, remarks = scan.recording, writing.not_held(scan, NAME)
    assert recording.K_rgb_b33 is not None and recording.K_depth_b33 is not None and scan.scan_T_cam_b44 is not None
    with writing.new_folder(folder) as beside:
        out = writing.Images(recording, beside, endings=("jpg",))
        for i, pose_44 in enumerate(scan.scan_T_cam_b44):
            out.colour(i, f"color/{i}")
            out.depth(i, f"depth/{i}.png")
            writing.put(beside, f"pose/{i}.txt", writing.rows(pose_44))
        for camera, K_b33 in (("color", recording.K_rgb_b33), ("depth", recording.K_depth_b33)):
            K_44 = np.eye(4)
            K_44[:3, :3], said = writing.one_K(K_b33)
            remarks += [each for each in said if each not in remarks]
            writing.put(beside, f"intrinsic/intrinsic_{camera}.txt", writing.rows(K_44))
            writing.put(beside, f"intrinsic/extrinsic_{camera}.txt", writing.rows(np.eye(4)))
        return remarks + out.remarks()
