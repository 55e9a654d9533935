"""Real sockets against the real server: cut connections, endless bodies, two at once, a console that is killed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from geomagic_dagster.drill.place import free_ports
from geomagic_dagster.jobs.local_run import REPOSITORY
from tests.console.scans.conftest import BYTES, archive
from tests.console.scans.intake_stand_in import intake

pytestmark = pytest.mark.slow

DEADLINE_S = 300.0


def wait(condition: Callable[[], Any], what: str) -> Any:
    until = time.monotonic() + DEADLINE_S
    while not (answer := condition()):
        assert time.monotonic() < until, f"still waiting for {what}"
        time.sleep(0.05)
    return answer


class Console:
    """The console's process, and a client that speaks to it."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.port = free_ports(1)[0]
        self.home, self.environment = home, environment
        self.start()

    def start(self) -> None:
        ours = ("GEOMAGIC_", "DAGSTER_", "DATABASE_URL", "DJANGO_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment = kept | self.environment | {"GEOMAGIC_HOME": str(self.home), "PYTHONPATH": str(REPOSITORY)}
        with open(self.home / "console.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.console.scans.server_process", str(self.port)],
                cwd=REPOSITORY, env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait(self.answers, "the console")
        self.secret = (self.home / "secret").read_text()

    def answers(self) -> bool:
        assert self.process.poll() is None, (self.home / "console.log").read_text()
        try:
            return self.call("GET", "/healthz")[0] == 200
        except OSError:
            return False

    def kill(self) -> None:
        """The console and its worker, at once: no goodbye."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict, dict]:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        if path.startswith("/api"):
            said["Authorization"] = f"Bearer {self.secret}"
        try:
            client.request(method, path, body or None, said)
            answer = client.getresponse()
            content = answer.read()
            is_json = answer.headers.get("Content-Type") == "application/json"
            return answer.status, dict(answer.headers), json.loads(content) if content and is_json else {}
        finally:
            client.close()

    def create(self, size: int, name: str = "room.zip") -> str:
        body = json.dumps({"name": name, "bytes": size}).encode()
        status, _, said = self.call("POST", "/api/scans", body, Content_Type="application/json")
        assert status == 201, said
        return said["url"]

    def offset(self, url: str) -> int:
        status, headers, _ = self.call("HEAD", url, Tus_Resumable="1.0.0")
        assert status == 200
        return int(headers["Upload-Offset"])

    def patch(self, url: str, content: bytes, offset: int) -> tuple[int, dict, dict]:
        return self.call("PATCH", url, content, Content_Type=BYTES, Upload_Offset=str(offset), Tus_Resumable="1.0.0")

    def open_patch(self, url: str, offset: int, length: int | None) -> socket.socket:
        """A connection that has said its headers, and no byte yet."""
        sender = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)
        size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        sender.sendall(
            f"PATCH {url} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.secret}\r\nContent-Type: {BYTES}\r\n"
            f"Upload-Offset: {offset}\r\nTus-Resumable: 1.0.0\r\n{size}\r\n\r\n".encode()
        )
        return sender


@pytest.fixture(scope="module")
def console(tmp_path_factory) -> Iterator[Console]:
    console = Console(tmp_path_factory.mktemp("home"))
    yield console
    console.process.send_signal(signal.SIGTERM)
    console.process.wait(90)


@pytest.fixture
def taken(console) -> Iterator[list[str]]:
    with intake(console.home, console.home / "inbox") as taken:
        yield taken


def test_what_came_before_a_connection_was_cut_is_kept_and_it_goes_on_there(console, taken):
    content = archive(os.urandom(3_000_000))
    url = console.create(len(content))
    sender = console.open_patch(url, 0, len(content))
    sender.sendall(content[:2_000_000])
    wait(lambda: console.offset(url) > 0, "the first bytes")
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset, not goodbye
    sender.close()
    wait(lambda: console.patch(url, b"", console.offset(url))[0] == 204, "the server to notice")
    at = console.offset(url)
    assert 0 < at <= 2_000_000
    status, headers, _ = console.patch(url, content[at:], at)
    assert status == 204 and headers["Upload-Offset"] == str(len(content))
    assert (console.home / "inbox" / taken[0]).read_bytes() == content


def test_chunked_bodies_of_unknown_length_are_taken(console, taken):
    content = archive()
    url = console.create(len(content))
    with console.open_patch(url, 0, None) as sender:
        for at in range(0, len(content), 1000):
            piece = content[at : at + 1000]
            sender.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        sender.sendall(b"0\r\n\r\n")
        assert sender.recv(100).startswith(b"HTTP/1.1 204")
    assert (console.home / "inbox" / taken[0]).read_bytes() == content


def test_an_endless_body_is_cut_off_at_the_announced_length(console):
    url = console.create(100_000)
    with console.open_patch(url, 0, None) as sender:
        chunk, sent = b"2710\r\n" + b"x" * 10_000 + b"\r\n", 0
        try:
            while sent < 50_000_000:
                sender.sendall(chunk)
                sent += 10_000
        except OSError:
            pass
        assert sent < 50_000_000, "somebody has read it all"
    assert console.offset(url) == 0
    assert sum(path.stat().st_size for path in (console.home / "inbox" / ".uploads").glob("*.part")) <= 100_000


def test_two_at_once_are_one_after_the_other(console):
    content = archive()
    url = console.create(len(content))
    with console.open_patch(url, 0, len(content)) as first:
        first.sendall(content[:1000])
        wait(lambda: _is_locked(console, url), "the first to hold it")
        status, headers, said = console.patch(url, content, 0)
        assert status == 423 and headers["Retry-After"] == "5", said
        assert "expected one sender at a time; got a second one while the first still sends" in said["error"]
        first.sendall(content[1000:])
        assert first.recv(100).startswith(b"HTTP/1.1 ")
    assert console.offset(url) == len(content)


def test_a_sender_that_has_fallen_silent_makes_room(console, taken):
    content = archive()
    url = console.create(len(content))
    with console.open_patch(url, 0, len(content)) as silent:
        silent.sendall(content[:1000])
        wait(lambda: _is_locked(console, url), "the first to hold it")
        wait(lambda: console.patch(url, b"", console.offset(url))[0] == 204, "the silent one to be cut off")
    at = console.offset(url)
    assert console.patch(url, content[at:], at)[0] == 204
    assert (console.home / "inbox" / taken[0]).read_bytes() == content


def test_a_console_that_is_killed_in_the_middle_goes_on(console):
    content = archive(os.urandom(1_000_000))
    url = console.create(len(content), "killed.zip")
    sender = console.open_patch(url, 0, len(content))
    sender.sendall(content[:600_000])
    wait(lambda: console.offset(url) > 0, "the first bytes")
    console.kill()
    sender.close()
    console.start()
    at = console.offset(url)
    assert 0 < at <= 600_000
    assert console.patch(url, content[at:], at)[0] == 204
    assert console.call("GET", url)[2]["state"] == "received"  # no intake is there
    console.kill()
    console.start()
    with intake(console.home, console.home / "inbox") as taken:
        wait(lambda: console.call("GET", url)[2]["state"] == "queued", "the intake")
        (name,) = [name for name in taken if name.startswith("killed-")]
    assert (console.home / "inbox" / name).read_bytes() == content


def test_slow_senders_leave_room_for_others(console):
    urls = [console.create(1000) for _ in range(4)]
    senders = [console.open_patch(url, 0, 1000) for url in urls]
    for url, sender in zip(urls, senders, strict=True):
        sender.sendall(b"x")
        wait(lambda url=url: _is_locked(console, url), "a sender")
    assert console.call("GET", "/healthz")[0] == 200
    status, headers, said = console.patch(urls[0], b"x", 1)
    assert status == 503 and headers["Retry-After"] == "5" and "at most 4 uploads at the same moment" in said["error"]
    for sender in senders:
        sender.close()
    for url in urls:
        wait(lambda url=url: console.call("DELETE", url)[0] == 204, "its end")


def _is_locked(console: Console, url: str) -> bool:
    import fcntl
    from uuid import UUID

    path = console.home / "inbox" / ".uploads" / f"{UUID(url.rsplit('/', 1)[1])}.part"
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_half_a_request_is_cut_off(console):
    with socket.create_connection(("127.0.0.1", console.port), timeout=DEADLINE_S) as half:
        half.sendall(b"POST /admin/login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nusername=")
        answer = b""
        while piece := half.recv(4096):
            answer += piece
    assert not answer.startswith(b"HTTP/1.1 200")
