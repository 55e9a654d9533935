"""An upload is the same whatever it is packed in, and nothing in it can do harm."""

from __future__ import annotations

import gc
import io
import os
import stat
import struct
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.scans import files as files_module
from geomagic_dagster.scans.files import ScanFiles

CONTENT = {
    "poses.txt": b"1 2 3\n" * 50,
    "images/Küche 1.png": bytes(range(256)) * 40,
    "images/Küche 2.png": b"",
    "depth/a b.png": os.urandom(3000),
}


def fill(folder: Path, content: dict[str, bytes] = CONTENT) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zipped(path: Path, content: dict[str, bytes] = CONTENT, top: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(top + name, data)
    return path


def tarred(path: Path, content: dict[str, bytes] = CONTENT, top: str = "", mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(top + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


PACKINGS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda at: fill(at / "scan"),
    "folder in a folder": lambda at: fill(at / "outer" / "scan").parent,
    "zip": lambda at: zipped(at / "scan.zip"),
    "zip with a top folder": lambda at: zipped(at / "scan.zip", top="Wohnung Süd/"),
    "zip of another name": lambda at: zipped(at / "scan.r3d"),
    "tar": lambda at: tarred(at / "scan.tar"),
    "tar with ./ names": lambda at: tarred(at / "scan.tar", top="./"),
    "tar.gz": lambda at: tarred(at / "scan.tar.gz", mode="w:gz"),
    "tgz with a top folder": lambda at: tarred(at / "scan.tgz", top="a/b/", mode="w:gz"),
    "tar.bz2": lambda at: tarred(at / "scan.tar.bz2", mode="w:bz2"),
    "tar.xz": lambda at: tarred(at / "scan.tar.xz", mode="w:xz"),
}


@pytest.mark.parametrize("pack", PACKINGS.values(), ids=PACKINGS.keys())
def test_every_packing_gives_the_same_names_bytes_and_digest(pack: Callable[[Path], Path], tmp_path: Path) -> None:
    path = pack(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    files = ScanFiles(path)
    assert files.names() == tuple(sorted(CONTENT))
    assert {name: files.read(name) for name in files.names()} == CONTENT
    assert {name: files.size(name) for name in files.names()} == {name: len(data) for name, data in CONTENT.items()}
    assert files.head("poses.txt", 4) == b"1 2 "
    assert files.digest() == ScanFiles(fill(tmp_path / "again")).digest()
    assert [p for p in sorted(tmp_path.rglob("*")) if "again" not in p.parts] == before, "unpacked beside the upload"


def test_the_digest_tells_names_and_contents_apart(tmp_path: Path) -> None:
    variants = [
        CONTENT,
        {**CONTENT, "poses.txt": b"1 2 4\n" * 50},
        {**CONTENT, "poses2.txt": b""},
        {"ab": b"c", "d": b"e"},
        {"a": b"bc", "d": b"e"},
        {"a": b"b", "cd": b"e"},
    ]
    digests = [ScanFiles(fill(tmp_path / str(i), each)).digest() for i, each in enumerate(variants)]
    assert len(set(digests)) == len(variants)


def test_the_leavings_of_macos_and_windows_are_not_seen(tmp_path: Path) -> None:
    litter = {"scan/.DS_Store": b"x", "__MACOSX/scan/._poses.txt": b"x", "scan/images/Thumbs.db": b"x"}
    content = {f"scan/{name}": data for name, data in CONTENT.items()}
    files = ScanFiles(zipped(tmp_path / "scan.zip", content | litter))
    assert files.names() == tuple(sorted(CONTENT))
    assert files.top == "scan"


def test_an_umlaut_is_the_same_letter_from_every_system(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Küche.png")
    files = ScanFiles(fill(tmp_path / "scan", {decomposed: b"1", "b.png": b"2"}))
    assert files.names() == ("Küche.png", "b.png") or files.names() == ("b.png", "Küche.png")
    assert files.read(decomposed) == files.read("Küche.png") == b"1"


def test_a_zip_whose_utf8_names_are_not_declared_is_understood(tmp_path: Path) -> None:
    path = zipped(tmp_path / "scan.zip", {"Küche.png": b"1", "b.png": b"2"})
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.infolist()[0].flag_bits & 0x800
    # the flag is byte 7 of a local header and byte 9 of a directory entry
    for magic, at in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        start = raw.index(magic)
        raw = raw[: start + at] + bytes([raw[start + at] & ~0x08]) + raw[start + at + 1 :]
    path.write_bytes(raw)
    assert "Küche.png" in ScanFiles(path).names()


@pytest.mark.parametrize("pack", [PACKINGS["zip"], PACKINGS["tar"], PACKINGS["tar.gz"]], ids=["zip", "tar", "tgz"])
def test_images_are_read_late_and_by_several_threads(pack: Callable[[Path], Path], tmp_path: Path) -> None:
    sources = {name: ScanFiles(pack(tmp_path)).source(name) for name in CONTENT}
    gc.collect()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda name: (name, sources[name]()), list(CONTENT) * 50))
    assert all(CONTENT[name] == data for name, data in results)


@pytest.mark.filterwarnings("error")
def test_no_file_stays_open_when_nobody_holds_the_scan(tmp_path: Path) -> None:
    for pack in ("zip", "tar", "tar.gz"):
        path = PACKINGS[pack](tmp_path)
        open_before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
        files = ScanFiles(path)
        files.read("poses.txt")
        del files
        gc.collect()
        assert not open_before or len(os.listdir("/proc/self/fd")) == open_before, pack


def symlink_in_tar(at: Path) -> Path:
    with tarfile.open(at / "s.tar", "w") as archive:
        link = tarfile.TarInfo("rgb/a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return at / "s.tar"


def hardlink_in_tar(at: Path) -> Path:
    with tarfile.open(at / "s.tar", "w") as archive:
        link = tarfile.TarInfo("rgb/a.png")
        link.type, link.linkname = tarfile.LNKTYPE, "../../etc/passwd"
        archive.addfile(link)
    return at / "s.tar"


def device_in_tar(at: Path) -> Path:
    with tarfile.open(at / "s.tar", "w") as archive:
        device = tarfile.TarInfo("rgb/a.png")
        device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 5
        archive.addfile(device)
    return at / "s.tar"


def symlink_in_zip(at: Path) -> Path:
    with zipfile.ZipFile(at / "s.zip", "w") as archive:
        link = zipfile.ZipInfo("rgb/a.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    return at / "s.zip"


def encrypted_zip(at: Path) -> Path:
    path = zipped(at / "s.zip", {"a.txt": b"secret"})
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x03\x04") + 6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    return path


def four_gigabytes_in_a_kilobyte(at: Path) -> Path:
    path = zipped(at / "s.zip", {"depth.png": bytes(100)})
    raw = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = raw.index(magic) + offset
        raw[start : start + 4] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(raw)
    assert len(raw) < 1024
    return path


def real_zip_bomb(at: Path) -> Path:
    with zipfile.ZipFile(at / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(5):
            archive.writestr(f"{i}.png", bytes(20 * 2**20))
    return at / "s.zip"


def gzip_bomb(at: Path) -> Path:
    return tarred(at / "s.tgz", {"a.png": bytes(100 * 2**20)}, mode="w:gz")


def cut(path: Path, part: float) -> Path:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * part)])
    return path


def symlink_out_of_folder(at: Path) -> Path:
    (at / "outside.png").write_bytes(b"x")
    (fill(at / "scan") / "images" / "x.png").symlink_to(at / "outside.png")
    return at / "scan"


def linked_folder(at: Path) -> Path:
    (at / "elsewhere").mkdir()
    (fill(at / "scan") / "more").symlink_to(at / "elsewhere")
    return at / "scan"


def link_to_itself(at: Path) -> Path:
    (fill(at / "scan") / "loop.png").symlink_to("loop.png")
    return at / "scan"


def pipe_in_folder(at: Path) -> Path:
    os.mkfifo(fill(at / "scan") / "pipe.png")
    return at / "scan"


def twice_in_zip(at: Path) -> Path:
    path = zipped(at / "s.zip", {"a.txt": b"1", "b.txt": b"2"})
    path.write_bytes(path.read_bytes().replace(b"b.txt", b"a.txt"))
    return path


def empty_folder(at: Path) -> Path:
    (at / "scan").mkdir()
    return at / "scan"


def nameless_in_zip(at: Path) -> Path:
    path = zipped(at / "s.zip", {"a": b"x"})
    raw = bytearray(path.read_bytes())
    directory = raw.index(b"PK\x01\x02")
    raw[directory + 28] = 0  # length of the name
    del raw[directory + 46]
    end = raw.index(b"PK\x05\x06")
    raw[end + 12] -= 1  # size of the directory
    path.write_bytes(raw)
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str, str]] = {  # what it is: how to make it, words got, words to do
    "../ in a zip": (lambda at: zipped(at / "s.zip", {"../../a": b"x"}), "points elsewhere", "Pack the scan again"),
    "../ in a tar": (lambda at: tarred(at / "s.tar", {"a/../../b": b"x"}), "points elsewhere", "Pack the scan again"),
    "absolute name in a zip": (lambda at: zipped(at / "s.zip", {"/etc/x": b"x"}), "'/etc/x'", "Pack the scan again"),
    "absolute name in a tar": (lambda at: tarred(at / "s.tar", {"/etc/x": b"x"}), "'/etc/x'", "Pack the scan again"),
    "Windows path in a zip": (lambda at: zipped(at / "s.zip", {"C:\\x": b"x"}), "points elsewhere", "Pack the scan"),
    "backslashes up in a zip": (lambda at: zipped(at / "s.zip", {"..\\x": b"x"}), "points elsewhere", "Pack the scan"),
    "symlink in a tar": (symlink_in_tar, "a symbolic link", "--dereference"),
    "hard link in a tar": (hardlink_in_tar, "a hard link", "--hard-dereference"),
    "device in a tar": (device_in_tar, "a device", "Pack the scan again"),
    "symlink in a zip": (symlink_in_zip, "a symbolic link", "Pack the scan again"),
    "encrypted zip": (encrypted_zip, "encrypted", "without a password"),
    "4 GB claimed by 1 kB": (four_gigabytes_in_a_kilobyte, "claims at least 3 GiB", "Pack the scan again"),
    "zip bomb": (real_zip_bomb, "claims at least 80 MiB", "Pack the scan again"),
    "gzip bomb": (gzip_bomb, "claims at least", "Pack the scan again"),
    "no name in a zip": (nameless_in_zip, "one without", "Pack the scan again"),
    "same name twice in a zip": (twice_in_zip, "two files of this name", "Pack the scan again"),
    "truncated zip": (lambda at: cut(PACKINGS["zip"](at), 0.6), "cut short or damaged", "Upload it again"),
    "truncated tar": (lambda at: cut(PACKINGS["tar"](at), 0.3), "cut short or damaged", "Upload it again"),
    "tar cut between files": (
        lambda at: written(at / "s.tar", tarred(at / "t.tar").read_bytes()[:1024]), "cut short or damaged", "Upload it",
    ),
    "truncated tar.gz": (lambda at: cut(PACKINGS["tar.gz"](at), 0.7), "cut short or damaged", "Upload it again"),
    "symlink out of the folder": (symlink_out_of_folder, "a symbolic link to", "Put the file itself"),
    "symlinked folder": (linked_folder, "a symbolic link to", "Put the file itself"),
    "link to itself": (link_to_itself, "a symbolic link to loop.png", "Put the file itself"),
    "pipe in the folder": (pipe_in_folder, "a device, pipe or socket", "Remove it"),
    "empty folder": (empty_folder, "a folder without any file", "Upload it again"),
    "empty zip": (lambda at: zipped(at / "s.zip", {}), "a zip without any file", "Upload it again"),
    "empty file": (lambda at: written(at / "s.zip", b""), "an empty file (0 bytes)", "Upload it again"),
    "some other file": (lambda at: written(at / "s.zip", b"%PDF-1.7"), "begins with b'%PDF-1.7'", "a zip of it"),
    "nothing there": (lambda at: at / "no such", "nothing at", "spelling"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "received", "do"), REFUSED.values(), ids=REFUSED.keys())
