"""Packages that an operator took back from everybody: out of the published ones, into quarantine.

Belongs here: moving them, and which uploads they are of. Does not belong here: who may do it and when (console/scans),
putting packages where people find them (publishing.py).

    <quarantine>/.packages/<name>/            the files, as they were published
    <quarantine>/.packages/<name>.run.json    which run of which upload made them; its original keeps the name taken
"""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from geomagic_dagster.guardrails.whole_files import replace_whole
from geomagic_dagster.jobs.publishing import run_record

FOLDER = ".packages"


def folder_in(quarantine: Path) -> Path:
    """Where they lie."""
    return quarantine / FOLDER


def withdraw(packages: Path, quarantine: Path, name: str) -> None:
    """Nobody finds this package among the published ones any more. May be repeated; in place of an earlier one."""
    source, place = packages / name, folder_in(quarantine) / name
    if not source.is_dir():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):  # the record first: from then on the store's copies are refused as well
        replace_whole(run_record(place.parent, name), run_record(packages, name).read_bytes())
    beside, old = (place.with_name(f".{uuid.uuid4().hex}.{kind}") for kind in ("partial", "old"))
    try:
        shutil.move(source, beside)  # also to another disk
        if place.exists():
            place.rename(old)
        beside.rename(place)
    finally:
        shutil.rmtree(old, ignore_errors=True)


def forget(quarantine: Path, name: str) -> None:
    """Removes a package that was withdrawn: another one was published since, or its time is over."""
    place = folder_in(quarantine) / name
    shutil.rmtree(place, ignore_errors=True)
    run_record(place.parent, name).unlink(missing_ok=True)


def uploads(quarantine: Path) -> frozenset[str]:
    """Digests of the uploads whose packages were withdrawn: whatever else was made of them is refused, too."""
    found = set()
    for record in folder_in(quarantine).glob("*.run.json"):
        with suppress(FileNotFoundError):  # forgotten meanwhile
            found.add(str(json.loads(record.read_bytes())["upload_sha256"]))
    return frozenset(found)
