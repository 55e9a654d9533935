"""The floor plan: the room from above on a sheet of paper, to a stated scale, with dimensions, openings and furniture.

Belongs here: the choice of sheet and scale, and what is drawn of walls, openings and furniture. Does not belong here:
places on paper (floor_plan_paper.py), dimension lines (floor_plan_dimensions.py), words (floor_plan_words.py), SVG and
PNG (page.py).

Everything is drawn from the document of room.json, so that the plan cannot say anything else. Black on white, as
architects draw: walls filled, with their thickness outward of the measured surface (thickness is not measured: it is
drawn as 12 cm), guessed walls dashed; a door as its leaf, a window as two lines of glass, a passage as a gap with its
lintel dashed. Which way a door swings is not known, so no arc is drawn. Most walls lie level and upright on the sheet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.floor_plan_dimensions import add_dimensions
from geomagic_dagster.cv.floor_plan_paper import (
    LIGHT_MM,
    PaperBox,
    PaperOpening,
    PaperWall,
    Plan,
    extent_m,
    level_turn,
    on_paper,
)
from geomagic_dagster.cv.floor_plan_words import add_words, foot_of
from geomagic_dagster.cv.page import Page, Shape
from geomagic_dagster.cv.room_model import RoomDocument
from geomagic_dagster.cv.stage import StageError

F64 = NDArray[np.float64]

A4, A3 = ("A4", 210.0, 297.0), ("A3", 297.0, 420.0)
SHEETS = [(A4, 5), (A4, 10), (A4, 20), (A4, 50), (A3, 50), (A4, 100), (A3, 100), (A4, 200), (A3, 200), (A4, 500),
          (A3, 500), (A4, 1000), (A3, 1000), (A3, 2000), (A3, 5000), (A3, 10000)]  # fmt: skip
"""Scales of ISO 5455, the largest first; the larger sheet only where it saves the next smaller scale."""
BORDER_MM = 10.0
AROUND_MM = 20.0
"""For dimension lines, beside the walls' thickness."""
WALL_M = 0.12
WALL_MM = (1.0, 5.0)
"""Least and largest thickness on paper."""
LEAF_M = 0.04
HEAVY_MM, MEDIUM_MM = 0.5, 0.25
POCHE, GLASS, BOX = 90, 255, 245
"""Grey of cut walls, of what is in them, and of furniture."""


def draw_plan(document: RoomDocument) -> Plan:
    """The plan of any room, also of an open outline or of none; the same document gives the same drawing.

    The scale is the largest with which the room, its dimension lines and the foot with all its words fit.
    """
    turn_22 = level_turn(document)
    low_2, high_2 = extent_m(document, turn_22)
    for (paper, short_mm, long_mm), scale in SHEETS:
        for width_mm, height_mm in ((short_mm, long_mm), (long_mm, short_mm)):
            foot = foot_of(document, scale, paper, width_mm - 2 * BORDER_MM)
            thickness_mm = float(np.clip(1000 * WALL_M / scale, *WALL_MM))
            around_mm = thickness_mm + AROUND_MM if document.walls else AROUND_MM / 2
            room_2 = np.array([width_mm, height_mm - foot.height_mm - 2.0]) - 2 * BORDER_MM
            if ((high_2 - low_2) * 1000 / scale + 2 * around_mm <= room_2).all():
                page = Page(width_mm, height_mm)
                middle_mm_2 = BORDER_MM + 0.5 * room_2
                shift_2 = middle_mm_2 - 0.5 * (low_2 + high_2) * 1000 / scale
                plan = on_paper(document, page, paper, scale, thickness_mm, turn_22, shift_2)
                _draw(plan)
                add_dimensions(plan)
                add_words(plan, document, foot, BORDER_MM)
                return plan
    size = np.round(high_2 - low_2, 1).tolist()
    raise StageError(
        f"plan: expected a room below 2 km with fewer than 300 things in it; got {size} m, {len(document.boxes())} "
        "things. This is a fault of the layout or the furniture stage."
    )


# --- walls, openings, furniture ---------------------------------------------------------------------


def _draw(plan: Plan) -> None:
    for box in plan.boxes:
        _draw_box(plan, box)
    for wall in plan.walls:
        _draw_wall(plan, wall)
        for opening in wall.openings:
            _draw_opening(plan, wall, opening)
    if plan.walls and len(plan.corners_mm_n2) > len(plan.walls):
        _draw_break(plan, plan.walls[0], at_start=True)
        _draw_break(plan, plan.walls[-1], at_start=False)


