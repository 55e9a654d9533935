"""What somebody tries who wants more than they may: on the console's pages, with or without a role."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from geomagic_dagster.console import headers, roles
from geomagic_dagster.console.client import counted_as
from geomagic_dagster.console.logs import WithoutKeys
from geomagic_dagster.console.registry import service
from geomagic_dagster.console.registry.models import Approval, AuditEntry, Incident, Release
from geomagic_dagster.console.scans import describing, rates
from geomagic_dagster.console.scans.models import Delivery, Run, Scan, State, Token
from tests.console.people import PASSWORD

pytestmark = pytest.mark.django_db
LOGIN = "/admin/login/"
SCRIPT = "<script>alert(1)</script>"
MARKUP = f"{SCRIPT}\"'><img src=x onerror=alert(1)>{{{{ settings.SECRET_KEY }}}}{{% debug %}}"


# --- addresses of others ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example/", "//evil.example/", "/\\evil.example", "///evil.example", "https:///evil.example",
        "\thttps://evil.example", " //evil.example", "javascript:alert(1)", "https:evil.example", "/\t/evil.example",
        "http://testserver@evil.example/", "http://testserver.evil.example/",
    ],
)  # fmt: skip
def test_a_login_leads_to_no_other_site(home, make_user, to):
    make_user("vera", "viewer")
    for address, more in ((LOGIN, {"next": to}), (f"{LOGIN}?next={to}", {})):
        answer = Client().post(address, {"username": "vera", "password": PASSWORD, **more})
        assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/")
    client = Client()
    client.force_login(User.objects.get(username="vera"))
    assert client.get(LOGIN, {"next": to}).headers["Location"] == "/admin/"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "evil.example:80@localhost", "localhost\t"])
def test_no_other_host_is_answered(client, home, host):
    for address in ("/", LOGIN, "/healthz", "/api/scans", "/s/x"):
        assert client.get(address, headers={"host": host}).status_code == 400


def test_what_a_client_says_of_its_host_and_address_counts_for_nothing(client, home, make_user):
    make_user("vera", "viewer")
    claims = {"X-Forwarded-Host": "evil.example", "X-Forwarded-For": "10.9.8.7", "Forwarded": "host=evil.example"}
    answer = client.get("/admin/", headers=claims)
    assert answer.status_code == 302 and answer.headers["Location"].startswith(LOGIN)
    codes = []
    for n in range(31):
        said = {"username": f"name{n}", "password": "wrong"}
        codes.append(client.post(LOGIN, said, headers={"X-Forwarded-For": f"10.0.0.{n}"}).status_code)
    assert codes[-1] == 429


# --- how often --------------------------------------------------------------------------------------


def test_whoever_has_a_whole_network_counts_as_one(rf):
    def who(address: str) -> str | None:
        return counted_as(rf.get("/", REMOTE_ADDR=address))

    assert who("2001:db8:1:2::1") == who("2001:db8:1:2:ffff:ffff:ffff:ffff") == "2001:db8:1:2::"
    assert who("2001:db8:1:3::1") != who("2001:db8:1:2::1")
    assert who("10.1.2.3") == who("::ffff:10.1.2.3") == "10.1.2.3"
    assert who("10.1.2.4") != who("10.1.2.3")
    assert who("fe80::1%eth0") == "fe80::" and who("unix:") == "unix:" and who("") is None


def test_addresses_of_one_network_share_their_wrong_passwords(home, make_user):
    make_user("rita", "researcher")
    wrong = {"username": "rita", "password": "wrong"}
    codes = [Client(REMOTE_ADDR=f"2001:db8::{n + 1}").post(LOGIN, wrong).status_code for n in range(5)]
    assert codes == [200] * 4 + [429]
    assert Client(REMOTE_ADDR="2001:db8::99").post(LOGIN, {"username": "rita", "password": PASSWORD}).status_code == 429


def test_many_who_ask_make_nobody_be_forgotten(settings):
    settings.SCAN_RATES = {"login": (1, 3600)}
    rates.count("login", "mallory")
    for n in range(2000):
        rates.count("page", f"10.0.{n // 256}.{n % 256}")
    with pytest.raises(rates.Refused, match="expected at most 1 a 3600 s"):
        rates.count("login", "mallory")


# --- headers ----------------------------------------------------------------------------------------


def everywhere(patterns: Any = None, before: str = "/") -> list[str]:
    """Every address of the console, with something in the place of what varies."""
    found = []
    known: Any = get_resolver("geomagic_dagster.console.urls").url_patterns if patterns is None else patterns
    for each in known:
        place = before + re.sub(r"<(uuid):\w+>", "00000000-0000-4000-8000-000000000000", str(each.pattern))
        place = re.sub(r"\^|\$|\\Z", "", re.sub(r"\(\?P<\w+>[^)]*\)|<[^>]+>", "1", place)).replace("\\", "")
        if isinstance(each, URLResolver):
            found += everywhere(each.url_patterns, place)
        elif isinstance(each, URLPattern):
            found.append(place)
    return found


def test_every_answer_forbids_scripts_frames_and_caches(client, home, make_user):
    addresses = everywhere()
    assert {"/admin/", "/healthz", "/session", "/api/scans", "/admin/traffic/", "/s/1"} <= set(addresses)
    client.raise_request_exception = False
    for user in (None, make_user("vera", "viewer")):
        if user is not None:
            client.force_login(user)
        for address in addresses:
            answer = client.get(address)
            policy = answer.headers["Content-Security-Policy"]
            assert answer.status_code < 500, address
            assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
            assert "frame-ancestors 'none'" in policy and "default-src" in policy, address
            assert answer.headers["X-Frame-Options"] == "DENY" and answer.headers["X-Content-Type-Options"] == "nosniff"
            assert re.search("no-store|no-cache", answer.headers["Cache-Control"]), address


def test_pages_need_no_script_but_files(client, home, make_user):
    """What the policy forbids is on no page."""
    assert "script-src 'self'" in headers.POLICY
    client.force_login(make_user("root", *roles.ROLES, is_superuser=True))
    for address in everywhere():
        page = client.get(address).getvalue().decode(errors="replace") if address.startswith("/admin/") else ""
        assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)|\son\w+=|\sstyle=|<style", page), address


# --- every POST -------------------------------------------------------------------------------------


def test_no_post_works_without_the_token_of_its_page(home, make_user):
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    user = make_user("root", *roles.ROLES, is_superuser=True)
    client.force_login(user)
    before = AuditEntry.objects.count(), User.objects.count()
    for address in everywhere():
        if not address.startswith("/api/"):
            answer = client.post(address, {"reason": "x", "name": "f", "action": "revoke"})
            assert answer.status_code in (403, 405), (address, answer.status_code)
    assert (AuditEntry.objects.count(), User.objects.count()) == before


def test_a_session_opens_nothing_of_the_api(home, make_user):
    client = Client()
    client.force_login(make_user("root", *roles.ROLES, is_superuser=True))
    for method in ("get", "post", "put", "patch", "delete", "head"):
        answer: Any = client.generic(method.upper(), "/api/scans", b"{}", "application/json")
        assert answer.status_code in (401, 405), method


# --- rights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [*roles.ROLES, "nobody"])
def test_forged_forms_of_the_admin_change_nothing(client, home, make_user, role):
    """Forms of Django's admin that no page shows: adding, changing, deleting, the menus of lists."""
    user = make_user("mallory", *({role} & set(roles.ROLES)))
    other = make_user("ada", "operator")
    token = Token.objects.create(
        name="app", owner=other, digest="d", hint="gm_x", expires_at=timezone.now() + timedelta(1)
    )
    scan = Scan.objects.create(name="room", owner=other, token=token, state=State.DONE)
    delivery = Delivery.objects.create(scan=scan, event="scan.done", url="https://example.org/", body="{}")
    incident = Incident.objects.create(title="slow", opened_by="ada", words="x")
    client.force_login(user)
    client.raise_request_exception = False
    said = {
        "name": "changed", "state": "done", "owner": user.pk, "groups": [g.pk for g in Group.objects.all()],
        "is_superuser": "on", "is_staff": "on", "is_active": "on", "username": "mallory", "password": "x",
        "title": "changed", "scopes": "admin", "post": "yes", "kept": "approved", "version": "9.9.9", "_save": "Save",
    }  # fmt: skip
    targets = {
        "scans/scan": scan.pk, "scans/token": token.pk, "scans/delivery": delivery.pk, "auth/user": user.pk,
        "auth/group": 1, "registry/incident": incident.pk, "registry/auditentry": 1, "registry/approval": 1,
        "registry/release": 1, "registry/stagingtest": 1,
    }  # fmt: skip
    before = _state()
    for model, key in targets.items():
        for address in (f"{model}/{key}/change/", f"{model}/{key}/delete/", f"{model}/{key}/password/"):
            client.post(f"/admin/{address}", said)
        for action in ("delete_selected", "send_again", "make_default", "approve", "nonsense"):
            client.post(f"/admin/{model}/", {"action": action, "_selected_action": [key], "post": "yes"})
        if model != "scans/token" or role not in roles.TABLE["manage_tokens"]:
            client.post(f"/admin/{model}/add/", said)
            client.post(f"/admin/{model}/", {"action": "revoke", "_selected_action": [key]})
    if role in roles.TABLE["manage_tokens"]:
        before = before | {"deliveries": _state()["deliveries"]}  # to send again is theirs
    assert _state() == before


