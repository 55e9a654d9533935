"""The record of a release: the folder `releases/<line>/` that is committed to git, and all that a release is.

    release.toml              what is said below
    manifest.json             what the stages compiled to
    requirements.lock         the dependencies
    geomagic_dagster-1.0.0-py3-none-any.whl
    environment-<platform>.json   the distributions that were installed there, each with its hashes
    history/1.0.0/            the same of the version whose place a hotfix took

A line is "1.0"; its versions are 1.0.0, 1.0.1, ... Belongs here: reading, writing and verifying that folder, and
names of releases. Does not belong here: how its files come about (cut.py), environments (environments.py).
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

SCHEMA = 1
RELEASE, MANIFEST, LOCK = "release.toml", "manifest.json", "requirements.lock"
HISTORY = "history"
NAME = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})(?:\.(0|[1-9][0-9]{0,5}))?")
HEADER = "# Written by `geomagic release cut`; nothing in a release is ever edited.\n"


class ReleaseError(Exception):
    """A release cannot be cut, installed or verified: `str()` has place, expected, received, what to do."""

    def __init__(self, place: object, *, expected: str, received: str, do: str) -> None:
        super().__init__(f"{place}: expected {expected}; got {received}. {do}")


@dataclass(frozen=True)
class Version:
    """1.0.2: the third version of the line 1.0."""

    major: int
    minor: int
    patch: int = 0

    @classmethod
    def parse(cls, name: str) -> Version:
        """Of "1.0" or "1.0.0". Raises: ReleaseError."""
        if not (match := NAME.fullmatch(name)):
            raise ReleaseError(
                f"release {name!r}",
                expected="a line like 1.0, or a version of it like 1.0.1",
                received="another name",
                do="Two or three numbers with dots between them.",
            )
        major, minor, patch = match.groups(default="0")
        return cls(int(major), int(minor), int(patch))

    @property
    def line(self) -> str:
        return f"{self.major}.{self.minor}"

    def __str__(self) -> str:
        return f"{self.line}.{self.patch}"


@dataclass(frozen=True)
class Change:
    """A commit that is new in a release."""

    commit: str
    authored_at: str
    subject: str


@dataclass(frozen=True)
class Pinned:
    """What one small made-up room became: the proof that a hotfix, or another machine, gives the same bytes."""

    seed: int
    frames: int
    platform: str
    artefacts: dict[str, str] = field(default_factory=dict)
    """Stage -> digest of its result, whatever its identity."""
    package: dict[str, str] = field(default_factory=dict)
    """File -> sha256."""


@dataclass(frozen=True)
class Release:
    """What release.toml says."""

    line: str
    version: str
    commit: str
    branch: str
    cut_by: str
    cut_at: str
    python: str
    """Version of Python that it was cut with; environments are made with the same 3.N."""
    built_with: str = ""
    previous: str = ""
    """Version that the changes are counted from; empty for the first release."""
    files: dict[str, str] = field(default_factory=dict)
    """File of the record -> sha256; environments of platforms that were added later are not among them."""
    pinned: Pinned | None = None
    changes: tuple[Change, ...] = ()

    @property
    def wheel(self) -> str:
        """Name of the wheel's file."""
        return next(name for name in self.files if name.endswith(".whl"))


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_release(release: Release, folder: Path) -> None:
    """Writes release.toml into the folder of a record."""
    import tomlkit

    content: dict[str, Any] = {"schema": SCHEMA, **asdict(release)}
    content["changes"] = [asdict(change) for change in release.changes]
    if release.pinned is None:
        del content["pinned"]
    (folder / RELEASE).write_text(HEADER + tomlkit.dumps(content), encoding="utf-8")


def read_release(folder: Path) -> Release:
    """What the record in a folder says of itself; its other files are not looked at. Raises: ReleaseError."""
    path = folder / RELEASE
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
        if said["schema"] > SCHEMA:
            raise ReleaseError(
                path,
                expected=f"schema {SCHEMA} or older",
                received=f"schema {said['schema']}",
                do="It was cut with newer code: read it with a newer checkout.",
            )
        pinned = said.get("pinned")
        known = {name: said[name] for name in Release.__dataclass_fields__ if name in said}
        known["pinned"] = pinned and Pinned(**{n: pinned[n] for n in Pinned.__dataclass_fields__ if n in pinned})
        known["changes"] = tuple(
            Change(each["commit"], each["authored_at"], each["subject"]) for each in said.get("changes", ())
        )
        release = Release(**known)
        if Version.parse(release.version).line != release.line:
            raise ValueError(f"version {release.version} of line {release.line}")
    except FileNotFoundError:
        raise ReleaseError(
            path, expected="the record of a release", received="no such file", do="See: geomagic release list."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError(
            path,
            expected="the record of a release, as it was cut",
            received=f"{type(error).__name__}: {error}",
            do="Restore it from git.",
        ) from error
    return release


def verify_record(folder: Path) -> Release:
    """The record, every file of which is as it was cut. Raises: ReleaseError naming the file that is not."""
    release = read_release(folder)
    missing = {MANIFEST, LOCK} - release.files.keys()
    if missing or not any(name.endswith(".whl") for name in release.files):
        raise ReleaseError(
            folder / RELEASE,
            expected=f"hashes of {MANIFEST}, {LOCK} and a wheel",
            received=", ".join(sorted(release.files)) or "none",
            do="Restore it from git.",
        )
    for name, expected in sorted(release.files.items()):
        path = folder / name
        received = sha256_of(path) if path.is_file() else None
        if received != expected:
            raise ReleaseError(
                path,
                expected=f"sha256 {expected[:12]}..., as release.toml says",
                received=f"sha256 {received[:12]}..." if received else "no such file",
                do="Nothing in a release is ever edited: restore it from git.",
            )
    return release


def with_hashes(release: Release, folder: Path) -> Release:
    """The release with the hashes of the files that lie in its folder now."""
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != RELEASE}
    return replace(release, files=files)


def record_folder(records: Path, name: str) -> Path:
    """The folder of a release in `releases/`, by its line or one of its versions, also a former one.

    Raises: ReleaseError where there is none.
    """
    version = Version.parse(name)
    folder = records / version.line
    is_line = name.count(".") == 1
    if (folder / RELEASE).is_file() and (is_line or read_release(folder).version == name):
        return folder
    if not is_line and (folder / HISTORY / name / RELEASE).is_file():
        return folder / HISTORY / name
    known = [str(each.version) for each in released(records)]
    raise ReleaseError(
        f"release {name}",
        expected=f"one that is recorded in {records}",
        received=f"none of this name; there are: {', '.join(known) or 'none'}",
        do="`geomagic release cut` makes one; on another machine, `git pull` brings it.",
    )


def released(records: Path) -> Iterator[Release]:
    """The release of every line, oldest line first. Raises: ReleaseError where one cannot be read."""
    folders = [folder for folder in records.glob("*") if NAME.fullmatch(folder.name) and (folder / RELEASE).is_file()]
    for folder in sorted(folders, key=lambda folder: tuple(map(int, folder.name.split(".")))):
        yield read_release(folder)
