"""Processes as Linux tells of them: which one a pid is, whether it lives, its threads, its descendants.

Belongs here: questions to /proc and prctl, and nothing that knows of Dagster. Elsewhere than on Linux there is
neither: `is_supported` says so, and whoever asks falls back in words.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

is_supported = sys.platform == "linux"

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Process:
    """One process for good: a pid alone is used again by another one later."""

    pid: int
    started: int
    """Clock ticks from the start of the machine to that of the process."""
    boot: str
    """Which start of the machine."""

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this pid now. Raises: ProcessLookupError where there is none."""
        return cls(pid, int(_stat(pid)[19]), boot_id())

    def is_alive(self) -> bool:
        """Whether it is still there; one that ended, and that nobody has waited for yet, is not."""
        try:
            fields = _stat(self.pid)
        except ProcessLookupError:
            return False
        return self.boot == boot_id() and self.started == int(fields[19]) and fields[0] not in "ZX"

    def dumps(self) -> str:
        return f"pid={self.pid} started={self.started} boot={self.boot}"

    @classmethod
    def loads(cls, text: str) -> Process:
        said = dict(part.split("=", 1) for part in text.split())
        return cls(int(said["pid"]), int(said["started"]), said["boot"])


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def threads() -> tuple[str, ...]:
    """Names of this process's threads beside the main one, those of native libraries included."""
    names = []
    for task in os.listdir("/proc/self/task"):
        if int(task) != os.getpid():
            with contextlib.suppress(OSError):  # it ended meanwhile
                names.append(Path(f"/proc/self/task/{task}/comm").read_text().strip())
    return tuple(sorted(names))


def descendants(pid: int) -> Iterator[int]:
    """Children, their children, ...; as far as they can be seen at this moment."""
    parents: dict[int, list[int]] = {}
    for each, fields in _everybody():
        parents.setdefault(int(fields[1]), []).append(each)
    waiting = parents.get(pid, [])[:]
    while waiting:
        child = waiting.pop()
        yield child
        waiting += parents.get(child, [])


def sessions_in_group(group: int) -> Iterator[int]:
    """The session of each process of a group, as far as they can be seen at this moment."""
    yield from (int(fields[3]) for _, fields in _everybody() if int(fields[2]) == group)


def in_session(session: int) -> Iterator[int]:
    """The processes of a session."""
    yield from (pid for pid, fields in _everybody() if int(fields[3]) == session)


def end_session(leader: int) -> None:
    """Kills what a process left behind that led a session of its own, also what is in other groups by now.

    Nobody else may have waited for the leader: its number would be another's.
    """
    for pid in in_session(leader):
        if pid != leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def parent_of(pid: int) -> int:
    """Raises: ProcessLookupError where there is no such process."""
    return int(_stat(pid)[1])


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Lets the kernel send this process a signal when its parent ends, however that ends."""
    _prctl(PR_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Makes this process the parent of whatever its descendants leave behind, so that it can end them."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, argument: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _everybody() -> Iterator[tuple[int, list[str]]]:
    """Every process of this machine, and what /proc says of it."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(ProcessLookupError):
                yield int(name), _stat(int(name))


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; the name before it may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError as error:
        raise ProcessLookupError(f"no process {pid}") from error
