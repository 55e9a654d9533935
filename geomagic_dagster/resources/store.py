"""The artefact store: results by their identity, on a local folder or any fsspec URL.

Belongs here: where an artefact lies, that it appears whole or not at all, its checksums, and small
pointers to artefacts. Does not belong here: any noun by name, Dagster (io_manager.py), and how one
result becomes files (artefact_files.py).

    artefacts/<stage>/<identity>/artefact.json    what it is, how it was made, checksums; alone makes it exist
                                 <field>.npy ...  its files
    pointers/<...>.json                           which artefact a step of a run, or an asset partition, gave
    partial/                                      what is being written; what a killed process left, for a day
    corrupt/                                      what did not match its checksums any more

A store elsewhere (s3://...) is mirrored into the local `cache` folder, where its files are then mapped.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from geomagic_dagster.guardrails.failures import Broken, disk_in_words
from geomagic_dagster.guardrails.whole_files import replace_whole, sync_folder
from geomagic_dagster.resources.artefact_files import FileRecord, FolderReader, FolderWriter

SCHEMA = 1
RECORD = "artefact.json"
CHUNK_BYTES = 2**22
PARTIAL_LIVES_S = 24 * 3600.0


class ArtefactMissing(Broken):
    """No artefact has this identity."""

    failure = "missing"


class ArtefactCorrupt(Broken):
    """An artefact's files are not what was written."""

    failure = "corrupt"


class ArtefactDiffers(Broken):
    """The same code, settings and inputs gave different bytes."""

    failure = "differs"


@dataclass(frozen=True, eq=False)
class Artefact:
    """One result: its identity, how it came about, and its value, which is read when asked for."""

    stage: str
    identity: str
    get: Callable[[], Any]
    code_version: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    """Identities of what it was made from."""
    numbers: dict[str, float] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    """Versions of the third-party libraries that its code imports."""
    flags: tuple[str, ...] = ()
    """Feature flags that were on, of those that its stage declares."""
    weights: dict[str, str] = field(default_factory=dict)
    """Digests of the trained weights that its stage declares, by name."""
    made_by: dict[str, str] = field(default_factory=dict)
    """Release, version and commit that made it first. No part of the identity: others may reuse it."""
    is_saved: bool = False

    @cached_property
    def value(self) -> Any:
        return self.get()


