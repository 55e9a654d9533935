"""The packages of a folder, read as they are on disk.

Belongs here: which names and files of a folder count, so that nothing outside of it is ever read. Does not belong
here: what a package means (page.py), artefacts of the store (resources/shelf.py).
"""

from __future__ import annotations

import re
from pathlib import Path

from geomagic_dagster.cv.containers import Files
from geomagic_dagster.cv.stage import ScanRejected

HALF_WRITTEN = re.compile(r"\.[0-9a-f]{32}\.(partial|old)")
"""What a package is called while it is published."""


OF_A_PACKAGE = ("room.glb", "room.json", "manifest.json")
"""A folder with none of these is no package."""


def package_files(folder: Path) -> Files:
    """The plain files of a folder, each read when asked for; links are left out, wherever they lead.

    Raises: OSError where there is no such folder, or it cannot be read.
    """
    return Files({path.name: path.read_bytes for path in folder.iterdir() if path.is_file() and not path.is_symlink()})


def package_at(folder: Path) -> Files:
    """The files of the package in a folder.

    Raises: ScanRejected where it is none; OSError where it cannot be read.
    """
    files = package_files(folder)
    if not any(name in files for name in OF_A_PACKAGE):
        raise ScanRejected(
            str(folder),
            expected=f"a package: a folder with {' or '.join(OF_A_PACKAGE)}",
            received=f"a folder with {', '.join(list(files)[:5]) or 'no files'}",
            do="Name the folder that `geomagic run` printed, or make a package of the scan with it first.",
        )
    return files


class PackageFolder:
    """The published packages: a folder with one folder each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """The newest first."""
        if not self._folder.is_dir():
            return []
        folders = [path for path in self._folder.iterdir() if self._is_package(path)]
        return [path.name for path in sorted(folders, key=lambda path: (-path.stat().st_mtime, path.name))]

    def files(self, name: str) -> Files | None:
        """The files of a package; None where there is none of this name."""
        if Path(name).name != name or name in ("", ".", "..") or "\0" in name:
            return None
        folder = self._folder / name
        return package_files(folder) if self._is_package(folder) else None

    @staticmethod
    def _is_package(path: Path) -> bool:
        return path.is_dir() and not path.is_symlink() and not HALF_WRITTEN.fullmatch(path.name)
