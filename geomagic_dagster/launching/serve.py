"""All processes of an installation on one machine, under one supervisor.

Belongs here: which processes there are (`members`), and keeping them alive. Does not belong here: what they do, and the
processes of a code location (locations.py).

One code server for each code location, which webserver, daemon and intake share: Dagster would start one for each
of them. What dies is started again, at first at once, then ever later. When the supervisor ends, however
it ends, so does everything below it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geomagic_dagster.guardrails import processes
from geomagic_dagster.guardrails.logs import LogfmtFormatter
from geomagic_dagster.guardrails.processes import adopt_orphans, descendants, die_with_parent, end_session
from geomagic_dagster.launching.addresses import Greeting, Ports
from geomagic_dagster.launching.locations import Member, location_members, workspace_of, write_workspace
from geomagic_dagster.monitoring import supervised
from geomagic_dagster.releases.record import ReleaseError
from geomagic_dagster.releases.routing import RoutingStore
from geomagic_dagster.releases.workspace import locations as installed_locations

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
WELL_AFTER_S = 60.0
"""What lived for so long is started again at once."""
STOP_S = 10.0
READY_S = 120.0
GATED_PATH = "/dagster"
"""Where Dagster's pages are behind the gate."""
LONGEST_LINE = 65536
"""Of what a process says; bars that are drawn anew again and again have no end of line for an hour."""
GREET_S = 0.5
LOOK_S = 2.0
"""How often it looks which releases there are, and which of them get uploads."""


def members(
    locations: Sequence[dict[str, Any]],
    dagster_home: Path,
    sockets: Path,
    host: str,
    ports: Ports,
    wanted: Callable[[str], bool] = lambda release: True,
    has_gate: bool = False,
    is_watched: bool = False,
) -> tuple[Member, ...]:
    """The table. A new process of the installation is one more entry.

    Args:
        wanted: whether a release gets uploads, so that it is kept warm.
        has_gate: whether nginx stands before it (deploy/gate): Dagster's pages then are below /dagster.
        is_watched: whether a person reads along, for whom the daemon's "nothing new" every 3 s would bury the rest.
    """
    workspace = str(dagster_home / "workspace.yaml")
    table = location_members(locations, sockets, wanted)
    python = sys.executable
    geomagic = (python, "-m", "geomagic_dagster.cli")
    web = (python, "-m", "dagster_webserver", "-w", workspace, "-h", host)
    if has_gate:
        web += ("-l", GATED_PATH)
        table.append(
            Member(
                "webserver, read only",
                (*web, "-p", str(ports.read_only), "--read-only"),
                knows=workspace_of(locations, sockets),
            )
        )
    table += [
        # The daemon looks every minute by itself.
        Member("webserver", (*web, "-p", str(ports.web)), knows=workspace_of(locations, sockets)),
        Member(
            "daemon",
            (
                python,
                "-m",
                "dagster._daemon",
                "run",
                "-w",
                workspace,
                *(("--log-level", "warning") if is_watched else ()),
            ),
        ),
        Member("intake", (*geomagic, "intake", "--listen", "--port", str(ports.intake))),
        Member("rooms", (*geomagic, "room", "serve", "--host", host, "--port", str(ports.rooms))),
        Member("metrics", (*geomagic, "metrics", "--port", str(ports.metrics))),
        Member("watcher", (*geomagic, "watch")),
    ]
    if ports.console is not None:
        table.append(Member("console", (*geomagic, "console", "--host", host, "--port", str(ports.console))))
    return tuple(table)


def gated_environment(name: str, web_port: int) -> dict[str, str]:
    """What console and runs must know where nginx stands before them under this name (deploy/gate)."""
    return {
        "GEOMAGIC_ROOMS_URL": f"https://{name}/rooms",
        "GEOMAGIC_CONSOLE_HOSTS": f"{name},127.0.0.1,localhost",
        "GEOMAGIC_CONSOLE_HTTPS": "1",
        "GEOMAGIC_DAGSTER_URL": f"http://127.0.0.1:{web_port}{GATED_PATH}",
        "GEOMAGIC_DAGSTER_PAGES": f"https://{name}{GATED_PATH}",
    }


# --- the supervisor -------------------------------------------------------------------------------


@dataclass(eq=False)
class _Child:
    member: Member
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    start_at_s: float = 0.0
    delay_s: float = 0.0
    rest: bytes = field(default=b"", repr=False)
    next: Member | None = None
    """What takes its place when it has ended."""
    is_leaving: bool = False
    told_s: float | None = None
    """When it was told to end."""

    def should_run(self) -> bool:
        wanted = self.member.is_wanted
        return self.next is None and not self.is_leaving and (wanted is None or wanted())

    def is_busy(self) -> bool:
        """A starter's children are runs: it may go when they are done."""
        return self.member.name.startswith("starter ") and bool(self.process and any(descendants(self.process.pid)))


