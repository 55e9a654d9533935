"""A shadow run sees what the customer's run saw, publishes nothing, and never costs a customer time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus, build_sensor_context

from geomagic_dagster.flighting import shadows
from geomagic_dagster.flighting.shadows import Cursor, give_way
from geomagic_dagster.guardrails.tags import (
    FLIGHT_TAG,
    PRIORITY_TAG,
    RELEASE_TAG,
    SCAN_TAG,
    SHADOW_OF_TAG,
    SHADOW_TAG,
    SHADOWS_TAG,
    UPLOAD_TAG,
)
from geomagic_dagster.jobs.attempts import standing
from geomagic_dagster.releases.routing_changes import end_flight, make_live, start_flight
from tests.toy_stages.installation import Toys
from tests.toy_stages.scans import write_toy_scan


@pytest.fixture
def instance():
    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def customers(tmp_path) -> Toys:
    toys = Toys(tmp_path)
    routing = toys.places.routing()
    routing.change(make_live("1.1"), by="ada", why="a test")
    routing.change(start_flight("1.1", 100, shadow=True, flight_id="f-s"), by="ada", why="a test")
    return toys


@pytest.fixture
def shadow(tmp_path, customers) -> Toys:
    return Toys(tmp_path, "1.1")


def tick(toys: Toys, instance: DagsterInstance, sensor: str = "shadow_sensor", cursor: str | None = None):
    context = build_sensor_context(instance, cursor=cursor, resources={"places": toys.places}, definitions=toys.defs)
    with context:
        return toys.defs.resolve_sensor_def(sensor).evaluate_tick(context)


def run(toys: Toys, instance: DagsterInstance, request, **mood):
    config = {"ops": {**request.run_config["ops"], "mood": {"config": mood}}}
    return toys.defs.resolve_job_def("process_scan").execute_in_process(
        run_config=config, instance=instance, tags=request.tags, raise_on_error=False
    )


def served(customers: Toys, instance: DagsterInstance, name: str = "room"):
    """A customer's run, at its end."""
    (write_toy_scan(customers.inbox / name) / "upload.complete").touch()
    [request] = tick(customers, instance, "upload_sensor").run_requests
    result = run(customers, instance, request)
    assert result.success
    return result


def files(toys: Toys) -> dict[str, bytes]:
    folders = (toys.places.packages, toys.places.done, toys.places.inbox, toys.places.quarantine, toys.places.failed)
    paths = (path for folder in folders for path in Path(folder).rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in paths if ".routes" not in path.parts}


def long_ago() -> str:
    return Cursor(0.0).dumps()


def test_a_shadow_run_follows_the_customers_publishes_nothing_and_its_numbers_are_recorded(customers, shadow, instance):
    of = served(customers, instance)
    before = files(customers)
    found = tick(shadow, instance, cursor=long_ago())
    [request] = found.run_requests
    assert request.run_config["ops"]["scan"]["config"]["upload"] == str(Path(customers.places.done) / "room")
    assert request.tags[SCAN_TAG] == "room" and UPLOAD_TAG not in request.tags
    assert (request.tags[SHADOW_TAG], request.tags[SHADOW_OF_TAG]) == ("true", of.run_id)
    assert (request.tags[FLIGHT_TAG], request.tags[PRIORITY_TAG]) == ("f-s", "-10")
    result = run(shadow, instance, request)
    assert result.success and instance.get_run_by_id(result.run_id).tags[RELEASE_TAG] == "1.1"
    assert files(customers) == before
    events = instance.get_records_for_run(result.run_id, of_type=DagsterEventType.STEP_OUTPUT).records
    metadata = {
        each.event_log_entry.dagster_event.step_key: each.event_log_entry.dagster_event.step_output_data.metadata
        for each in events
    }
    assert metadata["publish"]["shadow"].value is True
    assert any(name not in ("seconds", "attempt") for name in metadata["shades"]), "numbers of the stage"
    assert json.loads((Path(customers.places.packages) / "room.run.json").read_text())["run_id"] == of.run_id
    assert not tick(shadow, instance, cursor=found.cursor).run_requests, "each customer's run once"


@pytest.mark.parametrize("mood", [{"rejects": True}, {"trouble": "bug"}])
def test_a_shadow_run_that_fails_moves_nothing(customers, shadow, instance, mood):
    served(customers, instance)
    before = files(customers)
    [request] = tick(shadow, instance, cursor=long_ago()).run_requests
    assert not run(shadow, instance, request, **mood).success
    assert files(customers) == before
    assert standing(instance, "room", "any", 0.0).what == "start", "it is no attempt at the customer's upload"


