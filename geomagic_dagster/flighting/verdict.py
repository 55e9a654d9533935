"""The verdict on a release, from the evidence of all measures, and its sentence.

Belongs here: adding up, the moment when the evidence suffices, and the words. Does not belong here: which measures
there are (compare.py), the mathematics of evidence (betting.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from geomagic_dagster.flighting.betting import F64, Blocks, Bools, evidence
from geomagic_dagster.flighting.runs import Run


@dataclass(frozen=True)
class Seen:
    """What one measure alone says."""

    measure: str
    evidence: float
    """1 says nothing; less speaks for the release, more against it."""
    verb: str
    """What a worse release does."""
    words: str
    """What the runs did."""


class Point(NamedTuple):
    """The evidence as it stood after a block."""

    runs: int
    """Judged so far, of both releases."""
    ended_s: float
    """When the last of them ended."""
    evidence: float


@dataclass(frozen=True)
class Verdict:
    """What the runs so far say."""

    is_worse: bool
    sentence: str
    evidence: float
    """What a stake of 1 has become: at the moment when it reached `needed`, else now."""
    needed: float
    flight_runs: int
    other_runs: int
    not_compared: tuple[str, ...]
    """In words: measures that could not be."""
    first_bad_s: float | None = None
    """When the first run ended that the measure to blame counts against the release."""
    measures: tuple[Seen, ...] = ()
    """What speaks most against the release first."""
    course: tuple[Point, ...] = ()
    """Of `evidence`, block after block."""


@dataclass(frozen=True)
class Measure:
    name: str
    is_number: bool
    """Whether it is one of a stage's own numbers."""
    weight: float
    gain_ng: F64
    counts_n: Bools
    verb: str
    """What a worse release does."""
    words: Callable[[Bools], str]
    """What the runs that are asked for did."""
    bad_n: Bools
    """Runs of the flight that speak against it."""


@dataclass(frozen=True)
class Judged:
    """Runs in the order in which they are judged, block by block."""

    runs: Sequence[Run]
    is_flight_n: Bools
    block_n: Blocks
    blocks: int
    names: tuple[str, str]
    flight_runs: int
    other_runs: int
    """Also those of a block that is not full yet."""


# --- the verdict ----------------------------------------------------------------------------------


def verdict_of(measures: Sequence[Measure], judged: Judged, alpha: float, missing: tuple[str, ...]) -> Verdict:
    needed = 1.0 / alpha
    (flight, other), counts = judged.names, (judged.flight_runs, judged.other_runs)
    if not all(counts):
        sentence = f"{flight}: {counts[0]} runs, {other}: {counts[1]}; nothing to compare yet."
        return Verdict(False, sentence, 1.0, needed, *counts, missing)
    if not judged.blocks:
        sentence = f"{flight}: {counts[0]} runs, {other}: {counts[1]} in the same time; too few to judge."
        return Verdict(False, sentence, 1.0, needed, *counts, missing)
    stakes_mb = np.array(
        [
            each.weight * evidence(judged.block_n, judged.is_flight_n, each.gain_ng, each.counts_n, judged.blocks)
            for each in measures
        ]
    )
    total_b = stakes_mb.sum(axis=0) + (1.0 - sum(each.weight for each in measures))
    crossed = np.flatnonzero(total_b >= needed)
    at = int(crossed[0]) if len(crossed) else judged.blocks - 1
    total = float(total_b[at])
    upto_n = judged.block_n <= at
    seen: dict[str, Seen] = {}
    for each, stake in zip(measures, stakes_mb[:, at] / [each.weight for each in measures], strict=True):
        if each.name not in seen or stake > seen[each.name].evidence:  # without a better end it is measured both ways
            seen[each.name] = Seen(each.name, float(stake), each.verb, each.words(upto_n))
    ranked = tuple(sorted(seen.values(), key=lambda one: -one.evidence))
    course = _course(judged, total_b[: at + 1])
    if not len(crossed):
        sentence = (
            f"{flight}: {counts[0]} runs, {other}: {counts[1]} in the same time; no worse so far "
            f"(evidence {total:.3g}, {needed:g} ends the flight)."
        )
        return Verdict(False, sentence, total, needed, *counts, missing, None, ranked, course)
    blamed = measures[int(stakes_mb[:, at].argmax())]
    odds = f"{total:,.0f}" if total < 1e6 else f"{total:.0e}"
    sentence = (
        f"{flight} {blamed.verb}: {blamed.words(upto_n)}. Were it no worse, that much would be seen in one of {odds} "
        f"flights at most, however often one looks; the limit is one of {needed:g} (betting test on "
        f"{', '.join(_tested(measures))})."
    )
    bad = np.flatnonzero(blamed.bad_n & upto_n)
    first_bad_s = judged.runs[bad[0] if len(bad) else 0].ended_s
    return Verdict(True, sentence, total, needed, *counts, missing, first_bad_s, ranked, course)


def _course(judged: Judged, total_b: F64) -> tuple[Point, ...]:
    runs_b = np.searchsorted(judged.block_n, np.arange(len(total_b)), side="right").tolist()
    return tuple(
        Point(runs, judged.runs[runs - 1].ended_s, evidence)
        for runs, evidence in zip(runs_b, total_b.tolist(), strict=True)
    )


def _tested(measures: Sequence[Measure]) -> list[str]:
    named = [each.name for each in measures if not each.is_number]
    numbers = {each.name for each in measures if each.is_number}
    return [*named, f"{len(numbers)} numbers"] if numbers else named


def words_of_events(judged: Judged, happened_n: Bools, counts_n: Bools) -> Callable[[Bools], str]:
    def words(upto_n: Bools) -> str:
        ours_n, theirs_n = upto_n & counts_n & judged.is_flight_n, upto_n & counts_n & ~judged.is_flight_n
        (a, b), (c, d) = ((int((happened_n & side).sum()), int(side.sum())) for side in (ours_n, theirs_n))
        return f"{a} of {b} runs ({_part(a, b)}), {judged.names[1]} {c} of {d} ({_part(c, d)}) in the same time"

    return words


def words_of_values(judged: Judged, value_n: F64, unit: str) -> Callable[[Bools], str]:
    def words(upto_n: Bools) -> str:
        there_n = upto_n & np.isfinite(value_n)
        ours, theirs = value_n[there_n & judged.is_flight_n], value_n[there_n & ~judged.is_flight_n]
        return (
            f"{_middle(ours)}{unit} in the middle of {len(ours)} runs, {judged.names[1]} "
            f"{_middle(theirs)}{unit} of {len(theirs)} in the same time"
        )

    return words


def words_of_pairs(judged: Judged, is_worse_n: Bools) -> Callable[[Bools], str]:
    def words(upto_n: Bools) -> str:
        a, b = (int((is_worse_n & upto_n & side).sum()) for side in (judged.is_flight_n, ~judged.is_flight_n))
        scans = int((upto_n & judged.is_flight_n).sum())
        return f"{a} of {scans} scans, the other way round {b}"

    return words


def _part(count: int, of: int) -> str:
    return f"{count / of:.0%}" if of else "none"


def _middle(values: F64) -> str:
    return f"{np.median(values):.3g}" if len(values) else "nothing"
