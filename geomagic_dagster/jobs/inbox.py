"""The inbox: what lies in it, what is complete, and where uploads go from there.

Belongs here: looking at uploads without reading them, and moving them. Does not belong here: what is in
a scan (scans/), Dagster. Nothing outside of the inbox is ever moved.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import hashlib
import os
import re
import shutil
import stat
import struct
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from geomagic_dagster.guardrails.whole_files import sync_whole
from geomagic_dagster.scans.files import ARCHIVE_SUFFIX

HALF_WRITTEN = re.compile(r"^\.|\.(part|tmp|partial|crdownload|filepart)$", re.IGNORECASE)
"""Names that tools give to files which they have not finished writing; hidden ones among them."""
COMPLETE = "upload.complete"
"""A folder with a file of this name is complete, whenever it was written."""
SETTLE_S = 10.0
"""A folder is complete when nothing in it changed for so long."""
GIVE_UP_S = 600.0
"""An archive whose end has not come for so long is taken as it is; the checks say what is wrong with it."""

REASON = "reason.txt"
"""Beside an upload that was put aside: why."""

ZIP_TAIL_BYTES = 22 + 65535
"""Its end record, and the longest comment behind it."""

AT_FDCWD, RENAME_NOREPLACE = -100, 1
_libc = ctypes.CDLL(None, use_errno=True)


class Looks:
    """Counts how often a file system is asked, so that looking stays bounded."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit, self.used = limit, 0

    def spent(self) -> bool:
        return self.limit is not None and self.used >= self.limit


@dataclass(frozen=True)
class Seen:
    """One look at an upload."""

    complete: bool
    why: str
    """What it waits for, or why it is complete."""
    listing: str
    """Digest of its files' names, sizes and times of change: the same as long as nobody touches it, another for a
    later upload of the same name and content."""


def scan_name(upload: str) -> str:
    """What the scan of an upload is called: its name without the ending of an archive."""
    return ARCHIVE_SUFFIX.sub("", upload)


