"""How far a running scan is: stage k of n, with per cent.

Belongs here: reading that off a run's events. Does not belong here: what a run's end means (following.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from dagster import DagsterEventType, DagsterInstance
from dagster._core.storage.dagster_run import DagsterRun
from django.core.cache import cache

KEPT_S = 1
"""Many may ask at once about the same scan."""
EVENTS = 10


@dataclass(frozen=True)
class Progress:
    """`done` of `stages` stages are over, and `stage` is at `per_cent`; `overall` counts both."""

    done: int
    stages: int
    stage: str
    per_cent: float | None
    overall: float
    said: str = ""


def progress_of(instance: DagsterInstance, run_id: str) -> Progress | None:
    """None where there is nothing to tell yet."""
    return cache.get_or_set(f"progress-{run_id}", lambda: _look(instance, run_id), KEPT_S)


def _look(instance: DagsterInstance, run_id: str) -> Progress | None:
    run = instance.get_run_by_id(run_id)
    stages = _stages(instance, run) if run is not None else ()
    if not stages:
        return None
    stats = {each.step_key: each for each in instance.get_run_step_stats(run_id)}
    over = [key for key in stages if key in stats and stats[key].end_time and "SUCCESS" in str(stats[key].status)]
    running = [key for key in stages if key in stats and key not in over]
    stage = running[0] if running else ""
    ratio, said = _ratio(instance, run_id, stage) if stage else (None, "")
    overall = 100.0 * (len(over) + (ratio or 0.0)) / len(stages)
    return Progress(len(over), len(stages), stage, None if ratio is None else 100.0 * ratio, overall, said)


def _stages(instance: DagsterInstance, run: DagsterRun) -> tuple[str, ...]:
    """Keys of the run's steps, in an order in which they may run."""
    if run.execution_plan_snapshot_id is None:
        return ()
    return tuple(instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id).step_keys_to_execute)


def _ratio(instance: DagsterInstance, run_id: str, stage: str) -> tuple[float | None, str]:
    found = instance.get_records_for_run(run_id, of_type=DagsterEventType.ENGINE_EVENT, limit=EVENTS, ascending=False)
    for each in found.records:
        event = each.event_log_entry.dagster_event
        if event is not None and event.step_key == stage and "progress" in event.engine_event_data.metadata:
            return float(event.engine_event_data.metadata["progress"].value), str(event.message or "")  # pyright: ignore[reportArgumentType]
    return None, ""
