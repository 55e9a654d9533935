"""What releases/<line>/release.toml says, as the registry needs it.

Belongs here: reading one record. Does not belong here: writing it (cutting a release does).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class RecordBroken(ValueError):
    """A release.toml that cannot be read; the words say where and what to do."""


@dataclass(frozen=True)
class Commit:
    commit: str
    at: datetime
    author: str
    title: str


@dataclass(frozen=True)
class Record:
    line: str
    version: str
    commit: str
    branch: str
    who: str
    when: datetime
    python: str
    manifest_sha256: str
    lock_sha256: str
    commits: tuple[Commit, ...]


def read_record(path: Path) -> Record:
    """Raises: RecordBroken."""
    try:
        said = tomllib.loads(path.read_text())
        files = said.get("files") or said.get("hashes") or {}
        return Record(
            line=str(said["line"]),
            version=str(said["version"]),
            commit=str(said["commit"]),
            branch=str(said.get("branch", "")),
            who=str(said["who"]),
            when=_time(said["when"]),
            python=str(said.get("python", "")),
            manifest_sha256=str(files.get("manifest.json", "")),
            lock_sha256=str(files.get("requirements.lock", "")),
            commits=tuple(_commit(each) for each in said.get("commits", [])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        missing = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise RecordBroken(
            f"{path}: expected the record of a release; got {missing}. Restore it from git: a record is never edited."
        ) from error


def _commit(said: dict[str, Any]) -> Commit:
    return Commit(str(said["commit"]), _time(said["when"]), str(said.get("who", "")), str(said.get("title", "")))


def _time(said: Any) -> datetime:
    time = said if isinstance(said, datetime) else datetime.fromisoformat(str(said).replace("Z", "+00:00"))
    return time if time.tzinfo else time.replace(tzinfo=UTC)
