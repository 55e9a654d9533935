"""The Python that the environment of a release is made with: one of the minor version that it was cut with.

Compiled libraries are built for a minor version (3.11), so another one would need other files than the record names; a
patch of it (3.11.9) takes the same. Latest may have moved on to a newer Python: the release's is looked for by name.

Belongs here: which interpreters there are, and what one says of itself. Does not belong here: environments
(environments.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from geomagic_dagster.releases.record import Release, ReleaseError

PLATFORM = (
    "import sys, sysconfig; v = sys.version_info; "
    "print(f'cp{v[0]}{v[1]}-{sysconfig.get_platform()}', sys.version.split()[0])"
)
PYENV = "~/.pyenv"
ANSWER_S = 60.0


@dataclass(frozen=True)
class Interpreter:
    """A Python, and what it says of itself."""

    path: Path
    tag: str
    """cp311-linux-x86_64"""
    version: str
    """3.11.7"""


def look_at(python: Path) -> Interpreter:
    """What an interpreter says of itself. Raises: ReleaseError where it is none."""
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", PLATFORM],
            capture_output=True, text=True, errors="replace", check=True, timeout=ANSWER_S,
        )  # fmt: skip
        tag, version = done.stdout.split()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise ReleaseError(
            python,
            expected=f"{python} to be a Python",
            received=said.strip().rpartition("\n")[2],
            do="Nothing was installed.",
        ) from error
    return Interpreter(python, tag, version)


def for_release(release: Release, said: Path | None, environ: Mapping[str, str] = os.environ) -> Interpreter:
    """The interpreter for a release: the one that was named, else this one, else one of its version that is here.

    Raises: ReleaseError where that is not of the version that the release was cut with.
    """
    wanted = minor(release.python)
    found = look_at(said or Path(sys.executable))
    if minor(found.version) == wanted:
        return found
    silent = []
    for python in [] if said else named(wanted, environ):
        try:
            other = look_at(python)
        except ReleaseError:  # a shim of pyenv, whose version is not switched on
            silent.append(str(python))
            continue
        if minor(other.version) == wanted:
            return other
    received = f"Python {found.version}"
    if not said:
        received += f", and no other one on the path or in pyenv that is called python{wanted}"
    if silent:
        received += f" and runs ({', '.join(silent)} did not)"
    raise ReleaseError(
        f"release {release.version}, interpreter {found.path}",
        expected=f"Python {wanted}, as it was cut with",
        received=received,
        do=f"Say where there is one: geomagic release install {release.line} --python /usr/bin/python{wanted}",
    )


def minor(version: str) -> str:
    """3.11 of 3.11.7."""
    return ".".join(version.split(".")[:2])


def named(wanted: str, environ: Mapping[str, str]) -> Iterator[Path]:
    """Everything that is called python3.11: on the path, in its order, then in pyenv's folder, the newest first."""
    folders = [Path(folder) for folder in os.get_exec_path(dict(environ))]
    pyenv = Path(environ.get("PYENV_ROOT") or PYENV).expanduser()
    folders += sorted(pyenv.glob(f"versions/{wanted}.*/bin"), key=_patch, reverse=True)
    for folder in folders:
        if os.access(path := folder / f"python{wanted}", os.X_OK) and path.is_file():
            yield path


def _patch(folder: Path) -> tuple[int, ...]:
    """Of .../3.11.10/bin."""
    return tuple(int(part) for part in folder.parent.name.split(".") if part.isdigit())
