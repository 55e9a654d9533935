"""One read-only view of an upload: a folder, a zip or a tar, all alike, and none of them trusted.

Belongs here: names, sizes, bytes and the digest of what was uploaded, and the refusal of everything
that could harm the machine. Does not belong here: what the files mean (formats/). Nothing is ever
unpacked beside an upload: zips and tars are read in place; a compressed tar is decompressed once into
a temporary file that has no name.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import hashlib
import io
import lzma
import os
import re
import stat
import struct
import tarfile
import tempfile
import unicodedata
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, NoReturn

from geomagic_dagster.cv.stage import ScanRejected

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_FILES = 200_000
"""An hour of 20 frames/s with colour, depth and confidence is 216,000 files; a room takes minutes."""
MAX_FILE_BYTES = 4 * 2**30
"""The largest honest file is a video: 4 GiB is an hour of a phone's 1080p."""
MAX_READ_BYTES = 512 * 2**20
"""Of a file that is held in memory whole (a video is not), several at a time: raw 12 megapixel colour has 72 MiB, the
largest list of a thousand images' features that COLMAP wrote for a room some 200."""
MAX_TOTAL_BYTES = 64 * 2**30
"""A thousand frames in raw 12 megapixel colour stay below; the scratch disk of one worker holds it."""
MAX_EXPANSION = 200
"""Scans are images, which hardly shrink; text shrinks 20 times, a blank map 100 times, a bomb 1000 times and more."""
FREE_EXPANSION_BYTES = 64 * 2**20
"""Below this the proportion is no matter: it fits into any memory."""

MAX_ENTRIES = 2 * MAX_FILES
"""Folders too, and what macOS leaves beside each file: nothing of them is kept, but each has to be looked at."""
MAX_DIRECTORY_BYTES = 32 * 2**20
"""Of a zip, which is read whole before its first entry: 200,000 files of long names have 28 MB."""
MAX_TAR_HEADER_BYTES = 64 * 2**10
"""What stands before a tar's entry: a long name, a few attributes. It is read whole, before anything is known of it."""

CHUNK_BYTES = 2**20
TAR_BLOCK_BYTES = 512
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
ARCHIVE_SUFFIX = re.compile(r"\.(zip|r3d|sens|tar|tgz|tbz2|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
TAR_EXTENSIONS = (b"x", b"g", b"X", b"L", b"K")
"""Types of entries that only say something of the next one: attributes, long names."""
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile),
    *(NotImplementedError, ValueError, OverflowError, struct.error),  # of what a flipped bit makes of a header
)
NO_DISKS_ERRORS = (None, errno.EINVAL)
"""An OSError with one of these is of a damaged archive: bz2 raises it so, and so does a seek to before its start."""
LONE_SUFFIXES = (".sens",)
"""Recordings that are one file: uploaded as they are, each is a scan of one file."""
PACK_AGAIN = "Pack the scan again from its folder, as an ordinary zip, and upload that."
ALLOW = "Give this user the right to read it (chmod -R u+rX)."
UPLOAD_AGAIN = "Upload it again, and wait until the upload has ended."


@dataclass(frozen=True)
class _File:
    """One file of an upload: how large it is, and how to open its bytes."""

    size: int
    open: Callable[[], IO[bytes] | _Window]


