"""Sizes that a file claims to have, and that no memory has: refused before room is made for them."""

from __future__ import annotations

import io
import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.scans.formats import record3d, scannet_sens, stray_scanner


class Files:
    """An upload of one file."""

    path = SimpleNamespace(name="upload.zip")

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, name: str) -> bytes:
        return self.content

    def size(self, name: str) -> int:
        return len(self.content)

    def seekable(self, name: str) -> io.BytesIO:
        return io.BytesIO(self.content)


def sens(width: int, height: int) -> bytes:
    """The header of a recording of one frame."""
    head = struct.pack("<IQ", 4, 0) + np.eye(4, dtype="<f4").tobytes() * 4
    head += struct.pack("<2i4IfQ", 2, 1, 640, 480, width, height, 1000.0, 1)
    return head


def test_record3d_claims_a_depth_of_gigabytes():
    files: Any = Files(b"")
    with pytest.raises(
        ScanRejected, match=r"metadata: dw, dh: expected at most 16777216 pixels of depth; got dw 65536"
    ):
        record3d._depth_wh(files, "rgbd/0.depth", {"dw": 65536, "dh": 65536})
    assert record3d._depth_wh(files, "rgbd/0.depth", {"dw": 256, "dh": 192}) == (256, 192)


def test_a_sens_recording_claims_more_than_there_is():
    files: Any = Files(sens(65536, 65536))
    recorded = scannet_sens._Recorded(files, "room.sens")
    with pytest.raises(ScanRejected, match="header: expected sizes, .* above 0; got depth of 65536x65536"):
        scannet_sens._header(recorded)
    with pytest.raises(ScanRejected, match="frame 0: expected at most 536870912 bytes; got 1099511627776"):
        recorded.read(0, 2**40, "frame 0")


@pytest.mark.parametrize("shape", ["(10000000, 10000000)", f"({10**30}, 1)", "(-1, 5)"])
def test_a_numpy_array_claims_any_shape(shape):
    said = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    files: Any = Files(b"\x93NUMPY\1\0" + struct.pack("<H", len(said)) + said.encode() + bytes(20))
    with pytest.raises(ScanRejected, match="depth/0.npy: expected a numpy array; got a numpy array"):
        stray_scanner._npy_hw(files, "depth/0.npy")
