"""Where an installation is to be found: its ports, whether they are free, and what a person is told of them.

Belongs here: addresses, before and after the processes behind them are started. Does not belong here: those processes
(serve.py).
"""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from geomagic_dagster.guardrails.locks import held

FIRST = 3000
"""Of the web page by default; all others that nobody names move by as much as this one does."""
ROOMS, INTAKE, CONSOLE, READ_ONLY, METRICS = 3001, 3002, 3003, 3004, 9464
LET_GO_S = 30.0
"""By then the processes of a supervisor that was killed have let go of their ports."""
ANSWER_S = 2.0
PATIENCE_S = 180.0
"""After that the addresses are told, with a word on those that do not answer yet."""


class CannotStart(Exception):
    """`str()`: place, what was expected, what came, what to do next. Nothing was started."""


@dataclass(frozen=True)
class Ports:
    """Where the installation is to be found."""

    web: int
    rooms: int
    intake: int
    metrics: int
    console: int | None = None
    """None: without it."""
    read_only: int = READ_ONLY
    """The second webserver, for those who may only look; only behind the gate."""


def ports_beside(web: int, rooms: int | None, intake: int | None, metrics: int | None, console: int | None) -> Ports:
    """Those that are named, and for the others the usual ones, moved as far as `web` is. Console 0: without it."""
    moved = web - FIRST
    if not 0 < web <= 65535 - METRICS + FIRST:
        raise CannotStart(
            f"--port: expected a number from 1 to {65535 - METRICS + FIRST}, as the other ports move along; got {web}. "
            "Choose a lower one."
        )
    return Ports(
        web=web,
        rooms=ROOMS + moved if rooms is None else rooms,
        intake=INTAKE + moved if intake is None else intake,
        metrics=METRICS + moved if metrics is None else metrics,
        console=CONSOLE + moved if console is None else console or None,
        read_only=READ_ONLY + moved,
    )


@dataclass(frozen=True)
class Address:
    """One of them."""

    what: str
    option: str
    host: str
    port: int
    path: str
    """Where it answers at once."""

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def addresses_of(host: str, ports: Ports, has_gate: bool = False) -> tuple[Address, ...]:
    """What people and programs call an installation by, in the order in which they are told of it."""
    prefix = "/dagster" if has_gate else ""
    found = [Address("Dagster", "--port", host, ports.web, f"{prefix}/server_info")]
    if has_gate:
        found.append(Address("Dagster, read only", "--port", host, ports.read_only, f"{prefix}/server_info"))
    if ports.console is not None:
        found.append(Address("console", "--console-port", host, ports.console, "/"))
    found += [
        Address("uploads", "--intake-port", "127.0.0.1", ports.intake, "/health"),
        Address("rooms", "--rooms-port", host, ports.rooms, "/"),
        Address("metrics", "--metrics-port", "127.0.0.1", ports.metrics, "/metrics"),
    ]
    return tuple(found)


# --- before ---------------------------------------------------------------------------------------


@contextmanager
def only_one(dagster_home: Path) -> Iterator[bool]:
    """Holds an installation for this supervisor; yields whether the one before it was killed.

    Two would look at one inbox with two daemons each. Raises: CannotStart.
    """
    place = dagster_home / "ui.lock"
    with ExitStack() as lock:
        try:
            lock.enter_context(held(place, wait=False))
        except BlockingIOError as error:
            raise CannotStart(
                f"{dagster_home}: expected no other `geomagic ui` on it; got process {place.read_text() or '?'}. "
                "Use that one, end it (Ctrl-C), or name another GEOMAGIC_HOME for this one. Nothing was started."
            ) from error
        was_killed = place.read_text() != ""
        place.write_text(str(os.getpid()))
        try:
            yield was_killed
        finally:  # who is killed does not come here
            place.write_text("")


def refuse_taken(addresses: Sequence[Address], patience_s: float = 0.0) -> None:
    """Raises: CannotStart, with a sentence for each port that is not free, be it after some patience."""
    until_s = time.monotonic() + patience_s
    while True:
        taken = {each: why for each in addresses if (why := _why_taken(each, addresses))}
        if not taken:
            return
        if time.monotonic() > until_s:
            break
        time.sleep(0.2)
    said = [
        f"{each.what} on {each.host}:{each.port}: expected a free port; got: {why}. Choose another by {each.option}."
        for each, why in taken.items()
    ]
    move = _free_beside(addresses)
    if move is not None:
        said.append(f"Or move all of them: make ui PORT={move} (geomagic ui --port {move}).")
    raise CannotStart("\n".join([*said, "Nothing was started."]))


def _why_taken(address: Address, addresses: Sequence[Address], moved: int = 0) -> str:
    """Why it cannot listen there; empty where it can."""
    host, port = address.host, address.port + moved
    if same := [each.what for each in addresses if each.port == address.port and each is not address]:
        return f"the port of {same[0]} as well"
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    return ""


def _free_beside(addresses: Sequence[Address]) -> int | None:
    """The next port of the web page with which all would be free; None where there is none near."""
    web = addresses[0].port
    for moved in range(10, 210, 10):
        if all(each.port + moved < 65536 and not _why_taken(each, addresses, moved) for each in addresses):
            return web + moved
    return None


# --- once they answer -----------------------------------------------------------------------------


class Greeting:
    """Waits until everything answers, and then says once where it is and how to stop it."""

    def __init__(self, addresses: Sequence[Address], inbox: Path, gate: str | None = None) -> None:
        self._addresses, self._inbox, self._gate = addresses, inbox, gate
        self._silent = list(addresses)
        self._began_s = time.monotonic()
        self.is_over = False

    def look(self) -> str:
        """Asks one that has not answered yet. The words once, when it is time for them; else nothing."""
        if not self.is_over:
            if self._silent and _answers(self._silent[0]):
                self._silent.pop(0)
            else:
                self._silent.append(self._silent.pop(0))
            self.is_over = not self._silent or time.monotonic() - self._began_s > PATIENCE_S
            if self.is_over:
                return self.words()
        return ""

    def words(self) -> str:
        """A line for each address, and how to stop."""
        lines = [f"Everything is up{f' behind https://{self._gate}/' if self._gate else ''}:"]
        if self._silent:
            lines = [f"Up, but for what does not answer yet (its lines above say why): {self._names_of_the_silent()}"]
        for each in self._addresses:
            more = "/metrics" if each.what == "metrics" else ""
            if each.what == "uploads":
                more = f"/scans/NAME   or into {self._inbox}"
            lines.append(f"  {each.what:<18} {each.url}{more}")
        return "\n".join([*lines, "Stop it with Ctrl-C: all of it ends."])

    def _names_of_the_silent(self) -> str:
        return ", ".join(each.what for each in self._addresses if each in self._silent)


def _answers(address: Address) -> bool:
    """Whether somebody answers by HTTP, whatever the answer is."""
    host = address.url.removeprefix("http://").rpartition(":")[0].strip("[]")
    client = http.client.HTTPConnection(host, address.port, timeout=ANSWER_S)
    try:
        client.request("GET", address.path)
        client.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        client.close()
    return True
