"""Connections that never say what they want, against the real server: they must not silence it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from geomagic_dagster.console.server import THREADS
from tests.console.scans.test_real_server import DEADLINE_S, Console, console  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow
FORM = (
    b"POST /admin/login/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 100000\r\n\r\nusername="
)


@contextmanager
def dripping(port: int, beginning: bytes, more: bytes) -> Iterator[None]:
    """More connections than the console has threads, each with a byte now and then."""
    stop = threading.Event()
    with ExitStack() as stack:
        senders = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S))
            for _ in range(THREADS + 4)
        ]

        def drip() -> None:
            left = list(senders)
            while not stop.wait(0.5):
                for sender in list(left):
                    try:
                        sender.sendall(more)
                    except OSError:  # hung up on, as it should be
                        left.remove(sender)

        for sender in senders:
            sender.sendall(beginning)
        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize(
    ("beginning", "more"),
    [(b"GET /healthz HTTP/1.1\r\nHost: loc", b""), (b"GET /healthz HTTP/1.1\r\nX-Long: ", b"a"), (FORM, b"a")],
    ids=["half a head", "a head without end", "a form without end"],
)
def test_the_console_answers_others_all_the_same(console: Console, beginning, more):  # noqa: F811
    with dripping(console.port, beginning, more):
        assert console.call("GET", "/healthz")[0] == 200


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: +5", b"Content-Length: 5_0", b"Transfer-Encoding : chunked", b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"Content-Length: \xb2",
    ],
)  # fmt: skip
def test_a_request_hidden_in_another_is_none(console: Console, lines):  # noqa: F811
    hidden = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", console.port), timeout=DEADLINE_S) as sender:
        sender.sendall(b"POST /healthz HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n\r\n" + hidden)
        answer = b""
        while content := sender.recv(65536):
            answer += content
    assert answer.count(b"HTTP/1.1 ") == 1 and answer.split(b" ")[1] in (b"400", b"501")
