"""Files on a local disk that appear whole or not at all, whoever reads or is killed meanwhile.

Belongs here: one file written beside its place and moved into it. Does not belong here: folders of files (each has
its own order of steps: jobs/publishing.py, resources/artefact_files.py), stores elsewhere (resources/store.py).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path

PARTIAL = ".partial"
"""How the names of files end that are being written, and of those that a killed process left."""


def create_whole(path: Path, content: bytes) -> None:
    """Creates a file, only where there is none. Raises: FileExistsError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _write_beside(path, content)
    try:
        os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def replace_whole(path: Path, content: bytes | Iterable[bytes], mode: int | None = None) -> None:
    """Writes a file; whoever reads it sees the old or the new one, also after a power cut.

    Content that comes in parts may raise in the middle: then there is no new file. `mode`: rights of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _write_beside(path, content, mode)
    try:
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Returns when the names in a folder are on its disk (of a file: its bytes)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_whole(path: Path) -> None:
    """Returns when a file, or a folder with all that is in it, is on its disk; what waits for other disks may wait."""
    names = [path]
    if path.is_dir():
        names = [Path(folder, name) for folder, _, files in os.walk(path) for name in (*files, "")]
    for each in names:
        if not each.is_symlink():
            sync_folder(each)


def _write_beside(path: Path, content: bytes | Iterable[bytes], mode: int | None = None) -> Path:
    beside = path.with_name(f".{uuid.uuid4().hex}{PARTIAL}")
    try:
        with open(beside, "xb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return beside