def test_what_must_not_be_trusted_is_refused_in_plain_words(
    make: Callable[[Path], Path], received: str, do: str, tmp_path: Path
) -> None:
    with pytest.raises(ScanRejected) as refusal:
        ScanFiles(make(tmp_path))
    assert received in refusal.value.received
    assert do in refusal.value.do
    assert refusal.value.place
    assert refusal.value.expected


@pytest.mark.parametrize("pack", ["zip", "tar", "tar.gz"])
def test_a_damaged_file_in_an_archive_is_named_when_it_is_read(pack: str, tmp_path: Path) -> None:
    path = PACKINGS[pack](tmp_path)
    raw = bytearray(path.read_bytes())
    if pack != "zip":  # a tar has no checksum of its contents; the gzip around it has, and is read whole
        if pack == "tar.gz":
            raw[-6] ^= 0xFF
            path.write_bytes(raw)
            with pytest.raises(ScanRejected, match="cut short or damaged"):
                ScanFiles(path)
        return
    start = raw.index(b"images/K\xc3\xbcche 1.png") + 40
    raw[start : start + 8] = b"\xff" * 8
    path.write_bytes(raw)
    files = ScanFiles(path)
    assert files.read("poses.txt") == CONTENT["poses.txt"]
    with pytest.raises(ScanRejected, match=r"images/Küche 1\.png: expected 10240 whole bytes"):
        files.read("images/Küche 1.png")


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    folder = fill(tmp_path / "scan")
    (folder / "also.txt").symlink_to("poses.txt")
    (tmp_path / "link to scan").symlink_to(folder)
    assert ScanFiles(tmp_path / "link to scan").read("also.txt") == CONTENT["poses.txt"]


