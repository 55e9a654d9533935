"""Evidence that the runs of one release are worse than those of another, which may be looked at at any time.

Belongs here: the mathematics, on arrays. Does not belong here: what is compared, and the words (compare.py).

The test is one of betting. Scans go to the flighted release by the hash of their names, that is by lot. Take a block of
runs that ended one after the other, of which some, say 2 of 20, were the flight's. If the release makes no difference,
each choice of 2 out of these 20 is equally likely to be the right one, however the runs went. So whoever sees how they
went, and bets at fair odds on which 2 it was, does not win in the long run: a stake of 1 reaches 1 / alpha with a
probability of at most alpha, however often one looks and whenever one stops (Ville's inequality). If it is the failed
runs that are the flight's, who bets on those grows rich.

    Duan, Ramdas, Wasserman (2022), Interactive rank testing by betting. Bets on who was treated, as here.
    Ramdas, Gruenwald, Vovk, Shafer (2023), Game-theoretic statistics and safe anytime-valid inference.
    Shin, Ramdas, Rinaldo (2024), E-detectors. Bettors that begin later find what becomes worse later.
    Vovk, Wang (2021), E-values: calibration, combination and applications. The average of stakes is again a stake.

Why this, and not Fisher's and Mann and Whitney's tests at planned looks: it holds at every look, without a schedule
that a restart could forget; under any drift that is slow beside a block (a storage that fails for an hour, larger rooms
in the evening strike both releases); for any distribution, with ties; and where one release's runs merely end sooner or
are started later, as a block of one release alone bets nothing. With blocks of two it is the sign test on pairs.

Shapes: n runs in the order in which they ended, b blocks, g ways of betting. A `gain` says how many times likelier a
run like this is from a worse release than from an equal one. It may know earlier blocks, never its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Blocks = NDArray[np.intp]
"""Number of each run's block, ascending from 0."""

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


def evidence(block_n: Blocks, is_flight_n: Bools, gain_ng: F64, counts_n: Bools, blocks: int) -> F64:
    """What a stake of 1 has become after each block (b,).

    A block multiplies it by the product of the gains of the flight's runs, over the mean of that product over all
    choices of as many runs of the block.

    Args:
        counts_n: runs that the question applies to; the others are no part of their block.
    """
    if not blocks:
        return np.ones(0)
    log_bg = _log_of_blocks(block_n[counts_n], is_flight_n[counts_n], gain_ng[counts_n], blocks)
    total_bg = np.vstack((np.zeros((1, log_bg.shape[1])), np.cumsum(log_bg, axis=0)))
    wealth_b, unused = np.zeros(blocks), 1.0
    begins_b = np.searchsorted(block_n, np.arange(blocks))  # runs before each block
    start, number = 0, 0
    while start <= begins_b[-1]:
        stake = 1.0 / ((number + 1) * (number + 2))
        first = int(np.searchsorted(begins_b, start))
        wealth_b[:first] += stake
        wealth_b[first:] += stake * np.exp(np.minimum(total_bg[first + 1 :] - total_bg[first], 700.0)).mean(axis=1)
        unused -= stake
        start, number = (2 * start or FIRST_START), number + 1
    return wealth_b + unused


def gain_of_events(block_n: Blocks, is_flight_n: Bools, happened_n: Bools, counts_n: Bools) -> F64:
    """Gains (n, g) for something that happens to a run or not, and less often to a good one."""
    others_n = counts_n & ~is_flight_n
    rate_n = (_before(block_n, others_n & happened_n) + 0.5) / (_before(block_n, others_n) + 10.0)
    ratio_g = np.array(RATIOS)
    calm_ng = np.clip((1.0 - ratio_g * rate_n[:, None]) / (1.0 - rate_n[:, None]), 0.1, 1.0)
    return np.where(happened_n[:, None], ratio_g, calm_ng)


def gain_of_ranks(block_n: Blocks, is_flight_n: Bools, value_n: F64, tolerance_n: F64) -> F64:
    """Gains (n, g) for a value of which larger is worse; NaN where there is none.

    Args:
        tolerance_n: the flight's values may be larger by so much (see `tolerances`).
    """
    is_other_n = np.isfinite(value_n) & ~is_flight_n
    values_k, known_n = value_n[is_other_n], _before(block_n, is_other_n)
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
    return np.where((held_n >= FEW)[:, None], gain_ng, 1.0)


def gain_of_worse(is_worse_n: Bools) -> F64:
    """Gains (n, g) in blocks of two runs of one scan, of which one or none is worse."""
    return np.where(is_worse_n[:, None], np.array(RATIOS), 1.0)


def tolerances(block_n: Blocks, is_flight_n: Bools, value_n: F64, spreads: float, relative: float, least: float) -> F64:
    """How much larger a value may be (n,): so many spreads (between the quartiles) of the other release's values in
    earlier blocks, a part of their median, or `least`, whichever is largest; infinite before there are a few."""
    is_other_n = np.isfinite(value_n) & ~is_flight_n
    values_k, known_n = value_n[is_other_n], _before(block_n, is_other_n)
    tolerance_n = np.full(len(value_n), np.inf)
    count = FEW
    while count <= len(values_k):  # settled anew whenever there are half as many more
        low, median, high = np.quantile(values_k[max(0, count - WINDOW) : count], (0.25, 0.5, 0.75))
        tolerance_n[known_n >= count] = max(spreads * (high - low), relative * abs(median), least)
        count += max(1, min(count // 2, WINDOW // 2))
    return tolerance_n


def _before(block_n: Blocks, is_n: Bools) -> NDArray[np.intp]:
    """How many there were in earlier blocks (n,)."""
    return np.concatenate(([0], np.cumsum(is_n)))[np.searchsorted(block_n, block_n)]


def _log_of_blocks(block_n: Blocks, is_flight_n: Bools, gain_ng: F64, blocks: int) -> F64:
    """The logarithm of what each block multiplies a stake by (b, g)."""
    ways = gain_ng.shape[1]
    place_n = np.arange(len(block_n)) - np.searchsorted(block_n, block_n)
    most = int(np.bincount(block_n, is_flight_n, blocks).max()) if len(block_n) else 0
    won_bg = np.zeros((blocks, ways))
    np.add.at(won_bg, block_n[is_flight_n], np.log(gain_ng[is_flight_n]))
    # mean_bkg[b, k]: over all choices of k of the block's runs so far, the mean of the product of their gains
    mean_bkg = np.zeros((blocks, most + 1, ways))
    mean_bkg[:, 0] = 1.0
    chosen_k1 = np.arange(1, most + 1)[:, None]
    for place in range(int(place_n.max()) + 1 if len(place_n) else 0):
        rows = np.flatnonzero(place_n == place)
        part_k1 = np.minimum(chosen_k1 / (place + 1.0), 1.0)
        held_bkg = mean_bkg[block_n[rows]]
        held_bkg[:, 1:] = part_k1 * gain_ng[rows, None] * held_bkg[:, :-1] + (1.0 - part_k1) * held_bkg[:, 1:]
        mean_bkg[block_n[rows]] = held_bkg
    count_b = np.bincount(block_n, is_flight_n, blocks).astype(int)
    return won_bg - np.log(mean_bkg[np.arange(blocks), count_b])
