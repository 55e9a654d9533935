"""Libraries that another environment on this disk has already: linked from there, instead of unpacked once more.

A wheel says the hash of each of its files. Only a file with that very hash is linked, read from its first byte to its
last; whatever became of the other environment since it was made, nothing of that comes along. What an installer adds
to a wheel's files is written anew: the list of the files, and the commands, which name their interpreter.

Belongs here: which wheels other environments were made with, and taking their files. Does not belong here: unpacking
a wheel (wheels.py asks pip for it), the order of an installation (environments.py).
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path

from geomagic_dagster.releases import checking, sharing
from geomagic_dagster.releases.wheels import Wheel

PINNED = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+)")
COMMAND = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import sys
from {module} import {first}
sys.exit({attribute}())
"""
"""As installers write it where the path of an interpreter is too long for a first line, or has blanks."""


def chosen(lock: str, known: Iterable[Mapping[str, Wheel]]) -> dict[str, Wheel]:
    """Of a lock, the wheels that other environments of this platform were made with, where those agree.

    Args:
        known: distribution -> wheel, of each of these environments.
    Returns: nothing where the lock holds anything but `name==version`, which pip understands better.
    """
    lines = [line for each in lock.splitlines() if (line := each.partition("#")[0].strip())]
    pinned = [match.groups() for line in lines if (match := PINNED.fullmatch(line))]
    if len(pinned) < len(lines):
        return {}
    known, found = list(known), {}
    for name, version in ((checking.normal(name), version) for name, version in pinned):
        given = {each[name] for each in known if name in each}
        fitting = {wheel for wheel in given if version in (wheel.version, wheel.version.partition("+")[0])}
        if len(fitting) == 1:
            found[name] = fitting.pop()
    return found


def take(wheel: Path, environment: Path, others: Sequence[Path]) -> bool:
    """Installs a wheel with files of other environments; False, and nothing is there, where they have not all of it."""
    info, rows = checking.list_of(wheel)
    packages = checking.site_packages(environment)
    inside = packages.relative_to(environment)
    there = [other / inside for other in others if (other / inside / info).is_dir() and _is_one_disk(other, packages)]
    sources = []
    for path, digest, _ in rows:
        if path == f"{info}/RECORD":
            continue
        if ".data/" in path or ".." in Path(path).parts or not digest.startswith("sha256="):
            return False  # to be put elsewhere, or something special: pip knows
        source = next((each / path for each in there if _has(each / path, digest)), None)
        if source is None:
            return False
        sources.append((source, packages / path))
    try:
        for source, path in sources:
            path.parent.mkdir(parents=True, exist_ok=True)
            sharing.link(source, path)
    except FileNotFoundError:  # another one is just removed
        for _, path in sources:
            path.unlink(missing_ok=True)
        shutil.rmtree(packages / info, ignore_errors=True)
        return False
    written = [packages / info / "INSTALLER", *_commands(packages / info, environment)]
    written[0].write_text("geomagic\n")
    own = ((_from(path, packages), f"sha256={checking.digest_of(path)}", path.stat().st_size) for path in written)
    with open(packages / info / "RECORD", "w", newline="", encoding="utf-8") as file:  # with it, it is installed
        csv.writer(file).writerows(sorted([*map(tuple, rows), *own]))
    return True


def _has(path: Path, digest: str) -> bool:
    return path.is_file() and f"sha256={checking.digest_of(path)}" == digest


def _is_one_disk(other: Path, packages: Path) -> bool:
    return other.stat().st_dev == packages.stat().st_dev


def _commands(info: Path, environment: Path) -> list[Path]:
    """Writes what a distribution wants to be called by."""
    python, written = environment / "bin" / "python", []
    for entry in Distribution.at(info).entry_points:
        if entry.group in ("console_scripts", "gui_scripts"):
            path = environment / "bin" / entry.name
            first = entry.attr.partition(".")[0]
            path.write_text(COMMAND.format(python=python, module=entry.module, first=first, attribute=entry.attr))
            path.chmod(0o755)
            written.append(path)
    return written


def _from(path: Path, packages: Path) -> str:
    return Path(os.path.relpath(path, packages)).as_posix()
