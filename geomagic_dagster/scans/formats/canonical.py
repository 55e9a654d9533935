"""The project's own layout: what every other format becomes, and the one that is written.

    scan.json                  all that is not an image, described below
    color/000000.jpg ...       (h, w, 3) 8-bit JPEG or PNG
    depth/000000.png ...       (h', w') 16-bit PNG of one channel
    confidence/000000.png ...  (h', w') 8-bit PNG of one channel

Each of the three image folders may be missing; none of them for some frames only. Images are kept in the bytes in which
they came where these are of the right kind. scan.json is a JSON object; numbers are written so that
they come back exactly:

    format                "geomagic-scan"
    schema_version        1; it only grows, and what is unknown is refused
    name                  text
    source_format         the format that it was read from first, "tum_rgbd"
    device                text, "unknown" where nobody knows
    consent               "unknown", "process" or "research"
    is_metric             whether lengths are metres
    down_scan_3           direction of gravity, length 1, or null where nobody vouches for it
    metres_per_depth_unit, invalid_depth_units, depth_confidence_max, distortion_5      as in cv/types.py
    frames                a list, in order of time, of
        timestamp_s           seconds
        rgb, depth, depth_confidence    names of the images, or null
        K_rgb_33, K_depth_33            3x3 pinhole intrinsics in pixels (centres at integers), or null
        scan_T_cam_44                   4x4 camera-to-world, OpenCV camera axes, metres, world z up; null where
                                        tracking was lost (the frame is left out), or for all frames
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans import writing
from geomagic_dagster.scans.files import UPLOAD_AGAIN, ScanFiles
from geomagic_dagster.scans.formats import F64, Reading, images, named_file, read_json, tracked_frames

NAME = "canonical"
LOOKS_LIKE = 'scan.json with "format": "geomagic-scan", beside color/, depth/ and confidence/'
NAMES_ITSELF = True

FORMAT = "geomagic-scan"
MANIFEST = "scan.json"
FOLDERS = {"rgb": "color", "depth": "depth", "depth_confidence": "confidence"}

Matrix33 = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
Row4 = tuple[float, float, float, float]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True)


class _Frame(_Strict):
    timestamp_s: float
    rgb: str | None = None
    depth: str | None = None
    depth_confidence: str | None = None
    K_rgb_33: Matrix33 | None = None
    K_depth_33: Matrix33 | None = None
    scan_T_cam_44: tuple[Row4, Row4, Row4, Row4] | None = None


class _Manifest(_Strict):
    format: Literal["geomagic-scan"]
    schema_version: Literal[1]
    name: str
    source_format: str
    device: str = "unknown"
    consent: Literal["unknown", "process", "research"] = "unknown"
    is_metric: bool
    down_scan_3: tuple[float, float, float] | None = None
    metres_per_depth_unit: float = Field(0.001, gt=0)
    invalid_depth_units: tuple[int, ...] = (0,)
    depth_confidence_max: int = Field(2, gt=0)
    distortion_5: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    frames: tuple[_Frame, ...] = Field(min_length=1)


def recognises(files: ScanFiles) -> bool:
    return MANIFEST in files and FORMAT.encode() in files.head(MANIFEST, 4096)


def read(files: ScanFiles) -> Reading:
    try:
        manifest = _Manifest.model_validate(read_json(files, MANIFEST))
    except ValidationError as error:
        first = error.errors()[0]
        place = ": ".join([MANIFEST, ".".join(str(part) for part in first["loc"])])
        raise ScanRejected(
            place,
            expected="what scans/formats/canonical.py describes",
            received=f"{first['input']!r:.60} ({first['msg']})",
            do="Write the scan again.",
        ) from error

    pose_b44 = _matrices(manifest.frames, "scan_T_cam_44", (4, 4), lost=np.nan)
    kept, remarks = np.arange(len(manifest.frames)), []
    if pose_b44 is not None:
        frame_names = [f"frames[{i}]" for i in kept]
        kept, remarks = tracked_frames(pose_b44, frame_names, f"{MANIFEST}: scan_T_cam_44")
        pose_b44 = pose_b44[kept]
    frames = [manifest.frames[i] for i in kept]
    names = {kind: found for kind in FOLDERS if (found := _image_names(files, frames, kind)) is not None}
    encoded = {kind: images(files, found) for kind, found in names.items()}
    recording = Recording(
        rgb=encoded.get("rgb"),
        depth=encoded.get("depth"),
        depth_confidence=encoded.get("depth_confidence"),
        timestamp_s_b=np.array([frame.timestamp_s for frame in frames]),
        K_rgb_b33=_intrinsics(frames, "K_rgb_33", "rgb" in names),
        K_depth_b33=_intrinsics(frames, "K_depth_33", "depth" in names),
        metres_per_depth_unit=manifest.metres_per_depth_unit,
        invalid_depth_units=manifest.invalid_depth_units,
        depth_confidence_max=manifest.depth_confidence_max,
        distortion_5=manifest.distortion_5,
    )
    scan = Scan(
        manifest.name,
        manifest.source_format,
        recording,
        pose_b44,
        manifest.is_metric,
        manifest.down_scan_3,
        manifest.device,
        manifest.consent,
    )
    return Reading(scan, tuple(remarks), names)


def write(scan: Scan, folder: Path) -> list[str]:
    """Writes a scan beside its place and moves it there whole; a failure leaves nothing behind. Nothing is lost.

    Raises: FileExistsError when the folder is there already; OSError when the disk is full or read-only.
    """
    with writing.new_folder(folder) as beside:
        return _write_into(scan, beside)


def _write_into(scan: Scan, folder: Path) -> list[str]:
    recording = scan.recording
    frames: list[dict[str, Any]] = [{"timestamp_s": float(t)} for t in recording.timestamp_s_b]
    out = writing.Images(
        recording,
        folder,
        unit_m=recording.metres_per_depth_unit,
        invalid_units=recording.invalid_depth_units,
        holds_lens=True,
    )
    for i, frame in enumerate(frames):
        if recording.rgb is not None:
            frame["rgb"] = out.colour(i, f"{FOLDERS['rgb']}/{i:06d}")
        if recording.depth is not None:
            frame["depth"] = out.depth(i, f"{FOLDERS['depth']}/{i:06d}.png")
        if recording.depth_confidence is not None:
            frame["depth_confidence"] = out.confidence(i, f"{FOLDERS['depth_confidence']}/{i:06d}.png")
    for key, matrices in (
        ("K_rgb_33", recording.K_rgb_b33),
        ("K_depth_33", recording.K_depth_b33),
        ("scan_T_cam_44", scan.scan_T_cam_b44),
    ):
        for i, frame in enumerate(frames):
            frame[key] = matrices[i].tolist() if matrices is not None else None
    head = {
        "format": FORMAT,
        "schema_version": 1,
        "name": scan.name,
        "source_format": scan.source_format,
        "device": scan.device,
        "consent": scan.consent,
        "is_metric": scan.is_metric,
        "down_scan_3": scan.down_scan_3,
        "metres_per_depth_unit": recording.metres_per_depth_unit,
        "invalid_depth_units": recording.invalid_depth_units,
        "depth_confidence_max": recording.depth_confidence_max,
        "distortion_5": recording.distortion_5,
    }
    lines = ",\n".join("  " + json.dumps(frame, allow_nan=False) for frame in frames)  # a line a frame: people look in
    text = json.dumps(head, indent=1, allow_nan=False, ensure_ascii=False)[:-2] + f',\n "frames": [\n{lines}\n ]\n}}\n'
    writing.put(folder, MANIFEST, text)
    return out.remarks()


def _image_names(files: ScanFiles, frames: Sequence[_Frame], kind: str) -> list[str] | None:
    names = [getattr(frame, kind) for frame in frames]
    if all(name is None for name in names):
        return None
    return [
        named_file(files, name, f"{MANIFEST}: {kind}") if name is not None else _missing(kind, i)
        for i, name in enumerate(names)
    ]


def _intrinsics(frames: Sequence[_Frame], key: str, needed: bool) -> F64 | None:
    matrices = _matrices(frames, key, (3, 3), lost=None)
    if matrices is None and needed:
        _missing(key, 0)
    return matrices


def _matrices(frames: Sequence[_Frame], key: str, shape: tuple[int, int], lost: float | None) -> F64 | None:
    """(b, *shape), or None where no frame has one; `lost` fills single gaps, None refuses them."""
    given = [getattr(frame, key) for frame in frames]
    if all(matrix is None for matrix in given):
        return None
    return np.array(
        [
            np.array(matrix, np.float64)
            if matrix is not None
            else np.full(shape, lost)
            if lost is not None
            else _missing(key, i)
            for i, matrix in enumerate(given)
        ]
    )


def _missing(key: str, index: int) -> Any:
    raise ScanRejected(
        f"{MANIFEST}: frames.{index}.{key}", expected="one for every frame", received="null", do=UPLOAD_AGAIN
    )
