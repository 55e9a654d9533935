"""Files of trained weights, named by what they hold: never in git, never downloaded from the internet by a run.

    <weights url>/<sha256>     one file; the stages, and the manifests of releases, name it by this digest
    <cache>/weights/<sha256>   its copy on this machine, where the url is elsewhere (s3://...)

Latest and all releases share them: the same digest is one file. Nothing is used whose bytes are not those of its
digest. Nobody waits for a lock: two that fetch the same file at once write the same bytes, and each moves its own into
place whole.

Belongs here: adding, finding, fetching and verifying them. Does not belong here: what a stage calls (cv/weights.py),
which releases use which (releases/weights.py).
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from geomagic_dagster.cv.stage import Stage
from geomagic_dagster.guardrails import child
from geomagic_dagster.guardrails.deadlines import StageTimeout, weights_deadline
from geomagic_dagster.guardrails.failures import Broken, Unavailable, disk_in_words
from geomagic_dagster.guardrails.whole_files import PARTIAL, replace_whole

log = logging.getLogger("geomagic.weights")

PREFIX = "sha256:"
NAME = re.compile(r"[0-9a-f]{64}")
CHUNK_BYTES = 2**22
READ_ONLY = 0o444
PARTIAL_LIVES_S = 24 * 3600.0

_verified: dict[Path, tuple[int, ...]] = {}
"""Files that this process, or the one that it was forked off, has read whole: not again until they change."""


class WeightsMissing(Broken):
    """Nobody has put this file there."""

    failure = "missing"


class WeightsCorrupt(Broken):
    """A file's bytes are not those of its digest."""

    failure = "corrupt"


def wanted_by(stages: Iterable[Stage]) -> dict[str, str]:
    """Every digest that these stages declare, and who uses it, in words."""
    users: dict[str, list[str]] = {}
    for stage in stages:
        for name, digest in sorted(stage.weights.items()):
            users.setdefault(digest, []).append(f"stage {stage.name}, weights {name}")
    return {digest: " and ".join(of) for digest, of in users.items()}


