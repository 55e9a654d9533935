"""Whether an environment is still what was installed: every file of every distribution, and nothing beside them.

Belongs here: reading an environment's files. Does not belong here: changing any.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

OF_THE_INSTALLER = ("/INSTALLER", "/RECORD", "/REQUESTED", "/direct_url.json")
"""In a distribution's folder: how it was installed, not what."""
COMMAND = re.compile(r"(\.\./)+bin/")
"""Commands name the interpreter, and with it the folder of their environment."""
SHOWN = 5


def site_packages(environment: Path) -> Path:
    return next(iter(sorted(environment.glob("lib/python3*/site-packages"))))


def files_sha256(environment: Path, name: str) -> str:
    """Digest of the list of a distribution's files with their hashes; commands, which name their folder, left out."""
    rows = sorted(_rows(_info(site_packages(environment), name)))
    return hashlib.sha256("".join(f"{path},{digest}\n" for path, digest in rows).encode()).hexdigest()


def differences(environment: Path, expected: Mapping[str, str], own: str = "") -> list[str]:
    """What in an environment is not as recorded, in words; looks at the bytes of every file.

    Args:
        expected: distribution -> digest as of `files_sha256`.
        own: one more distribution that may be there, the release's own.
    """
    packages = site_packages(environment)
    found: list[str] = []
    there = {normal(path.name.split("-")[0]): path for path in packages.glob("*.dist-info")}
    for name in sorted(expected.keys() - there.keys()):
        found.append(f"{name} is missing")
    for name in sorted(there.keys() - expected.keys() - {own}):
        found.append(f"{name} was added")
    claimed = set()
    for name, info in sorted(there.items()):
        if name in expected and files_sha256(environment, name) != expected[name]:
            found.append(f"{name} has other files than recorded")
        for path, digest in _rows(info):
            claimed.add(path.partition("/")[0])
            file = packages / path
            if not file.is_file():
                found.append(f"{name}: {path} is missing")
            elif digest_of(file) != digest:
                found.append(f"{name}: {path} was changed")
    top = {path.name for path in packages.iterdir()} - {"__pycache__", *(info.name for info in there.values())}
    for name in sorted(top - claimed):
        found.append(f"{name} belongs to no library")
    more = len(found) - SHOWN
    return found if more <= 0 else [*found[:SHOWN], f"and {more} more"]


def list_of(wheel: Path) -> tuple[str, list[tuple[str, str, str]]]:
    """(name of the folder where it will say what it is, its (path, hash, size) of every file)."""
    with zipfile.ZipFile(wheel) as archive:
        record = next(each for each in archive.namelist() if each.endswith(".dist-info/RECORD"))
        rows = csv.reader(archive.read(record).decode().splitlines())
        return record.partition("/")[0], [(path, digest, size) for path, digest, size, *_ in rows]


def wheel_differs(environment: Path, name: str, wheel: Path) -> bool:
    """Whether the files of a distribution are not those of its wheel."""
    packed = {path: digest.removeprefix("sha256=") for path, digest, _ in list_of(wheel)[1] if digest}
    return dict(_rows(_info(site_packages(environment), name))) != packed


def _info(packages: Path, name: str) -> Path:
    return next(path for path in packages.glob("*.dist-info") if normal(path.name.split("-")[0]) == name)


def _rows(info: Path) -> Iterator[tuple[str, str]]:
    """(path, hash) of the files that a distribution put there."""
    with open(info / "RECORD", newline="", encoding="utf-8") as file:
        for path, digest, *_ in csv.reader(file):
            is_of_installer = path.startswith(f"{info.name}/") and path.endswith(OF_THE_INSTALLER)
            if digest and not is_of_installer and not COMMAND.match(path):
                yield path, digest.removeprefix("sha256=")


def digest_of(path: Path) -> str:
    """As it stands in lists of files."""
    with open(path, "rb") as file:
        return base64.urlsafe_b64encode(hashlib.file_digest(file, "sha256").digest()).rstrip(b"=").decode()


def normal(name: str) -> str:
    """The one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()
