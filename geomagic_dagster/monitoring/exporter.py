"""The exporter: reads on, writes down, then shows; what Prometheus sees was written before.

Belongs here: the order of these three, the loop, the page for Prometheus. Does not belong here: what is counted
and how (fold.py, counts.py), how it is read (event_log.py) and kept (state.py).

A number that was shown and then forgotten would come back smaller, which Prometheus takes for a counter that began
anew, and adds all of it once more. So a look first writes its numbers to disk and then shows them.
The page is rendered from memory: a slow database delays the next look, not Prometheus.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster import DagsterInstance
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from geomagic_dagster.guardrails.whole_files import replace_whole
from geomagic_dagster.monitoring import state as states
from geomagic_dagster.monitoring import supervised, watcher
from geomagic_dagster.monitoring.counts import Counts, Key
from geomagic_dagster.monitoring.event_log import live_run, new_events, new_runs, still_there
from geomagic_dagster.monitoring.fold import begin, fold, is_over
from geomagic_dagster.monitoring.run_files import Readers
from geomagic_dagster.monitoring.surroundings import Lookout, Surroundings
from geomagic_dagster.resources.places import Places

LOOK_EVERY_S = 5.0
BIRTH_S = 40.0
"""A new counter is shown as 0 for so long: Prometheus sees no rise where there was nothing before, so that the first
bug of all would wake nobody. It has to look at least as often."""
FORGET_DELETED_EVERY_S = 60.0

log = logging.getLogger("geomagic.metrics")


class Exporter(Collector):
    """Follows one installation. Call `look()` from one thread; `collect()` and `page()` from any."""

    def __init__(self, instance: DagsterInstance, places: Places, path: Path) -> None:
        self.instance, self.path = instance, path
        self.known = None if not path.exists() else set()
        """Counters that were shown; None where all of the past is still to be read, which is no rise."""
        self.state = states.load(path)
        if self.known is not None:
            self.known.update(self.state.counts.keys())
        self.newborn: dict[Key, float] = {}
        self.lookout = Lookout(instance, places)
        self.written = b""
        self.forgot_deleted_s = 0.0
        self.shown: tuple[Counts, Surroundings] | None = None
        """What Prometheus sees; nothing before the first look is done, lest half of the past looks like a burst."""
        self.looked_s = time.time()
        self.look_seconds = 0.0
        self.errors = 0
        self.last_error = ""

    def look(self) -> None:
        """Reads what is new, writes it down, shows it. Raises: whatever went wrong; then nothing was taken up."""
        started = time.perf_counter()
        try:
            with Readers() as readers:
                while self._read_a_page(readers):
                    self._write()
                self._write()
            surroundings = self.lookout.look()
            self.shown = (self._newborn_as_zero(self.state.counts.copy(), time.time()), surroundings)
        except Exception as error:
            self.errors += 1
            self.last_error = type(error).__name__
            self.state = states.load(self.path)  # half of a look may be in memory; on disk are whole ones
            raise
        self.last_error = ""
        self.looked_s, self.look_seconds = time.time(), time.perf_counter() - started

    def _read_a_page(self, readers: Readers) -> bool:
        """Takes up some new runs and all new events; whether there may be more runs."""
        state, now_s = self.state, time.time()
        records, is_more = new_runs(self.instance, state.seen)
        for record in records:
            run, is_retry = live_run(record)
            begin(run, is_retry, state.counts)
            state.live[record.dagster_run.run_id] = run
            state.seen.add(record)
        for run_id, events in new_events(self.instance, state.live, readers):
            fold(state.live[run_id], events, state.counts, now_s)
        state.live = {run_id: run for run_id, run in state.live.items() if not is_over(run, now_s)}
        if now_s - self.forgot_deleted_s > FORGET_DELETED_EVERY_S and not is_more:
            there = still_there(self.instance, list(state.live))
            state.live = {run_id: run for run_id, run in state.live.items() if run_id in there}
            self.forgot_deleted_s = now_s
        return is_more

    def _write(self) -> None:
        content = self.state.dumps()
        if content != self.written:
            replace_whole(self.path, content)
            self.written = content

    def _newborn_as_zero(self, counts: Counts, now_s: float) -> Counts:
        keys = set(counts.keys())
        if self.known is None:
            self.known = keys
        for key in keys - self.known:
            if now_s - self.newborn.setdefault(key, now_s) < BIRTH_S:
                counts.zero(key)
            else:
                self.known.add(key)
                del self.newborn[key]
        return counts

    def collect(self) -> Iterator[Family]:
        """What Prometheus reads."""
        now_s = time.time()
        yield GaugeMetricFamily(
            "geomagic_exporter_lag_seconds", "Since the exporter last looked with success.", now_s - self.looked_s
        )
        yield GaugeMetricFamily("geomagic_exporter_look_seconds", "What that look took.", self.look_seconds)
        yield CounterMetricFamily("geomagic_exporter_errors", "Looks that failed since it started.", self.errors)
        yield GaugeMetricFamily(
            "geomagic_exporter_ready", "1 once it has read all of the past; before, nothing is shown.",
            float(self.shown is not None),
        )  # fmt: skip
        yield GaugeMetricFamily("geomagic_exporter_live_runs", "Runs it keeps in memory.", len(self.state.live))
        error = InfoMetricFamily("geomagic_exporter_last_error", "Class of the error while the last look failed.")
        if self.last_error:
            error.add_metric([], {"error": self.last_error})
        yield error
        if self.shown is not None:
            counts, surroundings = self.shown
            yield from counts.families()
            yield from surroundings.families(now_s)
            yield from watcher.families(self.path.with_name(watcher.FILE), now_s)
            yield from supervised.families(Path(self.instance.root_directory))

    def registry(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        return registry

    def page(self) -> str:
        """The page as text."""
        return generate_latest(self.registry()).decode()


@contextmanager
def exporter_of(instance: DagsterInstance, places: Places, path: Path) -> Iterator[Exporter]:
    """The one exporter on this state file. Raises: CannotStart."""
    with states.only_one(path):
        yield Exporter(instance, places, path)


def serve(exporter: Exporter, host: str, port: int, stop: threading.Event, every_s: float = LOOK_EVERY_S) -> None:
    """Looks every few seconds and answers Prometheus until `stop` is set. Raises: CannotStart without a free port."""
    try:
        server, thread = start_http_server(port, host, exporter.registry())
    except OSError as error:
        raise states.CannotStart(
            f"{host}:{port}: expected a free port of this machine; got: {error.strerror or error}. Choose another: "
            "geomagic metrics --port 9465."
        ) from error
    log.info("metrics at http://%s:%s/metrics", host, server.server_port)
    try:
        while not stop.is_set():
            try:
                exporter.look()
            except Exception:  # whatever it is may pass; the alert on the lag tells somebody if it does not
                log.exception("the exporter could not look; it tries again in %g s", every_s)
            stop.wait(every_s)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
