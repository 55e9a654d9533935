"""Stray Scanner: an iPhone app that records ARKit's frames, with its LiDAR depth.

    odometry.csv        timestamp, frame, x, y, z, qx, qy, qz, qw; row n belongs to depth n and to frame n of the video
    camera_matrix.csv   3x3, of the colour images
    depth/000000.png    16-bit millimetres, 256x192
    confidence/         8-bit PNG, 0 to 2; may be missing
    rgb.mp4             1920x1440 HEVC; may be missing: then the scan has no colour, and K is taken as one for 1920x1440

Poses are camera-to-world in OpenCV camera axes already (the app turns ARKit's camera about x); the world has y up,
kept upright by the device. Exports of old versions have 7 columns, without timestamp and frame, and depth as .npy.

Written too: the video then is MPEG-4, which is lossy.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.camera import rotation_between, scaled_intrinsics
from geomagic_dagster.cv.containers import EncodedImages
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans import writing
from geomagic_dagster.scans.files import UPLOAD_AGAIN, ScanFiles
from geomagic_dagster.scans.formats import (
    DOWN_Z_3,
    F64,
    ZUP_R_YUP_33,
    Finding,
    Reading,
    evenly_spaced_s,
    image_size_wh,
    images,
    made_images,
    numbered,
    numbers,
    poses_of_quaternions,
    read_matrix,
    text_lines,
    tracked_frames,
    turned,
    untimed,
)
from geomagic_dagster.scans.images import what_it_is
from geomagic_dagster.scans.video import Video, write_video

NAME = "stray_scanner"
LOOKS_LIKE = "odometry.csv, camera_matrix.csv and depth/, mostly with confidence/ and rgb.mp4"
NAMES_ITSELF = False

VIDEO = "rgb.mp4"
COLOUR_WH = (1920, 1440)
"""What K is for where no video tells."""
HEADER = "timestamp, frame, x, y, z, qx, qy, qz, qw"


def recognises(files: ScanFiles) -> bool:
    return "odometry.csv" in files and "camera_matrix.csv" in files


def read(files: ScanFiles) -> Reading:
    time_b, frame_b, pose_b44 = _odometry(files)
    depth_of, confidence_of = numbered(files, r"depth/(\d+)\.(?:png|npy)"), numbered(files, r"confidence/(\d+)\.png")
    if len(depth_of) != len(pose_b44):
        raise ScanRejected(
            "odometry.csv",
            expected=f"a line for each of the {len(depth_of)} depth images",
            received=f"{len(pose_b44)} lines",
            do="Upload all files of the recording; line n belongs to depth image n.",
        )
    frames = sorted(depth_of)
    if frame_b is not None and frame_b != frames:
        odd = next(i for i, (said, frame) in enumerate(zip(frame_b, frames, strict=True)) if said != frame)
        raise ScanRejected(
            f"odometry.csv: frame of row {odd}",
            expected=f"{frames[odd]}, the number of {depth_of[frames[odd]]}",
            received=f"{frame_b[odd]}",
            do="Upload all files of the recording as the app wrote them.",
        )
    video = Video(files, VIDEO) if VIDEO in files else None
    if video is not None and video.frames != len(frames):
        raise ScanRejected(
            VIDEO,
            expected=f"{len(frames)} frames, one for each line of odometry.csv",
            received=f"{video.frames}",
            do="Upload the whole video; or leave it out, and the scan is processed without colour.",
        )
    remarks = [] if time_b is not None else [untimed("odometry.csv")]
    index, lost = tracked_frames(pose_b44, [depth_of[i] for i in frames], "odometry.csv")
    remarks += lost
    has_confidence = bool(confidence_of) and set(confidence_of) >= set(frames)
    if confidence_of and not has_confidence:
        missing = sorted(set(frames) - set(confidence_of))
        received = f"none for {len(missing)} of {len(frames)} frames; all left out"
        remarks.append(Finding("warning", "confidence/", "confidence of each frame", received, UPLOAD_AGAIN))

    depth_names = [depth_of[frames[i]] for i in index]
    names = {"depth": depth_names}
    if has_confidence:
        names["depth_confidence"] = [confidence_of[frames[i]] for i in index]
    if video is not None:
        names["rgb"] = [f"{VIDEO} frame {i}" for i in index]
    rgb_wh = video.size_wh if video is not None else COLOUR_WH
    depth_wh = _depth_wh(files, depth_names[0])
    K_b33 = np.repeat(read_matrix(files, "camera_matrix.csv", (3, 3))[None], len(index), axis=0)
    recording = Recording(
        rgb=EncodedImages(video.sources()).select(index) if video is not None else None,
        depth=_depth_images(files, depth_names),
        depth_confidence=images(files, names["depth_confidence"]) if has_confidence else None,
        timestamp_s_b=time_b[index] if time_b is not None else evenly_spaced_s(index),
        K_rgb_b33=K_b33 if video is not None else None,
        K_depth_b33=scaled_intrinsics(K_b33, depth_wh[0] / rgb_wh[0], depth_wh[1] / rgb_wh[1]),
    )
    pose_b44 = turned(ZUP_R_YUP_33, pose_b44[index])
    scan = Scan(files.stem, NAME, recording, pose_b44, is_metric=True, down_scan_3=DOWN_Z_3, device="ARKit device")
    return Reading(scan, tuple(remarks), names, zup_R_file_33=ZUP_R_YUP_33)


def _odometry(files: ScanFiles) -> tuple[F64 | None, list[int] | None, F64]:
    """Times (b,) and frame numbers, None in old exports, and poses (b, 4, 4) as they stand."""
    lines = text_lines(files, "odometry.csv")
    if lines and lines[0][1][:1].isalpha():
        lines = lines[1:]
    columns = len(lines[0][1].split(",")) if lines else 0
    if columns not in (7, 9):
        raise ScanRejected(
            "odometry.csv",
            expected=f"lines of {HEADER} (in old exports without the first two)",
            received=f"lines of {columns} columns" if lines else "no line",
            do=UPLOAD_AGAIN,
        )
    table = np.array([numbers(line, columns, place) for place, line in lines])
    pose_b44 = poses_of_quaternions(table[:, -7:-4], table[:, -4:], [place for place, _ in lines])
    if columns == 7:
        return None, None, pose_b44
    if not np.isfinite(table[:, 1]).all():
        raise ScanRejected("odometry.csv: frame", expected="numbers", received="NaN or infinity", do=UPLOAD_AGAIN)
    return table[:, 0], table[:, 1].astype(int).tolist(), pose_b44


def _depth_images(files: ScanFiles, names: list[str]) -> EncodedImages:
    if not names[0].endswith(".npy"):
        return images(files, names)
    return made_images(lambda name=name: _npy_hw(files, name) for name in names)


def _depth_wh(files: ScanFiles, name: str) -> tuple[int, int]:
    if not name.endswith(".npy"):
        return image_size_wh(files, name)
    height, width = _npy_hw(files, name).shape
    return width, height


def _npy_hw(files: ScanFiles, name: str) -> NDArray[np.uint16]:
    """Depth in millimetres of an old export."""
    encoded = files.read(name)
    try:
        depth_hw = np.load(io.BytesIO(encoded), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError, OverflowError) as error:  # its header may claim any shape
        raise ScanRejected(name, expected="a numpy array", received=what_it_is(encoded), do=UPLOAD_AGAIN) from error
    if depth_hw.ndim != 2 or depth_hw.dtype.kind not in "uif":
        received = f"{depth_hw.ndim} dimensions of {depth_hw.dtype}"
        raise ScanRejected(name, expected="numbers of h rows and w columns", received=received, do=UPLOAD_AGAIN)
    return np.nan_to_num(depth_hw, posinf=0, neginf=0).clip(0, 65535).astype(np.uint16)


def write(scan: Scan, folder: Path) -> list[str]:
    writing.need(scan, NAME, "depth", "poses", "metres")
    recording, remarks = scan.recording, writing.not_held(scan, NAME, holds=("times", "confidence", "gravity"))
    assert recording.depth is not None and recording.K_depth_b33 is not None and scan.scan_T_cam_b44 is not None
    depth_hw = recording.depth[0].shape
    if recording.rgb is not None:
        writing.need_registered_depth(recording, NAME, same_size=False)
        assert recording.K_rgb_b33 is not None
        K_b33 = recording.K_rgb_b33
    else:
        K_b33 = scaled_intrinsics(recording.K_depth_b33, COLOUR_WH[0] / depth_hw[1], COLOUR_WH[1] / depth_hw[0])
    K_33, said = writing.one_K(K_b33)
    remarks += said
    pose_b44 = scan.scan_T_cam_b44
    if scan.down_scan_3 is None:
        remarks.append(f"Nobody vouches for gravity; whoever reads {NAME} takes the world's z as up.")
    elif scan.down_scan_3 != DOWN_Z_3:
        pose_b44 = turned(rotation_between(np.array(scan.down_scan_3), np.array(DOWN_Z_3)), pose_b44)
        remarks.append("The world is turned so that gravity points along -z.")
    if recording.depth_confidence is not None and recording.depth_confidence_max != 2:
        remarks.append("Confidence is rounded to 0, 1 or 2.")
    pose_b44 = turned(ZUP_R_YUP_33.T, pose_b44)
    xyzw_b4 = writing.quaternions_xyzw(pose_b44)
    with writing.new_folder(folder) as beside:
        out, lines = writing.Images(recording, beside), [HEADER]
        for i, time_s in enumerate(recording.timestamp_s_b):
            out.depth(i, f"depth/{i:06d}.png")
            if recording.depth_confidence is not None:
                out.confidence(i, f"confidence/{i:06d}.png", highest=2)
            numbers_of_pose = writing.row([*pose_b44[i, :3, 3], *xyzw_b4[i]], ", ")
            lines.append(f"{float(time_s)!r}, {i:06d}, {numbers_of_pose}")
        writing.put(beside, "odometry.csv", "\n".join(lines) + "\n")
        writing.put(beside, "camera_matrix.csv", writing.rows(K_33, ", "))
        if recording.rgb is not None:
            step_s = float(np.median(np.diff(recording.timestamp_s_b))) if len(recording) > 1 else 1.0
            frames_per_s = round(float(np.clip(1 / step_s if step_s > 0 else 1.0, 1, 120)), 3)
            write_video(beside / VIDEO, (out.rgb_hw3(i) for i in range(len(recording))), frames_per_s)
            remarks.append("Colour is an MPEG-4 video, which is lossy.")
        return remarks + out.remarks()
