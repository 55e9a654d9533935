"""Are the runs of a flighted release worse than those of the default over the same time?

Belongs here: which measures are compared, how large a difference counts, the verdict and its sentence. Does not
belong here: the mathematics of the evidence (betting.py), where runs come from (observe.py), what is done about a
worse release (watch.py). Pure: the same runs give the same verdict, whoever looks, how often, and after what restart.

What is compared, and what counts as worse:

    failures        runs that the platform, a bug or a deadline ended
    rejections      scans that the release says are unusable
    deadlines       runs that used more than 80 % of the scan's deadline, or of one stage's
    seconds         from the start of a run to its end; more than 10 % and a second longer
    out of range    runs in which a stage's number lies outside of its expected range (`expects`)
    numbers         each number that has an expected range. A range that begins at 0 (an error, a count of warnings):
                    larger is worse. One that ends at 1 (a coverage, a share): smaller is worse; both by more than a
                    quarter of the spread and 5 %. Of others (the area of a room, the pieces of furniture) neither
                    direction is worse, but no release moves them by more than a spread and 25 % unnoticed, either way.
                    A release that is meant to change a number says so in its flight (`may_change`).

One stake is spread over all measures before the first run; the release is worse when the sum has grown to 1 / alpha.
So of a hundred flights of releases that are no worse at most one is stopped for nothing (alpha = 1 %), over all
measures and all looks together.

Failures of the storage or the network strike both releases by their shares and prove nothing about either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from geomagic_dagster.flighting.betting import (
    F64,
    Bools,
    gain_of_events,
    gain_of_ranks,
    gain_of_worse,
    tolerances,
)
from geomagic_dagster.flighting.runs import Pair, Ranges, Run, Trial
from geomagic_dagster.flighting.verdict import (
    Judged,
    Measure,
    Verdict,
    verdict_of,
    words_of_events,
    words_of_pairs,
    words_of_values,
)

WEIGHTS = {"failures": 0.3, "rejections": 0.1, "deadlines": 0.1, "seconds": 0.15, "out of range": 0.1}
"""How the stake is spread; the rest is shared by the numbers."""
SMALLEST_BLOCK, LARGEST_BLOCK = 8.0, 100.0


@dataclass(frozen=True)
class Limits:
    """How sure to be, and which differences count."""

    alpha: float = 0.01
    """Flights of releases that are no worse that are stopped all the same."""
    slower: float = 0.1
    slower_s: float = 1.0
    least_headroom: float = 0.2
    first_runs: int = 2
    """Of the flighted release: its seconds are those of a cold start and not compared."""
    worse: tuple[float, float] = (0.25, 0.05)
    """Spreads, and part of the median, of a number that has a better end."""
    moved: tuple[float, float] = (1.0, 0.25)
    """The same for one that has none."""


def compare(
    trials: Sequence[Trial],
    ranges: Ranges,
    *,
    may_change: Sequence[str] = (),
    flight: str = "the flighted release",
    other: str = "the default",
    limits: Limits = Limits(),
) -> Verdict:
    """The verdict on a flight whose scans went by lot to one release or the other.

    Args:
        trials: in any order; of several runs of one scan only the first counts, since they are no two lots.
        may_change: names "stage.number", or "stage.*", that the release is meant to change; they are still held to
            their expected ranges.
    """
    judged = _in_blocks(_first_of_each_scan(trials), (flight, other))
    runs, is_flight_n, block_n = judged.runs, judged.is_flight_n, judged.block_n
    measures: list[Measure] = []
    is_ok_n = np.array([run.outcome == "ok" for run in runs], bool)
    begins_n = np.searchsorted(block_n, block_n)
    is_warm_n = np.concatenate(([0], np.cumsum(is_flight_n)))[begins_n] >= limits.first_runs

    def events(name: str, verb: str, happened: Sequence[bool], counts_n: Bools) -> None:
        happened_n = np.array(happened, bool)
        gain_ng = gain_of_events(block_n, is_flight_n, happened_n, counts_n)
        words = words_of_events(judged, happened_n, counts_n)
        measures.append(
            Measure(name, False, WEIGHTS[name], gain_ng, counts_n, verb, words, is_flight_n & happened_n & counts_n)
        )

    def ranks(name: str, weight: float, verb: str, value_n: F64, sign: int, unit: str, *tolerance: float) -> None:
        tolerance_n = tolerances(block_n, is_flight_n, sign * value_n, *tolerance)
        gain_ng = gain_of_ranks(block_n, is_flight_n, sign * value_n, tolerance_n)
        words, counts_n = words_of_values(judged, value_n, unit), np.isfinite(value_n)
        measures.append(
            Measure(name, name not in WEIGHTS, weight, gain_ng, counts_n, verb, words, is_flight_n & counts_n)
        )

    all_n = np.ones(len(runs), bool)
    events("failures", "fails more often", [run.outcome == "failed" for run in runs], all_n)
    events("rejections", "rejects more scans", [run.outcome == "rejected" for run in runs], all_n)
    headroom_n = _values([run.headroom for run in runs])
    near = list(headroom_n < limits.least_headroom)
    verb = f"leaves less than {limits.least_headroom:.0%} of a deadline more often"
    events("deadlines", verb, near, is_ok_n & is_warm_n & np.isfinite(headroom_n))
    seconds_n = np.where(is_ok_n & is_warm_n, _values([run.seconds for run in runs]), np.nan)
    ranks("seconds", WEIGHTS["seconds"], "takes longer", seconds_n, 1, " s", 0.0, limits.slower, limits.slower_s)
    events("out of range", "leaves the expected ranges more often", [is_out_of_range(r, ranges) for r in runs], is_ok_n)
    for name, weight, sign, (spreads, relative) in _numbers(ranges, may_change, limits):
        value_n = _values([run.numbers.get(name) for run in runs])
        ranks(name, weight, _direction(name, sign), value_n, sign, "", spreads, relative, 1e-9)
    return verdict_of(measures, judged, limits.alpha, _not_compared(judged, ranges, may_change))


def compare_pairs(
    pairs: Sequence[Pair],
    ranges: Ranges,
    *,
    may_change: Sequence[str] = (),
    flight: str = "the flighted release",
    other: str = "the default",
    limits: Limits = Limits(),
) -> Verdict:
    """The verdict on shadow runs: both releases ran each scan, so each is compared to itself, in a block of two.

    Seconds and deadlines are not compared: a shadow run waits for the others, and finds what they left in the store.
    Nor are failures that may pass (a full disk, a killed process): a scan gets a shadow run only where the customer's
    run succeeded, so that such failures could be seen on one side only.
    """
    first: dict[str, Pair] = {}
    for pair in sorted(pairs, key=lambda each: max(each.flight.ended_s, each.other.ended_s)):
        first.setdefault(pair.flight.scan, pair)
    both = list(first.values())
    judged = Judged(
        runs=[run for pair in both for run in (pair.flight, pair.other)],
        is_flight_n=np.tile([True, False], len(both)),
        block_n=np.repeat(np.arange(len(both)), 2),
        blocks=len(both),
        names=(flight, other),
        flight_runs=len(both),
        other_runs=len(both),
    )
    is_flight_n, all_n = judged.is_flight_n, np.ones(2 * len(both), bool)
    measures: list[Measure] = []

    def worse(name: str, weight: float, verb: str, value_n: F64, *tolerance: float) -> None:
        """Larger is worse; the worse run of a pair is the one that is larger by more than the tolerance."""
        tolerance_n = (
            tolerances(judged.block_n, is_flight_n, value_n, *tolerance) if any(tolerance) else np.zeros(len(value_n))
        )
        than_n = value_n.reshape(-1, 2)[:, ::-1].reshape(-1)  # of the same scan in the other release
        is_worse_n = value_n - than_n > tolerance_n
        words = words_of_pairs(judged, is_worse_n)
        measures.append(
            Measure(
                name,
                name not in WEIGHTS,
                weight,
                gain_of_worse(is_worse_n),
                all_n,
                f"{verb} where {other} does not, for the same scan",
                words,
                is_flight_n & is_worse_n,
            )
        )

    def events(name: str, verb: str, happened: Sequence[bool]) -> None:
        worse(name, WEIGHTS[name], verb, np.array(happened, float))

    may_pass = [run.kind == "passing" and run.failure != "crashed" for run in judged.runs]
    failed = [run.outcome == "failed" and not passing for run, passing in zip(judged.runs, may_pass, strict=True)]
    events("failures", "fails", failed)
    events("rejections", "rejects the scan", [run.outcome == "rejected" for run in judged.runs])
    is_ok_n = np.repeat([pair.flight.outcome == pair.other.outcome == "ok" for pair in both], 2)
    outside = [bool(ok) and is_out_of_range(run, ranges) for ok, run in zip(is_ok_n, judged.runs, strict=True)]
    events("out of range", "leaves the expected ranges", outside)
    for name, weight, sign, (spreads, relative) in _numbers(ranges, may_change, limits):
        value_n = sign * _values([run.numbers.get(name) for run in judged.runs])
        worse(name, weight, _direction(name, sign), value_n, spreads, relative, 1e-9)
    missing = (
        "seconds, deadlines (shadow runs wait for others, and reuse their results)",
        "failures that may pass (only scans that succeeded get shadow runs)",
    )
    return verdict_of(measures, judged, limits.alpha, missing + _not_compared(judged, ranges, may_change))


def better_end(low: float, high: float) -> int:
    """1 where larger is worse, -1 where smaller is, 0 where a range does not say."""
    if low == 0.0 and high != 1.0:
        return 1
    return -1 if high == 1.0 and low > 0.0 else 0


def is_out_of_range(run: Run, ranges: Ranges) -> bool:
    """Whether a number lies outside of the range given here, or is missing and its stage says that it is."""
    for name, (low, high) in ranges.items():
        value = run.numbers.get(name)
        if value is None:
            if name.partition(".")[0] in run.out_of_range:
                return True
        elif not low <= value <= high:  # NaN lies nowhere
            return True
    return False


# --- small things ---------------------------------------------------------------------------------


def _first_of_each_scan(trials: Sequence[Trial]) -> list[Trial]:
    first: dict[str, Trial] = {}
    for each in sorted(trials, key=lambda trial: (trial.run.ended_s, trial.run.run_id)):
        if 0.0 < each.share < 1.0:  # else there was no lot
            first.setdefault(each.run.scan, each)
    return list(first.values())


def _in_blocks(trials: Sequence[Trial], names: tuple[str, str]) -> Judged:
    """Blocks of so many runs that two of them are the flight's, in the mean; those that are full."""
    block_n: list[int] = []
    block, first = 0, 0
    for i, trial in enumerate(trials):
        if trial.share != trials[first].share or i - first >= _block_size(trial.share):
            block, first = block + 1, i
        block_n.append(block)
    if trials and len(trials) - first < _block_size(trials[first].share):
        block -= 1  # the last one is not full yet
    kept = [trial for trial, number in zip(trials, block_n, strict=True) if number <= block]
    flight_runs = sum(trial.is_flight for trial in trials)
    return Judged(
        runs=[trial.run for trial in kept],
        is_flight_n=np.array([trial.is_flight for trial in kept], bool),
        block_n=np.array(block_n[: len(kept)], np.intp),
        blocks=block + 1 if kept else 0,
        names=names,
        flight_runs=flight_runs,
        other_runs=len(trials) - flight_runs,
    )


