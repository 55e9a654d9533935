"""Deadlines are declared in full, nest, and are armed."""

from __future__ import annotations

import pickle
import signal
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomagic_dagster.cv.stage import Stage, StageError, find_stages, stage
from geomagic_dagster.guardrails import deadlines
from geomagic_dagster.guardrails.deadlines import (
    Deadline,
    StageTimeout,
    check_nesting,
    longest_path_s,
    remaining_s,
    soft_deadline,
    stage_deadline,
)
from geomagic_dagster.guardrails.retries import longest_wait_s, retry_policy

SHADES = next(each for each in find_stages("tests.toy_stages.stages") if each.name == "shades")


def a_stage(name: str, seconds: float, retries: int = 0, inputs: tuple[str, ...] = ("scan",)) -> Stage:
    return replace(SHADES, name=name, timeout_s=seconds, retries=retries, inputs=inputs)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_deadline_of_no_time_or_for_ever_is_refused_in_words(seconds):
    with pytest.raises(
        StageError, match=f"deadline of nap: expected a finite number of seconds above 0; got {seconds}"
    ):
        Deadline("nap", seconds, "geomagic_nap")
    with pytest.raises(StageError, match=r"expected a timeout above 0 s; got .*\. Write timeout=minutes\(4\)"):
        stage(version="1", timeout=seconds)(lambda scan: None)


@pytest.mark.parametrize("metric", ["", "two words", "Ümlaut", "7up"])
def test_a_deadline_that_no_metric_watches_cannot_be_declared(metric):
    with pytest.raises(StageError, match="expected the name of the metric that watches it; got "):
        Deadline("nap", 1.0, metric)


def test_a_stage_without_a_deadline_cannot_be_declared():
    with pytest.raises(TypeError, match="timeout"):
        stage(version="1")  # type: ignore[call-arg]


def test_the_longest_path_counts_every_attempt_its_grace_and_the_waits():
    chain = [a_stage("a", 10, retries=1), a_stage("b", 4, inputs=("a",)), a_stage("c", 100)]
    a = 2 * (10 + 5) + longest_wait_s(1)
    assert longest_path_s(chain) == pytest.approx(max(a + 4 + 2, 100 + 10))
    assert longest_path_s([]) == 0


def test_waits_are_those_of_dagsters_own_policy():
    policy = retry_policy(3)
    assert longest_wait_s(3) == pytest.approx(2 + 6 + 14)
    assert longest_wait_s(3) >= sum(policy.calculate_delay(attempt) for attempt in (1, 2, 3))


def test_stages_that_may_take_longer_than_the_scan_are_refused_with_both_numbers():
    with pytest.raises(StageError) as caught:
        check_nesting([a_stage("a", 600)], Deadline("the scan", 300.0, "geomagic_scan"))
    assert str(caught.value) == (
        "deadline of the scan: expected at least 10.2 min, the longest way through the stages with all retries; got "
        "5.0 min. Lower timeout= or retries= of a stage, or raise it."
    )


def test_the_deadlines_of_this_release_nest():
    assert longest_path_s(find_stages()) <= deadlines.SCAN.seconds < deadlines.SCAN.hard_s < deadlines.RUN_S


@given(st.floats(0.001, 1e6), st.floats(-1e6, 1e6))
def test_within_another_deadline_never_longer_than_either(seconds, remaining):
    inner = Deadline("nap", seconds, "geomagic_nap").within(remaining)
    assert 0 < inner.seconds <= max(seconds, 0.001)
    assert inner.seconds <= max(remaining, 0.001)
    assert 1.0 <= inner.grace_s <= 10.0


def test_where_the_scan_has_no_time_left_the_stage_is_not_to_blame():
    deadline = Deadline("mesh", 240.0, "geomagic_nap")
    assert deadline.within(1000.0).expired().around == ""
    error = pickle.loads(pickle.dumps(deadline.within(12.0).expired(is_hard=True)))
    assert str(error) == (
        "mesh: expected an end within 12 s, all that was left for the scan as a whole; got none, and it did not even "
        "end when told to, and was killed. Look at what took so long before it, in the run's steps; its own deadline "
        "is longer."
    )


def test_what_is_left_of_a_scan_follows_no_clock_that_is_set(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "time", lambda: 5000.0)
    assert remaining_s("r1", 4990.0) == deadlines.SCAN.seconds - 10
    monkeypatch.setattr(time, "time", lambda: 99999.0)  # somebody set it
    now = 1002.0
    assert remaining_s("r1", 4990.0) == deadlines.SCAN.seconds - 12
    assert remaining_s("r2", 10**9) == deadlines.SCAN.seconds  # began in the future: then it begins now
    assert remaining_s("r3", None) == deadlines.SCAN.seconds


def test_the_soft_deadline_raises_inside_and_disarms_itself():
    with pytest.raises(StageTimeout), soft_deadline(Deadline("nap", 0.1, "geomagic_nap")):
        time.sleep(30)
    with soft_deadline(Deadline("nap", 60.0, "geomagic_nap")):
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_outside_of_the_main_thread_it_says_what_to_do():
    said = []

    def elsewhere():
        try:
            with soft_deadline(Deadline("nap", 1.0, "geomagic_nap")):
                pass
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert said == ["soft_deadline: expected the main thread of a process; got another one. Use child.call."]


def test_a_timeout_travels_between_processes_whole():
    error = pickle.loads(pickle.dumps(StageTimeout("mesh", 2.0, is_hard=True, may_pass=False)))
    assert (error.place, error.seconds, error.is_hard, error.may_pass) == ("mesh", 2.0, True, False)
    assert isinstance(error, TimeoutError)


def test_a_stage_says_whether_its_timeouts_may_pass():
    assert stage_deadline(SHADES).may_pass
    assert not stage_deadline(replace(SHADES, retry_timeouts=False)).may_pass
