"""What the watcher of flights and new defaults (flighting/) says of itself, for the page for Prometheus.

Belongs here: its file as metrics. Does not belong here: what it watches and decides.

The watcher writes its counts after each look, and goes on from them after a restart, so that its counters only grow.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

log = logging.getLogger("geomagic.metrics")

FILE = "watcher.json"
COUNTERS = {
    "geomagic_watcher_failed_looks": ("problems", "Looks of the watcher that failed in part."),
    "geomagic_flights_ended": ("flights_ended", "Flights that the watcher ended since their release was worse."),
    "geomagic_rollbacks": ("rollbacks", "New defaults that the watcher took back since their smoke scan failed."),
    "geomagic_smoke_scans_passed": ("smoke_scans_passed", "New defaults whose smoke scan passed."),
}
GAUGES = {
    "geomagic_watcher_age_seconds": "Since the watcher last looked.",
    "geomagic_watcher_problem": "1 while something keeps the watcher from its work, such as a broken routing table.",
    "geomagic_rolled_back_after_seconds": "From the first bad run to the last end of a flight or rollback.",
    "geomagic_flight_evidence_ratio": "Evidence against the release of a flight; at 1 its flight ends.",
}


def families(file: Path, now_s: float) -> Iterator[Family]:
    """The watcher's metrics; none where no watcher ever ran here."""
    try:
        said: dict[str, Any] = json.loads(file.read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # it then looks as if it were silent, which is an alert
        log.error("%s: expected what the watcher wrote; got %s: %s", file, type(error).__name__, error)
        return
    for name, (field, text) in COUNTERS.items():
        yield CounterMetricFamily(name, text, float(said.get(field) or 0))
    values = {
        "geomagic_watcher_age_seconds": max(0.0, now_s - float(said.get("looked_s") or 0.0)),
        "geomagic_watcher_problem": float(bool(said.get("problem"))),
        "geomagic_rolled_back_after_seconds": said.get("rolled_back_after_s"),
    }
    for name, value in values.items():
        if value is not None:
            yield GaugeMetricFamily(name, GAUGES[name], float(value))
    flights = GaugeMetricFamily(
        "geomagic_flight_evidence_ratio", GAUGES["geomagic_flight_evidence_ratio"], labels=["flight"]
    )
    for flight, value in sorted((said.get("evidence") or {}).items()):
        flights.add_metric([str(flight)], float(value))
    yield flights
