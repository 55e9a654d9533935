"""How one result lies in one folder: plain files, and a JSON tree that says what is where.

Belongs here: turning a noun (see cv/containers.py for what it may hold) into files and back, without
knowing any noun by name. Does not belong here: where folders lie, how they get there, and checksums of
whole artefacts (store.py).

A numpy array is one `.npy`, mapped into memory when read; `EncodedImages` are one `.images` of all encoded bytes one
after the other, with their offsets in an `.npy`; `Files` keep their names. Everything else is in the JSON tree. The
same result gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import math
import os
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from geomagic_dagster.cv.containers import EncodedImages, Files
from geomagic_dagster.cv.stage import StageError

SMALL_BYTES = 2**20
"""Smaller arrays are read whole: a mapping each would cost a file handle."""

Tree = Any
"""JSON: None, bool, int, float, str, a list, or {kind: content} with one of the kinds below."""


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """One file of an artefact."""

    sha256: str
    size: int


class FolderWriter:
    """Writes the files of one result and remembers their checksums."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, FileRecord] = {}

    def write(self, value: Any, place: str) -> Tree:
        """Writes what is large into files; returns the tree of the rest. `place` names the value: "depth.depth_m_bhw".

        Raises: StageError naming the field that holds what no artefact may hold; OSError of the disk.
        """
        if value is None or type(value) in (bool, int, str):
            return value
        if isinstance(value, np.generic):
            return self.write(value.item(), place)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": repr(float(value))}
        if isinstance(value, np.ndarray):
            return {"array": self._write_array(value, place)}
        if isinstance(value, EncodedImages):
            return {"images": self._write_images(value, place)}
        if isinstance(value, Files):
            for name in value:
                self._write_file(name, [value[name]])
            return {"files": list(value)}
        if type(value) is list:
            return [self.write(each, f"{place}.{i}") for i, each in enumerate(value)]
        if type(value) is tuple:
            return {"tuple": [self.write(each, f"{place}.{i}") for i, each in enumerate(value)]}
        if type(value) is dict:
            return {
                "dict": [
                    [self.write(k, f"{place}.key"), self.write(v, f"{place}.{i}")]
                    for i, (k, v) in enumerate(value.items())
                ]
            }
        if not isinstance(value, type) and dataclasses.is_dataclass(value):
            noun = type(value)
            fields = {
                f.name: self.write(getattr(value, f.name), f"{place}.{f.name}") for f in dataclasses.fields(value)
            }
            return {"noun": f"{noun.__module__}:{noun.__qualname__}", "fields": fields}
        raise StageError(
            f"{place}: expected a numpy array, EncodedImages, Files, a frozen dataclass of these, or plain values; "
            f"got {type(value).__module__}.{type(value).__qualname__}. A tensor becomes an array by .cpu().numpy()."
        )

    def _write_array(self, array: np.ndarray[Any, Any], place: str) -> str:
        if array.dtype.hasobject:
            raise StageError(
                f"{place}: expected an array of numbers; got dtype {array.dtype}. Give it a type of fixed size."
            )
        name = f"{place}.npy"
        with self._open(name) as file:
            # a file that is no real file to numpy is written in buffers of 16 MiB, whatever the array's size
            np.lib.format.write_array(file, array, allow_pickle=False)
        return name

    def _write_images(self, images: EncodedImages, place: str) -> str:
        name = f"{place}.images"
        sizes = self._write_file(name, (images.encoded(i) for i in range(len(images))))
        self._write_array(np.cumsum([0, *sizes], dtype=np.int64), f"{name}.offsets")
        return name

    def _write_file(self, name: str, parts: Iterable[bytes]) -> list[int]:
        with self._open(name) as file:
            return [file.write(part) for part in parts]

    def _open(self, name: str) -> _CheckedFile:
        if name in self.files:
            raise StageError(f"{name}: two parts of one result would be files of this name. Rename one of them.")
        return _CheckedFile(self, name)


class _CheckedFile:
    """A file that is checksummed while it is written and lies safely on the disk when it is closed."""

    def __init__(self, writer: FolderWriter, name: str) -> None:
        self._writer, self._name = writer, name
        self._digest, self._size = hashlib.sha256(), 0

    def __enter__(self) -> _CheckedFile:
        self._file: IO[bytes] = open(self._writer.folder / self._name, "xb")
        return self

    def write(self, part: bytes) -> int:
        self._digest.update(part)
        self._size += len(part)
        return self._file.write(part)

    def __exit__(self, error: object, *_: object) -> None:
        with self._file:
            if error is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        self._writer.files[self._name] = FileRecord(self._digest.hexdigest(), self._size)


class FolderReader:
    """Reads a result back; what is large stays on the disk until somebody looks at it."""

    def __init__(self, folder: Path, code_from: tuple[str, ...]) -> None:
        self.folder = folder
        self.code_from = code_from
        """Packages whose dataclasses may be made: a file never chooses freely what code is loaded."""

    def read(self, tree: Tree) -> Any:
        if isinstance(tree, list):
            return [self.read(each) for each in tree]
        if not isinstance(tree, dict):
            return tree
        match tree:
            case {"noun": noun, "fields": fields}:
                return self._noun(noun)(**{name: self.read(each) for name, each in fields.items()})
            case {"array": name}:
                return self._array(name)
            case {"images": name}:
                offsets = self._array(f"{name}.offsets.npy").tolist()
                path = self.folder / name
                return EncodedImages(partial(_read_part, path, a, b) for a, b in pairwise(offsets))
            case {"files": names}:
                return Files({name: partial(_read_part, self.folder / name) for name in names})
            case {"tuple": items}:
                return tuple(self.read(each) for each in items)
            case {"dict": items}:
                return {self.read(key): self.read(each) for key, each in items}
            case {"float": text}:
                return float(text)
        raise ValueError(f"{self.folder}: expected a kind of value that this code knows; got {sorted(tree)}")

    def _array(self, name: str) -> np.ndarray[Any, Any]:
        path = self.folder / name
        if path.stat().st_size < SMALL_BYTES:
            return np.load(path, allow_pickle=False)
        # copy on write: a stage may work in place and torch does not complain, yet the artefact stays as it is
        return np.load(path, mmap_mode="c", allow_pickle=False)

    def _noun(self, noun: str) -> type:
        module, _, name = noun.partition(":")
        if not any(module == allowed or module.startswith(f"{allowed}.") for allowed in self.code_from):
            raise ValueError(f"{self.folder}: expected a noun of {' or '.join(self.code_from)}; got {noun}")
        found = getattr(importlib.import_module(module), name)
        if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
            raise ValueError(f"{self.folder}: expected a dataclass; got {noun}")
        return found


def _read_part(path: Path, start: int = 0, stop: int | None = None) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(-1 if stop is None else stop - start)
