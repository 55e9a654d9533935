"""The frames worth keeping: sharp, well lit, and each showing something new.

Blur is measured for itself (not against a picture's content) by how little a picture changes when it is
blurred again: Crete et al., "The blur effect", SPIE 2007 (scikit-image). A blurred frame is only dropped
when a sharper one nearby sees the same; a hole in the walk is worse than a soft picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.stage import Field, Params, ScanRejected, minutes, progress, stage
from geomagic_dagster.cv.types import Frames, Recording, Scan


class FramesParams(Params):
    blur_ratio: float = Field(0.75, ge=0, le=1, description="Drop a frame less sharp than this part of its neighbours.")
    darkest: float = Field(0.01, ge=0, le=1, description="Drop a frame darker than this on average (0 black, 1 white).")
    brightest: float = Field(0.99, ge=0, le=1, description="Drop a frame brighter than this on average.")
    min_step_m: float = Field(0.02, ge=0, description="A frame is redundant if the camera moved less than this ...")
    min_turn_deg: float = Field(2.0, ge=0, description="... and turned less than this since the last kept frame.")
    max_frames: int = Field(600, ge=2, description="Keep at most this many, evenly along the walk.")


@stage(
    version="1",
    timeout=minutes(3),
    memory_gb=2,
    expects={"kept_fraction": (0.1, 1.0), "sharpness_median": (0.1, 1.0)},
)
def frames(scan: Scan, params: FramesParams = FramesParams()) -> Frames:
    """Measures every frame of the scan and keeps the best.

    Raises: ScanRejected where fewer than two frames remain.
    """
    recording = scan.recording
    n = len(recording)
    if n < 2:
        raise ScanRejected(
            "frames",
            expected="a walk of at least 2 frames",
            received=f"{n}",
            do="Scan the room walking once around it.",
        )
    sharpness_n, brightness_n = _measure_images(recording)
    relative_n = sharpness_n / np.maximum(_median_of_neighbours(sharpness_n), 1e-6)

    dropped: dict[int, str] = {}
    for i in range(n):
        if not params.darkest <= brightness_n[i] <= params.brightest:
            kind = "dark" if brightness_n[i] < params.darkest else "bright"
            dropped[i] = f"too {kind}: mean brightness {brightness_n[i]:.3f}"
    blurred = [
        i for i in np.argsort(relative_n, kind="stable") if relative_n[i] < params.blur_ratio and i not in dropped
    ]
    for i in (int(i) for i in blurred):
        if _seen_by_a_neighbour(scan, i, dropped):
            dropped[i] = f"blurred: {100 * relative_n[i]:.0f} % as sharp as its neighbours"
    _drop_redundant(scan, sharpness_n, params, dropped)
    kept = [i for i in range(n) if i not in dropped]
    if len(kept) > params.max_frames:
        chosen = {kept[round(k)] for k in np.linspace(0, len(kept) - 1, params.max_frames)}
        for i in kept:
            if i not in chosen:
                dropped[i] = f"thinned: more than {params.max_frames} frames"
        kept = sorted(chosen)
    if len(kept) < 2:
        reasons = "; ".join(sorted({reason.split(":")[0] for reason in dropped.values()}))
        raise ScanRejected(
            "frames",
            expected="at least 2 frames that show different views",
            received=f"{len(kept)} of {n} ({reasons})",
            do="Scan again with the light on, walking slowly around the room.",
        )
    index_b = np.array(kept, np.int64)
    return Frames(
        recording=recording.select(index_b),
        scan_frame_b=index_b,
        sharpness_n=relative_n,
        brightness_n=brightness_n,
        dropped=tuple(sorted(dropped.items())),
    )


def measure_frames(frames: Frames) -> dict[str, float]:
    n = len(frames.sharpness_n)
    reasons = [reason.split(":")[0] for _, reason in frames.dropped]
    return {
        "kept": len(frames.scan_frame_b),
        "kept_fraction": len(frames.scan_frame_b) / n,
        "dropped_blurred": reasons.count("blurred"),
        "dropped_redundant": reasons.count("redundant"),
        "dropped_exposure": reasons.count("too dark") + reasons.count("too bright"),
        "sharpness_median": min(1.0, float(np.median(frames.sharpness_n))),
        "brightness_median": float(np.median(frames.brightness_n)),
    }


def preview_frames(frames: Frames) -> NDArray[np.uint8] | None:
    """Contact sheet of nine kept frames, evenly along the walk."""
    import cv2

    if frames.recording.rgb is None:
        return None
    picks = np.linspace(0, len(frames.scan_frame_b) - 1, 9).round().astype(int)
    tiles = [cv2.resize(frames.recording.rgb[int(i)], (160, 120), interpolation=cv2.INTER_AREA) for i in picks]
    return np.vstack([np.hstack(tiles[row : row + 3]) for row in (0, 3, 6)]).astype(np.uint8)


def _measure_images(recording: Recording) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) sharpness, 0 fully blurred to 1, and (n,) mean brightness. A scan without colour counts as sharp and lit."""
    n = len(recording)
    sharpness_n, brightness_n = np.ones(n), np.full(n, 0.5)
    if recording.rgb is None:
        return sharpness_n, brightness_n
    import cv2
    from skimage.measure import blur_effect

    for i in progress(range(n), "frames measured"):
        grey_hw = cv2.cvtColor(recording.rgb[i], cv2.COLOR_RGB2GRAY)
        small_hw = cv2.resize(
            grey_hw, (320, round(320 * grey_hw.shape[0] / grey_hw.shape[1])), interpolation=cv2.INTER_AREA
        )
        brightness_n[i] = small_hw.mean() / 255.0
        # A picture without any edge (a black frame, a bare wall) has no blur to measure: nan.
        blur: Any = blur_effect(small_hw) if small_hw.std() > 1.0 else np.nan
        sharpness_n[i] = 1.0 - float(blur)
    usual = float(np.nanmedian(np.append(sharpness_n, 0.5)))
    return np.where(np.isnan(sharpness_n), usual, sharpness_n), brightness_n