def is_upload(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of the inbox may become a scan: a folder or an archive; never a link."""
    if entry.is_symlink():
        return False
    return entry.is_dir(follow_symlinks=False) or bool(ARCHIVE_SUFFIX.search(entry.name))


def look_at(path: Path, looks: Looks, now_s: float | None = None) -> Seen:
    """Whether an upload has arrived completely. Raises: FileNotFoundError when it was taken away meanwhile."""
    now_s = time.time() if now_s is None else now_s
    digest, changed_s, half_written, marked = hashlib.sha256(), 0.0, "", False
    for name, status in _walk(path, looks):
        # the time of change, unlike that of modification, is not copied along by cp -p, rsync -t or tar
        changed_s = max(changed_s, status.st_ctime)
        digest.update(f"{name}\0{status.st_size}\0{status.st_ctime_ns}\0".encode(errors="surrogateescape"))
        basename = name.rsplit("/", 1)[-1]
        marked |= basename == COMPLETE
        if HALF_WRITTEN.search(basename) and not basename.startswith("."):
            half_written = name
    age_s = now_s - changed_s
    listing = digest.hexdigest()[:16]
    if path.is_dir():
        if marked:
            return Seen(True, f"{COMPLETE} is there", listing)
        if half_written:
            return Seen(False, f"{half_written} is half-written", listing)
        return Seen(age_s >= SETTLE_S, f"its last change was {age_s:.0f} s ago", listing)
    if (ended := _archive_ends(path)) is None:  # a compressed tar tells its end only when it is read whole
        return Seen(age_s >= SETTLE_S, f"its last change was {age_s:.0f} s ago", listing)
    if not ended and age_s >= GIVE_UP_S:
        return Seen(True, f"its end has not come for {age_s:.0f} s", listing)
    return Seen(ended, "its end is there" if ended else "its end has not come yet", listing)


def run_key(upload: str, seen: Seen) -> str:
    """Names one stay of one upload in the inbox."""
    return f"{upload} {seen.listing}"


def was_touched(upload: Path, inbox: Path, key: str | None) -> bool:
    """Whether an upload in the inbox is not what it was when it was taken under this run key."""
    return bool(key) and lies_in(upload, inbox) and key != run_key(upload.name, look_at(upload, Looks()))


def _walk(path: Path, looks: Looks) -> Iterator[tuple[str, os.stat_result]]:
    looks.used += 1
    status = path.stat(follow_symlinks=False)
    yield "", status
    folders = [""] if stat.S_ISDIR(status.st_mode) else []
    while folders:
        folder = folders.pop()
        with os.scandir(path / folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = f"{folder}{entry.name}"
                looks.used += 1
                yield name, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{name}/")


def _archive_ends(path: Path) -> bool | None:
    """Whether an archive's own mark of its end is there; None for a kind that has none to be seen from outside."""
    name = path.name.lower()
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if name.endswith((".zip", ".r3d")):
            file.seek(-min(size, ZIP_TAIL_BYTES), os.SEEK_END)
            return _zip_ends(file.read(), size)
        if name.endswith(".tar"):
            if size < 1024 or size % 512:
                return False
            file.seek(-1024, os.SEEK_END)
            return not any(file.read())
    return None


def _zip_ends(tail: bytes, size: int) -> bool:
    """The end record lies right behind the directory that it tells of; that of an archive inside does not."""
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < 22:
        return False
    directory_size, directory_at, comment_size = struct.unpack("<IIH", tail[at + 12 : at + 22])
    if at + 22 + comment_size > len(tail):
        return False
    is_zip64 = at >= 20 and tail[at - 20 : at - 16] == b"PK\6\7"
    return is_zip64 or directory_at + directory_size == size - len(tail) + at


# --- into the inbox ---------------------------------------------------------------------------------


def why_not_whole(path: Path) -> str:
    """What shows that an upload has not arrived completely, whatever its age; empty where nothing does."""
    if path.is_dir():
        for name, _ in _walk(path, Looks()):
            basename = name.rsplit("/", 1)[-1]
            if HALF_WRITTEN.search(basename) and not basename.startswith("."):
                return f"{name}, which is half-written"
        return ""
    return "an archive without its end" if _archive_ends(path) is False else ""


@contextmanager
def claimed(inbox: Path, name: str) -> Iterator[None]:
    """Holds a name in the inbox for whoever puts an upload there and starts its run; waits while another holds it.

    The kernel lets go of it when this process ends, however it ends: from then on the sensor takes the upload up.
    """
    place = _claim_of(inbox, name)
    place.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(place)):  # not one that was let go of meanwhile
                break
        os.close(descriptor)
    try:
        yield
    finally:
        place.unlink(missing_ok=True)
        os.close(descriptor)


def is_claimed(inbox: Path, name: str) -> bool:
    """Whether a living process holds this name."""
    try:
        descriptor = os.open(_claim_of(inbox, name), os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def move_to_free(source: Path, target: Path) -> bool:
    """Renames within a disk, as one step, never over what is there; False where there is something."""
    if hasattr(_libc, "renameat2"):
        done = _libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), RENAME_NOREPLACE)
        number = ctypes.get_errno()
        if done == 0 or number == errno.EEXIST:
            return done == 0
        if number not in (errno.EINVAL, errno.ENOSYS):  # a disk or a kernel that cannot
            raise OSError(number, os.strerror(number), str(target))
    if os.path.lexists(target):  # two steps; whoever comes between holds no claim
        return False
    os.rename(source, target)
    return True


def _claim_of(inbox: Path, name: str) -> Path:
    return inbox / ".claims" / hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:32]


# --- from the inbox to somewhere else -------------------------------------------------------------


def lies_in(upload: Path, inbox: Path) -> bool:
    """Whether an upload is an entry of the inbox itself; one elsewhere is not ours to move."""
    return upload.parent.resolve() == inbox.resolve() and os.path.lexists(upload)


