"""A lock that the kernel lets go of when its holder ends, however it ends.

Belongs here: one lock file, held by one process at a time. Does not belong here: names in the inbox, whose lock files
come and go (jobs/inbox.py).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds the lock file at `path`; waits while another process, or another thread, holds it.

    Raises: BlockingIOError where it is not to wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)
