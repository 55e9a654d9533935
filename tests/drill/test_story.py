"""The life of three releases, played small with the real thing; its full length: geomagic story --uploads 200."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from geomagic_dagster.drill.story import FLIGHT_PER_CENT, binomial_interval, story
from tests.conftest import REPOSITORY

WHEELS = "GEOMAGIC_TEST_WHEELS"


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_step_of_the_story_is_proved(tmp_path):
    """Takes minutes: three environments are made, and the libraries downloaded unless GEOMAGIC_TEST_WHEELS has them."""
    wheels = Path(os.environ[WHEELS]) if os.environ.get(WHEELS) else None
    told = story(tmp_path / "story", REPOSITORY, 12, print, wheels)
    assert len(told.proofs) == 18
    assert told.uploads == 12
    assert told.flown_expected == binomial_interval(12, FLIGHT_PER_CENT / 100, 0.99)


def test_the_interval_holds_what_a_binomial_gives():
    from scipy.stats import binom

    for number, share in ((200, 0.1), (12, 0.1), (40, 0.4), (1, 0.5)):
        low, high = binomial_interval(number, share, 0.99)
        assert binom.cdf(high, number, share) - binom.cdf(low - 1, number, share) >= 0.99
        assert binom.cdf(low - 1, number, share) <= 0.005 and binom.sf(high, number, share) <= 0.005
