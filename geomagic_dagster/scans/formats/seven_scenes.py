"""7-Scenes (Shotton et al., CVPR 2013), and 3DMatch's copies of others in its layout.

Poses are camera-to-world by KinectFusion, whose world has the axes of the first camera: x right, y down,
z forward. It is turned to z up by this; where gravity-direction.txt is there, it says by how much the
first camera was tilted, else the floor has to. Depth is 16-bit millimetres with 65535 for none.
Times are the frame numbers at the Kinect's 30 a second. Written too.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans import writing
from geomagic_dagster.scans.files import ScanFiles
from geomagic_dagster.scans.formats import (
    ZUP_R_YDOWN_33,
    Finding,
    Reading,
    images,
    left_out,
    read_matrix,
    tracked_frames,
    turned,
)

NAME = "seven_scenes"
LOOKS_LIKE = "frame-000000.color.png (or .jpg), frame-000000.depth.png and frame-000000.pose.txt for each frame"
NAMES_ITSELF = False

COLOUR = re.compile(r"(?:(.*)/)?frame-(\d+)\.color\.(?:png|jpg)")
FRAMES_PER_S = 30.0
DEFAULT_K_33 = np.array([[585.0, 0, 320], [0, 585.0, 240], [0, 0, 1]])
"""As the data set's page says, for 640x480; no camera was calibrated."""


def recognises(files: ScanFiles) -> bool:
    if any(name.endswith(".depth.pgm") for name in files.names()):  # ScanNet's exporter has the same names else
        return False
    return any(COLOUR.fullmatch(name) for name in files.names())


def read(files: ScanFiles) -> Reading:
    colours = [match for name in files.names() if (match := COLOUR.fullmatch(name))]
    folders = sorted({match[1] or "" for match in colours})
    if len(folders) > 1:
        raise ScanRejected(
            files.path.name,
            expected="one walk",
            received=f"{len(folders)}: {', '.join(folders[:5])}",
            do="Give the folder of one of them.",
        )
    folder = f"{folders[0]}/" if folders[0] else ""
    colours.sort(key=lambda match: int(match[2]))
    frames = [
        (match[0], f"{folder}frame-{match[2]}.depth.png", f"{folder}frame-{match[2]}.pose.txt") for match in colours
    ]
    has_depth = any(depth in files for _, depth, _ in frames)
    has_poses = any(pose in files for _, _, pose in frames)
    whole = [
        i
        for i, (_, depth, pose) in enumerate(frames)
        if (depth in files or not has_depth) and (pose in files or not has_poses)
    ]
    partial = [frames[i][0] for i in sorted(set(range(len(frames))) - set(whole))]
    remarks = left_out(
        partial,
        len(frames),
        place=folder or files.path.name,
        expected="colour, depth and pose of each frame",
        why="frames without depth or pose",
        do="Upload the missing files, if they are many.",
    )
    lone_depths = [
        n
        for n in files.names()
        if n.endswith(".depth.png") and n.startswith(f"{folder}frame-") and n not in {depth for _, depth, _ in frames}
    ]
    remarks += left_out(
        lone_depths,
        len(frames) + len(lone_depths),
        place=folder or files.path.name,
        expected="colour for each depth image",
        why="depth images without colour",
        do="Upload the missing files, if they are many.",
    )
    if not whole:
        raise ScanRejected(
            folder or files.path.name,
            expected="colour, depth and pose of each frame",
            received="no frame that has all it needs",
            do="Upload the missing files.",
        )

    pose_b44 = None
    if has_poses:
        pose_b44 = turned(ZUP_R_YDOWN_33, np.array([read_matrix(files, frames[i][2], (4, 4)) for i in whole]))
        kept, lost = tracked_frames(pose_b44, [frames[i][2] for i in whole], f"{folder}*.pose.txt")
        whole, pose_b44, remarks = [whole[i] for i in kept], pose_b44[kept], remarks + lost

    K_name = _beside("camera-intrinsics.txt", folder, files)
    if K_name is None:
        K_33 = DEFAULT_K_33
        remarks.append(
            Finding(
                "note",
                "camera-intrinsics.txt",
                "the camera's K",
                "none; taken as 585 585 320 240",
                "Nothing, for the data set itself; else write fx 0 cx, 0 fy cy, 0 0 1 into this file.",
            )
        )
    else:
        K_33 = read_matrix(files, K_name, (3, 3))
    K_b33 = np.repeat(K_33[None], len(whole), axis=0)
    names = {"rgb": [frames[i][0] for i in whole]}
    if has_depth:
        names["depth"] = [frames[i][1] for i in whole]
    recording = Recording(
        rgb=images(files, names["rgb"]),
        depth=images(files, names["depth"]) if has_depth else None,
        depth_confidence=None,
        timestamp_s_b=np.array([int(colours[i][2]) / FRAMES_PER_S for i in whole]),
        K_rgb_b33=K_b33,
        K_depth_b33=K_b33 if has_depth else None,
        invalid_depth_units=(0, 65535),
    )
    down_3 = _down(files, folder)
    scan = Scan(files.stem, NAME, recording, pose_b44, is_metric=True, down_scan_3=down_3, device="Kinect")
    return Reading(scan, tuple(remarks), names, zup_R_file_33=ZUP_R_YDOWN_33)


def _beside(name: str, folder: str, files: ScanFiles) -> str | None:
    """A file beside the frames, or above them, where the data set keeps what all walks of a room share."""
    return next((place for place in (folder + name, name) if place in files), None)


def _down(files: ScanFiles, folder: str) -> tuple[float, float, float] | None:
    name = _beside("gravity-direction.txt", folder, files)
    if name is None:
        return None
    down_3 = read_matrix(files, name, (3, 1))[:, 0]
    length = np.linalg.norm(down_3)
    if not 0.9 < length < 1.1:
        raise ScanRejected(
            name,
            expected="a direction of length 1",
            received=f"one of length {length:.3g}",
            do="Leave the file out; the floor levels the scan then.",
        )
    x, y, z = (ZUP_R_YDOWN_33 @ (down_3 / length)).tolist()
    return x, y, z


def write(scan: Scan, folder: Path) -> list[str]:
    writing.need(scan, NAME, "colour", "metres")
    recording, remarks = scan.recording, writing.not_held(scan, NAME, holds=("gravity",))
    assert recording.K_rgb_b33 is not None
    if recording.depth is not None:
        writing.need_registered_depth(recording, NAME, same_size=True)
    K_33, said = writing.one_K(recording.K_rgb_b33)
    pose_b44 = scan.scan_T_cam_b44
    with writing.new_folder(folder) as beside:
        out = writing.Images(recording, beside, endings=("png", "jpg"), invalid_units=(0, 65535))
        for i in range(len(recording)):
            out.colour(i, f"frame-{i:06d}.color")
            if recording.depth is not None:
                out.depth(i, f"frame-{i:06d}.depth.png")
            if pose_b44 is not None:
                pose_44 = turned(ZUP_R_YDOWN_33.T, pose_b44[i])
                writing.put(beside, f"frame-{i:06d}.pose.txt", writing.rows(pose_44))
        writing.put(beside, "camera-intrinsics.txt", writing.rows(K_33))
        if scan.down_scan_3 is not None:
            down_3 = ZUP_R_YDOWN_33.T @ np.array(scan.down_scan_3)
            writing.put(beside, "gravity-direction.txt", writing.rows(down_3[:, None]))
        return remarks + said + out.remarks()
