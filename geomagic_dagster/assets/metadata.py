"""What Dagster shows of an artefact: its numbers, settings, cost, and a small picture.

Belongs here: the one dict of metadata that assets and ops share. Does not belong here: measuring and
drawing (the stage's own file does both).
"""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
from dagster import MetadataValue
from numpy.typing import NDArray

from geomagic_dagster.resources.reuse import Made
from geomagic_dagster.resources.scan_source import picture_of

THUMBNAIL_PX = 320
"""Longest side: pictures live in the event log."""


def shown(
    made: Made,
    picture_rgb_hw3: NDArray[np.uint8] | None,
    out_of_range: tuple[str, ...] = (),
    page_url: str | None = None,
) -> dict[str, Any]:
    """Metadata of a materialization or an op's output, the picture first. Dagster plots floats."""
    artefact, outcome = made.artefact, made.outcome
    metadata: dict[str, Any] = {}
    if picture_rgb_hw3 is not None:
        metadata["thumbnail"] = MetadataValue.md(thumbnail_md(artefact.stage, picture_rgb_hw3))
    if page_url is not None:
        metadata["room"] = MetadataValue.url(page_url)
    metadata |= {
        name: MetadataValue.float(number) for name, number in artefact.numbers.items() if math.isfinite(number)
    }
    metadata |= {
        "settings": MetadataValue.json(artefact.settings),
        "identity": MetadataValue.text(artefact.identity),
        "reused": MetadataValue.bool(outcome is None),
    }
    if artefact.flags:
        metadata["flags"] = MetadataValue.text(", ".join(artefact.flags))
    if artefact.weights:
        metadata["weights"] = MetadataValue.json(artefact.weights)
    if outcome is not None:  # the cost of not computing is no number to plot
        metadata["seconds"] = MetadataValue.float(round(outcome.seconds, 3))
        metadata["peak_memory_mb"] = MetadataValue.float(round(outcome.peak_memory_mb, 1))
    if out_of_range:
        metadata["out_of_range"] = MetadataValue.text("\n".join(out_of_range))
    return metadata


def scan_shown(made: Made) -> dict[str, Any]:
    """The metadata of every artefact, and what the scan says of itself."""
    scan = made.artefact.value
    says = {"source_format": scan.source_format, "device": scan.device, "consent": scan.consent}
    return shown(made, picture_of(scan)) | says


def thumbnail_md(title: str, rgb_hw3: NDArray[np.uint8]) -> str:
    """A picture of at most 320 pixels as Markdown that holds its JPEG."""
    import cv2

    from geomagic_dagster.cv.containers import encode_jpeg

    height, width = rgb_hw3.shape[:2]
    scale = min(1.0, THUMBNAIL_PX / max(height, width))
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    if scale < 1.0:
        rgb_hw3 = np.asarray(cv2.resize(rgb_hw3, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
    return f"![{title}](data:image/jpeg;base64,{base64.b64encode(encode_jpeg(rgb_hw3, quality=80)).decode()})"