class ScanFiles:
    """The files of an upload by their names, "depth/000001.png", wherever they really lie.

    One top folder that holds everything is stepped into (`top` keeps its name). Names are in Unicode's composed
    form, so that an umlaut is the same letter from every system. Hidden files and the leavings of
    macOS and Windows (`__MACOSX`, `.DS_Store`, `Thumbs.db`) are not seen. Bytes are read when asked for, at any time
    later and from several threads.

    Raises: ScanRejected for what cannot be read, is cut short, or must not be trusted.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))  # "." has no name
        self.stem = ARCHIVE_SUFFIX.sub("", Path(os.path.realpath(path)).name)
        """What the upload is called, without the ending of an archive."""
        try:
            kind, found = self._found()
        except PermissionError as error:
            _reject(
                self.path.name,
                "a scan that may be read",
                f"{error.strerror}: {error.filename}",
                ALLOW,
            )
        self.kind = kind
        """"folder", "zip" or "tar"."""
        self.top, self._files = _stepped_into(found)
        if not self._files:
            _reject(self.path.name, "a room scan", f"a {kind} without any file in it", UPLOAD_AGAIN)

    def names(self) -> tuple[str, ...]:
        """Every file, sorted."""
        return tuple(self._files)

    def __contains__(self, name: str) -> bool:
        return _composed(name) in self._files

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._file(name).size

    def read(self, name: str) -> bytes:
        """A whole file. Raises: ScanRejected when it is missing, cut short, damaged, or too large for the memory."""
        if (size := self._file(name).size) > MAX_READ_BYTES:
            _reject(name, f"a file of at most {_amount(MAX_READ_BYTES)}", _amount(size), "Leave it out of the scan.")
        return b"".join(self._chunks(name))

    def head(self, name: str, count: int) -> bytes:
        """The first `count` bytes of a file, or fewer where it is shorter."""
        return b"".join(self._chunks(name, count))

    def source(self, name: str) -> Callable[[], bytes]:
        """Reads the file when called: what `EncodedImages` takes."""
        self._file(name)
        return lambda: self.read(name)

    def seekable(self, name: str) -> io.BufferedReader:
        """A file that is read here and there: a video, a recording of gigabytes. Each call has a position of its own.

        Out of a zip it is copied once into a temporary file that has no name; elsewhere it is read in place.
        Raises: ScanRejected when it is missing, cut short or damaged.
        """
        size = self._file(name).size
        if self.kind == "zip":
            with tempfile.TemporaryFile(prefix="geomagic-") as copy:
                for chunk in self._chunks(name):
                    copy.write(chunk)
                copy.flush()
                return io.BufferedReader(_Window(_Handle(copy), 0, size))
        with self._opened(name) as opened:
            return io.BufferedReader(
                opened.again() if isinstance(opened, _Window) else _Window(_Handle(opened), 0, size)
            )

    def digest(self) -> str:
        """Identity of the upload: sha256 over names and contents, the same for a folder and an archive of it."""
        digest = hashlib.sha256()
        for name, file in self._files.items():
            encoded = name.encode(errors="surrogateescape")
            digest.update(len(encoded).to_bytes(8, "big") + encoded + file.size.to_bytes(8, "big"))
            for chunk in self._chunks(name):
                digest.update(chunk)
        return digest.hexdigest()

    def _file(self, name: str) -> _File:
        file = self._files.get(_composed(name))
        if file is None:
            _reject(name, "a file of this name", "none in the upload", UPLOAD_AGAIN)
        return file

    def _chunks(self, name: str, count: int | None = None) -> Iterator[bytes]:
        file = self._file(name)
        left = file.size if count is None else min(count, file.size)
        with self._opened(name) as opened:
            while left:
                chunk = opened.read(min(CHUNK_BYTES, left))
                if not chunk:
                    raise EOFError(f"ends {left} bytes early")
                left -= len(chunk)
                yield chunk
            if count is None:
                opened.read(1)  # an archive compares its checksum only when its end is reached

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes] | _Window]:
        """The open file, and every reason why it cannot be read as a sentence."""
        file = self._file(name)
        try:
            with _damage_in_words(name, f"{file.size} whole bytes", "a damaged or cut file"), file.open() as opened:
                yield opened
        except PermissionError as error:
            _reject(name, "a file that may be read", str(error.strerror), ALLOW)
        except FileNotFoundError:
            _reject(
                name,
                "the file that lay here when the scan was opened",
                "none any more",
                "Leave an upload in place until it is processed.",
            )

    def _found(self) -> tuple[str, dict[str, _File]]:
        if self.path.is_dir():
            return "folder", _of_folder(self.path)
        if not self.path.exists():
            _reject(
                self.path.name,
                "a folder, zip or tar with a room scan",
                f"nothing at {self.path}",
                "Look at the spelling of the path.",
            )
        if not self.path.is_file():
            _reject(
                self.path.name,
                "a folder, zip or tar with a room scan",
                "neither a folder nor a file",
                "Give the folder or the archive itself.",
            )
        with self.path.open("rb") as file:
            magic = file.read(TAR_BLOCK_BYTES)
        if not magic:
            _reject(self.path.name, "a zip or tar with a room scan", "an empty file (0 bytes)", UPLOAD_AGAIN)
        if magic.startswith(b"PK"):
            return "zip", _of_zip(self.path)
        for start, library in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ\x00", lzma)):
            if magic.startswith(start):
                with library.open(self.path) as packed:
                    return "tar", _of_compressed_tar(packed, self.path)
        if magic[257:262] == b"ustar" or self.path.suffix.lower() == ".tar":
            with self.path.open("rb") as file:
                return "tar", _of_tar(file, self.path)
        if self.path.suffix.lower() in LONE_SUFFIXES:
            listing = _Listing(self.path)
            listing.safe(self.path.name)
            listing.add(self.path.name, self.path.stat().st_size, lambda: self.path.open("rb"))
            return "folder", listing.files
        _reject(
            self.path.name,
            "a folder, zip or tar with a room scan",
            f"a file that begins with {magic[:8]!r}",
            "Upload the scan's folder, or a zip of it.",
        )


class _Listing:
    """Collects the files of an upload and refuses names and sizes that could do harm."""

    def __init__(self, path: Path, packed_bytes: int | None = None) -> None:
        self.files: dict[str, _File] = {}
        self._path, self._packed_bytes, self._total, self._entries = path, packed_bytes, 0, 0

    def safe(self, name: str) -> None:
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            _reject(self._path.name, f"at most {MAX_ENTRIES} files and folders", "more", "Upload one room at a time.")
        parts = name.split("/")
        if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts or any(ord(c) < 32 for c in name):
            _reject(self._path.name, "names of files inside the scan", f"{name!r}, which points elsewhere", PACK_AGAIN)

    def add(self, name: str, size: int, opener: Callable[[], IO[bytes] | _Window]) -> None:
        if _is_ignored(name):
            return
        name = _composed(str(PurePosixPath(name)))
        if name == ".":
            _reject(self._path.name, "files that have names", "one without", PACK_AGAIN)
        if name in self.files:
            _reject(name, "each name once", "two files of this name", PACK_AGAIN)
        self.files[name] = _File(size, opener)
        self.grow(size)
        if size > MAX_FILE_BYTES:
            _reject(name, f"a file of at most {_amount(MAX_FILE_BYTES)}", _amount(size), "Leave it out of the scan.")
        if len(self.files) > MAX_FILES:
            _reject(self._path.name, f"at most {MAX_FILES} files", "more", "Upload one room at a time.")

    def grow(self, size: int) -> None:
        """Counts bytes as they come out, and stops a bomb."""
        self._total += size
        if self._total > MAX_TOTAL_BYTES:
            _reject(
                self._path.name,
                f"at most {_amount(MAX_TOTAL_BYTES)} of files",
                f"at least {_amount(self._total)}",
                "Upload one room at a time.",
            )
        packed = self._packed_bytes
        if packed is not None and self._total > max(FREE_EXPANSION_BYTES, packed * MAX_EXPANSION):
            _reject(
                self._path.name,
                f"an archive that unpacks to at most {MAX_EXPANSION} times its {_amount(packed)}",
                f"one that claims at least {_amount(self._total)}",
                PACK_AGAIN,
            )


class _Window(io.RawIOBase):
    """A stretch of an open file, read in place; many may be open at once. The handle closes with the last of them."""

    def __init__(self, handle: _Handle, start: int, size: int) -> None:
        self._handle, self._start, self._size, self._at = handle, start, size, 0

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        chunk = os.pread(self._handle.descriptor, max(0, min(len(view), self._size - self._at)), self._start + self._at)
        view[: len(chunk)] = chunk
        self._at += len(chunk)
        return len(chunk)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def again(self) -> _Window:
        """The same stretch, read from its beginning."""
        return _Window(self._handle, self._start, self._size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


class _Handle:
    """An open file that closes when nobody holds it any more."""

    def __init__(self, file: IO[bytes]) -> None:
        self.descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.descriptor)


def _of_folder(folder: Path) -> dict[str, _File]:
    def fail(error: OSError) -> NoReturn:
        raise error

    root, listing = folder.resolve(), _Listing(folder)
    for parent, folders, files in os.walk(root, onerror=fail):
        folders[:] = [name for name in folders if not _is_ignored(name)]
        for name in [*folders, *files]:
            path = Path(parent, name)
            relative = path.relative_to(root).as_posix()
            if _is_ignored(relative):
                continue
            target = Path(os.path.realpath(path))  # unlike resolve(), bears links that lead in a circle
            if path.is_symlink() and not (target.is_relative_to(root) and target.is_file()):
                _reject(
                    relative,
                    "files that lie in the scan's own folder",
                    f"a symbolic link to {os.readlink(path)}",
                    "Put the file itself in its place (cp -L copies what links point to).",
                )
            status = target.stat()
            listing.safe(relative)
            if stat.S_ISREG(status.st_mode):
                listing.add(relative, status.st_size, lambda target=target: target.open("rb"))
            elif not stat.S_ISDIR(status.st_mode):
                _reject(relative, "ordinary files", "a device, pipe or socket", "Remove it from the folder.")
    return listing.files


@contextlib.contextmanager
def _damage_in_words(place: str, expected: str, received: str) -> Iterator[None]:
    """Raises: ScanRejected for whatever a damaged file or archive makes a library raise."""
    try:
        yield
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_DISKS_ERRORS:
            raise
        _reject(place, expected, f"{received} ({error})", UPLOAD_AGAIN)


def _of_zip(path: Path) -> dict[str, _File]:
    with _damage_in_words(path.name, "a whole zip", "one cut short or damaged"):
        _check_directory(path)
        archive = zipfile.ZipFile(path)
    listing = _Listing(path, path.stat().st_size)
    for entry in archive.infolist():
        name = _zip_name(entry)
        listing.safe(name)
        if name.endswith("/"):
            continue
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            what = "a symbolic link" if kind == stat.S_IFLNK else "a device, pipe or socket"
            _reject(name, "ordinary files in the zip", what, PACK_AGAIN)
        if entry.flag_bits & 0x1:
            _reject(name, "files that anybody may read", "an encrypted file", "Pack the scan again without a password.")
        if entry.compress_type not in ZIP_METHODS:
            _reject(name, "a zip of the usual compression", f"compression method {entry.compress_type}", PACK_AGAIN)
        listing.add(name, entry.file_size, lambda entry=entry: archive.open(entry))
    return listing.files


def _check_directory(path: Path) -> None:
    """Raises: ScanRejected for a list of entries that would not fit into memory: zipfile reads it whole."""
    with path.open("rb") as file:
        end = zipfile._EndRecData(file)  # pyright: ignore[reportAttributeAccessIssue] - its own, of zip64 too
    size = end[zipfile._ECD_SIZE] if end else 0  # pyright: ignore[reportAttributeAccessIssue]
    if size > MAX_DIRECTORY_BYTES:
        expected = f"a zip whose list of files has at most {_amount(MAX_DIRECTORY_BYTES)}"
        _reject(path.name, expected, _amount(size), "Upload one room at a time.")


def _zip_name(entry: zipfile.ZipInfo) -> str:
    """The name as it was meant: macOS writes UTF-8 without saying so, some Windows tools write backslashes."""
    name = entry.filename
    if not entry.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):  # else it is honest cp437
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


class _TarInfo(tarfile.TarInfo):
    """An entry whose header is looked at before tarfile believes it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _TarInfo:
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.type in TAR_EXTENSIONS and found.size > MAX_TAR_HEADER_BYTES):
            raise tarfile.ReadError(f"a header that claims {found.size} bytes")
        return found


