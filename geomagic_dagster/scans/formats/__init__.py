"""The scan formats: one file each, registered by being there. Here: only what several of them need.

A format's file has
    NAME         as it appears in reports, "tum_rgbd"
    LOOKS_LIKE   one sentence: the files by which it is recognised
    NAMES_ITSELF True where a file says in so many words which format it is; such a format goes before others
    recognises(files) -> bool        by names only, or the first bytes of one small file
    read(files) -> Reading           text files and directory entries; images are read later, when asked for
and, where the project also writes it,
    write(scan, folder) -> list[str]   the remarks say what the format could not hold; see ../writing.py

A reader gives what types.py says (metres, camera-to-world, OpenCV camera axes, world turned to z up)
and judges nothing that check.py judges from the data; it raises ScanRejected for what it cannot make sense of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.containers import EncodedImages, ImageUnreadable, decode_image, encode_png
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Scan
from geomagic_dagster.scans.files import UPLOAD_AGAIN, ScanFiles
from geomagic_dagster.scans.images import HEADER_BYTES, image_header, what_it_is

F64 = NDArray[np.float64]

ZUP_R_YUP_33: F64 = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""Turns a world with y up (ARKit, HoloLens) to z up: +90 degrees about x."""
ZUP_R_YDOWN_33: F64 = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""Turns a world that has the axes of an upright OpenCV camera (y down) to z up: -90 degrees about x."""
OPENGL_T_OPENCV_44: F64 = np.diag([1.0, -1.0, -1.0, 1.0])
"""Right-multiplied, makes a pose of OpenGL camera axes (x right, y up, z back) one of OpenCV axes, and back."""
DOWN_Z_3 = (0.0, 0.0, -1.0)
"""Gravity where the device itself keeps its world upright."""
UNTIMED_S = 1.0
"""Between frames of a format that has no times. A slow hand, so that no speed looks impossible."""
MAX_TEXT_BYTES = 256 * 2**20
"""100,000 poses as text take 30 MB."""
SHOWN = 3
"""Examples in a message that could name hundreds."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth knowing: where, what was expected, what came, what to do."""

    severity: Literal["error", "warning", "note"]
    place: str
    expected: str
    received: str
    do: str


@dataclass(frozen=True, eq=False)
class Reading:
    """A scan, and what its reader can say beside it."""

    scan: Scan
    remarks: tuple[Finding, ...] = ()
    """What was left out, or had to be assumed."""
    image_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Where the images of "rgb", "depth" and "depth_confidence" lie in the upload, frame by frame."""
    zup_R_file_33: F64 = field(default_factory=lambda: np.eye(3))
    """How the reader turned the file's world; with the axes below, what the check needs to name a wrong convention."""
    camera_axes: Literal["OpenCV", "OpenGL"] = "OpenCV"
    """Of the format's poses, which the reader made OpenCV's."""


def images(files: ScanFiles, names: Iterable[str]) -> EncodedImages:
    """Images by name, each read when asked for."""
    return EncodedImages(files.source(name) for name in names)


def made_images(make: Iterable[Callable[[], NDArray[Any]]]) -> EncodedImages:
    """Images of another encoding than PNG or JPEG: each is made, as a PNG, when asked for."""
    return EncodedImages((lambda each=each: encode_png(each())) for each in make)


def decoded(files: ScanFiles, name: str) -> NDArray[Any]:
    """An image file of any kind that OpenCV reads, as `decode_image` gives it. Raises: ScanRejected."""
    encoded = files.read(name)
    try:
        return decode_image(encoded)
    except ImageUnreadable as error:
        raise ScanRejected(name, expected="a whole image", received=what_it_is(encoded), do=UPLOAD_AGAIN) from error


def image_size_wh(files: ScanFiles, name: str) -> tuple[int, int]:
    """Width and height of an image by its header. Raises: ScanRejected when it is no PNG or JPEG."""
    head = files.head(name, HEADER_BYTES)
    header = image_header(head)
    if header is None:
        raise ScanRejected(name, expected="a whole PNG or JPEG", received=what_it_is(head), do=UPLOAD_AGAIN)
    return header.width, header.height


