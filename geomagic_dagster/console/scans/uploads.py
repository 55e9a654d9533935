"""An upload from its creation to the inbox: never lost, never there twice.

Belongs here: the steps, each of which may be repeated. Does not belong here: HTTP (api.py), writing bytes
(receiving.py), what the intake does with it (launching/intake.py).

    <inbox>/.uploads/<id>.part          what was received so far
    <inbox>/.uploads/senders/<number>   locked by who sends at this moment
    <inbox>/.uploads/ready/<upload>     whole, waits for the intake; which moves it into the inbox and starts its run

The name in the inbox is made of the id, and written down before anything moves. So whoever finds, after a crash, that
an upload is neither here nor there, knows that the intake has it, and under which name Dagster has its run.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import logging
import os
import re
import shutil
import time
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from geomagic_dagster.console.scans import addresses
from geomagic_dagster.console.scans.models import Scan, State, Token
from geomagic_dagster.console.scans.outcomes import end
from geomagic_dagster.console.scans.receiving import held
from geomagic_dagster.console.scans.refusals import Refused
from geomagic_dagster.jobs.inbox import scan_name, why_not_whole
from geomagic_dagster.jobs.local_run import dagster_home
from geomagic_dagster.launching.intake_server import send_path

log = logging.getLogger("geomagic.console.uploads")

SLUG_LETTERS = 40
ANSWER_S = 60.0
"""For the intake, which only moves what lies on its own disk: one that hangs must not keep the console's threads."""
MAGIC_BYTES = 512
ARCHIVES = ((b"PK\3\4", ".zip"), (b"PK\5\6", ".zip"), (b"\x1f\x8b", ".tar.gz"), (b"BZh", ".tar.bz2"))
MORE_ARCHIVES = ((b"\xfd7zXZ\0", ".tar.xz"),)
SENS = b"\4\0\0\0"
"""A ScanNet recording, one file, begins with its version."""


@dataclass(frozen=True)
class Limits:
    """What one may ask of the console; `settings.UPLOAD_LIMITS` puts others in their place."""

    bytes: int = 20 * 2**30
    open_uploads: int = 5
    """Of one owner, not yet whole."""
    reserve_bytes: int = 2 * 2**30
    """Of the disk, which stay free whatever comes."""
    idle_s: float = 24 * 3600.0
    """After so long without a byte an upload is given up."""
    silence_s: float = 30.0
    """After so long without a byte a connection is cut; the upload may go on in another."""
    senders: int = 4
    """Who may send at the same moment, whichever process of the console they reach: each holds a thread."""


def limits() -> Limits:
    return getattr(settings, "UPLOAD_LIMITS", None) or Limits()


def folder() -> Path:
    """On the inbox's disk, so that nothing is copied."""
    return Path(settings.PLACES.inbox) / ".uploads"


def part_of(scan: Scan) -> Path:
    return folder() / f"{scan.pk}.part"


def ready_of(scan: Scan) -> Path:
    return folder() / "ready" / scan.upload


def received(scan: Scan) -> int:
    """How many bytes of it were received."""
    if scan.state != State.RECEIVING:
        return scan.bytes_total or 0
    try:
        return part_of(scan).stat().st_size
    except FileNotFoundError:
        return 0


# --- created ----------------------------------------------------------------------------------------


def create(
    owner: Any, token: Token | None, name: str, size: int, *, sha256: str = "", webhook_url: str = "", key: str = ""
) -> tuple[Scan, bool]:
    """A new upload, or the one that the same idempotency key has made: (scan, whether it is new). Raises: Refused."""
    if webhook_url:
        addresses.check(webhook_url)
    allowed = limits()
    if not 0 < size <= allowed.bytes:
        raise Refused(
            "size of the upload",
            expected=f"1 to {allowed.bytes} bytes",
            received=str(size),
            do="Send one room at a time." if size > 0 else "Say how many bytes the archive has.",
            status=413 if size > 0 else 400,
        )
    asked = hashlib.sha256(repr((name, size, sha256, webhook_url)).encode(errors="surrogateescape")).hexdigest()
    with transaction.atomic():
        type(owner).objects.select_for_update().get(pk=owner.pk)  # one at a time counts what is open
        if key and (known := Scan.objects.filter(owner=owner, idempotency_key=key).first()):
            if known.asked != asked:
                raise Refused(
                    "Idempotency-Key",
                    expected="the same request as the first with this key",
                    received="another one",
                    do="Choose a new key for each scan.",
                )
            return known, False
        _check_room(owner, size, allowed)
        scan = Scan(
            name=shown_name(name),
            owner=owner,
            token=token,
            bytes_total=size,
            sha256=sha256.lower(),
            webhook_url=webhook_url,
            idempotency_key=key or None,
            asked=asked,
            expires_at=timezone.now() + timedelta(seconds=allowed.idle_s),
        )
        (folder() / "ready").mkdir(parents=True, exist_ok=True)
        part_of(scan).touch(mode=0o600, exist_ok=True)
        scan.save(force_insert=True)
    return scan, True


