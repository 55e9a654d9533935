"""What is read off the installation at each look: queue, inbox, quarantine, daemons, sensors, routing table, disks.

Belongs here: gauges that need no memory. Does not belong here: what is counted from events (fold.py).
Times are kept as points in time, and become ages when somebody asks: an age grows also while nobody looks.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import SensorInstigatorData
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from geomagic_dagster.jobs.inbox import HALF_WRITTEN, Looks, is_upload, look_at
from geomagic_dagster.releases.routing import RoutingUnavailable
from geomagic_dagster.resources.places import Places

WAITING = [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.QUEUED, DagsterRunStatus.STARTING]
MAX_LOOKS = 20_000
MAX_LOOK_S = 0.2

AGES = {
    "geomagic_queue_oldest_age_seconds": ("Since when the run waits that has waited longest; 0 without any.", ()),
    "geomagic_inbox_oldest_age_seconds": (
        "Since when the upload lies in the inbox that has lain there longest; 0 without any.", ("state",),
    ),
    "geomagic_daemon_heartbeat_age_seconds": ("Since the last sign of life of each of Dagster's daemons.", ("daemon",)),
    "geomagic_sensor_tick_lag_seconds": (
        "Since the last tick of a running sensor ended, beyond its interval; 0 while it is in time.", ("sensor",),
    ),
}  # fmt: skip
VALUES = {
    "geomagic_queue_runs": ("Runs that wait for their process to start.", ()),
    "geomagic_inbox_uploads": ("Uploads in the inbox: complete, or arriving.", ("state",)),
    "geomagic_quarantined_uploads": ("Uploads in the quarantine folder.", ()),
    "geomagic_daemon_errors": ("Errors that a daemon reported with its last sign of life.", ("daemon",)),
    "geomagic_routing_table_good": ("1 while the routing table can be read; 0 while the last good one stands in.", ()),
    "geomagic_routing_revision": ("Revision of the routing table that is in force.", ()),
    "geomagic_disk_free_bytes": ("Room on the disk of a place that this user may take.", ("place",)),
    "geomagic_disk_size_bytes": ("Size of the disk of a place.", ("place",)),
}


@dataclass
class Surroundings:
    """One look. `since` holds points in time for AGES, `values` numbers for VALUES."""

    since: dict[str, dict[tuple[str, ...], float | None]] = field(default_factory=lambda: {name: {} for name in AGES})
    values: dict[str, dict[tuple[str, ...], float]] = field(default_factory=lambda: {name: {} for name in VALUES})

    def families(self, now_s: float) -> Iterable[Family]:
        for name, (text, labels) in VALUES.items():
            yield _gauge(name, text, labels, self.values[name])
        for name, (text, labels) in AGES.items():
            ages = {key: 0.0 if since is None else max(0.0, now_s - since) for key, since in self.since[name].items()}
            yield _gauge(name, text, labels, ages)


def _gauge(name: str, text: str, labels: tuple[str, ...], series: dict[tuple[str, ...], float]) -> Family:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in sorted(series.items()):
        family.add_metric(key, value)
    return family


class Lookout:
    """Looks at the installation; remembers which uploads were complete, as looking into them costs time."""

    def __init__(self, instance: DagsterInstance, places: Places) -> None:
        self.instance, self.places = instance, places
        self.complete: dict[str, float] = {}
        """Uploads that were complete, by name, and when their folder or archive last changed."""
        self.quarantined: tuple[int, int] = (-1, 0)
        """When the folder last changed, and how many lay in it."""

    def look(self) -> Surroundings:
        found = Surroundings()
        self._queue(found)
        self._inbox(found)
        found.values["geomagic_quarantined_uploads"][()] = self._count_quarantined()
        self._daemons(found)
        self._sensors(found)
        self._routing(found)
        self._disks(found)
        return found

    def _queue(self, found: Surroundings) -> None:
        waiting = RunsFilter(statuses=WAITING)
        found.values["geomagic_queue_runs"][()] = self.instance.get_runs_count(waiting)
        oldest = self.instance.get_run_records(waiting, limit=1, ascending=True)
        since = oldest[0].create_timestamp.timestamp() if oldest else None
        found.since["geomagic_queue_oldest_age_seconds"][()] = since

    def _inbox(self, found: Surroundings) -> None:
        """An upload is no stranger to be measured: those that were complete stay so until somebody touches them."""
        looks, deadline_s = Looks(MAX_LOOKS), time.monotonic() + MAX_LOOK_S
        since: dict[str, list[float]] = {"complete": [], "arriving": []}
        complete: dict[str, float] = {}
        for entry, changed_s in _entries(Path(self.places.inbox), is_upload):
            known = self.complete.get(entry.name) == changed_s
            if not known and not looks.spent() and time.monotonic() < deadline_s:
                try:
                    known = look_at(Path(entry.path), looks).complete
                except FileNotFoundError:  # taken away while we looked
                    pass
                except OSError:  # nobody can take it up as it is: somebody has to hear of it
                    known = True
            if known:
                complete[entry.name] = changed_s
            since["complete" if known else "arriving"].append(changed_s)
        self.complete = complete
        for state, times_s in since.items():
            found.values["geomagic_inbox_uploads"][(state,)] = len(times_s)
            found.since["geomagic_inbox_oldest_age_seconds"][(state,)] = min(times_s, default=None)

    def _count_quarantined(self) -> int:
        try:
            changed_ns = os.stat(self.places.quarantine).st_mtime_ns
        except FileNotFoundError:
            return 0
        if changed_ns != self.quarantined[0]:
            self.quarantined = (changed_ns, sum(1 for _ in _entries(Path(self.places.quarantine))))
        return self.quarantined[1]

    def _daemons(self, found: Surroundings) -> None:
        for daemon, beat in self.instance.get_daemon_heartbeats().items():
            found.since["geomagic_daemon_heartbeat_age_seconds"][(daemon.lower(),)] = beat.timestamp
            found.values["geomagic_daemon_errors"][(daemon.lower(),)] = len(beat.errors or ())

    def _sensors(self, found: Surroundings) -> None:
        """Dagster keeps what it knows of the sensors of a release that was archived: they are late for ever."""
        there = self._locations()
        for state in self.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
            data = state.instigator_data
            if not (state.is_running and isinstance(data, SensorInstigatorData)):
                continue
            ended_s = data.last_tick_timestamp or data.last_sensor_start_timestamp
            if ended_s is not None:
                location = state.origin.repository_origin.code_location_origin.location_name
                if there is not None and location not in there:
                    continue
                due_s = ended_s + (data.min_interval or 0)
                found.since["geomagic_sensor_tick_lag_seconds"][(f"{location}/{state.instigator_name}",)] = due_s

    def _locations(self) -> set[str] | None:
        """The code locations that there are; None where `geomagic ui` does not say so."""
        import yaml

        try:
            entries = yaml.safe_load((Path(self.instance.root_directory) / "workspace.yaml").read_bytes())["load_from"]
            return {target["location_name"] for each in entries for target in each.values()}
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
            return None

    def _routing(self, found: Surroundings) -> None:
        try:
            reading = self.places.routing().read()
        except RoutingUnavailable:  # said in the log by whoever routes
            found.values["geomagic_routing_table_good"][()] = 0.0
            return
        found.values["geomagic_routing_table_good"][()] = 0.0 if reading.problem else 1.0
        found.values["geomagic_routing_revision"][()] = float(reading.table.revision)

    def _disks(self, found: Surroundings) -> None:
        places = {
            "store": self.places.store_url,
            "inbox": self.places.inbox,
            "packages": self.places.packages,
            "dagster": self.instance.root_directory,
        }
        for place, path in places.items():
            if "://" in path:
                continue
            with suppress(FileNotFoundError):
                disk = shutil.disk_usage(next(p for p in (Path(path), *Path(path).parents) if p.exists()))
                found.values["geomagic_disk_free_bytes"][(place,)] = disk.free
                found.values["geomagic_disk_size_bytes"][(place,)] = disk.total


def _entries(
    folder: Path, is_wanted: Callable[[os.DirEntry[str]], bool] = lambda entry: True
) -> Iterator[tuple[os.DirEntry[str], float]]:
    """The entries of a folder that are not half written by their name, and when each last changed."""
    try:
        scan = os.scandir(folder)
    except FileNotFoundError:
        return
    with scan as entries:
        for entry in entries:
            if not HALF_WRITTEN.search(entry.name) and is_wanted(entry):
                with suppress(FileNotFoundError):
                    yield entry, entry.stat(follow_symlinks=False).st_ctime