def named_file(files: ScanFiles, name: str, place: str) -> str:
    """The file that an index names, as `files` knows it. Raises: ScanRejected when it is not there."""
    plain = str(PurePosixPath(name.replace("\\", "/")))
    if plain not in files:
        raise ScanRejected(
            place, expected=f"the file {plain} in the upload", received="none of this name", do=UPLOAD_AGAIN
        )
    return plain


def read_text(files: ScanFiles, name: str) -> str:
    """A text file. Raises: ScanRejected when it is no UTF-8 text."""
    if files.size(name) > MAX_TEXT_BYTES:
        raise ScanRejected(
            name,
            expected=f"a text file below {MAX_TEXT_BYTES >> 20} MiB",
            received=f"{files.size(name) >> 20} MiB",
            do="Look whether the right file has this name.",
        )
    try:
        return files.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ScanRejected(
            name,
            expected="plain text (UTF-8)",
            received=f"other bytes ({error.reason} at {error.start})",
            do=UPLOAD_AGAIN,
        ) from error


def read_json(files: ScanFiles, name: str) -> dict[str, Any]:
    """A JSON object. Raises: ScanRejected with line and column where it is none."""
    try:
        content = json.loads(read_text(files, name))
    except (ValueError, RecursionError) as error:
        raise ScanRejected(
            name, expected="a JSON object", received=f"text that is none ({error})", do=UPLOAD_AGAIN
        ) from error
    if not isinstance(content, dict):
        raise ScanRejected(name, expected="a JSON object", received=f"a JSON {type(content).__name__}", do=UPLOAD_AGAIN)
    return content


def text_lines(files: ScanFiles, name: str) -> list[tuple[str, str]]:
    """("poses.txt line 3", the line) of every line of a text file that is neither empty nor a # comment."""
    lines = enumerate((line.strip() for line in read_text(files, name).splitlines()), start=1)
    return [(f"{name} line {number}", line) for number, line in lines if line and not line.startswith("#")]


def numbers(values: Any, count: int, place: str) -> F64:
    """(count,) float64 from a line of text or JSON values. NaN and infinity pass. Raises: ScanRejected for all else."""
    if isinstance(values, str):
        values = re.split(r"[\s,]+", values.strip())
    try:
        array = np.array([float(value) for value in values], np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ScanRejected(place, expected=f"{count} numbers", received=f"{error}", do=UPLOAD_AGAIN) from error
    if len(array) != count:
        raise ScanRejected(place, expected=f"{count} numbers", received=f"{len(array)}", do=UPLOAD_AGAIN)
    return array


def read_matrix(files: ScanFiles, name: str, shape: tuple[int, int]) -> F64:
    """A matrix from a text file of numbers, row by row."""
    text = " ".join(line for _, line in text_lines(files, name))
    return numbers(text, shape[0] * shape[1], name).reshape(shape)


def rotations_of_quaternions(xyzw_b4: F64, places: Sequence[str]) -> F64:
    """(b, 3, 3) from unit quaternions; NaN where a quaternion is NaN or all zeros (tracking lost).

    Raises: ScanRejected where the length is not 1 within a hundredth (text has few digits).
    """
    length_b = np.linalg.norm(xyzw_b4, axis=1)
    for place, length in zip(places, length_b, strict=True):
        if np.isfinite(length) and length != 0 and abs(length - 1) > 0.01:
            raise ScanRejected(
                place,
                expected="a unit quaternion qx qy qz qw",
                received=f"one of length {length:.3g}",
                do="Look at the order of the columns: t tx ty tz qx qy qz qw.",
            )
    with np.errstate(invalid="ignore"):
        x, y, z, w = (xyzw_b4 / length_b[:, None]).T
    return np.stack([
        np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], -1),
        np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], -1),
        np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], -1),
    ], axis=1)  # fmt: skip


