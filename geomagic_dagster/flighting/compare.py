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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.flighting.betting import (
    F64,
    Bools,
    evidence,
    gain_of_events,
    gain_of_pairs,
    gain_of_ranks,
    tolerances,
)

Outcome = Literal["ok", "failed", "rejected"]
Ranges = Mapping[str, tuple[float, float]]
"""Expected ranges by "stage.number"."""


@dataclass(frozen=True)
class Run:
    """What one run of a scan did."""

    run_id: str
    scan: str
    release: str
    ended_s: float
    """Seconds since 1970."""
    outcome: Outcome
    failure: str = ""
    """One word: bug, timeout, killed, ...; empty unless it failed."""
    seconds: float | None = None
    """From its start to its end."""
    headroom: float | None = None
    """Least part left of the deadline of the scan and those of its stages."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """The stages' own, by "stage.number"."""
    out_of_range: frozenset[str] = frozenset()
    """Stages that say of themselves that a number is out of range, or could not be measured."""


@dataclass(frozen=True)
class Trial:
    """A run, and whether the lot had sent it to the flighted release."""

    run: Run
    is_flight: bool
    share: float
    """The chance that this scan went there, 0 to 1."""


@dataclass(frozen=True)
class Pair:
    """The same scan in both: the flighted release's shadow run, and the run that the customer got."""

    flight: Run
    other: Run


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


WEIGHTS = {"failures": 0.3, "rejections": 0.1, "deadlines": 0.1, "seconds": 0.15, "out of range": 0.1}
"""How the stake is spread; the rest is shared by the numbers."""


@dataclass(frozen=True)
class Verdict:
    """What the runs so far say."""

    is_worse: bool
    sentence: str
    evidence: float
    """What a stake of 1 has become: at the moment when it reached `needed`, else now."""
    needed: float
    by_measure: Mapping[str, float]
    """The same for each measure alone."""
    flight_runs: int
    other_runs: int
    first_bad_s: float | None = None
    """When the first run ended that the measure to blame counts against the release."""
    not_compared: tuple[str, ...] = ()
    """In words: measures that could not be."""


@dataclass(frozen=True)
class _Measure:
    name: str
    weight: float
    is_flight_n: Bools
    share_n: F64
    gain_ng: F64
    words: Callable[[int], str]
    """Of the runs up to an index."""
    bad_n: Bools
    """Runs of the flight that speak against it."""


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
    trials = _first_of_each_scan(trials)
    runs = [each.run for each in trials]
    is_flight_n = np.array([each.is_flight for each in trials], bool)
    share_n = np.array([each.share for each in trials], float)
    names = (flight, other)
    measures: list[_Measure] = []
    missing: list[str] = []
    is_ok_n = np.array([run.outcome == "ok" for run in runs], bool)
    is_warm_n = np.cumsum(is_flight_n) - is_flight_n >= limits.first_runs

    def events(name: str, verb: str, happened: Sequence[bool], counts_n: Bools) -> None:
        happened_n = np.array(happened, bool)
        gain_ng = gain_of_events(is_flight_n, happened_n, counts_n)
        words = _words_of_events(verb, is_flight_n, happened_n, counts_n, names)
        bad_n = is_flight_n & happened_n & counts_n
        measures.append(_Measure(name, WEIGHTS[name], is_flight_n, share_n, gain_ng, words, bad_n))

    def ranks(
        name: str, weight: float, verb: str, value_n: F64, sign: int, unit: str, tolerance: Sequence[float]
    ) -> None:
        gain_ng = gain_of_ranks(is_flight_n, sign * value_n, tolerances(is_flight_n, sign * value_n, *tolerance))
        words = _words_of_values(verb, is_flight_n, value_n, names, unit)
        bad_n = is_flight_n & np.isfinite(value_n)
        measures.append(_Measure(name, weight, is_flight_n, share_n, gain_ng, words, bad_n))

    all_n = np.ones(len(runs), bool)
    events("failures", "fails more often", [run.outcome == "failed" for run in runs], all_n)
    events("rejections", "rejects more scans", [run.outcome == "rejected" for run in runs], all_n)
    headroom_n = _values([run.headroom for run in runs])
    with_deadline_n = is_ok_n & is_warm_n & np.isfinite(headroom_n)
    near = list(headroom_n < limits.least_headroom)
    events("deadlines", f"leaves less than {limits.least_headroom:.0%} of a deadline more often", near, with_deadline_n)
    seconds_n = np.where(is_ok_n & is_warm_n, _values([run.seconds for run in runs]), np.nan)
    ranks("seconds", WEIGHTS["seconds"], "takes longer", seconds_n, 1, " s", (0.0, limits.slower, limits.slower_s))
    outside = [is_out_of_range(run, ranges) for run in runs]
    events("out of range", "leaves the expected ranges more often", outside, is_ok_n)

    weight = (1.0 - sum(WEIGHTS.values())) / max(1, len(ranges))
    for name, (low, high) in sorted(ranges.items()):
        if _is_among(name, may_change):
            missing.append(f"{name} (this release is meant to change it)")
            continue
        value_n = _values([run.numbers.get(name) for run in runs])
        value_n[~_seen_in_both(is_flight_n, np.isfinite(value_n))] = np.nan
        if not np.isfinite(value_n).any():
            missing.append(f"{name} (not yet measured in both releases)")
        signs = (better_end(low, high),) if better_end(low, high) else (1, -1)
        tolerance = limits.worse if len(signs) == 1 else limits.moved
        for sign in signs:
            verb = f"gives {'larger' if sign > 0 else 'smaller'} {name}"
            ranks(name, weight / len(signs), verb, value_n, sign, "", (*tolerance, 1e-9))
    return _verdict(measures, runs, int(is_flight_n.sum()), int((~is_flight_n).sum()), names, limits, missing)


