"""Who gets in, and what the answers carry so that nobody else does."""

from __future__ import annotations

import io
import stat

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import get_resolver, reverse

from geomagic_dagster.console.people import CannotMakeUser, make_user, set_password
from geomagic_dagster.console.registry.models import AuditEntry
from geomagic_dagster.console.secret import secret_key
from tests.console.people import PASSWORD

pytestmark = pytest.mark.django_db
LOGIN = "/admin/login/"


def test_health_needs_no_login_and_says_nothing_else(client):
    answer = client.get("/healthz")
    assert answer.status_code == 200 and answer.json() == {"status": "ok"}
    assert client.post("/healthz").status_code == 405


def test_the_front_page_asks_for_a_login_and_opens_after_it(client, home, make_user):
    make_user("vera", "viewer")
    answer = client.get("/", follow=True)
    assert answer.redirect_chain[-1][0].startswith(LOGIN)
    answer = client.post(f"{LOGIN}?next=/admin/", {"username": "vera", "password": PASSWORD}, follow=True)
    assert answer.status_code == 200 and answer.request["PATH_INFO"] == "/admin/"


def admin_addresses() -> list[str]:
    names = [name for name in get_resolver("geomagic_dagster.console.urls").reverse_dict if isinstance(name, str)]
    pages = ["index", "traffic", "lead_time", "registry_release_changelist", "registry_auditentry_changelist",
             "registry_incident_changelist", "auth_user_changelist", "auth_user_add", "password_change"]  # fmt: skip
    assert "health" not in names
    return [reverse(f"admin:{page}") for page in pages]


@pytest.mark.parametrize("method", ["get", "post"])
def test_no_page_without_a_login(client, home, method):
    for address in [
        *admin_addresses(),
        "/admin/do/set_flag/",
        "/admin/do/stage/1.1.0/",
        "/admin/registry/release/1/change/",
    ]:
        answer = getattr(client, method)(address)
        assert answer.status_code == 302 and answer.url.startswith(LOGIN), address


def test_whoever_has_no_role_does_not_get_in(client, home, make_user):
    client.force_login(make_user("norman"))
    answer = client.get("/admin/", follow=True)
    assert answer.request["PATH_INFO"] == LOGIN
    assert client.get("/session").status_code == 401


def test_a_proxy_is_told_who_it_is_and_whether_they_may_change_things(client, make_user):
    assert client.get("/session").status_code == 401
    for name, role, rights in (
        ("vera", "viewer", "read"),
        ("sam", "scientist", "read"),
        ("rita", "researcher", "write"),
    ):
        client.force_login(make_user(name, role))
        answer = client.get("/session")
        assert (answer.status_code, answer["X-Geomagic-User"], answer["X-Geomagic-Rights"]) == (204, name, rights)


def test_after_five_wrong_passwords_even_the_right_one_has_to_wait(client, home, make_user):
    make_user("rita", "researcher")
    make_user("vera", "viewer")
    for _ in range(5):
        answer = client.post(LOGIN, {"username": "rita", "password": "wrong"})
    assert answer.status_code == 429
    answer = client.post(LOGIN, {"username": "rita", "password": PASSWORD})
    assert answer.status_code == 429 and "Wait 15 minutes" in answer.content.decode()
    assert client.post(LOGIN, {"username": "vera", "password": PASSWORD}).status_code == 302, (
        "nobody else is locked out"
    )
    elsewhere = Client(REMOTE_ADDR="10.1.2.3")
    assert elsewhere.post(LOGIN, {"username": "rita", "password": PASSWORD}).status_code == 302, (
        "nor she from elsewhere"
    )


def test_every_change_needs_the_token_of_its_own_page(home, make_user):
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user("rita", "researcher"))
    assert client.post("/admin/do/set_flag/", {"reason": "x", "name": "f"}).status_code == 403
    assert client.post("/admin/logout/").status_code == 403


def test_headers_and_cookies(client, home, make_user, settings):
    make_user("vera", "viewer")
    answer = client.post(LOGIN, {"username": "vera", "password": PASSWORD})
    cookie = answer.cookies["sessionid"]
    assert cookie["httponly"] and cookie["samesite"] == "Lax" and not cookie["max-age"]
    answer = client.get("/admin/")
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "same-origin"
    assert settings.SESSION_COOKIE_AGE == 12 * 3600
    assert client.get("/admin/", headers={"host": "evil.example"}).status_code == 400


def test_a_session_ends(client, home, make_user, settings):
    settings.SESSION_COOKIE_AGE = 60
    client.force_login(make_user("vera", "viewer"))
    assert client.get("/admin/").status_code == 200
    session = client.session
    session.set_expiry(-1)
    session.save()
    assert client.get("/admin/").status_code == 302


