"""Where an installation is: ports that move together, one sentence for each that is taken, and the last word of a start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from geomagic_dagster.cli import app
from geomagic_dagster.drill.place import free_ports
from geomagic_dagster.launching import addresses
from geomagic_dagster.launching.addresses import (
    Address,
    CannotStart,
    Greeting,
    Ports,
    addresses_of,
    only_one,
    ports_beside,
    refuse_taken,
)


def test_ports_that_nobody_names_move_as_far_as_the_web_page_does():
    assert ports_beside(3000, None, None, None, None) == Ports(3000, 3001, 3002, 9464, 3003, read_only=3004)
    assert ports_beside(4000, None, 7, None, 0) == Ports(4000, 4001, 7, 10464, None, read_only=4004)
    with pytest.raises(CannotStart, match=r"--port: expected a number from 1 to 59071, .*; got 60000\. Choose a lower"):
        ports_beside(60000, None, None, None, None)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", free_ports(1)[0])) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_taken_is_one_sentence_with_its_option_and_nothing_is_started(taken, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOMAGIC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home" / "dagster"))
    (tmp_path / "home" / "dagster").mkdir(parents=True)
    web, intake, metrics = free_ports(3)
    named = ["--port", str(web), "--rooms-port", str(taken), "--intake-port", str(intake)]
    done = CliRunner().invoke(app, ["ui", *named, "--metrics-port", str(metrics), "--console-port", "0"])
    assert done.exit_code == 2
    first, move, last = done.output.strip().splitlines()[-3:]
    assert first == (
        f"rooms on 127.0.0.1:{taken}: expected a free port; got: Address already in use. Choose another by --rooms-port."
    )
    assert move.startswith("Or move all of them: make ui PORT=") and last == "Nothing was started."
    assert {path.name for path in (tmp_path / "home" / "dagster").iterdir()} == {"dagster.yaml", "ui.lock"}
    assert not (tmp_path / "home" / "inbox").exists()


def test_two_of_our_own_on_one_port_are_told_apart():
    [port] = free_ports(1)
    with pytest.raises(CannotStart, match="rooms on 127.0.0.1:.* got: the port of Dagster as well"):
        refuse_taken(addresses_of("127.0.0.1", Ports(port, port, *free_ports(2))))


def test_a_second_supervisor_of_one_home_is_refused_and_one_after_a_kill_is_patient(tmp_path):
    with only_one(tmp_path) as was_killed:
        assert not was_killed
        with (
            pytest.raises(
                CannotStart, match=rf"expected no other `geomagic ui` on it; got process {os.getpid()}\. Use"
            ),
            only_one(tmp_path),
        ):
            pass
    script = (
        "import os, signal, sys; from pathlib import Path; from geomagic_dagster.launching.addresses import only_one\n"
        "with only_one(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    with only_one(tmp_path) as was_killed:
        assert was_killed
    with only_one(tmp_path) as was_killed:
        assert not was_killed


def test_ports_that_are_being_let_go_of_are_waited_for(taken, monkeypatch):
    closing = socket.create_server(("127.0.0.1", free_ports(1)[0]))
    monkeypatch.setattr(addresses.time, "sleep", lambda _: closing.close())
    refuse_taken([Address("rooms", "--rooms-port", "127.0.0.1", closing.getsockname()[1], "/")], 60.0)
    with pytest.raises(CannotStart):
        refuse_taken([Address("rooms", "--rooms-port", "127.0.0.1", taken, "/")], 0.0)


class _NotFound(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _NotFound) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_port
        server.shutdown()


def test_once_everything_answers_it_is_said_once(server):
    found = [Address(what, "", "127.0.0.1", server, "/") for what in ("Dagster", "uploads", "metrics")]
    greeting = Greeting(found, Path("/home/inbox"))
    assert [greeting.look() for _ in range(2)] == ["", ""]
    assert greeting.look().splitlines() == [
        "Everything is up:",
        f"  Dagster            http://127.0.0.1:{server}",
        f"  uploads            http://127.0.0.1:{server}/scans/NAME   or into /home/inbox",
        f"  metrics            http://127.0.0.1:{server}/metrics",
        "Stop it with Ctrl-C: all of it ends.",
    ]
    assert greeting.is_over and greeting.look() == ""


def test_what_does_not_answer_for_long_is_named(server, monkeypatch):
    silent = Address("console", "", "0.0.0.0", free_ports(1)[0], "/")
    greeting = Greeting(
        [Address("Dagster", "", "127.0.0.1", server, "/"), silent], Path("/home/inbox"), "rooms.example.org"
    )
    assert [greeting.look() for _ in range(3)] == ["", "", ""]
    monkeypatch.setattr(addresses, "PATIENCE_S", 0.0)
    first, *_, console, _ = greeting.look().splitlines()
    assert first == "Up, but for what does not answer yet (its lines above say why): console"
    assert console == f"  console            http://127.0.0.1:{silent.port}"
