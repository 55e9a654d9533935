"""Equal releases are left alone, however often one looks; worse ones are found soon. Seeded simulations, and words."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from geomagic_dagster.flighting.betting import evidence, gain_of_events, gain_of_ranks, gain_of_worse, tolerances
from geomagic_dagster.flighting.compare import better_end, compare, compare_pairs, is_out_of_range
from geomagic_dagster.flighting.runs import Pair, Run, Trial

RANGES = {
    "depth.coverage": (0.2, 1.0),
    "layout.walls": (3, 40),
    "layout.guessed_walls": (0, 2),
    "poses.disagreement_m": (0.0, 0.03),
}


def uploads(
    seed: int = 0, n: int = 1000, share: float = 0.1, *, flight: dict | None = None, outage: tuple[int, int] = (0, 0)
) -> list[Trial]:
    """Runs of uploads of all sizes that go to a flight by lot; `flight` says what is different there.

    Everything drifts over the day, and during an outage nine of ten runs of either release fail.
    """
    rng, worse = np.random.default_rng(seed), flight or {}
    trials = []
    for i in range(n):
        is_flight = bool(rng.random() < share)
        is_ = worse if is_flight else {}
        day = 1.0 + 0.3 * math.sin(2 * math.pi * i / 300)
        fails = 0.9 if outage[0] <= i < outage[1] else is_.get("fails", 0.05)
        outcome = "failed" if rng.random() < fails else "rejected" if rng.random() < is_.get("rejects", 0.03) else "ok"
        walls = 4 + rng.poisson(1.0) + is_.get("walls", 0)
        trials.append(
            Trial(
                Run(
                    run_id=f"{i:06d}", scan=f"scan {i}", release="1.1" if is_flight else "1.0", ended_s=60.0 * i,
                    outcome=outcome, failure="bug" if outcome == "failed" else "",
                    seconds=30.0 * day * float(np.exp(rng.normal(0, 0.3))) * is_.get("slower", 1.0),
                    headroom=0.1 if rng.random() < is_.get("near", 0.01) else 0.9,
                    numbers={
                        "depth.coverage": float(np.clip(rng.normal(0.75 - 0.05 * day, 0.08) + is_.get("coverage", 0), 0.0, 1.0)),
                        "layout.walls": float(walls),
                        "layout.guessed_walls": float(rng.random() < 0.1),
                        "poses.disagreement_m": float(np.exp(rng.normal(-5, 0.4))) * is_.get("disagreement", 1.0),
                    },
                ),
                is_flight,
                share,
            )
        )  # fmt: skip
    return trials


def found_after(seeds: range, **options) -> np.ndarray:
    """After how many uploads each of these flights is ended; infinite where it is not."""
    found = []
    for seed in seeds:
        trials = uploads(seed, **options)
        low, high = 0, len(trials)  # a verdict stays: the first upload that gives it is found by halving
        if not compare(trials, RANGES).is_worse:
            found.append(math.inf)
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if compare(trials[:middle], RANGES).is_worse else (middle, high)
        found.append(high)
    return np.array(found)


# --- false alarms ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("outage", [(0, 0), (200, 260)], ids=["drifting", "with an outage"])
def test_an_equal_release_is_stopped_in_one_of_a_hundred_flights_at_most_after_a_thousand_looks(outage):
    flights, stopped = 300, 0
    for seed in range(flights):
        # `compare` looks after each of the runs: the verdict is that of a thousand looks
        stopped += compare(uploads(seed, outage=outage), RANGES).is_worse
    low = stats.binomtest(stopped, flights).proportion_ci(0.99, "wilson").low
    assert low <= 0.01, f"{stopped} of {flights}"
    assert stopped <= 9, "0.01 of 300 are 3; 10 or more come once in a thousand times"


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_each_kind_of_bet_alone_holds_its_level_over_a_thousand_looks(share):
    flights, n, alpha, size = 500, 1000, 0.05, 20
    rng, block_n, all_n = np.random.default_rng(0), np.arange(n) // size, np.ones(n, bool)
    stopped = {"events": 0, "ranks": 0, "pairs": 0}
    for _ in range(flights):
        is_flight_n, failed_n = rng.random(n) < share, rng.random(n) < 0.05
        value_n = np.round(rng.normal(0, 1, n) + np.linspace(0, 3, n), 1)  # drifts, and has ties
        gains = {
            "events": (block_n, is_flight_n, gain_of_events(block_n, is_flight_n, failed_n, all_n)),
            "ranks": (block_n, is_flight_n, gain_of_ranks(block_n, is_flight_n, value_n, np.zeros(n))),
            "pairs": (np.arange(n) // 2, np.tile([True, False], n // 2), gain_of_worse(failed_n)),
        }
        for kind, (blocks_n, is_n, gain_ng) in gains.items():
            stopped[kind] += evidence(blocks_n, is_n, gain_ng, all_n, int(blocks_n[-1]) + 1).max() >= 1 / alpha
    for kind, found in stopped.items():
        assert stats.binomtest(int(found), flights).proportion_ci(0.999, "wilson").low <= alpha, (kind, found)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_bet_wins_in_the_mean_whatever_the_runs_are(data):
    """Over all choices of the flight's runs in a block, the stake is in the mean what it was before the block."""
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    block_n, n = np.repeat(np.arange(len(sizes)), sizes), sum(sizes)
    values = st.sampled_from([0.0, 1.0, 2.5, math.nan])
    value_n = np.array(data.draw(st.lists(values, min_size=n, max_size=n)))
    is_flight_n = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    counts_n = np.isfinite(value_n)
    asked = np.flatnonzero(counts_n & (block_n == block_n[-1]))
    chosen = int(is_flight_n[asked].sum())
    ends: dict[str, list[float]] = {"events": [], "ranks": [], "worse": []}
    for which in itertools.combinations(asked, chosen):
        is_flight_n[asked] = False
        is_flight_n[list(which)] = True
        gains = {
            "events": gain_of_events(block_n, is_flight_n, value_n > 1, counts_n),
            "ranks": gain_of_ranks(block_n, is_flight_n, value_n, np.zeros(n)),
            "worse": gain_of_worse(value_n > 1),
        }
        for kind, gain_ng in gains.items():
            stakes = evidence(block_n, is_flight_n, gain_ng, counts_n, len(sizes))
            ends[kind].append(stakes[-1])
            before = stakes[-2] if len(sizes) > 1 else 1.0
            ends[kind + " before"] = [before]
    for kind in ("events", "ranks", "worse"):
        if ends[kind]:
            assert np.mean(ends[kind]) == pytest.approx(ends[kind + " before"][0], rel=1e-9)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_many_uploads_at_once_of_which_one_release_s_end_first_end_no_flight(share):
    """All of the default's runs end before the first of the flight's, which are slower by less than matters."""
    for seed in range(5):
        trials = [
            replace(trial, run=replace(trial.run, ended_s=trial.run.ended_s + 1e9 * trial.is_flight))
            for trial in uploads(seed, 300, share)
        ]
        assert not compare(trials, RANGES).is_worse


