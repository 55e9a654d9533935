"""The uploaded scan as an artefact: the one that no stage makes.

Belongs here: reading, checking and naming an upload so that it is the same artefact whether it came by
the inbox or lies in the corpus. Does not belong here: formats and checks (scans/), moving uploads (jobs/).
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from geomagic_dagster import scans
from geomagic_dagster.cv.code import OURS, versions_of
from geomagic_dagster.cv.stage import SOURCE
from geomagic_dagster.cv.types import Scan
from geomagic_dagster.guardrails.execution import Outcome, measured
from geomagic_dagster.releases.installed import made_by
from geomagic_dagster.resources.reuse import Made, reusable
from geomagic_dagster.resources.store import Artefact, ArtefactStore

VERSION = "1"


@cache
def scan_code_version() -> str:
    """A digest of the code that reads and checks scans; the made-up room is not part of it."""
    digest = hashlib.sha256()
    for name, source in _sources():
        digest.update(name.encode() + b"\0" + source + b"\0")
    return f"{VERSION}-{digest.hexdigest()[:12]}"


@cache
def scan_libraries() -> dict[str, str]:
    """Versions of the libraries that this code imports: another OpenCV may decode a video to other frames.

    Lines that begin with `import` or `from` are looked for: parsing it all takes 0.1 s, and a customer waits.
    """
    imports = (re.findall(rb"^[ \t]*(?:import|from)[ \t]+(\w+)", source, re.MULTILINE) for _, source in _sources())
    modules = {each.decode() for found in imports for each in found}
    return versions_of(modules - sys.stdlib_module_names - {OURS})


def _sources() -> Iterator[tuple[str, bytes]]:
    folder = Path(scans.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if not name.startswith("made_up"):
            yield name, path.read_bytes()


def scan_identity(name: str, upload_sha256: str) -> str:
    """Names a scan by what was uploaded, what it is called, and the code and libraries that read it."""
    record = {
        "stage": SOURCE,
        "code_version": scan_code_version(),
        "libraries": scan_libraries(),
        "settings": {"name": name},
        "inputs": {"upload": upload_sha256},
    }
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:32]


def read_upload(
    path: Path, name: str | None, store: ArtefactStore, log: logging.Logger, *, recompute: bool = False
) -> Made:
    """Reads and checks a scan of any known format; a scan that is in the store already is not read again.

    The name is that of the folder or archive, unless one is given. Raises: ScanRejected with what is wrong.
    """
    from geomagic_dagster.scans.files import ScanFiles

    files = ScanFiles(path)
    name = name or files.stem
    upload_sha256 = files.digest()
    identity = scan_identity(name, upload_sha256)
    if not recompute and (there := reusable(SOURCE, identity, store, log)):
        return Made(there, None)
    scan, seconds, peak_memory_mb = measured(lambda: _checked(path, name, log))
    numbers = {
        "frames": float(len(scan.recording)),
        "walk_s": float(scan.recording.timestamp_s_b[-1] - scan.recording.timestamp_s_b[0]),
    }
    artefact = Artefact(
        stage=SOURCE,
        identity=identity,
        get=lambda: scan,
        code_version=scan_code_version(),
        settings={"name": name},
        inputs={"upload": upload_sha256},
        numbers=numbers,
        libraries=scan_libraries(),
        made_by=made_by(),
    )
    return Made(artefact, Outcome(scan, numbers, seconds, peak_memory_mb, ()))


def _checked(path: Path, name: str, log: logging.Logger) -> Scan:
    from geomagic_dagster.scans.check import check_path, raise_errors
    from geomagic_dagster.scans.reader import read_scan

    report = check_path(path)
    raise_errors(report)
    for finding in report.findings:
        log.warning(f"{finding.place}: expected {finding.expected}; got {finding.received}. {finding.do}")
    return read_scan(path, name)


def picture_of(scan: Scan) -> Any | None:
    """The middle frame, (h, w, 3) uint8; None for a scan without colour."""
    has_colour = scan.recording.rgb is not None and scan.recording.K_rgb_b33 is not None
    return scan.recording.rgb_hw3(len(scan.recording) // 2) if has_colour else None
