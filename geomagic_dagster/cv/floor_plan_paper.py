"""A room in millimetres on paper: what the floor plan is drawn from.

Belongs here: from the document of room.json to places on a page. Does not belong here: strokes and words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.page import Page
from geomagic_dagster.cv.room_document import main_direction_rad
from geomagic_dagster.cv.room_model import RoomDocument

F64 = NDArray[np.float64]

LIGHT_MM = 0.13
"""Width of the thinnest lines."""
ABOVE_M = 1.2
"""What begins higher above the floor is over the cut through the room."""
SHARPEST = 0.4
"""Square of the sum of two walls' normals below which they are not mitred."""


@dataclass(frozen=True, eq=False)
class PaperOpening:
    name: str
    kind: str
    label: str
    """D1, W1, P1, ..."""
    start_mm: float
    """Along its wall."""
    width_mm: float
    width_m: float
    height_m: float
    sill_m: float


@dataclass(frozen=True, eq=False)
class PaperWall:
    name: str
    start_mm_2: F64
    end_mm_2: F64
    outer_start_mm_2: F64
    outer_end_mm_2: F64
    length_m: float
    sigma_m: float
    is_guessed: bool
    openings: tuple[PaperOpening, ...]

    @property
    def length_mm(self) -> float:
        return float(np.hypot(*(self.end_mm_2 - self.start_mm_2)))

    @property
    def along_2(self) -> F64:
        return (self.end_mm_2 - self.start_mm_2) / self.length_mm

    @property
    def outward_2(self) -> F64:
        return outward(self.along_2)

    @property
    def body_mm_42(self) -> F64:
        return np.array([self.start_mm_2, self.end_mm_2, self.outer_end_mm_2, self.outer_start_mm_2])


@dataclass(frozen=True, eq=False)
class PaperBox:
    name: str
    kind: str
    corners_mm_42: F64
    """From the corner of least width and depth on, along the width first."""
    size_m: tuple[float, float, float]
    """Width, height, depth."""
    bottom_m: float
    """Above the floor, or above the lowest thing where no floor is known."""
    is_on_something: bool

    @property
    def is_above(self) -> bool:
        return self.bottom_m > ABOVE_M


@dataclass(frozen=True, eq=False)
class Plan:
    """The drawing, and what its parts are on paper."""

    page: Page
    paper: str
    scale: int
    """1 : this."""
    thickness_mm: float
    corners_mm_n2: F64
    walls: tuple[PaperWall, ...]
    boxes: tuple[PaperBox, ...]


def outward(along_2: F64) -> F64:
    """From the room through a wall; on paper y is down and walls follow each other anticlockwise as seen."""
    return np.array([-along_2[1], along_2[0]])


def level_turn(document: RoomDocument) -> F64:
    """(2, 2), rows of (x, z) to rows on paper: the walls, without any the boxes, mostly lie level and upright."""
    lengths = [(wall, wall.dimensions[0] * (0.001 if wall.is_guessed else 1.0)) for wall in document.walls]
    lengths = lengths or [(box, box.dimensions[0] * box.dimensions[2]) for box in document.boxes()]
    angles = np.array([np.arctan2(each.transform[2], each.transform[0]) for each, _ in lengths])  # of x, in x and z
    angle = main_direction_rad(angles, np.array([length for _, length in lengths]))
    angle = (angle + np.pi / 4) % (np.pi / 2) - np.pi / 4
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _footprint_xz_42(box: Any) -> F64:
    room_T_own_44 = np.array(box.transform).reshape(4, 4).T
    half_x, half_z = 0.5 * box.dimensions[0], 0.5 * box.dimensions[2]
    own_4 = np.array([[-half_x, half_z], [half_x, half_z], [half_x, -half_z], [-half_x, -half_z]])
    return own_4 @ room_T_own_44[np.ix_([0, 2], [0, 2])].T + room_T_own_44[[0, 2], 3]


def _corners_xz(document: RoomDocument) -> F64:
    return np.array([(corner.x, corner.z) for corner in document.measured.corners]).reshape(-1, 2)