def serve(
    workspace: Path,
    dagster_home: Path,
    host: str,
    ports: Ports,
    home: Path | None = None,
    routing: RoutingStore | None = None,
    has_gate: bool = False,
    greeting: Greeting | None = None,
) -> None:
    """Runs the installation until it is told to stop (SIGTERM, SIGINT, SIGHUP).

    It follows the workspace: a release that is installed, mended, archived while it runs comes, is replaced, goes.

    Args:
        home: where releases are installed; default: beside Dagster's folder.
        routing: says which releases are to be kept warm; without it, none is before its first run.
        has_gate: whether nginx stands before it (deploy/gate).
        greeting: what is said once everything answers.
    """
    with tempfile.TemporaryDirectory(prefix="geomagic-") as folder:  # short: sockets have short names
        sockets = Path(folder)
        if not processes.is_supported:
            _print(f"runs are forked on Linux only, and this is {sys.platform}: they start slowly")
        wanted = _Wanted(routing)
        said: list[Any] = []

        def look() -> tuple[Member, ...] | None:
            """The table, where it is another one than the last time."""
            try:
                found = installed_locations(workspace, home or dagster_home.parent)
            except (ReleaseError, OSError) as error:  # a list that somebody is editing, a disk that fails
                if not said:
                    raise
                _print(str(error))
                return None
            if said == [found]:
                return None
            try:
                write_workspace(found[0], dagster_home, sockets)
            except OSError as error:  # a full disk: the next look tries again
                if not said:
                    raise
                _print(f"{dagster_home}/workspace.yaml: expected to write it; got {error}. Free some space there.")
                return None
            said[:] = [found]
            for line in found[1]:
                _print(line)
            return members(found[0], dagster_home, sockets, host, ports, wanted, has_gate, sys.stderr.isatty())

        Supervisor(look() or (), look, greeting, dagster_home).run()


