"""All processes of an installation on one machine, under one supervisor.

Belongs here: which processes there are (`members`), and keeping them alive. Does not belong here: what they do.

One code server for each code location, which webserver, daemon and intake share: Dagster would start one for each
of them. What dies is started again, at first at once, then ever later. When the supervisor ends, however
it ends, so does everything below it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geomagic_dagster.guardrails import processes
from geomagic_dagster.guardrails.processes import adopt_orphans, descendants, die_with_parent

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
WELL_AFTER_S = 60.0
"""What lived for so long is started again at once."""
STOP_S = 10.0
READY_S = 120.0


@dataclass(frozen=True)
class Member:
    """One process of the installation."""

    name: str
    command: tuple[str, ...]
    is_ready: Callable[[], bool] | None = None
    """Those below it in the table start only then."""


@dataclass(frozen=True)
class Ports:
    """Where the installation is to be found."""

    web: int
    rooms: int
    intake: int
    metrics: int


def members(
    locations: Sequence[dict[str, Any]], dagster_home: Path, sockets: Path, host: str, ports: Ports
) -> tuple[Member, ...]:
    """The table. A new process of the installation is one more entry."""
    workspace = str(dagster_home / "workspace.yaml")
    table = []
    for each in locations:
        if target := each.get("python_module"):
            name, module = target["location_name"], target["module_name"]
            python = target.get("executable_path", sys.executable)
            address = sockets / f"{name}.sock"
            server = (
                "-m",
                "dagster",
                "code-server",
                "start",
                "-m",
                module,
                "-s",
                str(address),
                "--location-name",
                name,
            )
            table.append(Member(f"code {name}", (python, *server), lambda address=address: _accepts(address)))
            if processes.is_supported:
                table.append(
                    Member(f"starter {name}", (python, "-m", "geomagic_dagster.launching.starter", name, module))
                )
    python = sys.executable
    geomagic = (python, "-m", "geomagic_dagster.cli")
    web = (python, "-m", "dagster_webserver", "-w", workspace, "-h", host, "-p", str(ports.web))
    table += [
        Member("webserver", web),
        Member("daemon", (python, "-m", "dagster._daemon", "run", "-w", workspace)),
        Member("intake", (*geomagic, "intake", "--listen", "--port", str(ports.intake))),
        Member("rooms", (*geomagic, "room", "serve", "--host", host, "--port", str(ports.rooms))),
        Member("metrics", (*geomagic, "metrics", "--port", str(ports.metrics))),
        Member("watcher", (*geomagic, "watch")),
    ]
    return tuple(table)


def write_workspace(locations: Sequence[dict[str, Any]], dagster_home: Path, sockets: Path) -> None:
    """The workspace as the other processes see it: code servers that are there already."""
    import yaml

    def entry(each: dict[str, Any]) -> dict[str, Any]:
        if (target := each.get("python_module")) is None:
            return each
        name = target["location_name"]
        return {"grpc_server": {"location_name": name, "host": "localhost", "socket": str(sockets / f"{name}.sock")}}

    content = yaml.safe_dump({"load_from": [entry(each) for each in locations]})
    (dagster_home / "workspace.yaml").write_text("# Written by `geomagic ui`.\n" + content)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


# --- the supervisor -------------------------------------------------------------------------------


@dataclass(eq=False)
class _Child:
    member: Member
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    start_at_s: float = 0.0
    delay_s: float = 0.0
    rest: bytes = field(default=b"", repr=False)


def serve(workspace: Path, dagster_home: Path, host: str, ports: Ports) -> None:
    """Runs the installation until it is told to stop (SIGTERM, SIGINT, SIGHUP)."""
    import yaml

    locations = yaml.safe_load(workspace.read_text())["load_from"]
    with tempfile.TemporaryDirectory(prefix="geomagic-") as folder:  # short: sockets have short names
        sockets = Path(folder)
        write_workspace(locations, dagster_home, sockets)
        if not processes.is_supported:
            print(f"runs are forked on Linux only, and this is {sys.platform}: they start slowly", file=sys.stderr)
        Supervisor(members(locations, dagster_home, sockets, host, ports)).run()


class Supervisor:
    """Single-threaded, so that what is done between fork and exec is safe."""

    def __init__(self, table: Iterable[Member]) -> None:
        self.children = [_Child(member) for member in table]
        self.width = max(len(child.member.name) for child in self.children)
        self.selector = selectors.DefaultSelector()
        self.is_stopping = False

    def run(self) -> None:
        """Until SIGTERM, SIGINT or SIGHUP."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        if processes.is_supported:
            adopt_orphans()
        try:
            while not self.is_stopping:
                self._start_what_is_due()
                self._pass_on(0.1)
                self._look_after()
        finally:
            self._end()

    def _stop(self, number: int, frame: object) -> None:
        self.is_stopping = True

    def say(self, name: str, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(f"{name:<{self.width}} | {line}", file=sys.stderr, flush=True)

    def _start_what_is_due(self) -> None:
        now_s = time.monotonic()
        for child in self.children:
            if child.process is None and now_s >= child.start_at_s:
                self._start(child)
            is_ready = child.member.is_ready
            if is_ready and child.process and now_s - child.started_s < READY_S and not is_ready():
                return

    def _start(self, child: _Child) -> None:
        child.process = subprocess.Popen(
            child.member.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which then ends them in order
            preexec_fn=die_with_parent if processes.is_supported else None,
        )
        child.started_s, child.rest = time.monotonic(), b""
        assert child.process.stdout
        os.set_blocking(child.process.stdout.fileno(), False)
        self.selector.register(child.process.stdout, selectors.EVENT_READ, child)

    def _pass_on(self, timeout_s: float) -> None:
        for key, _ in self.selector.select(timeout_s):
            child: _Child = key.data
            content = os.read(key.fd, 65536)
            *lines, child.rest = (child.rest + content).split(b"\n")
            for line in lines:
                self.say(child.member.name, line.decode(errors="replace"))
            if not content:  # its end, and that of whoever inherited its output
                self.selector.unregister(key.fileobj)
                key.fileobj.close()  # pyright: ignore[reportAttributeAccessIssue]

    def _look_after(self) -> None:
        now_s = time.monotonic()
        for child in self.children:
            if child.process is not None and (code := child.process.poll()) is not None:
                lived_s = now_s - child.started_s
                child.delay_s = (
                    0.0 if lived_s > WELL_AFTER_S else min(LONGEST_DELAY_S, max(FIRST_DELAY_S, 2 * child.delay_s))
                )
                child.process, child.start_at_s = None, now_s + child.delay_s
                self.say(child.member.name, f"ended with {code} after {lived_s:.0f} s; again in {child.delay_s:g} s")
        self._reap_orphans()

    def _reap_orphans(self) -> None:
        """Those that were adopted; our own are left to Popen."""
        own = {child.process.pid for child in self.children if child.process}
        with contextlib.suppress(ChildProcessError, AttributeError):
            while True:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None or ended.si_pid in own:
                    return
                os.waitpid(ended.si_pid, 0)

    def _end(self) -> None:
        self.say("supervisor", "stopping")
        running = [child for child in self.children if child.process]
        for child in running:
            assert child.process
            child.process.terminate()
        deadline_s = time.monotonic() + STOP_S
        while time.monotonic() < deadline_s and any(
            child.process and child.process.poll() is None for child in running
        ):
            self._pass_on(0.1)
        for child in running:
            assert child.process
            if child.process.poll() is None:
                self.say(child.member.name, f"did not end within {STOP_S:g} s of SIGTERM: killed")
                child.process.kill()
            child.process.wait()
        while processes.is_supported and (left := list(descendants(os.getpid()))):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)
        self.say("supervisor", "nothing is left running")
