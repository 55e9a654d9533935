"""What environments have in common lies on the disk once: equal files become hard links of one file.

Installers replace files and never write into them, so a link is as safe as a copy; `release verify` reads all of them
again all the same. An environment that is removed frees what only it had, and nothing has to be swept up.

Belongs here: linking, and what an environment takes. Does not belong here: what is in an environment.
"""

from __future__ import annotations

import ast
import contextlib
import filecmp
import os
import stat
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PYC, MACHINE_CODE = ".pyc", (".nbi", ".nbc")
COMPILER = ("numba", "llvmlite", "numpy")
"""What turns a module of Python into machine code, and decides which."""


@dataclass(frozen=True)
class Usage:
    """Bytes on the disk."""

    total: int
    own: int
    """What removing it would free: nobody else has these."""


def link_shared(environment: Path, others: Sequence[Path], same_compiler: Collection[Path] = ()) -> int:
    """Makes a hard link of every file that another environment has at the same place with the same bytes.

    With a module goes what the other has compiled of it. Returns the bytes that this freed.

    Args:
        same_compiler: those of the others whose machine code is what this environment would compile, too.
    """
    freed = 0
    others = [other for other in others if other != environment]
    for folder, names in _folders(environment):
        inside = folder.relative_to(environment)
        there = {
            other / inside: _compiled(other / inside, other in same_compiler)
            for other in others
            if (other / inside).is_dir()
        }
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
                    link(other / name, path)
                    freed += mine.st_blocks * 512
                break
            if name.endswith(".py"):
                _link_compiled(path, there)
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


def link(there: Path, here: Path) -> None:
    """Makes `here` the same file as `there`, as one step where something else is there."""
    beside = here.with_name(f".{here.name}.linked")
    os.link(there, beside)
    beside.replace(here)


def _compiled(folder: Path, with_machine_code: bool) -> dict[str, list[str]]:
    """Module -> the files with what was compiled of it."""
    found: dict[str, list[str]] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(folder / "__pycache__"):
            if name.endswith(PYC) or (with_machine_code and name.endswith(MACHINE_CODE)):
                found.setdefault(name.partition(".")[0], []).append(name)
    return found


def _link_compiled(module: Path, there: Mapping[Path, Mapping[str, Sequence[str]]]) -> None:
    """What other folders have compiled of this very file; numba's index and what it names from one of them alone."""
    has_machine_code = False
    for other, compiled in there.items():
        names = compiled.get(module.stem, ())
        if not names or (twin := _stat(other / module.name)) is None or not os.path.samestat(twin, os.lstat(module)):
            continue
        if any(name.endswith(MACHINE_CODE) for name in names):
            if has_machine_code or not _stands_alone(module):
                names = [name for name in names if name.endswith(PYC)]
            has_machine_code = True
        for name in sorted(names):  # an index (.nbi) behind what it names (.nbc)
            here = module.parent / "__pycache__" / name
            if not here.exists():
                here.parent.mkdir(exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # it is compiled anew just now
                    os.link(other / "__pycache__" / name, here)


def _stands_alone(module: Path) -> bool:
    """Whether machine code of a module hangs on nothing but its own text, the compiler and Python.

    numba looks at that text alone: a constant or function of another module that changed would not be compiled anew.
    """
    known = {*COMPILER, *sys.stdlib_module_names}
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.ImportFrom) and (node.level or str(node.module).partition(".")[0] not in known):
            return False
        if isinstance(node, ast.Import) and any(alias.name.partition(".")[0] not in known for alias in node.names):
            return False
    return True
