"""Archives made to harm: each is refused in words, before it takes memory, time, or a place outside of the scan."""

from __future__ import annotations

import io
import random
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.scans import files as scan_files
from geomagic_dagster.scans.files import ScanFiles

BLOCK = 512
END = bytes(2 * BLOCK)
MEMORY_BYTES = 96 * 2**20
"""More than this no refusal takes, whatever an archive claims."""


def zipped(method: int, *names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name in names or ("scan.json", "a/b.txt", "ü.png"):
            archive.writestr(name, b"hello " * 60)
    return packed.getvalue()


def tarred(kind: int, mode: str = "w:") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode, format=kind) as archive:  # type: ignore[call-overload]
        for name in ("scan.json", "a/" + "b" * 120 + "ü.txt"):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = 360, 1.5
            archive.addfile(entry, io.BytesIO(b"hello " * 60))
    return packed.getvalue()


def header(kind: bytes, name: str, size: int) -> bytes:
    """One of a tar, whatever it claims."""
    entry = tarfile.TarInfo(name)
    entry.type = kind
    raw = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)  # pyright: ignore[reportAttributeAccessIssue]
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def attributes(text: bytes, then: bytes) -> bytes:
    """A tar's entry with something said of it before."""
    return header(b"x", "said", len(text)) + text + bytes(-len(text) % BLOCK) + then + END


def said(**attributes: object) -> bytes:
    """As pax writes them: each with its own length before it."""
    lines = b""
    for name, value in attributes.items():
        line = f" {name.replace('_', '.')}={value}\n"
        lines += f"{len(line) + 2}{line}".encode()
    return lines


def overlapping(count: int) -> bytes:
    """A zip whose entries all share the same bytes, as the densest bombs do."""
    one = io.BytesIO()
    with zipfile.ZipFile(one, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("00000.png", bytes(8 * 2**20))
    raw = one.getvalue()
    at = raw.index(b"PK\1\2")
    end = raw.index(b"PK\5\6")
    entry = raw[at:end]
    listed = b"".join(entry.replace(b"00000.png", b"%05d.png" % i) for i in range(count))
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(listed), at, 0)
    return raw[:at] + listed + tail


def long_directory(size: int) -> bytes:
    """A zip that is nothing but a list of files."""
    one = zipped(zipfile.ZIP_STORED, "a")
    entry = one[one.index(b"PK\1\2") : one.index(b"PK\5\6")]
    listed = entry * (size // len(entry) + 1)
    return b"PK\3\4" + listed + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(listed), 4, 0)


def claims_a_version() -> bytes:
    raw = bytearray(zipped(zipfile.ZIP_STORED, "a.png"))
    raw[raw.index(b"PK\1\2") + 6] = 255
    return bytes(raw)


def name_of_no_letters() -> bytes:
    raw = zipped(zipfile.ZIP_STORED, "ü.png")
    return raw.replace("ü".encode(), b"\xff\xfe")


def nonsense_in_bz2() -> bytes:
    return b"BZh9" + random.Random(1).randbytes(600)


def nested() -> bytes:
    """Zips in a zip in a zip: each holds sixteen of the one before."""
    content = zipped(zipfile.ZIP_DEFLATED)
    for _ in range(3):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for i in range(16):
                archive.writestr(f"{i}.zip", content)
        content = packed.getvalue()
    return content


HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "overlapping entries": ("s.zip", lambda: overlapping(2000), "one that claims at least"),
    "a list of 33 MB": ("s.zip", lambda: long_directory(33 * 2**20), "list of files has at most 32 MiB; got 33 MiB"),
    "a version from the future": ("s.zip", claims_a_version, "expected a whole zip; got one cut short or damaged (zip"),
    "a name of no letters": ("s.zip", name_of_no_letters, "expected a whole zip; got one cut short or damaged ("),
    "nonsense as bz2": ("s.tar.bz2", nonsense_in_bz2, "a whole compressed tar; got one cut short or damaged (Invalid"),
    "an endless name": (
        "s.tar", lambda: header(b"L", "././@LongLink", 8 * 2**30), "a header that claims 8589934592 bytes",
    ),
    "endless attributes": ("s.tar", lambda: header(b"x", "said", 2**33), "a header that claims 8589934592 bytes"),
    "endless attributes of all": ("s.tar", lambda: header(b"g", "said", 2**33), "a header that claims"),
    "a size below nothing": ("s.tar", lambda: header(b"0", "a.png", -512) + END, "a header that claims -512 bytes"),
    "a size below nothing, said before": (
        "s.tar", lambda: attributes(said(size=-1024), header(b"0", "a.png", 0)), "an entry that claims -1024 bytes",
    ),
    "a size beyond any disk": (
        "s.tar", lambda: attributes(said(size=10**30), header(b"0", "a.png", 0)), "at most 64 GiB of files; got at",
    ),
    "a sparse file without an end": (
        "s.tar",
        lambda: attributes(said(GNU_sparse_major=1, GNU_sparse_minor=0), header(b"0", "a.png", 0)),
        "expected a whole tar; got one cut short or damaged (",
    ),
}  # fmt: skip