def test_a_release_sees_copies_only_while_its_shadow_flight_lasts_and_none_of_before(
    customers, published, shadow, instance, monkeypatch
):
    monkeypatch.setattr(shadows, "OVERLAP_S", 0.0)
    assert not tick(shadow, instance, cursor=None).run_requests, "what ended before the first look is not shadowed"
    assert not tick(customers, instance, cursor=long_ago()).run_requests
    customers.places.routing().change(end_flight("f-s"), by="ada", why="seen enough")
    found = tick(shadow, instance, cursor=long_ago())
    assert not found.run_requests and found.skip_message == "release 1.1 sees no copies"


@pytest.fixture
def published(customers, instance, monkeypatch) -> Path:
    """The upload of a customer's run that has ended, made up."""
    return made_up(customers, instance, monkeypatch)


def made_up(customers: Toys, instance: DagsterInstance, monkeypatch) -> Path:
    upload = Path(customers.places.done) / "room"
    upload.mkdir(parents=True)
    a_run(customers, instance, DagsterRunStatus.SUCCESS, **{SHADOWS_TAG: "1.1:f-s", SCAN_TAG: "room"})
    monkeypatch.setattr(shadows, "published_from", lambda instance, run: upload)
    return upload


def test_an_upload_that_was_deleted_since_is_not_seen(published, shadow, instance):
    published.rmdir()
    assert not tick(shadow, instance, cursor=long_ago()).run_requests


def test_a_copy_that_would_come_too_late_is_left_out(published, shadow, instance, monkeypatch):
    assert tick(shadow, instance, cursor=long_ago()).run_requests
    monkeypatch.setattr(shadows, "LATE_S", -60.0)
    assert not tick(shadow, instance, cursor=long_ago()).run_requests


def a_run(toys: Toys, instance: DagsterInstance, status: DagsterRunStatus, **tags: str):
    config = {"ops": {"scan": {"config": {"upload": "x"}}}}
    job = toys.defs.resolve_job_def("process_scan")
    return instance.create_run_for_job(job, run_config=config, status=status, tags=tags)


def test_no_shadow_run_starts_while_a_customer_waits_or_another_one_is_there(customers, published, shadow, instance):
    waiting = a_run(customers, instance, DagsterRunStatus.NOT_STARTED)
    found = tick(shadow, instance, cursor=long_ago())
    assert not found.run_requests and found.skip_message == "a run of a customer waits"
    instance.report_run_canceled(waiting)
    other = a_run(shadow, instance, DagsterRunStatus.STARTED, **{SHADOW_TAG: "true"})
    found = tick(shadow, instance, cursor=found.cursor)
    assert not found.run_requests and found.skip_message == f"shadow run {other.run_id[:8]} is there already"
    instance.report_run_canceled(other)
    assert len(tick(shadow, instance, cursor=found.cursor).run_requests) == 1, "its turn has come, and nothing is lost"


def test_one_place_is_kept_for_a_customer(customers, shadow, tmp_path, monkeypatch):
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\nconcurrency: {runs: {max_concurrent_runs: 2}}\n"
    )
    with DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        made_up(customers, instance, monkeypatch)
        running = a_run(customers, instance, DagsterRunStatus.STARTED)
        found = tick(shadow, instance, cursor=long_ago())
        assert found.skip_message == "1 of 2 runs are in progress, and one place is kept for a customer"
        instance.report_run_canceled(running)
        assert tick(shadow, instance, cursor=found.cursor).run_requests


def test_a_shadow_run_gives_way_as_soon_as_a_run_waits(customers, shadow, instance, monkeypatch):
    canceled: list[str] = []
    monkeypatch.setattr(
        type(instance.run_coordinator), "cancel_run", lambda self, run_id: canceled.append(run_id) or True
    )
    mine = a_run(shadow, instance, DagsterRunStatus.STARTED, **{SHADOW_TAG: "true", RELEASE_TAG: "1.1"})
    assert give_way(instance, "1.1") == [] == canceled
    a_run(customers, instance, DagsterRunStatus.NOT_STARTED)
    assert give_way(instance, "latest") == [], "each location ends its own"
    assert give_way(instance, "1.1") == [mine.run_id] == canceled


def test_the_steps_of_a_shadow_run_give_way_to_everything_else(customers, shadow, instance, tmp_path, monkeypatch):
    asked = tmp_path / "nice"
    real, before = os.nice, os.nice(0)
    monkeypatch.setattr(os, "nice", lambda more: asked.write_text(f"{more} {real(more)}"))
    served(customers, instance)
    assert not asked.exists()
    [request] = tick(shadow, instance, cursor=long_ago()).run_requests
    assert run(shadow, instance, request).success
    if asked.exists():  # forked off this process, which knows of the patch
        assert asked.read_text().split()[0] == "15"
    assert real(0) == before, "the run's own process is as it was"