def test_a_better_release_is_left_alone():
    better = {"fails": 0.0, "slower": 0.5, "coverage": 0.15, "disagreement": 0.5, "rejects": 0.0}
    for seed in range(10):
        assert not compare(uploads(seed, flight=better), RANGES).is_worse


def test_an_outage_that_strikes_both_by_their_shares_ends_no_flight():
    for seed in range(10):
        assert not compare(uploads(seed, outage=(100, 500)), RANGES).is_worse


def test_a_difference_within_the_tolerance_is_left_alone():
    for seed in range(10):
        assert not compare(uploads(seed, share=0.3, flight={"slower": 1.05, "coverage": -0.01}), RANGES).is_worse


# --- regressions ----------------------------------------------------------------------------------

PLANTED = {
    # what, and uploads until it is found: half of the flights, nine of ten; at 10 % of the uploads
    "half of its runs fail": ({"fails": 0.5}, 140, 280),
    "takes twice as long": ({"slower": 2.0}, 160, 240),
    "rejects a third": ({"rejects": 0.33}, 340, 700),
    "comes near the deadline": ({"near": 0.4}, 240, 400),
    "covers less": ({"coverage": -0.2}, 140, 240),
    "poses disagree twice as much": ({"disagreement": 2.5}, 160, 240),
    "sees twice the walls": ({"walls": 5}, 140, 200),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_regression_is_found_after_so_many_uploads(what):
    flight, half, most = PLANTED[what]
    found = found_after(range(20), flight=flight)
    assert np.median(found) <= half, sorted(found)
    assert np.quantile(found, 0.9, method="higher") <= most, sorted(found)


def test_a_release_that_becomes_worse_after_a_thousand_good_runs_is_found_as_well():
    good, bad = uploads(1, n=1000), uploads(2, n=500, flight={"fails": 0.5})
    later = [
        replace(trial, run=replace(trial.run, ended_s=trial.run.ended_s + 1e6, scan=f"later {i}"))
        for i, trial in enumerate(bad)
    ]
    assert not compare(good, RANGES).is_worse
    verdict = compare([*good, *later], RANGES)
    assert verdict.is_worse and "fails more often" in verdict.sentence
    assert verdict.first_bad_s is not None


# --- few, odd and missing data --------------------------------------------------------------------


def run(i: int, release: str = "1.0", **said) -> Run:
    return replace(Run(f"{i:06d}", f"scan {i}", release, float(i), "ok", seconds=30.0), **said)


def test_nothing_to_compare_is_said_so():
    verdict = compare([], RANGES, flight="release 1.1", other="the default 1.0")
    assert verdict.sentence == "release 1.1: 0 runs, the default 1.0: 0; nothing to compare yet."
    only = compare([Trial(run(i, "1.1", outcome="failed"), True, 0.5) for i in range(20)], RANGES)
    assert not only.is_worse and only.evidence == 1.0


def test_the_first_bad_runs_of_a_flight_prove_nothing_yet():
    trials = [Trial(run(i), False, 0.1) for i in range(20)]
    trials += [Trial(run(20 + i, "1.1", outcome="failed"), True, 0.1) for i in range(2)]
    trials += [Trial(run(22 + i), False, 0.1) for i in range(18)]
    verdict = compare(trials, RANGES)
    assert not verdict.is_worse and 1.0 < verdict.evidence < verdict.needed == 100.0
    assert "2 runs" in verdict.sentence and "38 in the same time; no worse so far" in verdict.sentence
    assert compare(trials[:19], RANGES).sentence.endswith("nothing to compare yet.")
    assert compare([trials[0], trials[21]], RANGES).sentence.endswith("too few to judge.")


def test_a_flight_of_everything_has_nobody_to_compare_to():
    trials = [Trial(run(i, "1.1", outcome="failed"), True, 1.0) for i in range(100)]
    assert compare(trials, RANGES).sentence.endswith("nothing to compare yet.")


def test_one_scan_that_fails_again_and_again_counts_once():
    trials = [Trial(run(i), False, 0.1) for i in range(50)]
    trials += [Trial(run(50 + i, "1.1", outcome="failed", scan="the same"), True, 0.1) for i in range(100)]
    verdict = compare(trials, RANGES)
    assert verdict.flight_runs == 1 and not verdict.is_worse


def test_a_number_that_never_varies_is_compared_all_the_same():
    def trials(walls: float) -> list[Trial]:
        rng = np.random.default_rng(3)
        return [
            Trial(run(i, numbers={"layout.walls": walls if is_flight else 4.0}), bool(is_flight), 0.3)
            for i, is_flight in enumerate(rng.random(400) < 0.3)
        ]

    assert not compare(trials(4.0), RANGES).is_worse
    verdict = compare(trials(8.0), RANGES)
    assert verdict.is_worse and "gives larger layout.walls: 8 in the middle of" in verdict.sentence


def test_nan_infinity_and_missing_numbers_are_no_measurements():
    rng = np.random.default_rng(4)
    odd = [math.nan, math.inf, None]
    trials = []
    for i, is_flight in enumerate(rng.random(300) < 0.3):
        value = odd[i % 3]
        trials.append(
            Trial(
                run(i, seconds=value, headroom=value, numbers={} if value is None else {"layout.walls": 4.0}),
                bool(is_flight),
                0.3,
            )
        )
    verdict = compare(trials, RANGES)
    assert not verdict.is_worse and math.isfinite(verdict.evidence)
    assert "depth.coverage (not yet measured in both releases)" in verdict.not_compared


def test_a_stage_that_the_flighted_release_does_not_have_is_said_and_no_regression():
    trials = [
        replace(trial, run=replace(trial.run, numbers={})) if trial.is_flight else trial
        for trial in uploads(5, share=0.3)
    ]
    verdict = compare(trials, RANGES)
    assert not verdict.is_worse
    assert len(verdict.not_compared) == len(RANGES)


def test_a_number_that_the_release_is_meant_to_change_is_held_to_its_range_only():
    trials = uploads(6, share=0.3, flight={"walls": 5})
    assert compare(trials, RANGES).is_worse
    verdict = compare(trials, RANGES, may_change=["layout.*"])
    assert not verdict.is_worse
    assert "layout.walls (this release is meant to change it)" in verdict.not_compared
    outside = compare(uploads(6, share=0.3, flight={"walls": 50}), RANGES, may_change=["layout.*"])
    assert outside.is_worse and "leaves the expected ranges more often" in outside.sentence


def test_a_cold_start_does_not_count_as_slow():
    trials, seen = [], 0
    for trial in uploads(7, n=300):
        seen += trial.is_flight
        cold = trial.is_flight and seen <= 2
        trials.append(replace(trial, run=replace(trial.run, seconds=600.0, headroom=0.01)) if cold else trial)
    assert not compare(trials, RANGES).is_worse


def test_the_sentence_has_the_numbers_the_test_and_how_sure_it_is():
    verdict = compare(
        uploads(8, share=0.3, flight={"fails": 0.6}), RANGES, flight="release 1.1", other="the default 1.0"
    )
    assert verdict.is_worse
    assert verdict.sentence.startswith("release 1.1 fails more often: ")
    for words in (
        "runs (",
        "the default 1.0 ",
        "in the same time",
        "one of 100",
        "betting test on failures",
        "4 numbers",
    ):
        assert words in verdict.sentence, verdict.sentence


def test_the_order_in_which_runs_are_handed_over_does_not_matter():
    trials = uploads(9, share=0.3, flight={"fails": 0.4})
    assert compare(trials, RANGES) == compare(trials[::-1], RANGES)


@pytest.mark.parametrize(
    ("bounds", "end"),
    [((0.0, 0.05), 1), ((0, 2), 1), ((0.2, 1.0), -1), ((0.0, 1.0), 0), ((3, 40), 0), ((0.1, 0.95), 0)],
)
def test_a_range_says_which_end_is_better(bounds, end):
    assert better_end(*bounds) == end


def test_a_number_is_out_of_range_by_the_ranges_given_here_not_by_what_the_release_thinks():
    assert is_out_of_range(run(1, numbers={"layout.walls": 2.0}), RANGES)
    assert is_out_of_range(run(1, numbers={"layout.walls": math.nan}), RANGES)
    assert is_out_of_range(run(1, out_of_range=frozenset({"depth"})), RANGES), "it could not be measured"
    assert not is_out_of_range(
        run(1, numbers={"depth.coverage": 0.5}, out_of_range=frozenset({"depth"})), {"depth.coverage": (0, 1)}
    )
    assert not is_out_of_range(run(1), RANGES)


def test_tolerances_know_only_what_was_before():
    value_n = np.arange(20.0)
    block_n = np.arange(20)
    early = tolerances(block_n, np.zeros(20, bool), value_n, 1.0, 0.0, 0.1)
    late = tolerances(block_n, np.zeros(20, bool), np.append(value_n[:-1], 1e9), 1.0, 0.0, 0.1)
    assert np.array_equal(early, late)
    assert np.isinf(early[:5]).all() and np.isfinite(early[5:]).all()


# --- shadow runs ----------------------------------------------------------------------------------


def pairs(n: int = 100, seed: int = 0, **flight) -> list[Pair]:
    rng, made = np.random.default_rng(seed), []
    for i in range(n):
        coverage = float(rng.uniform(0.4, 0.9))
        other = run(i, outcome="failed" if rng.random() < 0.05 else "ok", numbers={"depth.coverage": coverage})
        failed = rng.random() < flight.get("fails", 0.0) or other.outcome == "failed"
        numbers = {"depth.coverage": min(1.0, coverage + flight.get("coverage", 0.0))}
        made.append(Pair(run(i, "1.1", outcome="failed" if failed else "ok", numbers=numbers), other))
    return made


def test_shadow_runs_compare_each_scan_to_itself_and_need_fewer():
    assert not compare_pairs(pairs(), RANGES).is_worse
    failing = compare_pairs(pairs(fails=0.5), RANGES, flight="release 1.1", other="the default 1.0")
    assert failing.is_worse and "fails where the default 1.0 does not, for the same scan: " in failing.sentence
    worse = compare_pairs(pairs(coverage=-0.2), RANGES)
    assert worse.is_worse and "gives smaller depth.coverage" in worse.sentence
    assert not compare_pairs(pairs(coverage=0.2), RANGES).is_worse
    assert any("seconds" in words for words in worse.not_compared)


def test_shadow_runs_of_an_equal_release_end_no_flight():
    stopped = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        both = [
            Pair(
                *(
                    run(
                        i,
                        outcome="failed" if rng.random() < 0.1 else "ok",
                        numbers={"depth.coverage": rng.normal(0.6, 0.1)},
                    )
                    for _ in range(2)
                )
            )
            for i in range(100)
        ]
        stopped += compare_pairs(both, RANGES).is_worse
    assert stopped <= 7, "0.01 of 200 are 2"
