"""Which release takes an upload: decided once, kept, and never two runs that begin on one upload."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus, build_sensor_context

from geomagic_dagster.guardrails.tags import (
    ATTEMPT_TAG,
    FLAGS_TAG,
    FLIGHT_TAG,
    RELEASE_TAG,
    ROUTE_REVISION_TAG,
    SHADOWS_TAG,
    TAKEN_BACK_TAG,
    UPLOAD_TAG,
)
from geomagic_dagster.jobs.assignments import TakenBack, assign, assign_anew, assigned, begin, forget, sweep
from geomagic_dagster.jobs.inbox import Looks, claimed, look_at, run_key
from geomagic_dagster.jobs.traffic import Traffic, sign_of_life
from geomagic_dagster.releases.routing import Route, RoutingStore
from geomagic_dagster.releases.routing_changes import (
    end_flight,
    make_live,
    pin,
    roll_back,
    set_default,
    set_flag,
    start_flight,
)
from tests.toy_stages.installation import Toys
from tests.toy_stages.scans import write_toy_scan


@pytest.fixture
def routing(tmp_path: Path) -> RoutingStore:
    return Toys(tmp_path).places.routing()


def change(routing: RoutingStore, *edits) -> None:
    for edit in edits:
        routing.change(edit, by="ada", why="a test")


def an_upload(inbox: Path, name: str) -> str:
    """A complete upload; returns its key."""
    (write_toy_scan(inbox / name) / "upload.complete").touch()
    return run_key(name, look_at(inbox / name, Looks()))


def tick(toys: Toys, instance: DagsterInstance, cursor: str | None = None):
    """One look of the sensor of a release."""
    release = toys.defs.resolve_job_def("process_scan").tags[RELEASE_TAG]
    context = build_sensor_context(instance, cursor=cursor, resources={"places": toys.places}, definitions=toys.defs)
    with context:
        found = toys.defs.resolve_sensor_def("upload_sensor").evaluate_tick(context)
    assert all(request.tags[RELEASE_TAG] == release for request in found.run_requests or ())
    return found


def taken(found) -> set[str]:
    return {request.tags[UPLOAD_TAG] for request in found.run_requests or ()}


def run(toys: Toys, instance: DagsterInstance, request, mood: dict | None = None):
    """What the daemon makes of a request, to its end."""
    config = {"ops": {**request.run_config["ops"], "mood": {"config": mood or {}}}}
    return toys.defs.resolve_job_def("process_scan").execute_in_process(
        run_config=config, instance=instance, tags=request.tags, raise_on_error=False
    )


# --- sensors --------------------------------------------------------------------------------------


def test_each_locations_sensor_takes_the_uploads_that_the_table_sends_it_and_no_other(tmp_path, routing):
    change(routing, make_live("1.0"), make_live("1.1"), set_default("1.0"), start_flight("1.1", 30, flight_id="f-1"))
    change(routing, pin("room-0", "latest"), set_flag("fast", on=True))
    change(routing, start_flight("latest", 100, shadow=True, flight_id="f-2"))
    toys = {release: Toys(tmp_path, release) for release in ("latest", "1.0", "1.1")}
    names = [f"room-{number}" for number in range(8)]
    for name in names:
        an_upload(tmp_path / "inbox", name)
    with DagsterInstance.ephemeral() as instance:
        found = {release: tick(each, instance) for release, each in toys.items()}
    by_release = {release: taken(each) for release, each in found.items()}
    assert sorted(name for some in by_release.values() for name in some) == names, "each by exactly one"
    table = routing.read().table
    assert all(table.choose(name).release == release for release, some in by_release.items() for name in some)
    assert by_release["latest"] == {"room-0"} and by_release["1.0"] and by_release["1.1"]
    tags = found["1.1"].run_requests[0].tags
    assert (tags[FLIGHT_TAG], tags[FLAGS_TAG], tags[ROUTE_REVISION_TAG]) == ("f-1", "fast", str(table.revision))
    assert tags[SHADOWS_TAG] == "latest:f-2"
    assert (
        FLIGHT_TAG not in found["1.0"].run_requests[0].tags and SHADOWS_TAG not in found["latest"].run_requests[0].tags
    )


def test_a_decision_holds_whatever_happens_to_the_table_until_the_upload_leaves(tmp_path, routing):
    change(routing, make_live("1.0"))
    key = an_upload(tmp_path / "inbox", "room")
    old, new = Toys(tmp_path, "latest"), Toys(tmp_path, "1.0")
    with DagsterInstance.ephemeral() as instance:
        assert taken(tick(new, instance)) == set(), "looked at by the other one first: it decides, and leaves it"
        change(routing, set_default("1.0"))
        for file in Path(routing.url).glob("*.json"):
            file.write_text("broken")
        assert taken(tick(new, instance)) == set()
        [request] = tick(old, instance).run_requests
        assert run(old, instance, request).success
    assert assigned(tmp_path / "inbox", key) is None
    assert not list((tmp_path / "inbox" / ".routes").glob("*.1.json"))


def test_while_no_table_is_known_uploads_wait_and_are_not_lost(tmp_path):
    toys = Toys(tmp_path, routing_url=f"unreliable://{tmp_path}/far/routing")
    an_upload(tmp_path / "inbox", "room")
    (tmp_path / "far.away").touch()
    with DagsterInstance.ephemeral() as instance:
        found = tick(toys, instance)
        assert not found.run_requests and "nothing is routed until it answers" in str(found.skip_message)
        (tmp_path / "far.away").unlink()
        assert taken(tick(toys, instance)) == {"room"}


def test_what_was_routed_to_a_release_that_is_rolled_back_and_has_not_begun_goes_to_the_default(tmp_path, routing):
    change(routing, make_live("1.1"), set_default("1.1"))
    worse, better = Toys(tmp_path, "1.1"), Toys(tmp_path, "latest")
    an_upload(tmp_path / "inbox", "room")
    with DagsterInstance.ephemeral() as instance:
        [late] = tick(worse, instance).run_requests  # asked for, and the daemon takes its time
        change(routing, roll_back("1.1"))
        [request] = tick(better, instance).run_requests
        assert request.run_key != late.run_key
        refused = run(worse, instance, late)
        assert not refused.success
        assert instance.get_run_by_id(refused.run_id).tags[TAKEN_BACK_TAG] == "true"
        [failure] = [event for event in refused.all_node_events if event.is_step_failure]
        assert "of which this is a run; got latest (release 1.1 was taken back by revision 3" in str(
            failure.step_failure_data.user_failure_data.description
        )
        assert (tmp_path / "inbox" / "room").exists(), "a run that is refused moves nothing"
        assert run(better, instance, request).success
    assert (tmp_path / "done" / "room").exists()
    assert json.loads((tmp_path / "packages" / "room.run.json").read_text())["release"] == "latest"


def test_attempts_keep_their_release_unless_it_was_taken_back(tmp_path, routing, monkeypatch):
    monkeypatch.setattr("geomagic_dagster.jobs.attempts.FIRST_WAIT_S", 0.0)
    change(routing, make_live("1.1"), start_flight("1.1", 100, flight_id="f-1"))
    flown, better = Toys(tmp_path, "1.1"), Toys(tmp_path, "latest")
    job = flown.defs.resolve_job_def("process_scan")
    key = an_upload(tmp_path / "inbox", "room")
    with DagsterInstance.ephemeral() as instance:

        def begun(request, status: DagsterRunStatus):
            run = instance.create_run_for_job(job, run_config=request.run_config, status=status, tags=request.tags)
            begin(tmp_path / "inbox" / "room", tmp_path / "inbox", key, "1.1", run.run_id, lambda run_id: False)
            return run

        begun(tick(flown, instance).run_requests[0], DagsterRunStatus.FAILURE)
        change(routing, end_flight("f-1"))
        assert taken(tick(better, instance)) == set(), "a flight that ended well keeps what it had"
        [second] = tick(flown, instance).run_requests
        assert second.tags[ATTEMPT_TAG] == "2"
        living = begun(second, DagsterRunStatus.STARTED)
        change(routing, start_flight("1.1", 100, flight_id="f-2"), end_flight("f-2", taken_back=True))
        assert taken(tick(better, instance)) == taken(tick(flown, instance)) == set(), "a run works on it"
        instance.report_run_failed(living)
        [third] = tick(better, instance).run_requests
        assert (third.tags[RELEASE_TAG], third.tags[ATTEMPT_TAG]) == ("latest", "3")
        assert taken(tick(flown, instance)) == set()


def test_a_second_look_of_an_older_table_takes_nothing_back(tmp_path, routing):
    """Another location still sees revision 1, where 1.1 is not live."""
    change(routing, pin("other", "latest"))
    stale = RoutingStore(routing.url, tmp_path / "stale.json").read()
    change(routing, make_live("1.1"), start_flight("1.1", 100))
    traffic = Traffic(tmp_path, routing, "new")
    held = traffic.of("room", "room 1")
    assert held.release == "1.1"
    other = Traffic(tmp_path, routing, "old")
    other.__dict__["reading"] = stale
    assert other.table.is_taken_back("1.1") and other.elsewhere(held) is None


# --- a location that is not there -----------------------------------------------------------------


def test_an_upload_whose_location_is_gone_goes_to_the_default_after_a_while_and_it_is_said(tmp_path, routing, caplog):
    change(routing, make_live("1.1"), start_flight("1.1", 100))
    start_s = time.time()
    held = Traffic(tmp_path, routing, "test").of("room", "room 1")
    assert held.release == "1.1"
    since_s = start_s
    for second in range(0, 150, 3):  # it has never looked, and latest looks all the time
        since_s = sign_of_life(tmp_path, "latest", start_s + second)
        traffic = Traffic(tmp_path, routing, "sensor of latest", since_s)
        elsewhere = traffic.elsewhere(held, start_s + second)
        assert (elsewhere is not None) == (second > 120), second
    assert elsewhere
    new = traffic.anew(held, *elsewhere)
    assert (new.release, new.decision) == ("latest", 2)
    assert any(
        "room: goes to release latest, not 1.1 any more: no sensor of release 1.1" in r.message for r in caplog.records
    )


def test_after_everything_was_down_nobody_is_taken_for_gone_at_once(tmp_path, routing):
    change(routing, make_live("1.1"), start_flight("1.1", 100))
    start_s = time.time()
    for release in ("latest", "1.1"):
        sign_of_life(tmp_path, release, start_s)
    held = Traffic(tmp_path, routing, "test").of("room", "room 1")
    later_s = start_s + 3600
    since_s = sign_of_life(tmp_path, "latest", later_s)  # an hour later latest is there first
    assert since_s == later_s
    assert Traffic(tmp_path, routing, "latest", since_s).elsewhere(held, later_s) is None


def test_where_the_default_itself_is_gone_an_upload_waits_and_it_is_said(tmp_path, routing, caplog):
    change(routing, make_live("1.0"), set_default("1.0"))
    held = Traffic(tmp_path, routing, "test").of("room", "room 1")
    assert Traffic(tmp_path, routing, "latest", time.time()).elsewhere(held, time.time() + 1000) is None
    assert "expected a sensor of release 1.0, the default; got none for" in caplog.text


# --- the log of an upload -------------------------------------------------------------------------


def nobody_lives(run_id: str) -> bool:
    return False


def test_old_code_reads_what_newer_code_decided_and_keeps_what_it_does_not_know(tmp_path):
    key = an_upload(tmp_path, "room")
    assign(tmp_path, "room", key, Route("1.0"), "test")
    [file] = (tmp_path / ".routes").iterdir()
    file.write_text(
        json.dumps({"schema": 4, "upload": "room", "key": key, "release": "1.1", "new": {"a": 1}, "decision": 1})
    )
    assert assigned(tmp_path, key).release == "1.1"
    begin(tmp_path / "room", tmp_path, key, "1.1", "run-1", nobody_lives)
    [second] = (tmp_path / ".routes").glob("*.2.json")
    written = json.loads(second.read_text())
    assert (written["schema"], written["new"], written["run_id"]) == (4, {"a": 1}, "run-1")


def test_a_broken_decision_is_passed_over_and_decided_anew(tmp_path, caplog):
    assign(tmp_path, "room", "room 1", Route("1.0"), "test")
    [file] = (tmp_path / ".routes").iterdir()
    file.write_text("{")
    assert assigned(tmp_path, "room 1") is None
    assert assign(tmp_path, "room", "room 1", Route("1.1"), "test").number == 2
    assert assigned(tmp_path, "room 1").release == "1.1"
    assert "It is passed over" in caplog.text


def test_a_run_begins_on_what_is_its_releases_and_nobody_else_works_on(tmp_path):
    key = an_upload(tmp_path, "room")
    upload = tmp_path / "room"
    assign(tmp_path, "room", key, Route("1.0"), "test")
    with pytest.raises(
        TakenBack, match="upload room: expected it to belong to release 1.1, of which this is a run; got 1.0"
    ):
        begin(upload, tmp_path, key, "1.1", "run-0", nobody_lives)
    for _ in range(2):  # a step that is tried again
        begin(upload, tmp_path, key, "1.0", "run-1", nobody_lives)
    with pytest.raises(TakenBack, match="expected that no other run works on it; got run run-1"):
        begin(upload, tmp_path, key, "1.0", "run-2", lambda run_id: run_id == "run-1")
    begin(upload, tmp_path, key, "1.0", "run-2", nobody_lives)  # run-1 has died
    with pytest.raises(TakenBack, match="got run run-2"):
        begin(upload, tmp_path, key, "1.0", "run-1", lambda run_id: run_id == "run-2")


def test_a_run_that_comes_after_its_upload_has_left_begins_nothing(tmp_path):
    key = an_upload(tmp_path, "room")
    assign(tmp_path, "room", key, Route("1.0"), "test")
    shutil.rmtree(tmp_path / "room")
    forget(tmp_path, key)
    for _ in range(2):
        with pytest.raises(TakenBack, match="expected the upload that this run was made for; got none or another one"):
            begin(tmp_path / "room", tmp_path, key, "1.0", "run-1", nobody_lives)
        (tmp_path / "room").mkdir(exist_ok=True)  # another one of the same name


def test_what_killed_processes_left_is_swept_and_what_waits_is_kept(tmp_path):
    waiting, gone = an_upload(tmp_path, "waiting"), an_upload(tmp_path, "gone")
    for name, key in (("waiting", waiting), ("gone", gone)):
        assign(tmp_path, name, key, Route("1.0"), "test")
        begin(tmp_path / name, tmp_path, key, "1.0", "run", nobody_lives)
    shutil.rmtree(tmp_path / "gone")
    sweep(tmp_path)
    assert assigned(tmp_path, gone), "it may have left just now"
    sweep(tmp_path, time.time() + 4000)
    assert assigned(tmp_path, gone) is None and assigned(tmp_path, waiting)
    assert len(list((tmp_path / ".routes").iterdir())) == 2


# --- many processes at once -----------------------------------------------------------------------


def _location(folder: Path, release: str, names: list[str], seed: int, began, stop) -> None:
    """A location that looks at the inbox again and again, with a table of its own that changes its mind all the time;
    what it thinks is its own it lets a run begin, at any later moment."""
    chance = random.Random(seed)
    inbox = folder / "inbox"
    late: list[tuple[str, str]] = []
    while not stop.is_set():
        for name in names:
            key = f"{name} 1"
            held = assign(inbox, name, key, Route(chance.choice(("1.0", "1.1"))), release)
            if held.run_id is None and chance.random() < 0.3:
                held = assign_anew(inbox, held, Route(chance.choice(("1.0", "1.1"))), release, "it changed its mind")
            if held.release == release and held.run_id is None:
                late.append((name, f"{release} {seed} {os.getpid()} {len(late)}"))
        chance.shuffle(late)
        for name, run_id in late[:3]:
            with suppress(TakenBack):
                begin(inbox / name, inbox, f"{name} 1", release, run_id, lambda other: True)
                began.put((name, run_id))
        late = late[3:30]


def test_locations_with_different_ideas_of_the_table_never_both_begin_on_an_upload(tmp_path):
    names = [f"room-{number}" for number in range(12)]
    for name in names:
        (tmp_path / "inbox" / name).mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    began, stop = context.SimpleQueue(), context.Event()
    crowd = [
        context.Process(target=_location, args=(tmp_path, release, names, seed, began, stop))
        for seed, release in enumerate(("1.0", "1.1", "1.0", "1.1"))
    ]
    for each in crowd:
        each.start()
    found: dict[str, set[str]] = {name: set() for name in names}
    deadline_s = time.monotonic() + 60
    while not all(found.values()) and time.monotonic() < deadline_s:
        name, run_id = began.get()
        found[name].add(run_id)
    stop.set()
    while any(each.is_alive() for each in crowd) or not began.empty():
        if not began.empty():
            name, run_id = began.get()
            found[name].add(run_id)
        for each in crowd:
            each.join(0.01)
    assert [each.exitcode for each in crowd] == [0] * 4
    assert {name: len(runs) for name, runs in found.items()} == dict.fromkeys(names, 1)
    for name in names:
        held = assigned(tmp_path / "inbox", f"{name} 1")
        assert {held.run_id} == found[name] and held.run_id.startswith(held.release)


def _intake_or_sensor(folder: Path, name: str, release: str, is_intake: bool, answers) -> None:
    """Both decide by a table of their own, where everything goes to `release`."""
    store = RoutingStore(str(folder / f"table of {release}"), folder / f"good {release}.json")
    if is_intake:
        with claimed(folder, name):
            held = Traffic(folder, store, "intake").of(name, f"{name} 1")
    else:
        held = Traffic(folder, store, f"sensor of {release}").of(name, f"{name} 1")
    answers.put((name, held.release))


def test_intake_and_sensors_with_tables_of_their_own_agree_on_every_upload(tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    for release in ("1.0", "1.1", "1.2"):
        store = RoutingStore(str(tmp_path / f"table of {release}"), tmp_path / f"good {release}.json")
        change(store, make_live(release), set_default(release))
    crowd = [
        context.Process(target=_intake_or_sensor, args=(tmp_path, f"room-{n}", release, release == "1.2", answers))
        for n in range(8)
        for release in ("1.0", "1.1", "1.2")
    ]
    for each in crowd:
        each.start()
    said = [answers.get() for _ in crowd]
    for each in crowd:
        each.join()
    assert len(said) == 24 and len(set(said)) == 8, "three who looked at each of eight uploads, and one answer for each"
