from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from geomagic_dagster.cv.stage import StageError, find_stages
from geomagic_dagster.guardrails.execution import measured, numbers_out_of_range, run_stage
from geomagic_dagster.guardrails.retries import retry_policy
from tests.toy_stages.scans import toy_scan

SHADES = next(stage for stage in find_stages("tests.toy_stages.stages") if stage.name == "shades")
LOG = logging.getLogger("test")


def test_a_stage_is_executed_and_measured():
    outcome = run_stage(SHADES, {"scan": toy_scan()}, SHADES.params(keep=2), LOG)
    assert len(outcome.result.brightness_b) == 2
    assert outcome.numbers == {"brightest": outcome.result.brightness_b.max(), "frames": 2.0}
    assert outcome.out_of_range == ()
    assert 0 < outcome.seconds < 60


def test_a_number_out_of_range_is_said_in_a_sentence_and_logged(caplog):
    outcome = run_stage(SHADES, {"scan": toy_scan()}, SHADES.params(gain=9.0), LOG)
    [sentence] = outcome.out_of_range
    assert sentence.startswith("shades: expected brightest of 0 to 1; got 4.")
    assert sentence in caplog.text


@pytest.mark.parametrize(
    ("number", "count"), [(0.0, 0), (1.0, 0), (1.0001, 1), (-1e-9, 1), (float("nan"), 1), (float("inf"), 1)]
)
def test_both_ends_of_a_range_are_inside_and_nan_never_is(number, count):
    assert len(numbers_out_of_range(SHADES, {"brightest": number})) == count


def test_a_number_that_is_none_is_said_even_where_no_range_is_expected():
    [sentence] = numbers_out_of_range(SHADES, {"brightest": 0.5, "frames": float("nan")})
    assert sentence == "shades: expected frames to be a number; got nan. Mend measure_shades: it is left out."


def test_a_number_that_could_not_be_measured_in_this_scan_is_said_and_stops_nothing():
    [sentence] = numbers_out_of_range(SHADES, {"frames": 3.0})
    assert sentence.startswith("shades: expected brightest of 0 to 1; got nothing that could be measured.")
    assert "measure_shades gave frames." in sentence, "which names there are, should one be misspelt"
    [sentence] = numbers_out_of_range(SHADES, {})
    assert "No measure_shades gave a number." in sentence


def test_a_result_of_another_type_than_declared_is_a_mistake_of_the_stage():
    wrong = replace(SHADES, function=lambda scan: 7)
    with pytest.raises(StageError, match="expected it to return Shades, as it declares; got int"):
        run_stage(wrong, {"scan": toy_scan()}, SHADES.params(), LOG)


def test_peak_memory_is_that_of_the_call_not_of_what_came_before():
    _, _, large_mb = measured(lambda: np.ones(40_000_000).sum())  # 320 MB
    _, _, small_mb = measured(lambda: np.ones(1000).sum())
    assert large_mb > 300
    assert small_mb < large_mb - 200


def test_retries_wait_longer_each_time_and_never_all_at_once():
    policy = retry_policy(2)
    waits = [[policy.calculate_delay(attempt) for _ in range(200)] for attempt in (1, 2)]
    assert policy.max_retries == 2
    for waited, longest in zip(waits, (2.0, 6.0), strict=True):
        assert 0 <= min(waited) < longest / 4
        assert longest * 0.75 < max(waited) <= longest
