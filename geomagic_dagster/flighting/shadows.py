"""Shadow runs: a release sees a copy of an upload after the customer has its result.

A sensor in each code location, since Dagster lets a sensor start jobs of its own location only. It asks Dagster for
the customers' runs that succeeded, whose tags say which releases are to see a copy (SHADOWS_TAG), and starts
`process_scan` on the upload where it lies in done. Such a run publishes nothing and moves nothing.

It never costs a customer time: it starts after the customer's run has ended, one at a time, only while no run waits
and a place for a customer is left; its steps give way to everything else on the machine; and as soon as a run waits,
it is canceled. What it could not see within an hour it does not see.

Belongs here: when a shadow run starts and when it gives way. Does not belong here: what is concluded from its numbers
(watch.py), which uploads are shadowed (releases/).
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dagster import (
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultSensorStatus,
    JobDefinition,
    RunRecord,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
)

from geomagic_dagster.cv.stage import SOURCE
from geomagic_dagster.guardrails.tags import (
    FLAGS_TAG,
    FLIGHT_TAG,
    PRIORITY_TAG,
    RELEASE_TAG,
    ROUTE_REVISION_TAG,
    SCAN_TAG,
    SHADOW_OF_TAG,
    SHADOW_TAG,
    SHADOWS_TAG,
)
from geomagic_dagster.jobs.attempts import ALIVE
from geomagic_dagster.jobs.process_scan import JOB, PUBLISH
from geomagic_dagster.jobs.traffic import shadow_flight
from geomagic_dagster.releases.routing import RoutingTable, RoutingUnavailable
from geomagic_dagster.resources.places import Places

SENSOR = "shadow_sensor"
MIN_INTERVAL_S = 5
LATE_S = 3600.0
OVERLAP_S = 5.0
LOOKED_AT = 200
"""Runs that a tick asks for."""
PRIORITY = "-10"
WAITING = [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.QUEUED]
IN_PROGRESS = [status for status in ALIVE if status != DagsterRunStatus.QUEUED]


@dataclass(frozen=True)
class Cursor:
    """Where the next tick goes on."""

    until_s: float
    """Customers' runs that ended before were seen."""
    seen: tuple[str, ...] = ()
    """The last ones: what ends at the same moment may be stored a little later."""

    def dumps(self) -> str:
        return json.dumps({"schema": 1, "until_s": self.until_s, "seen": list(self.seen)})

    @classmethod
    def loads(cls, text: str | None, now_s: float) -> Cursor:
        try:
            content = json.loads(text or "")
            return cls(float(content["until_s"]), tuple(map(str, content["seen"])))
        except (ValueError, KeyError, TypeError):  # the first tick, or one of other code: what was is not shadowed
            return cls(now_s)

    def behind(self, record: RunRecord) -> Cursor:
        seen = (*self.seen, record.dagster_run.run_id)[-LOOKED_AT:]
        return Cursor(max(self.until_s, record.update_timestamp.timestamp()), seen)


def shadow_sensor(job: JobDefinition, release: str) -> SensorDefinition:
    """The sensor of one release; it does nothing while the routing table has no shadow flight of that release."""

    def evaluate(context: SensorEvaluationContext, places: Places) -> SensorResult:
        now_s = time.time()
        cursor = Cursor.loads(context.cursor, now_s)
        if canceled := give_way(context.instance, release):
            context.log.info(f"another run waits: shadow run {', '.join(canceled)} is canceled")
        try:
            table = places.routing().read().table
        except RoutingUnavailable as error:
            return SensorResult(skip_reason=str(error), cursor=cursor.dumps())
        if not is_shadowing(table, release):
            return SensorResult(skip_reason=f"release {release} sees no copies", cursor=Cursor(now_s).dumps())
        if why := why_not_now(context.instance):
            return SensorResult(skip_reason=why, cursor=cursor.dumps())
        request, cursor = next_request(context.instance, cursor, table, release, now_s)
        if request is None:
            why = f"no customer's run has ended since whose upload release {release} is to see"
            return SensorResult(skip_reason=why, cursor=cursor.dumps())
        return SensorResult(run_requests=[request], cursor=cursor.dumps())

    return SensorDefinition(
        name=SENSOR,
        evaluation_fn=evaluate,
        job=job,
        minimum_interval_seconds=MIN_INTERVAL_S,
        default_status=DefaultSensorStatus.RUNNING,
        description="Starts shadow runs: this release sees a copy of uploads whose customers have their results.",
    )


