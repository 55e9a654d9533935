"""Bytes of an upload, from a connection to the end of a file.

Belongs here: locking, writing, checking, what happens when the other side is gone. Does not belong here: HTTP, Django's
tables (uploads.py).

The size of the file is how much was received: nothing else says it, so nothing can disagree with it, whatever is killed
when. What a connection brought before it was cut is kept, unless it was announced with a checksum.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from geomagic_dagster.console.scans.refusals import Refused

CHUNK_BYTES = 64 * 2**10
STALLED_S = 5.0
"""A sender that brought nothing for so long is cut off when another one comes: its connection is dead, most likely."""
LET_GO_S = 3.0
DIGESTS = {"sha256": hashlib.sha256, "sha1": hashlib.sha1, "md5": hashlib.md5}
"""Of Upload-Checksum. The old ones tell a flipped bit, which is all that is asked of them."""


@dataclass
class _Sender:
    heard_s: float
    hang_up: Callable[[], None] | None


_senders: dict[str, _Sender] = {}
"""Who writes to which file in this process; the lock of the kernel is what counts, also between processes."""


@contextmanager
def held(path: Path, hang_up: Callable[[], None] | None = None) -> Iterator[int]:
    """The only writer of a file, as a descriptor. Raises: Refused (423) while another one writes; FileNotFoundError.

    Args:
        hang_up: ends our own connection, so that one who comes after us need not wait for a dead one.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if not (_locks(descriptor) or _takes_over(path, descriptor)):
            raise Refused(
                "upload",
                expected="one sender at a time",
                received="a second one while the first still sends",
                do="Ask for the offset (HEAD) in some seconds, and go on from there.",
                status=423,
                headers={"Retry-After": "5"},
            )
        if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
            raise FileNotFoundError(errno.ENOENT, "moved meanwhile", str(path))
        sender = _senders[str(path)] = _Sender(time.monotonic(), hang_up)
        try:
            yield descriptor
        finally:
            if _senders.get(str(path)) is sender:
                del _senders[str(path)]
    finally:
        os.close(descriptor)


def append(
    path: Path,
    offset: int,
    total: int,
    read: Callable[[int], bytes],
    *,
    length: int | None = None,
    checksum: tuple[str, bytes] | None = None,
    hang_up: Callable[[], None] | None = None,
) -> int:
    """Adds what `read` brings to the file; returns how much there is now.

    Args:
        total: how many bytes the whole has.
        length: how many bytes this part has, where its sender said so.
        checksum: (algorithm, digest) of this part: without it nothing of the part is kept.
    Raises: Refused.
    """
    with held(path, hang_up) as descriptor:
        size = os.fstat(descriptor).st_size
        if offset != size:
            raise Refused(
                "Upload-Offset",
                expected=f"{size}, which is how much was received",
                received=str(offset),
                do="Ask for the offset (HEAD) and go on from there.",
                status=409,
                headers={"Upload-Offset": str(size)},
            )
        if length is not None and offset + length > total:
            raise _too_long(total, offset + length)
        digest = DIGESTS[checksum[0]](usedforsecurity=False) if checksum else None
        os.lseek(descriptor, offset, os.SEEK_SET)
        for chunk in _chunks(read, path):
            if size + len(chunk) > total:
                os.ftruncate(descriptor, offset)
                raise _too_long(total, size + len(chunk))
            size += _write(descriptor, chunk)
            if digest:
                digest.update(chunk)
        if checksum and digest and digest.digest() != checksum[1]:
            os.ftruncate(descriptor, offset)
            raise Refused(
                "Upload-Checksum",
                expected=f"{checksum[0]} {checksum[1].hex()[:16]}...",
                received=f"{digest.hexdigest()[:16]}... of {size - offset} bytes",
                do=f"Nothing of this part is kept: send it again from {offset}.",
                status=460,
            )
        os.fsync(descriptor)
    if length is not None and size < offset + length:
        raise Refused(
            "body",
            expected=f"{length} bytes",
            received=f"{size - offset}, and then nothing",
            do=f"They are kept: go on from {size}.",
            status=408,
        )
    return size


def _chunks(read: Callable[[int], bytes], path: Path) -> Iterator[bytes]:
    """Until the end, or until the connection is cut, or silent for too long: all the same to us."""
    while True:
        try:
            chunk = read(CHUNK_BYTES)
        except OSError:  # of the socket; that of the disk is _write's
            return
        if not chunk:
            return
        if (sender := _senders.get(str(path))) is not None:
            sender.heard_s = time.monotonic()
        yield chunk


def _write(descriptor: int, chunk: bytes) -> int:
    left = memoryview(chunk)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Refused(
                "disk of the console",
                expected="room for the upload",
                received="a full disk",
                do="What was received is kept. Go on later.",
                status=507,
                headers={"Retry-After": "300"},
            ) from error
    return len(chunk)


def _too_long(total: int, at_least: int) -> Refused:
    return Refused(
        "upload",
        expected=f"{total} bytes, as was said when it was created",
        received=f"{at_least} or more",
        do="Nothing of this part is kept. Create an upload of the right length.",
        status=413,
    )


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _takes_over(path: Path, descriptor: int) -> bool:
    """Cuts off a sender who has been silent, and takes its place."""
    sender = _senders.get(str(path))
    if sender is None or sender.hang_up is None or time.monotonic() - sender.heard_s < STALLED_S:
        return False
    with suppress(OSError):  # closed already
        sender.hang_up()
    until = time.monotonic() + LET_GO_S
    while time.monotonic() < until:
        if _locks(descriptor):
            return True
        time.sleep(0.02)
    return False
