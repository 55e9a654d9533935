"""Uploads that are made to harm, as bytes: bombs, links, odd names, things that are not what they say."""

from __future__ import annotations

import io
import json
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.scans.test_hostile_archives import END, header, long_directory, name_of_no_letters, nested, overlapping
from tests.toy_stages.scans import write_toy_scan

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>'
HTML = b"<!doctype html><script>alert(document.cookie)</script>"
LINK, DEVICE = (stat.S_IFLNK | 0o777) << 16, (stat.S_IFCHR | 0o666) << 16


def packed(files: dict[str, bytes], attributes: int = 0) -> bytes:
    """A zip; with `attributes` its last entry is something else than a file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = attributes if name == list(files)[-1] else 0
            archive.writestr(entry, content)
    return out.getvalue()


def tarred(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: str = "w", twice: bool = False) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=tarfile.GNU_FORMAT) as archive:  # type: ignore[call-overload]
        for _ in range(2 if twice else 1):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.devmajor, entry.devminor = kind, link, 1, 5
            archive.addfile(entry, io.BytesIO())
    return out.getvalue()


def room(change: Callable[[Path], object] = lambda folder: None) -> bytes:
    """A good scan with one thing spoilt."""
    with tempfile.TemporaryDirectory() as at:
        folder = write_toy_scan(Path(at, "room"))
        change(folder)
        return packed({path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))})


def every_colour(content: bytes) -> bytes:
    return room(lambda folder: [path.write_bytes(content) for path in (folder / "color").iterdir()])


def first_colour(content: bytes) -> bytes:
    return room(lambda folder: sorted((folder / "color").iterdir())[0].write_bytes(content))


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def other_name_of_an_image(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        said = json.loads((folder / "scan.json").read_text())
        said["frames"][0]["rgb"] = name
        (folder / "scan.json").write_text(json.dumps(said))

    return change


MEBIBYTES = bytes(40 * 2**20)
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {  # what it is: how to make it, words of the refusal
    # bombs
    "a bomb": (lambda: packed({f"{i}.png": MEBIBYTES for i in range(3)}), "unpacks to at most 200 times its"),
    "a bomb of shared bytes": (lambda: overlapping(4000), "unpacks to at most 200 times its"),
    "zips in zips": (nested, "expected a room scan; got a zip of no known format, 16 in all: 0.zip"),
    "a list of files without end": (lambda: long_directory(33 * 2**20), "list of files has at most 32 MiB"),
    "a name without end": (lambda: header(b"L", "x", 2**33) + END, "a header that claims 8589934592 bytes"),
    "nonsense as bz2": (lambda: b"BZh9" + b"nonsense" * 99, "got one cut short or damaged (Invalid data stream)"),
    # what is no picture
    "SVG as every picture": (lambda: every_colour(SVG), "expected a whole PNG or JPEG in colour; got a web page or XML"),
    "HTML as a picture": (lambda: first_colour(HTML), "got a web page or XML"),
    "a picture that is a web page, too": (
        lambda: every_colour(b"\xff\xd8\xff\xe0" + HTML), "expected a whole PNG or JPEG in colour; got",
    ),
    "a picture of a billion pixels": (lambda: every_colour(png_that_claims(65500, 65500)), "that claims 65500x65500"),
    # out of the scan
    "a path up in a zip": (lambda: packed({"../../x.png": b"x"}), "'../../x.png', which points elsewhere"),
    "an absolute path in a tar": (lambda: tarred("/etc/cron.d/x"), "'/etc/cron.d/x', which points elsewhere"),
    "a link in a zip": (lambda: packed({"a.png": b"/etc/passwd"}, LINK), "got a symbolic link"),
    "a link in a tar": (lambda: tarred("a.png", tarfile.SYMTYPE, "/etc/passwd", "w:gz"), "got a symbolic link"),
    "a hard link in a tar": (lambda: tarred("a.png", tarfile.LNKTYPE, "../../x"), "got a hard link"),
    "a device in a tar": (lambda: tarred("a.png", tarfile.CHRTYPE, mode="w:xz"), "got a device or pipe"),
    "a device in a zip": (lambda: packed({"a.png": b""}, DEVICE), "got a device, pipe or socket"),
    "a scan that names a file elsewhere": (
        lambda: room(other_name_of_an_image("../../../etc/passwd")), "../../../etc/passwd",
    ),
    # names
    "a name turned around": (lambda: tarred("evil\u202egpj.exe", twice=True), "evil\\u202egpj.exe: expected each name"),
    "a name of half a letter": (lambda: tarred("a\udcff.png", twice=True), "a\\udcff.png: expected each name once"),
    "a name that a terminal obeys": (lambda: tarred("a\x9b2J.png", twice=True), "a\\x9b2J.png: expected each name"),
    "a name in lines": (lambda: packed({"a\nb.png": b"x"}), "'a\\nb.png', which points elsewhere"),
    "a name of 60,000 letters": (lambda: tarred("n" * 60_000, twice=True), "expected each name once; got two files"),
    "a name that is no text": (name_of_no_letters, "got one cut short or damaged ('utf-8' codec"),
    "a name that is a page": (lambda: tarred(f"{HTML.decode()}.png", twice=True), "expected each name once; got two"),
}  # fmt: skip
