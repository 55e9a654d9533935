"""Pages of scans: who sees what, what actions do, that nothing of a package runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.core import signing

from geomagic_dagster.console import roles
from geomagic_dagster.console.registry.models import AuditEntry
from geomagic_dagster.console.scans import actions, describing
from geomagic_dagster.console.scans.models import Run, Scan, State, Token
from tests.console.scans.conftest import archive
from tests.viewer import rooms

pytestmark = pytest.mark.django_db

EVIL = {
    "evil.html": b"<script>alert(1)</script>",
    "evil.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "plan.svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"></svg>',
}


@pytest.fixture
def done(home, ada) -> Scan:
    """A scan with a package."""
    folder = home / "packages" / "parlour"
    folder.mkdir(parents=True)
    for name, content in (rooms.package() | EVIL).items():
        (folder / name).write_bytes(content)
    (folder / "secret.txt").symlink_to("/etc/passwd")
    upload = home / "done" / "parlour.zip"
    upload.parent.mkdir()
    upload.write_bytes(archive())
    scan = Scan.objects.create(
        name="<b>Parlour</b>",
        state=State.DONE,
        upload="parlour.zip",
        package="parlour",
        run_id="r1",
        release="1.0",
        owner=ada,
    )
    Run.objects.create(run_id="0123abcd-r1", scan=scan, status="SUCCESS", release="1.0", created_at=datetime.now(UTC))
    return scan


def test_a_scan_is_shown_with_its_room_its_numbers_and_its_runs(client, done, make_user, instance):
    client.force_login(make_user("vera", "viewer"))
    listed = client.get("/admin/scans/scan/").content.decode()
    assert (
        f"/scans/{done.pk}/files/preview.png" in listed and "&lt;b&gt;Parlour" in listed and "<b>Parlour" not in listed
    )
    answer = client.get(f"/admin/scans/scan/{done.pk}/change/")
    page = answer.content.decode()
    assert '<model-viewer id="room"' in page and f"/scans/{done.pk}/files/room.glb" in page
    assert "12.00 m² ±0.03" in page and "2.50 m ±0.01" in page, "a deviation of 3 mm is not 0.00"
    assert "http://127.0.0.1:3000/runs/0123abcd-r1" in page and "plan.svg" in page
    assert "<b>Parlour" not in page
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "/do/rerun_scan/" not in page, "a viewer may not"


def test_the_warnings_of_a_package_stand_on_its_page(client, done, make_user, instance):
    client.force_login(make_user("vera", "viewer"))
    page = client.get(f"/admin/scans/scan/{done.pk}/change/").content.decode()
    assert "<li>The wall behind the sofa was not seen.</li>" in page


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("receiving", "no package yet"),
        ("running", "no package yet"),
        ("rejected", "none: the scan is rejected"),
        ("failed", "none: the scan is failed"),
        ("cancelled", "none: the scan is cancelled"),
        ("done", "it has a package, but not where packages are published: run it again"),
    ],
)
def test_a_scan_without_a_package_says_why(client, home, ada, make_user, instance, state, said):
    scan = Scan.objects.create(name="cellar", state=state, owner=ada, bytes_total=5)
    client.force_login(make_user("vera", "viewer"))
    page = client.get(f"/admin/scans/scan/{scan.pk}/change/").content.decode()
    assert f'<dd class="quiet">{said}</dd>' in page
    assert ("package yet" in page) == ("yet" in said)


def test_every_page_of_scans_needs_a_login(client, done, instance):
    for address in (
        "/admin/scans/scan/", f"/admin/scans/scan/{done.pk}/change/", f"/admin/scans/scan/{done.pk}/do/cancel_scan/",
        "/admin/scans/token/", "/admin/scans/token/add/", "/admin/scans/delivery/",
        f"/scans/{done.pk}/files/room.glb", f"/scans/{done.pk}/room", f"/scans/{done.pk}/status",
    ):  # fmt: skip
        answer = client.get(address)
        assert answer.status_code == 302 and "/login/" in answer.headers["Location"], address


def test_somebody_without_a_role_sees_no_scan(client, done, make_user, instance):
    client.force_login(make_user("nobody"))
    assert client.get(f"/scans/{done.pk}/files/room.glb").status_code == 404
    assert client.get("/admin/scans/scan/").status_code == 302


def test_nothing_of_a_package_runs_in_the_consoles_name(client, done, instance):
    key = describing.link_key(done)
    for name in EVIL:
        for address in (f"/s/{key}/files/{name}", f"/s/{key}/files/{name}?download"):
            answer = client.get(address)
            assert answer.status_code == 200
            assert (
                "sandbox" in answer.headers["Content-Security-Policy"]
                and "default-src 'none'" in answer.headers["Content-Security-Policy"]
            )
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            if name.endswith(".html") or "download" in address:
                assert answer.headers["Content-Disposition"].startswith("attachment")
            if name.endswith(".html"):
                assert answer.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("name", ["secret.txt", "..%2F..%2Fconsole.secret", "..", "%00", "nothing.txt", "."])
def test_only_plain_files_of_the_package_are_served(client, done, instance, name):
    assert client.get(f"/s/{describing.link_key(done)}/files/{name}").status_code in (301, 404)


def test_a_link_opens_one_scan_and_only_if_we_signed_it(client, done, instance):
    key = describing.link_key(done)
    answer = client.get(f"/s/{key}")
    assert answer.status_code == 200 and b"Look at the room in 3D" in answer.content
    assert (
        answer.headers["Referrer-Policy"] == "no-referrer"
        and "default-src 'none'" in answer.headers["Content-Security-Policy"]
    )
    assert client.get(f"/s/{key}/room").status_code == 200
    other = signing.dumps(done.pk.hex, salt="another")
    for bad in (key[:-1] + ("A" if key[-1] != "A" else "B"), str(done.pk), other, "x" * 500):
        assert client.get(f"/s/{bad}").status_code == 404
        assert client.get(f"/s/{bad}/files/room.glb").status_code == 404


def test_a_page_refreshes_itself_until_the_scan_is_over(client, done, instance):
    for state in State.values:
        Scan.objects.update(state=state)
        page = client.get(f"/s/{describing.link_key(done)}").content
        assert (b'http-equiv="refresh"' in page) == (state in ("receiving", "received", "queued", "running")), state


@pytest.mark.parametrize("role", roles.ROLES)
@pytest.mark.parametrize("action", ["rerun_scan", "quarantine_scan", "cancel_scan"])
def test_actions_are_for_those_whom_the_table_names(client, done, make_user, role, action, instance):
    client.force_login(make_user("somebody", role))
    answer = client.get(f"/admin/scans/scan/{done.pk}/do/{action}/")
    assert answer.status_code == (200 if role in roles.TABLE[action] else 403)
    answer = client.post(f"/admin/scans/scan/{done.pk}/do/{action}/", {"reason": "because", "release": "latest"})
    if role not in roles.TABLE[action]:
        assert answer.status_code == 403 and not AuditEntry.objects.filter(action=action).exists()


def test_a_scan_that_is_done_is_not_cancelled(client, done, make_user, instance):
    client.force_login(make_user("otto", "operator"))
    answer = client.post(f"/admin/scans/scan/{done.pk}/do/cancel_scan/", {"reason": "because"})
    assert answer.status_code == 409
    assert b"expected a scan that is on its way; got one that is done. Nothing is left to cancel." in answer.content


def test_a_cancelled_scan_that_no_run_has_yet_leaves_the_inbox(client, api, taken, home, make_user, instance):
    url = api.send(archive())
    assert api.call("DELETE", url).status_code == 204
    assert api.state(url)["state"] == "cancelled"
    assert (home / "failed" / taken[0] / "reason.txt").read_text() == "It was cancelled before it ran.\n"
    assert AuditEntry.objects.get(action="cancel_scan").who == "ada"


def test_running_again_goes_to_the_release_that_was_chosen(client, done, make_user, home, instance, monkeypatch):
    asked = []
    monkeypatch.setattr(actions, "_submit", lambda scan, release, upload: asked.append((release, upload)) or "run-2")
    client.force_login(make_user("rita", "researcher"))
    address = f"/admin/scans/scan/{done.pk}/do/rerun_scan/"
    assert client.post(address, {"release": "9.9", "reason": "x"}).status_code == 200 and asked == []
    line = client.get(address).context["form"].fields["release"].choices[0][0]
    assert client.post(address, {"release": line, "reason": "compare"}).status_code == 302
    assert asked == [(line, Path(home) / "done" / "parlour.zip")]
    entry = AuditEntry.objects.get(action="rerun_scan")
    assert entry.who == "rita" and entry.after == {"release": line, "run": "run-2", "pinned": False}


def test_a_dagster_that_is_not_there_is_said_in_words(client, done, make_user, settings, instance):
    settings.DAGSTER_URL = "http://127.0.0.1:1"
    client.force_login(make_user("rita", "researcher"))
    address = f"/admin/scans/scan/{done.pk}/do/rerun_scan/"
    line = client.get(address).context["form"].fields["release"].choices[0][0]
    answer = client.post(address, {"release": line, "reason": "compare"})
    assert answer.status_code == 409 and b"to start a run of it" in answer.content
    assert not AuditEntry.objects.filter(action="rerun_scan").exists()


def test_a_routing_table_that_does_not_answer_is_said_in_words(client, done, make_user, instance, monkeypatch):
    def gone(*arguments, **more):
        raise OSError("the storage is gone")

    monkeypatch.setattr("geomagic_dagster.releases.routing.RoutingStore._numbers", gone)
    client.force_login(make_user("rita", "researcher"))
    for method in (client.get, client.post):
        answer = method(f"/admin/scans/scan/{done.pk}/do/rerun_scan/")
        assert answer.status_code == 409 and b"the storage is gone" in answer.content


def test_a_token_is_shown_once_and_can_be_revoked(client, make_user, ada):
    client.force_login(make_user("otto", "operator"))
    answer = client.post("/admin/scans/token/add/", {"name": "app", "owner": ada.pk, "scopes": ["upload"], "days": 30})
    assert "no-store" in answer.headers["Cache-Control"]
    token = Token.objects.get()
    secret = answer.context["secret"]
    assert secret.encode() in answer.content and token.owner == ada
    assert secret.encode() not in client.get("/admin/scans/token/").content
    assert secret not in str(list(AuditEntry.objects.values()))
    client.post("/admin/scans/token/", {"action": "revoke", "_selected_action": [token.pk]})
    token.refresh_from_db()
    assert token.revoked_at
    assert {entry.action for entry in AuditEntry.objects.all()} == {"make_token", "revoke_token"}


@pytest.mark.parametrize("role", [role for role in roles.ROLES if role not in roles.TABLE["manage_tokens"]])
def test_tokens_are_made_by_nobody_else(client, make_user, ada, role):
    client.force_login(make_user("somebody", role))
    answer = client.post("/admin/scans/token/add/", {"name": "app", "owner": ada.pk, "scopes": ["admin"], "days": 30})
    assert answer.status_code == 403 and not Token.objects.exists()
    assert client.get("/admin/scans/token/").status_code == 403


def test_people_find_runs_where_the_proxy_shows_them(settings):
    from geomagic_dagster.console.scans.dagster_link import dagster_url, run_url

    assert run_url("x") == "http://127.0.0.1:3000/runs/x"
    settings.DAGSTER_URL, settings.DAGSTER_PAGES = "http://127.0.0.1:3000/dagster", "https://rooms.example.org/dagster"
    assert run_url("x") == "https://rooms.example.org/dagster/runs/x"
    assert dagster_url() == "http://127.0.0.1:3000/dagster"
