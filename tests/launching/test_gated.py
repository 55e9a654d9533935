"""The installation as it runs behind the gate: what listens where, and what is told to whom."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from geomagic_dagster.cli import app
from geomagic_dagster.launching.serve import GATED_PATH, Ports, gated_environment, members
from tests.conftest import REPOSITORY

PORTS = Ports(web=3000, rooms=3001, intake=3002, metrics=9464, console=3003)


def webservers(**more) -> dict[str, tuple[str, ...]]:
    table = members([], Path("/d"), Path("/s"), "127.0.0.1", PORTS, **more)
    return {member.name: member.command for member in table if "dagster_webserver" in member.command}


def test_behind_the_gate_a_second_webserver_only_reads():
    assert list(webservers()) == ["webserver"] and "-l" not in webservers()["webserver"]
    found = webservers(has_gate=True)
    assert list(found) == ["webserver, read only", "webserver"]
    assert all(command[command.index("-l") + 1] == GATED_PATH for command in found.values())
    assert [name for name, command in found.items() if "--read-only" in command] == ["webserver, read only"]
    assert {command[command.index("-p") + 1] for command in found.values()} == {"3000", "3004"}


def test_the_gate_looks_where_the_installation_listens():
    text = (REPOSITORY / "deploy" / "gate" / "geomagic.conf").read_text()
    ports = dict(re.findall(r"upstream geomagic_(\w+) +\{ server 127.0.0.1:(\d+); \}", text))
    assert {name: int(port) for name, port in ports.items()} == {
        "console": PORTS.console,
        "dagster": PORTS.web,
        "dagster_read_only": PORTS.read_only,
        "rooms": PORTS.rooms,
        "metrics": PORTS.metrics,
    }
    assert f"location ^~ {GATED_PATH}/ {{" in text


def test_people_are_led_through_the_gate_and_programs_past_it():
    said = gated_environment("rooms.example.org", 3000)
    assert said["GEOMAGIC_ROOMS_URL"] == "https://rooms.example.org/rooms"
    assert said["GEOMAGIC_DAGSTER_PAGES"] == "https://rooms.example.org/dagster"
    assert said["GEOMAGIC_DAGSTER_URL"] == "http://127.0.0.1:3000/dagster"
    assert said["GEOMAGIC_CONSOLE_HTTPS"] == "1"


def test_nothing_listens_where_it_would_pass_the_gate_by(monkeypatch, tmp_path):
    monkeypatch.setenv("GEOMAGIC_HOME", str(tmp_path))
    refused = CliRunner().invoke(app, ["ui", "--gate", "rooms.example.org", "--host", "0.0.0.0"])
    assert refused.exit_code == 2
    assert "--host 0.0.0.0: expected 127.0.0.1 behind the gate; got an address that passes it by" in refused.output