def poses_of_quaternions(translation_b3: F64, xyzw_b4: F64, places: Sequence[str]) -> F64:
    """(b, 4, 4) from positions and unit quaternions. Raises: as `rotations_of_quaternions`."""
    pose_b44 = np.tile(np.eye(4), (len(translation_b3), 1, 1))
    pose_b44[:, :3, :3] = rotations_of_quaternions(xyzw_b4, places)
    pose_b44[:, :3, 3] = translation_b3
    return pose_b44


def arkit_poses(file_T_cam_b44: F64) -> F64:
    """Camera-to-world as ARKit has it (OpenGL camera axes, world y up), in our axes and world."""
    return turned(ZUP_R_YUP_33, file_T_cam_b44) @ OPENGL_T_OPENCV_44


def turned(zup_R_file_33: F64, file_T_cam_b44: F64) -> F64:
    """Poses in a world that is turned to z up."""
    turn_44 = np.eye(4)
    turn_44[:3, :3] = zup_R_file_33
    with np.errstate(invalid="ignore"):  # lost frames are infinite
        return turn_44 @ file_T_cam_b44


def numbered(files: ScanFiles, pattern: str) -> dict[int, str]:
    """Files whose whole name fits a pattern, by the number that is its first group.

    Raises: ScanRejected where two have the same number.
    """
    found: dict[int, str] = {}
    for name in files.names():
        match = re.fullmatch(pattern, name)
        if match and (other := found.setdefault(int(match[1]), name)) != name:
            raise ScanRejected(
                name, expected="one file of this number", received=f"{other} too", do="Upload one recording at a time."
            )
    return found


def in_common(parts: Mapping[str, Mapping[int, str]], place: str) -> tuple[list[int], list[Finding]]:
    """Numbers, rising, of the frames that have all parts that there are, and a warning that names the others.

    A part is its files by number ("colour", "depth", "poses"); one that has no file at all is not asked for.
    Raises: ScanRejected when no frame has all.
    """
    parts = {what: names for what, names in parts.items() if names}
    expected = f"{', '.join(parts)} of each frame"
    common = set.intersection(*(set(names) for names in parts.values()))
    if not common:
        raise ScanRejected(place, expected=expected, received="not one frame that has all", do=UPLOAD_AGAIN)
    remarks = []
    for what, names in parts.items():
        remarks += left_out(
            [names[number] for number in sorted(set(names) - common)],
            len(names),
            place=place,
            expected=expected,
            why=f"files of {what} without the rest",
            do="Upload the missing files, if they are many.",
        )
    return sorted(common), remarks


def tracked_frames(pose_b44: F64, names: Sequence[str], place: str) -> tuple[NDArray[np.int64], list[Finding]]:
    """Frames whose pose is a number, and a warning that names the others: (kept (b,), remarks).

    Raises: ScanRejected when no frame has a pose.
    """
    is_tracked_b = np.array(np.isfinite(pose_b44).all(axis=(1, 2)))
    if not is_tracked_b.any():
        raise ScanRejected(
            place,
            expected="poses of finite numbers",
            received=f"NaN or infinite ones for all {len(names)} frames",
            do="Tracking was lost throughout; scan again, slowly, in better light.",
        )
    return np.flatnonzero(is_tracked_b), left_out(
        [name for name, ok in zip(names, is_tracked_b, strict=True) if not ok],
        len(names),
        place=place,
        expected="a pose for each frame",
        why="without a finite pose (tracking lost)",
        do="Nothing, if they are few; else scan again, slowly, in better light.",
    )


def left_out(names: Sequence[str], of: int, *, place: str, expected: str, why: str, do: str) -> list[Finding]:
    """A warning that some frames or files were left out; none when `names` is empty."""
    if not names:
        return []
    return [Finding("warning", place, expected, f"{len(names)} of {of} {why}, left out: {shortened(names)}", do)]


def shortened(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def evenly_spaced_s(index_b: NDArray[np.int64]) -> F64:
    """Times (b,) for frames of a format that has none."""
    return np.asarray(index_b, np.float64) * UNTIMED_S


def untimed(place: str) -> Finding:
    return Finding("note", place, "times of the frames", f"none; taken as {UNTIMED_S:g} s apart", "Nothing.")
