"""Progress: nothing of what is quick, at most one event a second, and few in all however long it takes."""

from __future__ import annotations

from itertools import pairwise

from geomagic_dagster.guardrails.progress import ProgressEvents


def told_of(seconds: float, items: int) -> list[tuple[float, str, float]]:
    """What is told, and when, of a loop of so many items that takes so long."""
    now, told = 0.0, []
    events = ProgressEvents("mesh", lambda sentence, ratio: told.append((now, sentence, ratio)), clock=lambda: now)
    for item in range(items + 1):
        now = seconds * item / items
        events.report("frames", item, items)
    return told


def test_what_takes_two_seconds_is_not_told():
    assert told_of(1.9, 100) == []


def test_the_first_word_comes_after_two_seconds_and_says_what_is_left():
    when, sentence, ratio = told_of(10.0, 1000)[0]
    assert 2.0 <= when <= 2.02
    assert sentence == "mesh: frames 20 % (200 of 1000), about 8 s left"
    assert ratio == 0.2


def test_at_most_one_a_second_and_about_a_hundred_in_hours():
    for seconds in (10, 100, 3600, 36_000):
        told = told_of(seconds, 100_000)
        gaps = [later[0] - sooner[0] for sooner, later in pairwise(told)]
        assert min(gaps) >= 0.99
        assert len(told) <= min(seconds, 110)
    assert len(told) > 40


def test_a_loop_without_an_end_is_not_told_in_per_cent():
    now, told = 0.0, []
    events = ProgressEvents("mesh", lambda *what: told.append(what), clock=lambda: now)
    for item in range(100):
        now = float(item)
        events.report("frames", item, None)
    assert told == []
