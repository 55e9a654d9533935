"""COLMAP: a model by structure from motion, as text or binary (https://colmap.github.io/format.html), with its images.

    sparse/0/cameras.txt    id, model, width, height, parameters
    sparse/0/images.txt     two lines an image: id, qw qx qy qz, tx ty tz, camera id, name; then its points, maybe none
    sparse/0/points3D.txt   not needed
    images/                 found by their names

Or the same as .bin, or without sparse/0. Poses are world-to-camera, OpenCV camera axes. Pixels are counted from the
corner of the first one, so half a pixel is taken off the principal point. There is no depth, and neither the scale nor
the direction of gravity is known: such a scan is not metric. There are no times; frames are taken in the order of
their names. Written too, as text.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from geomagic_dagster.cv.camera import invert_pose
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans import writing
from geomagic_dagster.scans.files import UPLOAD_AGAIN, ScanFiles
from geomagic_dagster.scans.formats import (
    F64,
    Finding,
    Reading,
    evenly_spaced_s,
    images,
    named_file,
    numbers,
    poses_of_quaternions,
    read_text,
    text_lines,
    tracked_frames,
    untimed,
)

NAME = "colmap"
LOOKS_LIKE = "cameras and images, .txt or .bin, in sparse/0/ (or sparse/, or beside the images)"
NAMES_ITSELF = False

FOLDERS = ("sparse/0/", "sparse/", "")
MODELS = {  # id in .bin: name, which parameters are fx fy cx cy k1 k2 p1 p2 k3 (None: 0), how many there are
    0: ("SIMPLE_PINHOLE", (0, 0, 1, 2, None, None, None, None, None), 3),
    1: ("PINHOLE", (0, 1, 2, 3, None, None, None, None, None), 4),
    2: ("SIMPLE_RADIAL", (0, 0, 1, 2, 3, None, None, None, None), 4),
    3: ("RADIAL", (0, 0, 1, 2, 3, 4, None, None, None), 5),
    4: ("OPENCV", (0, 1, 2, 3, 4, 5, 6, 7, None), 8),
    6: ("FULL_OPENCV", (0, 1, 2, 3, 4, 5, 6, 7, 8), 12),
}
BY_NAME = {name: (taken, count) for name, taken, count in MODELS.values()}
UNDISTORT = "Undistort the images first (COLMAP: image_undistorter)."


class _Camera(NamedTuple):
    K_33: F64
    distortion_5: tuple[float, ...]


class _Image(NamedTuple):
    place: str
    wxyz_txyz_7: F64
    camera: int
    name: str


def recognises(files: ScanFiles) -> bool:
    return _model(files) is not None


def read(files: ScanFiles) -> Reading:
    model = _model(files)
    assert model is not None  # it was recognised by it
    folder, ending = model
    read_cameras, read_images = (_cameras_txt, _images_txt) if ending == "txt" else (_cameras_bin, _images_bin)
    cameras = read_cameras(files, f"{folder}cameras.{ending}")
    views = sorted(read_images(files, f"{folder}images.{ending}"), key=lambda view: view.name)
    if not views:
        raise ScanRejected(f"{folder}images.{ending}", expected="images", received="none", do="Export the model again.")
    for view in views:
        if view.camera not in cameras:
            received = f"camera {view.camera}, which cameras.{ending} does not have"
            raise ScanRejected(view.place, expected="a camera of the model", received=received, do=UPLOAD_AGAIN)
    lenses = {cameras[view.camera].distortion_5 for view in views}
    if len(lenses) > 1:
        raise ScanRejected(
            f"{folder}cameras.{ending}", expected="one lens for all frames", received=f"{len(lenses)}", do=UNDISTORT
        )
    table = np.array([view.wxyz_txyz_7 for view in views])
    cam_T_world_b44 = poses_of_quaternions(table[:, 4:], table[:, [1, 2, 3, 0]], [view.place for view in views])
    index, remarks = tracked_frames(cam_T_world_b44, [view.name for view in views], f"{folder}images.{ending}")
    if folder == "sparse/0/" and any(name.startswith("sparse/1/") for name in files.names()):
        expected, received = "one model", "several; only sparse/0 is taken"
        remarks.append(Finding("warning", "sparse/", expected, received, "Nothing, if most images are in sparse/0."))
    names = {"rgb": [_image_file(files, views[i]) for i in index]}
    recording = Recording(
        rgb=images(files, names["rgb"]),
        depth=None,
        depth_confidence=None,
        timestamp_s_b=evenly_spaced_s(index),
        K_rgb_b33=np.array([cameras[views[i].camera].K_33 for i in index]),
        K_depth_b33=None,
        distortion_5=lenses.pop(),
    )
    pose_b44 = invert_pose(cam_T_world_b44[index])
    scan = Scan(files.stem, NAME, recording, pose_b44, is_metric=False, down_scan_3=None)
    return Reading(scan, (*remarks, untimed(f"{folder}images.{ending}")), names)


def _model(files: ScanFiles) -> tuple[str, str] | None:
    """Folder and ending of the model."""
    for folder in FOLDERS:
        for ending in ("bin", "txt"):
            if f"{folder}cameras.{ending}" in files and f"{folder}images.{ending}" in files:
                return folder, ending
    return None


def _image_file(files: ScanFiles, view: _Image) -> str:
    """The file of an image: beside the model in images/, else the only one that ends in its name."""
    if f"images/{view.name}" in files:
        return f"images/{view.name}"
    ending = [name for name in files.names() if f"/{name}".endswith(f"/{view.name}")]
    return ending[0] if len(ending) == 1 else named_file(files, f"images/{view.name}", view.place)


def _camera(place: str, model: str, parameters: F64) -> _Camera:
    taken, count = BY_NAME[model]
    if len(parameters) != count:
        received = f"{len(parameters)}"
        raise ScanRejected(place, expected=f"{count} parameters of {model}", received=received, do=UPLOAD_AGAIN)
    if parameters[9:].any():  # k4 k5 k6 of FULL_OPENCV
        raise ScanRejected(place, expected="a lens of k1 k2 p1 p2 k3", received="k4, k5 or k6 too", do=UNDISTORT)
    fx, fy, cx, cy, *lens = (float(parameters[i]) if i is not None else 0.0 for i in taken)
    return _Camera(np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]]), tuple(lens))


def _refuse_model(place: str, model: str) -> ScanRejected:
    expected = f"a pinhole camera ({', '.join(BY_NAME)})"
    return ScanRejected(place, expected=expected, received=f"model {model}", do=UNDISTORT)


# --- text ------------------------------------------------------------------------------------------


def _cameras_txt(files: ScanFiles, name: str) -> dict[int, _Camera]:
    cameras = {}
    for place, line in text_lines(files, name):
        words = line.split()
        if len(words) < 5:
            expected = "id, model, width, height, parameters"
            raise ScanRejected(place, expected=expected, received=line[:80], do=UPLOAD_AGAIN)
        if words[1] not in BY_NAME:
            raise _refuse_model(place, words[1])
        number = int(numbers(words[0], 1, place)[0])
        cameras[number] = _camera(place, words[1], numbers(words[4:], len(words) - 4, place))
    return cameras


def _images_txt(files: ScanFiles, name: str) -> list[_Image]:
    """Every other line; the one between lists points and may be empty."""
    lines = [(number, line.strip()) for number, line in enumerate(read_text(files, name).splitlines(), start=1)]
    lines = [(f"{name} line {number}", line) for number, line in lines if not line.startswith("#")]
    views, is_points = [], False
    for place, line in lines:
        words = line.split(maxsplit=9)
        if is_points:
            if line and not re.fullmatch(r"-?\d+", line.rpartition(" ")[2]):  # points end in a number of a point
                do = "Write an empty line behind each image."
                raise ScanRejected(place, expected="the points of the image above", received="an image", do=do)
            is_points = False
        elif line:
            if len(words) != 10:
                expected = "id, qw qx qy qz, tx ty tz, camera id, name"
                raise ScanRejected(place, expected=expected, received=line[:80], do=UPLOAD_AGAIN)
            camera = int(numbers(words[8], 1, place)[0])
            views.append(_Image(place, numbers(words[1:8], 7, place), camera, words[9]))
            is_points = True
    return views


# --- binary ----------------------------------------------------------------------------------------


class _Bytes:
    """Little-endian values one after the other. Raises: ScanRejected where the file ends before."""

    def __init__(self, files: ScanFiles, name: str) -> None:
        self.name, self._bytes, self._at = name, files.read(name), 0

    def take(self, layout: str) -> tuple[float, ...]:
        size = struct.calcsize(f"<{layout}")
        self.skip(size)
        return struct.unpack_from(f"<{layout}", self._bytes, self._at - size)

    def text(self) -> str:
        end = self._bytes.find(b"\0", self._at)
        found = self._bytes[self._at : end]
        self.skip(len(found) + 1 if end >= 0 else len(self._bytes))
        return found.decode(errors="replace")

    def skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._bytes):
            raise ScanRejected(
                self.name,
                expected="as many cameras or images as its first bytes say",
                received=f"a file that ends too early, after {len(self._bytes)} bytes",
                do=UPLOAD_AGAIN,
            )


def _cameras_bin(files: ScanFiles, name: str) -> dict[int, _Camera]:
    values, cameras = _Bytes(files, name), {}
    (count,) = values.take("Q")
    for _ in range(int(count)):
        number, model, _, _ = (int(value) for value in values.take("iiQQ"))
        place = f"{name} camera {number}"
        if model not in MODELS:
            raise _refuse_model(place, f"{model}")
        model_name, _, parameters = MODELS[model]
        cameras[number] = _camera(place, model_name, np.array(values.take(f"{parameters}d")))
    return cameras


def _images_bin(files: ScanFiles, name: str) -> list[_Image]:
    values, views = _Bytes(files, name), []
    (count,) = values.take("Q")
    for _ in range(int(count)):
        number, *pose, camera = values.take("i7di")
        views.append(_Image(f"{name} image {int(number)}", np.array(pose), int(camera), values.text()))
        (points,) = values.take("Q")
        values.skip(24 * int(points))
    return views


# --- writing ---------------------------------------------------------------------------------------


def write(scan: Scan, folder: Path) -> list[str]:
    writing.need(scan, NAME, "colour", "poses")
    recording, remarks = scan.recording, writing.not_held(scan, NAME)
    assert recording.rgb is not None and recording.K_rgb_b33 is not None and scan.scan_T_cam_b44 is not None
    if recording.depth is not None:
        remarks.append(f"{NAME} has no depth. Left out.")
    if scan.is_metric:
        remarks.append(f"{NAME} does not say that lengths are metres; whoever reads it takes the scale as unknown.")
    k1, k2, p1, p2, k3 = recording.distortion_5
    model, lens = ("FULL_OPENCV", (k1, k2, p1, p2, k3, 0, 0, 0)) if k3 else ("OPENCV", (k1, k2, p1, p2))
    if not any(recording.distortion_5):
        model, lens = "PINHOLE", ()
    height, width = recording.rgb[0].shape[:2]
    K_n33, camera_of_b = np.unique(recording.K_rgb_b33, axis=0, return_inverse=True)
    cam_T_world_b44 = invert_pose(scan.scan_T_cam_b44)
    wxyz_b4 = writing.quaternions_xyzw(cam_T_world_b44)[:, [3, 0, 1, 2]]
    with writing.new_folder(folder) as beside:
        out, views = (
            writing.Images(recording, beside, holds_lens=True),
            "# two lines an image, the second one of points\n",
        )
        for i, (camera, cam_T_world_44) in enumerate(zip(camera_of_b.ravel(), cam_T_world_b44, strict=True)):
            file = out.colour(i, f"images/{i:06d}").removeprefix("images/")
            pose = writing.row([*wxyz_b4[i], *cam_T_world_44[:3, 3]])
            views += f"{i + 1} {pose} {int(camera) + 1} {file}\n\n"
        cameras = "# id, model, width, height, parameters\n"
        for i, K_33 in enumerate(K_n33, start=1):
            parameters = writing.row([K_33[0, 0], K_33[1, 1], K_33[0, 2] + 0.5, K_33[1, 2] + 0.5, *lens])
            cameras += f"{i} {model} {width} {height} {parameters}\n"
        for name, text in (("cameras", cameras), ("images", views), ("points3D", "# no points\n")):
            writing.put(beside, f"sparse/0/{name}.txt", text)
        return remarks + out.remarks()