def _check_room(owner: Any, size: int, allowed: Limits) -> None:
    waiting = Scan.objects.filter(state=State.RECEIVING)
    if (count := waiting.filter(owner=owner).count()) >= allowed.open_uploads:
        raise Refused(
            "open uploads",
            expected=f"at most {allowed.open_uploads} at a time",
            received=f"one more than the {count} that are open",
            do="Finish or cancel one of them.",
            status=429,
            headers={"Retry-After": "60"},
        )
    folder().mkdir(parents=True, exist_ok=True)
    promised = sum((scan.bytes_total or 0) - received(scan) for scan in waiting)
    if shutil.disk_usage(folder()).free - promised - size < allowed.reserve_bytes:
        raise Refused(
            "disk of the console",
            expected="room for the upload",
            received=f"too little for {size} bytes beside the uploads that are under way",
            do="Try again later.",
            status=507,
            headers={"Retry-After": "300"},
        )


def shown_name(name: str) -> str:
    """A name as people see it: what cannot be seen, or turns what stands beside it, is left out. Nothing trusts it."""
    composed = unicodedata.normalize("NFC", "".join(c if c.isprintable() else "" for c in name))
    return " ".join(composed.split())[:200] or "scan"


def upload_name(scan: Scan, suffix: str) -> str:
    """What it is called in the inbox: letters, digits, and its id, so that no other one ever has this name."""
    letters = re.sub(r"\W+", "-", unicodedata.normalize("NFKC", scan_name(scan.name)))[:SLUG_LETTERS].strip("-_")
    return f"{letters or 'scan'}-{scan.pk.hex[:12]}{suffix}"


