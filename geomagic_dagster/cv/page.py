"""A sheet of paper: lines, areas and words in millimetres, as SVG and as PNG.

Belongs here: the few things a drawing is made of, how wide words are, whether two of them overlap. Does not belong
here: what is drawn (floor_plan.py).

Words are measured and painted with the font that OpenCV 5 carries (Rubik), so nothing has to be installed. In the SVG a
viewer takes a font of its own; `textLength` holds each word to the width that was measured, so that what was apart
stays apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from html import escape
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

CAPITAL, BELOW = 0.75, 0.24
"""Height of capitals above the line, and depth of letters below it, in sizes of the font."""
SVG_FONT_SIZE = 1.05  # Helvetica's capitals are 0.717 of its size: as high as Rubik's at 0.75
REGULAR, BOLD = 400, 650
SUPERSAMPLING = 3
SUBPIXEL_BITS = 4


@dataclass(frozen=True, eq=False)
class Shape:
    """A line through points, or an area."""

    points_mm_n2: F64
    """From the upper left corner of the page, y down."""
    width_mm: float = 0.18
    """Of the line; 0: none."""
    closed: bool = False
    fill: int | None = None
    """Grey, 0 black to 255 white; None: not filled."""
    dash_mm: tuple[float, float] | None = None
    """Ink and gap."""
    grey: int = 0
    of: str = ""
    """What in room.json it shows."""


@dataclass(frozen=True, eq=False)
class Text:
    """A word or a line of them."""

    text: str
    at_mm_2: tuple[float, float]
    """Where on its base line it begins, has its middle or ends."""
    size_mm: float
    """Capitals are three quarters as high."""
    anchor: Literal["start", "middle", "end"] = "start"
    angle_deg: float = 0.0
    """Anticlockwise, as seen on the page."""
    weight: int = REGULAR
    of: str = ""
    what: str = ""
    """In the SVG the class of the element: "dimension", "sigma", "label", ..."""

    @cached_property
    def width_mm(self) -> float:
        return _width_in_sizes(self.text, self.weight) * self.size_mm

    @cached_property
    def start_mm_2(self) -> F64:
        """Where the first letter stands on the base line."""
        share = {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor]
        return np.array(self.at_mm_2) - share * self.width_mm * self._along_2

    @property
    def _along_2(self) -> F64:
        angle = np.radians(self.angle_deg)
        return np.array([np.cos(angle), -np.sin(angle)])

    @cached_property
    def box_mm_42(self) -> F64:
        """The rectangle that the words cover."""
        along = self._along_2
        down = np.array([-along[1], along[0]])
        top_left, length = self.start_mm_2 - CAPITAL * self.size_mm * down, self.width_mm * along
        height = (CAPITAL + BELOW) * self.size_mm * down
        return np.array([top_left, top_left + length, top_left + length + height, top_left + height])


@dataclass(eq=False)
class Page:
    width_mm: float
    height_mm: float
    shapes: list[Shape] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    kept_clear: list[F64] = field(default_factory=list)
    """Convex areas, (n, 2) each, that words stay out of."""

    def is_free(self, box_mm_42: F64, besides: Iterable[F64] = (), gap_mm: float = 0.4) -> bool:
        """Whether a rectangle is on the page and overlaps no words, nothing kept clear, and none of these areas."""
        margin = 4.0
        inside = (box_mm_42 > margin).all() and (box_mm_42 < (self.width_mm - margin, self.height_mm - margin)).all()
        others = (*(text.box_mm_42 for text in self.texts), *self.kept_clear, *besides)
        return bool(inside) and not any(overlap(box_mm_42, other, gap_mm) for other in others)


def overlap(a_n2: F64, b_n2: F64, gap_mm: float = 0.0) -> bool:
    """Whether two convex polygons come nearer than a gap: no edge of either parts them (separating axes)."""
    if ((a_n2.min(axis=0) >= b_n2.max(axis=0) + gap_mm) | (b_n2.min(axis=0) >= a_n2.max(axis=0) + gap_mm)).any():
        return False  # most pairs
    for corners_n2 in (a_n2, b_n2):
        edges = np.roll(corners_n2, -1, axis=0) - corners_n2
        lengths = np.hypot(edges[:, 0], edges[:, 1])
        normals = np.stack((edges[:, 1], -edges[:, 0]), axis=1)[lengths > 1e-9] / lengths[lengths > 1e-9, None]
        a, b = a_n2 @ normals.T, b_n2 @ normals.T
        if ((a.min(axis=0) >= b.max(axis=0) + gap_mm) | (b.min(axis=0) >= a.max(axis=0) + gap_mm)).any():
            return False
    return True


def wrapped(text: str, size_mm: float, width_mm: float, weight: int = REGULAR) -> list[str]:
    """A sentence in lines of at most this width, where its words allow."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _width_in_sizes(longer, weight) * size_mm <= width_mm:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@lru_cache(maxsize=4096)
