"""Where the points of a flight's evidence lie in its drawing."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from geomagic_dagster.console.registry.course_drawing import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw
from geomagic_dagster.flighting.course import Course
from geomagic_dagster.flighting.verdict import Point


def course(*evidence: float) -> Course:
    points = tuple(Point(20 * (i + 1), 60.0 * i, each) for i, each in enumerate(evidence))
    return Course("so", 100.0, points, (), ())


def places(line: str) -> list[tuple[float, float]]:
    return [tuple(map(float, each.split(","))) for each in line.split()]


def test_without_runs_there_is_nothing_to_draw():
    assert draw(course()) is None


def test_it_begins_at_a_stake_of_one_and_crosses_the_line_that_ends_a_flight_with_its_last_point():
    drawing = draw(course(0.8, 3.0, 20.0, 150.0))
    (end,) = [level.y for level in drawing.levels if level.is_end]
    (one,) = [level.y for level in drawing.levels if level.label == "1"]
    drawn = places(drawing.line)
    assert drawn[0] == (LEFT, one)
    assert drawn[-1] == (drawing.last_x, drawing.last_y) == (WIDTH - RIGHT, drawing.last_y)
    assert drawing.last_y < end < min(y for _, y in drawn[:-1])
    assert (drawing.runs, drawing.evidence) == (80, 150.0)


@given(st.lists(st.floats(0.0, 1e300), min_size=1, max_size=50))
def test_every_point_and_every_label_lies_in_the_drawing(evidence):
    drawing = draw(course(*evidence))
    assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in places(drawing.line))
    assert all(TOP <= level.y <= HEIGHT - BOTTOM for level in drawing.levels)
    labels = sorted(level.y for level in drawing.levels)
    assert all(below - above >= 12 for above, below in itertools.pairwise(labels)), "labels overlap"
