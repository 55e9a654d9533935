"""The course of a flight's evidence: what is kept of a verdict, for people."""

from __future__ import annotations

import pytest

from geomagic_dagster.flighting.compare import compare
from geomagic_dagster.flighting.course import MOST_POINTS, read_course, write_course
from tests.flighting.test_compare import RANGES, uploads


def test_it_ends_where_the_verdict_is_and_only_its_last_point_reaches_what_ends_a_flight():
    verdict = compare(uploads(8, share=0.3, flight={"fails": 0.6}), RANGES)
    assert verdict.is_worse
    *before, last = verdict.course
    assert last.evidence == verdict.evidence >= verdict.needed > max(point.evidence for point in before)
    assert [point.runs for point in verdict.course] == sorted({point.runs for point in verdict.course})
    most = verdict.measures[0]
    assert most.measure == "failures" and f"{most.verb}: {most.words}. " in verdict.sentence


def test_what_is_known_of_it_never_changes_as_more_runs_end():
    trials = uploads(3, share=0.3)
    course = compare(trials, RANGES).course
    some = compare(trials[:200], RANGES).course
    assert 2 < len(some) < len(course)
    for one, other in zip(some, course, strict=False):
        assert one == pytest.approx(other, rel=1e-9)


def test_it_is_read_as_it_was_written(tmp_path):
    verdict = compare(uploads(8, share=0.3), RANGES)
    write_course(tmp_path, "f-1", verdict)
    course = read_course(tmp_path, "f-1")
    assert (course.points, course.measures) == (verdict.course, verdict.measures)
    assert (course.sentence, course.needed, course.not_compared) == (
        verdict.sentence, verdict.needed, verdict.not_compared,
    )  # fmt: skip


def test_a_long_one_is_thinned_out_and_keeps_its_first_and_its_last_point(tmp_path):
    verdict = compare(uploads(1, n=6000, share=0.5), RANGES)
    write_course(tmp_path, "f-1", verdict)
    points = read_course(tmp_path, "f-1").points
    assert len(verdict.course) > 2 * MOST_POINTS
    assert MOST_POINTS / 2 <= len(points) <= MOST_POINTS + 1
    assert (points[0], points[-1]) == (verdict.course[0], verdict.course[-1])
    assert set(points) <= set(verdict.course)


@pytest.mark.parametrize("name", ["../watcher", "a/b", "x" * 4000, "\u202e", ""])
def test_whatever_a_flight_is_called_its_file_lies_in_the_folder_of_flights(tmp_path, name):
    write_course(tmp_path, name, compare([], RANGES))
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "flights"]
    assert read_course(tmp_path, name).points == ()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"sentence": "x"}', '{"sentence": "x", "needed": "many"}'])
def test_what_is_no_course_is_none(tmp_path, content):
    (tmp_path / "flights").mkdir()
    (tmp_path / "flights" / "f-1.json").write_text(content)
    assert read_course(tmp_path, "f-1") is None
    assert read_course(tmp_path, "f-2") is None