def read_all(path: Path) -> None:
    files = ScanFiles(path)
    for each in files.names():
        files.read(each)


@contextmanager
def little_memory() -> Iterator[None]:
    """Fails where more was held than a refusal needs."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES, f"{peak >> 20} MiB"


@pytest.mark.parametrize(("name", "make", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_made_to_harm_is_refused_in_words(name, make, words, tmp_path):
    path = tmp_path / name
    path.write_bytes(make())
    with little_memory(), pytest.raises(ScanRejected) as refused:
        read_all(path)
    assert words in str(refused.value)


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.REGTYPE])
def test_folders_and_hidden_files_are_counted_too(kind, tmp_path, monkeypatch):
    """They are left out of a scan, so nothing else would end a tar of nothing but them."""
    monkeypatch.setattr(scan_files, "MAX_ENTRIES", 100)
    path = tmp_path / "s.tar"
    path.write_bytes(b"".join(header(kind, f".hidden{i}", 0) for i in range(101)) + END)
    with pytest.raises(ScanRejected, match=r"s.tar: expected at most 100 files and folders; got more\."):
        ScanFiles(path)


def test_a_file_that_no_memory_holds_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(scan_files, "MAX_READ_BYTES", 100)
    path = tmp_path / "s.zip"
    path.write_bytes(zipped(zipfile.ZIP_DEFLATED, "color/0.png"))
    files = ScanFiles(path)
    with pytest.raises(ScanRejected, match=r"0.png: expected a file of at most 100 bytes; got 360 bytes\. Leave it"):
        files.read("0.png")
    with files.seekable("0.png") as opened:  # a video is read piece by piece
        assert opened.read(5) == b"hello"


def test_archives_in_archives_are_not_opened(tmp_path):
    path = tmp_path / "s.zip"
    path.write_bytes(nested())
    assert len(ScanFiles(path).names()) == 16


def test_a_disk_that_fails_is_not_the_scans_fault(tmp_path, monkeypatch):
    path = tmp_path / "s.zip"
    path.write_bytes(zipped(zipfile.ZIP_STORED))

    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(zipfile.ZipExtFile, "read", broken)
    with pytest.raises(OSError, match="Input/output error"):
        ScanFiles(path).read("scan.json")


SEEDS = {
    "stored.zip": zipped(zipfile.ZIP_STORED),
    "deflated.zip": zipped(zipfile.ZIP_DEFLATED),
    "bzip2.zip": zipped(zipfile.ZIP_BZIP2),
    "lzma.zip": zipped(zipfile.ZIP_LZMA),
    "pax.tar": tarred(tarfile.PAX_FORMAT),
    "gnu.tar": tarred(tarfile.GNU_FORMAT),
    "s.tar.gz": tarred(tarfile.PAX_FORMAT, "w:gz"),
    "s.tar.bz2": tarred(tarfile.PAX_FORMAT, "w:bz2"),
    "s.tar.xz": tarred(tarfile.PAX_FORMAT, "w:xz"),
}
PATCHES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=8), st.integers(0, 40)), max_size=4)


def with_right_sums(raw: bytearray) -> bytes:
    """Of a tar's headers, so that they are believed."""
    for at in range(0, len(raw) - BLOCK + 1, BLOCK):
        if raw[at + 257 : at + 262] == b"ustar":
            raw[at + 148 : at + 156] = b" " * 8
            raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + BLOCK])
    return bytes(raw)


@given(st.sampled_from(sorted(SEEDS)), PATCHES, st.booleans())
@example("bzip2.zip", [(0.12, b"\xff\xff", 0)], False)
def test_a_spoilt_archive_is_read_or_refused_and_nothing_else(name, patches, believed):
    raw = bytearray(SEEDS[name])
    for place, instead, gone in patches:
        at = int(place * len(raw))
        raw[at : at + (gone or len(instead))] = instead
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(with_right_sums(raw) if believed and name.endswith(".tar") else raw)
        with suppress(ScanRejected):
            read_all(path)
