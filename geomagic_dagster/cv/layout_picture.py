"""The plan as a small picture, for whoever looks at a run. Belongs here: drawing. Does not belong here: any finding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.plan import area_m2
from geomagic_dagster.cv.types import Layout

F64 = NDArray[np.float64]


def drawn(layout: Layout) -> NDArray[np.uint8]:
    """The plan: walls black, guessed ones dashed grey, doors and passages brown, windows blue, lengths in metres."""
    import cv2

    size = 640
    picture = np.full((size, size, 3), 252, np.uint8)
    corners = layout.corners_world_m_n2
    if len(corners) < 2:
        cv2.putText(picture, "no walls seen", (220, 320), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (90, 90, 90), 1, cv2.LINE_AA)
        return picture
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = (size - 150) / max(float((high - low).max()), 0.5)
    shift = 0.5 * (low + high)

    def pixel(point: F64) -> tuple[int, int]:
        x, y = (point - shift) * scale
        return round(size / 2 + float(x)), round(size / 2 - float(y))

    ends = np.roll(corners, -1, axis=0)[: len(layout.wall_is_guessed_w)]
    if layout.is_closed:
        cv2.fillPoly(picture, [np.array([pixel(c) for c in corners], np.int32)], (240, 236, 228))
    for i, (start, end) in enumerate(zip(corners, ends, strict=False)):
        length = float(np.linalg.norm(end - start))
        along = (end - start) / max(length, 1e-9)
        outward = np.array([along[1], -along[0]])
        if layout.wall_is_guessed_w[i]:
            for part in np.arange(0.0, length, 0.3):
                dash = (pixel(start + along * part), pixel(start + along * min(part + 0.15, length)))
                cv2.line(picture, *dash, (150, 150, 150), 2, cv2.LINE_AA)
        else:
            cv2.line(picture, pixel(start), pixel(end), (30, 30, 30), 5, cv2.LINE_AA)
        text = f"{length:.2f}"
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        x, y = pixel(0.5 * (start + end) + outward * 26 / scale)
        at = (x - width // 2, y + height // 2)
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (60, 60, 60), 1, cv2.LINE_AA)
    colours = {"door": (170, 105, 40), "passage": (220, 170, 90), "window": (60, 130, 220)}
    for k, kind in enumerate(layout.opening_kind_k):
        wall = int(layout.opening_wall_k[k])
        along = (ends[wall] - corners[wall]) / np.linalg.norm(ends[wall] - corners[wall])
        a = corners[wall] + along * layout.opening_start_m_k[k]
        b = a + along * layout.opening_width_m_k[k]
        cv2.line(picture, pixel(a), pixel(b), colours[kind], 9, cv2.LINE_AA)
    notes = [f"{area_m2(corners):.1f} m2" if layout.is_closed else "open: only a part was seen"]
    if layout.floor_z_world_m is not None and layout.ceiling_z_world_m is not None:
        notes.append(f"ceiling {layout.ceiling_z_world_m - layout.floor_z_world_m:.2f} m")
    cv2.putText(picture, ", ".join(notes), (12, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (30, 30, 30), 1, cv2.LINE_AA)
    cv2.line(picture, (12, size - 14), (12 + round(scale), size - 14), (0, 0, 0), 2)
    cv2.putText(picture, "1 m", (14, size - 20), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return picture