def _block_size(share: float) -> int:
    return round(min(max(2.0 / min(share, 1.0 - share), SMALLEST_BLOCK), LARGEST_BLOCK))


def _numbers(
    ranges: Ranges, may_change: Sequence[str], limits: Limits
) -> Iterator[tuple[str, float, int, tuple[float, float]]]:
    """(name, weight, direction that is worse, tolerance) of each number that is compared, each direction apart."""
    weight = (1.0 - sum(WEIGHTS.values())) / max(1, len(ranges))
    for name, (low, high) in sorted(ranges.items()):
        if not _is_among(name, may_change):
            end = better_end(low, high)
            for sign in (end,) if end else (1, -1):
                yield name, weight if end else weight / 2, sign, limits.worse if end else limits.moved


def _not_compared(judged: Judged, ranges: Ranges, may_change: Sequence[str]) -> tuple[str, ...]:
    missing = []
    for name in sorted(ranges):
        there_n = np.isfinite(_values([run.numbers.get(name) for run in judged.runs]))
        if _is_among(name, may_change):
            missing.append(f"{name} (this release is meant to change it)")
        elif not (there_n & judged.is_flight_n).any() or not (there_n & ~judged.is_flight_n).any():
            missing.append(f"{name} (not yet measured in both releases)")
    return tuple(missing)


def _direction(name: str, sign: int) -> str:
    return f"gives {'larger' if sign > 0 else 'smaller'} {name}"


def _values(values: Sequence[float | None]) -> F64:
    """Infinite ones are no measurements, like those that are missing."""
    return np.array([value if value is not None and math.isfinite(value) else np.nan for value in values], float)


def _is_among(name: str, names: Sequence[str]) -> bool:
    return name in names or f"{name.partition('.')[0]}.*" in names
