"""What drill and story both need of the place where they start an installation.

Belongs here: free ports, whether a server answers, a folder as an upload. Does not belong here: what is done with them.
"""

from __future__ import annotations

import random
import socket
import urllib.request
import zipfile
from pathlib import Path

_given: set[int] = set()  # to servers that may not listen yet
_chance = random.Random()


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody listens on, each another one, also than those of earlier calls.

    Of those that the system hands to nobody by itself: one that it had handed out, and got back, may be that of some
    program's connection before the server that it was meant for listens there.
    """
    lowest, end = 11_000, _first_that_the_system_hands_out()
    found: list[int] = []
    for port in _chance.sample(range(lowest, end), end - lowest):
        if len(found) == number:
            return found
        if port not in _given and _is_free(port):
            _given.add(port)
            found.append(port)
    raise OSError(f"127.0.0.1: expected {number} free ports from {lowest} to {end - 1}; got {len(found)}. End servers.")


def _is_free(port: int) -> bool:
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            free.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _first_that_the_system_hands_out() -> int:
    usual = 32_768
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):  # not Linux
        return usual
    return first if first >= 20_000 else usual  # else hardly any is left


def answers(url: str) -> bool:
    """Whether somebody answers there, and without an error."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def zip_folder(folder: Path, path: Path) -> None:
    """Packs what lies in a folder, in the order of the names."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
