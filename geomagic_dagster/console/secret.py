"""The console's secret key: made once, kept beside its database.

Belongs here: making and reading it. Does not belong here: what is signed with it (Django's sessions).
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

BYTES = 48


def secret_key(path: Path) -> str:
    """The key in the file, which only its owner can read; made where there is none. Two that start at once agree."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    if not path.exists():
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(BYTES))
        with suppress(FileExistsError):  # somebody was quicker: theirs it is
            os.link(beside, path)
        beside.unlink()
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise PermissionError(f"{path}: expected to be readable by its owner alone; got mode {mode:o}. chmod 600 it.")
    key = path.read_text().strip()
    if len(key) < BYTES:
        raise ValueError(
            f"{path}: expected a key of at least {BYTES} characters; got {len(key)}. "
            "Remove the file: a new one is made, and everybody logs in again."
        )
    return key
