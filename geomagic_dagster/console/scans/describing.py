"""What is told about a scan to whoever sent it: the JSON of the API, of webhooks, and what the status page shows.

Belongs here: that description. Does not belong here: HTTP, who may see it.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.core import signing

from geomagic_dagster.console import roles
from geomagic_dagster.console.scans import uploads
from geomagic_dagster.console.scans.dagster_link import instance
from geomagic_dagster.console.scans.models import ON_ITS_WAY, Scan, State
from geomagic_dagster.console.scans.progress import progress_of
from geomagic_dagster.jobs import withdrawn
from geomagic_dagster.viewer.folders import HALF_WRITTEN

LINK_SALT = "geomagic.scan"
LINK_DAYS = 30
SENTENCES = {
    State.RECEIVING: "The scan is being received.",
    State.RECEIVED: "The scan is here and is about to be processed.",
    State.QUEUED: "The scan waits for its turn.",
    State.RUNNING: "The scan is being processed.",
    State.DONE: "The room is ready.",
    State.REJECTED: "This scan cannot be used.",
    State.FAILED: "Something went wrong on our side. A person will look at it.",
    State.CANCELLED: "The scan was cancelled.",
    State.EXPIRED: "The upload was not finished in time.",
}


def described(scan: Scan) -> dict[str, Any]:
    """Everything that its sender may know; nothing of the inside of the platform."""
    path = f"/api/scans/{scan.pk}"
    said: dict[str, Any] = {
        "id": str(scan.pk),
        "name": scan.name,
        "state": "cancelling" if scan.is_cancelling and not scan.is_over else str(scan.state),
        "message": SENTENCES[State(scan.state)],
        "reason": _reason(scan),
        "bytes_received": uploads.received(scan),
        "bytes_total": scan.bytes_total,
        "created_at": scan.created_at.isoformat(),
        "finished_at": scan.finished_at.isoformat() if scan.finished_at else None,
        "reopened_at": scan.reopened_at.isoformat() if scan.reopened_at else None,
        "expires_at": scan.expires_at.isoformat() if scan.expires_at and scan.state == State.RECEIVING else None,
        "progress": None,
        "files": [],
        "release": scan.version or scan.release,
        "url": path,
        "status_page": f"/s/{link_key(scan)}",
    }
    if scan.state == State.RUNNING and (progress := progress_of(instance(), scan.run_id)):
        said["progress"] = {name: value for name, value in asdict(progress).items() if name != "said"}
        said["message"] = f"Step {min(progress.done + 1, progress.stages)} of {progress.stages}" + (
            f": {progress.stage.replace('_', ' ')}" if progress.stage else ""
        )
    if scan.state == State.DONE:
        said["files"] = [
            {"name": each.name, "bytes": each.stat().st_size, "url": f"{path}/files/{quote(each.name)}"}
            for each in package_files(scan)
        ]
    return said


def _reason(scan: Scan) -> str:
    """Why it is what it is, as far as that is its sender's matter: what stands behind a colon while it waits tells of
    the inside of the platform."""
    if scan.state == State.FAILED:
        return ""
    if scan.state in ON_ITS_WAY and ": " in scan.reason:
        return scan.reason.partition(": ")[0] + "."
    return scan.reason


def package_folder(scan: Scan) -> Path | None:
    """The folder of a scan's package; None where it has none."""
    if not scan.package or Path(scan.package).name != scan.package or HALF_WRITTEN.fullmatch(scan.package):
        return None
    places = settings.PLACES
    packages = Path(places.packages) if scan.quarantined_at is None else withdrawn.folder_in(Path(places.quarantine))
    folder = packages / scan.package
    return folder if folder.is_dir() and not folder.is_symlink() else None


def is_open(scan: Scan, user: Any) -> bool:
    """Whether this user may have a scan's package: in quarantine, only who puts scans there."""
    return scan.state == State.DONE or (scan.quarantined_at is not None and roles.allows(user, "quarantine_scan"))


def package_files(scan: Scan) -> list[Path]:
    """The plain files of a scan's package; links are left out, wherever they lead."""
    folder = package_folder(scan)
    if folder is None:
        return []
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False))


def package_file(scan: Scan, name: str) -> Path | None:
    """One of them by its name; None where there is none."""
    return next((each for each in package_files(scan) if each.name == name), None)


def link_key(scan: Scan) -> str:
    """Opens the status page of this scan, for some weeks, without a login."""
    return signing.dumps(scan.pk.hex, salt=LINK_SALT)


def scan_of_link(key: str) -> Scan | None:
    """None for what we have not signed, or too long ago."""
    try:
        pk = signing.loads(key, salt=LINK_SALT, max_age=LINK_DAYS * 24 * 3600)
    except signing.BadSignature:
        return None
    return Scan.objects.filter(pk=pk).first()
