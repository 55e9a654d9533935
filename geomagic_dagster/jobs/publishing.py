"""Puts finished packages where people find them.

Belongs here: writing a package's folder beside its place and moving it there whole. Does not belong here:
what is in a package (cv/package.py), Dagster.

    <packages>/<scan name>/             the files of the package
    <packages>/<scan name>.run.json     which run of which release made it, of which upload, and how
                                        the upload came to that release; outside of the package, whose bytes
                                        are the same whoever makes it
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from geomagic_dagster.cv.containers import Files
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.guardrails.locks import held
from geomagic_dagster.guardrails.whole_files import replace_whole
from geomagic_dagster.releases.installed import made_by
from geomagic_dagster.resources.store import Artefact

SCHEMA = 1
LOCK = ".publishing.lock"


def publish_package(
    package: Artefact,
    scan: Artefact,
    packages: Path,
    *,
    run_id: str,
    release: str,
    route: Mapping[str, str] | None = None,
) -> Path:
    """Writes the files of a package; returns their folder.

    The same upload published again takes the place of the first; another upload of the same name gets its
    own folder, "<name>-<beginning of its digest>". `route` is how the upload came to this release (tags of its run).
    """
    name, upload_sha256 = scan.settings["name"], scan.inputs["upload"]
    if Path(name).name != name or name in ("", ".", ".."):
        raise ScanRejected(
            "name of the scan", expected="a plain name", received=repr(name), do="Give the upload another name."
        )
    record = {
        "schema": SCHEMA,
        "run_id": run_id,
        **made_by(),
        "release": release,
        "route": dict(route or {}),
        "upload_sha256": upload_sha256,
        "scan": scan.identity,
        "package": package.identity,
    }
    with held(packages / LOCK):  # room.zip and room.tar at the same moment: each must see the other's name
        if _upload_published_as(packages, name) not in (None, upload_sha256):
            name = f"{name}-{upload_sha256[:8]}"
        replace_whole(run_record(packages, name), json.dumps(record, indent=1).encode())
        _place(package.value.files, packages / name)
    return packages / name


def run_record(packages: Path, name: str) -> Path:
    """Where it is written what made a package."""
    return packages / f"{name}.run.json"


def _upload_published_as(packages: Path, name: str) -> str | None:
    try:
        return json.loads(run_record(packages, name).read_bytes())["upload_sha256"]
    except FileNotFoundError:
        return None


def _place(files: Files, folder: Path) -> None:
    if folder.is_dir() and {path.name: path.read_bytes() for path in folder.iterdir()} == dict(files):
        return
    partial, old = (folder.with_name(f".{uuid.uuid4().hex}.{kind}") for kind in ("partial", "old"))
    try:
        partial.mkdir()
        for name in files:
            replace_whole(partial / name, files[name])
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    except BaseException:  # told to end (SIGTERM) between the two: what was there is there again
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
