"""Old uploads go, each with an entry of its own; never one that something still needs."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from geomagic_dagster.console.periods import kept_days
from geomagic_dagster.console.registry.models import AuditEntry
from geomagic_dagster.console.scans import retention, worker
from geomagic_dagster.console.scans.models import Run, Scan, State
from geomagic_dagster.guardrails.tags import SCAN_TAG, SHADOW_TAG
from geomagic_dagster.releases.routing_changes import end_flight, make_live, pin, start_flight

pytestmark = pytest.mark.django_db

DAYS = 30


@pytest.fixture(autouse=True)
def long_ago(settings, monkeypatch, instance):
    """Everything on disk was put there sixty days ago: what the kernel writes down cannot be set."""
    settings.UPLOADS_KEPT_DAYS = DAYS
    monkeypatch.setattr(retention.timezone, "now", lambda: datetime.now(UTC) + timedelta(days=60))


def kept(home: Path, name: str = "cellar.zip", folder: str = "done", **more) -> Scan:
    place = home / folder if folder == "done" else home / folder / name
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(b"a room")
    if folder != "done":
        (place / "reason.txt").write_text("no floor\n")
    state = {"done": State.DONE, "quarantine": State.REJECTED, "failed": State.FAILED}[folder]
    said = {"state": state, "reason": "" if folder == "done" else "no floor", "release": "latest"} | more
    return Scan.objects.create(name="cellar", upload=name, finished_at=timezone.now(), **said)


def change(settings, *edits) -> None:
    for edit in edits:
        settings.PLACES.routing().change(edit, by="ada", why="x")


@pytest.mark.parametrize("folder", ["done", "quarantine", "failed"])
def test_it_goes_and_the_audit_trail_says_so(home, folder):
    scan = kept(home, folder=folder)
    assert retention.remove_old() == 1
    assert list((home / folder).iterdir()) == []
    entry = AuditEntry.objects.get()
    assert (entry.who, entry.action, entry.object) == ("retention", "remove_upload", f"scan {scan.pk}")
    assert entry.reason == "kept for 30 days, as GEOMAGIC_KEEP_UPLOADS_DAYS says"
    assert retention.remove_old() == 0 and AuditEntry.objects.count() == 1


def test_nothing_goes_unless_a_setting_says_so(home, settings):
    kept(home)
    settings.UPLOADS_KEPT_DAYS = kept_days("")
    assert retention.remove_old() == 0 and (home / "done" / "cellar.zip").exists()


def test_what_is_young_stays(home, settings):
    kept(home)
    settings.UPLOADS_KEPT_DAYS = 61
    assert retention.remove_old() == 0 and list(retention.old(61)) == []


def test_a_folder_goes_whole_and_so_does_what_no_scan_is_known_of(home):
    folder = home / "done" / "parlour"
    folder.mkdir(parents=True)
    (folder / "frame.jpg").write_bytes(b"x")
    assert retention.remove_old() == 1 and list((home / "done").iterdir()) == []
    assert AuditEntry.objects.get().object == "upload parlour"


def test_a_package_in_quarantine_goes_with_its_upload(home):
    kept(home, folder="quarantine", package="cellar", quarantined_at=timezone.now())
    package = home / "quarantine" / ".packages" / "cellar"
    package.mkdir(parents=True)
    (package / "room.glb").write_bytes(b"x")
    package.with_name("cellar.run.json").write_text('{"upload_sha256": "ab"}')
    assert retention.remove_old() == 2
    assert list(package.parent.iterdir()) == []


def test_packages_and_other_files_stay(home):
    kept(home)
    (home / "packages" / "cellar").mkdir(parents=True)
    (home / "done" / ".hidden").write_text("x")
    retention.remove_old()
    assert (home / "packages" / "cellar").is_dir() and (home / "done" / ".hidden").exists()


# --- what is needed ----------------------------------------------------------------------------------


def why(home: Path) -> str:
    (only,) = retention.old(DAYS)
    assert retention.remove_old() == 0 and only.place.exists() and not AuditEntry.objects.exists()
    return only.still_needed


@pytest.mark.parametrize("state", [State.RECEIVED, State.QUEUED, State.RUNNING])
def test_a_scan_that_is_not_over_keeps_its_upload(home, state):
    kept(home, state=state)
    assert why(home) == "its scan is not over"


@pytest.mark.parametrize("more", [{}, {SHADOW_TAG: "true"}])
def test_a_run_keeps_it_also_one_for_comparison(home, instance, more):
    kept(home)
    tags = {SCAN_TAG: "cellar"} | more
    create_run_for_test(instance, "process_scan", status=DagsterRunStatus.STARTED, tags=tags)
    assert why(home) == "a run is about it"


def test_a_pin_keeps_it(home, settings):
    kept(home)
    change(settings, pin("cellar", "latest"))
    assert why(home) == "it is pinned, or the smoke scan"


def test_the_smoke_scan_and_what_is_called_like_a_scan_of_the_corpus_stay(home, settings):
    kept(home)
    change(settings, lambda document: document.update(smoke={"scan": "cellar"}))
    assert why(home) == "it is pinned, or the smoke scan"
    change(settings, lambda document: document.pop("smoke"))
    (home / "corpus" / "cellar").mkdir(parents=True)
    assert why(home) == "a scan of the corpus has its name"


def test_a_flight_keeps_what_it_is_judged_by_until_it_is_over(home, settings):
    scan = kept(home)
    change(settings, make_live("1.2"), start_flight("1.2", 10, flight_id="f-1"))
    Run.objects.create(run_id="r", scan=scan, status="SUCCESS", flight="f-1", created_at=timezone.now())
    assert why(home) == "its release is flown, or on probation"
    change(settings, end_flight("f-1"))
    assert retention.remove_old() == 1


def test_what_a_release_rejected_that_was_taken_back_may_still_be_taken_up(home, settings, monkeypatch):
    now = datetime.now(UTC) + timedelta(days=60)
    scan = kept(home, folder="quarantine", release="1.2")
    Scan.objects.update(finished_at=now - timedelta(days=29))
    change(settings, make_live("1.2"), start_flight("1.2", 10), end_flight("1.2", taken_back=True))
    assert why(home) == "its release was taken back, and it may be taken up again"
    Scan.objects.filter(pk=scan.pk).update(finished_at=now - timedelta(days=31))
    assert retention.remove_old() == 1


def test_a_routing_table_that_nobody_can_read_keeps_everything(home, settings, monkeypatch):
    kept(home)
    monkeypatch.setattr(type(settings.PLACES), "routing", lambda self: (_ for _ in ()).throw(OSError("gone")))
    worker.work_once([retention.remove_old])
    assert (home / "done" / "cellar.zip").exists()


def test_of_two_uploads_of_a_name_each_goes_for_itself(home):
    """The first is needed, the second is not."""
    kept(home, folder="quarantine", origin="inbox", state=State.RUNNING)
    second = home / "quarantine" / "cellar.zip-2"
    second.mkdir()
    (second / "cellar.zip").write_bytes(b"another room")
    (second / "reason.txt").write_text("no depth\n")
    other = Scan.objects.create(name="cellar", upload="cellar.zip", state=State.REJECTED, reason="no depth")
    assert retention.remove_old() == 1
    assert [path.name for path in (home / "quarantine").iterdir()] == ["cellar.zip"]
    assert AuditEntry.objects.get().object == f"scan {other.pk}"


# --- how ---------------------------------------------------------------------------------------------


def test_what_was_being_removed_when_the_console_was_killed_goes(home):
    left = home / "done" / f".{'ab' * 16}.removed"
    left.mkdir(parents=True)
    (left / "frame.jpg").write_bytes(b"x")
    retention.remove_old()
    assert not left.exists()


def test_it_is_looked_for_now_and_then(monkeypatch):
    calls: list[float] = []
    monkeypatch.setattr(worker.time, "monotonic", lambda: now_s[0])
    now_s = [0.0]
    task = worker.now_and_then(lambda: calls.append(now_s[0]), 3600)
    for now_s[0] in (0.0, 2.0, 3599.0, 3600.0, 3602.0):
        task()
    assert calls == [0.0, 3600.0]


@pytest.mark.parametrize("said", ["0", "-3", "0.5", "a month", "nan", "inf"])
def test_a_setting_that_is_none_is_refused(said):
    with pytest.raises(
        ImproperlyConfigured, match="GEOMAGIC_KEEP_UPLOADS_DAYS: expected days, 1 or more, like 90; got"
    ):
        kept_days(said)


def test_days_are_read():
    assert (kept_days("90"), kept_days(" "), kept_days("1")) == (90.0, 0.0, 1.0)


def test_links_are_removed_not_followed(home, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (home / "done").mkdir()
    (home / "done" / "cellar").symlink_to(elsewhere)
    assert retention.remove_old() == 1
    assert elsewhere.is_dir() and not os.path.lexists(home / "done" / "cellar")
