"""What a network gets to see of a room; counted, so that a test knows whether a run came so far."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.stage import minutes, stage
from geomagic_dagster.cv.types import Scan


@dataclass(frozen=True, eq=False)
class Look:
    colour_3: NDArray[np.float32]


@stage(version="1", timeout=minutes(1))
def look(scan: Scan) -> Look:
    calls = Path(os.environ.get("TOY_CALLS", os.devnull))
    if calls.is_file():
        calls.write_text(calls.read_text() + "l")
    return Look((scan.recording.rgb_hw3(0).mean(axis=(0, 1)) / 255).astype(np.float32))