def compare_pairs(
    pairs: Sequence[Pair],
    ranges: Ranges,
    *,
    may_change: Sequence[str] = (),
    flight: str = "the flighted release",
    other: str = "the default",
    limits: Limits = Limits(),
) -> Verdict:
    """The verdict on shadow runs: both releases ran each scan, so each is compared to itself.

    Where the two differ, either may be the worse one with the same chance, if the release makes no difference.
    Seconds and deadlines are not compared: a shadow run waits for the others, and finds what they left in the store.
    """
    first: dict[str, Pair] = {}
    for pair in sorted(pairs, key=lambda each: max(each.flight.ended_s, each.other.ended_s)):
        first.setdefault(pair.flight.scan, pair)
    both = list(first.values())
    names = (flight, other)
    half_n = np.full(len(both), 0.5)
    measures: list[_Measure] = []
    missing = ["seconds, deadlines (shadow runs wait for others, and reuse their results)"]

    def signs(name: str, weight: float, verb: str, difference_n: F64, tolerance_n: F64) -> None:
        worse_n, better_n = difference_n > tolerance_n, difference_n < -tolerance_n
        words = _words_of_pairs(verb, worse_n, better_n, names)
        measures.append(_Measure(name, weight, worse_n, half_n, gain_of_pairs(worse_n | better_n), words, worse_n))

    def events(name: str, verb: str, flight_does: Sequence[bool], other_does: Sequence[bool]) -> None:
        difference_n = np.array(flight_does, float) - np.array(other_does, float)
        signs(name, WEIGHTS[name], verb, difference_n, np.zeros(len(both)))

    for name, verb, outcome in (("failures", "fails", "failed"), ("rejections", "rejects the scan", "rejected")):
        events(name, verb, *([run.outcome == outcome for run in side] for side in _sides(both)))
    is_ok = [pair.flight.outcome == pair.other.outcome == "ok" for pair in both]
    outside = (
        [ok and is_out_of_range(run, ranges) for ok, run in zip(is_ok, side, strict=True)] for side in _sides(both)
    )
    events("out of range", "leaves the expected ranges", *outside)
    weight = (1.0 - sum(WEIGHTS.values())) / max(1, len(ranges))
    for name, (low, high) in sorted(ranges.items()):
        if _is_among(name, may_change):
            missing.append(f"{name} (this release is meant to change it)")
            continue
        flight_n, other_n = (_values([run.numbers.get(name) for run in side]) for side in _sides(both))
        if not (np.isfinite(flight_n) & np.isfinite(other_n)).any():
            missing.append(f"{name} (not yet measured in both releases)")
        ends = (better_end(low, high),) if better_end(low, high) else (1, -1)
        tolerance = limits.worse if len(ends) == 1 else limits.moved
        tolerance_n = tolerances(np.zeros(len(both), bool), other_n, *tolerance, 1e-9)
        for sign in ends:
            verb = f"gives {'larger' if sign > 0 else 'smaller'} {name}"
            signs(name, weight / len(ends), verb, sign * (flight_n - other_n), tolerance_n)
    runs = [pair.flight for pair in both]
    return _verdict(measures, runs, len(both), len(both), names, limits, missing)


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


# --- the verdict ----------------------------------------------------------------------------------


