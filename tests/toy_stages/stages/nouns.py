"""What the toy stages make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.containers import EncodedImages


@dataclass(frozen=True, eq=False)
class Shades:
    brightness_b: NDArray[np.float64]
    depth_m_bhw: NDArray[np.float32]
    rgb: EncodedImages
    dropped: tuple[tuple[int, str], ...]
    darkest: float | None


@dataclass(frozen=True, eq=False)
class Mood:
    shades: Shades
    score: float