def is_shadowing(table: RoutingTable, release: str) -> bool:
    return release in table.live and any(each.shadow and each.release == release for each in table.flights)


def give_way(instance: DagsterInstance, release: str) -> list[str]:
    """Cancels the shadow runs of a release while another run waits; returns what was canceled."""
    shadows = instance.get_runs(RunsFilter(tags={SHADOW_TAG: "true", RELEASE_TAG: release}, statuses=ALIVE))
    if not shadows or not _others_wait(instance):
        return []
    canceled = [run.run_id for run in shadows if run.status != DagsterRunStatus.CANCELING]
    return [run_id for run_id in canceled if instance.run_coordinator.cancel_run(run_id)]


def why_not_now(instance: DagsterInstance) -> str:
    """Why no shadow run may start at this moment; empty where one may."""
    if _others_wait(instance):
        return "a run of a customer waits"
    if shadows := instance.get_runs(RunsFilter(tags={SHADOW_TAG: "true"}, statuses=[*WAITING, *ALIVE]), limit=1):
        return f"shadow run {shadows[0].run_id[:8]} is there already"
    config = instance.get_concurrency_config().run_queue_config
    limit = config.max_concurrent_runs if config else None
    if limit is not None and limit >= 0:
        running = instance.get_runs_count(RunsFilter(statuses=IN_PROGRESS))
        if limit - running < 2:
            return f"{running} of {limit} runs are in progress, and one place is kept for a customer"
    return ""


def next_request(
    instance: DagsterInstance, cursor: Cursor, table: RoutingTable, release: str, now_s: float
) -> tuple[RunRequest | None, Cursor]:
    """The shadow run to start next, if any, and where to go on after it."""
    since = datetime.fromtimestamp(max(cursor.until_s - OVERLAP_S, now_s - LATE_S), UTC)
    records = instance.get_run_records(
        RunsFilter(job_name=JOB, statuses=[DagsterRunStatus.SUCCESS], updated_after=since),
        limit=LOOKED_AT,
        order_by="update_timestamp",
        ascending=True,
    )
    seen = set(cursor.seen)
    for record in records:
        run = record.dagster_run
        if run.run_id in seen:
            continue
        cursor = cursor.behind(record)
        flight = shadow_flight(run.tags.get(SHADOWS_TAG, ""), release)
        is_flown = any(each.id == flight and each.shadow for each in table.flights)
        if not is_flown or run.tags.get(SHADOW_TAG) == "true" or run.tags.get(RELEASE_TAG) == release:
            continue
        upload = published_from(instance, run)
        if upload is not None and upload.exists():  # else deleted since: whoever it belongs to wanted it so
            return shadow_request(run, upload, str(flight)), cursor
    return None, cursor


def shadow_request(run: DagsterRun, upload: Path, flight: str) -> RunRequest:
    """The shadow run that follows a customer's run. It carries no name of an upload: it is no attempt at one."""
    copied = {tag: run.tags[tag] for tag in (SCAN_TAG, FLAGS_TAG, ROUTE_REVISION_TAG) if tag in run.tags}
    return RunRequest(
        run_key=f"shadow of {run.run_id}",
        run_config={"ops": {SOURCE: {"config": {"upload": str(upload)}}}},
        tags=copied | {SHADOW_TAG: "true", SHADOW_OF_TAG: run.run_id, FLIGHT_TAG: flight, PRIORITY_TAG: PRIORITY},
    )


def published_from(instance: DagsterInstance, run: DagsterRun) -> Path | None:
    """Where the upload of a run that has published its package lies."""
    for record in instance.get_records_for_run(run.run_id, of_type=DagsterEventType.STEP_OUTPUT).records:
        event = record.event_log_entry.dagster_event
        if event is not None and event.step_key == PUBLISH:
            said = event.step_output_data.metadata.get("upload")
            return Path(str(said.value)) if said is not None else None
    return None


def _others_wait(instance: DagsterInstance) -> bool:
    waiting = instance.get_runs(RunsFilter(statuses=WAITING), limit=LOOKED_AT)
    return any(run.tags.get(SHADOW_TAG) != "true" for run in waiting)
