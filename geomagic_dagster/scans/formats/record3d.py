"""Record3D's .r3d: a zip of ARKit frames with LiDAR (or TrueDepth) depth.

    metadata            JSON without an ending: poses, K, w, h, frameTimestamps or fps, ...
    rgbd/0.jpg          colour, w x h
    rgbd/0.depth        float32 metres in LZFSE; 0 or NaN for none
    rgbd/0.conf         uint8, 0 to 2, in LZFSE; may be missing

`poses` are (qx qy qz qw tx ty tz), camera-to-world, ARKit's camera axes, world y up; `initPose` is not needed. `K` is
nine numbers, column after column; `perFrameIntrinsicCoeffs` (fx fy cx cy) goes before it. Both are for w x h. The
size of depth is `dw` x `dh`; in older files it follows from the number of values.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from geomagic_dagster.cv.camera import scaled_intrinsics
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans.files import UPLOAD_AGAIN, ScanFiles
from geomagic_dagster.scans.formats import (
    DOWN_Z_3,
    F64,
    ZUP_R_YUP_33,
    Reading,
    arkit_poses,
    image_size_wh,
    images,
    in_common,
    made_images,
    numbered,
    numbers,
    poses_of_quaternions,
    read_json,
    tracked_frames,
)

NAME = "record3d"
LOOKS_LIKE = "an .r3d file: metadata and rgbd/0.jpg, rgbd/0.depth, ..."
NAMES_ITSELF = False

DEPTH_SIZES = ((192, 256), (480, 640))
"""Of LiDAR and of the front camera, short side first."""
MAX_DEPTH_PIXELS = 480 * 640
MAX_SAID_PIXELS = 2**24
"""Where the metadata say how many there are: room for them is made before a byte is unpacked."""


def recognises(files: ScanFiles) -> bool:
    return "metadata" in files and any(name.startswith("rgbd/") for name in files.names())


def read(files: ScanFiles) -> Reading:
    said = read_json(files, "metadata")
    pose_b44 = _poses(said)
    parts = {
        "poses": {i: f"poses[{i}] of metadata" for i in range(len(pose_b44))},
        "colour": numbered(files, r"rgbd/(\d+)\.jpg"),
        "depth": numbered(files, r"rgbd/(\d+)\.depth"),
        "confidence": numbered(files, r"rgbd/(\d+)\.conf"),
    }
    frames, remarks = in_common(parts, "rgbd/")
    tracked, lost = tracked_frames(pose_b44[frames], [f"rgbd/{i}" for i in frames], "metadata: poses")
    remarks += lost
    index = np.array(frames)[tracked]
    kinds = {"rgb": "colour", "depth": "depth", "depth_confidence": "confidence"}
    names = {kind: [parts[part][i] for i in index] for kind, part in kinds.items() if parts[part]}

    said_wh = (_whole(said, "w"), _whole(said, "h"))
    K_b33 = _intrinsics(said, len(pose_b44))[index]
    K_rgb_b33 = K_depth_b33 = depth = confidence = None
    if "rgb" in names:
        rgb_wh = image_size_wh(files, names["rgb"][0])
        K_rgb_b33 = scaled_intrinsics(K_b33, rgb_wh[0] / said_wh[0], rgb_wh[1] / said_wh[1])
    if "depth" in names:
        width, height = _depth_wh(files, names["depth"][0], said)
        K_depth_b33 = scaled_intrinsics(K_b33, width / said_wh[0], height / said_wh[1])
        depth = made_images(lambda name=name: _depth_mm_hw(files, name, height, width) for name in names["depth"])
        if "depth_confidence" in names:
            confidence = made_images(
                lambda name=name: _unpacked(files, name, np.uint8, height * width).reshape(height, width)
                for name in names["depth_confidence"]
            )
    recording = Recording(
        rgb=images(files, names["rgb"]) if "rgb" in names else None,
        depth=depth,
        depth_confidence=confidence,
        timestamp_s_b=_times(said, len(pose_b44))[index],
        K_rgb_b33=K_rgb_b33,
        K_depth_b33=K_depth_b33,
    )
    pose_b44 = arkit_poses(pose_b44[index])
    scan = Scan(files.stem, NAME, recording, pose_b44, is_metric=True, down_scan_3=DOWN_Z_3, device="ARKit device")
    return Reading(scan, tuple(remarks), names, zup_R_file_33=ZUP_R_YUP_33, camera_axes="OpenGL")


def _poses(said: dict[str, Any]) -> F64:
    """(n, 4, 4) as they stand in the file."""
    listed = said.get("poses")
    if not isinstance(listed, list) or not listed:
        raise ScanRejected(
            "metadata: poses",
            expected="a list of qx qy qz qw tx ty tz",
            received=f"{listed!r:.40}",
            do="Export the recording again as .r3d.",
        )
    places = [f"metadata: poses[{i}]" for i in range(len(listed))]
    table = np.array([numbers(each, 7, place) for each, place in zip(listed, places, strict=True)])
    return poses_of_quaternions(table[:, 4:], table[:, :4], places)


def _intrinsics(said: dict[str, Any], frames: int) -> F64:
    """(n, 3, 3) in pixels of w x h."""
    coefficients = said.get("perFrameIntrinsicCoeffs")
    if isinstance(coefficients, list) and len(coefficients) == frames:
        place = "metadata: perFrameIntrinsicCoeffs"
        table = np.array([numbers(each, 4, f"{place}[{i}]") for i, each in enumerate(coefficients)])
        K_b33 = np.tile(np.eye(3), (frames, 1, 1))
        K_b33[:, [0, 1, 0, 1], [0, 1, 2, 2]] = table
        return K_b33
    K_33 = numbers(said.get("K", ()), 9, "metadata: K").reshape(3, 3).T
    return np.repeat(K_33[None], frames, axis=0)


def _times(said: dict[str, Any], frames: int) -> F64:
    times_s = said.get("frameTimestamps")
    if times_s is not None:
        return numbers(times_s, frames, "metadata: frameTimestamps")
    rate = float(numbers([said.get("fps")], 1, "metadata: fps")[0])
    if not rate > 0:
        raise ScanRejected("metadata: fps", expected="a rate above 0", received=f"{rate}", do=UPLOAD_AGAIN)
    return np.arange(frames) / rate


def _whole(said: dict[str, Any], key: str) -> int:
    value = float(numbers([said.get(key)], 1, f"metadata: {key}")[0])
    if not 1 <= value <= 2**16:
        raise ScanRejected(f"metadata: {key}", expected="a size in pixels", received=f"{value:g}", do=UPLOAD_AGAIN)
    return int(value)


def _depth_wh(files: ScanFiles, name: str, said: dict[str, Any]) -> tuple[int, int]:
    if "dw" in said and "dh" in said:
        width, height = _whole(said, "dw"), _whole(said, "dh")
        if width * height > MAX_SAID_PIXELS:
            expected, received = f"at most {MAX_SAID_PIXELS} pixels of depth", f"dw {width} and dh {height}"
            raise ScanRejected("metadata: dw, dh", expected=expected, received=received, do=UPLOAD_AGAIN)
        return width, height
    pixels = len(_unpacked_bytes(files, name, 4 * MAX_DEPTH_PIXELS)) // 4
    for short, long in DEPTH_SIZES:
        if short * long == pixels:
            return (short, long) if _whole(said, "w") < _whole(said, "h") else (long, short)
    raise ScanRejected(
        name,
        expected=f"depth of {' or '.join(f'{short}x{long}' for short, long in DEPTH_SIZES)}, or dw and dh in metadata",
        received=f"{pixels} pixels",
        do=UPLOAD_AGAIN,
    )


def _depth_mm_hw(files: ScanFiles, name: str, height: int, width: int) -> NDArray[np.uint16]:
    mm_hw = 1000 * _unpacked(files, name, "<f4", height * width).reshape(height, width)
    with np.errstate(invalid="ignore"):
        is_depth_hw = (mm_hw > 0) & (mm_hw < 65535.5)
    return np.where(is_depth_hw, np.rint(mm_hw), 0).astype(np.uint16)


def _unpacked(files: ScanFiles, name: str, dtype: DTypeLike, count: int) -> NDArray[Any]:
    """`count` values from a file in LZFSE."""
    wanted = count * np.dtype(dtype).itemsize
    unpacked = _unpacked_bytes(files, name, wanted)
    if len(unpacked) != wanted:
        received = f"more than {wanted}" if len(unpacked) > wanted else f"{len(unpacked)}"
        raise ScanRejected(name, expected=f"{wanted} bytes when unpacked", received=received, do=UPLOAD_AGAIN)
    return np.frombuffer(unpacked, dtype)


def _unpacked_bytes(files: ScanFiles, name: str, wanted: int) -> bytes:
    """A file in LZFSE, unpacked; one byte more than wanted where it holds more.

    By the decoder of Apple (https://github.com/lzfse/lzfse) that the module brings, called directly: `lzfse.decompress`
    has no bound, and a damaged file makes it ask for ever more memory.
    """
    import lzfse

    decode = ctypes.CDLL(lzfse.__file__).lzfse_decode_buffer
    decode.restype = ctypes.c_size_t
    decode.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p)
    packed, unpacked = files.read(name), ctypes.create_string_buffer(wanted + 1)
    made = decode(unpacked, wanted + 1, packed, len(packed), None)
    if not made:
        received = f"{len(packed)} bytes that begin with {packed[:4]!r}, cut short or damaged"
        raise ScanRejected(name, expected="whole LZFSE, as Record3D writes it", received=received, do=UPLOAD_AGAIN)
    return unpacked.raw[:made]