def _verdict(
    measures: Sequence[_Measure],
    runs: Sequence[Run],
    flight_runs: int,
    other_runs: int,
    names: tuple[str, str],
    limits: Limits,
    missing: Sequence[str],
) -> Verdict:
    needed = 1.0 / limits.alpha
    if not runs or not flight_runs or not other_runs:
        sentence = f"{names[0]}: {flight_runs} runs, {names[1]}: {other_runs}; nothing to compare yet."
        return Verdict(False, sentence, 1.0, needed, {}, flight_runs, other_runs, None, tuple(missing))
    stakes_mn = np.array([each.weight * evidence(each.is_flight_n, each.share_n, each.gain_ng) for each in measures])
    total_n = stakes_mn.sum(axis=0) + (1.0 - sum(each.weight for each in measures))
    crossed = np.flatnonzero(total_n >= needed)
    at = int(crossed[0]) if len(crossed) else len(total_n) - 1
    by_measure: dict[str, float] = {}
    for each, stake in zip(measures, stakes_mn[:, at], strict=True):
        by_measure[each.name] = by_measure.get(each.name, 0.0) + float(stake) / each.weight
    if not len(crossed):
        sentence = (
            f"{names[0]}: {flight_runs} runs, {names[1]}: {other_runs} in the same time; no worse so far "
            f"(evidence {total_n[at]:.3g}, {needed:g} ends the flight)."
        )
        return Verdict(
            False, sentence, float(total_n[at]), needed, by_measure, flight_runs, other_runs, None, tuple(missing)
        )
    blamed = measures[int(stakes_mn[:, at].argmax())]
    odds = f"{total_n[at]:,.0f}" if total_n[at] < 1e6 else f"{total_n[at]:.0e}"
    sentence = (
        f"{names[0]} {blamed.words(at)}. Were it no worse, that much would be seen in one of {odds} flights at most, "
        f"however often one looks; the limit is one of {needed:g} (betting test on {', '.join(_tested(measures))})."
    )
    bad = np.flatnonzero(blamed.bad_n[: at + 1])
    first_bad_s = runs[bad[0]].ended_s if len(bad) else runs[at].ended_s
    return Verdict(
        True, sentence, float(total_n[at]), needed, by_measure, flight_runs, other_runs, first_bad_s, tuple(missing)
    )


def _tested(measures: Sequence[_Measure]) -> list[str]:
    named = [each.name for each in measures if each.name in WEIGHTS]
    numbers = {each.name for each in measures} - set(named)
    return [*named, f"{len(numbers)} numbers"] if numbers else named


def _words_of_events(
    verb: str, is_flight_n: Bools, happened_n: Bools, counts_n: Bools, names: tuple[str, str]
) -> Callable[[int], str]:
    def words(at: int) -> str:
        upto_n = counts_n & (np.arange(len(counts_n)) <= at)
        (a, b), (c, d) = (
            (int((happened_n & side).sum()), int(side.sum())) for side in (upto_n & is_flight_n, upto_n & ~is_flight_n)
        )
        return f"{verb}: {a} of {b} runs ({_part(a, b)}), {names[1]} {c} of {d} ({_part(c, d)}) in the same time"

    return words


def _words_of_values(
    verb: str, is_flight_n: Bools, value_n: F64, names: tuple[str, str], unit: str
) -> Callable[[int], str]:
    def words(at: int) -> str:
        upto_n = np.isfinite(value_n) & (np.arange(len(value_n)) <= at)
        ours, theirs = value_n[upto_n & is_flight_n], value_n[upto_n & ~is_flight_n]
        return (
            f"{verb}: {_middle(ours)}{unit} in the middle of {len(ours)} runs, {names[1]} {_middle(theirs)}{unit} of "
            f"{len(theirs)} in the same time"
        )

    return words


def _words_of_pairs(verb: str, worse_n: Bools, better_n: Bools, names: tuple[str, str]) -> Callable[[int], str]:
    def words(at: int) -> str:
        a, b = int(worse_n[: at + 1].sum()), int(better_n[: at + 1].sum())
        return f"{verb} where {names[1]} does not, for the same scan: {a} of {at + 1} scans, the other way round {b}"

    return words


def _part(count: int, of: int) -> str:
    return f"{count / of:.0%}" if of else "none"


def _middle(values: F64) -> str:
    return f"{np.median(values):.3g}" if len(values) else "nothing"


# --- small things ---------------------------------------------------------------------------------


def _first_of_each_scan(trials: Sequence[Trial]) -> list[Trial]:
    first: dict[str, Trial] = {}
    for each in sorted(trials, key=lambda trial: (trial.run.ended_s, trial.run.run_id)):
        if 0.0 < each.share < 1.0:  # else there was no lot
            first.setdefault(each.run.scan, each)
    return list(first.values())


def _values(values: Sequence[float | None]) -> F64:
    """Infinite ones are no measurements, like those that are missing."""
    return np.array([value if value is not None and math.isfinite(value) else np.nan for value in values], float)


def _seen_in_both(is_flight_n: Bools, there_n: Bools) -> NDArray[np.bool_]:
    """Runs after the first ones of both that had it: a release that never measures it is not worse for that."""
    before_n = [np.cumsum(side) - side > 0 for side in (there_n & is_flight_n, there_n & ~is_flight_n)]
    return before_n[0] & before_n[1]


def _is_among(name: str, names: Sequence[str]) -> bool:
    return name in names or f"{name.partition('.')[0]}.*" in names


def _sides(pairs: Sequence[Pair]) -> tuple[list[Run], list[Run]]:
    return [pair.flight for pair in pairs], [pair.other for pair in pairs]
