"""What an image file's first bytes say of it, without decoding it.

Belongs here: the headers of PNG and JPEG. Does not belong here: decoding (cv/containers.py).
Sources: PNG specification (W3C) 11.2.2; JPEG, ITU-T T.81, B.2.2.
"""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple

HEADER_BYTES = 512 * 1024
"""Enough to reach a JPEG's frame header behind the previews and colour profiles that phones put before it."""

OTHER_KINDS = (
    (b"\x00\x00\x00\x00", "nothing but zeros"),
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\x00", "a TIFF"),
    (b"MM\x00*", "a TIFF"),
    (b"RIFF", "a WebP"),
    (b"v/1\x01", "an OpenEXR"),
    (b"\x93NUMPY", "a numpy array"),
    (b"PK", "a zip"),
    (b"<", "a web page or XML"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the file"),
)
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset([0x01, *range(0xD0, 0xD9)])


class ImageHeader(NamedTuple):
    kind: Literal["PNG", "JPEG"]
    width: int
    height: int
    channels: int
    bits: int
    """Of one channel."""


def image_header(head: bytes) -> ImageHeader | None:
    """Size and type by the first bytes of a PNG or JPEG; None for anything else, or where they are cut too short."""
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) >= 26:
        width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
        return ImageHeader("PNG", width, height, {0: 1, 4: 2, 6: 4}.get(colour, 3), bits)
    if head.startswith(b"\xff\xd8"):
        return _jpeg_header(head)
    return None


def _jpeg_header(head: bytes) -> ImageHeader | None:
    at = 2
    while at + 10 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker in _FRAME_HEADERS:
            bits, height, width, channels = struct.unpack(">BHHB", head[at + 4 : at + 10])
            return ImageHeader("JPEG", width, height, channels, bits)
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + struct.unpack(">H", head[at + 2 : at + 4])[0]
    return None


def what_it_is(encoded: bytes) -> str:
    """In words, for bytes that are no readable PNG or JPEG."""
    if not encoded:
        return "an empty file (0 bytes)"
    if encoded[4:8] == b"ftyp":
        return "a HEIC picture or a video"
    for magic, words in OTHER_KINDS:
        if encoded.startswith(magic):
            return words
    header = image_header(encoded)
    if header is not None:
        return f"a {header.kind} that is cut short or damaged ({len(encoded)} bytes)"
    return f"{len(encoded)} bytes that begin with {encoded[:8]!r}"