def test_too_many_files_and_too_large_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "s.zip")
    for limit, value in (("MAX_FILES", 3), ("MAX_FILE_BYTES", 10_000), ("MAX_TOTAL_BYTES", 12_000)):
        with monkeypatch.context() as patch:
            patch.setattr(files_module, limit, value)
            with pytest.raises(ScanRejected, match="at most"):
                ScanFiles(path)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ScanRejected, match=r"nowhere\.txt: expected a file of this name"):
        ScanFiles(Path(__file__).parent).read("nowhere.txt")


names = st.lists(
    st.sampled_from(["..", ".", "a", "Küche", "b c", "", "C:", "\\", "e.png", "\n", "~", "__MACOSX", "ä" * 80]),
    min_size=1,
    max_size=5,
).map("/".join)


@settings(max_examples=150, deadline=None)
@given(wanted=st.lists(names, min_size=1, max_size=4, unique=True), kind=st.sampled_from(["zip", "tar"]))
def test_whatever_the_names_nothing_points_out_of_the_scan(
    wanted: list[str], kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("names")
    content = {name or "/": name.encode() for name in wanted}
    path = zipped(folder / "s.zip", content) if kind == "zip" else tarred(folder / "s.tar", content)
    try:
        found = ScanFiles(path)
    except ScanRejected:
        return
    for name in found.names():
        parts = PurePosixPath(name).parts
        assert not name.startswith("/")
        assert ".." not in parts
        assert all(ord(letter) >= 32 for letter in name)
        assert len(found.read(name)) == found.size(name)
