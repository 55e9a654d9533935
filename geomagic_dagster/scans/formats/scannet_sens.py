"""ScanNet's own recording, one .sens file of version 4 (https://github.com/ScanNet/ScanNet/tree/master/SensReader).

Little-endian: uint32 version, uint64 length and bytes of the sensor's name, four float32 4x4 matrices (intrinsics and
extrinsics of colour, of depth), int32 compression of colour (1 PNG, 2 JPEG) and of depth (0 none, 1 zlib), four uint32
(colour width, height, depth width, height), float32 depth_shift (units a metre), uint64 number of frames. Then for each
frame a float32 4x4 camera-to-world, uint64 times of colour and depth in microseconds, uint64 sizes of both, their
bytes.

Frames that lost tracking have poses of -inf. Only the headers are read at first; images are read, and depth
decompressed, when asked for. As in scannet.py, no device vouches for gravity.
"""

from __future__ import annotations

import struct
import threading
import zlib
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.containers import EncodedImages
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans.files import MAX_READ_BYTES, UPLOAD_AGAIN, ScanFiles
from geomagic_dagster.scans.formats import F64, Reading, evenly_spaced_s, made_images, tracked_frames, untimed

NAME = "scannet_sens"
LOOKS_LIKE = "one file that ends in .sens"
NAMES_ITSELF = False

VERSION = 4
COLOUR_COMPRESSIONS = (1, 2)
DEPTH_RAW, DEPTH_ZLIB = 0, 1
MAX_NAME_BYTES = 4096
MAX_FRAMES = 1_000_000
MAX_DEPTH_PIXELS = 2**24
"""Of one image: the sensor has 640x480."""
FRAME = struct.Struct("<16f4Q")


class _Header(NamedTuple):
    K_rgb_33: F64
    K_depth_33: F64
    depth_wh: tuple[int, int]
    depth_compression: int
    metres_per_depth_unit: float
    frames: int


class _Frame(NamedTuple):
    pose_44: F64
    time_us: int
    at: int
    rgb_bytes: int
    depth_bytes: int


class _Recorded:
    """A .sens file of an upload; any thread may read from anywhere in it."""

    def __init__(self, files: ScanFiles, name: str) -> None:
        self.name, self.size = name, files.size(name)
        self._file: BinaryIO = files.seekable(name)
        self._lock = threading.Lock()

    def read(self, at: int, count: int, what: str) -> bytes:
        if count > MAX_READ_BYTES:
            expected, received = f"at most {MAX_READ_BYTES} bytes", f"{count}"
            raise ScanRejected(f"{self.name}: {what}", expected=expected, received=received, do=UPLOAD_AGAIN)
        with self._lock:
            self._file.seek(at)
            found = self._file.read(count) if at + count <= self.size else b""
        if len(found) < count:
            received = f"a file that ends at byte {self.size}, before byte {at + count}"
            raise ScanRejected(f"{self.name}: {what}", expected="a whole recording", received=received, do=UPLOAD_AGAIN)
        return found


def recognises(files: ScanFiles) -> bool:
    return any(name.endswith(".sens") for name in files.names())


def read(files: ScanFiles) -> Reading:
    found = [name for name in files.names() if name.endswith(".sens")]
    if len(found) > 1:
        received, do = ", ".join(found[:5]), "Upload one room at a time."
        raise ScanRejected(files.path.name, expected="one .sens file", received=received, do=do)
    recorded = _Recorded(files, found[0])
    header, at = _header(recorded)
    frames = _frames(recorded, header, at)
    pose_b44 = np.array([frame.pose_44 for frame in frames])
    labels = [f"{recorded.name} frame {i}" for i in range(len(frames))]
    index, remarks = tracked_frames(pose_b44, labels, recorded.name)

    time_s = np.array([frames[i].time_us for i in index]) / 1e6
    if not (np.diff(time_s) > 0).all():
        time_s, remarks = evenly_spaced_s(index), [*remarks, untimed(recorded.name)]
    recording = Recording(
        rgb=EncodedImages(
            lambda frame=frames[i], label=labels[i]: recorded.read(frame.at, frame.rgb_bytes, label) for i in index
        ),
        depth=made_images(lambda i=i: _depth_hw(recorded, header, frames[i], labels[i]) for i in index),
        depth_confidence=None,
        timestamp_s_b=time_s,
        K_rgb_b33=np.repeat(header.K_rgb_33[None], len(index), axis=0),
        K_depth_b33=np.repeat(header.K_depth_33[None], len(index), axis=0),
        metres_per_depth_unit=header.metres_per_depth_unit,
    )
    scan = Scan(files.stem, NAME, recording, pose_b44[index], is_metric=True, down_scan_3=None, device="iPad")
    names = {kind: [labels[i] for i in index] for kind in ("rgb", "depth")}
    return Reading(scan, tuple(remarks), names)


