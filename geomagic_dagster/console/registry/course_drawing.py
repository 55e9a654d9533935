"""The course of a flight's evidence as a line: where each point lies in a drawing of a fixed size, for an SVG.

Belongs here: coordinates. Does not belong here: what evidence is (flighting/), how the drawing looks (the template and
console.css).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from geomagic_dagster.flighting.course import Course

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 78, 12, 14, 30
LOWEST, HIGHEST = 0.01, 10.0
"""What is drawn at least of the height: down to so much, and up to so many times what ends a flight, is cut off."""


@dataclass(frozen=True)
class Level:
    y: float
    label: str
    is_end: bool
    """Whether evidence that reaches it ends the flight."""


@dataclass(frozen=True)
class Drawing:
    """All in units of the drawing, y downwards; evidence on a logarithmic scale over the runs judged."""

    line: str
    """As a polyline has it: "x,y x,y"."""
    last_x: float
    last_y: float
    levels: tuple[Level, ...]
    runs: int
    evidence: float
    """After all of them."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


def draw(course: Course) -> Drawing | None:
    """None where no block of runs is judged yet."""
    if not course.points:
        return None
    values = [1.0, *(point.evidence for point in course.points)]
    low = math.floor(math.log10(max(LOWEST, min(0.1, *values))))
    high = math.log10(min(course.needed * HIGHEST, max(course.needed * 2.0, *values)))
    runs = course.points[-1].runs

    def x(number: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * number / runs, 1)

    def y(evidence: float) -> float:
        part = (math.log10(max(evidence, LOWEST / 10)) - low) / (high - low)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(part, 0.0), 1.0), 1)

    places = [(x(0), y(1.0)), *((x(point.runs), y(point.evidence)) for point in course.points)]
    powers = [10.0**power for power in range(low, math.ceil(high)) if 10.0**power < course.needed / 2]
    levels = [*(Level(y(power), f"{power:g}", False) for power in powers), Level(y(course.needed), "ends it", True)]
    line = " ".join(f"{a},{b}" for a, b in places)
    return Drawing(line, *places[-1], tuple(levels), runs, course.points[-1].evidence)