def _median_of_neighbours(value_n: NDArray[np.float64], reach: int = 7) -> NDArray[np.float64]:
    """(n,): the median over each frame and `reach` frames to both sides (fewer at the ends)."""
    return np.array([np.median(value_n[max(0, i - reach) : i + reach + 1]) for i in range(len(value_n))])


def _step(scan: Scan, i: int, j: int) -> tuple[float, float] | None:
    """(metres, degrees) that the camera moved between two frames; None where a pose is missing."""
    if scan.scan_T_cam_b44 is None or not np.isfinite(scan.scan_T_cam_b44[[i, j]]).all():
        return None
    a, b = scan.scan_T_cam_b44[i], scan.scan_T_cam_b44[j]
    cosine = np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1.0) / 2.0, -1.0, 1.0)
    return float(np.linalg.norm(a[:3, 3] - b[:3, 3])), float(np.degrees(np.arccos(cosine)))


def _seen_by_a_neighbour(scan: Scan, i: int, dropped: dict[int, str]) -> bool:
    """Whether the kept frames before and after are near enough (0.5 m, 20 degrees) to show the same."""
    before = next((j for j in range(i - 1, -1, -1) if j not in dropped), None)
    after = next((j for j in range(i + 1, len(scan.recording)) if j not in dropped), None)
    for j in (before, after):
        if j is None:
            return False
        step = _step(scan, i, j)
        if step is not None and (step[0] > 0.5 or step[1] > 20.0):
            return False
    return True


def _drop_redundant(
    scan: Scan, sharpness_n: NDArray[np.float64], params: FramesParams, dropped: dict[int, str]
) -> None:
    """Of frames that show the same view the sharpest stays. Without poses nothing is called redundant."""
    last: int | None = None
    for i in range(len(scan.recording)):
        if i in dropped:
            continue
        step = None if last is None else _step(scan, last, i)
        if last is None or step is None or step[0] >= params.min_step_m or step[1] >= params.min_turn_deg:
            last = i
            continue
        worse, better = (i, last) if sharpness_n[last] >= sharpness_n[i] else (last, i)
        dropped[worse] = f"redundant: the camera moved {100 * step[0]:.1f} cm and {step[1]:.1f} degrees"
        last = better
