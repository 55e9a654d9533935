"""The API: what it takes, what it refuses, in which words."""

from __future__ import annotations

import base64
import hashlib
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.utils import timezone

from geomagic_dagster.console.scans import rates, tokens, uploads, worker
from geomagic_dagster.console.scans.models import Scan, Token
from geomagic_dagster.console.scans.uploads import Limits
from tests.console.scans.conftest import BYTES, TUS, Api, archive, b64

pytestmark = pytest.mark.django_db


def error(answer, status: int) -> str:
    assert answer.status_code == status, (answer.status_code, answer.content)
    assert answer.headers["Content-Type"] == "application/json"
    return answer.json()["error"]


# --- sending ----------------------------------------------------------------------------------------


def test_an_upload_in_three_parts_reaches_the_intake_as_it_was_sent(api, taken, inbox):
    content = archive()
    answer = api.create(content, "Wohnküche 2. Stock.zip")
    assert answer.status_code == 201 and answer.headers["Location"].endswith(answer.json()["url"])
    url, third = answer.json()["url"], len(content) // 3
    assert api.state(url) == answer.json() | {"bytes_received": 0, "state": "receiving"}
    for at in (0, third, 2 * third):
        until = len(content) if at == 2 * third else at + third
        assert api.offset(url) == at
        answer = api.patch(url, content[at:until], at)
        assert answer.status_code == 204 and answer.headers["Upload-Offset"] == str(until)
    assert taken == [f"Wohnküche-2-Stock-{url.rsplit('/', 1)[1].replace('-', '')[:12]}.zip"]
    assert (inbox / taken[0]).read_bytes() == content
    said = api.state(url)
    assert (said["state"], said["name"], said["bytes_received"]) == ("queued", "Wohnküche 2. Stock.zip", len(content))


def test_tus_headers_create_an_upload(api, taken):
    content = archive()
    metadata = f"filename {b64('attic.zip')},filetype {b64('application/zip')},is_confidential"
    answer = api.call("POST", "/api/scans", Upload_Length=str(len(content)), Upload_Metadata=metadata, **TUS)
    assert answer.status_code == 201 and answer.headers["Tus-Resumable"] == "1.0.0"
    assert answer.headers["Upload-Expires"].endswith("GMT")
    head = api.call("HEAD", answer.json()["url"], **TUS)
    assert head.headers["Upload-Length"] == str(len(content)) and head.headers["Cache-Control"] == "no-store"
    assert head.headers["Upload-Metadata"] == f"filename {b64('attic.zip')}"
    assert api.patch(answer.json()["url"], content).status_code == 204


def test_creation_with_upload_takes_the_first_bytes_too(api, taken):
    content = archive()
    answer = api.call("POST", "/api/scans", content[:100], BYTES, Upload_Length=str(len(content)), **TUS)
    assert answer.status_code == 201 and answer.headers["Upload-Offset"] == "100"
    assert api.patch(answer.json()["url"], content[100:], 100).status_code == 204
    assert len(taken) == 1


def test_a_creation_whose_bytes_are_refused_leaves_nothing_open(api, settings):
    settings.UPLOAD_LIMITS = Limits(senders=0)
    answer = api.call("POST", "/api/scans", b"12345", BYTES, Upload_Length="5", **TUS)
    assert answer.status_code == 503 and Scan.objects.get().state == "cancelled"
    assert list(uploads.folder().glob("*.part")) == []


def test_options_tell_what_is_spoken(api):
    answer = api.call("OPTIONS", "/api/scans")
    assert answer.status_code == 204 and answer.headers["Tus-Version"] == "1.0.0"
    assert answer.headers["Tus-Max-Size"] == str(20 * 2**30)
    assert answer.headers["Tus-Extension"] == "creation,creation-with-upload,expiration,termination,checksum"
    assert answer.headers["Tus-Checksum-Algorithm"] == "md5,sha1,sha256"


def test_the_same_idempotency_key_is_the_same_scan(api):
    first = api.call("POST", "/api/scans", b'{"name": "a.zip", "bytes": 10}', Idempotency_Key="k1")
    again = api.call("POST", "/api/scans", b'{"name": "a.zip", "bytes": 10}', Idempotency_Key="k1")
    assert (first.status_code, again.status_code) == (201, 200) and first.json() == again.json()
    other = api.call("POST", "/api/scans", b'{"name": "a.zip", "bytes": 11}', Idempotency_Key="k1")
    assert "expected the same request as the first with this key" in error(other, 422)
    assert Scan.objects.count() == 1


