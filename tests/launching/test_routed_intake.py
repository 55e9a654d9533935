"""The intake starts an upload's run in the code location of the release that the routing table sends it to."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
import sqlalchemy.exc
from dagster import DagsterInstance, DagsterRunStatus, build_sensor_context
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget

from geomagic_dagster.guardrails.tags import FLAGS_TAG, FLIGHT_TAG, RELEASE_TAG, ROUTE_REVISION_TAG, RUN_KEY_TAG
from geomagic_dagster.launching import intake as intake_module
from geomagic_dagster.launching import intake_server
from geomagic_dagster.launching.intake import Intake, Refused
from geomagic_dagster.launching.intake_server import application
from geomagic_dagster.releases.routing import RoutingStore
from geomagic_dagster.releases.routing_changes import make_live, pin, set_default, set_flag, start_flight
from tests.toy_stages.installation import Toys
from tests.toy_stages.scans import write_toy_scan

SETTINGS = """telemetry: {enabled: false}
concurrency: {runs: {max_concurrent_runs: 0}}
"""  # all queue


@pytest.fixture
def instance(tmp_path):
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text(SETTINGS)
    with DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        yield instance


@pytest.fixture
def workspace(tmp_path, instance, monkeypatch):
    monkeypatch.setenv("TOY_HOME", str(tmp_path))
    origins = [
        InProcessCodeLocationOrigin(
            LoadableTargetOrigin(module_name="tests.launching.two_releases", attribute=attribute), location_name=name
        )
        for attribute, name in (("latest", "latest"), ("line_1_0", "1.0"))
    ]
    with create_test_daemon_workspace_context(InProcessWorkspaceLoadTarget(origins), instance) as workspace:
        yield workspace


@pytest.fixture
def routing(tmp_path) -> RoutingStore:
    return Toys(tmp_path).places.routing()


@pytest.fixture
def intake(tmp_path, workspace, routing) -> Intake:
    return Intake(workspace, tmp_path / "inbox", routing)


@pytest.fixture
def take_in(tmp_path, intake):
    return lambda name: intake.take_in_path(write_toy_scan(tmp_path / "elsewhere" / name))


def change(routing: RoutingStore, *edits) -> None:
    for edit in edits:
        routing.change(edit, by="ada", why="a test")


def test_a_run_starts_in_the_location_of_its_release_and_says_how_it_came_there(take_in, routing, instance):
    change(routing, make_live("1.0"), start_flight("1.0", 100, flight_id="f-1"), set_flag("fast", on=True))
    change(routing, pin("mine", "latest"))
    flown, pinned = (instance.get_run_by_id(take_in(name).run_id) for name in ("yours", "mine"))
    assert flown.remote_job_origin.location_name == "1.0" and flown.status == DagsterRunStatus.QUEUED
    said = {tag: flown.tags[tag] for tag in (RELEASE_TAG, FLIGHT_TAG, FLAGS_TAG, ROUTE_REVISION_TAG)}
    assert said == {RELEASE_TAG: "1.0", FLIGHT_TAG: "f-1", FLAGS_TAG: "fast", ROUTE_REVISION_TAG: "4"}
    assert pinned.remote_job_origin.location_name == "latest" and FLIGHT_TAG not in pinned.tags


def test_where_the_location_is_not_there_the_upload_is_left_to_its_sensor_and_it_is_said(
    take_in, routing, instance, tmp_path, caplog
):
    change(routing, make_live("1.7"), set_default("1.7"))
    with caplog.at_level(logging.WARNING):
        answer = take_in("room")
    assert (answer.run_id, answer.status) == (None, "WAITING")
    assert "room: no run yet, the sensor of release 1.7 will start it" in caplog.text
    (tmp_path / "inbox" / "room" / "upload.complete").touch()
    assert tick(Toys(tmp_path, "latest"), instance) == []
    assert [request.tags[RELEASE_TAG] for request in tick(Toys(tmp_path, "1.7"), instance)] == ["1.7"]


def test_where_no_table_is_known_the_upload_waits_in_the_inbox(workspace, tmp_path, caplog):
    routing = RoutingStore(f"unreliable://{tmp_path}/far/routing", tmp_path / "good.json")
    (tmp_path / "far.away").touch()
    answer = Intake(workspace, tmp_path / "inbox", routing).take_in_path(
        write_toy_scan(tmp_path / "elsewhere" / "room")
    )
    assert (answer.run_id, answer.status) == (None, "WAITING") and (tmp_path / "inbox" / "room").is_dir()
    assert "room: no run yet, since its release cannot be decided" in caplog.text


def test_what_lies_in_the_inbox_is_taken_in_whatever_becomes_of_its_run(intake, take_in, instance, monkeypatch, caplog):
    """Told that it failed, whoever sent it would send it again, and get two packages."""
    locked = Mock(side_effect=sqlalchemy.exc.OperationalError("INSERT", {}, Exception("database is locked")))
    monkeypatch.setattr(type(instance), "submit_run", locked)
    with caplog.at_level(logging.ERROR):
        answer = take_in("room")
    assert (answer.upload, answer.run_id, answer.status) == ("room", None, "WAITING")
    assert "room: expected its run to start; got this. It lies in the inbox" in caplog.text
    assert "database is locked" in caplog.text
    assert (intake.inbox / "room").is_dir()


def test_what_was_answered_for_is_on_the_disk(take_in, intake, monkeypatch):
    synced = []
    monkeypatch.setattr(intake_module, "sync_folder", lambda folder: synced.append(list(folder.glob("[!.]*"))))
    take_in("room")
    assert synced == [[intake.inbox / "room"]]


def test_a_disk_that_takes_a_part_of_what_it_is_given_gets_the_rest_too():
    class File(io.BytesIO):
        def write(self, content) -> int:
            return super().write(bytes(content[:3]))

    file, digest = File(), hashlib.sha256()
    intake_server._write(file, digest, b"a whole room")
    assert file.getvalue() == b"a whole room"
    assert digest.hexdigest() == hashlib.sha256(b"a whole room").hexdigest()


def test_the_sensor_asks_for_the_same_run_that_the_intake_made(intake, routing, instance, tmp_path):
    """So that Dagster finds it, should the intake have died behind it."""
    change(routing, make_live("1.0"), set_default("1.0"))
    archive = shutil.make_archive(str(tmp_path / "room"), "zip", write_toy_scan(tmp_path / "elsewhere" / "room"))
    made = instance.get_run_by_id(intake.take_in_path(Path(archive)).run_id)
    instance.delete_run(made.run_id)
    [request] = tick(Toys(tmp_path, "1.0"), instance)
    assert request.run_key == made.tags[RUN_KEY_TAG]


def test_what_another_intake_moved_away_at_this_moment_is_refused_in_words(intake, tmp_path, monkeypatch):
    def look_and_lose(path: Path) -> bool:
        shutil.rmtree(path)
        return True

    monkeypatch.setattr(intake_module, "_looks_like_upload", look_and_lose)
    with pytest.raises(Refused, match="room: expected an upload that nobody else takes in; got one that another"):
        intake.take_in_path(write_toy_scan(tmp_path / "elsewhere" / "room"))


def test_what_the_intake_did_not_expect_is_answered_in_words(monkeypatch, intake):
    def lose_the_disk():
        raise OSError("no disk")

    monkeypatch.setattr(intake, "part", lose_the_disk)
    status, answer = asyncio.run(post(application(intake, token=None), "/scans/room.zip"))
    assert status == 500
    assert answer["error"] == (
        "/scans/room.zip: expected the upload to be taken in; got OSError. Look at the intake's log, and send it again."
    )


async def post(app, path: str) -> tuple[int, dict]:
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [], "server": ("::1", 1)}
    with pytest.raises(OSError, match="no disk"):  # for the server's log
        await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


def tick(toys: Toys, instance: DagsterInstance) -> list:
    context = build_sensor_context(instance, resources={"places": toys.places}, definitions=toys.defs)
    with context:
        return list(toys.defs.resolve_sensor_def("upload_sensor").evaluate_tick(context).run_requests or ())
