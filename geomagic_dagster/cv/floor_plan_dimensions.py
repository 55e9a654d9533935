"""Dimension lines of the floor plan: a chain with the openings near the wall, its whole length farther out.

Belongs here: where dimension lines and their figures go. Does not belong here: any other words (floor_plan_words.py).

As architects do it (ISO 129-1): walls that face one way share one line outside of the room, unless another wall stands
between; oblique strokes end it; figures are read from below or from the right, in metres, the standard deviation small
behind; what is guessed is in brackets. A figure that finds no room moves one row out.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.floor_plan_paper import LIGHT_MM, PaperWall, Plan
from geomagic_dagster.cv.page import Shape, Text, overlap

F64 = NDArray[np.float64]

FIRST_ROW_MM, ROW_MM, GAP_MM = 7.5, 5.5, 1.2
FIGURE_MM, PIER_MM, SIGMA_MM, TAG_MM = 2.7, 1.9, 1.8, 2.2
STROKE_MM, HEAVY_STROKE_MM = 1.4, 0.35
SAME_DIRECTION = np.cos(np.radians(1.0))
OUTWARD_TRIES = 4


def add_dimensions(plan: Plan) -> None:
    """Every wall with its length, every opening with its width and tag."""
    for wall in plan.walls:
        for opening in wall.openings:
            _add_tag(plan, wall, opening.label, opening.name, opening.start_mm + 0.5 * opening.width_mm)
    for wall in sorted(plan.walls, key=lambda wall: -wall.length_mm):
        peers = [each for each in plan.walls if each.outward_2 @ wall.outward_2 > SAME_DIRECTION]
        out_mm, is_shared = _first_row_mm(plan, wall, peers)
        if wall.openings:
            out_mm = _add_row(plan, wall, out_mm, _chain(wall, plan.scale)) + ROW_MM
        elif is_shared and any(each.openings for each in peers):
            out_mm += ROW_MM  # in line with the whole lengths of the others
        _add_row(plan, wall, out_mm, [(0.0, wall.length_mm, wall.name, wall.length_m, wall.sigma_m)])


def with_sigma(value: float, sigma: float | None) -> tuple[str, str]:
    """The figures of a value and of its standard deviation, which never shows as nought."""
    return f"{value:.2f}", "" if sigma is None else f"±{max(np.ceil(sigma * 100 - 1e-6), 1) / 100:.2f}"


Segment = tuple[float, float, str, float, float | None]
"""From, to (millimetres along the wall), what it is of, metres, standard deviation; of nothing: a pier between."""


def _chain(wall: PaperWall, scale: int) -> list[Segment]:
    """The wall cut at its openings' edges."""
    edges = {0.0, wall.length_mm}
    for opening in wall.openings:
        edges |= {opening.start_mm, opening.start_mm + opening.width_mm}
    cuts = sorted(edge for edge in edges if -1e-6 <= edge <= wall.length_mm + 1e-6)
    widths = {(o.start_mm, o.start_mm + o.width_mm): o for o in wall.openings}
    segments: list[Segment] = []
    for a, b in pairwise(cuts):
        opening = widths.get((a, b))
        if opening is not None:
            segments.append((a, b, opening.name, opening.width_m, None))
        elif b - a > 0.2:
            segments.append((a, b, "", (b - a) * scale / 1000, None))
    return segments


def _first_row_mm(plan: Plan, wall: PaperWall, peers: list[PaperWall]) -> tuple[float, bool]:
    """How far out of the wall's measured face its first row is, and whether it is the one that walls which face this
    way (`peers`) share."""
    shared = max(float((each.start_mm_2 - wall.start_mm_2) @ wall.outward_2) for each in peers) + plan.thickness_mm
    strip = _strip(wall, plan.thickness_mm, shared + FIRST_ROW_MM + 2 * ROW_MM)
    is_clear = not any(overlap(strip, each.body_mm_42) for each in plan.walls if each is not wall)
    return (shared if is_clear else plan.thickness_mm) + FIRST_ROW_MM, is_clear


def _strip(wall: PaperWall, thickness_mm: float, to_mm: float) -> F64:
    """The area outside of a wall up to a distance, without what its neighbours' thickness takes of it."""
    inset = min(thickness_mm + 0.5, 0.4 * wall.length_mm) * wall.along_2
    a, b = wall.start_mm_2 + inset, wall.end_mm_2 - inset
    near, far = (thickness_mm + 0.5) * wall.outward_2, to_mm * wall.outward_2
    return np.array([a + near, b + near, b + far, a + far])