def _width_in_sizes(text: str, weight: int) -> float:
    import cv2

    size = cv2.getTextSize((1_000_000, 1000), text, (0, 0), _font(), 200, weight)
    return float(size[2]) / 200.0


@lru_cache(maxsize=1)
def _font() -> Any:
    import cv2

    return cv2.FontFace("sans")


# --- SVG --------------------------------------------------------------------------------------------


def to_svg(page: Page) -> bytes:
    """The page at its true size: one unit is a millimetre."""
    width, height = _mm(page.width_mm), _mm(page.height_mm)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}mm" height="{height}mm" '
        f'viewBox="0 0 {width} {height}">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        '<g stroke-linejoin="miter" stroke-miterlimit="10" fill="none">',
        *(_svg_shape(shape) for shape in page.shapes),
        "</g>",
        '<g font-family="Rubik, Helvetica, Arial, sans-serif" fill="#000">',
        *(_svg_text(text) for text in page.texts),
        "</g>",
        "</svg>",
    ]
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def _svg_shape(shape: Shape) -> str:
    points = " ".join(f"{_mm(x)},{_mm(y)}" for x, y in shape.points_mm_n2)
    name = "polygon" if shape.closed else "polyline"
    attributes = f' data-of="{escape(shape.of)}"' if shape.of else ""
    if shape.fill is not None:
        attributes += f' fill="{_grey(shape.fill)}"'
    if shape.width_mm > 0:
        attributes += f' stroke="{_grey(shape.grey)}" stroke-width="{_mm(shape.width_mm)}"'
    if shape.dash_mm is not None:
        attributes += f' stroke-dasharray="{_mm(shape.dash_mm[0])} {_mm(shape.dash_mm[1])}"'
    return f'<{name} points="{points}"{attributes}/>'


def _svg_text(text: Text) -> str:
    x, y = (_mm(value) for value in text.start_mm_2)
    attributes = f' font-size="{_mm(text.size_mm * SVG_FONT_SIZE)}" textLength="{_mm(text.width_mm)}"'
    attributes += ' lengthAdjust="spacingAndGlyphs"'
    if text.angle_deg:
        attributes += f' transform="rotate({_mm(-text.angle_deg)} {x} {y})"'
    if text.weight != REGULAR:
        attributes += ' font-weight="bold"'
    if text.what:
        attributes += f' class="{escape(text.what)}"'
    if text.of:
        attributes += f' data-of="{escape(text.of)}"'
    return f'<text x="{x}" y="{y}"{attributes}>{escape(text.text, quote=False)}</text>'


def _mm(value: float) -> str:
    """Micrometres of the page are enough."""
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _grey(level: int) -> str:
    return f"#{level:02x}{level:02x}{level:02x}"


# --- PNG --------------------------------------------------------------------------------------------


def to_png(page: Page, dpi: int) -> bytes:
    """The same page in grey, painted at three times the resolution and averaged; the file says its resolution."""
    import cv2

    px_per_mm = dpi / 25.4
    width, height = round(page.width_mm * px_per_mm), round(page.height_mm * px_per_mm)
    fine = px_per_mm * SUPERSAMPLING
    picture_hw = np.full((height * SUPERSAMPLING, width * SUPERSAMPLING), 255, np.uint8)
    for shape in page.shapes:
        _paint_shape(picture_hw, shape, fine)
    for text in page.texts:
        _paint_text(picture_hw, text, fine)
    picture_hw = cv2.resize(picture_hw, (width, height), interpolation=cv2.INTER_AREA)
    ok, encoded = cv2.imencode(".png", picture_hw)
    assert ok, "an image of one channel of 8 bits is always a PNG"
    return _with_resolution(encoded.tobytes(), dpi)


