"""The uploaded scan as an artefact: the one that no stage makes.

Belongs here: reading, checking and naming an upload so that it is the same artefact whether it came by
the inbox or lies in the corpus. Does not belong here: formats and checks (scans/), moving uploads (jobs/).
"""

from __future__ import annotations

import hashlib
import json
import logging
from functools import cache
from pathlib import Path
from typing import Any

from geomagic_dagster import scans
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
    folder = Path(scans.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if not name.startswith("made_up"):
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{VERSION}-{digest.hexdigest()[:12]}"


def scan_identity(name: str, upload_sha256: str) -> str:
    """Names a scan by what was uploaded, what it is called, and the code that reads it."""
    record = {
        "stage": SOURCE,
        "code_version": scan_code_version(),
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
