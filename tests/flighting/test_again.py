"""Uploads that a release failed on come back once it was taken back, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster import RunsFilter

from geomagic_dagster.guardrails.tags import AGAIN_TAG, UPLOAD_TAG
from geomagic_dagster.releases.routing_changes import end_flight, pin

BUG = {"fails": "bug"}


def put_aside(house, name: str) -> Path:
    folder = Path(house.places.failed) / name
    folder.mkdir(parents=True)
    (folder / "reason.txt").write_text("a mistake in the code")
    (folder / name).write_text("the scan")
    return folder


def in_the_inbox(house) -> list[str]:
    return sorted(path.name for path in Path(house.places.inbox).glob("[!.]*"))


@pytest.fixture
def flown(house):
    house.live("latest", "1.0", "1.2")
    house.fly("1.2", 50.0)
    house.run("room.zip", "1.2", 3, BUG)
    house.folder = put_aside(house, "room.zip")
    return house


def test_what_a_release_failed_on_is_taken_up_again_once_it_was_taken_back_and_only_once(flown):
    watcher = flown.watcher()
    watcher.look()
    assert in_the_inbox(flown) == [], "its release may still be right"

    flown.routing.change(end_flight("1.2", taken_back=True), by="watcher", why="it is worse")
    watcher.look()
    assert in_the_inbox(flown) == ["room.zip"]
    assert not flown.folder.exists()
    watcher.look()
    assert in_the_inbox(flown) == ["room.zip"]
    assert watcher.counts.problem == ""


def test_the_run_says_that_its_upload_was_taken_up_again(flown):
    (run,) = flown.instance.get_runs(RunsFilter(tags={UPLOAD_TAG: "room.zip"}))
    revision = flown.routing.change(end_flight("1.2", taken_back=True), by="watcher", why="it is worse").revision
    flown.watcher().look()
    assert flown.instance.get_run_by_id(run.run_id).tags[AGAIN_TAG] == str(revision)


def test_a_scan_that_is_pinned_to_the_release_stays_aside(flown):
    flown.routing.change(pin("room", "1.2"), by="ada", why="its owner wants it")
    flown.routing.change(end_flight("1.2", taken_back=True), by="watcher", why="it is worse")
    flown.watcher().look()
    assert flown.folder.exists() and in_the_inbox(flown) == [], "it would fail there again, and for ever"


def test_a_flight_that_somebody_ends_without_taking_the_release_back_changes_nothing(flown):
    flown.routing.change(end_flight("1.2"), by="ada", why="seen enough")
    flown.watcher().look()
    assert in_the_inbox(flown) == []


@pytest.mark.parametrize("name", ["other.zip", "smoke-1_2-20260101T000000Z", "nobody-knows.zip", "worked.zip"])
def test_failures_of_the_default_smoke_scans_and_strangers_stay_aside(flown, name):
    flown.run("other.zip", "latest", 3, BUG)
    flown.run("smoke-1_2-20260101T000000Z", "1.2", 3, BUG)
    flown.run("worked.zip", "1.2", 3, {})
    flown.routing.change(end_flight("1.2", taken_back=True), by="watcher", why="it is worse")
    folder = put_aside(flown, name)
    flown.watcher().look()
    assert folder.exists()
    assert in_the_inbox(flown) == ["room.zip"]


def test_one_that_the_default_fails_on_too_stays_aside_for_a_person(flown):
    flown.routing.change(end_flight("1.2", taken_back=True), by="watcher", why="it is worse")
    watcher = flown.watcher()
    watcher.look()
    (Path(flown.places.inbox) / "room.zip").unlink()
    flown.run("room.zip", "latest", 4, BUG)
    folder = put_aside(flown, "room.zip")
    watcher.look()
    assert folder.exists() and in_the_inbox(flown) == []


def test_what_somebody_dropped_among_the_failed_ones_keeps_no_upload_from_being_taken_up(flown):
    (Path(flown.places.failed) / "a note.txt").write_text("look at room.zip")
    flown.routing.change(end_flight("1.2", taken_back=True), by="watcher", why="it is worse")
    watcher = flown.watcher()
    watcher.look()
    assert in_the_inbox(flown) == ["room.zip"] and watcher.counts.problem == ""
