"""A scan that a bad release could not use: its sender and the console hear of it when it is taken up again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dagster import DagsterRunStatus
from django.conf import settings
from django.urls import reverse

from geomagic_dagster.console.registry.audit import Actor
from geomagic_dagster.console.registry.models import AuditEntry
from geomagic_dagster.console.scans import actions, following, webhooks
from geomagic_dagster.console.scans.models import Delivery, Run, Scan, State
from geomagic_dagster.console.scans.outcomes import REOPENED, end, reopen
from geomagic_dagster.flighting.rejected import Rejected
from geomagic_dagster.guardrails.tags import AGAIN_TAG, FLIGHT_TAG, RELEASE_TAG, ROUTE_REVISION_TAG
from geomagic_dagster.releases.routing_changes import end_flight, make_live, start_flight
from tests.console.scans.conftest import archive
from tests.console.scans.test_following import run_of, tags_in
from tests.toy_stages.installation import Toys
from tests.toy_stages.scans import write_toy_scan

pytestmark = pytest.mark.django_db
HOOK = "https://93.184.216.34/hook"


def events() -> list[str]:
    return [each.event for each in Delivery.objects.order_by("created_at")]


def fly(release: str = "1.2") -> str:
    routing = settings.PLACES.routing()
    routing.change(make_live(release), by="ada", why="installed")
    return routing.change(start_flight(release, 10), by="ada", why="looks good").flights[-1].id


def look(instance) -> list[Path]:
    """Of the watcher."""
    places = settings.PLACES
    watcher = Rejected(instance, Path(places.quarantine), Path(places.inbox), places.routing())
    return watcher.look(places.routing().read().table)


class Flown:
    """A flight that rejects uploads, really."""

    def __init__(self, home: Path, instance) -> None:
        self.instance, self.home = instance, home
        self.toys, self.flight = {release: Toys(home, release) for release in ("latest", "1.2")}, fly()

    def process(self, upload: str, release: str) -> None:
        table = settings.PLACES.routing().read().table
        inbox = self.toys[release].inbox
        tags = tags_in(inbox, upload) | {RELEASE_TAG: release, ROUTE_REVISION_TAG: str(table.revision)}
        tags |= {FLIGHT_TAG: self.flight} if release == "1.2" else {}
        self.toys[release].process(inbox / upload, self.instance, tags=tags)
        following.follow(self.instance)

    def take_back(self) -> None:
        settings.PLACES.routing().change(end_flight("1.2", taken_back=True), by="watcher", why="it rejects too much")
        (self.place,) = look(self.instance)
        following.follow(self.instance)

    def mend(self) -> None:
        """What the flight took for nonsense is a room."""
        self.place.unlink()
        write_toy_scan(self.place)


@pytest.fixture
def flown(home, instance) -> Flown:
    return Flown(home, instance)


def test_a_scan_that_the_default_can_use_is_done_after_all(flown, api, taken, client, make_user):
    url = api.send(archive(), "cellar.zip", webhook=HOOK)
    flown.process(taken[0], "1.2")
    said = api.state(url)
    assert said["state"] == "rejected" and said["reopened_at"] is None
    sentence, finished_at = said["reason"], said["finished_at"]
    flown.take_back()
    said = api.state(url)
    assert (said["state"], said["reason"], said["finished_at"]) == ("queued", REOPENED, None)
    assert said["reopened_at"] > finished_at
    page = client.get(said["status_page"]).content.decode()
    assert "processed once more" in page and "This page refreshes itself." in page
    assert events() == ["scan.rejected", "scan.reopened"]
    following.follow(flown.instance)
    assert events() == ["scan.rejected", "scan.reopened"]
    assert look(flown.instance) == []

    flown.mend()
    flown.process(taken[0], "latest")
    said = api.state(url)
    assert (said["state"], said["reason"]) == ("done", "") and said["files"]
    assert events() == ["scan.rejected", "scan.reopened", "scan.done"]

    (entry,) = AuditEntry.objects.filter(action="take_up_again")
    scan = Scan.objects.get()
    assert (entry.who, entry.object) == ("watcher", f"scan {scan.pk}")
    assert "release 1.2 could not use it, and was taken back as of revision 3" in entry.reason
    assert entry.before["flight"] == flown.flight and entry.after["revision"] == 3

    client.force_login(make_user("vera", "viewer"))
    page = client.get(reverse("admin:flight", args=[flown.flight])).content.decode()
    assert "It is over." in page and "cellar.zip</a> now done by latest" in page
    assert f"1.2, taken back as of revision 3, had said: {sentence[:20]}" in page.replace("&#x27;", "'")
    assert "it rejects too much" in page
    assert flown.flight in client.get(reverse("admin:traffic")).content.decode()
    page = client.get(reverse("admin:scans_scan_change", args=[scan.pk])).content.decode()
    assert "Taken up again" in page and "taken back as of revision 3: the scan went on elsewhere" in page
    assert client.get(reverse("admin:flight", args=["f-nobody"])).status_code == 404


def test_a_scan_that_the_default_rejects_too_stays_rejected_and_nobody_is_told_twice(flown, api, taken):
    url = api.send(archive(), "cellar.zip", webhook=HOOK)
    flown.process(taken[0], "1.2")
    flown.take_back()
    flown.process(taken[0], "latest")
    said = api.state(url)
    assert said["state"] == "rejected" and ": expected " in said["reason"] and said["finished_at"]
    assert events() == ["scan.rejected", "scan.reopened"]
    assert look(flown.instance) == []
    assert [path.name for path in Path(settings.PLACES.quarantine).iterdir()] == [taken[0]]


def test_a_console_that_was_away_all_the_time_tells_the_end_once(flown, api, taken, monkeypatch):
    url = api.send(archive(), "cellar.zip", webhook=HOOK)
    with monkeypatch.context() as patch:
        patch.setattr(following, "follow", lambda instance: 0)
        flown.process(taken[0], "1.2")
        flown.take_back()
        flown.process(taken[0], "latest")
    following.follow(flown.instance)
    assert api.state(url)["state"] == "rejected"
    assert events() == ["scan.rejected"], "who was not told of the first end hears of the second"
    assert AuditEntry.objects.filter(action="take_up_again").count() == 1


def test_a_scan_of_the_inbox_is_one_scan_before_and_after(flown):
    upload = flown.toys["1.2"].inbox / "parlour.zip"
    upload.parent.mkdir(parents=True, exist_ok=True)
    upload.write_bytes(archive())
    flown.process("parlour.zip", "1.2")
    assert Scan.objects.get().state == State.REJECTED
    flown.take_back()
    assert Scan.objects.get().state == State.QUEUED
    flown.mend()
    flown.process("parlour.zip", "latest")
    scan = Scan.objects.get()
    assert scan.state == State.DONE and scan.package == "parlour"
    assert scan.runs.count() == 2
    run_of(flown.instance, "parlour.zip", DagsterRunStatus.STARTED)
    following.follow(flown.instance)
    assert Scan.objects.count() == 2, "a later upload of that name is another scan"


def test_who_confirms_a_rejection_by_hand_has_the_last_word(flown, api, taken, make_user):
    api.send(archive(), "cellar.zip")
    flown.process(taken[0], "1.2")
    actions.quarantine(Scan.objects.get(), Actor(make_user("olga", "operator")), "nobody's business")
    place = Path(settings.PLACES.quarantine) / taken[0]
    assert (place / "reason.txt").read_text() == "nobody's business (olga)\n"
    settings.PLACES.routing().change(end_flight("1.2", taken_back=True), by="watcher", why="bad")
    assert look(flown.instance) == []
    assert (place / taken[0]).exists()


# --- without real runs ------------------------------------------------------------------------------


@pytest.fixture
def rejected(api, taken, instance) -> Scan:
    """A scan that was rejected by a run of 1.2, and whose sender was told."""
    api.send(archive(), webhook=HOOK)
    scan = Scan.objects.get()
    run = run_of(instance, taken[0], DagsterRunStatus.FAILURE, **{RELEASE_TAG: "1.2"})
    following.follow(instance)
    assert end(scan, State.REJECTED, "no floor", instead_of=State.values, run_id=run.run_id)
    return scan


def test_a_reopened_scan_is_cancelled_like_any_other(rejected, instance, api, make_user):
    instance.add_run_tags(rejected.run_id, {AGAIN_TAG: "7"})
    following.follow(instance)
    rejected.refresh_from_db()
    assert rejected.state == State.QUEUED
    actions.cancel(rejected, Actor(make_user("olga", "operator")), "not any more")
    rejected.refresh_from_db()
    assert rejected.state == State.CANCELLED
    assert events() == ["scan.rejected", "scan.reopened", "scan.cancelled"]
    following.follow(instance)
    assert Scan.objects.get().state == State.CANCELLED, "the old run brings nothing back"


def test_another_kind_of_end_is_told(rejected):
    assert reopen(rejected, "r")
    assert not reopen(rejected, "r"), "once"
    end(rejected, State.FAILED, "a bug", instead_of=State.values, run_id="r2")
    assert events() == ["scan.rejected", "scan.reopened", "scan.failed"]


def test_what_was_done_and_then_is_put_aside_by_a_person_is_told(rejected):
    reopen(rejected, "r")
    end(rejected, State.DONE, instead_of=State.values, run_id="r2")
    end(rejected, State.REJECTED, "not theirs", instead_of=State.values, run_id="r2")
    assert events() == ["scan.rejected", "scan.reopened", "scan.done", "scan.rejected"]


def test_an_attempt_that_came_to_nothing_is_the_rejection_again(rejected, instance, monkeypatch):
    monkeypatch.setattr(following, "failure_of", lambda instance, run_id: ("rejected", "no floor"))
    for value, state in (("7", State.QUEUED), ("", State.REJECTED)):
        instance.add_run_tags(rejected.run_id, {AGAIN_TAG: value})
        following.follow(instance)
        rejected.refresh_from_db()
        assert rejected.state == state
    assert events() == ["scan.rejected", "scan.reopened"]
    assert Run.objects.get().taken_up_again is None


def test_the_message_says_what_to_expect(rejected, monkeypatch):
    sent = []
    monkeypatch.setattr(webhooks, "_post", lambda delivery: sent.append(json.loads(delivery.body)) or (200, "fine"))
    reopen(rejected, "r")
    webhooks.deliver_due()
    (said,) = (each for each in sent if each["type"] == "scan.reopened")
    assert said["data"]["state"] == "queued"
    assert "otherwise what you were told stands" in said["data"]["reason"]
