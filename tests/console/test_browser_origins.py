"""A page of another site in a real Chromium: it sends a scan where it is allowed to, and is told nothing elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Error, Page

from geomagic_dagster.console.scans import dagster_link, tokens
from geomagic_dagster.console.scans.models import Scan, State
from geomagic_dagster.resources.places import Places
from tests.console.scans.intake_stand_in import intake

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.django_db(transaction=True)]

SEND = """async ([endpoint, token, bytes]) => {
  const tus = {"Tus-Resumable": "1.0.0", Authorization: `Bearer ${token}`}
  const body = new Uint8Array(bytes)
  const created = await fetch(endpoint, {method: "POST", headers: {
    ...tus, "Upload-Length": String(body.length), "Upload-Metadata": "filename " + btoa("room.zip")}})
  const url = created.headers.get("Location")
  const sent = await fetch(url, {method: "PATCH", body: body.slice(0, 10), headers: {
    ...tus, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}})
  const head = await fetch(url, {method: "HEAD", headers: tus})
  const at = Number(head.headers.get("Upload-Offset"))
  const rest = await fetch(url, {method: "PATCH", body: body.slice(at), headers: {
    ...tus, "Upload-Offset": String(at), "Content-Type": "application/offset+octet-stream"}})
  return [created.status, sent.status, at, rest.status, rest.headers.get("Upload-Offset")]
}"""


class _Blank(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a partner's page</title>")


@pytest.fixture(scope="module", autouse=True)
def database_beside_playwright() -> Iterator[None]:
    """Playwright's loop runs in the thread of the tests, where Django would see an asynchronous program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        yield


@pytest.fixture
def page(chromium) -> Iterator[Page]:
    """A page of another site."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Blank)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.server_port}/")
    yield page
    context.close()
    server.shutdown()
    server.server_close()


@pytest.fixture
def secret(tmp_path, settings, make_user) -> str:
    settings.HOME, settings.PLACES = tmp_path, Places.in_home(tmp_path)
    dagster_link.instance.cache_clear()
    return tokens.make(make_user("ada", "operator"), "app", ["upload"])[1]


def test_a_page_that_is_named_sends_a_scan_and_goes_on_with_it(page, secret, settings, live_server, tmp_path):
    settings.CORS_ALLOWED_ORIGINS = [page.evaluate("location.origin")]
    content = b"PK\5\6" + bytes(18)  # an archive of nothing
    with intake(tmp_path, tmp_path / "inbox"):
        said = page.evaluate(SEND, [f"{live_server.url}/api/scans", secret, list(content)])
    assert said == [201, 204, 10, 204, str(len(content))]
    assert Scan.objects.get().state == State.QUEUED


def test_a_page_that_is_not_named_reads_nothing_and_creates_nothing(page, secret, settings, live_server):
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example.org"]
    with pytest.raises(Error, match="Failed to fetch"):
        page.evaluate(SEND, [f"{live_server.url}/api/scans", secret, [0, 1, 2]])
    assert not Scan.objects.exists()


def test_a_page_that_is_named_reads_nothing_of_the_admin(page, secret, settings, live_server):
    settings.CORS_ALLOWED_ORIGINS = [page.evaluate("location.origin")]
    for path in ("/admin/login/", "/session", "/static/scans/status.css"):
        with pytest.raises(Error, match="Failed to fetch"):
            page.evaluate("address => fetch(address).then(answer => answer.text())", live_server.url + path)
    with pytest.raises(Error, match="Failed to fetch"):
        page.evaluate("address => fetch(address, {credentials: 'include'})", f"{live_server.url}/api/scans")
