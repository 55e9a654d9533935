"""Scans follow their runs, whichever way they came."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test
from django.core.cache.backends.base import CacheKeyWarning

from geomagic_dagster.console.scans import following
from geomagic_dagster.console.scans.models import Delivery, Run, Scan
from geomagic_dagster.guardrails.tags import (
    ATTEMPT_TAG,
    RELEASE_TAG,
    SCAN_TAG,
    SHADOW_TAG,
    TAKEN_BACK_TAG,
    UPLOAD_KEY_TAG,
    UPLOAD_TAG,
)
from geomagic_dagster.jobs.inbox import Looks, look_at, run_key
from tests.console.scans.conftest import archive
from tests.toy_stages.installation import Toys
from tests.toy_stages.scans import write_toy_scan

pytestmark = pytest.mark.django_db


@pytest.fixture
def toys(home) -> Toys:
    return Toys(home)


def tags(upload: str, **more: str) -> dict[str, str]:
    return {
        UPLOAD_TAG: upload, UPLOAD_KEY_TAG: f"{upload} abc", SCAN_TAG: upload.removesuffix(".zip"),
        RELEASE_TAG: "1.0", ATTEMPT_TAG: "1",
    } | more  # fmt: skip


def tags_in(inbox: Path, upload: str) -> dict[str, str]:
    """With the key of what lies in the inbox: a run is of one stay there."""
    return tags(upload, **{UPLOAD_KEY_TAG: run_key(upload, look_at(inbox / upload, Looks()))})


def run_of(instance, upload: str, status: DagsterRunStatus, **more: str):
    return create_run_for_test(instance, "process_scan", status=status, tags=tags(upload, **more))


def test_a_scan_from_the_inbox_appears_with_its_package(toys, instance, api):
    write_toy_scan(toys.inbox / "parlour")
    result = toys.process(toys.inbox / "parlour", instance, tags=tags_in(toys.inbox, "parlour"))
    assert result.success
    assert following.follow(instance) == 1
    scan = Scan.objects.get()
    assert (scan.origin, scan.name, scan.state, scan.package) == ("inbox", "parlour", "done", "parlour")
    assert (scan.run_id, scan.release) == (result.run_id, "1.0")
    run = Run.objects.get()
    assert run.status == "SUCCESS" and run.scan == scan
    following.follow(instance)
    assert Scan.objects.count() == Run.objects.count() == 1


def test_a_scan_of_the_api_is_followed_to_its_package(toys, instance, api, taken):
    url = api.send(archive(), "attic.zip")
    upload = toys.inbox / taken[0]
    upload.unlink()
    write_toy_scan(upload)
    assert toys.process(upload, instance, tags=tags_in(toys.inbox, taken[0])).success
    following.follow(instance)
    said = api.state(url)
    assert said["state"] == "done" and said["message"] == "The room is ready."
    (letter,) = [file for file in said["files"] if file["name"] == "letter.txt"]
    answer = api.call("GET", letter["url"])
    assert answer.status_code == 200 and b"".join(answer.streaming_content)
    assert answer.headers["Content-Disposition"] == 'attachment; filename="letter.txt"'
    assert (
        answer.headers["X-Content-Type-Options"] == "nosniff" and "sandbox" in answer.headers["Content-Security-Policy"]
    )
    assert Scan.objects.count() == 1


def test_a_rejected_scan_tells_the_sentence(toys, instance, api, taken):
    url = api.send(archive(), "cellar.zip", webhook="https://93.184.216.34/hook")
    upload = toys.inbox / taken[0]
    assert not toys.process(upload, instance, tags=tags_in(toys.inbox, taken[0])).success
    following.follow(instance)
    said = api.state(url)
    assert said["state"] == "rejected" and ": expected " in said["reason"] and said["files"] == []
    assert Delivery.objects.get().event == "scan.rejected"
    assert (Path(toys.places.quarantine) / taken[0] / "reason.txt").read_text().strip() == said["reason"]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (DagsterRunStatus.NOT_STARTED, "queued"),
        (DagsterRunStatus.STARTING, "running"),
        (DagsterRunStatus.STARTED, "running"),
        (DagsterRunStatus.CANCELING, "cancelling"),
        (DagsterRunStatus.CANCELED, "cancelled"),
    ],
)
def test_a_status_of_a_run_is_a_state_of_its_scan(status, state, instance, api, taken):
    url = api.send(archive())
    run_of(instance, taken[0], status)
    following.follow(instance)
    assert api.state(url)["state"] == state


def test_a_run_that_failed_is_tried_again_until_its_upload_is_put_aside(toys, instance, api, taken):
    url = api.send(archive())
    run_of(instance, taken[0], DagsterRunStatus.FAILURE)
    following.follow(instance)
    said = api.state(url)
    assert said["state"] == "queued" and "it is tried again by itself" in said["reason"]
    (toys.inbox / taken[0]).rename(toys.inbox.parent / "elsewhere")
    following.follow(instance)
    said = api.state(url)
    assert said["state"] == "failed" and said["reason"] == "", (
        "what is inside of the platform is no customer's business"
    )
    assert Scan.objects.get().reason


def test_a_shadow_run_changes_nothing_for_the_customer(instance, api, taken):
    url = api.send(archive())
    run_of(instance, taken[0], DagsterRunStatus.STARTED)
    run_of(instance, taken[0], DagsterRunStatus.FAILURE, **{SHADOW_TAG: "true", RELEASE_TAG: "1.1"})
    following.follow(instance)
    assert api.state(url)["state"] == "running"
    assert sorted(run.is_shadow for run in Run.objects.all()) == [False, True]


def test_a_run_whose_upload_another_release_took_changes_nothing(instance, api, taken):
    url = api.send(archive())
    run_of(instance, taken[0], DagsterRunStatus.STARTED)
    run_of(instance, taken[0], DagsterRunStatus.FAILURE, **{TAKEN_BACK_TAG: "true", RELEASE_TAG: "1.1"})
    following.follow(instance)
    assert api.state(url)["state"] == "running"


def test_what_a_customer_has_stays_while_it_is_run_again(toys, instance, api, taken):
    write_toy_scan(toys.inbox / "parlour")
    assert toys.process(toys.inbox / "parlour", instance, tags=tags_in(toys.inbox, "parlour")).success
    following.follow(instance)
    scan = Scan.objects.get()
    again = {following.CONSOLE_TAG: str(scan.pk), RELEASE_TAG: "1.1"}
    run_of(instance, "parlour", DagsterRunStatus.FAILURE, **again)
    following.follow(instance)
    scan.refresh_from_db()
    assert (scan.state, scan.release, scan.runs.count()) == ("done", "1.0", 2)


def test_more_runs_than_a_look_takes_are_all_found(instance, home, monkeypatch, db):
    monkeypatch.setattr(following, "LIMIT", 3)
    for number in range(8):
        run_of(instance, f"room-{number}", DagsterRunStatus.STARTED)
    for _ in range(4):
        following.follow(instance)
    assert Scan.objects.count() == 8


def test_progress_counts_stages(toys, instance, api, taken, monkeypatch):
    write_toy_scan(toys.inbox / "parlour")
    result = toys.process(toys.inbox / "parlour", instance)
    from geomagic_dagster.console.scans.progress import progress_of

    with warnings.catch_warnings():
        warnings.simplefilter("error", CacheKeyWarning)  # some caches refuse what others only warn of
        progress = progress_of(instance, result.run_id)
    assert progress and (progress.done, progress.stages, progress.overall) == (progress.stages, progress.stages, 100.0)
