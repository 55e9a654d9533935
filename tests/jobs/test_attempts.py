"""An upload is taken up again as long as nothing was published of it, each time later, and not for ever."""

from __future__ import annotations

import time

import pytest
from dagster import DagsterInstance, DagsterRunStatus
from hypothesis import given
from hypothesis import strategies as st

from geomagic_dagster.guardrails.tags import ATTEMPT_TAG, TAKEN_BACK_TAG, UPLOAD_KEY_TAG, UPLOAD_TAG
from geomagic_dagster.jobs.attempts import (
    LONGEST_WAIT_S,
    MOST_ATTEMPTS,
    RELAUNCH_S,
    RETRIED_TAG,
    WILL_RETRY_TAG,
    standing,
    wait_s,
)

KEY = "room.zip 1234"


@pytest.fixture
def instance():
    with DagsterInstance.ephemeral() as instance:
        yield instance


def a_run(
    instance: DagsterInstance,
    status: DagsterRunStatus,
    attempt: int = 1,
    key: str = KEY,
    steps: list[str] | None = None,
    **tags: str,
):
    run = instance.create_run(
        job_name="process_scan",
        run_id=None,
        run_config={},
        status=DagsterRunStatus.STARTED,
        tags={UPLOAD_TAG: "room.zip", UPLOAD_KEY_TAG: key, ATTEMPT_TAG: str(attempt), **tags},
        root_run_id=None,
        parent_run_id=None,
        step_keys_to_execute=steps,
        execution_plan_snapshot=None,
        job_snapshot=None,
        parent_job_snapshot=None,
        asset_selection=None,
        asset_check_selection=None,
        resolved_op_selection=None,
        op_selection=None,
        remote_job_origin=None,
        job_code_origin=None,
        asset_graph=None,
    )
    if status == DagsterRunStatus.FAILURE:
        instance.report_run_failed(run)
    elif status == DagsterRunStatus.CANCELED:
        instance.report_run_canceled(run)
    elif status == DagsterRunStatus.SUCCESS:
        from dagster import DagsterEvent, DagsterEventType

        event = DagsterEvent(event_type_value=DagsterEventType.RUN_SUCCESS.value, job_name="process_scan")
        instance.report_dagster_event(event, run.run_id)
    return run


def test_an_upload_that_no_run_was_about_starts(instance):
    assert standing(instance, "room.zip", KEY, time.time()).what == "start"


def test_one_that_a_run_works_on_is_left_alone(instance):
    a_run(instance, DagsterRunStatus.STARTED)
    assert standing(instance, "room.zip", KEY, time.time()).what == "busy"
    assert standing(instance, "room.zip", "room.zip of tomorrow", time.time()).what == "busy"


def test_after_a_failure_it_waits_and_then_starts_again(instance):
    a_run(instance, DagsterRunStatus.FAILURE)
    now_s = time.time()
    waiting = standing(instance, "room.zip", KEY, now_s)
    assert (waiting.what, waiting.why) in [("wait", f"attempt 2 in {s} s") for s in (10, 9)]
    again = standing(instance, "room.zip", KEY, now_s + wait_s(1) + 1)
    assert (again.what, again.attempt) == ("start", 2)


def test_a_clock_that_was_set_back_makes_it_wait_no_longer_than_the_wait(instance):
    a_run(instance, DagsterRunStatus.FAILURE)
    assert standing(instance, "room.zip", KEY, time.time() - 3600).why == "attempt 2 in 10 s"


def test_another_upload_of_the_same_name_starts_at_once(instance):
    a_run(instance, DagsterRunStatus.FAILURE, attempt=MOST_ATTEMPTS)
    assert standing(instance, "room.zip", "room.zip 9999", time.time()).what == "start"


def test_what_dagster_relaunches_itself_is_left_to_it_for_a_while(instance):
    a_run(instance, DagsterRunStatus.FAILURE, **{WILL_RETRY_TAG: "true"})
    now_s = time.time()
    assert standing(instance, "room.zip", KEY, now_s + RELAUNCH_S - 5).what == "busy"
    assert standing(instance, "room.zip", KEY, now_s + RELAUNCH_S + 5).what == "start"


def test_what_was_relaunched_and_failed_again_starts(instance):
    a_run(instance, DagsterRunStatus.FAILURE, **{WILL_RETRY_TAG: "true", RETRIED_TAG: "another"})
    assert standing(instance, "room.zip", KEY, time.time() + 60).what == "start"


def test_after_the_last_attempt_it_is_given_up_in_words(instance):
    run = a_run(instance, DagsterRunStatus.FAILURE, attempt=MOST_ATTEMPTS)
    over = standing(instance, "room.zip", KEY, time.time() + 9999)
    assert over.what == "give up"
    assert over.why == f"run {run.run_id}: expected it to end; got a process that died each time. Look at its log."


def test_a_run_that_a_person_canceled_is_not_started_again(instance):
    run = a_run(instance, DagsterRunStatus.CANCELED)
    over = standing(instance, "room.zip", KEY, time.time() + 9999)
    assert (over.what, over.why) == ("give up", f"run {run.run_id} was canceled")


def test_one_whose_package_is_there_leaves_the_inbox(instance):
    a_run(instance, DagsterRunStatus.SUCCESS)
    assert standing(instance, "room.zip", KEY, time.time()).what == "published"


def test_a_step_that_a_person_executed_again_by_itself_publishes_nothing(instance):
    """Its success would else send the upload to `done` without a package."""
    a_run(instance, DagsterRunStatus.FAILURE, 2)
    step = a_run(instance, DagsterRunStatus.SUCCESS, 2, steps=["depth"])
    later = standing(instance, "room.zip", KEY, time.time() + 60)
    assert (later.what, later.attempt) == ("start", 3)
    instance.delete_run(step.run_id)
    a_run(instance, DagsterRunStatus.STARTED, 2, steps=["depth"])
    assert standing(instance, "room.zip", KEY, time.time() + 60).what == "busy"


def test_from_a_failure_on_it_is_published(instance):
    a_run(instance, DagsterRunStatus.FAILURE, 2)
    a_run(instance, DagsterRunStatus.SUCCESS, 2, steps=["mesh", "package", "publish"])
    assert standing(instance, "room.zip", KEY, time.time()).what == "published"


@given(st.integers(1, 100))
def test_waits_grow_up_to_a_bound(attempt):
    assert 10 <= wait_s(attempt) <= wait_s(attempt + 1) <= LONGEST_WAIT_S


def test_a_run_that_ended_before_it_began_is_no_attempt_and_hides_none(instance):
    """Its upload belonged to another release by then."""
    a_run(instance, DagsterRunStatus.FAILURE, 3, **{TAKEN_BACK_TAG: "true"})
    assert standing(instance, "room.zip", KEY, time.time()).attempt == 1
    a_run(instance, DagsterRunStatus.STARTED)
    a_run(instance, DagsterRunStatus.FAILURE, 3, **{TAKEN_BACK_TAG: "true"})
    assert standing(instance, "room.zip", KEY, time.time()).what == "busy"
