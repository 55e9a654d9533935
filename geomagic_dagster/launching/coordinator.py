"""Launches a run at once where there is room for it, and queues it where there is none.

Belongs here: Dagster's run coordinator, and that the limit is never overshot. Does not belong here: how a run is
launched (run_launcher.py). The limit itself stands in one place, `concurrency: runs: max_concurrent_runs` of
dagster.yaml, where Dagster's own dequeuer reads it too.

Never overshot: every submitter counts what runs *and* what waits, behind a lock, and marks its run as starting
before it lets go. The daemon's dequeuer does not know of the lock; it counts, and then launches from the queue.
Whatever it launches was in the queue when a submitter counted, or was submitted after the submitter's own run was
starting; for the second case the launcher counts once more, and puts back into the queue what is too much.
"""

from __future__ import annotations

import logging
from pathlib import Path

from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter
from dagster._core.errors import DagsterCodeLocationLoadError, DagsterUserCodeUnreachableError
from dagster._core.launcher import LaunchRunContext
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext

from geomagic_dagster.guardrails.locks import held

log = logging.getLogger("dagster.geomagic.coordinator")

IN_PROGRESS = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
"""What Dagster's dequeuer counts."""


class RoomOrQueue(QueuedRunCoordinator):
    """QueuedRunCoordinator, but for a run that need not wait: that one is launched by whoever submits it."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        run, instance = context.dagster_run, self._instance
        if run.status != DagsterRunStatus.NOT_STARTED or not self._may_go_at_once(run):
            return super().submit_run(context)
        with held(Path(instance.root_directory) / "launch.lock"):
            if _count(instance, [DagsterRunStatus.QUEUED, *IN_PROGRESS]) >= _limit(instance):
                return super().submit_run(context)
            starting = DagsterEvent(event_type_value=DagsterEventType.PIPELINE_STARTING.value, job_name=run.job_name)
            instance.report_dagster_event(starting, run_id=run.run_id)
        run = _reload(instance, run)
        try:
            instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=context.workspace))
        except (DagsterCodeLocationLoadError, DagsterUserCodeUnreachableError) as error:
            instance.report_engine_event(f"The code server does not answer; the run waits in the queue: {error}", run)
            instance.report_dagster_event(DagsterEvent.job_enqueue(run), run_id=run.run_id)
        return _reload(instance, run)

    def _may_go_at_once(self, run: DagsterRun) -> bool:
        """Limits on tags and pools are for Dagster's dequeuer to keep."""
        config = self._instance.get_concurrency_config().run_queue_config
        return config is not None and not config.tag_concurrency_limits and not run.run_op_concurrency


def back_to_the_queue_if_full(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Whether a run that is about to be launched is one too many; it is in the queue again then."""
    coordinator = instance.run_coordinator
    if not isinstance(coordinator, RoomOrQueue) or _count(instance, IN_PROGRESS) <= _limit(instance):
        return False
    instance.report_engine_event("Another run took the place of this one meanwhile: it waits in the queue again.", run)
    instance.report_dagster_event(DagsterEvent.job_enqueue(run), run_id=run.run_id)
    return True


def _limit(instance: DagsterInstance) -> float:
    config = instance.get_concurrency_config().run_queue_config
    limit = config.max_concurrent_runs if config else -1
    return float("inf") if limit == -1 else limit


def _count(instance: DagsterInstance, statuses: list[DagsterRunStatus]) -> int:
    return instance.get_runs_count(RunsFilter(statuses=statuses))


def _reload(instance: DagsterInstance, run: DagsterRun) -> DagsterRun:
    reloaded = instance.get_run_by_id(run.run_id)
    assert reloaded is not None, f"run {run.run_id} was deleted while it was submitted"
    return reloaded