def _state() -> dict[str, object]:
    return {
        "users": list(User.objects.order_by("pk").values("pk", "username", "is_superuser", "is_staff", "password")),
        "groups": sorted(User.groups.through.objects.values_list("user_id", "group_id")),
        "tokens": list(Token.objects.values("pk", "name", "owner", "scopes", "revoked_at")),
        "scans": list(Scan.objects.values("pk", "name", "owner", "state")),
        "deliveries": list(Delivery.objects.values("pk", "next_at", "url")),
        "others": [model.objects.count() for model in (Release, Approval, Group)],
        "incidents": list(Incident.objects.values("title", "closed_at")),
    }


@pytest.mark.parametrize(
    "query",
    [
        "name__regex=(a%2B)%2B%24", "reason__iregex=x", "token__digest__startswith=a", "owner__password__startswith=a",
        "idempotency_key__startswith=a", "webhook_url__startswith=a", "state__regex=x", "state__in=done",
        "created_at__year=" + "9" * 30, "created_at__year=-1", "created_at__date__regex=x", "sha256__lt=8",
    ],
)  # fmt: skip
def test_a_list_answers_no_question_that_its_page_does_not_ask(client, home, make_user, query):
    """A regular expression without end would silence the console: SQLite asks Python's."""
    client.force_login(make_user("vera", "viewer"))
    assert client.get(f"/admin/scans/scan/?{query}").status_code == 400