def _of_tar(file: IO[bytes], path: Path) -> dict[str, _File]:
    listing, handle, end = _Listing(path), _Handle(file), 0
    with _damage_in_words(path.name, "a whole tar", "one cut short or damaged"):
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_TarInfo) as archive:
            for member in archive:
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue] - it would keep every one
                end = archive.offset
                if member.size < 0:  # said by what stands before the header
                    raise tarfile.ReadError(f"an entry that claims {member.size} bytes")
                listing.safe(member.name)
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    kinds = {tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link"}
                    what = kinds.get(member.type, "a sparse file" if member.issparse() else "a device or pipe")
                    _reject(
                        str(PurePosixPath(member.name)),
                        "ordinary files in the tar",
                        what,
                        "Pack the scan again with what the links point to (tar --dereference --hard-dereference).",
                    )
                at, size = member.offset_data, member.size
                listing.add(member.name, size, lambda at=at, size=size: _Window(handle, at, size))
        file.seek(end)
        if file.read(TAR_BLOCK_BYTES) != bytes(TAR_BLOCK_BYTES):  # tarfile takes a cut or spoilt header for the end
            raise tarfile.ReadError(f"no end mark at byte {end}")
    return listing.files


def _of_compressed_tar(packed: IO[bytes], path: Path) -> dict[str, _File]:
    """Decompresses into a temporary file without a name, as long as it is in proportion."""
    listing = _Listing(path, path.stat().st_size)
    with tempfile.TemporaryFile(prefix="geomagic-") as unpacked:
        with _damage_in_words(path.name, "a whole compressed tar", "one cut short or damaged"):
            while chunk := packed.read(CHUNK_BYTES):
                listing.grow(len(chunk))
                unpacked.write(chunk)
        unpacked.seek(0)
        return _of_tar(unpacked, path)


def _stepped_into(found: dict[str, _File]) -> tuple[str, dict[str, _File]]:
    """Leaves out folders that hold everything: (the innermost one's name, files by their names in it), sorted."""
    top, files = "", dict(sorted(found.items()))
    while len(tops := {name.partition("/")[0] for name in files}) == 1 and not tops & files.keys():
        top = tops.pop()
        files = {name.partition("/")[2]: file for name, file in files.items()}
    return top, files


def _is_ignored(name: str) -> bool:
    parts = [part for part in name.split("/") if part != "."]
    return any(part.startswith(".") or part in ("__MACOSX", "Thumbs.db", "desktop.ini") for part in parts)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _amount(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size} {unit}"
        size //= 1024
    return f"{size} GiB"


def _reject(place: str, expected: str, received: str, do: str) -> NoReturn:
    raise ScanRejected(place, expected=expected, received=received, do=do)