def _with_resolution(png: bytes, dpi: int) -> bytes:
    """With the chunk pHYs (PNG 11.3.4.3) after the header of 33 bytes, so that it prints at its true size."""
    import zlib

    per_metre = round(dpi / 0.0254).to_bytes(4, "big")
    chunk = b"pHYs" + per_metre + per_metre + b"\x01"
    return png[:33] + (9).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + png[33:]


def _paint_shape(picture_hw: NDArray[np.uint8], shape: Shape, px_per_mm: float) -> None:
    import cv2

    def pixels(points_mm_n2: F64) -> NDArray[np.int32]:
        return np.rint((points_mm_n2 * px_per_mm - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)

    if shape.fill is not None:
        cv2.fillPoly(picture_hw, [pixels(shape.points_mm_n2)], shape.fill, cv2.LINE_AA, SUBPIXEL_BITS)
    if shape.width_mm <= 0:
        return
    width_px = max(1, round(shape.width_mm * px_per_mm))
    points = np.vstack((shape.points_mm_n2, shape.points_mm_n2[:1])) if shape.closed else shape.points_mm_n2
    strokes = [points] if shape.dash_mm is None else _dashes(points, *shape.dash_mm)
    for stroke in strokes:
        cv2.polylines(picture_hw, [pixels(stroke)], False, shape.grey, width_px, cv2.LINE_AA, SUBPIXEL_BITS)


def _dashes(points_n2: F64, ink_mm: float, gap_mm: float) -> list[F64]:
    """The inked parts of a line through points."""
    steps = np.linalg.norm(np.diff(points_n2, axis=0), axis=1)
    reached = np.concatenate(([0.0], np.cumsum(steps)))
    parts = []
    for begin in np.arange(0.0, reached[-1], ink_mm + gap_mm):
        end = min(begin + ink_mm, reached[-1])
        along = np.concatenate(([begin], reached[(reached > begin) & (reached < end)], [end]))
        parts.append(np.stack([np.interp(along, reached, points_n2[:, axis]) for axis in (0, 1)], axis=1))
    return parts


def _paint_text(picture_hw: NDArray[np.uint8], text: Text, px_per_mm: float) -> None:
    """Painted straight at the next larger whole size, then scaled, turned and moved to its place at once."""
    import cv2

    if not text.text:
        return
    size_px = int(np.ceil(text.size_mm * px_per_mm))
    scale = text.size_mm * px_per_mm / size_px
    pad = size_px // 2
    width_px = int(np.ceil(text.width_mm * px_per_mm / scale)) + 2 * pad
    ink_hw = np.zeros((int(1.6 * size_px), width_px + size_px), np.uint8)
    base_px = int(1.1 * size_px)
    cv2.putText(ink_hw, text.text, (pad, base_px), 255, _font(), size_px, text.weight)
    angle = np.radians(text.angle_deg)
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = (text.box_mm_42 + [[-1, -1], [1, -1], [1, 1], [-1, 1]]) * px_per_mm
    low = np.maximum(np.floor(corners.min(axis=0) - size_px / 2).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(axis=0) + size_px / 2).astype(int), picture_hw.shape[::-1])
    if (high <= low).any():
        return
    shift = text.start_mm_2 * px_per_mm - 0.5 - low - turn @ np.array([pad, base_px])
    warp_23 = np.column_stack((turn, shift))
    placed_hw = cv2.warpAffine(ink_hw, warp_23, tuple((high - low).tolist()), flags=cv2.INTER_LINEAR)
    region = picture_hw[low[1] : high[1], low[0] : high[0]]
    region[:] = (region.astype(np.uint16) * (255 - placed_hw.astype(np.uint16)) // 255).astype(np.uint8)
