"""Whether an upload in the inbox is to be run now, later, or not again: late acknowledgement.

An upload counts as taken only once its package or its rejection is published, which moves it out of the inbox. As long
as it lies there and nothing works on it, it is taken up again, each time after a longer wait; a run that its worker's
death ended is first relaunched by Dagster itself (run_retries in dagster.yaml). Finished stages are not done again:
their artefacts are found by their identity.

Belongs here: that decision, from what Dagster knows of the upload's last run. Does not belong here: looking at the
inbox (upload_sensor.py), moving uploads (inbox.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RunRecord, RunsFilter

from geomagic_dagster.guardrails.tags import ATTEMPT_TAG, TAKEN_BACK_TAG, UPLOAD_KEY_TAG, UPLOAD_TAG
from geomagic_dagster.jobs.process_scan import PUBLISH

ALIVE = [DagsterRunStatus.QUEUED, DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
ENDED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
FIRST_WAIT_S, LONGEST_WAIT_S, MOST_ATTEMPTS = 10.0, 600.0, 8
"""10 s, 20 s, 40 s ... up to ten minutes: twenty minutes in all, after which a person has to look."""
RELAUNCH_S = 180.0
"""By then Dagster has relaunched a run whose worker died, if it is going to."""
WILL_RETRY_TAG, RETRIED_TAG = "dagster/will_retry", "dagster/auto_retry_run_id"


LOOKED_AT = 5
"""The last runs about an upload; those that ended before they began (TAKEN_BACK_TAG) are no attempt, nor are those of
single steps that a person executed again and that publish nothing."""


@dataclass(frozen=True)
class Standing:
    """What is to become of an upload in the inbox; "elsewhere": it belongs to another release."""

    what: Literal["start", "busy", "wait", "published", "give up", "elsewhere"]
    attempt: int = 1
    """Of the run to start."""
    why: str = ""


def standing(instance: DagsterInstance, name: str, key: str, now_s: float) -> Standing:
    """What is to become of the upload `name`, which `key` tells from another one of the same name."""
    records = instance.get_run_records(RunsFilter(tags={UPLOAD_TAG: name}), limit=LOOKED_AT)
    alive = [record for record in records if record.dagster_run.status in ALIVE]
    counted = alive or [record for record in records if _is_attempt(record.dagster_run)]
    return _standing(counted[0], key, now_s, instance) if counted else Standing("start")


def _is_attempt(run: DagsterRun) -> bool:
    """Whether it was to publish the upload, and began."""
    steps = run.step_keys_to_execute or run.resolved_op_selection
    return run.tags.get(TAKEN_BACK_TAG) != "true" and (not steps or PUBLISH in steps)


def wait_s(attempt: int) -> float:
    """Before what comes after this attempt."""
    return min(FIRST_WAIT_S * 2.0 ** (attempt - 1), LONGEST_WAIT_S)


def _standing(record: RunRecord, key: str, now_s: float, instance: DagsterInstance) -> Standing:
    run = record.dagster_run
    attempt = int(run.tags.get(ATTEMPT_TAG, "1"))
    if run.status in ALIVE:
        return Standing("busy", why=f"run {run.run_id[:8]} works on it")
    if run.tags.get(UPLOAD_KEY_TAG) != key:  # an earlier upload of the same name
        return Standing("start")
    if run.status not in ENDED:  # made, and then whoever made it died: the same run key finds it
        return Standing("start", attempt)
    if run.status == DagsterRunStatus.SUCCESS:
        return Standing("published")
    ended_s = record.end_time or record.update_timestamp.timestamp()
    waited_s = max(now_s - ended_s, 0.0)
    if run.status == DagsterRunStatus.CANCELED:
        return Standing("give up", attempt, f"run {run.run_id} was canceled")
    is_relaunched = run.tags.get(WILL_RETRY_TAG) == "true" and RETRIED_TAG not in run.tags
    if is_relaunched and waited_s < RELAUNCH_S:
        return Standing("busy", why=f"run {run.run_id[:8]} is being relaunched")
    if attempt >= MOST_ATTEMPTS:
        return Standing("give up", attempt, sentence_of(instance, run.run_id))
    if waited_s < wait_s(attempt):
        return Standing("wait", attempt, f"attempt {attempt + 1} in {wait_s(attempt) - waited_s:.0f} s")
    return Standing("start", attempt + 1)


def sentence_of(instance: DagsterInstance, run_id: str) -> str:
    """What a person should read of a run that failed."""
    failures = instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_FAILURE).records
    for each in reversed(failures):
        event = each.event_log_entry.dagster_event
        data = event.step_failure_data if event is not None else None
        if data is not None:
            said = data.user_failure_data.description if data.user_failure_data else None
            return str(said or data.error_display_string)
    return f"run {run_id}: expected it to end; got a process that died each time. Look at its log."