def test_the_same_chunk_twice_is_refused_and_told_where_to_go_on(api, taken):
    content = archive()
    url = api.created(content)
    assert api.patch(url, content[:1000]).status_code == 204
    answer = api.patch(url, content[:1000])
    assert "Upload-Offset: expected 1000, which is how much was received; got 0" in error(answer, 409)
    assert answer.headers["Upload-Offset"] == "1000"


def test_the_wrong_order_is_refused(api):
    content = archive()
    url = api.created(content)
    assert "expected 0" in error(api.patch(url, content[2000:3000], 2000), 409)
    assert api.offset(url) == 0


def test_more_than_was_announced_is_refused_and_nothing_of_it_is_kept(api):
    content = archive()
    url = api.created(content)
    assert api.patch(url, content[:10]).status_code == 204
    said = error(api.patch(url, content[10:] + b"more", 10), 413)
    assert said == (
        f"upload: expected {len(content)} bytes, as was said when it was created; got {len(content) + 4} or more. "
        "Nothing of this part is kept. Create an upload of the right length."
    )
    assert api.offset(url) == 10


def test_a_part_with_a_wrong_checksum_is_not_kept(api, taken):
    content = archive()
    url = api.created(content)
    good = "sha256 " + base64.b64encode(hashlib.sha256(content).digest()).decode()
    bad = "sha1 " + base64.b64encode(hashlib.sha1(b"other").digest()).decode()
    assert "Nothing of this part is kept: send it again from 0." in error(
        api.patch(url, content, Upload_Checksum=bad), 460
    )
    assert api.offset(url) == 0
    for nonsense in ("crc32 AAAA", "sha256 !!!", "sha256", "sha256 AAAA"):
        assert "Mend the header" in error(api.patch(url, content, Upload_Checksum=nonsense), 400)
    assert api.patch(url, content, Upload_Checksum=good).status_code == 204


def test_the_digest_of_the_whole_is_checked_at_the_end(api, taken):
    content = archive()
    url = api.created(content, sha256=hashlib.sha256(b"other").hexdigest())
    said = error(api.patch(url, content), 422)
    assert said.startswith("upload: expected sha256 d9298a10d1b07358...; got ") and said.endswith("Send it again.")
    assert api.state(url)["state"] == "rejected" and taken == []
    assert list(uploads.folder().glob("*.part")) == []


# --- bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, -1])
def test_an_upload_needs_a_size(api, size):
    answer = api.call("POST", "/api/scans", f'{{"name": "a.zip", "bytes": {size}}}'.encode())
    assert "greater than or equal to 1" in error(answer, 422)


def test_an_oversized_upload_is_refused_before_a_byte_comes(api):
    answer = api.call("POST", "/api/scans", b'{"name": "a.zip", "bytes": 21474836481}')
    assert "expected 1 to 21474836480 bytes; got 21474836481. Send one room at a time." in error(answer, 413)


def test_an_upload_that_no_disk_would_hold_is_refused(api, settings):
    settings.UPLOAD_LIMITS = Limits(bytes=2**60, reserve_bytes=2**60)
    assert "disk of the console: expected room for the upload" in error(api.create(b"12345"), 507)


def test_uploads_under_way_are_counted(api, settings):
    settings.UPLOAD_LIMITS = Limits(open_uploads=2)
    first = api.created(b"12345")
    api.created(b"12345")
    answer = api.create(b"12345")
    assert "expected at most 2 at a time; got one more than the 2 that are open" in error(answer, 429)
    assert answer.headers["Retry-After"] == "60"
    assert api.call("DELETE", first, **TUS).status_code == 204
    assert api.create(b"12345").status_code == 201


