"""The corpus: the room scans that researchers measure their steps on.

Belongs here: what may come into the corpus, and how. Does not belong here: the partitions of Dagster (jobs/),
reading scans (scans/).

    <corpus>/<name>/       one scan in the project's own layout; other formats that can be read work, too
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from geomagic_dagster.cv.stage import ScanRejected

if TYPE_CHECKING:
    from geomagic_dagster.cv.types import Scan
    from geomagic_dagster.scans.made_up import ScanOptions

NAME = re.compile(r"[^\W.][^/\\\x00-\x1f]{0,99}")
"""A plain folder name, which is a partition key at the same time."""


def names(corpus: Path) -> tuple[str, ...]:
    """Names of the scans in the corpus, sorted. Hidden names and those that are no partition key are passed over."""
    if not corpus.is_dir():
        return ()
    with os.scandir(corpus) as entries:
        return tuple(sorted(each.name for each in entries if each.is_dir() and _is_name(each.name)))


def add(path: Path, corpus: Path, *, name: str | None = None, consent: Literal["research"] | None = None) -> Path:
    """Copies a scan of any known format into the corpus, in the project's own layout.

    Args:
        consent: "research" when the person who scanned agreed to it in another way than in the scan itself.
    Raises: ScanRejected for a scan that the checks find wrong, and for one whose person did not agree to research.
    """
    from geomagic_dagster.scans.check import check_path, raise_errors
    from geomagic_dagster.scans.reader import read_scan

    raise_errors(check_path(path))
    scan = read_scan(path, name)
    if consent is not None:
        scan = replace(scan, consent=consent)
    if scan.consent != "research":
        raise ScanRejected(
            scan.name,
            expected="the consent of the person who scanned to research",
            received=f'"{scan.consent}"',
            do='Ask for it; where it was given outside of the scan, say so with consent="research".',
        )
    return _write(scan, corpus)


def add_made_up(seed: int, corpus: Path, options: ScanOptions | None = None) -> Path:
    """Adds the made-up room of a seed as `made_up_<seed>`, walked through with a good phone unless said otherwise."""
    from geomagic_dagster.scans.made_up import PHONE, make_room, scan_room

    scan = scan_room(make_room(seed), options or PHONE).scan
    return _write(replace(scan, name=f"made_up_{seed}", consent="research"), corpus)


def _write(scan: Scan, corpus: Path) -> Path:
    from geomagic_dagster.scans.formats import canonical

    place = corpus / scan.name
    if not _is_name(scan.name):
        raise ScanRejected(
            scan.name,
            expected="a name of letters, digits, spaces, - and _ that begins with a letter or digit",
            received=repr(scan.name),
            do="Give it another name.",
        )
    if place.exists():
        raise ScanRejected(
            scan.name,
            expected="a name that is free in the corpus",
            received=f"one that is taken ({place})",
            do="Give it another name, or remove the one that is there.",
        )
    canonical.write(scan, place)
    return place


def _is_name(name: str) -> bool:
    return bool(NAME.fullmatch(name)) and "..." not in name