def test_behind_https_everything_is_https_only(tmp_path):
    """In a process of its own: settings are read once."""
    import os
    import subprocess
    import sys

    code = "import django; django.setup(); from django.core.management import call_command; call_command('check', deploy=True)"
    environment = {n: value for n, value in os.environ.items() if not n.startswith(("GEOMAGIC_", "DJANGO_"))}
    environment |= {
        "GEOMAGIC_HOME": str(tmp_path), "GEOMAGIC_CONSOLE_HTTPS": "1", "GEOMAGIC_CONSOLE_HOSTS": "rooms.example",
        "DJANGO_SETTINGS_MODULE": "geomagic_dagster.console.settings",
    }  # fmt: skip
    print_some = "from django.conf import settings as s; print(s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SECURE_SSL_REDIRECT, s.SECURE_HSTS_SECONDS > 0, s.CSRF_TRUSTED_ORIGINS)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {print_some}"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "True True True True ['https://rooms.example']"
    warnings = [line for line in done.stderr.splitlines() if "(security." in line]
    # W005, W021: the neighbours' names under our domain are not ours to promise https for
    assert all("W005" in line or "W021" in line for line in warnings), warnings


def test_the_address_behind_a_proxy_is_the_one_that_the_proxy_saw(rf, settings):
    from geomagic_dagster.console.client import client_ip

    request = rf.get("/", REMOTE_ADDR="127.0.0.1", HTTP_X_FORWARDED_FOR="6.6.6.6, 10.0.0.9")
    assert client_ip(request) == "127.0.0.1", "whoever asks may claim anything"
    settings.IS_HTTPS = True
    assert client_ip(request) == "10.0.0.9"


# --- the secret key, users ---------------------------------------------------------------------------


def test_the_secret_key_is_made_once_and_is_its_owners_alone(tmp_path):
    path = tmp_path / "home" / "console.secret"
    key = secret_key(path)
    assert len(key) >= 48 and secret_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["console.secret"]
    path.chmod(0o644)
    with pytest.raises(
        PermissionError, match="expected to be readable by its owner alone; got mode 644. chmod 600 it."
    ):
        secret_key(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(ValueError, match="expected a key of at least 48 characters; got 5. Remove the file"):
        secret_key(path)


def test_users_are_made_with_a_good_password_and_a_role(db):
    user = make_user("nina", "a long password 7", ["researcher", "viewer"], email="nina@example.org")
    assert {group.name for group in user.groups.all()} == {"researcher", "viewer"}
    entry = AuditEntry.objects.get()
    assert (entry.who, entry.action, entry.object) == ("command line", "add_user", "user nina")
    for name, password, roles, words in (
        ("nina", "a long password 7", [], "expected a name that nobody has; got one that is taken"),
        ("nora", "a long password 7", ["boss"], "--role: expected some of researcher, engineer, .*; got boss"),
        ("nora", "short", [], "password: expected a good one; got: This password is too short"),
        ("nora", "123456789012", [], "entirely numeric"),
        ("nora miles norabella", "nora miles norabella", [], "expected a plain name"),
        ("norabella-miles", "norabella-miles", [], "too similar to the username"),
    ):
        with pytest.raises(CannotMakeUser, match=words):
            make_user(name, password, roles)
    set_password("nina", "another long one 8")
    assert user.__class__.objects.get().check_password("another long one 8")
    with pytest.raises(CannotMakeUser, match=r"nobody: expected a user of the console \(nina\); got none"):
        set_password("nobody", "another long one 8")


def test_no_migration_is_missing(db):
    said = io.StringIO()
    call_command("makemigrations", "--check", "--dry-run", "registry", stdout=said)
    assert "No changes" in said.getvalue()


def test_one_address_may_not_try_name_after_name(client, home):
    codes = [client.post(LOGIN, {"username": f"name{n}", "password": "wrong"}).status_code for n in range(31)]
    assert codes == [200] * 30 + [429]
    assert client.get(LOGIN).status_code == 200


def test_nobody_else_on_this_machine_reads_the_database(tmp_path):
    """Sessions are in it, and whoever has one is logged in."""
    from geomagic_dagster.console.server import _close_to_others

    place = tmp_path / "home" / "console.sqlite3"
    for mode in (None, 0o644):
        if mode is not None:
            place.chmod(mode)
        _close_to_others({"ENGINE": "django.db.backends.sqlite3", "NAME": place})
        assert place.stat().st_mode & 0o777 == 0o600
    _close_to_others({"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"})
    _close_to_others({"ENGINE": "django.db.backends.postgresql", "NAME": str(tmp_path / "geomagic")})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
