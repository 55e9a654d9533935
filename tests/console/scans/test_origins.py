"""Which pages of other sites may call the API from a browser: those that are named, and the API alone."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geomagic_dagster.console import settings as ours
from geomagic_dagster.console.origins import ANSWERED_WITH, allowed_origins
from tests.console.scans.conftest import TUS, archive, b64

pytestmark = pytest.mark.django_db
APP = "https://app.example.org"
OTHERS = [
    "https://evil.example.org", "https://app.example.org.evil.com", "http://app.example.org", "https://APP.example.org",
    "https://app.example.org:8443", "https://xapp.example.org", "null", "file://", "*", "", "https://", "https://[",
]  # fmt: skip


@pytest.fixture
def app(settings):
    settings.CORS_ALLOWED_ORIGINS = [APP]


def ask_first(path: str, origin: str = APP, method: str = "POST", headers: str = "authorization,tus-resumable"):
    """What a browser asks before it sends what a plain form could not."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return Client().options(path, headers=asked)


def cors_of(answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.lower().startswith("access-control")}


def test_nobody_is_named_unless_somebody_names_them():
    assert ours.CORS_ALLOWED_ORIGINS == []
    assert cors_of(ask_first("/api/scans")) == {}


def test_a_browser_that_asks_first_is_told_what_tus_needs(app):
    answer = ask_first("/api/scans", headers="authorization,tus-resumable,upload-length,upload-metadata,content-type")
    said = cors_of(answer)
    assert answer.status_code == 200 and answer.content == b""
    assert said["access-control-allow-origin"] == APP
    assert "origin" in answer.headers["Vary"].lower()
    methods = set(said["access-control-allow-methods"].split(", "))
    assert methods == {"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"}
    headers = set(said["access-control-allow-headers"].split(", "))
    assert headers >= {
        "authorization", "content-type", "idempotency-key", "tus-resumable", "upload-length", "upload-metadata",
        "upload-offset", "upload-checksum",
    }  # fmt: skip
    assert not headers & {"cookie", "x-csrftoken", "*"}
    assert int(said["access-control-max-age"]) <= 3600
    assert "access-control-allow-credentials" not in said


def test_a_whole_upload_from_a_page_that_is_named(app, api, taken):
    content = archive()
    metadata = f"filename {b64('room.zip')}"
    created = api.call(
        "POST", "/api/scans", Origin=APP, Upload_Length=str(len(content)), Upload_Metadata=metadata, **TUS
    )
    assert created.status_code == 201
    assert cors_of(created)["access-control-allow-origin"] == APP
    readable = set(cors_of(created)["access-control-expose-headers"].split(", "))
    assert readable == set(ANSWERED_WITH) and readable >= {"Location", "Upload-Offset", "Tus-Resumable"}
    url = created.json()["url"]
    assert ask_first(url, method="PATCH").status_code == 200
    for answer in (
        api.call("HEAD", url, Origin=APP, **TUS),
        api.patch(url, content, Origin=APP),
        api.call("GET", url, Origin=APP),
    ):
        assert answer.status_code in (200, 204)
        assert cors_of(answer)["access-control-allow-origin"] == APP
        assert "access-control-allow-credentials" not in cors_of(answer)


def test_refusals_can_be_read_too(app, api):
    nonsense = api.call("POST", "/api/scans", b"nonsense", Origin=APP)
    for answer in (nonsense, Client().get("/api/scans", headers={"Origin": APP})):
        assert answer.status_code in (400, 401, 422)
        assert cors_of(answer)["access-control-allow-origin"] == APP


def test_what_a_server_speaks_is_still_asked_with_a_token(app, api):
    answer = api.call("OPTIONS", "/api/scans", Origin=APP)
    assert answer.status_code == 204 and "creation" in answer.headers["Tus-Extension"]
    assert Client().options("/api/scans", headers={"Origin": APP}).status_code == 401


@pytest.mark.parametrize("origin", OTHERS)
def test_other_origins_are_told_nothing(app, api, origin):
    assert cors_of(ask_first("/api/scans", origin)) == {}
    answer = api.call("GET", "/api/scans", Origin=origin)
    assert answer.status_code == 200 and cors_of(answer) == {}, "a program with a token is no browser"


def test_a_session_is_no_token(app, client, make_user):
    client.force_login(make_user("olga", "operator"))
    for method in ("get", "post"):
        answer = getattr(client, method)("/api/scans", headers={"Origin": APP})
        assert answer.status_code == 401


@pytest.mark.parametrize(
    "path", ["/", "/admin/", "/admin/login/", "/admin/traffic/", "/session", "/healthz", "/static/scans/status.css",
             "/s/x", "/scans/00000000-0000-0000-0000-000000000000/status", "/apix", "/admin/api/", "//api/scans"],
)  # fmt: skip
def test_only_the_api_speaks_to_other_sites(app, client, make_user, path):
    client.force_login(make_user("olga", "operator"))
    for method in ("GET", "POST", "OPTIONS"):
        asked = {"Origin": APP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}
        assert cors_of(client.generic(method, path, headers=asked)) == {}


# --- the setting ------------------------------------------------------------------------------------


def test_origins_are_named_one_by_one():
    said = " https://app.example.org, http://localhost:5173 ,,https://[::1]:8443,http://10.0.0.1 "
    assert allowed_origins(said) == [
        "https://app.example.org", "http://localhost:5173", "https://[::1]:8443", "http://10.0.0.1",
    ]  # fmt: skip
    assert allowed_origins("") == []


@pytest.mark.parametrize(
    "said",
    ["*", "https://*", "https://*.example.org", "null", "example.org", "https://example.org/", "https://example.org/x",
     "https://Example.org", "HTTPS://example.org", "https://example.org:443", "http://example.org:80", "ftp://example.org",
     "https://user@example.org", "https://example.org?x", "https://example.org#x", "https://exämple.org", "https://",
     "https://example.org:x", "https://example.org:99999", "https://[", "https://a b", "https://a\tb"],
)  # fmt: skip
def test_what_is_no_whole_origin_is_refused_in_words(said):
    with pytest.raises(ImproperlyConfigured) as refused:
        allowed_origins(f"https://app.example.org,{said}")
    assert "GEOMAGIC_CONSOLE_ORIGINS: expected origins as browsers send them, like https://app" in str(refused.value)
    assert repr(said[:100]) in str(refused.value)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=40))
def test_any_text_is_origins_or_is_refused(said):
    try:
        origins = allowed_origins(said)
    except ImproperlyConfigured:
        return
    assert all(each.startswith(("https://", "http://")) and "*" not in each for each in origins)
