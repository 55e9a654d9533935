"""Wheels: the project's own, built the same bytes from the same commit; those of a lock, kept for the next install.

pip is asked for all of it. Belongs here: those calls, and which file gave which distribution. Does not belong here:
environments (environments.py).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from geomagic_dagster.releases.record import ReleaseError, sha256_of

SAID_LINES = 6


class PipFailed(Exception):
    """pip did not do what it was asked for; `str()` is the end of what it said."""


@dataclass(frozen=True)
class Wheel:
    """One distribution, and the file that it is installed from."""

    version: str
    file: str
    sha256: str

    def is_in(self, wheelhouse: Path) -> bool:
        """Whether this very file lies there."""
        path = wheelhouse / self.file
        return path.is_file() and sha256_of(path) == self.sha256


def pip(*arguments: str, env: Mapping[str, str] | None = None, say: Callable[[str], None] | None = None) -> None:
    """Raises: PipFailed; ReleaseError where this environment has no pip.

    Args:
        say: hears what is downloaded, a line for each file.
    """
    if importlib.util.find_spec("pip") is None:
        raise ReleaseError(
            sys.prefix,
            expected="pip, which builds and installs",
            received="an environment without it",
            do="Put it there: python -m ensurepip.",
        )
    quiet = ("--disable-pip-version-check", "--no-input", *(("--progress-bar", "off") if say else ("-qq",)))
    process = subprocess.Popen(
        [sys.executable, "-m", "pip", *arguments, *quiet],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=dict(os.environ if env is None else env),
        umask=0o022,  # rights of files are written into wheels
    )
    last: deque[str] = deque(maxlen=SAID_LINES)
    with process:
        for line in process.stdout or ():
            last.append(line.rstrip())
            if say and line.strip().startswith("Downloading "):
                say(line.strip())
    if process.returncode != 0:
        raise PipFailed("\n".join(last).strip())


# --- the project's own ----------------------------------------------------------------------------


def built_with() -> str:
    """What builds the wheel; it stands in the record, since another one may give other bytes."""
    return f"setuptools {importlib.metadata.version('setuptools')}"


def build_wheel(source: Path, version: str, committed_s: int, out: Path) -> Path:
    """The wheel of the project in a folder, under a version; without the network.

    The same files, version and time give the same bytes. Changes the version in the folder's pyproject.toml.
    """
    project = source / "pyproject.toml"
    text, count = re.subn(r'(?m)^version = ".*"$', f'version = "{version}"', project.read_text(), count=1)
    if count != 1:
        raise ReleaseError(
            project, expected='a line version = "..."', received="none", do="The version of a wheel is written there."
        )
    project.write_text(text)
    if importlib.util.find_spec("setuptools") is None:
        raise ReleaseError(
            sys.prefix,
            expected="setuptools, which builds the wheel without the network",
            received="an environment without it",
            do="Put it there: python -m pip install 'setuptools>=80'.",
        )
    env = os.environ | {"SOURCE_DATE_EPOCH": str(committed_s), "PYTHONHASHSEED": "0"}
    try:
        pip(
            *("wheel", "--no-build-isolation", "--no-deps", "--no-index"),
            *("--wheel-dir", str(out), str(source)),
            env=env,
        )
    except PipFailed as error:
        raise ReleaseError(source, expected="a wheel", received=str(error), do="Mend what pip names.") from error
    (wheel,) = out.glob("*.whl")
    return wheel


# --- those of a lock ------------------------------------------------------------------------------


def requirements_of(wheels: Mapping[str, Wheel]) -> str:
    """A requirements file that takes these very files and no others."""
    return "".join(f"{name}=={each.version} --hash=sha256:{each.sha256}\n" for name, each in sorted(wheels.items()))


def fetch(
    requirements: Path,
    wheelhouse: Path,
    python: Path | None = None,
    *,
    say: Callable[[str], None] | None = None,
) -> None:
    """Downloads what a requirements file names into the wheelhouse; what is there already stays. Raises: PipFailed.

    A killed download leaves nothing in the wheelhouse: the files are moved there whole.

    Args:
        python: the interpreter that they are for; this one unless said.
        say: hears what is downloaded.
    """
    wheelhouse.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wheelhouse, prefix=".") as folder:
        pip(
            *(("--python", str(python)) if python else ()),
            *("wheel", "--requirement", str(requirements)),
            *("--find-links", str(wheelhouse), "--wheel-dir", folder),
            say=say,
        )
        for path in Path(folder).glob("*.whl"):
            path.replace(wheelhouse / path.name)


def install(requirements: Path, wheelhouse: Path, python: Path, *, with_needs: bool = True) -> dict[str, Wheel]:
    """Installs what a requirements file names from the wheelhouse alone; says what it installed.

    What is there in that version already stays. Raises: PipFailed.

    Args:
        with_needs: what these need, too, and only where all of it fits together.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip(
            *("--python", str(python), "install", "--no-index", "--no-compile", "--report", str(report)),
            *("--find-links", str(wheelhouse), "--requirement", str(requirements)),
            *(() if with_needs else ("--no-deps",)),
        )
        installed = json.loads(report.read_bytes())["install"]
    found = {}
    for each in installed:
        path = Path(unquote(urlsplit(each["download_info"]["url"]).path))
        name = re.sub(r"[-_.]+", "-", each["metadata"]["name"]).lower()
        found[name] = Wheel(each["metadata"]["version"], path.name, sha256_of(path))
        if not (wheelhouse / path.name).exists():  # pip was told of another folder too: keep it for the next time
            beside = wheelhouse / f".{path.name}.partial"
            shutil.copyfile(path, beside)
            beside.replace(wheelhouse / path.name)
    return dict(sorted(found.items()))


def install_own(wheel: Path, python: Path) -> None:
    """Installs the project's wheel into an environment that has its dependencies. Raises: PipFailed."""
    pip("--python", str(python), "install", "--no-index", "--no-deps", "--no-compile", str(wheel))
