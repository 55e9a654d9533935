from __future__ import annotations

import errno
import logging
from dataclasses import replace

import numpy as np
import pytest
from dagster import Failure

from geomagic_dagster.cv.containers import ImageUnreadable
from geomagic_dagster.cv.stage import ScanRejected, StageError, find_stages
from geomagic_dagster.guardrails.execution import measured, numbers_out_of_range, run_stage
from geomagic_dagster.guardrails.failures import Broken, disk_in_words, rejection_in, sorted_failures
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


def test_a_number_that_could_not_be_measured_in_this_scan_is_said_and_stops_nothing():
    [sentence] = numbers_out_of_range(SHADES, {"frames": 3.0})
    assert sentence.startswith("shades: expected brightest of 0 to 1; got nothing that could be measured.")


def test_a_result_of_another_type_than_declared_is_a_mistake_of_the_stage():
    wrong = replace(SHADES, function=lambda scan: 7)
    with pytest.raises(StageError, match="expected it to return Shades, as it declares; got int"):
        run_stage(wrong, {"scan": toy_scan()}, SHADES.params(), LOG)


def test_peak_memory_is_that_of_the_call_not_of_what_came_before():
    _, _, large_mb = measured(lambda: np.ones(40_000_000).sum())  # 320 MB
    _, _, small_mb = measured(lambda: np.ones(1000).sum())
    assert large_mb > 300
    assert small_mb < large_mb - 200


@pytest.mark.parametrize(
    "error",
    [
        ScanRejected("depth", expected="depth images", received="none", do="Scan again."),
        StageError("stage depth: wrong"),
        Broken("artefact depth/a1: differs"),
        ImageUnreadable(3, "an empty file"),
    ],
)
def test_permanent_failures_are_not_retried_and_keep_their_words(error):
    with pytest.raises(Failure) as caught, sorted_failures("frames"):
        raise error
    assert caught.value.allow_retries is False
    if isinstance(error, ImageUnreadable):
        assert caught.value.description.startswith("frames, image 3: expected a PNG or JPEG; got an empty file. Upload")
    else:
        assert caught.value.description == str(error)


@pytest.mark.parametrize("error", [TimeoutError("storage"), MemoryError(), OSError(5, "disk")])
def test_everything_else_passes_and_may_be_retried(error):
    with pytest.raises(type(error)), sorted_failures("frames"):
        raise error


def test_a_full_disk_may_pass_and_is_one_sentence_all_the_same():
    with pytest.raises(Failure) as caught, sorted_failures("publish"), disk_in_words("packages in /p", "room to write"):
        raise OSError(errno.ENOSPC, "No space left on device", "/p/room.glb")
    assert caught.value.allow_retries is True
    assert caught.value.description == (
        "packages in /p: expected room to write; got a full disk. "
        "Free some space there, or point GEOMAGIC_HOME at a larger disk."
    )


def test_only_a_rejection_blames_the_scan():
    def failure(error: Exception) -> Failure:
        with pytest.raises(Failure) as caught, sorted_failures("frames"):
            raise error
        return caught.value

    rejection = ScanRejected("depth", expected="a", received="b", do="c")
    assert rejection_in(failure(rejection)) is rejection
    assert rejection_in(failure(ImageUnreadable(0, "x"))) is not None
    assert rejection_in(failure(StageError("x"))) is None
    assert rejection_in(None) is None


def test_retries_wait_longer_each_time_and_never_all_at_once():
    policy = retry_policy(2)
    waits = [[policy.calculate_delay(attempt) for _ in range(200)] for attempt in (1, 2)]
    assert policy.max_retries == 2
    for waited, longest in zip(waits, (2.0, 6.0), strict=True):
        assert 0 <= min(waited) < longest / 4
        assert longest * 0.75 < max(waited) <= longest
