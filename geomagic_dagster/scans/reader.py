"""Finds out what an upload is, and reads it.

Belongs here: asking the formats. Does not belong here: any one format (formats/), judging a scan (check.py).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Scan
from geomagic_dagster.scans import formats
from geomagic_dagster.scans.files import ScanFiles
from geomagic_dagster.scans.formats import Reading, shortened


class Format(Protocol):
    """What a module of formats/ offers; see there."""

    NAME: str
    LOOKS_LIKE: str
    NAMES_ITSELF: bool
    recognises: Callable[[ScanFiles], bool]
    read: Callable[[ScanFiles], Reading]


def known_formats() -> tuple[Format, ...]:
    """Every format there is, by name. A file in formats/ is registered by being there."""
    found = sorted(module.name for module in pkgutil.iter_modules(formats.__path__))
    return tuple(cast(Format, importlib.import_module(f"{formats.__name__}.{name}")) for name in found)


def read_scan(path: Path | str, name: str | None = None) -> Scan:
    """A scan from a folder, zip or tar of any known format, under its own name or a given one.

    Reads text files and directory entries; images stay where they are until somebody asks for one.
    Raises: ScanRejected.
    """
    return read_all(path, name).scan


def read_all(path: Path | str, name: str | None = None) -> Reading:
    """The same, with what the reader left out or assumed."""
    files = ScanFiles(Path(path))
    reading = format_of(files).read(files)
    return reading if name is None else replace(reading, scan=replace(reading.scan, name=name))


def format_of(files: ScanFiles) -> Format:
    """The one format that recognises an upload; one that names itself in the upload goes before the others.

    Raises: ScanRejected when there is none, or when nobody can tell which of several it is.
    """
    known = known_formats()
    fitting = [each for each in known if each.recognises(files)]
    fitting = [each for each in fitting if each.NAMES_ITSELF] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ScanRejected(
            files.path.name,
            expected="a scan of one format",
            received="one that looks like several: "
            + "; ".join(f"{each.NAME} ({each.LOOKS_LIKE})" for each in fitting),
            do="Upload the files of one of them only.",
        )
    raise ScanRejected(
        files.path.name,
        expected="a room scan",
        received=f"a {files.kind} of no known format, {len(files.names())} in all: {shortened(files.names())}",
        do="Known are " + "; ".join(f"{each.NAME}: {each.LOOKS_LIKE}" for each in known) + ".",
    )