def _add_row(plan: Plan, wall: PaperWall, out_mm: float, segments: list[Segment]) -> float:
    """A dimension line, farther out where its figures would lie on other words; returns how far out it came to lie."""
    for attempt in range(OUTWARD_TRIES):
        at_mm = out_mm + attempt * ROW_MM
        texts = [_figures(plan, wall, at_mm, segment) for segment in segments]
        if all(plan.page.is_free(text.box_mm_42) for group in texts for text in group):
            break
    else:
        at_mm = out_mm
    shapes = plan.page.shapes
    marks = sorted({edge for a, b, *_ in segments for edge in (a, b)})
    ends = [wall.start_mm_2 + edge * wall.along_2 for edge in (marks[0], marks[-1])]
    shapes.append(Shape(np.array(ends) + at_mm * wall.outward_2, LIGHT_MM))
    stroke = 0.5 * STROKE_MM * (wall.along_2 + wall.outward_2)
    for mark in marks:
        foot = wall.start_mm_2 + mark * wall.along_2
        on_line = foot + at_mm * wall.outward_2
        begin = foot + (plan.thickness_mm + GAP_MM) * wall.outward_2
        if any(overlap(np.array([begin, on_line]), each.body_mm_42) for each in plan.walls):  # not through a wall
            begin = on_line - 2.0 * wall.outward_2
        shapes.append(Shape(np.array([begin, on_line + 1.0 * wall.outward_2]), LIGHT_MM))
        shapes.append(Shape(np.array([on_line - stroke, on_line + stroke]), HEAVY_STROKE_MM))
    for segment in sorted(segments, key=lambda each: each[2] == ""):  # piers last
        group = _figures(plan, wall, at_mm, segment)
        if all(plan.page.is_free(text.box_mm_42) for text in group):
            plan.page.texts += group
    return at_mm


def _figures(plan: Plan, wall: PaperWall, out_mm: float, segment: Segment) -> list[Text]:
    """The words of one stretch: above its line as one reads, its standard deviation small behind; none for a pier
    too short for them."""
    start, end, of, metres, sigma = segment
    figure, sigma_text = with_sigma(metres, sigma)
    if of == wall.name and wall.is_guessed:
        figure, sigma_text = f"({figure})", ""
    angle = readable_deg(wall.along_2)
    along = np.array([np.cos(np.radians(angle)), -np.sin(np.radians(angle))])
    up = np.array([along[1], -along[0]])
    middle = wall.start_mm_2 + 0.5 * (start + end) * wall.along_2 + out_mm * wall.outward_2 + 0.8 * up
    small = Text(sigma_text, (0.0, 0.0), SIGMA_MM, angle_deg=angle, of=of, what="sigma")
    for size in (FIGURE_MM, PIER_MM):
        main = Text(figure, (0.0, 0.0), size, angle_deg=angle, of=of, what="dimension" if of else "pier")
        width = main.width_mm + (0.5 + small.width_mm if sigma_text else 0.0)
        if of or width <= end - start - 0.6:
            begin = middle - 0.5 * width * along
            placed = [(main, begin), (small, begin + (main.width_mm + 0.5) * along)]
            return [replace(text, at_mm_2=(float(at[0]), float(at[1]))) for text, at in placed if text.text]
    return []


def readable_deg(along_2: F64) -> float:
    """Of words along a line on paper, read from below or from the right: -88 to 92 degrees (upright is never -90)."""
    angle = float(np.degrees(np.arctan2(-along_2[1], along_2[0])))
    return float(np.round((angle + 88.0) % 180.0 - 88.0, 6)) + 0.0


def _add_tag(plan: Plan, wall: PaperWall, label: str, of: str, along_mm: float) -> None:
    """D1, W1, P1 just outside of the opening."""
    angle = readable_deg(wall.along_2)
    down = np.array([np.sin(np.radians(angle)), np.cos(np.radians(angle))])
    middle = wall.start_mm_2 + along_mm * wall.along_2 + (plan.thickness_mm + 2.0) * wall.outward_2
    x, y = (middle + 0.37 * TAG_MM * down).tolist()
    text = Text(label, (x, y), TAG_MM, "middle", angle, of=of, what="tag")
    if plan.page.is_free(text.box_mm_42):
        plan.page.texts.append(text)