@contextmanager
def a_senders_place() -> Iterator[None]:
    """One of a few: slow uploads must not take every thread of the console. Raises: Refused (503).

    The kernel lets go of a place however its process ends.
    """
    places = folder() / "senders"
    places.mkdir(parents=True, exist_ok=True)
    for number in range(limits().senders):
        descriptor = os.open(places / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield
            return
        finally:
            os.close(descriptor)
    raise Refused(
        "console",
        expected=f"at most {limits().senders} uploads at the same moment",
        received="one more",
        do="Try again in 5 s.",
        status=503,
        headers={"Retry-After": "5"},
    )


# --- whole ------------------------------------------------------------------------------------------


def went_on(scan: Scan, size: int, *, came: bool = True) -> None:
    """Notes that bytes came; when they are all there, the intake gets the upload."""
    if came:  # else a sender without any could keep its place, and room on the disk, for ever
        until = timezone.now() + timedelta(seconds=limits().idle_s)
        Scan.objects.filter(pk=scan.pk, state=State.RECEIVING).update(expires_at=until)
    if size == scan.bytes_total:
        hand_over(scan)


def hand_over(scan: Scan) -> None:
    """Takes an upload as far as it gets: whole, checked, named, in the inbox, its run started. May be repeated."""
    scan.refresh_from_db()
    if scan.state == State.RECEIVING:
        try:
            with held(part_of(scan)) as descriptor:
                if os.fstat(descriptor).st_size == scan.bytes_total:
                    _close(scan)
        except (FileNotFoundError, Refused):  # another thread has done it, or does it at this moment
            pass
        scan.refresh_from_db()
    if scan.state == State.RECEIVED:
        with suppress(FileNotFoundError):
            os.rename(part_of(scan), ready_of(scan))
        _give_to_intake(scan)


def _close(scan: Scan) -> None:
    """Gives a whole upload its name, or says why it is none. The file is locked."""
    part = part_of(scan)
    with open(part, "rb") as file:
        suffix = _suffix(file.read(MAGIC_BYTES), scan.name)
        file.seek(0)
        got = hashlib.file_digest(file, "sha256").hexdigest() if scan.sha256 else ""
    if got != scan.sha256:
        _reject(scan, "upload", f"sha256 {scan.sha256[:16]}...", f"{got[:16]}...", "Send it again.")
    elif suffix is None:
        do = "Upload the scan's folder as a zip."
        _reject(scan, scan.name, "an archive (zip, tar, tar.gz)", f"a file that begins with {_begins(part)}", do)
    else:
        name = upload_name(scan, suffix)
        changed = {"upload": name, "state": State.RECEIVED, "received_at": timezone.now(), "expires_at": None}
        Scan.objects.filter(pk=scan.pk, state=State.RECEIVING).update(**changed)


def _give_to_intake(scan: Scan) -> None:
    ready = ready_of(scan)
    if not ready.exists():
        Scan.objects.filter(pk=scan.pk, state=State.RECEIVED).update(state=State.QUEUED, reason="")
        return
    if why := why_not_whole(ready):
        _reject(scan, scan.name, "a whole upload", why, "Pack the scan again, and send it to its end.")
        return
    try:
        answer = send_path(dagster_home(settings.HOME), ready, ANSWER_S)
    except (OSError, http.client.HTTPException, ValueError) as error:  # it died, or hangs, in the middle
        answer = {"error": f"{type(error).__name__}: {error}"}
    if answer is None:
        reason = "The intake is not running; the scan is kept and goes on as soon as it is."
    elif "error" in answer:
        reason = f"The intake did not take it; it is tried again: {answer['error']}"
    else:
        queued = {"state": State.QUEUED, "reason": "", "upload": answer["upload"], "run_id": answer["run_id"] or ""}
        Scan.objects.filter(pk=scan.pk, state=State.RECEIVED).update(**queued)
        return
    log.warning("%s: %s", scan.pk, reason)
    Scan.objects.filter(pk=scan.pk, state=State.RECEIVED).update(reason=reason)


def _reject(scan: Scan, place: str, expected: str, received: str, do: str) -> None:
    """The bytes are of no use to anybody; the reason is, and stays."""
    reason = f"{place}: expected {expected}; got {received}. {do}"
    if end(scan, State.REJECTED, reason, instead_of=(State.RECEIVING, State.RECEIVED)):
        drop(scan)


def _suffix(magic: bytes, name: str) -> str | None:
    """The ending of an archive by what is in it, whatever its name says; None for anything else."""
    for start, suffix in ARCHIVES + MORE_ARCHIVES:
        if magic.startswith(start):
            return ".r3d" if suffix == ".zip" and name.lower().endswith(".r3d") else suffix
    if magic[257:262] == b"ustar":
        return ".tar"
    return ".sens" if magic.startswith(SENS) and name.lower().endswith(".sens") else None


def _begins(path: Path) -> str:
    with open(path, "rb") as file:
        return repr(file.read(16))


# --- given up ---------------------------------------------------------------------------------------


def drop(scan: Scan) -> None:
    """Removes what the console itself still holds of an upload."""
    part_of(scan).unlink(missing_ok=True)
    if scan.upload:
        ready_of(scan).unlink(missing_ok=True)


def take_away(scan: Scan) -> bool:
    """Removes a whole upload before the intake has it; False where the intake was quicker."""
    for place in (part_of(scan), ready_of(scan)):
        with suppress(FileNotFoundError):
            place.unlink()
            return True
    return False


def sweep() -> None:
    """Removes files of uploads that nobody was told of: their console was killed while it made them."""
    for part in folder().glob("*.part"):
        with suppress(FileNotFoundError, ValueError):
            is_old = time.time() - part.stat().st_mtime > limits().idle_s
            if is_old and not Scan.objects.filter(pk=uuid.UUID(part.stem), state=State.RECEIVING).exists():
                part.unlink()


def expire(scan: Scan) -> None:
    """Gives up an upload whose sender is gone."""
    with suppress(FileNotFoundError):
        try:
            with held(part_of(scan)):
                pass
        except Refused:  # somebody sends at this moment
            return
    reason = f"No byte came for {limits().idle_s / 3600:g} hours. Send the scan again, as a new upload."
    if end(scan, State.EXPIRED, reason, instead_of=(State.RECEIVING,)):
        drop(scan)
