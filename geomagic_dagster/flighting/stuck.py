"""Uploads that a flight sent to a release, and no run was made of: its code location does not load, or does not answer.

Belongs here: finding them in the inbox. Does not belong here: uploads whose runs failed (compare.py sees those).

Such a release has no bad runs, as it has none at all, while its share of the customers waits. It counts only where the
default started runs meanwhile: if nothing starts at all, the release is not to blame.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from dagster import DagsterInstance, RunsFilter

from geomagic_dagster.guardrails.tags import FLIGHT_TAG, RELEASE_TAG, UPLOAD_TAG
from geomagic_dagster.jobs.inbox import Looks, is_upload, look_at, scan_name
from geomagic_dagster.jobs.process_scan import JOB
from geomagic_dagster.releases.routing import Flight, RoutingTable

STUCK_S = 90.0
"""From an upload's arrival to the run that should long have been made. After 120 s without a sign of life of the
release, sensors give its uploads to another one (jobs/traffic.py); by then its flight should be over."""
MAX_UPLOADS = 1000
"""Looked at; more of them in the inbox are another trouble than this one."""


def why_stuck(
    instance: DagsterInstance, inbox: Path, flight: Flight, table: RoutingTable, now_s: float, stuck_s: float = STUCK_S
) -> tuple[str, float] | None:
    """What is wrong with a flight whose uploads get no runs, and since when; None where nothing is."""
    waiting = sorted(_waiting(instance, inbox, flight, table, now_s - stuck_s))
    if not waiting:
        return None
    since_s, name = waiting[0]
    meanwhile = RunsFilter(
        job_name=JOB, tags={RELEASE_TAG: table.default}, created_after=datetime.fromtimestamp(since_s, UTC)
    )
    started = [run for run in instance.get_runs(meanwhile, limit=50) if FLIGHT_TAG not in run.tags]
    if not started:
        return None
    sentence = (
        f"release {flight.release} takes up nothing: expected a run of {name} (and {len(waiting) - 1} more) within "
        f"{stuck_s:g} s; got none for {now_s - since_s:.0f} s, in which the default {table.default} began "
        f"{len(started)}{' or more' if len(started) == 50 else ''}. Does its code location load?"
    )
    return sentence, since_s


def _waiting(
    instance: DagsterInstance, inbox: Path, flight: Flight, table: RoutingTable, before_s: float
) -> list[tuple[float, str]]:
    found = []
    if not inbox.is_dir():
        return []
    with os.scandir(inbox) as entries:
        for _, entry in zip(range(MAX_UPLOADS), entries, strict=False):
            if entry.name.startswith(".") or not is_upload(entry):
                continue
            if table.choose(scan_name(entry.name)).flight != flight.id:
                continue
            try:
                arrived_s, seen = entry.stat(follow_symlinks=False).st_ctime, look_at(Path(entry.path), Looks())
            except FileNotFoundError:  # taken away meanwhile
                continue
            is_old = arrived_s < before_s and seen.complete
            if is_old and not instance.get_runs(RunsFilter(tags={UPLOAD_TAG: entry.name}), limit=1):
                found.append((arrived_s, entry.name))
    return found
