"""What somebody tries at the intake: endless, silent and half requests, odd names, a full disk."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from geomagic_dagster.launching import intake_server
from geomagic_dagster.launching.intake import Intake, TakenIn
from geomagic_dagster.launching.intake_server import application

DEADLINE_S = 60.0
Disk = namedtuple("Disk", "total used free")


class Taking:
    """An intake that starts nothing: its places are real."""

    def __init__(self, inbox: Path) -> None:
        self.inbox, self.taken = inbox, []

    part = Intake.part

    def take_in(self, part: Path, name: str, sha256: str | None = None) -> TakenIn:
        os.rename(part, self.inbox / name)
        self.taken.append(name)
        return TakenIn(name, "run-1", "STARTING")


@pytest.fixture
def taking(tmp_path) -> Taking:
    return Taking(tmp_path / "inbox")


def inside(taking: Taking) -> list[str]:
    return [path.name for path in taking.inbox.iterdir()] if taking.inbox.exists() else []


@contextmanager
def served(taking: Taking, token: str | None = None, max_bytes: int = 10**9) -> Iterator[int]:
    """The intake on a port, as it is served."""
    config = uvicorn.Config(
        application(taking, token, max_bytes), http=intake_server._protocol(), log_level="error", lifespan="off"
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait(lambda: server.started, "the server")
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(DEADLINE_S)


def wait(condition: Callable[[], Any], what: str) -> Any:
    until = time.monotonic() + DEADLINE_S
    while not (answer := condition()):
        assert time.monotonic() < until, f"still waiting for {what}"
        time.sleep(0.02)
    return answer


def said_to(port: int, *pieces: bytes) -> bytes:
    """Everything that is answered until the other side hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as sender:
        for piece in pieces:
            sender.sendall(piece)
        answer = b""
        while content := sender.recv(65536):
            answer += content
    return answer


def post(name: str, *lines: str) -> bytes:
    head = (f"POST /scans/{name} HTTP/1.1", "Host: localhost", "Connection: close", *lines)
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n"


def error(answer: bytes, status: int) -> str:
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]


def test_half_a_head_is_hung_up_on(taking, monkeypatch):
    monkeypatch.setattr(intake_server, "HEAD_S", 0.3)
    with served(taking) as port:
        for half in (b"", b"P", b"POST /scans/room.zip HTTP/1.1\r\nHost: loc"):
            assert said_to(port, half) == b""
        again = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answer = said_to(port, again, b"GET /hea")  # the second on the same connection never ends
        assert answer.startswith(b"HTTP/1.1 200") and answer.count(b"HTTP/1.1") == 1


def test_an_upload_that_has_fallen_silent_is_given_up(taking, monkeypatch):
    monkeypatch.setattr(intake_server, "SILENCE_S", 0.3)
    monkeypatch.setattr(intake_server, "HEAD_S", 0.2)  # a request that has begun is not hung up on for its head
    with served(taking) as port:
        said = error(said_to(port, post("room.zip", "Content-Length: 100000"), b"PK\3\4"), 408)
    assert said == "upload: expected a byte every 0.3 s; got silence. Nothing of it is kept. Send it again, to its end."
    assert inside(taking) == []


def test_an_endless_upload_ends_at_the_limit(taking):
    with served(taking, max_bytes=200_000) as port:
        chunk = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
        said = error(said_to(port, post("room.zip", "Transfer-Encoding: chunked"), chunk * 25, b"0\r\n\r\n"), 413)
        assert "size of the upload: expected at most 200000 bytes; got 2" in said
        said = error(said_to(port, post("room.zip", "Content-Length: 200001")), 413)
    assert "got 200001 or more" in said and inside(taking) == []


@pytest.mark.parametrize("lines", [("Content-Length: 3000",), ("Transfer-Encoding: chunked",)])
def test_a_disk_that_would_be_full_is_left_alone(taking, monkeypatch, lines):
    """Dagster writes there too: without room it would lose every run."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(0, 0, intake_server.RESERVE_BYTES + 1500))
    monkeypatch.setattr(intake_server, "WRITE_BYTES", 2000)
    chunk = b"7d0\r\n" + b"x" * 2000 + b"\r\n"
    with served(taking) as port:
        answer = said_to(port, post("room.zip", *lines), chunk if "chunked" in lines[0] else b"")
    said = error(answer, 507)
    assert said.startswith("disk of the inbox: expected room for ") and "beside 1073741824 that stay free" in said
    assert inside(taking) == []


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2fetc%2fcron.d%2fx.zip", "%2e%2e", "a%00b.zip", "a%0ab.zip", "roo%e2%80%aepiz.zip", ".hidden.zip",
        "x" * 300 + ".zip", "room.svg", "room.html", "room.zip.part", "a%ff.zip%2f..", "-%20.zip%2f",
    ],
)  # fmt: skip
def test_no_name_leads_out_of_the_inbox(taking, name, tmp_path):
    with served(taking) as port:
        answer = said_to(port, post(name, "Content-Length: 0"))
    assert answer.split(b" ")[1] in (b"400", b"404"), answer
    assert inside(taking) == [] and {path.name for path in tmp_path.iterdir()} <= {"inbox"}


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"), ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: +5",), ("Content-Length: 5_0",), ("Transfer-Encoding: xchunked",), ("Content-Length: \xb2",),
        ("Transfer-Encoding : chunked",), ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    ],
)  # fmt: skip
def test_a_request_hidden_in_another_reaches_nobody(taking, lines):
    hidden = b"0\r\n\r\nPOST /scans/hidden.zip HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    with served(taking) as port:
        answer = said_to(port, post("room.zip", *lines) + hidden)
    assert answer.count(b"HTTP/1.1 ") <= 1 and "hidden.zip" not in taking.taken


def test_somebody_elses_page_and_the_network_may_not(taking):
    with served(taking) as port:
        for origin in ("https://evil.example", "null", f"http://localhost:{port}"):
            said = error(said_to(port, post("room.zip", f"Origin: {origin}", "Content-Length: 0")), 403)
            assert said == "origin: expected no browser; got one. Set GEOMAGIC_INTAKE_TOKEN."
        body = b'{"path": "/etc"}'
        head = f"POST /paths HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        assert "/paths: expected its owner's socket; got the network." in error(said_to(port, head + body), 403)
        for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"):
            request = f"{method} /scans/room.zip HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
            assert said_to(port, request).split(b" ")[1] == b"405", method
    assert inside(taking) == []


@pytest.mark.parametrize("given", [None, "Bearer", "bearer right", "Bearer r\xefght", "Basic right"])
def test_only_the_right_token_opens_it(taking, given, caplog):
    with caplog.at_level(logging.DEBUG), served(taking, token="right") as port:
        lines = ("Content-Length: 0",) if given is None else (f"Authorization: {given}", "Content-Length: 0")
        answer = said_to(port, post("room.zip", *lines))
        assert "authorization: expected the token of this intake" in error(answer, 401)
        assert said_to(port, post("room.zip", "Authorization: Bearer right", "Content-Length: 0")).startswith(
            b"HTTP/1.1 201"
        )
    assert "right" not in caplog.text.replace("copyright", "")


def test_a_client_that_hangs_up_leaves_nothing(taking):
    with served(taking) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as sender:
            sender.sendall(post("room.zip", "Content-Length: 100000") + b"PK\3\4")
            wait(lambda: inside(taking), "its beginning")
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait(lambda: not inside(taking), "it to be gone")
    assert taking.taken == []