def move_to_done(upload: Path, inbox: Path, done: Path) -> Path | None:
    """Moves a processed upload out of the inbox; None where it does not lie in it (any more)."""
    if not lies_in(upload, inbox):
        return None
    done.mkdir(parents=True, exist_ok=True)
    return _move(upload, _numbered(done / upload.name))


def move_aside(upload: Path, inbox: Path, folder: Path, reason: str) -> Path | None:
    """Moves an upload to a folder of its own beside `reason.txt`; None where it does not lie in the inbox.

    The reason is written first: whatever is killed when, the upload lies either here or there, never nowhere.
    """
    if not lies_in(upload, inbox):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    place = next(place for place in _numbered(folder / upload.name) if _made(place))
    try:
        (place / REASON).write_text(reason + "\n", encoding="utf-8")
        _move(upload, [place / upload.name])
    except BaseException:  # a full disk: it is tried again, and shall not leave a folder each time
        if not os.path.lexists(place / upload.name):
            shutil.rmtree(place, ignore_errors=True)
        raise
    return place


def names_aside(folder: Path, name: str) -> list[str]:
    """Where uploads of this name lie aside in a folder: one had to make room for the other."""
    pattern = glob.escape(name)
    found = {*glob.glob(pattern, root_dir=folder), *glob.glob(f"{pattern}-[0-9]*", root_dir=folder)}
    return sorted(each for each in found if (folder / each).is_dir())


def reason_beside(aside: Path) -> str:
    """Why an upload lies aside; empty where nobody said."""
    try:
        return (aside / REASON).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def take_back(aside: Path, inbox: Path) -> Path:
    """Moves an upload that lies beside its `reason.txt` back into the inbox; returns where it is now.

    Raises: FileNotFoundError where there is none in the folder `aside`.
    """
    uploads = [path for path in aside.iterdir() if path.name != REASON] if aside.is_dir() else []
    if len(uploads) != 1:
        raise FileNotFoundError(
            errno.ENOENT, f"expected a folder with one upload and reason.txt; got {len(uploads)} uploads", str(aside)
        )
    inbox.mkdir(parents=True, exist_ok=True)
    place = _move(uploads[0], (inbox / name for name in names_like(uploads[0].name)))
    shutil.rmtree(aside)
    return place


def names_like(upload: str) -> Iterator[str]:
    """room.zip, room-2.zip, room-3.zip, ...: each one still says that it is an archive."""
    yield upload
    stem = scan_name(upload)
    for number in count(2):
        yield f"{stem}-{number}{upload[len(stem) :]}"


def _numbered(place: Path) -> Iterator[Path]:
    """room.zip, room.zip-2, ...: where an upload is only kept, all that belongs to it begins with its whole name."""
    yield place
    yield from (place.with_name(f"{place.name}-{number}") for number in count(2))


def _made(folder: Path) -> bool:
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _move(source: Path, places: Iterable[Path]) -> Path:
    """Moves to the first of these places where nothing is, and appears there whole.

    Also on another disk: there it is copied, and lies in both for a moment. Whatever is killed when, it never lies in
    neither, and never half of it in either.
    """
    moved = source
    for place in places:
        try:
            is_there = move_to_free(moved, place)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            moved = _copy_beside(source, place)
            is_there = move_to_free(moved, place)
        if is_there:
            if moved is not source:
                _remove_at_once(source)
            return place
    raise FileExistsError(errno.EEXIST, "expected nothing there; got something", str(source))


def _copy_beside(source: Path, place: Path) -> Path:
    beside = place.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        shutil.copytree(source, beside, symlinks=True) if source.is_dir() else shutil.copy2(source, beside)
        sync_whole(beside)  # it is on its disk before the original goes, also where the power fails in between
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        beside.unlink(missing_ok=True)
        raise
    return beside


def _remove_at_once(upload: Path) -> None:
    """First out of sight: half of a folder would be taken for an upload."""
    gone = upload.with_name(f".{uuid.uuid4().hex}.part")  # swept by the intake where we are killed here
    gone.mkdir()
    os.rename(upload, gone / upload.name)
    shutil.rmtree(gone)
