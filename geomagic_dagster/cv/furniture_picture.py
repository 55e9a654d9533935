"""The boxes as a small picture, for who looks at a run. Belongs here: drawing. Does not belong here: any finding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.plan_boxes import Rectangle, dominant_rad
from geomagic_dagster.cv.types import Furniture

F64 = NDArray[np.float64]

KIND_RGB = {
    "table": (240, 200, 130), "chair": (170, 205, 240), "sofa": (150, 180, 230), "bed": (205, 185, 235),
    "storage": (200, 215, 165), "television": (150, 150, 160), "object": (225, 225, 225),
}  # fmt: skip


def drawn(furniture: Furniture) -> NDArray[np.uint8]:
    """The boxes from above, (h, w, 3), about 640 pixels wide or high, a grid line a metre, with kinds and sizes."""
    import cv2

    corners_k42 = [
        Rectangle(centre[:2], size[:2], float(yaw)).corners_42
        for centre, size, yaw in zip(
            furniture.centre_world_m_k3, furniture.size_m_k3, furniture.yaw_world_rad_k, strict=True
        )
    ]
    if not corners_k42:
        picture = np.full((120, 640, 3), 255, np.uint8)
        cv2.putText(
            picture, "no furniture found", (170, 68), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (90, 90, 90), 2, cv2.LINE_AA
        )
        return picture
    # square to what stands there, as on a plan
    yaw = -dominant_rad(furniture.yaw_world_rad_k, np.prod(furniture.size_m_k3[:, :2], axis=1))
    turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    turned = [each @ turn for each in corners_k42]
    low, high = np.vstack(turned).min(0) - 0.2, np.vstack(turned).max(0) + 0.2
    scale = 640 / float((high - low).max())
    width, height = (round(scale * float(edge)) for edge in high - low)
    picture = np.full((height, width, 3), 255, np.uint8)

    def pixels(points_n2: F64) -> NDArray[np.int32]:
        return np.round((points_n2 - low) * scale * [1, -1] + [0, height - 1]).astype(np.int32)

    ends_m = [((x, low[1]), (x, high[1])) for x in range(int(np.ceil(low[0])), int(high[0]) + 1)]
    ends_m += [((low[0], y), (high[0], y)) for y in range(int(np.ceil(low[1])), int(high[1]) + 1)]
    for ends in ends_m:
        start, end = pixels(np.array(ends)).tolist()
        cv2.line(picture, start, end, (230, 230, 230))
    top_k = furniture.centre_world_m_k3[:, 2] + 0.5 * furniture.size_m_k3[:, 2]
    for k in np.argsort(top_k, kind="stable"):  # as seen from above
        outline, colour = pixels(turned[k]), KIND_RGB.get(furniture.kind_k[k], KIND_RGB["object"])
        filled = picture.copy()
        cv2.fillPoly(filled, [outline], colour)
        picture = cv2.addWeighted(filled, 0.75, picture, 0.25, 0)
        cv2.polylines(picture, [outline], True, tuple(c // 2 for c in colour), 1, cv2.LINE_AA)
    for k, kind in enumerate(furniture.kind_k):  # words last, above all areas
        edges = furniture.size_m_k3[k]
        lines = [kind, f"{edges[0]:.2f} x {edges[1]:.2f}", f"h {edges[2]:.2f}"]
        if scale * edges[:2].max() < 60:
            lines = [kind] if scale * edges[:2].max() > 30 else []
        middle = pixels(turned[k].mean(0)[None])[0]
        for row, line in enumerate(lines):
            (wide, high_px), _ = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 0.36, 1)
            at = int(middle[0] - wide / 2), int(middle[1] + 13 * (row - (len(lines) - 1) / 2) + high_px / 2)
            cv2.putText(picture, line, at, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (20, 20, 20), 1, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)
