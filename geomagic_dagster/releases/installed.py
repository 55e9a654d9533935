"""Which release this environment holds: what `<sys.prefix>/geomagic-release/` says.

    release.toml     line, version, commit, ... as committed when the release was cut
    manifest.json    what its stages compiled to then

Belongs here: reading that folder. Does not belong here: writing it (installing a release does), what a manifest is and
whether the code is what it says (manifest.py). A checkout has no such folder: it is latest.
Everything imports this module, so it imports nothing heavy at its top.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = "geomagic-release"
LATEST = "latest"


class ReleaseBroken(Exception):
    """This environment is not the release that it says it is. `str()` has place, expected, received, what to do."""


@dataclass(frozen=True)
class InstalledRelease:
    """The release of this environment."""

    line: str
    """1.0: what locations, tags and asset keys are named by."""
    version: str
    """1.0.1"""
    commit: str
    folder: Path
    manifest_sha256: str | None
    """Of the file, as release.toml has it."""

    def manifest(self) -> dict[str, Any]:
        """What its stages compiled to when it was cut. Raises: ReleaseBroken where it cannot be read."""
        path = self.folder / "manifest.json"
        try:
            content = path.read_bytes()
            manifest = json.loads(content)
            if not isinstance(manifest, dict):
                raise ValueError(f"a {type(manifest).__name__}")
            if self.manifest_sha256 not in (None, hashlib.sha256(content).hexdigest()):
                raise ValueError("another one than its release.toml names")
        except (OSError, ValueError) as error:
            raise ReleaseBroken(
                f"{path}: expected the manifest of release {self.version}; got {error}. {made_anew(self.line)}"
            ) from error
        return manifest


def installed_release(prefix: Path | None = None) -> InstalledRelease | None:
    """The release that an environment holds, this one unless another is named; None for a checkout (latest).

    Raises: ReleaseBroken where its folder is there but cannot be read.
    """
    return _read(Path(prefix or sys.prefix) / FOLDER)


@cache
def _read(folder: Path) -> InstalledRelease | None:
    if not folder.is_dir():
        return None
    path = folder / "release.toml"
    try:
        said = tomllib.loads(path.read_text())
        manifest_sha256 = said.get("files", {}).get("manifest.json")
        return InstalledRelease(str(said["line"]), str(said["version"]), str(said["commit"]), folder, manifest_sha256)
    except (OSError, ValueError, KeyError) as error:
        missing = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ReleaseBroken(
            f"{path}: expected line, version and commit of the release; got {missing}. {made_anew('LINE')}"
        ) from error


def release_here(named: str | None) -> str:
    """The name of the release that this process is: its environment's, else `named` (GEOMAGIC_RELEASE), else latest.

    Raises: ReleaseBroken where the two say different things: then one location would answer for another.
    """
    installed = installed_release()
    if installed is None:
        return named or LATEST
    if named and named != installed.line:
        raise ReleaseBroken(
            f"GEOMAGIC_RELEASE: expected {installed.line}, which {installed.folder} says that this environment holds; "
            f"got {named}. Unset it, or start the release {named} from its own environment."
        )
    return installed.line


def made_by() -> dict[str, str]:
    """What the records of artefacts and packages say of who made them: release, and version and commit where known."""
    installed = installed_release()
    if installed is None:
        return {"release": LATEST}
    return {"release": installed.line, "version": installed.version, "commit": installed.commit}


def made_anew(line: str) -> str:
    """What to do about a release that is not what it should be."""
    return f"Nothing in a release is ever edited: `geomagic release install {line}` builds its environment anew."
