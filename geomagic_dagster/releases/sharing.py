"""What environments have in common lies on the disk once: equal files become hard links of one file.

Installers replace files and never write into them, so a link is as safe as a copy; `release verify` reads all of them
again all the same. An environment that is removed frees what only it had, and nothing has to be swept up.

Belongs here: linking, and what an environment takes. Does not belong here: what is in an environment.
"""

from __future__ import annotations

import filecmp
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PYC = ".pyc"


@dataclass(frozen=True)
class Usage:
    """Bytes on the disk."""

    total: int
    own: int
    """What removing it would free: nobody else has these."""


def link_shared(environment: Path, others: Sequence[Path]) -> int:
    """Makes a hard link of every file that another environment has at the same place with the same bytes.

    With a module goes what the other has compiled of it. Returns the bytes that this freed.
    """
    freed = 0
    others = [other for other in others if other != environment]
    for folder, names in _folders(environment):
        inside = folder.relative_to(environment)
        there = [other / inside for other in others if (other / inside).is_dir()]
        for name in names if there else ():
            path = folder / name
            mine = os.lstat(path)
            for other in there:
                if (twin := _stat(other / name)) is None or not stat.S_ISREG(twin.st_mode):
                    continue
                if (twin.st_dev, twin.st_size) != (mine.st_dev, mine.st_size):
                    continue
                if twin.st_ino != mine.st_ino:
                    if not filecmp.cmp(path, other / name, shallow=False):
                        continue
                    _link(other / name, path)
                    freed += mine.st_blocks * 512
                if name.endswith(".py"):
                    _link_compiled(other, folder, name.removesuffix(".py"))
                break
    return freed


def usage(environment: Path) -> Usage:
    """What an environment takes on the disk, and what of it only it has."""
    links: Counter[tuple[int, int]] = Counter()
    status: dict[tuple[int, int], os.stat_result] = {}
    for folder, names in _folders(environment):
        for name in names:
            if (found := _stat(folder / name)) is not None:
                links[found.st_dev, found.st_ino] += 1
                status[found.st_dev, found.st_ino] = found
    sizes = {which: found.st_blocks * 512 for which, found in status.items()}
    own = sum(size for which, size in sizes.items() if status[which].st_nlink <= links[which])
    return Usage(sum(sizes.values()), own)


def _folders(environment: Path) -> Iterator[tuple[Path, list[str]]]:
    """(folder, its plain files) of a whole tree; links to elsewhere are not followed."""
    for folder, _, names in os.walk(environment):
        here = Path(folder)
        yield here, sorted(name for name in names if not (here / name).is_symlink())


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _link(there: Path, here: Path) -> None:
    beside = here.with_name(f".{here.name}.linked")
    os.link(there, beside)
    beside.replace(here)


def _link_compiled(other: Path, folder: Path, stem: str) -> None:
    for compiled in (other / "__pycache__").glob(f"{stem}.*{PYC}"):
        here = folder / "__pycache__" / compiled.name
        if not here.exists():
            here.parent.mkdir(exist_ok=True)
            os.link(compiled, here)