def _print(text: str) -> None:
    """For a person; nobody may be there any more: a terminal that was closed, a pipe whose other end is gone."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


class _Wanted:
    """Whether a release gets uploads by the table that this machine read last; asks the disk every few seconds."""

    def __init__(self, routing: RoutingStore | None) -> None:
        self._routing, self._read_s, self._releases = routing, float("-inf"), frozenset[str]()

    def __call__(self, release: str) -> bool:
        if self._routing is not None and time.monotonic() - self._read_s > LOOK_S:
            self._read_s = time.monotonic()
            if table := self._routing.on_this_machine():
                self._releases = frozenset({table.default, *(flight.release for flight in table.flights)})
        return release in self._releases


class Supervisor:
    """Single-threaded, so that what is done between fork and exec is safe."""

    def __init__(
        self,
        table: Iterable[Member],
        look: Callable[[], Iterable[Member] | None] = lambda: None,
        greeting: Greeting | None = None,
        counted_in: Path | None = None,
    ) -> None:
        """`look` is asked every few seconds for a table that is another one by now; in the folder `counted_in` it is
        counted how often each process ended by itself, for the exporter."""
        self.children = [_Child(member) for member in table]
        self.width = max(len(child.member.name) for child in self.children)
        self.selector = selectors.DefaultSelector()
        self.is_stopping = False
        self._look, self._looked_s = look, time.monotonic()
        self._greeting, self._greeted_s = greeting, time.monotonic()
        self._counted_in, self._ends = counted_in, Counter[str]()

    def run(self) -> None:
        """Until SIGTERM, SIGINT or SIGHUP."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        if processes.is_supported:
            adopt_orphans()
        self._count()
        try:
            while not self.is_stopping:
                self._follow()
                self._start_what_is_due()
                self._pass_on(0.1)
                self._look_after()
                self._end_what_is_not_wanted()
                self._greet()
        finally:
            self._end()

    def _stop(self, number: int, frame: object) -> None:
        self.is_stopping = True

    def say(self, name: str, line: str) -> None:
        _print(f"{name:<{self.width}} | {line}")

    def _greet(self) -> None:
        if self._greeting is None or self._greeting.is_over or time.monotonic() - self._greeted_s < GREET_S:
            return
        if words := self._greeting.look():
            _print(f"\n{words}\n")
        self._greeted_s = time.monotonic()

    def remark(self, name: str, line: str, level: int = logging.INFO) -> None:
        """A line of the supervisor's own, about one of them."""
        self.say(
            name, LogfmtFormatter().format(logging.LogRecord("geomagic.supervisor", level, "", 0, line, None, None))
        )

    def _start_what_is_due(self) -> None:
        now_s = time.monotonic()
        for child in self.children:
            if child.process is None and now_s >= child.start_at_s and child.should_run():
                try:
                    self._start(child)
                except (OSError, subprocess.SubprocessError) as error:  # no memory; a release that is being removed
                    self._again_later(child, f"expected to start {child.member.command[0]}; got {error}")
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
            env=None if child.member.env is None else dict(child.member.env),
        )
        child.told_s, child.started_s, child.rest = None, time.monotonic(), b""
        assert child.process.stdout
        os.set_blocking(child.process.stdout.fileno(), False)
        self.selector.register(child.process.stdout, selectors.EVENT_READ, child)

    def _pass_on(self, timeout_s: float) -> None:
        for key, _ in self.selector.select(timeout_s):
            child: _Child = key.data
            content = os.read(key.fd, 65536)
            *lines, child.rest = (child.rest + content).split(b"\n")
            if len(child.rest) > LONGEST_LINE or (child.rest and not content):  # last words may have no end of line
                lines, child.rest = [*lines, child.rest], b""
            for line in lines:
                self.say(child.member.name, line.decode(errors="replace"))
            if not content:  # its end, and that of whoever inherited its output
                self.selector.unregister(key.fileobj)
                key.fileobj.close()  # pyright: ignore[reportAttributeAccessIssue]

    def _look_after(self) -> None:
        now_s = time.monotonic()
        for child in list(self.children):
            if child.process is not None and (code := child.process.poll()) is not None:
                lived_s, child.process = now_s - child.started_s, None
                if child.told_s is not None:
                    self._ended_as_told(child)
                else:
                    self._again_later(child, f"ended with {code} after {lived_s:.0f} s", lived_s > WELL_AFTER_S)
        self._reap_orphans()

    def _again_later(self, child: _Child, why: str, at_once: bool = False) -> None:
        child.delay_s = 0.0 if at_once else min(LONGEST_DELAY_S, max(FIRST_DELAY_S, 2 * child.delay_s))
        child.start_at_s = time.monotonic() + child.delay_s
        self.remark(child.member.name, f"{why}; again in {child.delay_s:g} s", logging.WARNING)
        self._count(child.member.name)

    def _count(self, *ended: str) -> None:
        self._ends.update(ended)
        if self._counted_in is not None:
            with contextlib.suppress(OSError):  # a full disk; the next one that ends is counted with this one
                supervised.write(self._counted_in, {each.member.name: 0 for each in self.children} | self._ends)

    def _ended_as_told(self, child: _Child) -> None:
        self.remark(child.member.name, "ended, since it is not needed now" if child.next is None else "is replaced")
        child.start_at_s, child.delay_s, child.told_s = 0.0, 0.0, None
        if child.is_leaving:
            self.children.remove(child)

    def _follow(self) -> None:
        """Takes up a table that changed: what is new comes, what is another one is replaced, what is gone goes."""
        if time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        if (table := self._look()) is None:
            return
        known = {child.member.name: child for child in self.children if not child.is_leaving}
        children = []
        for member in table:
            child = known.pop(member.name, None) or _Child(member)
            child.next = None if child.member.is_same(member) else member
            children.append(child)
        for child in known.values():
            child.is_leaving = True
        leaving = [child for child in self.children if child.is_leaving and child.process]
        self.children = children + leaving
        self.width = max(len(child.member.name) for child in self.children)
        self._count()

    def _end_what_is_not_wanted(self) -> None:
        now_s = time.monotonic()
        for child in self.children:
            if child.process is None:
                if child.next is not None:
                    child.member, child.next = child.next, None
            elif child.told_s is not None:
                if now_s - child.told_s > STOP_S:
                    child.process.kill()
            elif not child.should_run() and not child.is_busy():
                child.told_s = now_s
                child.process.terminate()

    def _reap_orphans(self) -> None:
        """Those that were adopted; our own are left to Popen."""
        own = {child.process.pid for child in self.children if child.process}
        with contextlib.suppress(ChildProcessError, AttributeError):
            while True:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None or ended.si_pid in own:
                    return
                end_session(ended.si_pid)  # of a run whose starter was killed before it
                os.waitpid(ended.si_pid, 0)

    def _end(self) -> None:
        self.remark("supervisor", "stopping")
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
                self.remark(child.member.name, f"did not end within {STOP_S:g} s of SIGTERM: killed", logging.WARNING)
                child.process.kill()
            child.process.wait()
        while processes.is_supported and (left := list(descendants(os.getpid()))):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)
        self.remark("supervisor", "nothing is left running")