class ArtefactStore:
    """Artefacts at `url`, a local path or any fsspec URL.

    Args:
        url: "/some/folder", "s3://bucket/prefix", "memory://...".
        cache: local folder for what has to be local to be mapped, when `url` is elsewhere.
        code_from: packages whose dataclasses may be loaded.
    """

    def __init__(self, url: str, cache: Path, code_from: tuple[str, ...] = ("geomagic_dagster.cv",)) -> None:
        self.url = url
        self.fs, self._root = fsspec.core.url_to_fs(url)
        self._is_local = isinstance(self.fs, LocalFileSystem)
        self._local_root = Path(self._root) if self._is_local else Path(cache)
        self._code_from = code_from

    # --- artefacts ---------------------------------------------------------------------------------

    def saved(self, stage: str, identity: str) -> bool:
        """Whether there is a whole artefact of this identity."""
        with disk_in_words(f"artefact {stage}/{identity} in {self.url}", "a store that can be read"):
            return self.fs.exists(self._remote("artefacts", stage, identity, RECORD))

    def save(self, artefact: Artefact) -> Artefact:
        """Writes a result beside its place and moves it there whole.

        Where the same identity is saved already, the first stays.
        Raises: ArtefactDiffers where the one there has other bytes; Unavailable for a full or read-only store;
        StageError for a value that no artefact may hold.
        """
        place = f"artefact {artefact.stage}/{artefact.identity}"
        with disk_in_words(f"{place} in {self.url}", "room to write it"):
            partial = self._new_partial(artefact.identity)
            try:
                writer = FolderWriter(partial)
                tree = writer.write(artefact.value, artefact.stage)
                if RECORD in writer.files:
                    raise Broken(f"{place}: expected no file called {RECORD}; got one. Rename it in the stage.")
                record = {
                    "schema": SCHEMA,
                    "stage": artefact.stage,
                    "identity": artefact.identity,
                    "code_version": artefact.code_version,
                    "settings": artefact.settings,
                    "inputs": artefact.inputs,
                    "libraries": artefact.libraries,
                    "flags": list(artefact.flags),
                    **({"weights": artefact.weights} if artefact.weights else {}),
                    "made_by": artefact.made_by,
                    "numbers": {name: writer.write(number, name) for name, number in artefact.numbers.items()},
                    "value": tree,
                    "files": {name: asdict(each) for name, each in sorted(writer.files.items())},
                }
                record["sha256"] = _record_sha256(record)
                _write_synced(partial / RECORD, json.dumps(record, indent=1).encode())
                if self.saved(artefact.stage, artefact.identity):
                    self._compare(record, artefact)
                else:
                    self._publish(partial, record, artefact)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return self.find(artefact.stage, artefact.identity)

    def find(self, stage: str, identity: str) -> Artefact:
        """The artefact, its value not yet read. Raises: ArtefactMissing, ArtefactCorrupt, Unavailable."""
        record = self._record(stage, identity)
        return Artefact(
            stage=stage,
            identity=identity,
            get=lambda: self.load(stage, identity),
            code_version=record["code_version"],
            settings=record["settings"],
            inputs=record["inputs"],
            numbers={name: FolderReader(Path(), ()).read(number) for name, number in record["numbers"].items()},
            libraries=record.get("libraries", {}),  # older records lack these four
            flags=tuple(record.get("flags", ())),
            weights=record.get("weights", {}),
            made_by=record.get("made_by", {}),
            is_saved=True,
        )

    def load(self, stage: str, identity: str) -> Any:
        """The value of an artefact, every checksum verified; arrays and images stay on the disk until looked at.

        Raises: ArtefactMissing, ArtefactCorrupt, Unavailable.
        """
        record = self._record(stage, identity)
        with disk_in_words(f"artefact {stage}/{identity} in {self.url}", "a store that can be read"):
            folder = self._verified(stage, identity, record)
        return FolderReader(folder, self._code_from).read(record["value"])

    def digests(self, stage: str, identity: str) -> dict[str, str]:
        """What an artefact holds, whoever made it: sha256 of each file, and of that part of it that its record holds.

        Raises: ArtefactMissing, ArtefactCorrupt, Unavailable.
        """
        record = self._record(stage, identity)
        value = {RECORD: _record_sha256({"value": record["value"]})}
        return {name: each["sha256"] for name, each in record["files"].items()} | value

    def set_aside(self, stage: str, identity: str) -> str:
        """Moves a corrupt artefact out of the way, so that it can be made anew; returns where it lies now."""
        aside = ("corrupt", stage, f"{identity}-{uuid.uuid4().hex[:8]}")
        place = f"artefact {stage}/{identity}"
        with disk_in_words(f"{place} in {self.url}", "a store that can be written"):
            if not self._is_local:
                source, target = self._remote("artefacts", stage, identity), self._remote(*aside)
                for path in sorted(self.fs.find(source), key=lambda path: not path.endswith(f"/{RECORD}")):
                    self.fs.mv(path, f"{target}/{path.rsplit('/', 1)[1]}")
            local = self._local("artefacts", stage, identity)
            if local.exists():
                self._local(*aside[:-1]).mkdir(parents=True, exist_ok=True)
                local.rename(self._local(*aside))
        return self._remote(*aside)

    # --- pointers ----------------------------------------------------------------------------------

    def point(self, name: tuple[str, ...], artefact: Artefact) -> None:
        """Remembers an artefact under a name, ("runs", run id, step); a later one takes its place at once."""
        content = json.dumps({"schema": SCHEMA, "stage": artefact.stage, "identity": artefact.identity}).encode()
        with disk_in_words(f"pointer {'/'.join(name)} in {self.url}", "room to write it"):
            if not self._is_local:
                self.fs.pipe_file(self._pointer(name), content)
                return
            replace_whole(Path(self._pointer(name)), content)

    def pointed(self, name: tuple[str, ...]) -> Artefact | None:
        """The artefact under a name; None where nothing was remembered under it."""
        with disk_in_words(f"pointer {'/'.join(name)} in {self.url}", "a store that can be read"):
            try:
                content = json.loads(self.fs.cat_file(self._pointer(name)))
            except FileNotFoundError:
                return None
        return self.find(content["stage"], content["identity"])

    # --- how it is done ----------------------------------------------------------------------------

    def _remote(self, *parts: str) -> str:
        return "/".join((self._root.rstrip("/"), *parts))

    def _local(self, *parts: str) -> Path:
        return self._local_root.joinpath(*parts)

    def _pointer(self, name: tuple[str, ...]) -> str:
        *folders, last = (quote(part, safe=" ") for part in name)  # a scan's name may hold anything, "/" included
        return self._remote("pointers", *folders, f"{last}.json")

    def _record(self, stage: str, identity: str) -> dict[str, Any]:
        place = f"artefact {stage}/{identity}"
        with disk_in_words(f"{place} in {self.url}", "a store that can be read"):
            try:
                content = self.fs.cat_file(self._remote("artefacts", stage, identity, RECORD))
            except FileNotFoundError:
                raise ArtefactMissing(
                    f"{place}: expected it in {self.url}; got nothing there. Run the step {stage} again."
                ) from None
        try:
            record: dict[str, Any] = json.loads(content)
            if record.pop("sha256") != _record_sha256(record):
                raise ValueError("another checksum")
        except (ValueError, KeyError, AttributeError) as error:
            raise ArtefactCorrupt(
                f"{place}, {RECORD}: expected a record that matches its own checksum; got {len(content)} bytes that do "
                f"not. Run the step {stage} again to make it anew."
            ) from error
        if record["schema"] > SCHEMA:
            raise Broken(
                f"{place}: expected schema {SCHEMA} or older; got {record['schema']}, written by newer code. "
                "Read it with a release that is as new."
            )
        return record

    def _new_partial(self, identity: str) -> Path:
        """An empty folder on the disk of the artefacts; sweeps away what processes left that were killed a day ago."""
        partials = self._local("partial")
        partials.mkdir(parents=True, exist_ok=True)
        for old in partials.iterdir():
            with suppress(FileNotFoundError):  # somebody else was done with it
                if time.time() - old.stat().st_mtime > PARTIAL_LIVES_S:
                    shutil.rmtree(old, ignore_errors=True)
        partial = partials / f"{identity}-{uuid.uuid4().hex[:8]}"
        partial.mkdir()
        return partial

    def _moved(self, partial: Path, place: Path) -> bool:
        """Moves a folder to its place as one step; False where there is one already."""
        place.parent.mkdir(parents=True, exist_ok=True)
        sync_folder(partial)
        try:
            partial.rename(place)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        sync_folder(place.parent)
        return True

    def _compare(self, record: dict[str, Any], artefact: Artefact) -> None:
        there = self._record(artefact.stage, artefact.identity)
        files = there["files"].keys() | record["files"].keys()
        differing = sorted(name for name in files if there["files"].get(name) != record["files"].get(name))
        if not differing and there["value"] != record["value"]:
            differing = [RECORD]
        if differing:
            raise ArtefactDiffers(
                f"artefact {artefact.stage}/{artefact.identity}: expected the bytes of the first time; got others in "
                f"{', '.join(differing)}. The same code, settings and inputs gave different bytes: look for chance in "
                "the stage (unseeded numbers, order of threads), another device or other versions of libraries."
            )

    def _publish(self, partial: Path, record: dict[str, Any], artefact: Artefact) -> None:
        if not self._is_local:
            target = self._remote("artefacts", artefact.stage, artefact.identity)
            for path in sorted(partial.iterdir(), key=lambda path: path.name == RECORD):  # the record last
                self.fs.put_file(str(path), f"{target}/{path.name}")
        is_first = self._moved(partial, self._local("artefacts", artefact.stage, artefact.identity))
        if not is_first and self._is_local:  # somebody else was faster
            self._compare(record, artefact)

    def _verified(self, stage: str, identity: str, record: dict[str, Any]) -> Path:
        """The local folder of an artefact's files, each of which is as its record says."""
        folder = self._local("artefacts", stage, identity)
        if self._is_local:
            self._check_files(folder, stage, identity, record)
            return folder
        if folder.exists():
            try:
                self._check_files(folder, stage, identity, record)
                return folder
            except ArtefactCorrupt:  # only the mirrored copy is known to be; the artefact itself is looked at next
                shutil.rmtree(folder)
        partial = self._new_partial(identity)
        try:
            for name in (*record["files"], RECORD):
                with suppress(FileNotFoundError):  # said below, in words
                    self.fs.get_file(self._remote("artefacts", stage, identity, name), str(partial / name))
            self._check_files(partial, stage, identity, record)
            self._moved(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return folder

    def _check_files(self, folder: Path, stage: str, identity: str, record: dict[str, Any]) -> None:
        for name, each in record["files"].items():
            expected, received = FileRecord(**each), _file_record(folder / name)
            if received != expected:
                raise ArtefactCorrupt(
                    f"artefact {stage}/{identity}, {name}: expected {expected.size} bytes with sha256 "
                    f"{expected.sha256[:12]}; got {_described(received)}. Run the step {stage} again to make it anew."
                )


def _record_sha256(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _file_record(path: Path) -> FileRecord | None:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
            return FileRecord(digest.hexdigest(), file.tell())
    except FileNotFoundError:
        return None


def _described(record: FileRecord | None) -> str:
    return "no such file" if record is None else f"{record.size} bytes with sha256 {record.sha256[:12]}"


def _write_synced(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