@pytest.mark.parametrize(
    "query", ["state__exact=done", "release=1.0", "created_at__year=2026&created_at__month=3", "q=a"]
)
def test_what_its_page_asks_is_answered(client, home, make_user, query):
    client.force_login(make_user("vera", "viewer"))
    assert client.get(f"/admin/scans/scan/?{query}").status_code == 200


# --- text of others ---------------------------------------------------------------------------------


def test_text_of_somebody_else_is_text_on_every_page(client, home, make_user, approved, people, instance_of_nobody):
    """Names, reasons, notes, records, failures: whatever came in, nothing of it is markup, and no template is run."""
    release = approved("1.1.0")
    Release.objects.update(cut_by=MARKUP, branch=MARKUP[:80])
    release.changes.update(title=MARKUP[:200])
    service.open_incident(people.rita, MARKUP, MARKUP, "1.1.0")
    service.set_pin(people.rita, MARKUP[:100], "latest", MARKUP)
    owner = make_user("ada", "operator", first_name=SCRIPT)
    token = Token.objects.create(
        name=MARKUP[:80], owner=owner, digest="d", hint="gm_x", expires_at=timezone.now() + timedelta(1)
    )
    scan = Scan.objects.create(
        name=MARKUP, owner=owner, token=token, state=State.REJECTED, reason=MARKUP, upload=MARKUP[:200], flight=SCRIPT,
        release=SCRIPT, webhook_url="https://example.org/" + SCRIPT,
    )  # fmt: skip
    Run.objects.create(run_id=SCRIPT, scan=scan, status=SCRIPT[:20], reason=MARKUP, created_at=timezone.now())
    log = [{"at": "now", "took_ms": 1, "said": MARKUP}]
    Delivery.objects.create(scan=scan, event=SCRIPT, url="https://example.org/" + SCRIPT, body="{}", log=log)
    AuditEntry.objects.create(
        who=SCRIPT, role=SCRIPT, action=SCRIPT, object=f"scan {scan.pk}", reason=MARKUP, before=MARKUP, after=[MARKUP]
    )
    client.force_login(make_user("root", *roles.ROLES, is_superuser=True))
    pages = [
        "/admin/", "/admin/traffic/", "/admin/lead-time/", "/admin/registry/release/", "/admin/registry/incident/",
        f"/admin/registry/release/{release.pk}/change/", "/admin/registry/auditentry/", "/admin/scans/scan/",
        "/admin/registry/stagingtest/", "/admin/registry/approval/", f"/admin/scans/scan/{scan.pk}/change/",
        f"/admin/scans/scan/{scan.pk}/do/rerun_scan/", "/admin/scans/token/", "/admin/scans/delivery/",
        "/admin/auth/user/", "/admin/do/open_incident/", f"/scans/{scan.pk}/status", f"/s/{describing.link_key(scan)}",
        f"/admin/registry/auditentry/{AuditEntry.objects.latest('pk').pk}/change/", "/admin/scans/scan/?q=" + MARKUP,
    ]  # fmt: skip
    seen = 0
    for address in pages:
        page = client.get(address, follow=True).getvalue().decode()
        assert SCRIPT not in page and "<img src=x" not in page, address
        assert "SECRET_KEY" not in page.replace("settings.SECRET_KEY", ""), address
        seen += "&lt;script&gt;" in page
    assert seen > 12, "most of them show some of it"


@pytest.fixture
def instance_of_nobody(monkeypatch):
    """No page of this test asks Dagster."""
    monkeypatch.setattr("geomagic_dagster.console.scans.describing.instance", lambda: None)


def test_keys_and_tokens_stay_out_of_the_log(client, home, caplog):
    key, token = "ImFiY2RlZiI:1abcde:0123456789abcdefghijklmnop", "gm_0123456789abcdefghijklmnop"
    with caplog.at_level(logging.WARNING):
        client.get(f"/s/{key}/files/room.glb")
        logging.getLogger("geomagic").warning("%s was shown", token)
    assert len(caplog.records) >= 2
    for record in caplog.records:
        assert WithoutKeys().filter(record)
    said = " ".join(record.getMessage() for record in caplog.records)
    assert key not in said and token not in said and "/s/.../files/room.glb" in said and "gm_... was shown" in said


def test_the_consoles_log_has_that_filter(settings):
    assert settings.LOGGING["handlers"]["stderr"]["filters"] == ["without_keys"]
    assert settings.LOGGING["filters"]["without_keys"]["()"].endswith("logs.WithoutKeys")
