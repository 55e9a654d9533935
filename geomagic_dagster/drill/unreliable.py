"""A store that is somewhere else, and not always there: `unreliable:///folder`.

Belongs here: the fsspec file system of a drill, which pyproject.toml makes known to fsspec. It is a local folder, but
nothing of ours knows that: it is read and written as any store elsewhere, through the local cache. While a file
`<folder>.away` exists, every question is refused; while `<folder>.silent` does, none is answered.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

PROTOCOL = "unreliable"
AWAY, SILENT = ".away", ".silent"


class UnreliableFileSystem(AbstractFileSystem):
    """A local folder behind a wire that can be cut. Every operation first asks whether it is."""

    protocol = PROTOCOL
    cachable = False
    root_marker = "/"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._local = LocalFileSystem(auto_mkdir=True)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + str(path).removeprefix(f"{PROTOCOL}://").strip("/")

    def _there(self, path: str) -> str:
        path = self._strip_protocol(path)
        for folder in (Path(path), *Path(path).parents):
            if Path(f"{folder}{AWAY}").exists():
                raise ConnectionError(f"{PROTOCOL}://{folder}: connection refused")
            while Path(f"{folder}{SILENT}").exists():
                time.sleep(0.1)
        return path

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        return self._local.ls(self._there(path), detail=detail, **kwargs)

    def info(self, path: str, **kwargs: Any) -> Any:
        return self._local.info(self._there(path), **kwargs)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: Any = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **kwargs: Any,
    ) -> Any:
        return self._local.open(self._there(path), mode)

    def put_file(self, lpath: str, rpath: str, *args: Any, **kwargs: Any) -> None:
        """Whole or not at all, as an object store takes it."""
        beside = f"{self._there(rpath)}.{id(self)}.upload"
        self._local.put_file(lpath, beside)
        self._local.mv(beside, self._there(rpath))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        beside = f"{self._there(path)}.{uuid.uuid4().hex}.upload"
        self._local.pipe_file(beside, value)
        if mode == "create":  # only where there is none, as object stores do it by a conditional request
            try:
                os.link(beside, self._there(path))
            finally:
                self._local.rm_file(beside)
        else:
            self._local.mv(beside, self._there(path))

    def mv(self, path1: str, path2: str, recursive: bool = False, maxdepth: Any = None, **kwargs: Any) -> None:
        self._local.mv(self._there(path1), self._there(path2))

    def rm_file(self, path: str) -> None:
        self._local.rm_file(self._there(path))

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        self._local.makedirs(self._there(path), exist_ok=True)
