"""The pages: what they show, and that every one of them opens for everybody with a role."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from geomagic_dagster.console.registry import flights, lead_time, service
from geomagic_dagster.console.registry.actions import ACTIONS
from geomagic_dagster.console.registry.models import AuditEntry, Incident, Release
from geomagic_dagster.flighting import promote
from geomagic_dagster.flighting.compare import compare
from geomagic_dagster.flighting.course import write_course
from tests.flighting.test_compare import RANGES, uploads

pytestmark = pytest.mark.django_db
LISTS = ("release", "incident", "stagingtest", "auditentry", "approval")


@pytest.fixture
def as_(client, people):
    def login(name: str):
        client.force_login(getattr(people, name).user)
        return client

    return login


def test_every_page_opens_for_a_viewer(as_, approved, people):
    release = approved("1.0.0")
    flight = service.start_flight(people.rita, "1.0.0", "x", per_cent=10).flights[0].id
    service.open_incident(people.rita, "slow", "it is slow", "1.0.0")
    client = as_("vera")
    pages = [reverse(f"admin:registry_{name}_changelist") for name in LISTS]
    pages += [reverse("admin:index"), reverse("admin:traffic"), reverse("admin:lead_time")]
    pages += [reverse("admin:flight", args=[flight])]
    pages += [reverse("admin:registry_release_change", args=[release.pk])]
    pages += [reverse("admin:registry_incident_change", args=[Incident.objects.get().pk])]
    pages += [reverse("admin:registry_auditentry_change", args=[AuditEntry.objects.all()[0].pk])]
    for page in pages:
        answer = client.get(page)
        assert answer.status_code == 200, page
        assert "Log out" in answer.content.decode(), page


def test_the_page_of_a_flight_draws_its_evidence_and_says_what_was_not_compared(as_, approved, people, settings):
    approved("1.0.0")
    flight = service.start_flight(people.rita, "1.0.0", "x", per_cent=10).flights[0].id
    page = reverse("admin:flight", args=[flight])
    assert "The watcher has not judged it yet." in as_("vera").get(page).content.decode()
    write_course(settings.HOME / "metrics", flight, compare(uploads(3, share=0.3), RANGES, flight="release <1.0>"))
    text = as_("vera").get(page).content.decode()
    assert "release &lt;1.0&gt;: " in text and "no worse so far" in text
    assert "<polyline points=" in text and "100 ends the flight." in text
    assert "Measure by measure (9)" in text and "fails more often" in text
    write_course(settings.HOME / "metrics", flight, compare([], RANGES))
    text = as_("vera").get(page).content.decode()
    assert "nothing to compare yet" in text and "<polyline" not in text


def test_the_release_page_shows_the_next_step_to_whoever_may_take_it(as_, cut, install):
    release = cut("1.1.0")
    page = reverse("admin:registry_release_change", args=[release.pk])
    assert "/admin/do/stage/1.1.0/" in as_("rita").get(page).content.decode()
    assert "/admin/do/" not in as_("vera").get(page).content.decode()


def test_an_action_asks_why_is_done_and_is_refused_in_words(as_, cut, install):
    release = cut("1.1.0")
    client = as_("rita")
    page = "/admin/do/stage/1.1.0/"
    answer = client.get(page)
    assert answer.status_code == 200 and "Why, in a few words" in answer.content.decode()
    answer = client.post(page, {"reason": "try"})
    assert answer.status_code == 409 and "Install it: geomagic release install 1.1.0" in answer.content.decode()
    install(release)
    assert client.post(page, {"reason": " "}).status_code == 422
    answer = client.post(page, {"reason": "try"})
    assert answer.status_code == 302 and Release.objects.get().state == "staged"
    answer = client.post("/admin/do/make_default/1.1.0/", {"reason": "now"})
    assert answer.status_code == 409
    assert "it is staged. Next legal step: test_in_staging." in answer.content.decode()


def test_an_action_of_the_list_goes_to_the_form_of_the_one_release_that_was_ticked(as_, cut):
    first, second = cut("1.0.0"), cut("1.1.0")
    client = as_("rita")
    page = reverse("admin:registry_release_changelist")
    said = {"action": "stage", "_selected_action": [first.pk]}
    assert client.post(page, said).url == "/admin/do/stage/1.0.0/"
    said["_selected_action"] = [first.pk, second.pk]
    assert "expected one release; got 2. Tick one." in client.post(page, said, follow=True).content.decode()


def test_rolling_back_says_from_where_to_where_before_it_is_done(as_, approved, people, settings):
    client = as_("olga")
    nowhere = client.get("/admin/do/roll_back/").content.decode()
    assert "expected a release that was the default before latest" in nowhere
    for version in ("1.0.0", "1.1.0"):
        approved(version)
        service.make_default(people.rita, version, "go")
        assert f"The default is {version[:3]} now, and " in client.get("/admin/do/roll_back/").content.decode()
        passed = promote.off_probation(version[:3], failed=False)
        settings.PLACES.routing().change(passed, by="watcher", why="smoke scan passed")
    assert "The default is 1.1 now, and 1.0 then." in client.get("/admin/do/roll_back/").content.decode()


@pytest.mark.parametrize("number", ["7", "x", "9" * 30])
def test_an_incident_that_is_not_there_is_refused_in_words(as_, home, number):
    answer = as_("rita").post(f"/admin/do/close_incident/{number}/", {"reason": "x"})
    assert answer.status_code == 409 and "expected one that was opened; got none" in answer.content.decode()


def test_pages_open_where_the_routing_table_does_not_answer_and_actions_say_so(as_, approved, settings, monkeypatch):
    approved("1.0.0")
    client = as_("rita")

    def gone(*args, **kwargs):
        raise OSError("the storage is gone")

    monkeypatch.setattr("geomagic_dagster.releases.routing.RoutingStore._numbers", gone)
    for page in ("admin:index", "admin:traffic"):
        assert (
            "expected a place that answers; got OSError: the storage is gone"
            in client.get(reverse(page)).content.decode()
        )
    answer = client.post("/admin/do/make_default/1.0.0/", {"reason": "x"})
    assert answer.status_code == 409 and "the storage is gone" in answer.content.decode()


@pytest.mark.parametrize("path", ["do/nothing/", "do/stage/", "do/roll_back/1.0/", "do/stage/9.9.9/"])
def test_what_is_not_there_is_not_found(as_, home, path):
    assert as_("rita").get(f"/admin/{path}").status_code == 404


def test_every_label_and_every_help_of_a_form_belongs_to_a_field(as_, approved, people):
    """What a screen reader says of a field is found by its id."""
    approved("1.0.0")
    pages = [f"/admin/do/{name}/" for name, action in ACTIONS.items() if action.target == "none"]
    pages += ["/admin/do/start_flight/1.0.0/", "/admin/scans/token/add/"]
    client = as_("olga")
    for page in pages:
        content = client.get(page).content.decode()
        ids = re.findall(r'\bid="([^"]+)"', content)
        asked = re.findall(r'<label for="([^"]*)"', content)
        asked += " ".join(re.findall(r'aria-describedby="([^"]+)"', content)).split()
        assert asked and not set(asked) - set(ids), (page, set(asked) - set(ids))
        assert len(ids) == len(set(ids)), page


def test_the_list_of_releases_shows_everybody_their_own_steps(cut, people):
    """Also where two ask at the same moment: the pages are made by threads that share their makers."""
    release = cut("1.0.0")
    pages = admin.site._registry[Release]
    asks = [SimpleNamespace(user=person.user) for person in (people.rita, people.vera)]
    ritas, veras = (pages.get_list_display(ask)[2] for ask in asks)  # pyright: ignore[reportArgumentType]
    assert "/admin/do/stage/1.0.0/" in ritas(release) and veras(release) == "–"


def test_times_say_of_which_zone_they_are(as_, home):
    assert "All times are UTC." in as_("vera").get("/admin/").content.decode()


def test_the_front_page_reads_no_more_changes_than_it_needs(db):
    with CaptureQueriesContext(
        connection,
    ) as asked:
        lead_time.summary()
    assert [each["sql"].endswith("LIMIT 50") for each in asked.captured_queries] == [True]


def test_a_flight_is_shown_as_the_watcher_says_it_stands(as_, approved, people, home):
    approved("1.0.0")
    flight = service.start_flight(people.rita, "1.0.0", "x", per_cent=10).flights[0].id
    client = as_("vera")
    assert "The watcher has not looked at it yet." in client.get("/admin/traffic/").content.decode()
    place = home / flights.METRICS / flights.WATCHER
    place.parent.mkdir(parents=True, exist_ok=True)
    said = {"evidence": {flight: 0.5}, "sentences": {flight: "release 1.0: 20 runs; no worse so far."}}
    place.write_text(json.dumps(said))
    page = client.get("/admin/traffic/").content.decode()
    assert "50.0 % of what ends it. release 1.0: 20 runs; no worse so far." in page


def test_a_scan_is_named_with_or_without_its_ending(as_, home, settings):
    """Runs know it without: a pin of kitchen.zip would pin nothing, and nobody would say so."""
    client = as_("olga")
    for name in ("kitchen.zip", " hall "):
        said = {"scan": name, "line": "latest", "reason": "x"}
        assert client.post("/admin/do/set_pin/", said).status_code == 302
    said = {"name": "new_fit", "scans": "kitchen.tar.gz\n\nhall", "reason": "x"}
    assert client.post("/admin/do/set_flag/", said).status_code == 302
    table = settings.PLACES.routing().read().table
    assert set(table.pins) == {"kitchen", "hall"} and table.flags["new_fit"].scans == ("hall", "kitchen")
