"""Evidence that the runs of one release are worse than those of another, which may be looked at at any time.

Belongs here: the mathematics, on arrays. Does not belong here: what is compared, and the words (compare.py).

The test is one of betting. A scan goes to the flighted release by the hash of its name, that is by lot, with a known
chance (the flight's per cent). Whoever sees how a run went, and not which release it ran, can bet on which one it was,
at fair odds. If the release makes no difference, nobody wins in the long run: a stake of 1 reaches 1/alpha with a
probability of at most alpha, however often one looks and whenever one stops (Ville's inequality). If failed runs are
the flighted release's more often than its share says, who bets on that grows rich.

    Duan, Ramdas, Wasserman (2022), Interactive rank testing by betting. Bets on who was treated, as here.
    Ramdas, Gruenwald, Vovk, Shafer (2023), Game-theoretic statistics and safe anytime-valid inference.
    Shin, Ramdas, Rinaldo (2024), E-detectors. Bettors that begin later find what becomes worse later.
    Vovk, Wang (2021), E-values: calibration, combination and applications. The average of stakes is again a stake.

Why this and not a test at planned looks: it holds under any drift (a storage that fails for an hour, or rooms that are
larger in the evening, strike both releases by their shares), for any distribution, with ties, from the first run on;
and there is no schedule of looks that a restart could forget.

Shapes: n runs in the order in which they ended, g ways of betting. A `gain` says how many times likelier a run like
this is from a worse release than from an equal one; 1 bets nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

RATIOS = (1.5, 3.0, 10.0, 50.0)
"""How many times as often a worse release may fail; bets are laid on each of them."""
POWERS = (1.5, 3.0, 10.0)
"""A worse release's value may be like the worst of so many values of the other (Lehmann's alternatives)."""
FLOOR = 0.1
"""Part of a stake that is never bet on a rank: one surprise does not ruin anybody."""
FIRST_START = 64
"""Bettors begin at the first run, and after 64, 128, 256, ... runs."""
WINDOW = 200
"""A value is ranked among so many latest ones of the other release: only what is of the same time compares."""
ROWS = 4096
"""Ranked at once, which bounds the memory."""
FEW = 5
"""Below so many values of the other release nothing is bet on a rank."""


def evidence(is_flight_n: Bools, share_n: F64, gain_ng: F64) -> F64:
    """What a stake of 1 has become after each run (n,).

    A bettor wins gain / (1 + share (gain - 1)) where the run was the flight's, and 1 / (1 + share (gain - 1)) where it
    was not: 1 in the mean, if the run says nothing about whose it was.
    """
    log_ng = np.where(is_flight_n[:, None], np.log(gain_ng), 0.0) - np.log1p(share_n[:, None] * (gain_ng - 1.0))
    total_ng = np.cumsum(log_ng, axis=0)
    n = len(total_ng)
    wealth_n, unused = np.zeros(n), 1.0
    start, number = 0, 0
    while start < n:
        stake = 1.0 / ((number + 1) * (number + 2))
        since_ng = total_ng[start:] - (total_ng[start - 1] if start else 0.0)
        wealth_n[start:] += stake * np.exp(np.minimum(since_ng, 700.0)).mean(axis=1)
        wealth_n[:start] += stake
        unused -= stake
        start, number = (2 * start or FIRST_START), number + 1
    return wealth_n + unused


def gain_of_events(is_flight_n: Bools, happened_n: Bools, counts_n: Bools) -> F64:
    """Gains (n, g) for something that happens to a run or not, and less often to a good one.

    Args:
        counts_n: which runs the question applies to; nothing is bet on the others.
    """
    others_n = counts_n & ~is_flight_n
    # what was known before each run: a run must not tell its own odds
    seen_n = np.cumsum(others_n) - others_n
    events_n = np.cumsum(others_n & happened_n) - (others_n & happened_n)
    rate_n = (events_n + 0.5) / (seen_n + 10.0)
    ratio_g = np.array(RATIOS)
    calm_ng = np.clip((1.0 - ratio_g * rate_n[:, None]) / (1.0 - rate_n[:, None]), 0.1, 1.0)
    gain_ng = np.where(happened_n[:, None], ratio_g, calm_ng)
    return np.where(counts_n[:, None], gain_ng, 1.0)


def gain_of_ranks(is_flight_n: Bools, value_n: F64, tolerance_n: F64) -> F64:
    """Gains (n, g) for a value of which larger is worse; nothing is bet where it is NaN.

    Args:
        tolerance_n: the flight's values may be larger by so much (see `tolerances`).
    """
    counts_n = np.isfinite(value_n)
    values_k = value_n[counts_n & ~is_flight_n]
    known_n = np.cumsum(counts_n & ~is_flight_n) - (counts_n & ~is_flight_n)  # values of the others before each run
    compared_n = np.where(is_flight_n, value_n - tolerance_n, value_n)
    # row i: the WINDOW values before the i-th of the others; NaN where there were not as many
    windows_kw = np.lib.stride_tricks.sliding_window_view(np.concatenate((np.full(WINDOW, np.nan), values_k)), WINDOW)
    below_n, equal_n = np.empty(len(value_n)), np.empty(len(value_n))
    for first in range(0, len(value_n), ROWS):
        rows = slice(first, first + ROWS)
        before_nw = windows_kw[known_n[rows]]
        below_n[rows] = (before_nw < compared_n[rows, None]).sum(axis=1)
        equal_n[rows] = (before_nw == compared_n[rows, None]).sum(axis=1)
    held_n = np.minimum(known_n, WINDOW)
    rank_n = (below_n + 0.5 * equal_n + 0.5) / (held_n + 1.0)
    power_g = np.array(POWERS)
    gain_ng = FLOOR + (1.0 - FLOOR) * power_g * rank_n[:, None] ** (power_g - 1.0)
    return np.where((counts_n & (held_n >= FEW))[:, None], gain_ng, 1.0)


def gain_of_pairs(is_decided_n: Bools) -> F64:
    """Gains (n, g) for pairs of the same scan in both releases: bets where one of them is worse, on the flight's."""
    return np.where(is_decided_n[:, None], np.array(RATIOS), 1.0)


def tolerances(is_flight_n: Bools, value_n: F64, spreads: float, relative: float, least: float) -> F64:
    """How much larger a value may be (n,), from the other release's values before each run: the largest of so many
    spreads (between its quartiles), of a share of its median, and of `least`."""
    is_other_n = np.isfinite(value_n) & ~is_flight_n
    values_k = value_n[is_other_n]
    known_n = np.cumsum(is_other_n) - is_other_n
    tolerance_n = np.full(len(value_n), np.inf)
    count = FEW
    while count <= len(values_k):  # settled anew whenever there are half as many more
        low, median, high = np.quantile(values_k[max(0, count - WINDOW) : count], (0.25, 0.5, 0.75))
        tolerance_n[known_n >= count] = max(spreads * (high - low), relative * abs(median), least)
        count += max(1, min(count // 2, WINDOW // 2))
    return tolerance_n
