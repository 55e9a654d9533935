"""Words of the floor plan: furniture by name and size, area and height in a free spot, and the foot of the sheet.

Belongs here: where words go so that none lies on another. Does not belong here: dimension lines.

A piece of furniture that has no room for its name gets a number, which the foot explains; so do openings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.floor_plan_dimensions import readable_deg, with_sigma
from geomagic_dagster.cv.floor_plan_paper import LIGHT_MM, Plan
from geomagic_dagster.cv.page import BOLD, CAPITAL, REGULAR, Page, Shape, Text, wrapped
from geomagic_dagster.cv.room_model import Quantity, RoomDocument

F64 = NDArray[np.float64]

NAME_MM, SIZE_MM, NUMBER_MM, LEADING = 2.4, 2.0, 2.2, 1.35
AREA_MM, HEIGHT_MM = 5.0, 2.8
CIRCLE_MM = 1.9
TITLE_MM, NOTE_MM, ENTRY_MM = 3.2, 2.2, 47.0
NOTE_LEADING = 1.5
BAR_PARTS, BAR_PARTS_M = 5, (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
SHIFTS = sorted(
    ((0.1 * long, 0.15 * short) for long in range(-4, 5) for short in range(-2, 3)), key=lambda each: np.hypot(*each)
)
"""Where in a box its name is tried, in shares of its longer and its shorter side from its middle."""
METHOD = "Metres between measured surfaces, ± one standard deviation. North is not known."
OF_WALLS = "Thickness of walls is not measured (drawn as 0.12 m)."
OF_DOORS = "Which way doors swing is not known."
OF_GUESSED = "Dashed walls and figures in brackets are guessed, not seen."


# --- in the room ------------------------------------------------------------------------------------


def add_words(plan: Plan, document: RoomDocument, foot: Foot, border_mm: float) -> None:
    """Names, numbers, area and height, and the foot."""
    numbered = [(index, box) for index, box in enumerate(plan.boxes) if not _add_name(plan, index)]
    _add_area(plan, document)
    numbers = {box.name: number for number, (_, box) in enumerate(sorted(numbered, key=lambda each: each[1].name), 1)}
    for index, box in numbered:
        _add_number(plan, index, str(numbers[box.name]))
    _add_foot(plan.page, foot, numbers, border_mm)


def _covering(plan: Plan, index: int) -> list[F64]:
    """What is drawn over a box."""
    return [each.corners_mm_42 for each in plan.boxes[index + 1 :]]


def _add_name(plan: Plan, index: int) -> bool:
    """Name, width x depth and, where there is room, height inside of the box; False where not even the name fits."""
    box = plan.boxes[index]
    width, height, depth = box.size_m
    size = f"{width:.2f} × {depth:.2f}"
    blocks = ([box.kind, size, f"h {height:.2f}"], [box.kind, size], [f"{box.kind} {size}"])
    corners = box.corners_mm_42
    sides = sorted((corners[1] - corners[0], corners[3] - corners[0]), key=lambda side: -float(np.hypot(*side)))
    for lines in blocks:
        for side in sides:
            angle = readable_deg(side / np.hypot(*side))
            for long, short in SHIFTS:
                middle = corners.mean(axis=0) + long * sides[0] + short * sides[1]
                texts = _block(lines, middle, angle, box.name)
                if not all(_is_inside(text.box_mm_42, corners, 0.6) for text in texts):
                    if (long, short) == (0, 0):
                        break  # if not in the middle, then nowhere
                    continue
                if all(plan.page.is_free(text.box_mm_42, _covering(plan, index)) for text in texts):
                    plan.page.texts += texts
                    return True
    return False


def _block(lines: list[str], middle_2: F64, angle: float, of: str) -> list[Text]:
    """Lines under each other around a point: the first is a name, the others are figures."""
    down = np.array([np.sin(np.radians(angle)), np.cos(np.radians(angle))])
    texts = []
    for row, line in enumerate(lines):
        size = NAME_MM if row == 0 else SIZE_MM
        drop = (row - 0.5 * (len(lines) - 1)) * NAME_MM * LEADING + 0.5 * CAPITAL * size
        x, y = (middle_2 + drop * down).tolist()
        texts.append(Text(line, (x, y), size, "middle", angle, of=of, what="label"))
    return texts


def _is_inside(points_n2: F64, convex_n2: F64, gap_mm: float) -> bool:
    """Whether points lie in a convex area (corners in either order) and off its edges."""
    edges = np.roll(convex_n2, -1, axis=0) - convex_n2
    normals = np.stack((edges[:, 1], -edges[:, 0]), axis=1) / np.maximum(np.linalg.norm(edges, axis=1), 1e-9)[:, None]
    away = np.einsum("nki,ki->nk", points_n2[:, None] - convex_n2, normals)
    return bool((away >= gap_mm).all() or (away <= -gap_mm).all())


def _add_number(plan: Plan, index: int, number: str) -> None:
    """A number in a circle: in the box, else near it with a line to it."""
    box, page = plan.boxes[index], plan.page
    middle = box.corners_mm_42.mean(axis=0)
    square = CIRCLE_MM * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    covering = _covering(plan, index)
    walls = [wall.body_mm_42 for wall in plan.walls]
    for at in _around(middle):
        is_in = _is_inside(at + 0.5 * square, box.corners_mm_42, 0.0)
        if not page.is_free(at + square, covering if is_in else walls, gap_mm=0.2):
            continue
        if not is_in:
            away = (at - middle) / max(np.hypot(*(at - middle)), 1e-9)
            page.shapes.append(Shape(np.array([middle, at - CIRCLE_MM * away]), LIGHT_MM, of=box.name))
        turns = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        circle = at + CIRCLE_MM * np.stack((np.cos(turns), np.sin(turns)), axis=1)
        page.shapes.append(Shape(circle, LIGHT_MM, closed=True, fill=255, of=box.name))
        place = (float(at[0]), float(at[1] + 0.5 * CAPITAL * NUMBER_MM))
        page.texts.append(Text(number, place, NUMBER_MM, "middle", of=box.name, what="number"))
        page.kept_clear.append(at + square)
        return


def _around(middle_2: F64) -> Iterator[F64]:
    """A point, then points around it, farther and farther out."""
    yield middle_2
    for reach in np.arange(1.5, 45.0, 1.5):
        for turn in np.linspace(0, 2 * np.pi, 12, endpoint=False):
            yield middle_2 + reach * np.array([np.cos(turn), np.sin(turn)])


def _add_area(plan: Plan, document: RoomDocument) -> None:
    """Area and height of the room, as near to its middle as there is room for them."""
    if len(plan.corners_mm_n2) == 0:
        return
    lines = [(f"{value} m²", AREA_MM, "area") for value in _figure(document.measured.area)]
    lines += [(f"height {value} m", HEIGHT_MM, "height") for value in _figure(document.measured.height)]
    if not document.measured.is_closed:
        lines.insert(0, ("open: only a part was seen", HEIGHT_MM, "label"))
    if not lines:
        return
    corners = plan.corners_mm_n2
    low, high = corners.min(axis=0), corners.max(axis=0)
    middle = _centroid(corners) if document.measured.is_closed else corners.mean(axis=0)
    grid = np.stack(np.meshgrid(np.arange(low[0], high[0], 2.5), np.arange(low[1], high[1], 2.5)), -1).reshape(-1, 2)
    candidates = np.vstack((middle, grid))
    boxes = [box.corners_mm_42 for box in plan.boxes]
    edges = [np.array([wall.start_mm_2, wall.end_mm_2]) for wall in plan.walls]
    for at in candidates[np.argsort(((candidates - middle) ** 2).sum(axis=1), kind="stable")]:
        y, texts = float(at[1]) - 0.5 * sum(size * LEADING for _, size, _ in lines), []
        for line, size, what in lines:
            y += size * LEADING
            texts.append(Text(line, (float(at[0]), y), size, "middle", of="room", what=what))
        if document.measured.is_closed and not all(_is_in_polygon(p, corners) for t in texts for p in t.box_mm_42):
            continue
        if all(plan.page.is_free(text.box_mm_42, (*boxes, *edges), gap_mm=1.5) for text in texts):
            plan.page.texts += texts
            return


def _figure(quantity: Quantity | None) -> list[str]:
    return [] if quantity is None else [" ".join(part for part in with_sigma(quantity.value, quantity.sigma) if part)]


def _centroid(corners_n2: F64) -> F64:
    """Of a polygon's area."""
    ends = np.roll(corners_n2, -1, axis=0)
    cross = corners_n2[:, 0] * ends[:, 1] - ends[:, 0] * corners_n2[:, 1]
    return ((corners_n2 + ends) * cross[:, None]).sum(axis=0) / (3.0 * cross.sum())


