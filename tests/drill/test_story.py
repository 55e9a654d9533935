"""The life of three releases, played small with the real thing; its full length: geomagic story --uploads 200."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from geomagic_dagster.drill import story_site
from geomagic_dagster.drill.story import EDITED, FLIGHT_PER_CENT, binomial_interval, story
from geomagic_dagster.drill.story_site import RUNS_AT_ONCE, SMALLER, Site, StoryFailed
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


@pytest.mark.parametrize(
    ("file", "text"), [(file, old) for file, old, _ in SMALLER] + [("dagster.yaml", RUNS_AT_ONCE), *EDITED]
)
def test_what_the_story_edits_stands_there_once(file, text):
    """So that whoever changes such a line hears of it at once, and not after minutes."""
    assert (REPOSITORY / file).read_text().count(text) == 1


def _site(home: Path) -> Site:
    site = object.__new__(Site)  # only its home is asked for
    site.home = home
    return site


def test_it_waits_so_long_as_packages_come(tmp_path, monkeypatch):
    monkeypatch.setattr(story_site, "NOTHING_NEW_S", 60.0)
    names = [f"room-{number}" for number in range(4)]

    def come() -> None:
        for name in names:
            (tmp_path / "packages" / name).mkdir(parents=True)
            (tmp_path / "packages" / name / "manifest.json").touch()

    thread = threading.Thread(target=come)
    thread.start()
    _site(tmp_path).wait_for_packages(names)
    thread.join()


def test_it_says_which_packages_are_missing_where_none_comes_any_more(tmp_path, monkeypatch):
    monkeypatch.setattr(story_site, "NOTHING_NEW_S", 0.5)
    (tmp_path / "packages" / "a").mkdir(parents=True)
    (tmp_path / "packages" / "a" / "manifest.json").touch()
    with pytest.raises(StoryFailed, match="expected a package more; 2 of 3 are missing, b, c first within"):
        _site(tmp_path).wait_for_packages(["a", "b", "c"])