@pytest.mark.parametrize(
    ("body", "kind", "words", "status"),
    [
        (b"<svg/>", "image/svg+xml", "content-type: expected application/json, or the header Upload-Length", 415),
        (b"{", "application/json", "body: expected JSON", 400),
        (b"[" * 40_000, "application/json", "body: expected JSON", 400),
        (b"{}" + b" " * 2**17, "application/json", "expected JSON of at most 65536 bytes", 413),
        (b'{"name": "a", "bytes": 1, "admin": true}', "application/json", "admin: expected what", 422),
        (b'{"name": "a", "bytes": "1"}', "application/json", "bytes: expected what", 422),
        (b'{"name": "a", "bytes": 1, "sha256": "zz"}', "application/json", "sha256: expected what", 422),
        (b"\xff\xfe", "application/json", "body: expected JSON", 400),
        (b'{"name": "\\ud800", "bytes": 1}', "application/json", "name: expected what", 422),
    ],
)  # fmt: skip
def test_what_creates_nothing(api, body, kind, words, status):
    assert words in error(api.call("POST", "/api/scans", body, kind), status)
    assert Scan.objects.count() == 0


@pytest.mark.parametrize(
    ("headers", "words", "status"),
    [
        ({"Upload_Length": "-1"}, "Upload-Length: expected a whole number of bytes; got '-1'", 400),
        ({"Upload_Length": "1e9"}, "expected a whole number", 400),
        ({"Upload_Length": "٣"}, "expected a whole number", 400),
        ({"Upload_Defer_Length": "1"}, "Upload-Length: expected a whole number of bytes; got none", 400),
        ({"Upload_Length": "9", "Upload_Metadata": "filename *"}, "Upload-Metadata: expected keys", 400),
        ({"Upload_Length": "9", "Upload_Metadata": "a YQ==,a YQ=="}, "got a twice", 400),
        ({"Upload_Length": "9", "Tus_Resumable": "0.2.2"}, "Tus-Resumable: expected 1.0.0; got '0.2.2'", 412),
    ],
)
def test_headers_that_create_nothing(api, headers, words, status):
    assert words in error(api.call("POST", "/api/scans", **({**TUS, **headers})), status)


NAMES = {
    "../../etc/passwd.zip": "etc-passwd",
    "..": "scan",
    "'; DROP TABLE scans_scan; --.zip": "DROP-TABLE-scans_scan",
    "{{ settings.SECRET_KEY }}{% debug %}.zip": "settings-SECRET_KEY-debug",
    "<script>alert(1)</script>.zip": "script-alert-1-script",
    "roo\u202epiz.exe": "roopiz-exe",
    "a\x00b\nc.zip": "abc",
    ".hidden.part": "hidden-part",
    "CON.zip": "CON",
    "x" * 400 + ".zip": "x" * 40,
    "部屋.zip": "部屋",
    "a/b\\c.zip": "a-b-c",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_to_show_and_nothing_else(api, taken, inbox, name):
    url = api.send(archive(), name)
    assert taken[0].startswith(NAMES[name] + "-") and taken[0].endswith(".zip")
    assert sorted(path.name for path in inbox.iterdir()) == [".uploads", taken[0]]
    said = api.state(url)["name"]
    assert said.isprintable() and said
    page = api.client.get(api.state(url)["status_page"])
    assert (
        page.status_code == 200
        and b"<script>alert" not in page.content
        and b"SECRET_KEY" not in page.content.replace(b"settings.SECRET_KEY", b"")
    )


@pytest.mark.parametrize(
    "content",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b"<!doctype html><script>alert(1)</script>",
        b"\x7fELF" + bytes(100),
        b"#!/bin/sh\nrm -rf /\n",
        b"PK but not really",
    ],
)
def test_what_is_no_archive_is_refused_whatever_it_is_called(api, taken, content):
    url = api.created(content, "room.zip")
    said = error(api.patch(url, content), 422)
    assert said.startswith("room.zip: expected an archive (zip, tar, tar.gz); got a file that begins with b")
    assert said.endswith("Upload the scan's folder as a zip.")
    assert taken == [] and api.state(url)["reason"] == said


def test_half_an_archive_is_refused(api, taken):
    half = archive()[:-30]
    url = api.created(half)
    assert "expected a whole upload; got an archive without its end" in error(api.patch(url, half), 422)
    assert api.state(url)["state"] == "rejected" and taken == []


