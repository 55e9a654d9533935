"""How often each process of the installation ended by itself, for the page for Prometheus.

Belongs here: the file in which the supervisor (launching/serve.py) counts it, as a metric. Does not belong here:
keeping processes alive.

What ends is started again at once, so nobody would notice a console or an intake that ends again and again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.metrics_core import Metric as Family

from geomagic_dagster.guardrails.whole_files import replace_whole

log = logging.getLogger("geomagic.metrics")

FILE = "processes.json"
"""In Dagster's folder."""


def write(folder: Path, ends: Mapping[str, int]) -> None:
    """Says how often each has ended since the supervisor started; those that never did are there with 0."""
    replace_whole(folder / FILE, json.dumps({"schema": 1, "ends": dict(ends)}, indent=1).encode())


def families(folder: Path) -> Iterator[Family]:
    """Nothing where no supervisor ever ran here: on Kubernetes somebody else counts."""
    try:
        ends = {str(name): float(count) for name, count in json.loads((folder / FILE).read_bytes())["ends"].items()}
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.error("%s: expected what the supervisor wrote; got %r", folder / FILE, error)
        return
    family = CounterMetricFamily(
        "geomagic_process_ends", "How often a process of the installation ended by itself.", labels=["process"]
    )
    for name, count in sorted(ends.items()):
        family.add_metric([name], count)
    yield family
