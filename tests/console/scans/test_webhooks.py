"""Messages to whoever sent a scan: signed, repeated, never into our own network."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from geomagic_dagster.console.scans import addresses, tokens, webhooks
from geomagic_dagster.console.scans.models import Delivery, Scan, State
from geomagic_dagster.console.scans.outcomes import end
from geomagic_dagster.console.scans.refusals import Refused
from tests.console.scans.test_api import error

pytestmark = pytest.mark.django_db

PRIVATE = [
    "https://127.0.0.1/", "https://localhost/", "https://10.0.0.1/", "https://192.168.1.1:8443/x", "https://172.16.0.1/",
    "https://169.254.169.254/latest/meta-data/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://0.0.0.0/",
    "https://[fd00::1]/", "https://[fe80::1]/", "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/", "https://100.64.0.1/",
    "https://printer.local/", "https://db.internal/", "https://224.0.0.1/", "https://[ff02::1]/", "https://[::]/",
    "https://2130706433/", "https://0x7f.1/", "https://0x7f000001/", "https://127.1/", "https://0177.0.0.1/", "https://0/",
    "https://10.1/", "https://localhost./", "https://db.internal./", "https://127.0.0.1./", "https://[::127.0.0.1]/",
    "https://[fec0::1]/", "https://[fe80::1%25eth0]/", "https://[::ffff:a00:1]/", "https://[64:ff9b:1::a00:1]/",
]  # fmt: skip
NONSENSE = [
    "http://example.org/", "ftp://example.org/", "file:///etc/passwd", "https://", "example.org", "https://user:pw@example.org/",
    "https://example.org:99999/", "https://exämple.org/", "https://example.org/a b", "https://example.org/\r\nX: y", "javascript:alert(1)",
    "https://example.org/" + "x" * 490,
]  # fmt: skip


@pytest.fixture
def receiver(settings):
    """A server that answers as told, and keeps what it got."""
    settings.WEBHOOKS_MAY_BE_PRIVATE = True
    got, say = [], [200]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

        def do_POST(self) -> None:
            got.append((dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
            status = say.pop(0) if len(say) > 1 else say[0]
            self.send_response(status)
            self.send_header("location", "http://127.0.0.1:1/")
            self.end_headers()
            self.wfile.write(b"fine\x00<b>")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook?x=1", got, say
    server.shutdown()
    server.server_close()


def done(api, url: str) -> Delivery:
    scan = Scan.objects.get(pk=api.created(b"12345", webhook=url).rsplit("/", 1)[1])
    assert end(scan, State.DONE, instead_of=[State.RECEIVING])
    return Delivery.objects.get()


def due() -> None:
    Delivery.objects.update(next_at=timezone.now() - timedelta(seconds=1))


def test_a_message_is_signed_so_that_its_receiver_can_check_it(api, ada, receiver):
    url, got, _ = receiver
    delivery = done(api, url)
    assert webhooks.deliver_due() == 1
    headers, body = got[0]
    token = delivery.scan.token
    assert token
    key = base64.b64decode(tokens.webhook_secret(token).removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    assert (
        headers["webhook-signature"]
        == "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    )
    said = json.loads(body)
    assert (
        said["type"] == "scan.done"
        and said["data"]["id"] == str(delivery.scan.pk)
        and headers["webhook-id"] == str(delivery.pk)
    )
    delivery.refresh_from_db()
    assert delivery.delivered_at and delivery.next_at is None and delivery.log[0]["said"] == "200 fine <b>"
    assert webhooks.deliver_due() == 0


def test_it_is_told_again_in_the_same_words_until_it_is_taken(api, receiver, monkeypatch):
    url, got, say = receiver
    say[:] = [500, 302, 200]
    delivery = done(api, url)
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)
    waits = []
    for _ in range(3):
        due()
        webhooks.deliver_due()
        delivery.refresh_from_db()
        if delivery.next_at:
            waits.append((delivery.next_at - now).total_seconds())
    assert waits == [5, 30] and delivery.delivered_at
    assert len({body for _, body in got}) == 1 and len({headers["webhook-id"] for headers, _ in got}) == 1
    assert [each["said"][:3] for each in delivery.log] == ["500", "302", "200"], "redirects are not followed"


def test_after_a_day_it_is_given_up(api, settings):
    settings.WEBHOOKS_MAY_BE_PRIVATE = True
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        delivery = done(api, f"http://127.0.0.1:{free.getsockname()[1]}/")
        for _ in range(len(webhooks.WAITS_S) + 1):
            due()
            webhooks.deliver_due()
    delivery.refresh_from_db()
    assert delivery.next_at is None and delivery.delivered_at is None and delivery.attempts == len(webhooks.WAITS_S) + 1
    assert "ConnectionRefusedError" in delivery.log[-1]["said"]


@pytest.mark.parametrize("url", PRIVATE)
def test_no_message_goes_into_our_own_network(api, url):
    said = error(api.create(b"12345", webhook=url), 422)
    assert (
        said.startswith("webhook: expected an https URL of a server in the Internet") and "of a private network" in said
    )
    assert Scan.objects.count() == 0


@pytest.mark.parametrize("url", NONSENSE)
def test_what_is_no_address(api, url):
    assert "webhook" in error(api.create(b"12345", webhook=url), 422)


def test_a_name_that_turns_to_a_private_address_later_gains_nothing(api, monkeypatch):
    delivery = done(api, "https://example.org/hook")
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 443)) for ip in ("93.184.216.34", "10.0.0.7")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **more: answers)
    connected = []
    monkeypatch.setattr(socket, "create_connection", lambda *arguments, **more: connected.append(arguments))
    assert not webhooks.deliver(delivery)
    assert connected == [] and "of a private network" in delivery.log[0]["said"]


@given(st.ip_addresses())
def test_only_addresses_of_the_internet_are_public(ip):
    if addresses.is_public(ip):
        assert (
            ip.is_global and not ip.is_private and not ip.is_loopback and not ip.is_link_local and not ip.is_multicast
        )
        assert not getattr(ip, "is_site_local", False)


@given(st.text(max_size=60))
def test_any_text_as_an_url_is_taken_or_refused_in_words(text):
    try:
        words = addresses.check("https://" + text).scheme
    except Refused as refused:
        words = str(refused)
    assert words == "https" or words.startswith("webhook: expected an https URL")


def test_a_receiver_that_answers_a_byte_at_a_time_holds_up_nobody_for_long(api, settings, monkeypatch):
    """It says that it closes the connection: Python's client has let go of the socket by then."""
    settings.WEBHOOKS_MAY_BE_PRIVATE = True
    monkeypatch.setattr(webhooks, "TOTAL_S", 0.5)
    stop, said = threading.Event(), []

    def dribble(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            while not stop.wait(0.1) and len(said) < webhooks.ANSWER_BYTES:
                try:
                    connection.sendall(b"x")
                except OSError:  # hung up on
                    return
                said.append(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=dribble, args=(server,), daemon=True).start()
        delivery = done(api, f"http://127.0.0.1:{server.getsockname()[1]}/")
        webhooks.deliver(delivery)
        stop.set()
    assert len(said) < webhooks.ANSWER_BYTES, "it was waited for to its end"


def test_whoever_waits_longest_is_told_first(api, receiver, monkeypatch):
    """Not the newest first: receivers that are down, and there are many of them, would keep all others waiting."""
    url, _, _ = receiver
    monkeypatch.setattr(webhooks, "AT_A_TIME", 1)
    for number in range(2):
        scan = Scan.objects.get(pk=api.created(b"12345", webhook=f"{url}&{number}").rsplit("/", 1)[1])
        assert end(scan, State.DONE, instead_of=[State.RECEIVING])
    older, newer = Delivery.objects.order_by("created_at")
    webhooks.deliver_due()
    older.refresh_from_db()
    newer.refresh_from_db()
    assert (older.attempts, newer.attempts) == (1, 0)


@pytest.mark.parametrize("shut_out", ["token", "owner"])
def test_nobody_is_told_who_was_shut_out_since(api, ada, receiver, shut_out):
    """The message says what became of the scan, and has a link that opens its room."""
    url, got, _ = receiver
    delivery = done(api, url)
    if shut_out == "token":
        assert delivery.scan.token
        tokens.revoke(delivery.scan.token)
    else:
        ada.is_active = False
        ada.save()
    assert webhooks.deliver_due() == 1 and got == []
    delivery.refresh_from_db()
    assert "expected a token that was not revoked, and whose owner may log in; got one" in delivery.log[0]["said"]


def test_only_operators_see_where_to_it_goes_in_full(client, api, make_user, receiver):
    url, _, _ = receiver
    delivery = done(api, url)
    for role, is_shown in (("viewer", False), ("researcher", False), ("operator", True)):
        client.force_login(make_user(f"a-{role}", role))
        pages = [
            client.get(address).content.decode()
            for address in (
                "/admin/scans/delivery/",
                f"/admin/scans/delivery/{delivery.pk}/change/",
                f"/admin/scans/scan/{delivery.scan.pk}/change/",
            )
        ]
        assert all("127.0.0.1" in page for page in (pages[0], pages[2]))
        assert ["/hook?x=1" in page for page in pages] == [False, is_shown, False], role
