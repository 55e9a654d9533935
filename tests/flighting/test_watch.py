"""The watcher on a real Dagster instance and a real routing table: what it ends, what it leaves, and being killed."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dagster import DagsterEvent

from geomagic_dagster.flighting.course import read_course
from geomagic_dagster.flighting.observe import Observer
from geomagic_dagster.flighting.promote import make_default, roll_back
from geomagic_dagster.flighting.watch import CannotWatch, only_one
from geomagic_dagster.guardrails.tags import FLIGHT_TAG, RELEASE_TAG, SCAN_TAG, SHADOW_TAG, TAKEN_BACK_TAG, UPLOAD_TAG
from geomagic_dagster.releases.routing import RoutingRefused
from geomagic_dagster.releases.routing_changes import end_flight, pin, start_flight
from tests.flighting.conftest import KILLED, SENTENCE, House, toy_job


def fly_to_the_end(house: House, most: int = 400, every: int = 10) -> int:
    """Uploads until the flight is ended by a watcher that looks again and again; `most` if it never is."""
    watcher = house.watcher()
    for i in range(most):
        house.upload(f"room {i}")
        if i % every == every - 1:
            watcher.look()
            assert not watcher.counts.problem, watcher.counts.problem
            if not house.routing.read().table.flights:
                return i + 1
    return most


def fly_what_fails(house: House) -> str:
    """A flight that the next look ends, after 50 uploads; returns its id."""
    house.live("1.1")
    flight = house.fly("1.1", 30)
    house.plans["1.1"] = {"fails": "bug"}
    for i in range(50):
        house.upload(f"room {i}")
    return flight


# --- flights --------------------------------------------------------------------------------------


def test_the_flight_of_a_release_that_fails_is_ended_and_the_default_stays(house, caplog):
    house.live("1.1")
    flight, began_s = house.fly("1.1", 30), time.time()
    house.plans["1.1"] = {"fails": "bug"}
    with caplog.at_level(logging.ERROR, "geomagic.watch"):
        uploads = fly_to_the_end(house)
    table = house.routing.read().table
    assert uploads <= 60
    assert table.default == "latest" and table.written_by == "watcher"
    assert table.why.startswith(f"flight {flight} ended: release 1.1 fails more often: ")
    assert "the default latest 0 of " in table.why and "betting test" in table.why
    assert "rolled_back_after_s=" in caplog.text
    counts = json.loads((house.home / "watcher.json").read_text())
    assert counts["flights_ended"] == 1 and 0.0 < counts["rolled_back_after_s"] < time.time() - began_s
    course = read_course(house.home, flight)
    assert course.sentence in table.why and course.points[-1].evidence >= course.needed


def test_a_flight_in_an_outage_that_strikes_both_goes_on(house):
    house.live("1.1")
    house.fly("1.1", 30)
    house.plans = {release: {"fails": "unreachable"} for release in ("latest", "1.1")}
    assert fly_to_the_end(house, 60) == 60
    assert house.written() == []


@pytest.mark.parametrize(
    ("plan", "words"),
    [({"seconds": 90}, "takes longer"), ({"fails": "rejected"}, "rejects more scans"), ({"numbers": {"coverage": 0.4}}, "gives smaller depth.coverage")],
)  # fmt: skip
def test_what_is_read_from_dagster_s_log_reaches_the_verdict(house, plan, words):
    house.live("1.1")
    house.fly("1.1", 50)
    house.plans["1.1"] = plan
    assert fly_to_the_end(house, 150) < 150
    assert words in house.written()[0]


def test_shadow_runs_are_compared_scan_by_scan(house):
    house.live("1.1")
    house.fly("1.1", 100, shadow=True)
    house.plans["1.1"] = {"fails": "bug"}
    assert fly_to_the_end(house, 60) <= 30
    assert "fails where the default latest does not, for the same scan" in house.written()[0]


def test_runs_that_no_lot_sent_prove_nothing(house):
    house.live("1.1")
    flight = house.fly("1.1", 50)
    revision = house.routing.read().table.revision
    bad = {"fails": "bug"}
    good = iter(name for name in map(str, range(1000)) if house.routing.read().table.choose(name).flight is None)
    for i in range(10):
        house.run(f"pinned {i}", "1.1", revision, bad)  # without a flight: a pin, or a person
        house.run(f"by hand {i}", "1.1", None, bad, **{FLIGHT_TAG: flight})
        house.run(f"shadow {i}", "1.1", revision, bad, **{FLIGHT_TAG: flight, SHADOW_TAG: "true"})
        house.run(next(good), "latest", revision)
    house.routing.change(pin("flown 0", "1.1"), by="ada", why="it is mine")
    house.run("flown 0", "1.1", revision + 1, bad, **{FLIGHT_TAG: flight})
    flown = next(name for name in map(str, range(1000)) if house.routing.read().table.choose(name).flight)
    house.run(flown, "latest", revision)  # the flighted release did not load: another one took it
    house.run("begun too late", "1.1", revision, bad, **{FLIGHT_TAG: flight, TAKEN_BACK_TAG: "true"})
    watcher = house.watcher()
    watcher.look()
    verdict = watcher.verdicts[flight]
    assert (verdict.flight_runs, verdict.other_runs) == (0, 10)
    assert house.written() == []


def test_two_flights_are_judged_each_by_itself(house):
    house.live("1.1", "1.2")
    house.fly("1.1", 30)
    good = house.fly("1.2", 30)
    house.plans["1.1"] = {"fails": "bug"}
    watcher = house.watcher()
    for i in range(80):
        house.upload(f"room {i}")
    watcher.look()
    watcher.look()
    assert [flight.id for flight in house.routing.read().table.flights] == [good]
    assert len(house.written()) == 1


def test_a_share_that_was_changed_keeps_what_is_known(house):
    house.live("1.1")
    flight = house.fly("1.1", 20)
    for i in range(40):
        house.upload(f"room {i}")
    house.routing.change(start_flight("1.1", 50), by="ada", why="more")
    for i in range(40, 60):
        house.upload(f"room {i}")
    watcher = house.watcher()
    watcher.look()
    verdict = watcher.verdicts[flight]
    assert verdict.flight_runs + verdict.other_runs == 60


def test_a_flight_whose_uploads_get_no_runs_while_the_default_s_do_is_ended(house):
    house.live("1.1")
    house.fly("1.1", 50)
    table = house.routing.read().table
    flown, other = (
        next(n for n in map(str, range(99)) if bool(table.choose(n).flight) is is_) for is_ in (True, False)
    )
    (Path(house.places.inbox) / flown).mkdir()
    (Path(house.places.inbox) / flown / "upload.complete").touch()
    later = time.time() + 200
    watcher = house.watcher(now=lambda: later)
    watcher.look()
    assert house.written() == [], "nothing starts at all"
    house.upload(other)
    watcher.look()
    (why,) = house.written()
    assert "release 1.1 takes up nothing" in why and "Does its code location load?" in why


def test_each_run_is_read_once_and_a_restart_comes_to_the_same_verdict(house, monkeypatch):
    house.live("1.1")
    flight = house.fly("1.1", 30)
    for i in range(20):
        house.upload(f"room {i}")
    watcher = house.watcher()
    watcher.look()
    read: list[str] = []
    observe = Observer._observe
    monkeypatch.setattr(
        Observer, "_observe", lambda self, record: read.append(record.dagster_run.run_id) or observe(self, record)
    )
    watcher.look()
    assert read == []
    house.upload("one more")
    watcher.look()
    assert len(read) == 1
    again = house.watcher()
    again.look()
    assert again.verdicts[flight] == watcher.verdicts[flight] and len(read) == 22


def test_what_a_run_did_is_read_as_it_was(house):
    now_s = time.time()
    began = now_s - 1000
    house.run("good", "1.0", 3, {"seconds": 12.0, "numbers": {"coverage": 0.5}, "outside": True}, ended_s=now_s)
    house.run("bad", "1.0", None, {"fails": "timeout"}, **{FLIGHT_TAG: "f-1", SHADOW_TAG: "true"})
    house.run("sad", "1.0", 3, {"fails": "rejected"})
    house.run("canceled", "1.0", 3, {"ends": "PIPELINE_CANCELED"})
    house.run("expired", "1.0", 3, {"ends": "PIPELINE_CANCELED", "message": "Exceeded maximum runtime of 4500 s"})
    good, bad, sad, expired = Observer(house.instance).look(began)
    assert (good.run.outcome, good.run.seconds, good.run.headroom) == ("ok", pytest.approx(12.0), pytest.approx(0.95))
    assert good.run.numbers == {"depth.coverage": 0.5} and good.run.out_of_range == {"depth"}
    assert (good.revision, good.flight, good.is_shadow, good.run.scan) == (3, None, False, "good")
    assert good.run.ended_s == pytest.approx(now_s)
    assert (bad.run.outcome, bad.run.failure, bad.run.kind, bad.flight, bad.is_shadow) == (
        "failed",
        "timeout",
        "passing",
        "f-1",
        True,
    )
    assert bad.revision is None
    assert sad.run.outcome == "rejected"
    assert (expired.run.outcome, expired.run.failure) == ("failed", "timeout")


# --- killed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["worse", "ended"])
def test_killed_around_ending_a_flight_it_is_ended_once(house, point):
    fly_what_fails(house)
    assert house.look_in_a_process(killed_at=point) == KILLED
    for _ in range(2):
        assert house.look_in_a_process(killed_at=None) == 0
    assert len(house.written()) == 1 and not house.routing.read().table.flights


@pytest.mark.parametrize("point", ["copied", "sent", "judged", "finished"])
@pytest.mark.parametrize("plan", [{}, {"fails": "bug"}], ids=["good", "bad"])
def test_killed_around_a_smoke_scan_it_is_sent_once_and_ends_as_it_should(house, point, plan):
    house.live("1.0")
    house.plans["1.0"] = plan
    make_default(house.routing, "1.0", by="ada", why="approved")
    ends = [house.look_in_a_process(killed_at=point) for _ in range(2)]
    assert KILLED in ends
    for _ in range(4):
        assert house.look_in_a_process(killed_at=None) == 0
    table = house.routing.read().table
    assert table.default == ("latest" if plan else "1.0") and table.probation is None and table.pins == {}
    assert len(house.written()) == 1
    smoke = [run for run in house.instance.get_runs() if run.tags["geomagic/upload"].startswith("smoke-1_0-")]
    assert len(smoke) == 1


def test_somebody_who_is_quicker_makes_the_watcher_s_change_superfluous(house, caplog):
    flight = fly_what_fails(house)

    def ada(point: str) -> None:
        if point == "worse":
            house.routing.change(end_flight(flight), by="ada", why="I saw it")

    watcher = house.watcher(at=ada)
    watcher.look()
    assert house.written() == [] and not watcher.counts.problem
    assert "nothing to do any more" in caplog.text


def test_a_second_watcher_on_the_same_machine_is_refused(tmp_path):
    with (
        only_one(tmp_path / "lock"),
        pytest.raises(CannotWatch, match="expected no other watcher .* got one that is running"),
        only_one(tmp_path / "lock"),
    ):
        pass


# --- probation ------------------------------------------------------------------------------------


def looks(house: House, count: int = 3, **options) -> None:
    watcher = house.watcher(**options)
    for _ in range(count):
        watcher.look()
        assert not watcher.counts.problem, watcher.counts.problem


def test_a_new_default_that_passes_its_smoke_scan_stays(house):
    house.live("1.0")
    table = make_default(house.routing, "1.0", by="ada", why="approved")
    assert table.probation and table.pins == {table.probation.smoke_upload: "1.0"}
    looks(house)
    now = house.routing.read().table
    assert now.default == "1.0" and now.probation is None and now.pins == {}
    assert "passed: package after" in now.why and "4 walls as they are" in now.why
    assert house.sends == [table.probation.smoke_upload] and house.sends[0].startswith("smoke-1_0-")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"fails": "bug"}, f"is failure (bug): {SENTENCE}"),
        ({"numbers": {"coverage": 0.1}}, "expected depth.coverage of 0.2 to 1; got 0.1"),
        ({"walls_m": (2.0, 2.0, 3.0)}, "expected 4 walls; got 3"),
        ({"walls_m": (2.0, 2.0, 3.0, 3.5)}, "expected a wall of 3.00 m; got 3.50 m"),
    ],
)
def test_a_new_default_that_fails_its_smoke_scan_is_rolled_back_in_one_write(house, plan, words):
    house.live("1.0")
    house.plans["1.0"] = plan
    before = make_default(house.routing, "1.0", by="ada", why="approved").revision
    looks(house)
    table = house.routing.read().table
    assert (table.revision, table.default, table.probation, table.pins) == (before + 1, "latest", None, {})
    assert words in table.why and "The default is latest again." in table.why


def test_a_default_whose_location_does_not_load_is_rolled_back(house):
    house.live("1.0")
    house.plans["1.0"] = {"does not load": True}
    make_default(house.routing, "1.0", by="ada", why="approved")
    clock = [time.time()]
    watcher = house.watcher(now=lambda: clock[0])
    watcher.look()
    clock[0] += 10
    watcher.look()
    assert house.written() == []
    clock[0] += 20
    watcher.look()
    assert "the release does not load" in house.written()[0]
    assert house.routing.read().table.default == "latest"
    assert 25.0 < watcher.counts.rolled_back_after_s < 40.0


def test_a_passing_failure_is_waited_out_until_the_deadline(house):
    house.live("1.0")
    house.plans["1.0"] = {"fails": "unreachable"}
    make_default(house.routing, "1.0", by="ada", why="approved")
    clock = [time.time()]
    watcher = house.watcher(now=lambda: clock[0])
    watcher.look()
    clock[0] += 50
    watcher.look()
    assert house.written() == []
    clock[0] += 20
    watcher.look()
    assert "expected its package within 60 s" in house.written()[0] and "unreachable" in house.written()[0]


def test_a_run_that_begins_late_has_its_time_all_the_same_and_one_that_never_begins_is_given_up(house):
    house.live("1.0")
    house.plans["1.0"] = {"does not load": True}  # here: nothing but what this test says
    make_default(house.routing, "1.0", by="ada", why="approved")
    began_s = time.time()
    clock = [began_s]
    watcher = house.watcher(now=lambda: clock[0])
    watcher.look()
    tags = {UPLOAD_TAG: house.sends[0], SCAN_TAG: house.sends[0], RELEASE_TAG: "1.0"}
    run_id = house.instance.create_run_for_job(toy_job, tags=tags).run_id
    clock[0] = began_s + 170
    watcher.look()
    assert house.written() == [], "its worker imports everything, or waits for room"
    started = DagsterEvent("PIPELINE_START", "process_scan")
    house.instance.report_dagster_event(started, run_id, timestamp=began_s + 175)
    clock[0] = began_s + 230
    watcher.look()
    assert house.written() == []
    clock[0] = began_s + 240
    watcher.look()
    assert f"expected its package within 60 s; its run {run_id[:8]} is started" in house.written()[0]

    make_default(house.routing, "1.0", by="ada", why="again")
    began_s = clock[0] = time.time()
    watcher.look()
    tags = dict.fromkeys((UPLOAD_TAG, SCAN_TAG), house.sends[1]) | {RELEASE_TAG: "1.0"}
    house.instance.create_run_for_job(toy_job, tags=tags)
    clock[0] = began_s + 190
    watcher.look()
    assert "expected its run to begin within 180 s; its run " in house.written()[1]


def test_a_probation_that_began_while_no_watcher_ran_gets_its_smoke_scan_all_the_same(house):
    house.live("1.0")
    make_default(house.routing, "1.0", by="ada", why="approved")
    looks(house, now=lambda: time.time() + 300)
    assert house.routing.read().table.default == "1.0", "five minutes late"


def test_a_probation_without_any_smoke_scan_is_over_after_ten_minutes(house):
    house.live("1.0")
    make_default(house.routing, "1.0", by="ada", why="approved")
    house.watcher(now=lambda: time.time() + 900).look()
    assert house.routing.read().table.default == "latest"


def test_a_default_that_was_made_without_a_named_smoke_scan_gets_one(house):
    from geomagic_dagster.releases.routing_changes import set_default

    house.live("1.0")
    house.routing.change(set_default("1.0"), by="ada", why="by hand")
    looks(house)
    assert [why.split(" ")[0] for why in house.written()] == ["smoke", "smoke"]
    assert house.routing.read().table.probation is None and len(house.sends) == 1


def test_a_scan_that_the_table_names_is_sent_instead(house):
    kitchen = Path(house.places.corpus) / "kitchen"
    kitchen.mkdir(parents=True)
    (kitchen / "mine").touch()
    house.live("1.0")
    house.routing.change(lambda document: document.update(smoke={"scan": "kitchen"}), by="ada", why="a real room")
    make_default(house.routing, "1.0", by="ada", why="approved")
    looks(house)
    assert (Path(house.places.done) / house.sends[0] / "mine").exists()
    house.routing.change(lambda document: document.update(smoke={"scan": "../secret"}), by="ada", why="typo")
    make_default(house.routing, "latest", by="ada", why="back")
    looks(house)
    assert "expected the name of a scan in" in house.written()[-1]
    assert house.routing.read().table.default == "1.0"


def test_a_smoke_scan_goes_to_the_new_default_also_past_a_flight_of_everything(house):
    house.live("1.0", "1.1")
    house.fly("1.1", 100)
    make_default(house.routing, "1.0", by="ada", why="approved")
    looks(house)
    assert house.routing.read().table.probation is None
    assert "passed" in house.written()[-1]


# --- taking back ----------------------------------------------------------------------------------


def test_roll_back_goes_to_the_default_before_without_probation(house):
    house.live("1.0", "1.1")
    for release in ("1.0", "1.1"):
        make_default(house.routing, release, by="ada", why="approved")
        looks(house)
    before = house.routing.read().table.revision
    table = roll_back(house.routing, by="bob", why="customers complain")
    assert (table.revision, table.default, table.probation) == (before + 1, "1.0", None)
    make_default(house.routing, "1.1", by="ada", why="again")
    table = roll_back(house.routing, by="bob", why="at once")
    assert (table.default, table.probation, table.pins) == ("1.0", None, {})


def test_without_an_earlier_default_there_is_nothing_to_go_back_to(house):
    house.live("1.0")
    with pytest.raises(RoutingRefused, match="expected a release that was the default before latest"):
        roll_back(house.routing, by="bob", why="customers complain")


# --- a table that cannot be read ------------------------------------------------------------------


def test_with_a_broken_table_it_goes_on_watching_and_says_so(house):
    fly_what_fails(house)
    revision = house.routing.read().table.revision
    (house.home / "routing" / f"{revision + 1:09d}.json").write_text("{ broken")
    watcher = house.watcher()
    watcher.look()
    assert "expected JSON" in watcher.counts.problem and watcher.counts.problems == 1
    table = house.routing.read().table
    assert not table.flights and table.revision == revision + 2, "ended on what was good"
    watcher.look()
    assert watcher.counts.problem == ""


def test_a_disk_too_full_for_the_course_of_a_flight_keeps_no_bad_flight_in_the_air(house):
    fly_what_fails(house)
    (house.home / "flights").write_text("no folder")
    watcher = house.watcher()
    watcher.look()
    assert not house.routing.read().table.flights
    assert "course of f-" in watcher.counts.problem


def test_where_nothing_can_be_written_it_tries_again(house):
    fly_what_fails(house)
    house.routing.read()
    routing = house.home / "routing"
    routing.rename(house.home / "away")
    routing.write_text("no folder")
    watcher = house.watcher()
    watcher.look()
    assert watcher.counts.problem and house.instance is not None
    routing.unlink()
    (house.home / "away").rename(routing)
    watcher.look()
    assert len(house.written()) == 1 and not watcher.counts.problem


def test_counts_that_cannot_be_read_begin_anew(house, caplog):
    (house.home / "watcher.json").write_text("[")
    assert house.watcher().counts.flights_ended == 0
    assert "expected the counts of a watcher" in caplog.text


# --- the whole of it ------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_uploads_that_are_executed_to_the_end_of_the_flight_with_the_loop_running(house):
    import threading

    from geomagic_dagster.flighting.watch import serve

    house.is_real = True
    house.live("1.1")
    house.fly("1.1", 40)
    house.plans["1.1"] = {"fails": "bug"}
    watcher, stop = house.watcher(), threading.Event()
    loop = threading.Thread(target=serve, args=(watcher, stop, 0.2))
    loop.start()
    try:
        uploads = 0
        while house.routing.read().table.flights and uploads < 80:
            house.upload(f"room {uploads}")
            uploads += 1
    finally:
        stop.set()
        loop.join()
    over_s = time.time()
    assert uploads < 80 and "fails more often" in house.written()[0]
    first_bad = min(
        run.ended_s for run in (each.run for each in Observer(house.instance).look(0.0)) if run.outcome == "failed"
    )
    ended = datetime.fromisoformat(house.routing.read().table.written_at).astimezone(UTC).timestamp()
    # From the first that failed to the table that was written, said to the second, or soon after.
    assert ended - first_bad - 1.0 <= watcher.counts.rolled_back_after_s <= over_s - first_bad
