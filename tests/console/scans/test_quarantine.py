"""What an operator quarantined: taken from everybody but operators, wherever it was to be seen, until one frees it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import DagsterRunStatus
from django.utils import timezone

from geomagic_dagster.console import roles
from geomagic_dagster.console.registry.audit import Actor
from geomagic_dagster.console.registry.models import AuditEntry
from geomagic_dagster.console.scans import actions, describing, following, tokens
from geomagic_dagster.console.scans.models import Run, Scan, State
from geomagic_dagster.jobs import withdrawn
from geomagic_dagster.viewer.addresses import PACKAGES
from geomagic_dagster.viewer.folders import PackageFolder
from geomagic_dagster.viewer.server import answer
from tests.console.scans.conftest import Api, archive
from tests.viewer import rooms

pytestmark = pytest.mark.django_db

REASON = "A person is to be seen in it."


def publish(home: Path, name: str = "parlour", upload_sha256: str = "ab12") -> None:
    folder = home / "packages" / name
    folder.mkdir(parents=True)
    for file, content in rooms.package().items():
        (folder / file).write_bytes(content)
    (home / "packages" / f"{name}.run.json").write_text(json.dumps({"upload_sha256": upload_sha256}))


@pytest.fixture
def done(home, ada) -> Scan:
    """A scan with a package."""
    publish(home)
    (home / "done").mkdir()
    (home / "done" / "parlour.zip").write_bytes(archive())
    return Scan.objects.create(name="Parlour", state=State.DONE, upload="parlour.zip", package="parlour", owner=ada)


@pytest.fixture
def quarantined(client, done, make_user, instance) -> Scan:
    client.force_login(make_user("otto", "operator"))
    answered = client.post(f"/admin/scans/scan/{done.pk}/do/quarantine_scan/", {"reason": REASON})
    assert answered.status_code == 302
    client.logout()
    done.refresh_from_db()
    return done


def test_it_lies_aside_with_its_reason_and_in_the_audit_trail(quarantined, home):
    assert quarantined.state == "rejected" and quarantined.reason == REASON
    assert (home / "quarantine" / "parlour.zip" / "parlour.zip").is_file()
    assert not (home / "done" / "parlour.zip").exists()
    entry = AuditEntry.objects.get(action="quarantine_scan")
    assert (entry.who, entry.object, entry.reason) == ("otto", f"scan {quarantined.pk}", REASON)


def test_its_sender_has_nothing_of_it_any_more(client, quarantined, ada):
    key, api = describing.link_key(quarantined), Api(tokens.make(ada, "app", ["upload"])[1])
    for address in (f"/s/{key}/files/room.glb", f"/s/{key}/files/preview.png", f"/s/{key}/room"):
        assert client.get(address).status_code == 404, address
    page = client.get(f"/s/{key}").content.decode()
    assert REASON in page and "preview.png" not in page and "Look at the room" not in page
    said = api.state(f"/api/scans/{quarantined.pk}")
    assert (said["state"], said["files"], said["reason"]) == ("rejected", [], REASON)
    assert api.call("GET", f"/api/scans/{quarantined.pk}/files/room.glb").status_code == 404


def test_the_rooms_page_has_it_no_more(quarantined, home):
    shelves = {PACKAGES: PackageFolder(home / "packages")}
    assert b"parlour" not in answer(shelves, "/").content
    for address in ("/packages/parlour/", "/packages/parlour/room.glb"):
        said = answer(shelves, address)
        assert said.status == 404 and b"put into quarantine" in said.content
    assert withdrawn.uploads(home / "quarantine") == {"ab12"}, "nor what else was made of this upload"


@pytest.mark.parametrize("role", roles.ROLES)
def test_in_the_console_operators_alone_see_it(client, quarantined, make_user, role):
    client.force_login(make_user("somebody", role))
    is_operator = role == "operator"
    for address in (f"/scans/{quarantined.pk}/files/room.glb", f"/scans/{quarantined.pk}/room"):
        assert client.get(address).status_code == (200 if is_operator else 404)
    page = client.get(f"/admin/scans/scan/{quarantined.pk}/change/").content.decode()
    assert "In quarantine since" in page and "only operators see it here" in page
    assert ("model-viewer id" in page) == ("room.glb" in page) == ("12.00 m²" in page) == is_operator
    assert ("in quarantine: only operators see it</dd>" in page) == (not is_operator)
    listed = client.get("/admin/scans/scan/").content.decode()
    assert "preview.png" not in listed and "quarantined</span>" in listed


def test_quarantined_twice_is_quarantined_once(quarantined, make_user, home):
    actions.quarantine(quarantined, Actor(make_user("olga", "operator")), "still so")
    assert (home / "quarantine" / ".packages" / "parlour" / "room.glb").is_file()
    assert (home / "quarantine" / "parlour.zip" / "reason.txt").read_text() == "still so (olga)\n"


# --- and back ---------------------------------------------------------------------------------------


def test_only_an_operator_frees_it(quarantined, make_user, instance, monkeypatch):
    asked = []
    monkeypatch.setattr(actions, "_submit", lambda scan, release, upload: asked.append(upload) or "run-2")
    with pytest.raises(roles.NotAllowed, match="quarantine_scan: expected one of the roles operator; rita has"):
        actions.rerun(quarantined, "latest", Actor(make_user("rita", "researcher")), "compare")
    actions.rerun(quarantined, "latest", Actor(make_user("olga", "operator")), "nobody is to be seen after all")
    assert [path.parent.name for path in asked] == ["parlour.zip"]


def run(scan: Scan, created_at: datetime) -> Run:
    return Run.objects.create(run_id="r2", scan=scan, status=DagsterRunStatus.SUCCESS.value, created_at=created_at)


def conclude(scan: Scan, seen: Run, instance, monkeypatch, *, is_rerun: bool) -> Scan:
    monkeypatch.setattr(following, "package_of", lambda instance, run_id: "parlour")
    following._draw_conclusions(scan, seen, instance, is_rerun=is_rerun)
    scan.refresh_from_db()
    return scan


def test_a_run_that_an_operator_started_since_frees_it(quarantined, home, instance, monkeypatch):
    publish_again(home)
    scan = conclude(quarantined, run(quarantined, timezone.now()), instance, monkeypatch, is_rerun=True)
    assert (scan.state, scan.quarantined_at) == ("done", None)
    assert (home / "packages" / "parlour" / "room.glb").is_file()
    assert withdrawn.uploads(home / "quarantine") == frozenset()
    assert not (home / "quarantine" / ".packages" / "parlour").exists()


@pytest.mark.parametrize(("is_rerun", "before_s"), [(True, 60), (False, -60)])
def test_a_run_that_began_before_or_past_the_console_frees_nothing(
    quarantined, home, instance, monkeypatch, is_rerun, before_s
):
    publish_again(home)
    created_at = quarantined.quarantined_at.astimezone(UTC) - timedelta(seconds=before_s)
    scan = conclude(quarantined, run(quarantined, created_at), instance, monkeypatch, is_rerun=is_rerun)
    assert scan.state == "rejected" and scan.quarantined_at is not None
    assert not (home / "packages" / "parlour").exists()
    assert (home / "quarantine" / ".packages" / "parlour" / "room.glb").is_file()


def publish_again(home: Path) -> None:
    (home / "packages" / "parlour.run.json").unlink()
    publish(home)


# --- uploads of one name ----------------------------------------------------------------------------


def test_the_right_one_of_two_uploads_of_a_name_is_put_aside(ada, home, instance, make_user):
    """Both came by the inbox, as kitchen.zip, and were rejected for other reasons."""
    scans = []
    for folder, reason in (("kitchen.zip", "no floor was seen"), ("kitchen.zip-2", "the depth is empty")):
        place = home / "quarantine" / folder
        place.mkdir(parents=True)
        (place / "kitchen.zip").write_bytes(folder.encode())
        (place / "reason.txt").write_text(f"{reason}\n")
        scans.append(
            Scan.objects.create(
                name="kitchen", upload="kitchen.zip", state=State.REJECTED, reason=reason, origin="inbox"
            )
        )
    assert [actions.where_upload_lies(scan).parent.name for scan in scans] == ["kitchen.zip", "kitchen.zip-2"]
    actions.quarantine(scans[1], Actor(make_user("olga", "operator")), REASON)
    assert (home / "quarantine" / "kitchen.zip" / "reason.txt").read_text() == "no floor was seen\n"
    assert (home / "quarantine" / "kitchen.zip-2" / "reason.txt").read_text() == f"{REASON} (olga)\n"
    scans[1].refresh_from_db()
    assert actions.where_upload_lies(scans[1]).parent.name == "kitchen.zip-2"
