"""The gate (deploy/gate): without a session nothing but the login and the health is reached, whatever is tried."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from urllib.parse import urlencode

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from geomagic_dagster.drill.place import free_ports
from tests.conftest import BROWSER_PATIENCE_MS
from tests.console.gate_installation import (
    NAME,
    NOBODY,
    PASSWORD,
    USERS,
    Gate,
    hidden_field,
    installation,
    nginx_program,
    start_nginx,
    wait_for,
    write_nginx,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        nginx_program() is None or shutil.which("openssl") is None, reason="no nginx or openssl here (make setup-nginx)"
    ),
]
RELOAD = "mutation { reloadWorkspace { __typename ... on UnauthorizedError { message } } }"
LAUNCH = """mutation { launchRun(executionParams: {selector: {repositoryLocationName: "x", repositoryName: "x",
    pipelineName: "x"}, mode: "default"}) { __typename } }"""
FOLLOW = (
    'subscription { pipelineRunLogs(runId: "none") { __typename ... on PipelineRunLogsSubscriptionFailure '
    "{ missingRunId } } }"
)
FULL, READS, CLOSED = "full", "read only", "closed"
RIGHTS = {
    None: CLOSED, NOBODY: CLOSED, "viewer": READS, "scientist": READS,
    "researcher": FULL, "engineer": FULL, "operator": FULL,
}  # fmt: skip
BEHIND = ("my room", "dagster-webserver", "dagster_webserver_version", '"metrics": true', "webapp")


@pytest.fixture(scope="module")
def gate(tmp_path_factory) -> Iterator[Gate]:
    with ExitStack() as stack:
        yield installation(stack, tmp_path_factory.mktemp("gate"))


# --- who reaches what -----------------------------------------------------------------------------


@pytest.mark.parametrize("who", RIGHTS, ids=str)
def test_each_role_reaches_what_it_may(gate, who):
    pages = {path: gate.ask(path, who).status for path in ("/dagster/", "/dagster/runs", "/rooms/", "/metrics")}
    info = gate.ask("/dagster/server_info", who, accept="*/*")
    reload, launch = gate.query(who, RELOAD), gate.query(who, LAUNCH)
    seen = gate.query(who, "{ version }")
    if RIGHTS[who] == CLOSED:
        assert set(pages.values()) == {302} and info.status == 401
        assert reload == launch == seen == 401
        return
    assert set(pages.values()) == {200} and "dagster_version" in info.body
    assert seen["data"]["version"]
    kinds = {reload["data"]["reloadWorkspace"]["__typename"], launch["data"]["launchRun"]["__typename"]}
    if RIGHTS[who] == FULL:
        assert "UnauthorizedError" not in kinds and "Workspace" in kinds
    else:
        assert kinds == {"UnauthorizedError"}


def test_the_login_leads_back_to_where_somebody_wanted_to_go(gate):
    sent_away = gate.ask("/dagster/runs?limit=5")
    assert (sent_away.status, sent_away.to) == (302, "/admin/login/?next=/dagster/runs?limit=5")
    page = gate.ask(sent_away.to)
    csrf = hidden_field(page.body, "csrfmiddlewaretoken")
    assert "Secure" in page.headers["set-cookie"]
    form = {"csrfmiddlewaretoken": csrf, "username": "viewer", "password": PASSWORD, "next": "/dagster/runs?limit=5"}
    cookie = page.headers["set-cookie"].partition(";")[0]
    origin = f"https://{NAME}:{gate.secure}"
    more = {"Content_Type": "application/x-www-form-urlencoded", "Cookie": cookie}
    foreign = gate.ask("/admin/login/", None, "POST", urlencode(form).encode(), Origin="https://evil.example", **more)
    assert foreign.status == 403
    in_ = gate.ask("/admin/login/", None, "POST", urlencode(form).encode(), Origin=origin, Referer=origin, **more)
    assert (in_.status, in_.to) == (302, "/dagster/runs?limit=5")
    session = next(part for part in in_.headers["set-cookie"].split(", ") if part.startswith("sessionid="))
    assert gate.ask("/dagster/runs", Cookie=session.partition(";")[0]).status == 200


def test_what_needs_no_login(gate):
    assert json.loads(gate.ask("/healthz").body) == {"status": "ok"}
    login = gate.ask("/admin/login/")
    assert login.status == 200
    assert login.headers["strict-transport-security"] == "max-age=31536000"
    assert gate.ask("/session", "operator").status == gate.ask("/gate/session", "operator").status == 404
    assert login.headers["x-frame-options"] == "DENY" and "nginx/" not in login.headers["server"]
    with closing(http.client.HTTPConnection(NAME, gate.plain, timeout=90)) as plain:
        plain.request("GET", "/rooms/", headers={"Host": NAME})
        answer = plain.getresponse()
        assert (answer.status, answer.headers["Location"]) == (301, f"https://{NAME}:{gate.secure}/rooms/")


@pytest.mark.browser
@pytest.mark.parametrize("who", ["operator", "viewer"])
def test_dagsters_pages_work_in_a_real_browser(gate, chromium, who):
    failed, sockets = [], []
    with closing(chromium.new_context(ignore_https_errors=True)) as context:
        context.set_default_timeout(BROWSER_PATIENCE_MS)
        cookie = {"name": "sessionid", "value": gate.sessions[who], "domain": NAME, "path": "/", "secure": True}
        context.add_cookies([cookie | {"httpOnly": True}])
        page = context.new_page()
        page.on("response", lambda answer: failed.append(answer.url) if answer.status >= 400 else None)
        page.on("console", lambda line: failed.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("websocket", lambda socket: sockets.append(socket.url))
        page.goto(f"https://{NAME}:{gate.secure}/dagster/runs")
        page.get_by_text("No runs", exact=False).first.wait_for()
        page.goto(f"https://{NAME}:{gate.secure}/rooms/")
        page.get_by_text("my room").wait_for()
    assert not failed
    assert sockets and all(url.startswith("wss://") for url in sockets)


# --- tricks ---------------------------------------------------------------------------------------

PATHS = (
    "/dagster/", "/dagster", "//dagster/", "/dagster//", "/./dagster/", "/x/../dagster/", "/dagster/server_info",
    "/%64agster/server_info", "/dagster%2fserver_info", "/dagster/%2e%2e/dagster/server_info", "/DAGSTER/server_info",
    "/healthz/../dagster/server_info", "/healthz/..%2fdagster%2fserver_info", "/admin/login/../../metrics",
    "/admin/login/..%2f..%2fmetrics", "/static/../rooms/", "/static/..%2frooms/", "/api/../metrics", "/s/x/../../rooms/",
    "/api/..%2f..%2fmetrics", "/rooms/packages/my%20room/preview.png", "//rooms//packages/my%20room/preview.png",
    "/rooms/../metrics", "/metrics/", "/metrics?x=/healthz", "/metrics;x", "/metrics%00", "/metrics%20",
    "/%2e/metrics", "/.%2fmetrics", "/\\metrics", "/gate/session", "/gate/../metrics", "/session", "/@gate_login",
    "/dagster/logs/a/compute_logs/b/out", "/dagster/download_debug/x", "/dagster/report_asset_materialization/a",
    "https://localhost/metrics", "http://127.0.0.1/metrics", "/scans/00000000-0000-0000-0000-000000000000/status",
    "/admin/", "/admin/auth/user/", "/dagster/notebook?path=/etc/passwd", "/rooms/..%2f..%2f..%2fetc/passwd",
)  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "TRACE", "PROPFIND"])
def test_no_spelling_of_an_address_leads_in(gate, method):
    before = len(gate.metrics.requests)
    for path in PATHS:
        answer = gate.ask(path, None, method, b"{}" if method == "POST" else None)
        assert answer.status in (301, 302, 400, 401, 403, 404, 405, 421), (path, answer)
        if answer.status in (301, 302):
            assert answer.to.startswith(("/admin/login/", "/dagster/", "/rooms/")), (path, answer)
        assert not any(word in answer.body for word in BEHIND), (path, answer)
        assert "root:" not in answer.body
    assert len(gate.metrics.requests) == before


CLAIMS = {
    "X-Geomagic-User": "operator", "X-Geomagic-Rights": "write", "X-Original-URL": "/healthz",
    "X-Rewrite-URL": "/healthz", "X-Original-URI": "/healthz", "X-Forwarded-For": "127.0.0.1",
    "X-Forwarded-Host": "evil.example", "X-Real-IP": "127.0.0.1", "X-HTTP-Method-Override": "GET",
    "X-Accel-Redirect": "/gate/session", "Forwarded": "for=127.0.0.1;host=evil.example", "X_Geomagic_Rights": "write",
    "Authorization": "Basic b3BlcmF0b3I6eA==", "Referer": "https://localhost/admin/",
}  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_a_client_claims_counts_for_nothing(gate, claim):
    said = {claim: CLAIMS[claim]}
    if claim != "X_Geomagic_Rights":
        assert gate.ask("/metrics", **said).status == 302
        assert gate.query(None, RELOAD, **said) == 401
        kind = gate.query("viewer", RELOAD, **said)["data"]["reloadWorkspace"]["__typename"]
    else:  # an underscore in a name, which some servers read as a dash
        body = json.dumps({"query": RELOAD})
        head = f"POST /dagster/graphql HTTP/1.1\r\nHost: {NAME}:{gate.secure}\r\nCookie: {gate.cookie('viewer')}\r\n"
        rest = f"{claim}: write\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
        kind = gate.raw(f"{head}{rest}\r\n\r\n{body}".encode()).decode()
    assert "UnauthorizedError" in kind


def test_what_is_behind_learns_who_it_is_and_gets_no_cookie(gate):
    claims = {name: value for name, value in CLAIMS.items() if not name.startswith("X-HTTP") and "_" not in name}
    answer = gate.ask("/metrics", "viewer", **claims, Upgrade="h2c", Connection="Upgrade, HTTP2-Settings")
    seen = json.loads(answer.body)["headers"]
    values = dict(seen)
    assert len(seen) == len(values)
    assert (values["x-geomagic-user"], values["x-geomagic-rights"]) == ("viewer", "read")
    assert values["x-forwarded-for"] == "127.0.0.1" and values["x-forwarded-proto"] == "https"
    for name in ("cookie", "authorization", "forwarded", "x-forwarded-host", "upgrade"):
        assert name not in values
    assert "set-cookie" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_other_names_are_nobodys(gate):
    for host in ("evil.example", "127.0.0.1", f"{NAME}.evil.example", f"evil.example:{gate.secure}", "geomagic_rooms"):
        assert gate.ask("/healthz", host=host).status == 421, host
        assert gate.ask("/metrics", "operator", host=host).status == 421, host
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    for name in ("evil.example", None):
        with socket.create_connection((NAME, gate.secure), timeout=90) as plain, pytest.raises(ssl.SSLError):
            trust.wrap_socket(plain, server_hostname=name)
    for host in ("", " ", "localhost localhost", "localhost\tx", "local host"):
        assert b"421" in (got := gate.raw(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())) or b"400" in got
    assert b" 400 " in gate.raw(b"GET /healthz HTTP/1.1\r\n\r\n")
    assert b" 400 " in gate.raw(f"GET /healthz HTTP/1.1\r\nHost: {NAME}\r\nHost: evil.example\r\n\r\n".encode())


# --- GraphQL --------------------------------------------------------------------------------------


def test_queries_come_as_posted_json_or_not_at_all(gate):
    query = urlencode({"query": RELOAD})
    for method in ("GET", "POST", "HEAD", "PUT"):
        for accept in ("*/*", "text/html", "application/json"):
            body = b"{}" if method in ("POST", "PUT") else None
            answer = gate.ask(f"/dagster/graphql?{query}", "operator", method, body, accept=accept)
            assert answer.status == 405, (method, accept)
            assert gate.ask(f"/dagster/graphql?op=x&{query}", "operator", method, body).status == 405
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "",
                 "application/graphql", "text/plain; application/json"):  # fmt: skip
        body = json.dumps({"query": RELOAD}).encode()
        assert gate.ask("/dagster/graphql", "operator", "POST", body, Content_Type=kind).status == 405, kind
    for path in ("/dagster/graphql/", "/dagster//graphql/x", "/dagster/report_asset_materialization/a"):
        assert gate.ask(path, "operator", "POST", {"query": RELOAD}).status == 403, path


def test_somebody_elses_page_asks_nothing(gate):
    own = f"https://{NAME}:{gate.secure}"
    for origin in ("https://evil.example", "null", f"http://{NAME}:{gate.secure}", f"https://{NAME}", f"{own}.evil.example",
                   f"https://evil.example/?{own}", f"{own} {own}"):  # fmt: skip
        assert gate.query("operator", RELOAD, Origin=origin) == 403, origin
        assert gate.query("operator", RELOAD, Origin=origin, Sec_Fetch_Site="same-origin") == 403, origin
    for site in ("cross-site", "same-site"):
        assert gate.query("operator", RELOAD, Sec_Fetch_Site=site) == 403, site
        assert gate.query("operator", RELOAD, Sec_Fetch_Site=site, Origin=own) == 403, site
    assert gate.query("operator", RELOAD, Sec_Fetch_Site="same-origin", Origin=own)["data"]


def socket_of(gate, who: str | None, origin: str | None = "own", path: str = "/dagster/graphql"):
    return connect(
        f"wss://{NAME}:{gate.secure}{path}", ssl=gate.trust, subprotocols=["graphql-ws"], open_timeout=90,
        origin=f"https://{NAME}:{gate.secure}" if origin == "own" else origin,
        additional_headers={"Cookie": gate.cookie(who)} if who else {}, proxy=None,
    )  # fmt: skip


def first_answer(socket, query: str) -> dict:
    socket.send(json.dumps({"type": "connection_init"}))
    socket.send(json.dumps({"id": "1", "type": "start", "payload": {"query": query}}))
    while True:
        said = json.loads(socket.recv(timeout=90))
        if said["type"] not in ("connection_ack", "ka"):
            return said


@pytest.mark.parametrize("who", USERS)
def test_subscriptions_work_through_it_and_change_nothing(gate, who):
    with socket_of(gate, who) as socket:
        said = first_answer(socket, FOLLOW)
        assert said["type"] == "data" and said["payload"]["data"]["pipelineRunLogs"]["missingRunId"] == "none"
    with socket_of(gate, who) as socket:
        said = first_answer(socket, RELOAD)
        assert said["type"] == "error" or said["payload"].get("errors")


def test_a_websocket_needs_a_session_and_our_own_page(gate):
    for who, origin, path, status in (
        (None, "own", "/dagster/graphql", 401),
        (NOBODY, "own", "/dagster/graphql", 401),
        ("operator", "https://evil.example", "/dagster/graphql", 403),
        ("operator", "null", "/dagster/graphql", 403),
        (None, "own", "/dagster//graphql", 401),
        (None, "own", "/metrics", 401),
        ("operator", "own", "/dagster/graphql/", 200),  # a page, and no socket
    ):
        with pytest.raises(InvalidStatus) as refused, socket_of(gate, who, origin, path):
            pass
        assert refused.value.response.status_code == status, (who, origin, path)


# --- bytes ----------------------------------------------------------------------------------------

INNER = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: {n}\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: {n}",
        "Content-Length: 0\r\nContent-Length: {n}",
        "Content-Length: {n}, 0",
        "Content-Length: +{n}",
        "Content-Length: 0x{n}",
        "Content-Length : {n}",
        "Content-Length: -1",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\x0bchunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\x00\r\nContent-Length: {n}",
        "X: y\nTransfer-Encoding: chunked\r\nContent-Length: {n}",
        "Content-Length: {n}",
    ],
)
@pytest.mark.parametrize("path", ["/healthz", "/api/scans", "/dagster/graphql", "/admin/login/"])
def test_a_request_hidden_in_another_reaches_nobody(gate, head, path):
    before = len(gate.metrics.requests)
    inner = INNER.replace("localhost", f"{NAME}:{gate.secure}")
    body = f"0\r\n\r\n{inner}"
    content = f"POST {path} HTTP/1.1\r\nHost: {NAME}:{gate.secure}\r\nConnection: close\r\n{head.format(n=len(body))}\r\n\r\n{body}"
    got = gate.raw(content.encode("latin-1")).decode(errors="replace")
    assert got.startswith("HTTP/1.1 ") and '"metrics"' not in got
    assert got.count("HTTP/1.1 ") == 1
    assert len(gate.metrics.requests) == before


def test_endless_and_broken_requests_are_turned_away(gate):
    name = f"{NAME}:{gate.secure}"
    assert b" 414 " in gate.raw(f"GET /{'x' * 20_000} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    many = "".join(f"X-{i}: {'y' * 1000}\r\n" for i in range(100))
    assert b" 400 " in gate.raw(f"GET / HTTP/1.1\r\nHost: {name}\r\n{many}\r\n".encode())
    assert b" 400 " in gate.raw(f"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    assert b"HTTP/1" in gate.raw(b"\x16\x03\x01\x00\xff GET / HTTP/1.1\r\n\r\n")
    for path, size in (("/admin/", 2 * 2**20), ("/dagster/graphql", 17 * 2**20), ("/api/scans", 21 * 2**30)):
        said = (
            f"POST {path} HTTP/1.1\r\nHost: {name}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        )
        assert b" 413 " in gate.raw(said.encode()), path


def test_an_upload_goes_through_as_it_comes_and_goes_on_after_a_cut(gate):
    token = {"Authorization": f"Bearer {gate.sessions['token']}"}
    content = b"PK\3\4" + bytes(3_000_000)
    made = gate.ask("/api/scans", None, "POST", {"name": "room.zip", "bytes": len(content)}, **token)
    assert made.status == 201, made
    url = json.loads(made.body)["url"]
    head = f"PATCH {url} HTTP/1.1\r\nHost: {NAME}:{gate.secure}\r\nAuthorization: {token['Authorization']}\r\n"
    rest = "Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\nTus-Resumable: 1.0.0\r\n"
    with gate.connection(90) as sender:
        sender.sendall(f"{head}{rest}Content-Length: {len(content)}\r\n\r\n".encode() + content[:2_000_000])
        until = time.monotonic() + 90
        while (at := _offset(gate, url, token)) == 0 and time.monotonic() < until:
            time.sleep(0.05)
    assert 0 < at <= 2_000_000, "nginx kept the bytes to itself"
    more = {"Content_Type": "application/offset+octet-stream", "Tus_Resumable": "1.0.0"} | token
    until = time.monotonic() + 90
    while time.monotonic() < until:
        at = _offset(gate, url, token)
        done = gate.ask(url, None, "PATCH", content[at:-1], Upload_Offset=str(at), **more)
        if done.status == 204:
            break
        time.sleep(0.05)
    assert done.status == 204 and int(done.headers["upload-offset"]) == len(content) - 1


def _offset(gate, url: str, token: dict[str, str]) -> int:
    answer = gate.ask(url, None, "HEAD", Tus_Resumable="1.0.0", **token)
    assert answer.status == 200, answer
    return int(answer.headers["upload-offset"])


# --- how often, and when something is down --------------------------------------------------------


def test_passwords_are_not_tried_by_the_hundred(gate):
    tries = [gate.ask("/admin/login/", None, "POST", b"x=y").status for _ in range(20)]
    assert tries.count(429) >= 12 and set(tries) <= {403, 429}
    assert gate.ask("//admin//login/", None, "POST", b"x=y").status == 429
    assert gate.ask("/admin/login/").status == 200
    assert gate.ask("/dagster/", "viewer").status == 200


def test_a_flood_of_uploads_is_turned_away(gate):
    name = f"{NAME}:{gate.secure}"
    asked = f"HEAD /api/scans/x HTTP/1.1\r\nHost: {name}\r\n\r\n" * 400
    last = f"HEAD /api/scans/x HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    got = gate.raw((asked + last).encode(), wait_s=20)
    assert got.count(b"HTTP/1.1 429") > 50


def test_the_log_holds_no_names_and_no_keys(gate):
    gate.ask("/rooms/packages/my%20room/preview.png", "viewer")
    gate.ask("/s/a-secret-key?token=another")
    log = (gate.folder / "nginx" / "geomagic.log").read_text()
    assert "area=/rooms method=GET status=200" in log and 'user="viewer"' in log and "area=/s " in log
    assert not any(word in log for word in ("my room", "my%20room", "secret", "another", gate.sessions["viewer"]))


def test_where_the_console_is_silent_everything_is_closed(gate, tmp_path):
    with ExitStack() as stack:
        plain, secure, console = free_ports(3)
        main = write_nginx(tmp_path / "nginx", gate.ports | {"console": console}, plain, secure)
        start_nginx(stack, main)
        wait_for(secure)
        other = Gate(tmp_path, gate.ports, plain, secure, gate.sessions, gate.metrics)
        other.trust = ssl.create_default_context(cafile=str(main.parent / "certificate.pem"))
        before = len(gate.metrics.requests)
        for path in ("/dagster/", "/dagster/server_info", "/rooms/", "/metrics"):
            assert other.ask(path, "operator").status == 500, path
        assert other.query("operator", RELOAD) == 500
        assert len(gate.metrics.requests) == before