def _draw_wall(plan: Plan, wall: PaperWall) -> None:
    shapes = plan.page.shapes
    if wall.is_guessed:
        shapes.append(Shape(wall.body_mm_42[:2], HEAVY_MM, dash_mm=(2.0, 1.2), of=wall.name))
        shapes.append(Shape(wall.body_mm_42[3:1:-1], LIGHT_MM, dash_mm=(2.0, 1.2), of=wall.name))
        return
    openings = [(o.start_mm, min(o.start_mm + o.width_mm, wall.length_mm)) for o in wall.openings]
    solid_from = 0.0
    for start, end in [*openings, (wall.length_mm, wall.length_mm)]:
        if start > solid_from:
            (inner_a, outer_a), (inner_b, outer_b) = _across(wall, solid_from), _across(wall, start)
            shapes.append(
                Shape(np.array([inner_a, inner_b, outer_b, outer_a]), 0.0, closed=True, fill=POCHE, of=wall.name)
            )
            shapes.append(Shape(np.array([inner_a, inner_b]), HEAVY_MM, of=wall.name))
            shapes.append(Shape(np.array([outer_a, outer_b]), MEDIUM_MM, of=wall.name))
        solid_from = max(solid_from, end)
    for jamb in sorted({edge for opening in openings for edge in opening}):
        shapes.append(Shape(np.array(_across(wall, jamb)), MEDIUM_MM, of=wall.name))


def _across(wall: PaperWall, at_mm: float) -> tuple[F64, F64]:
    """Inner and outer point of a wall at a length along it."""
    if at_mm <= 1e-6:
        return wall.start_mm_2, wall.outer_start_mm_2
    if at_mm >= wall.length_mm - 1e-6:
        return wall.end_mm_2, wall.outer_end_mm_2
    inner = wall.start_mm_2 + at_mm * wall.along_2
    thickness = float((wall.outer_start_mm_2 - wall.start_mm_2) @ wall.outward_2)
    return inner, inner + thickness * wall.outward_2


def _draw_opening(plan: Plan, wall: PaperWall, opening: PaperOpening) -> None:
    shapes, along, out = plan.page.shapes, wall.along_2, wall.outward_2
    a = wall.start_mm_2 + opening.start_mm * along
    b = a + opening.width_mm * along
    depth = plan.thickness_mm

    def line(offset_mm: float, width_mm: float, dash_mm: tuple[float, float] | None = None) -> None:
        shift = offset_mm * out
        shapes.append(Shape(np.array([a + shift, b + shift]), width_mm, dash_mm=dash_mm, of=opening.name))

    if opening.kind == "passage":
        line(0.0, LIGHT_MM, (1.0, 0.8))
        line(depth, LIGHT_MM, (1.0, 0.8))
        return
    line(0.0, LIGHT_MM)
    line(depth, LIGHT_MM)
    if opening.kind == "window":
        line(0.4 * depth, LIGHT_MM)
        line(0.6 * depth, LIGHT_MM)
    else:
        leaf = max(0.5, 1000 * LEAF_M / plan.scale) * out
        corners = np.array([a, b, b + leaf, a + leaf]) + 0.5 * (depth * out - leaf)
        shapes.append(Shape(corners, MEDIUM_MM, closed=True, fill=GLASS, of=opening.name))


def _draw_box(plan: Plan, box: PaperBox) -> None:
    width_mm = LIGHT_MM if box.is_on_something else MEDIUM_MM
    if box.is_above:
        plan.page.shapes.append(Shape(box.corners_mm_42, LIGHT_MM, closed=True, dash_mm=(1.2, 0.8), of=box.name))
    else:
        plan.page.shapes.append(Shape(box.corners_mm_42, width_mm, closed=True, fill=BOX, of=box.name))


def _draw_break(plan: Plan, wall: PaperWall, *, at_start: bool) -> None:
    """The zigzag of what goes on beyond the drawing, where seeing ended."""
    end = wall.start_mm_2 if at_start else wall.end_mm_2
    away = -wall.along_2 if at_start else wall.along_2
    across = wall.outward_2
    steps = [(-2.0, 0.0), (-0.3, 0.0), (0.0, 1.0), (0.6, -1.0), (0.9, 0.0), (2.0, 0.0)]
    middle = end + 0.5 * plan.thickness_mm * across + 1.2 * away
    reach = max(plan.thickness_mm, 2.0)
    points = np.array([middle + 0.6 * reach * s * across + t * away for s, t in steps])
    plan.page.shapes.append(Shape(points, LIGHT_MM))
