"""What every writer of a format needs: whole or not at all, images as a layout allows them, what a format cannot hold.

Belongs here: what several writers in formats/ share. Does not belong here: the layout of any one format.
What a format cannot do without is a ScanRejected; what it merely loses is a remark, one sentence each.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.camera import scaled_intrinsics
from geomagic_dagster.cv.containers import encode_jpeg, encode_png
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans.formats import F64
from geomagic_dagster.scans.images import image_header

JPEG_QUALITY = 95
"""Of colour that has to be encoded anew."""
SAME_K_PX = 0.01
"""Intrinsics that differ by less are the same: a wall 4 m away moves by a tenth of a millimetre."""
HOLDS_EVERYTHING = "Convert to canonical, which holds everything."


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder beside the wanted one, moved into its place when all is written; a failure leaves nothing behind.

    Raises: FileExistsError when the wanted one is there already; OSError when the disk is full or read-only.
    """
    if folder.exists():
        raise FileExistsError(f"{folder}: expected a folder that is not there yet. Choose another, or remove it first.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        beside.mkdir()
        yield beside
        os.rename(beside, folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def put(folder: Path, name: str, content: bytes | str) -> None:
    """A file of a folder, and the folders that its name needs."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def row(values: Any, separator: str = " ") -> str:
    """Numbers of any shape on one line, so that each comes back exactly."""
    return separator.join(repr(float(value)) for value in np.ravel(values))


def rows(matrix: Any, separator: str = " ") -> str:
    """A matrix, a line a row."""
    return "".join(row(values, separator) + "\n" for values in matrix)


def quaternions_xyzw(pose_b44: F64) -> F64:
    """(b, 4) unit quaternions of rotations."""
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_matrix(pose_b44[:, :3, :3]).as_quat(), np.float64)


# --- what a format cannot do without -------------------------------------------------------------


def need(scan: Scan, name: str, *parts: str) -> None:
    """Raises: ScanRejected when the scan lacks one of "colour", "depth", "poses", "metres"."""
    recording = scan.recording
    there = {
        "colour": recording.rgb is not None,
        "depth": recording.depth is not None,
        "poses": scan.scan_T_cam_b44 is not None,
        "metres": scan.is_metric,
    }
    for part in parts:
        if not there[part]:
            received = "a scan in a scale that nobody knows" if part == "metres" else "a scan without"
            raise ScanRejected(part, expected=f"{part}, as {name} has to have", received=received, do=HOLDS_EVERYTHING)


def need_registered_depth(recording: Recording, name: str, *, same_size: bool) -> None:
    """Raises: ScanRejected when depth and colour are not one view: of one size, or at least one a scaled other.

    Such a format has one K, which is taken for both.
    """
    assert recording.rgb is not None and recording.depth is not None
    rgb_hw, depth_hw = recording.rgb[0].shape[:2], recording.depth[0].shape
    if same_size and rgb_hw != depth_hw:
        raise ScanRejected(
            "depth",
            expected=f"depth of the size of colour ({rgb_hw[1]}x{rgb_hw[0]}), as {name} has to have",
            received=f"{depth_hw[1]}x{depth_hw[0]}",
            do="Convert to scannet, nerfstudio, stray_scanner or canonical, which hold two sizes.",
        )
    assert recording.K_rgb_b33 is not None and recording.K_depth_b33 is not None
    scaled_b33 = scaled_intrinsics(recording.K_rgb_b33, depth_hw[1] / rgb_hw[1], depth_hw[0] / rgb_hw[0])
    apart_px = float(np.abs(scaled_b33 - recording.K_depth_b33).max())
    if apart_px > SAME_K_PX:
        raise ScanRejected(
            "K of the depth images",
            expected=f"the one of colour, as {name} has only one",
            received=f"one that is {apart_px:.2f} pixels off",
            do="Convert to scannet or canonical, which hold two.",
        )


# --- what it merely loses --------------------------------------------------------------------------


def not_held(scan: Scan, name: str, *, holds: Sequence[str] = ()) -> list[str]:
    """A remark that names what the scan knows and the format has no place for.

    `holds`: which of "times", "confidence", "gravity" it has a place for. None has one for device and consent.
    """
    lost = []
    if "times" not in holds:
        lost.append("times of the frames")
    if "confidence" not in holds and scan.recording.depth_confidence is not None:
        lost.append("confidence of depth")
    if "gravity" not in holds and scan.down_scan_3 is not None:
        lost.append("direction of gravity")
    lost += [
        f"{what} ({said})" for what, said in (("device", scan.device), ("consent", scan.consent)) if said != "unknown"
    ]
    return [f"{name} has no place for: {', '.join(lost)}. Left out."] if lost else []


def one_K(K_b33: F64) -> tuple[F64, list[str]]:
    """The one K (3, 3) of a format that has no more: the frames' median; and a remark when they differ."""
    apart_px = float(np.abs(K_b33 - K_b33[0]).max())
    if apart_px == 0:
        return K_b33[0], []
    K_33 = np.median(K_b33, axis=0)
    apart_px = float(np.abs(K_b33 - K_33).max())
    return K_33, [f"K differs from frame to frame; the median is written, up to {apart_px:.2f} pixels off."]


class Images:
    """Writes the images of a recording as a layout allows them, and remembers what was lost on the way.

    Bytes are kept as they came wherever they fit. `unit_m`: metres of one unit of depth. `holds_lens`: the format has
    a place for lens distortion; else the images are written without it.
    """

    def __init__(
        self,
        recording: Recording,
        folder: Path,
        *,
        endings: Sequence[str] = ("jpg", "png"),
        unit_m: float = 0.001,
        invalid_units: Sequence[int] = (0,),
        holds_lens: bool = False,
    ) -> None:
        self._recording, self._folder, self._endings = recording, folder, endings
        self._unit_m, self._invalid_units = unit_m, invalid_units
        self._is_bent = not holds_lens and any(recording.distortion_5)
        self._encoded_anew = self._too_far = 0

    def colour(self, index: int, stem: str) -> str:
        """Writes the colour of a frame; its name with the ending that it got."""
        assert self._recording.rgb is not None
        encoded = self._recording.rgb.encoded(index)
        header = image_header(encoded)
        ending = {"PNG": "png", "JPEG": "jpg"}.get(header.kind) if header else None
        if ending not in self._endings or self._is_bent:
            rgb_hw3 = self.rgb_hw3(index)
            ending = self._endings[0]
            encoded = encode_png(rgb_hw3) if ending == "png" else encode_jpeg(rgb_hw3, JPEG_QUALITY)
            self._encoded_anew += 1
        put(self._folder, f"{stem}.{ending}", encoded)
        return f"{stem}.{ending}"

    def rgb_hw3(self, index: int) -> NDArray[np.uint8]:
        """Colour as it is to be written: without distortion, unless the format has a place for it."""
        assert self._recording.rgb is not None
        return self._recording.rgb_hw3(index) if self._is_bent else self._recording.rgb[index]

    def depth(self, index: int, name: str) -> str:
        """Writes the depth of a frame as 16-bit PNG in the format's unit; what is too far for it becomes none."""
        recording = self._recording
        assert recording.depth is not None
        is_same = recording.metres_per_depth_unit == self._unit_m and not self._is_bent
        if is_same and set(recording.invalid_depth_units) <= set(self._invalid_units):
            encoded = _png_of_bits(recording.depth.encoded(index), 16)
            put(self._folder, name, encoded or encode_png(recording.depth[index].astype(np.uint16)))
            return name
        units_hw = np.rint(recording.depth_m_hw(index).astype(np.float64) / self._unit_m)
        is_too_far = (units_hw > 65535) | np.isin(units_hw, [unit for unit in self._invalid_units if unit])
        self._too_far += int(is_too_far.sum())
        units_hw[is_too_far] = 0
        put(self._folder, name, encode_png(units_hw.astype(np.uint16)))
        return name

    def confidence(self, index: int, name: str, highest: int | None = None) -> str:
        """Writes the confidence of a frame as 8-bit PNG, scaled to `highest` where a format has its own."""
        recording = self._recording
        assert recording.depth_confidence is not None
        own_highest = recording.depth_confidence_max
        confidence_hw = (
            recording.depth_confidence_hw(index) if self._is_bent or highest not in (None, own_highest) else None
        )
        if confidence_hw is not None:
            encoded = encode_png(np.rint(confidence_hw * (highest or own_highest)).astype(np.uint8))
        else:
            encoded = _png_of_bits(recording.depth_confidence.encoded(index), 8)
        put(self._folder, name, encoded or encode_png(recording.depth_confidence[index].astype(np.uint8)))
        return name

    def remarks(self) -> list[str]:
        """What was lost in all images that were written until now."""
        said = []
        if self._is_bent:
            said.append("The lens distortion is taken out of the images, since the format has no place for it.")
        if self._encoded_anew:
            said.append(f"{self._encoded_anew} colour images are encoded anew as {self._endings[0].upper()}.")
        own_m = self._recording.metres_per_depth_unit
        if self._recording.depth is not None and not np.isclose(own_m / self._unit_m % 1, (0, 1), atol=1e-9).any():
            said.append(f"Depth is rounded from units of {1000 * own_m:.4g} mm to {1000 * self._unit_m:.4g} mm.")
        if self._too_far:
            furthest_m = 65535 * self._unit_m
            said.append(f"{self._too_far} pixels deeper than {furthest_m:.4g} m are written as no depth.")
        return said


def _png_of_bits(encoded: bytes, bits: int) -> bytes | None:
    """The bytes, if they are a PNG of one channel of so many bits."""
    header = image_header(encoded)
    is_so = header is not None and (header.kind, header.channels, header.bits) == ("PNG", 1, bits)
    return encoded if is_so else None
