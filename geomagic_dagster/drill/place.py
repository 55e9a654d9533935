"""What drill and story both need of the place where they start an installation.

Belongs here: free ports, whether a server answers, a folder as an upload. Does not belong here: what is done with them.
"""

from __future__ import annotations

import socket
import urllib.request
import zipfile
from pathlib import Path


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody listens on, each another one."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


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