def _header(recorded: _Recorded) -> tuple[_Header, int]:
    """What stands before the frames, and where they begin."""

    def refuse(what: str, expected: str, received: Any) -> ScanRejected:
        do = "Unpack it with ScanNet's SensReader, and upload that." if what != "version" else UPLOAD_AGAIN
        return ScanRejected(f"{recorded.name}: {what}", expected=expected, received=f"{received}", do=do)

    version, name_bytes = struct.unpack("<IQ", recorded.read(0, 12, "header"))
    if version != VERSION or name_bytes > MAX_NAME_BYTES:
        raise refuse("version", f"{VERSION}, and the sensor's name", f"{version}, and a name of {name_bytes} bytes")
    at = 12 + name_bytes
    matrices = np.frombuffer(recorded.read(at, 256, "header"), "<f4").reshape(4, 4, 4).astype(np.float64)
    rest = struct.unpack("<2i4IfQ", recorded.read(at + 256, 36, "header"))
    rgb_compression, depth_compression, _, _, width, height, shift, frames = rest
    if rgb_compression not in COLOUR_COMPRESSIONS:
        raise refuse("compression of colour", "1 (PNG) or 2 (JPEG)", rgb_compression)
    if depth_compression not in (DEPTH_RAW, DEPTH_ZLIB):
        raise refuse("compression of depth", "0 (none) or 1 (zlib)", depth_compression)
    is_size = width > 0 and height > 0 and width * height <= MAX_DEPTH_PIXELS
    if not (is_size and 0 < shift < np.inf and 0 < frames <= MAX_FRAMES):
        raise refuse(
            "header",
            "sizes, depth_shift and a number of frames above 0",
            f"depth of {width}x{height}, depth_shift {shift:g}, {frames} frames",
        )
    K_rgb_33, K_depth_33 = matrices[0, :3, :3], matrices[2, :3, :3]
    return _Header(K_rgb_33, K_depth_33, (width, height), depth_compression, 1 / shift, frames), at + 292


def _frames(recorded: _Recorded, header: _Header, at: int) -> list[_Frame]:
    found = []
    for i in range(header.frames):
        *pose, time_us, _, rgb_bytes, depth_bytes = FRAME.unpack(
            recorded.read(at, FRAME.size, f"frame {i} of {header.frames}")
        )
        at += FRAME.size
        found.append(_Frame(np.array(pose).reshape(4, 4), time_us, at, rgb_bytes, depth_bytes))
        at += rgb_bytes + depth_bytes
    if at > recorded.size:  # the last one's images; of all others the next one's header told
        recorded.read(at - 1, 1, f"frame {header.frames - 1} of {header.frames}")
    return found


def _depth_hw(recorded: _Recorded, header: _Header, frame: _Frame, label: str) -> NDArray[np.uint16]:
    width, height = header.depth_wh
    stored = recorded.read(frame.at + frame.rgb_bytes, frame.depth_bytes, label)
    wanted = 2 * width * height
    if header.depth_compression == DEPTH_ZLIB:
        try:
            stored = zlib.decompressobj().decompress(stored, wanted)
        except zlib.error as error:
            raise ScanRejected(label, expected="whole depth", received=f"{error}", do=UPLOAD_AGAIN) from error
    if len(stored) != wanted:
        received = f"{len(stored)} bytes"
        raise ScanRejected(label, expected=f"depth of {wanted} bytes", received=received, do=UPLOAD_AGAIN)
    return np.frombuffer(stored, "<u2").reshape(height, width)