def test_bytes_need_their_content_type(api):
    url = api.created(b"12345")
    answer = api.call("PATCH", url, b"12345", "application/zip", Upload_Offset="0", **TUS)
    assert "content-type: expected application/offset+octet-stream" in error(answer, 415)
    answer = api.call("PATCH", url, b"12345", BYTES, **TUS)
    assert "Upload-Offset: expected a whole number of bytes; got none" in error(answer, 400)


def test_a_whole_upload_takes_no_more_bytes(api, taken):
    content = archive()
    url = api.send(content)
    assert "more of an upload that is whole" in error(api.patch(url, b"x", len(content)), 409)


# --- tokens -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer nonsense", "Basic YTpi", "Bearer gm_" + "x" * 43, "Bearer \x00"]
)
def test_without_a_valid_token_nothing_is_said(api, header):
    url = api.created(b"12345")
    for method, path in (
        ("POST", "/api/scans"),
        ("GET", "/api/scans"),
        ("GET", url),
        ("HEAD", url),
        ("PATCH", url),
        ("DELETE", url),
        ("GET", url + "/files/room.glb"),
        ("GET", "/api/openapi.json"),
        ("OPTIONS", "/api/scans"),
    ):
        answer = Api().call(method, path, Authorization=header)
        assert answer.status_code == 401, (method, path, answer.status_code)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        if method != "HEAD":
            assert answer.json()["error"].startswith("token: expected a valid one; got one that is not known.")


def test_an_expired_a_revoked_and_an_orphaned_token_open_nothing(ada, home, instance):
    token, secret = tokens.make(ada, "app", ["upload"])
    Token.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert "got one that expired on" in error(Api(secret).call("GET", "/api/scans"), 401)
    Token.objects.update(expires_at=timezone.now() + timedelta(days=1))
    assert Api(secret).call("GET", "/api/scans").status_code == 200
    tokens.revoke(token)
    assert "got one that was revoked. Ask an operator" in error(Api(secret).call("GET", "/api/scans"), 401)
    Token.objects.update(revoked_at=None)
    ada.is_active = False
    ada.save()
    assert "whose owner may not log in any more" in error(Api(secret).call("GET", "/api/scans"), 401)


def test_a_token_does_what_its_scopes_say(ada, api, home, instance):
    url = api.created(b"12345")
    reader = Api(tokens.make(ada, "dashboard", ["read"])[1])
    assert reader.call("GET", url).status_code == 200
    for answer in (
        reader.create(b"12345"),
        reader.patch(url, b"12345"),
        reader.call("DELETE", url),
        reader.call("HEAD", url, **TUS),
    ):
        assert answer.status_code == 403
    assert error(reader.create(b"1"), 403) == (
        "token: expected one with the scope upload or admin; got one with read. Ask an operator for another."
    )


def test_somebody_elses_scan_is_not_there(api, make_user, home, instance):
    url = api.created(b"12345")
    bob = Api(tokens.make(make_user("bob", "operator"), "app", ["upload", "read"])[1])
    nowhere = "/api/scans/00000000-0000-4000-8000-000000000000"
    for method in ("GET", "HEAD", "DELETE"):
        assert bob.call(method, url).status_code == bob.call(method, nowhere).status_code == 404
    assert bob.patch(url, b"12345").status_code == 404
    assert "expected a scan of this token's owner; got none of this id" in error(bob.call("GET", url), 404)
    assert bob.call("GET", "/api/scans").json()["scans"] == []
    admin = Api(tokens.make(make_user("root", "operator"), "all", ["admin"])[1])
    assert admin.call("GET", url).status_code == 200


def test_the_secret_is_stored_nowhere(ada):
    token, secret = tokens.make(ada, "app", ["upload"])
    stored = repr(list(Token.objects.filter(pk=token.pk).values()))
    assert secret not in stored and secret[3:20] not in stored