def _is_in_polygon(point_2: F64, corners_n2: F64) -> bool:
    """By how often a ray to the right crosses the outline."""
    (x, y), (x_next, y_next) = corners_n2.T, np.roll(corners_n2, -1, axis=0).T
    crosses = (y > point_2[1]) != (y_next > point_2[1])
    at = x + (point_2[1] - y) / np.where(crosses, y_next - y, 1.0) * (x_next - x)
    return bool((crosses & (at > point_2[0])).sum() % 2)


# --- the foot ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Foot:
    """What stands below the plan: title and scale bar, openings and numbered furniture, what is missing."""

    title: str
    scale: int
    openings: tuple[tuple[str, str], ...]
    """(name, entry)"""
    boxes: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    width_mm: float

    @property
    def columns(self) -> int:
        return int(self.width_mm // ENTRY_MM)

    @property
    def height_mm(self) -> float:
        """With every piece of furniture numbered: more is never needed."""
        rows = -(-(len(self.openings) + len(self.boxes)) // self.columns) + len(self.notes) + len(self.warnings)
        return 17.0 + NOTE_LEADING * NOTE_MM * (rows + 1)


def foot_of(document: RoomDocument, scale: int, paper: str, width_mm: float) -> Foot:
    """The foot of a sheet so wide."""
    title = [f"Floor plan 1:{scale} ({paper})"]
    for what, quantity, unit in (
        ("area", document.measured.area, "m²"),
        ("height", document.measured.height, "m"),
        ("volume", document.measured.volume, "m³"),
    ):
        title += [f"{what} {value} {unit}" for value in _figure(quantity)]
    openings = [(each.name, f"D{i} door {_size(each)}") for i, each in enumerate(document.doors, 1)]
    openings += [
        (each.name, f"W{i} window {_size(each)}, sill {each.sill:.2f}") for i, each in enumerate(document.windows, 1)
    ]
    openings += [(each.name, f"P{i} passage {_size(each)}") for i, each in enumerate(document.openings, 1)]
    boxes = []
    for box in document.boxes():
        width, height, depth = box.dimensions
        boxes.append((box.name, f"{next(iter(box.category))} {width:.2f} × {depth:.2f}, h {height:.2f}"))
    method = [METHOD] + [OF_WALLS] * bool(document.walls) + [OF_DOORS] * bool(document.doors)
    method += [OF_GUESSED] * any(wall.is_guessed for wall in document.walls)
    notes = wrapped(" ".join(method), NOTE_MM, width_mm)
    warnings = [line for sentence in document.warnings for line in wrapped(f"! {sentence}", NOTE_MM, width_mm, BOLD)]
    return Foot(
        "   ".join(title), scale, tuple(openings), tuple(boxes), tuple(notes), tuple(warnings), width_mm
    )  # fmt: skip


def _size(opening: object) -> str:
    width, height, _ = opening.dimensions  # type: ignore[attr-defined]
    return f"{width:.2f} × {height:.2f}"


def _add_foot(page: Page, foot: Foot, numbers: dict[str, int], border_mm: float) -> None:
    y = page.height_mm - border_mm - foot.height_mm
    page.shapes.append(Shape(np.array([[border_mm, y], [page.width_mm - border_mm, y]]), 2 * LIGHT_MM))
    page.texts.append(Text(foot.title, (border_mm, y + 5.5), TITLE_MM, weight=BOLD, what="title"))
    y = _add_scale_bar(page, foot.scale, border_mm, y + 8.0) + 4.0
    entries = [entry for _, entry in foot.openings]
    entries += [f"{number} {dict(foot.boxes)[name]}" for name, number in sorted(numbers.items(), key=lambda n: n[1])]
    rows = -(-len(entries) // foot.columns)
    for index, entry in enumerate(entries):
        column, row = divmod(index, max(rows, 1))
        x = border_mm + column * foot.width_mm / foot.columns
        at = (x, y + row * NOTE_LEADING * NOTE_MM)
        page.texts.append(Text(entry, at, NOTE_MM, what="schedule"))
    y += rows * NOTE_LEADING * NOTE_MM + (1.5 if rows else 0.0)
    for line, what in [*((note, "note") for note in foot.notes), *((warning, "warning") for warning in foot.warnings)]:
        page.texts.append(Text(line, (border_mm, y), NOTE_MM, weight=BOLD if what == "warning" else REGULAR, what=what))
        y += NOTE_LEADING * NOTE_MM


def _add_scale_bar(page: Page, scale: int, x_mm: float, y_mm: float) -> float:
    """Parts of a round length, black and white by turns, about 50 mm in all; the lower end of its figures."""
    part_m = next(
        step for step in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0) if 1000 * step / scale >= 8.0
    )
    part_mm = 1000 * part_m / scale
    for part in range(BAR_PARTS):
        a = x_mm + part * part_mm
        corners = np.array([[a, y_mm], [a + part_mm, y_mm], [a + part_mm, y_mm + 1.2], [a, y_mm + 1.2]])
        page.shapes.append(Shape(corners, LIGHT_MM, closed=True, fill=0 if part % 2 == 0 else 255, of="scale bar"))
    for part in range(BAR_PARTS + 1):
        figure = f"{part * part_m:g}" + (" m" if part == BAR_PARTS else "")
        at = (x_mm + part * part_mm, y_mm + 3.6)
        page.texts.append(Text(figure, at, 2.0, "start" if part == 0 else "middle", what="scale bar"))
    return y_mm + 4.2
