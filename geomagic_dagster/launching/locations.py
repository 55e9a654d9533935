"""The processes of each code location, and the workspace in which the others find them.

latest has a code server that can be told to reload edited code, and a warm process that is always there. A release
never changes: its code server is one process instead of two, and it is kept warm only while the routing table sends it
uploads; for a rare run the launcher starts a warm process by itself (run_launcher.py). A location that cannot be
loaded stays up and says why: the webserver shows its words.

What an idle release costs: some 140 MB of memory, its code server. A code server that reloads takes 75 MB more, a warm
process some 500 MB more; without one the first run after a pause waits for it, 5 to 20 s.

Belongs here: that table. Does not belong here: keeping processes alive (serve.py), which releases are installed
(releases/workspace.py).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomagic_dagster.guardrails import processes
from geomagic_dagster.guardrails.whole_files import replace_whole
from geomagic_dagster.releases.environments import own_environment

STARTER = "geomagic_dagster.launching.starter"


@dataclass(frozen=True)
class Member:
    """One process of the installation."""

    name: str
    command: tuple[str, ...]
    is_ready: Callable[[], bool] | None = None
    """Those below it in the table start only then."""
    env: Mapping[str, str] | None = None
    """What it sees; None: all that the supervisor does."""
    is_wanted: Callable[[], bool] | None = None
    """It runs only while this is true, and ends when it has no children left."""
    knows: str = ""
    """What it read at its start and does not read again: with another one it is started anew."""

    def is_same(self, other: Member) -> bool:
        """Whether a process of one need not be replaced by one of the other."""
        return (self.command, self.env, self.knows) == (other.command, other.env, other.knows)


def location_members(locations: Sequence[dict[str, Any]], sockets: Path, wanted: Callable[[str], bool]) -> list[Member]:
    """Code server and starter of every location that is a module; `wanted(release)`: does it get uploads?"""
    table = []
    for each in locations:
        if target := each.get("python_module"):
            name, module = target["location_name"], target["module_name"]
            address = sockets / f"{name}.sock"
            where = ("-m", module, "-s", str(address), "--location-name", name)
            is_up = lambda address=address: _accepts(address)  # noqa: E731 - bound to this address
            python, env, is_wanted = sys.executable, None, None
            server = ("-m", "dagster", "code-server", "start", *where)
            if "executable_path" in target:
                python, env = target["executable_path"], own_environment(os.environ)
                is_wanted = lambda name=name: wanted(name)  # noqa: E731 - bound to this name
                lazily = ("--lazy-load-user-code", "--empty-working-directory", "--use-python-environment-entry-point")
                server = ("-m", "dagster", "api", "grpc", *where, *lazily)
            table.append(Member(f"code {name}", (python, *server), is_up, env))
            if processes.is_supported:
                command = (python, "-m", STARTER, name, module)
                table.append(Member(f"starter {name}", command, env=env, is_wanted=is_wanted))
    return table


def workspace_of(locations: Sequence[dict[str, Any]], sockets: Path) -> str:
    """The workspace as the other processes see it: code servers that are there already."""
    import yaml

    def entry(each: dict[str, Any]) -> dict[str, Any]:
        if (target := each.get("python_module")) is None:
            return each
        name = target["location_name"]
        return {"grpc_server": {"location_name": name, "host": "localhost", "socket": str(sockets / f"{name}.sock")}}

    return "# Written by `geomagic ui`.\n" + yaml.safe_dump({"load_from": [entry(each) for each in locations]})


def write_workspace(locations: Sequence[dict[str, Any]], dagster_home: Path, sockets: Path) -> None:
    """Writes it where the other processes look for it, whole."""
    replace_whole(dagster_home / "workspace.yaml", workspace_of(locations, sockets).encode())


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
