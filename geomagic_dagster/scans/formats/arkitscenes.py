"""ARKitScenes (Baruch et al., NeurIPS Datasets 2021): one walk with an iPad, in low resolution.

    lowres_wide/<id>_<t>.png                  colour, 256x192, t in seconds
    lowres_depth/<id>_<t>.png                 16-bit millimetres
    confidence/<id>_<t>.png                   8-bit, 0 to 2
    lowres_wide_intrinsics/<id>_<t>.pincam    width height fx fy cx cy
    lowres_wide.traj                          t, axis-angle (3), translation (3): world-to-camera
    metadata.csv                              of the whole data set: sky_direction of each walk; may be missing

Colour and depth are put together by name; a pose is taken within 5 ms, intrinsics within 1 ms. Camera axes are
OpenCV's, the world has z up, kept upright by the device. The iPad was held in any way: where metadata.csv tells on
which side of the image the sky is (Up, Left, Right, Down), images, K and poses are turned upright by 0, 270, 90, 180
degrees counter-clockwise.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.camera import invert_pose
from geomagic_dagster.cv.containers import EncodedImages
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans.files import UPLOAD_AGAIN, ScanFiles
from geomagic_dagster.scans.formats import (
    DOWN_Z_3,
    F64,
    Finding,
    Reading,
    decoded,
    image_size_wh,
    images,
    in_common,
    left_out,
    made_images,
    numbers,
    read_text,
    text_lines,
    tracked_frames,
)

NAME = "arkitscenes"
LOOKS_LIKE = "lowres_wide.traj, lowres_wide/, lowres_wide_intrinsics/, lowres_depth/ and confidence/"
NAMES_ITSELF = False

POSE_WITHIN_S = 0.005
INTRINSICS_WITHIN_S = 0.001
QUARTER_TURNS = {"Up": 0, "Left": 3, "Right": 1, "Down": 2}
"""Counter-clockwise, by where the sky is in the image."""


def recognises(files: ScanFiles) -> bool:
    return _root(files) is not None


def read(files: ScanFiles) -> Reading:
    root = _root(files)
    assert root is not None  # it was recognised by it
    parts = {
        "colour": _by_ms(files, f"{root}lowres_wide/", "png"),
        "depth": _by_ms(files, f"{root}lowres_depth/", "png"),
        "confidence": _by_ms(files, f"{root}confidence/", "png"),
    }
    if not any(parts.values()):
        raise ScanRejected(
            f"{root}lowres_wide/", expected="images named <id>_<t>.png", received="none", do=UPLOAD_AGAIN
        )
    frames, remarks = in_common(parts, root or files.path.name)
    time_b = np.array(frames) / 1000
    label_of = next(names for names in parts.values() if names)
    K_b33, wh = _intrinsics(files, root, time_b)
    is_known_b = np.isfinite(K_b33).all(axis=(1, 2))
    remarks += left_out(
        [label_of[frames[i]] for i in np.flatnonzero(~is_known_b)],
        len(frames),
        place=f"{root}lowres_wide_intrinsics/",
        expected=f"intrinsics within {INTRINSICS_WITHIN_S} s of each image",
        why="without",
        do="Upload the missing files, if they are many.",
    )
    if not is_known_b.any():
        raise ScanRejected(
            f"{root}lowres_wide_intrinsics/",
            expected=f"intrinsics within {INTRINSICS_WITHIN_S} s of an image",
            received="none",
            do=UPLOAD_AGAIN,
        )
    frames, time_b, K_b33 = [frames[i] for i in np.flatnonzero(is_known_b)], time_b[is_known_b], K_b33[is_known_b]
    pose_b44 = _poses(files, f"{root}lowres_wide.traj", time_b)
    index, lost = tracked_frames(pose_b44, [label_of[i] for i in frames], f"{root}lowres_wide.traj")

    kinds = {"rgb": "colour", "depth": "depth", "depth_confidence": "confidence"}
    names = {kind: [parts[part][frames[i]] for i in index] for kind, part in kinds.items() if parts[part]}
    turns, said = _quarter_turns(files, root)
    cam_R_upright_33, K_b33 = _upright_camera(K_b33[index], wh, turns)
    pose_b44 = pose_b44[index]
    pose_b44[:, :3, :3] = pose_b44[:, :3, :3] @ cam_R_upright_33
    found = {kind: _upright_images(files, each, turns) for kind, each in names.items()}
    for kind in ("rgb", "depth"):
        if kind in names and (size := image_size_wh(files, names[kind][0])) != wh:
            expected = f"{wh[0]}x{wh[1]}, as the .pincam files say"
            raise ScanRejected(names[kind][0], expected=expected, received=f"{size[0]}x{size[1]}", do=UPLOAD_AGAIN)
    recording = Recording(
        rgb=found.get("rgb"),
        depth=found.get("depth"),
        depth_confidence=found.get("depth_confidence") if "depth" in names else None,
        timestamp_s_b=time_b[index],
        K_rgb_b33=K_b33 if "rgb" in names else None,
        K_depth_b33=K_b33 if "depth" in names else None,
    )
    scan = Scan(files.stem, NAME, recording, pose_b44, is_metric=True, down_scan_3=DOWN_Z_3, device="iPad (ARKit)")
    return Reading(scan, (*remarks, *lost, *said), names)


def _root(files: ScanFiles) -> str | None:
    """The folder, with its slash, in which the walk lies: annotations may lie beside it."""
    found = [name for name in files.names() if re.fullmatch(r"(.*/)?lowres_wide\.traj", name)]
    return found[0].removesuffix("lowres_wide.traj") if found else None


def _by_ms(files: ScanFiles, folder: str, ending: str) -> dict[int, str]:
    """Files named <id>_<t>.<ending> of a folder by their time in milliseconds, in which it is written."""
    pattern = re.compile(rf"{re.escape(folder)}[^/]*_(\d+(?:\.\d+)?)\.{ending}")
    return {round(1000 * float(m[1])): name for name in files.names() if (m := pattern.fullmatch(name))}


def _poses(files: ScanFiles, name: str, time_b: F64) -> F64:
    """(b, 4, 4) camera-to-world; NaN where none is near enough in time."""
    import cv2

    lines = text_lines(files, name)
    if not lines:
        raise ScanRejected(
            name, expected="lines of t, axis-angle (3), translation (3)", received="none", do=UPLOAD_AGAIN
        )
    table = np.array([numbers(line, 7, place) for place, line in lines])
    cam_T_world_n44 = np.tile(np.eye(4), (len(table), 1, 1))
    for i, axis_angle in enumerate(table[:, 1:4]):
        cam_T_world_n44[i, :3, :3] = cv2.Rodrigues(axis_angle)[0] if np.isfinite(axis_angle).all() else np.nan
    cam_T_world_n44[:, :3, 3] = table[:, 4:7]
    nearest_b = _nearest(table[:, 0], time_b)
    pose_b44 = invert_pose(cam_T_world_n44)[nearest_b]
    pose_b44[np.abs(table[nearest_b, 0] - time_b) > POSE_WITHIN_S] = np.nan
    return pose_b44


def _intrinsics(files: ScanFiles, root: str, time_b: F64) -> tuple[F64, tuple[int, int]]:
    """K (b, 3, 3), NaN where none is near enough in time, and the size that all are for."""
    folder = f"{root}lowres_wide_intrinsics/"
    by_ms = _by_ms(files, folder, "pincam")
    if not by_ms:
        raise ScanRejected(folder, expected="files named <id>_<t>.pincam", received="none", do=UPLOAD_AGAIN)
    known_ms = sorted(by_ms)
    times_n = np.array(known_ms) / 1000
    nearest_b = _nearest(times_n, time_b)
    used = {i: by_ms[known_ms[i]] for i in np.unique(nearest_b)}
    values = {i: numbers(" ".join(line for _, line in text_lines(files, name)), 6, name) for i, name in used.items()}
    sizes = {(int(w), int(h)) for w, h in (each[:2] for each in values.values())}
    if len(sizes) > 1:
        received = ", ".join(f"{w}x{h}" for w, h in sorted(sizes))
        raise ScanRejected(folder, expected="one size of image", received=received, do=UPLOAD_AGAIN)
    K_b33 = np.tile(np.eye(3), (len(time_b), 1, 1))
    K_b33[:, [0, 1, 0, 1], [0, 1, 2, 2]] = np.array([values[i][2:] for i in nearest_b])
    # names have three digits after the point: a millisecond apart, and a little
    K_b33[np.abs(times_n[nearest_b] - time_b) > INTRINSICS_WITHIN_S + 1e-6] = np.nan
    return K_b33, sizes.pop()


def _nearest(times_n: F64, wanted_b: F64) -> NDArray[np.int64]:
    """For each wanted time the index of the nearest; NaN is never near."""
    return np.array([np.nanargmin(np.abs(times_n - wanted)) for wanted in wanted_b], np.int64)


def _quarter_turns(files: ScanFiles, root: str) -> tuple[int, list[Finding]]:
    """By how many quarters, counter-clockwise, the images have to be turned to stand upright."""
    name = next((place for place in (f"{root}metadata.csv", "metadata.csv") if place in files), None)
    if name is None:
        expected, received = "sky_direction of the walk", "none; images are left as the iPad took them"
        return 0, [Finding("note", "metadata.csv", expected, received, "Nothing: geometry does not depend on it.")]
    ids = set(re.findall(r"\d{4,}(?=_)", " ".join(n for n in files.names() if n.startswith(f"{root}lowres_wide/"))))
    walks = [walk for walk in csv.DictReader(read_text(files, name).splitlines()) if walk.get("video_id") in ids]
    said = {str(walk.get("sky_direction")) for walk in walks}
    if len(said) != 1 or not said <= set(QUARTER_TURNS):
        raise ScanRejected(
            f"{name}: sky_direction",
            expected=f"one of {', '.join(QUARTER_TURNS)} in the line of video_id {', '.join(sorted(ids))}",
            received=", ".join(sorted(said)) or "no such line",
            do="Take metadata.csv of the data set as it is, or leave it out.",
        )
    return QUARTER_TURNS[said.pop()], []


def _upright_camera(K_b33: F64, wh: tuple[int, int], turns: int) -> tuple[F64, F64]:
    """Of images turned counter-clockwise by quarters: (cam_R_upright (3, 3), K (b, 3, 3))."""
    cam_R_upright_33, (width, height) = np.eye(3), wh
    for _ in range(turns):  # pixel (x, y) goes to (y, width - 1 - x): the new x axis is the old y, the new y the old -x
        K_b33 = K_b33.copy()
        fx, fy, cx, cy = (K_b33[:, r, c].copy() for r, c in ((0, 0), (1, 1), (0, 2), (1, 2)))
        K_b33[:, 0, 0], K_b33[:, 1, 1], K_b33[:, 0, 2], K_b33[:, 1, 2] = fy, fx, cy, width - 1 - cx
        cam_R_upright_33 = cam_R_upright_33 @ np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
        width, height = height, width
    return cam_R_upright_33, K_b33


def _upright_images(files: ScanFiles, names: Sequence[str], turns: int) -> EncodedImages:
    if not turns:
        return images(files, names)

    def turned(name: str) -> Callable[[], NDArray[np.generic]]:
        return lambda: np.ascontiguousarray(np.rot90(decoded(files, name), turns))

    return made_images(turned(name) for name in names)