class WeightStore:
    """The files at `url`, a local folder or any fsspec URL.

    Args:
        url: "/some/folder", "s3://bucket/prefix".
        cache: folder of this machine for copies of what lies elsewhere; a local `url` needs none.
    """

    def __init__(self, url: str, cache: Path) -> None:
        self.url = url
        self.fs, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self.here = Path(self._root) if self.is_local else Path(cache)
        """Where files lie on this machine once they are fetched."""

    # --- using them -------------------------------------------------------------------------------

    def path(self, digest: str, of: str = "weights") -> Path:
        """The file of a digest on this machine, verified, fetched where it is not here yet; `of`: for whom.

        Raises: WeightsMissing, WeightsCorrupt; Unavailable where the store does not answer.
        """
        local = self.here / _name(digest)
        with disk_in_words(self._place(digest, of), "weights that can be read"):
            if local.is_file() and _is_right(local):
                return local
            if self.is_local and local.is_file():
                raise self._corrupt(digest, of, _sha256_of(local))
            self._fetch(digest, of)
        return local

    def fetch(self, wanted: Mapping[str, str], remaining_s: float = float("inf")) -> None:
        """Makes sure that all these digests are on this machine and right; `wanted` says of each who uses it.

        Each file has a deadline of its own, and all together `remaining_s`.
        Raises: as `path`; WeightsMissing names all that are missing.
        """
        missing: list[str] = []
        until_s = time.monotonic() + remaining_s
        for digest, of in wanted.items():
            try:
                if not self.is_local:
                    self._fetch_in_time(digest, of, until_s - time.monotonic())
                self.path(digest, of)
            except WeightsMissing as error:
                missing.append(str(error))
        if missing:
            raise WeightsMissing(" ".join(missing))

    # --- keeping them -----------------------------------------------------------------------------

    def add(self, file: Path) -> str:
        """Puts a copy of a file there, also in the place of one whose bytes had changed; returns its digest."""
        digest = PREFIX + _sha256_of(file)
        local = self.here / _name(digest)
        with disk_in_words(self._place(digest, str(file)), "room to write it"):
            if not (local.is_file() and _is_right(local)):
                with open(file, "rb") as source:
                    self._write(local, self._as_digest(source, digest, str(file)))
            if not self.is_local:
                self.fs.put_file(str(local), self._remote(digest))
        return digest

    def sizes(self) -> dict[str, int]:
        """Bytes of every file in the store, by digest. Raises: Unavailable."""
        with disk_in_words(f"weights in {self.url}", "a store that can be read"):
            self.fs.invalidate_cache(self._root)
            try:
                found = self.fs.ls(self._root, detail=True)
            except FileNotFoundError:
                return {}
        names = {each["name"].rstrip("/").rpartition("/")[2]: each["size"] for each in found}
        return {PREFIX + name: size for name, size in sorted(names.items()) if NAME.fullmatch(name)}

    def is_here(self, digest: str) -> bool:
        """Whether this machine has the file; its bytes are not looked at."""
        return (self.here / _name(digest)).is_file()

    def check(self, digest: str, of: str = "weights") -> None:
        """Reads every byte, in the store and on this machine. Raises: WeightsMissing, WeightsCorrupt, Unavailable."""
        with disk_in_words(self._place(digest, of), "weights that can be read"):
            with self._open(digest, of) as source:
                for _ in self._as_digest(source, digest, of):
                    pass
            local = self.here / _name(digest)
            if local.is_file() and (received := _sha256_of(local)) != local.name:
                raise WeightsCorrupt(
                    f"{of}: expected the bytes of {digest[:19]}... in {local}; got others (sha256 {received[:12]}...). "
                    f"It is only this machine's copy: rm -f '{local}', and it is fetched again."
                )

    # --- how it is done ---------------------------------------------------------------------------

    def _fetch_in_time(self, digest: str, of: str, remaining_s: float) -> None:
        """Fetches a file that is not here, in a process of its own: a store may fall silent and never say so.

        So it also starts no thread in a process that others are forked off.
        """
        local = self.here / _name(digest)
        if local.is_file() and _is_right(local):
            return
        deadline = weights_deadline().within(remaining_s)
        try:
            found = child.call(_fetch_here, (self.url, self.here, digest, of), deadline=deadline, log=log)
        except StageTimeout as error:
            left = f", all that was left for {deadline.around}" if deadline.around else ""
            raise Unavailable(
                self._place(digest, of),
                expected=f"all of its bytes within {round(deadline.seconds, 3):g} s{left}",
                received="a store that did not send them",
                do="It is tried again; if it stays, look at the store and at the network between.",
                failure="timeout",
            ) from error
        _verified[local] = found

    def _fetch(self, digest: str, of: str) -> None:
        with self._open(digest, of) as source:
            self._write(self.here / _name(digest), self._as_digest(source, digest, of))

    def _open(self, digest: str, of: str) -> IO[bytes]:
        self.fs.invalidate_cache(self._root)
        try:
            return self.fs.open(self._remote(digest), "rb")
        except FileNotFoundError:
            raise WeightsMissing(
                f"{of}: expected {digest} in {self.url}; got no such file. Put it there on a machine that has it: "
                "geomagic weights add FILE."
            ) from None

    def _write(self, path: Path, content: Iterable[bytes]) -> None:
        """Moves it into place whole, and sweeps away what processes left that were killed a day ago."""
        replace_whole(path, content, READ_ONLY)
        _verified[path] = _signature(path)  # it was verified while it was written
        for old in path.parent.glob(f".*{PARTIAL}"):
            with suppress(FileNotFoundError):  # somebody else was done with it
                if time.time() - old.stat().st_mtime > PARTIAL_LIVES_S:
                    old.unlink()

    def _as_digest(self, source: IO[bytes], digest: str, of: str) -> Iterator[bytes]:
        """The bytes of a file. Raises: WeightsCorrupt at their end, where they are not those of its digest."""
        found = hashlib.sha256()
        while chunk := source.read(CHUNK_BYTES):
            found.update(chunk)
            yield chunk
        if found.hexdigest() != _name(digest):
            raise self._corrupt(digest, of, found.hexdigest())

    def _corrupt(self, digest: str, of: str, received: str) -> WeightsCorrupt:
        return WeightsCorrupt(
            f"{self._place(digest, of)}: expected the bytes that the digest names; got others (sha256 "
            f"{received[:12]}...). Put the right file in its place: geomagic weights add FILE."
        )

    def _place(self, digest: str, of: str) -> str:
        return f"{of} ({digest[:19]}... in {self.url})"

    def _remote(self, digest: str) -> str:
        return f"{self._root}/{_name(digest)}"


def _fetch_here(asked: tuple[str, Path, str, str], log: logging.Logger) -> tuple[int, ...]:
    """In a process of its own: the signature of the file, which is here and right then."""
    url, here, digest, of = asked
    return _signature(WeightStore(url, here).path(digest, of))


def _name(digest: str) -> str:
    """Of its file. A digest never leads to another place: it is 64 hexadecimal digits and nothing else."""
    name = digest.removeprefix(PREFIX)
    if not NAME.fullmatch(name):
        raise ValueError(f"expected {PREFIX} and 64 hexadecimal digits; got {digest!r}")
    return name


def _is_right(path: Path) -> bool:
    """Whether a file holds the bytes that its name says; read only where this process has not done so before."""
    before = _signature(path)
    if _verified.get(path) != before:
        if _sha256_of(path) != path.name:
            return False
        _verified[path] = before
    return True


def _signature(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
