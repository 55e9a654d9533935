"""What a release rejected goes to the default once that release was taken back: once, and nothing else does."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geomagic_dagster.flighting import rejected
from geomagic_dagster.flighting.promote import make_default, roll_back
from geomagic_dagster.flighting.taken_back import TakenBackReleases
from geomagic_dagster.guardrails.tags import (
    AGAIN_TAG,
    FLIGHT_TAG,
    SCAN_TAG,
    SHADOW_TAG,
    TAKEN_BACK_TAG,
    UPLOAD_TAG,
)
from geomagic_dagster.jobs.inbox import claimed, move_aside
from geomagic_dagster.releases.routing import RoutingStore
from geomagic_dagster.releases.routing_changes import end_flight, make_live, pin, revoke, start_flight
from tests.flighting.conftest import KILLED, SENTENCE

REJECTS = {"fails": "rejected"}
BUG = {"fails": "bug"}
FINE: dict = {}


def put_into_quarantine(house, name: str, reason: str = SENTENCE) -> Path:
    """As the failure hook does it."""
    inbox = Path(house.places.inbox)
    (inbox / name).write_text("the scan")
    place = move_aside(inbox / name, inbox, Path(house.places.quarantine), reason)
    assert place is not None
    return place


def reject(house, name: str, release: str = "1.2", **tags: str) -> tuple[str, Path]:
    """The release rejects an upload that the table of now sends to it."""
    flights = [each.id for each in house.routing.read().table.flights if each.release == release]
    tags = {FLIGHT_TAG: flights[0]} | tags if flights else tags
    run_id = house.run(name, release, house.routing.read().table.revision, REJECTS, **tags)
    return run_id, put_into_quarantine(house, name)


def in_the_inbox(house) -> list[str]:
    return sorted(path.name for path in Path(house.places.inbox).glob("[!.]*"))


def tag_of(house, run_id: str) -> str | None:
    return house.instance.get_run_by_id(run_id).tags.get(AGAIN_TAG)


def take_back(house, release: str = "1.2") -> int:
    return house.routing.change(end_flight(release, taken_back=True), by="watcher", why="it is worse").revision


@pytest.fixture
def flown(house):
    house.live("latest", "1.0", "1.2")
    house.fly("1.2", 50.0)
    return house


def test_a_rejection_goes_to_the_default_once_its_release_was_taken_back_and_only_once(flown):
    run_id, folder = reject(flown, "room.zip")
    watcher = flown.watcher()
    watcher.look()
    assert in_the_inbox(flown) == [], "its release may be right"
    revision = take_back(flown)
    watcher.look()
    assert in_the_inbox(flown) == ["room.zip"]
    assert not folder.exists()
    assert tag_of(flown, run_id) == str(revision)
    for each in (watcher, flown.watcher()):
        each.look()
        assert in_the_inbox(flown) == ["room.zip"]
        assert each.counts.problem == ""


def test_what_the_default_rejects_too_stays_in_quarantine(flown):
    reject(flown, "room.zip")
    revision = take_back(flown)
    watcher = flown.watcher()
    watcher.look()
    (Path(flown.places.inbox) / "room.zip").unlink()
    flown.run("room.zip", "latest", revision, REJECTS)
    folder = put_into_quarantine(flown, "room.zip")
    for each in (watcher, flown.watcher()):
        each.look()
        assert folder.exists() and in_the_inbox(flown) == []


@pytest.mark.parametrize("killed_at", ["rejected: tagged", "rejected: moved", None])
def test_killed_at_any_moment_it_is_taken_up_once(flown, killed_at):
    run_id, folder = reject(flown, "room.zip")
    revision = take_back(flown)
    assert flown.look_in_a_process(killed_at) == (KILLED if killed_at else 0)
    assert len([*in_the_inbox(flown), *Path(flown.places.quarantine).glob("*/room.zip")]) == 1
    flown.watcher().look()
    assert in_the_inbox(flown) == ["room.zip"]
    assert tag_of(flown, run_id) == str(revision)
    flown.run("room.zip", "latest", revision, FINE)
    (Path(flown.places.inbox) / "room.zip").unlink()
    flown.watcher().look()
    assert in_the_inbox(flown) == []
    assert not folder.exists(), "nothing is counted as a rejection that is none any more"


def test_killed_between_upload_and_reason_the_folder_goes_when_the_last_run_is_over(flown, monkeypatch):
    """The one gap inside the move itself."""
    run_id, folder = reject(flown, "room.zip")
    take_back(flown)

    class Killed(BaseException):
        pass

    def die(path):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("geomagic_dagster.jobs.inbox.shutil.rmtree", die)
        with pytest.raises(Killed):
            flown.watcher().look()
    assert in_the_inbox(flown) == ["room.zip"]
    assert [path.name for path in folder.iterdir()] == ["reason.txt"]
    flown.watcher().look()
    assert not folder.exists()
    assert in_the_inbox(flown) == ["room.zip"]
    assert tag_of(flown, run_id)


def test_a_default_that_is_rolled_back_gives_its_rejections_back(house):
    house.live("latest", "1.0", "1.2")
    reject(house, "before.zip", "latest")
    make_default(house.routing, "1.2", by="ada", why="ready")
    reject(house, "room.zip")
    roll_back(house.routing, by="ada", why="walls are missing")
    house.watcher().look()
    assert in_the_inbox(house) == ["room.zip"]


def test_a_release_that_is_revoked_gives_its_last_rejections_back(house):
    house.live("latest", "1.2")
    house.fly("1.2", 50.0)
    reject(house, "room.zip")
    house.routing.change(end_flight("1.2"), by="ada", why="seen enough")
    house.watcher().look()
    assert in_the_inbox(house) == []
    house.routing.change(revoke("1.2"), by="ada", why="it was wrong all along")
    house.watcher().look()
    assert in_the_inbox(house) == ["room.zip"]


def test_a_flight_that_somebody_ends_without_taking_the_release_back_changes_nothing(flown):
    reject(flown, "room.zip")
    flown.routing.change(end_flight("1.2"), by="ada", why="seen enough")
    flown.watcher().look()
    assert in_the_inbox(flown) == []


def test_only_rejections_of_the_flight_that_ended_badly_count(flown):
    reject(flown, "old.zip")
    flown.routing.change(end_flight("1.2"), by="ada", why="seen enough")
    flown.fly("1.2", 20.0)
    reject(flown, "new.zip")
    take_back(flown)
    flown.watcher().look()
    assert in_the_inbox(flown) == ["new.zip"]


def test_a_run_that_was_on_its_way_when_its_release_was_taken_back_counts_too(flown):
    routed_by = flown.routing.read().table.revision
    take_back(flown)
    watcher = flown.watcher()
    watcher.look()
    flown.run("room.zip", "1.2", routed_by, REJECTS)
    put_into_quarantine(flown, "room.zip")
    watcher.look()
    assert in_the_inbox(flown) == ["room.zip"]


def test_only_what_it_rejected_and_nobody_has_touched_since(flown):
    table = flown.routing.read().table
    _, by_hand = reject(flown, "by-hand.zip")
    (by_hand / "reason.txt").write_text("This room is nobody's business. (ada)\n")
    reject(flown, "sent-again.zip")
    flown.run("sent-again.zip", "latest", table.revision, FINE)
    reject(flown, "run-by-a-person.zip")
    flown.run("x", "1.0", None, FINE, **{SCAN_TAG: "run-by-a-person.zip", UPLOAD_TAG: "run-by-a-person.zip"})
    reject(flown, "of-the-default.zip", "latest")
    reject(flown, "a-copy.zip", **{SHADOW_TAG: "true"})
    reject(flown, "smoke-1_2-20260101T000000Z")
    flown.run("a-bug.zip", "1.2", table.revision, BUG)
    put_into_quarantine(flown, "a-bug.zip")
    flown.run("worked.zip", "1.2", table.revision, FINE)
    put_into_quarantine(flown, "worked.zip")
    put_into_quarantine(flown, "nobody-knows.zip")
    _, gone = reject(flown, "forgotten.zip")
    (gone / "forgotten.zip").unlink()
    reject(flown, "room.zip")
    take_back(flown)
    watcher = flown.watcher()
    watcher.look()
    watcher.look()
    assert in_the_inbox(flown) == ["room.zip"]
    assert watcher.counts.problem == ""
    assert (gone / "reason.txt").exists(), "nothing was moved, so nothing is to be cleared up"


def test_a_run_that_never_began_says_nothing_about_its_upload(flown):
    reject(flown, "room.zip")
    flown.run("room.zip", "1.2", None, {"fails": "taken_back"}, **{TAKEN_BACK_TAG: "true"})
    take_back(flown)
    flown.watcher().look()
    assert in_the_inbox(flown) == ["room.zip"]


def test_a_scan_that_is_pinned_to_the_release_stays(flown):
    reject(flown, "room.zip")
    flown.routing.change(pin("room", "1.2"), by="ada", why="its owner wants it")
    take_back(flown)
    flown.watcher().look()
    assert in_the_inbox(flown) == []


def test_it_waits_for_another_upload_of_the_same_name(flown):
    reject(flown, "room.zip")
    take_back(flown)
    (Path(flown.places.inbox) / "room.zip").write_text("another one")
    watcher = flown.watcher()
    watcher.look()
    assert in_the_inbox(flown) == ["room.zip"], "beside it, it would be room.zip-2, which is no archive"
    (Path(flown.places.inbox) / "room.zip").unlink()
    with claimed(Path(flown.places.inbox), "room.zip"):
        watcher.look()
        assert in_the_inbox(flown) == []
    watcher.look()
    assert (Path(flown.places.inbox) / "room.zip").read_text() == "the scan"


def test_of_two_rejections_of_one_name_the_last_one_is_taken_up(flown):
    _, first = reject(flown, "room.zip")
    (first / "room.zip").write_text("the first try")
    os.utime(first, (time.time() - 60,) * 2)
    reject(flown, "room.zip")
    take_back(flown)
    flown.watcher().look()
    assert (Path(flown.places.inbox) / "room.zip").read_text() == "the scan"
    assert (first / "room.zip").exists()


def test_names_are_taken_as_they_are(flown):
    for name in ("a[b]*.zip", "ab.zip", "-rf.zip", "ein Zimmer ü.zip"):
        reject(flown, name)
    take_back(flown)
    flown.watcher().look()
    assert in_the_inbox(flown) == sorted(["a[b]*.zip", "ab.zip", "-rf.zip", "ein Zimmer ü.zip"])


def test_a_few_at_a_time_until_all_are_through(flown, monkeypatch):
    monkeypatch.setattr(rejected, "AT_A_TIME", 3)
    monkeypatch.setattr(rejected, "PAGE", 4)
    monkeypatch.setattr(rejected, "LOOKED_AT", 5)
    names = [f"room-{n:02d}.zip" for n in range(10)]
    for name in names:
        reject(flown, name)
    take_back(flown)
    watcher, seen = flown.watcher(), []
    for _ in range(20):
        watcher.look()
        there = in_the_inbox(flown)
        assert len(there) <= 3
        seen += there
        for name in there:
            (Path(flown.places.inbox) / name).unlink()
    assert sorted(seen) == names


def test_what_was_rejected_long_ago_stays(flown, monkeypatch):
    reject(flown, "room.zip")
    take_back(flown)
    monkeypatch.setattr(rejected, "RECENT_S", 0.0)
    flown.watcher().look()
    assert in_the_inbox(flown) == []


def test_an_upload_that_somebody_takes_away_at_this_moment_leaves_no_promise(flown, monkeypatch):
    run_id, _ = reject(flown, "room.zip")
    take_back(flown)

    def gone(aside, inbox):
        raise FileNotFoundError(errno.ENOENT, "gone", str(aside))

    monkeypatch.setattr(rejected, "take_back", gone)
    watcher = flown.watcher()
    watcher.look()
    assert tag_of(flown, run_id) == ""
    assert watcher.counts.problem == ""


# --- the history of the table -----------------------------------------------------------------------


def test_the_time_of_a_release_begins_where_it_got_uploads_without_a_gap(house):
    house.live("1.0", "1.2")
    house.fly("1.2", 10.0)
    house.routing.change(end_flight("1.2"), by="ada", why="seen enough")
    began = house.routing.change(start_flight("1.2", 20.0), by="ada", why="once more").revision
    house.routing.change(start_flight("1.2", 30.0), by="ada", why="more")
    make_default(house.routing, "1.2", by="ada", why="good")
    taken_back = roll_back(house.routing, by="ada", why="bad").revision
    table = house.routing.read().table
    said = TakenBackReleases(house.routing).look(table)["1.2"]
    assert (said.first, said.last, said.revision) == (began, taken_back - 1, taken_back)
    assert said.routed(str(began)) and not said.routed(str(began - 1)) and not said.routed("") and not said.routed("-1")
    assert said.at_s == pytest.approx(time.time(), abs=600)


def test_a_release_that_only_saw_copies_had_no_uploads(house):
    house.live("1.2")
    house.fly("1.2", 10.0, shadow=True)
    take_back(house)
    assert TakenBackReleases(house.routing).look(house.routing.read().table) == {}


def test_who_flies_again_is_trusted_again(house):
    house.live("1.2")
    house.fly("1.2", 10.0)
    take_back(house)
    known = TakenBackReleases(house.routing)
    assert set(known.look(house.routing.read().table)) == {"1.2"}
    house.fly("1.2", 10.0)
    assert known.look(house.routing.read().table) == {}
    second = take_back(house)
    assert known.look(house.routing.read().table)["1.2"].revision == second


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(["fly 1.1", "fly 1.2", "end 1.1", "end 1.2", "worse 1.1", "worse 1.2", "look"])))
def test_followed_step_by_step_it_says_the_same_as_read_at_once(tmp_path_factory, steps):
    home = tmp_path_factory.mktemp("table")
    routing = RoutingStore(str(home / "routing"), home / "last_good.json")
    for release in ("1.1", "1.2"):
        routing.change(make_live(release), by="ada", why="installed")
    step_by_step = TakenBackReleases(routing)
    for step in steps:
        what, _, release = step.partition(" ")
        table = routing.read().table
        flies = release in {each.release for each in table.flights}
        if what == "look":
            step_by_step.look(table)
        elif what == "fly":
            routing.change(start_flight(release, 10.0), by="ada", why=what)
        elif flies:
            routing.change(end_flight(release, taken_back=what == "worse"), by="ada", why=what)
    table = routing.read().table
    assert step_by_step.look(table) == TakenBackReleases(routing).look(table)
    assert all(said.first <= said.last < said.revision for said in step_by_step.look(table).values())
