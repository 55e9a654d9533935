"""From a commit to the first customer's scan and to the default."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.urls import reverse

from geomagic_dagster.console.registry import lead_time, service
from geomagic_dagster.console.registry.models import Change, Release
from geomagic_dagster.console.registry.sync import look
from geomagic_dagster.console.registry.templatetags.console import duration
from geomagic_dagster.console.scans.models import Run, Scan

pytestmark = pytest.mark.django_db
COMMITTED = datetime(2026, 3, 1, 10, tzinfo=UTC)


@pytest.fixture
def run(db):
    """A run as the console follows it, ended so long after the commit."""

    def run(hours: float, upload: str = "kitchen.zip", **said) -> Run:
        scan = Scan.objects.create(name=upload, upload=upload)
        ended = COMMITTED + timedelta(hours=hours)
        said = {"release": "1.1", "version": "1.1.0", "status": "SUCCESS", **said}
        return Run.objects.create(
            run_id=str(scan.pk)[:36], scan=scan, created_at=ended, started_at=ended, ended_at=ended, **said
        )

    return run


def test_from_the_commit_to_the_first_customers_scan_and_to_the_default(approved, people, run, settings, monkeypatch):
    approved("1.1.0")
    run(30, status="FAILURE")
    run(31, is_shadow=True)
    run(32, upload="smoke-1_1-x")
    run(33, version="1.1.1")
    run(34, release="1.0", version="1.0.0")
    run(1, version="")  # before it was cut: of the checkout that had the same name
    look()
    assert Release.objects.get().first_scan_at is None, "it had no traffic"
    monkeypatch.setattr("geomagic_dagster.releases.routing.now_text", lambda: "2026-03-03T10:00:00.000Z")
    service.make_default(people.rita, "1.1.0", "x")
    look()
    assert Release.objects.get().first_scan_at is None, "none of those was a customer's, of this version, and done"
    run(50)
    run(48.5)
    look()
    lead = lead_time.lead(Change.objects.get())
    assert (lead.to_scan, lead.to_default) == (timedelta(hours=48.5), timedelta(hours=48))
    run(45)
    look()
    assert lead_time.lead(Change.objects.get()).to_scan == timedelta(hours=48.5), "found once, kept"


def test_the_middle_of_the_changes_that_came_so_far(cut, run, client, people):
    for n, (version, hours) in enumerate([("1.0.0", 10), ("1.1.0", 30), ("1.2.0", None)]):
        release = cut(version)
        if hours:
            release.default_at = COMMITTED + timedelta(hours=hours)
            release.first_scan_at = COMMITTED + timedelta(hours=hours + n)
            release.save()
    summary = lead_time.summary()
    assert (summary.changes, summary.to_default, summary.to_scan) == (3, timedelta(hours=20), timedelta(hours=20.5))
    client.force_login(people.vera.user)
    page = client.get(reverse("admin:lead_time")).content.decode()
    assert "20.0 hours" in page and "20.5 hours" in page and page.count("Walls are straighter") == 3


def test_where_nothing_came_yet_nothing_is_made_up(db, home):
    assert lead_time.summary() == lead_time.Summary(0, None, None)


@pytest.mark.parametrize(
    ("time", "words"),
    [
        (None, "–"),
        (timedelta(minutes=45), "45 min"),
        (timedelta(hours=3.5), "3.5 hours"),
        (timedelta(days=2, hours=12), "2.5 days"),
    ],
)
def test_times_in_words(time, words):
    assert duration(time) == words
