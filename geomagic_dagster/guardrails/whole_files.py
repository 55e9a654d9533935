"""Files on a local disk that appear whole or not at all, whoever reads or is killed meanwhile.

Belongs here: one file written beside its place and moved into it. Does not belong here: folders of files (each has
its own order of steps: jobs/publishing.py, resources/artefact_files.py), stores elsewhere (resources/store.py).
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def create_whole(path: Path, content: bytes) -> None:
    """Creates a file, only where there is none. Raises: FileExistsError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _write_beside(path, content)
    try:
        os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def replace_whole(path: Path, content: bytes) -> None:
    """Writes a file; whoever reads it sees the old or the new one, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _write_beside(path, content)
    try:
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_beside(path: Path, content: bytes) -> Path:
    beside = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with open(beside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return beside