def extent_m(document: RoomDocument, turn_22: F64) -> tuple[F64, F64]:
    points = np.vstack((_corners_xz(document), *(_footprint_xz_42(box) for box in document.boxes()))) @ turn_22
    return (points.min(axis=0), points.max(axis=0)) if len(points) else (np.zeros(2), np.ones(2))


def on_paper(
    document: RoomDocument, page: Page, paper: str, scale: int, thickness_mm: float, turn_22: F64, shift_mm_2: F64
) -> Plan:
    def mm(points_xz_n2: F64) -> F64:
        return points_xz_n2 @ turn_22 * 1000 / scale + shift_mm_2

    corners_mm_n2 = mm(_corners_xz(document))
    outer = _outer_corners(corners_mm_n2, len(document.walls), thickness_mm)
    openings = _openings_by_wall(document, scale)
    walls = tuple(
        PaperWall(
            name=wall.name,
            start_mm_2=corners_mm_n2[i],
            end_mm_2=corners_mm_n2[(i + 1) % len(corners_mm_n2)],
            outer_start_mm_2=outer[i][0],
            outer_end_mm_2=outer[i][1],
            length_m=wall.dimensions[0],
            sigma_m=wall.sigma.length,
            is_guessed=wall.is_guessed,
            openings=openings.get(wall.identifier, ()),
        )
        for i, wall in enumerate(document.walls)
    )
    bottoms = [box.transform[13] - 0.5 * box.dimensions[1] for box in document.boxes()]
    floor_y = document.measured.floor_y.value if document.measured.floor_y else min(bottoms, default=0.0)
    boxes = tuple(
        PaperBox(
            name=box.name,
            kind=next(iter(box.category)),
            corners_mm_42=mm(_footprint_xz_42(box)),
            size_m=box.dimensions,
            bottom_m=bottom - floor_y,
            is_on_something=box.stands_on == "object",
        )
        for box, bottom in zip(document.boxes(), bottoms, strict=True)
    )
    # what is higher covers what is lower
    boxes = tuple(sorted(boxes, key=lambda box: box.bottom_m + box.size_m[1]))
    return Plan(page, paper, scale, thickness_mm, corners_mm_n2, walls, boxes)


def _openings_by_wall(document: RoomDocument, scale: int) -> dict[str, tuple[PaperOpening, ...]]:
    found: dict[str, list[PaperOpening]] = {}
    for kind, elements in (("door", document.doors), ("window", document.windows), ("passage", document.openings)):
        for number, each in enumerate(elements, 1):
            width, height, _ = each.dimensions
            opening = PaperOpening(
                each.name, kind, f"{kind[0].upper()}{number}", 1000 * each.start / scale, 1000 * width / scale, width,
                height, each.sill,
            )  # fmt: skip
            found.setdefault(each.parent_identifier or "", []).append(opening)
    return {wall: tuple(sorted(openings, key=lambda o: o.start_mm)) for wall, openings in found.items()}


def _outer_corners(corners_mm_n2: F64, walls: int, thickness_mm: float) -> list[tuple[F64, F64]]:
    """Where the outer face of each wall begins and ends: mitred with its neighbours, square at open ends."""
    starts, ends = corners_mm_n2[:walls], np.roll(corners_mm_n2, -1, axis=0)[:walls]
    along = (ends - starts) / np.linalg.norm(ends - starts, axis=1, keepdims=True)
    normals = np.array([outward(each) for each in along]).reshape(-1, 2)
    is_closed = walls == len(corners_mm_n2)

    def outer(corner: F64, own: int, neighbour: int) -> F64:
        has_neighbour = is_closed or 0 <= neighbour < walls
        middle = normals[own] + normals[neighbour % walls] if has_neighbour else 2 * normals[own]
        if middle @ middle < SHARPEST:  # so sharp a corner would reach far out
            middle = 2 * normals[own]
        return corner + thickness_mm * 2.0 * middle / float(middle @ middle)

    return [(outer(starts[i], i, i - 1), outer(ends[i], i, i + 1)) for i in range(walls)]
