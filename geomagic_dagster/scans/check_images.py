"""Looks at every image of a scan once: whether it is whole, its size, and what depth it holds.

Belongs here: decoding, and what one image alone can tell. Does not belong here: what the numbers of all of them say
about a scan (check.py).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np

from geomagic_dagster.cv.containers import EncodedImages
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.scans.files import UPLOAD_AGAIN
from geomagic_dagster.scans.formats import Finding, Reading, shortened
from geomagic_dagster.scans.images import ImageHeader, image_header, what_it_is

Kind = Literal["rgb", "depth", "depth_confidence"]
WORDS: dict[Kind, str] = {"rgb": "colour", "depth": "depth", "depth_confidence": "confidence"}

MAX_PIXELS = 2**27
"""134 megapixels; no phone takes more, and a few bytes of PNG can claim a billion."""


class Look(NamedTuple):
    """What decoding one image told."""

    header: ImageHeader | None
    fault: str | None
    expected: str | None = None
    """Where the reader has its own words for it."""
    median_units: float = 0.0
    coverage: float = 0.0
    zeros: float = 0.0
    saturated: float = 0.0


class Images:
    """Every image of one kind, each decoded once: which are bad, how large they are, what depth they hold."""

    def __init__(self, kind: Kind, sequence: EncodedImages, reading: Reading) -> None:
        self.kind, self.findings = kind, []
        self._names = reading.image_names.get(kind) or [f"{WORDS[kind]} of frame {i}" for i in range(len(sequence))]
        invalid = reading.scan.recording.invalid_depth_units
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # decoding lets go of Python's lock
            self.looks = list(pool.map(lambda i: look_at_image(kind, sequence, i, invalid), range(len(sequence))))
        good = [look for look in self.looks if look.fault is None and look.header is not None]
        sizes = Counter((look.header.width, look.header.height) for look in good if look.header)
        self.size_wh = sizes.most_common(1)[0][0] if sizes else None
        """The one that most have."""
        self.median_units = float(np.median([look.median_units for look in good if look.coverage] or [0.0]))
        self.coverage = float(np.mean([look.coverage for look in good])) if good else 0.0
        self.findings += self._faults()
        self.findings += self._sizes(sizes)

    def _faults(self) -> Iterator[Finding]:
        bad = [i for i, look in enumerate(self.looks) if look.fault is not None]
        if bad:
            wanted = {"rgb": "a whole PNG or JPEG in colour", "depth": "a whole 16-bit PNG of one channel"}
            more = f" ({len(bad)} of {len(self.looks)} images: {shortened([self._names[i] for i in bad])})"
            yield Finding(
                "error",
                self._names[bad[0]],
                self.looks[bad[0]].expected or wanted.get(self.kind, "a whole 8-bit PNG of one channel"),
                f"{self.looks[bad[0]].fault}{more if len(bad) > 1 else ''}",
                UPLOAD_AGAIN,
            )

    def _sizes(self, sizes: Counter[tuple[int, int]]) -> Iterator[Finding]:
        if len(sizes) > 1 and self.size_wh is not None:
            odd = [i for i, look in enumerate(self.looks) if look.header and look.header[1:3] != self.size_wh]
            width, height = self.looks[odd[0]].header[1:3]  # type: ignore[index]
            yield Finding(
                "error",
                self._names[odd[0]],
                f"{self.size_wh[0]}x{self.size_wh[1]} like most",
                f"{width}x{height}; {len(odd)} of {len(self.looks)} images differ",
                "Upload the images of one recording, all of one size.",
            )


def look_at_image(kind: Kind, sequence: EncodedImages, index: int, invalid_units: Sequence[int]) -> Look:
    import cv2

    try:
        encoded = sequence.encoded(index)
    except ScanRejected as rejected:  # the archive is damaged, a video ends, or what should become a PNG is none
        return Look(None, rejected.received, rejected.expected)
    header = image_header(encoded)
    if header is None or (header.kind == "PNG" and b"IEND" not in encoded[-1024:]):
        return Look(None, what_it_is(encoded))
    if header.width * header.height > MAX_PIXELS:
        return Look(None, f"a {header.kind} that claims {header.width}x{header.height} pixels")
    if kind == "rgb":
        if header.channels not in (3, 4) or header.bits > 8:
            return Look(None, f"a {header.kind} of {count(header.channels, 'channel')} of {header.bits} bits")
        # in grey at an eighth: all bytes are decoded, but a JPEG four times faster
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
        return Look(header, None if image is not None else what_it_is(encoded))
    if (header.kind, header.channels, header.bits) != ("PNG", 1, 16 if kind == "depth" else 8):
        return Look(None, f"a {header.kind} of {count(header.channels, 'channel')} of {header.bits} bits")
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        return Look(None, what_it_is(encoded))
    if kind != "depth":
        return Look(header, None)
    some = image[::2, ::2]
    valid = some[~np.isin(some, invalid_units)]
    return Look(
        header,
        None,
        median_units=float(np.median(valid)) if valid.size else 0.0,
        coverage=valid.size / some.size,
        zeros=float((some == 0).mean()),
        saturated=float((some == 65535).mean()),
    )


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
