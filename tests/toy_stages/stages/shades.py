"""How bright each frame is."""

from __future__ import annotations

import numpy as np

from geomagic_dagster.cv.stage import Field, Params, flag, minutes, stage
from geomagic_dagster.cv.types import Scan
from tests.toy_stages.stages.nouns import Shades


class ShadesParams(Params):
    gain: float = Field(1.0, gt=0, le=10, description="Multiplies brightness.")
    keep: int = Field(3, ge=1, description="Frames to keep.")


@stage(version="1", timeout=minutes(1), expects={"brightest": (0.0, 1.0)}, flags=("dimmer",))
def shades(scan: Scan, params: ShadesParams) -> Shades:
    gain = params.gain * (0.5 if flag("dimmer") else 1.0)
    kept = range(min(params.keep, len(scan.recording)))
    brightness_b = np.array([scan.recording.rgb_hw3(i).mean() / 255 * gain for i in kept])
    return Shades(
        brightness_b=brightness_b,
        depth_m_bhw=np.stack([scan.recording.depth_m_hw(i) for i in kept]),
        rgb=scan.recording.rgb.select(kept),
        dropped=tuple((i, "not kept") for i in range(len(kept), len(scan.recording))),
        darkest=float(brightness_b.min()),
    )


def measure_shades(shades: Shades) -> dict[str, float]:
    return {"brightest": float(shades.brightness_b.max()), "frames": len(shades.brightness_b)}


def preview_shades(shades: Shades):
    return np.repeat(shades.rgb[0], 6, axis=1)