def test_too_many_calls_are_slowed_down(api, settings, monkeypatch):
    monkeypatch.setattr(rates, "time", SimpleNamespace(time=lambda: 1_800_000_015.0))  # no minute ends meanwhile
    settings.SCAN_RATES = {"call": (3, 60), "bad token": (2, 60)}
    statuses = [api.call("GET", "/api/scans").status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    answer = api.call("GET", "/api/scans")
    assert "rate: expected at most 3 a minute (call); got more. Try again in" in error(answer, 429)
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert [Api("gm_guess").call("GET", "/api/scans").status_code for _ in range(3)] == [401, 401, 429]


def test_too_many_senders_are_told_to_wait(api, settings):
    settings.UPLOAD_LIMITS = Limits(senders=0)
    url = api.created(b"12345")
    answer = api.patch(url, b"12345")
    assert "console: expected at most 0 uploads at the same moment" in error(answer, 503)


@pytest.mark.parametrize("scan_id", ["1", "..", "%27%20OR%201=1", "a" * 300, "%00"])
def test_an_id_that_is_none(api, scan_id):
    assert api.call("GET", f"/api/scans/{scan_id}").status_code in (404, 400)


# --- the end of it ----------------------------------------------------------------------------------


def test_a_cancelled_upload_is_gone_and_stays_told(api):
    url = api.created(b"12345")
    assert api.patch(url, b"12").status_code == 204
    assert api.call("DELETE", url, **TUS).status_code == 204
    assert "expected one that is open; got one that is cancelled. Create a new one." in error(
        api.patch(url, b"3", 2), 410
    )
    assert api.call("HEAD", url, **TUS).status_code == 410
    assert api.state(url)["state"] == "cancelled" and list(uploads.folder().glob("*.part")) == []
    assert api.call("DELETE", url, **TUS).status_code == 204


def test_an_upload_that_does_not_go_on_expires(api):
    url = api.created(b"12345")
    Scan.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    worker.give_up_what_does_not_go_on()
    assert "got one that is expired" in error(api.patch(url, b"12345"), 410)
    said = api.state(url)
    assert said["state"] == "expired" and said["reason"].startswith("No byte came for 24 hours.")


def test_uploads_are_listed_page_by_page(api):
    urls = [api.created(b"12345", f"room {i}.zip") for i in range(5)]
    page = api.call("GET", "/api/scans?limit=3").json()
    assert [scan["url"] for scan in page["scans"]] == urls[:1:-1]
    rest = api.call("GET", f"/api/scans?limit=3&before={page['next_before'].replace('+', '%2B')}").json()
    assert [scan["url"] for scan in rest["scans"]] == urls[1::-1] and rest["next_before"] is None
    assert "limit" in error(api.call("GET", "/api/scans?limit=0"), 422)
    for odd in ("0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00"):
        said = error(api.call("GET", f"/api/scans?before={odd}"), 422)
        assert said.startswith("before: expected a time of this age; got ") and said.endswith("as it was answered.")
    assert api.call("GET", "/api/scans?before=2026-01-01T00:00:00").status_code == 200, "of UTC, where it has no zone"


@pytest.mark.parametrize("length", ["²", "-1", "1e3", " ", "٣", "9" * 30])
def test_a_length_that_is_no_number_creates_nothing(api, length):
    """A server in front refuses it already; ours takes nobody's word for it."""
    answer = api.client.generic(
        "POST", "/api/scans", b'{"name": "a", "bytes": 1}', "application/json", CONTENT_LENGTH=length,
        headers={"Authorization": f"Bearer {api.secret}"},
    )  # fmt: skip
    assert "body: expected JSON of at most 65536 bytes" in error(answer, 413) and Scan.objects.count() == 0


def test_no_cache_keeps_what_is_about_somebody(api, taken):
    url = api.send(archive())
    for method, path in (("GET", "/api/scans"), ("GET", url), ("GET", "/api/openapi.json"), ("OPTIONS", "/api/scans")):
        assert "no-store" in api.call(method, path).headers["Cache-Control"], path


def test_what_goes_wrong_inside_is_not_told(api, taken):
    """Paths and names of the platform are for its own people."""
    url = api.send(archive())
    for state, reason, told in (
        ("queued", "Attempt 1 did not work out, it is tried again by itself: /srv/inbox/a.zip: expected", "by itself."),
        ("received", "The intake did not take it; it is tried again: /srv/ready/a.zip: expected a", "tried again."),
        ("failed", "/srv/store: expected room to write; got a full disk", ""),
    ):
        Scan.objects.update(state=state, reason=reason)
        said = api.state(url)
        assert "/srv" not in said["reason"] and said["reason"].endswith(told)
        assert b"/srv" not in api.client.get(said["status_page"]).content
