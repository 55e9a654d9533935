"""What is counted: every metric with its labels and buckets, and the numbers themselves.

Belongs here: the table of the metrics that come out of the event log, adding to them, and keeping them as JSON.
Does not belong here: which event adds to which (fold.py), gauges that are read off the machine (surroundings.py).

Labels hold names that stand in code: releases, jobs, steps, numbers, kinds of failure. Whatever else comes is
called `other`: a label never holds the name of a scan or of a person, and every metric has at most
`MAX_SERIES` sets of labels.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from math import isfinite
from typing import Any, Literal

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family

MAX_SERIES = 2000
"""Sets of labels of one metric. For a new one the one is forgotten to which nothing was added for longest, that of a
release of long ago: were the new one left out, nobody would be told of a bad release any more."""
OTHER = "other"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}|")

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
RATIO = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

Labels = tuple[str, ...]
Key = tuple[str, Labels]


@dataclass(frozen=True)
class Metric:
    """One metric: a counter, a histogram, a summary (count and sum), or the last value as a gauge."""

    name: str
    kind: Literal["counter", "histogram", "summary", "gauge"]
    labels: Labels
    help: str
    buckets: tuple[float, ...] = ()
    last: str = ""
    """Of a histogram or summary: the gauge that shows the value that came last."""

    def nothing(self) -> Any:
        """What is held before the first value."""
        if self.kind in ("counter", "gauge"):
            return 0.0
        return [0] * (len(self.buckets) + 1) + [0.0, 0.0]

    @property
    def shape(self) -> list[Any]:
        """Numbers that were kept for another shape do not fit this one."""
        return [self.kind, list(self.labels), list(self.buckets)]


RUN = ("release", "job")
STEP = (*RUN, "step")
STAGE = ("release", "stage")
WHY = ("failure_kind", "failure")

METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "geomagic_runs_total", "counter", (*RUN, "outcome", *WHY),
            "Runs that ended: success, failure or canceled; failures with their kind (permanent, passing, bug, "
            "unknown) and what it was (rejected, timeout, ...).",
        ),
        Metric(
            "geomagic_run_duration_seconds", "histogram", (*RUN, "outcome"),
            "Seconds from the start of a run's process to the end of the run.", SECONDS,
        ),
        Metric(
            "geomagic_run_first_step_wait_seconds", "histogram", RUN,
            "Seconds from a run's creation to the start of its first step.", SECONDS,
        ),
        Metric("geomagic_run_retries_total", "counter", RUN, "Runs started again because their process died."),
        Metric("geomagic_run_timeouts_total", "counter", RUN, "Runs ended because their deadline had passed."),
        Metric(
            "geomagic_scan_deadline_headroom_ratio", "histogram", RUN,
            "1 - seconds / deadline of a run that has one; 0 where it passed its deadline.", RATIO,
            last="geomagic_scan_deadline_headroom_last_ratio",
        ),
        Metric(
            "geomagic_steps_total", "counter", (*STEP, "outcome", *WHY),
            "Steps that ended for good: success, or failure after all retries.",
        ),
        Metric(
            "geomagic_step_retries_total", "counter", (*STEP, *WHY), "Attempts that failed and were tried again.",
        ),
        Metric("geomagic_step_timeouts_total", "counter", STEP, "Attempts that passed their deadline."),
        Metric(
            "geomagic_step_duration_seconds", "histogram", (*STEP, "outcome"),
            "Seconds of an attempt of a step (success, failure, retry), reading and writing included.", SECONDS,
        ),
        Metric(
            "geomagic_stage_duration_seconds", "histogram", STAGE,
            "Seconds in the stage's own function; reused results are not counted.", SECONDS,
        ),
        Metric("geomagic_stage_reused_total", "counter", STAGE, "Results taken from the store instead of computed."),
        Metric("geomagic_stage_peak_memory_bytes", "gauge", STAGE, "Most memory that its last execution held."),
        Metric(
            "geomagic_stage_deadline_headroom_ratio", "histogram", STAGE,
            "1 - seconds / deadline of an execution of a stage; 0 where it passed its deadline.", RATIO,
            last="geomagic_stage_deadline_headroom_last_ratio",
        ),
        Metric(
            "geomagic_stage_progress_ratio", "gauge", STAGE, "How far a long step has come, as it said last; 1 is all.",
        ),
        Metric(
            "geomagic_stage_out_of_range_total", "counter", STAGE,
            "Results of which a number lay outside of the range that the stage expects.",
        ),
        Metric(
            "geomagic_stage_number_values", "summary", (*STAGE, "number"),
            "Count and sum of the stage's own numbers, for their mean over a time.", last="geomagic_stage_number",
        ),
        Metric(
            "geomagic_exporter_unreadable_events_total", "counter", (),
            "Events that this version of the exporter could not read; each is one that is not counted.",
        ),
    )
}  # fmt: skip


Change = tuple[str, Labels, float]
"""A metric's name, its labels, and an addition to a counter, one value of a histogram or summary, or the last value of
a gauge. (A plain tuple: a run is a hundred of them, and a named one takes ten times as long to make.)"""


@dataclass
class Counts:
    """The numbers of every metric.

    A counter or gauge is one number; a histogram is the count in each bucket, the count beyond them, the sum and the
    last value; a summary is count, sum and last value.
    """

    values: dict[str, dict[Labels, Any]] = field(default_factory=lambda: {name: {} for name in METRICS})

    def apply(self, changes: Iterable[Change]) -> None:
        """Takes changes up. Infinite values and NaN are no measurements and left out."""
        for name, labels, value in changes:
            value = float(value)
            if not isfinite(value):
                continue
            metric, series = METRICS[name], self.values[name]
            held = series.get(labels)
            if held is None:  # only clean labels are ever held, so that those that are need no look
                labels = _clean(labels)
                if labels not in series and len(series) >= MAX_SERIES:
                    del series[next(iter(series))]
                held = series.setdefault(labels, metric.nothing())
            if len(series) > MAX_SERIES // 2:
                series[labels] = series.pop(labels)  # the last one to be forgotten
            if metric.kind == "counter":
                series[labels] = held + value
            elif metric.kind == "gauge":
                series[labels] = value
            else:
                held[bisect_left(metric.buckets, value)] += 1
                held[-2] += value
                held[-1] = value

    def keys(self) -> Iterator[Key]:
        """Everything that only grows."""
        for name, series in self.values.items():
            if METRICS[name].kind != "gauge":
                yield from ((name, labels) for labels in series)

    def zero(self, key: Key) -> None:
        """Forgets what was counted, but not the last value."""
        name, labels = key
        held = self.values[name][labels]
        self.values[name][labels] = [*(type(cell)() for cell in held[:-1]), held[-1]] if isinstance(held, list) else 0.0

    def copy(self) -> Counts:
        return Counts(
            {
                name: {labels: list(held) if isinstance(held, list) else held for labels, held in series.items()}
                for name, series in self.values.items()
            }
        )

    def to_json(self) -> dict[str, Any]:
        return {
            name: {"shape": METRICS[name].shape, "series": [[*labels, held] for labels, held in series.items()]}
            for name, series in self.values.items()
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Counts:
        """A metric whose labels or buckets are others than they were begins at nothing again, as on a first start."""
        counts = cls()
        for name, kept in content.items():
            if name in METRICS and kept["shape"] == METRICS[name].shape:
                counts.values[name] = {tuple(labels): held for *labels, held in kept["series"]}
        return counts

    def families(self) -> Iterator[Family]:
        """As prometheus-client wants them."""
        for name, series in self.values.items():
            yield from _families(METRICS[name], sorted(series.items()))


@lru_cache(10_000)
def _clean(labels: Labels) -> Labels:
    return tuple(label if NAME.fullmatch(label) else OTHER for label in labels)


def _families(metric: Metric, series: list[tuple[Labels, Any]]) -> Iterator[Family]:
    if metric.kind == "counter":
        family: Any = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    elif metric.kind == "gauge":
        family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    elif metric.kind == "summary":
        family = SummaryMetricFamily(metric.name, metric.help, labels=metric.labels)
    else:
        family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    bounds = [*(str(float(bound)) for bound in metric.buckets), "+Inf"]
    for labels, held in series:
        if metric.kind in ("counter", "gauge"):
            family.add_metric(labels, held)
        elif metric.kind == "summary":
            family.add_metric(labels, count_value=held[0], sum_value=held[-2])
        else:
            cumulative = list(zip(bounds, accumulate(held[:-2]), strict=True))
            family.add_metric(labels, cumulative, sum_value=held[-2])
    yield family
    if metric.last:
        last = GaugeMetricFamily(metric.last, f"The last value of {metric.name}.", labels=metric.labels)
        for labels, held in series:
            last.add_metric(labels, held[-1])
        yield last
