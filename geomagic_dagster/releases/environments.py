"""Environments of releases: a release's own interpreter with its libraries and its code, made from its record.

    <home>/releases/wheels/          downloaded files, for all releases; with them no network is needed
    <home>/releases/1.0/env          a link to the environment in force; it is set last, and as one step
    <home>/releases/1.0/env-<...>/   an environment; the one before stays until the next, for whoever still runs in it
        geomagic-release/            copies of release.toml, manifest.json and the rest: how the code knows what it is

Belongs here: making, finding, starting and removing them. Does not belong here: the record (record.py), pip
(wheels.py), whether an environment is still what was installed (checking.py).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from geomagic_dagster.guardrails.locks import held
from geomagic_dagster.releases import checking, interpreters, sharing, taking, wheels
from geomagic_dagster.releases.installed import FOLDER
from geomagic_dagster.releases.libraries import Say, fill_from_wheels, have_same, read_environment
from geomagic_dagster.releases.record import LOCK, MANIFEST, RELEASE, Release, ReleaseError, sha256_of, verify_record

RELEASES, WHEELS, ENV = "releases", "wheels", "env"
LEAVE_S = 30.0
"""How long processes of a release that is archived have to end."""
OWN = "geomagic-dagster"
OTHER_CODE = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "GEOMAGIC_RELEASE")
COMPILED_ELSEWHERE = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
DEFINITIONS = "geomagic_dagster.definitions"
LOADED = f"""
import sys
from geomagic_dagster.launching.preload import preload
sys.exit("; ".join(f"{{name}}: {{reason}}" for name, reason in preload({DEFINITIONS!r}).items()) or 0)
"""
Fill = Callable[[Path, Path, str, str, Path, bool, Say], str]


@dataclass(frozen=True)
class Environment:
    """An environment that is there, whole."""

    folder: Path
    """Where it really lies: who is started from here keeps to these files, also when a hotfix takes the link."""
    release: Release
    platform: str

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"


def own_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What processes of a release's interpreter may see: nothing that would put other code on their path.

    What they compile stays in their environment, whatever is said for other Pythons: it is there for the next process,
    and for the next release (sharing.py), instead of being compiled by each.
    """
    kept = {name: value for name, value in environ.items() if name not in (*OTHER_CODE, *COMPILED_ELSEWHERE)}
    return kept | {"PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"}


def line_folder(home: Path, line: str) -> Path:
    return home / RELEASES / line


def installed(home: Path, line: str) -> Environment | None:
    """The environment of a release that is in force; None where there is none."""
    link = line_folder(home, line) / ENV
    return _environment(link.resolve()) if link.exists() else None


def _environment(folder: Path) -> Environment:
    from geomagic_dagster.releases.record import read_release

    platform = next(iter(sorted((folder / FOLDER).glob("environment-*.json")))).stem.removeprefix("environment-")
    return Environment(folder, read_release(folder / FOLDER), platform)


def is_in_force(prefix: Path) -> bool:
    """Whether an interpreter's environment is the one of its release; what is no release's is nobody's to replace."""
    if not prefix.name.startswith(f"{ENV}-") or prefix.parent.parent.name != RELEASES:
        return True
    return (prefix.parent / ENV).resolve() == prefix.resolve()


def all_environments(home: Path) -> list[Path]:
    """The folders of all environments in force, and those before: what there is to share with."""
    return sorted(path for path in (home / RELEASES).glob("*/env-*") if (path / FOLDER).is_dir())


# --- making one -----------------------------------------------------------------------------------


def install(
    record: Path,
    home: Path,
    *,
    say: Say = lambda line: None,
    python: Path | None = None,
    wheelhouse: Path | None = None,
    record_new: bool = False,
    share_with: Sequence[Path] = (),
    at: Say = lambda point: None,
    fill: Fill | None = None,
) -> Environment:
    """Makes the environment of a recorded release and puts it in force.

    Args:
        python: the interpreter to make it with; unless said this one, or one of the recorded version that is here.
        wheelhouse: where wheels lie, and downloaded ones go to; the home's unless said.
        record_new: record this platform anew although the record knows it (another build of a library).
        share_with: environments of other homes on this disk.
        at: hears how far it has come; tests end the process there.
        fill: puts the libraries into a new environment; another one in tests.
    Raises: ReleaseError.
    """
    release = verify_record(record)
    with locked(home, release.line):
        environment = build(
            record, home, say=say, python=python, wheelhouse=wheelhouse, record_new=record_new,
            share_with=share_with, at=at, fill=fill,
        )  # fmt: skip
        try:
            check_loads(environment)
            at("checked")
            activate(environment, home)
        except BaseException:
            shutil.rmtree(environment.folder, ignore_errors=True)
            raise
    return environment


def build(
    record: Path,
    home: Path,
    *,
    say: Say = lambda line: None,
    python: Path | None = None,
    wheelhouse: Path | None = None,
    record_new: bool = False,
    share_with: Sequence[Path] = (),
    at: Say = lambda point: None,
    fill: Fill | None = None,
) -> Environment:
    """Makes an environment that is not in force yet; `record` may still lack its manifest. Raises: ReleaseError."""
    from geomagic_dagster.releases.record import read_release

    release = read_release(record)
    wheelhouse = wheelhouse or home / RELEASES / WHEELS
    folder = line_folder(home, release.line) / f"{ENV}-{uuid.uuid4().hex[:8]}"
    _sweep(folder.parent)
    interpreter = interpreters.for_release(release, python)
    try:
        say(f"making an environment with Python {interpreter.version} ({interpreter.path}) ...")
        _run([interpreter.path, "-m", "venv", "--without-pip", folder], f"a new environment in {folder}")
        at("made")
        others = [*all_environments(home), *share_with]
        platform = (fill or partial(fill_from_wheels, others=others))(
            folder, record, interpreter.tag, interpreter.version, wheelhouse, record_new, say
        )
        at("filled")
        own = record / release.wheel
        if not taking.take(own, folder, others):
            wheels.install_own(own, folder / "bin" / "python")
        sharing.link_shared(folder, others, [other for other in others if have_same(sharing.COMPILER, folder, other)])
        usage = sharing.usage(folder)
        say(f"{(usage.total - usage.own) / 1e6:,.0f} MB of it are shared with other releases on this disk")
        at("linked")
        copy_record(record, folder)
    except wheels.PipFailed as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ReleaseError(
            f"release {release.version}", expected="its libraries installed", received=str(error), do="See above."
        ) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Environment(folder, release, platform)


def record_platform(environment: Environment, record: Path) -> Path | None:
    """Adds the environment's platform to the record, where that does not know it; returns the new file."""
    name = f"environment-{environment.platform}.json"
    made, there = environment.folder / FOLDER / name, record / name
    if there.is_file() and there.read_bytes() == made.read_bytes():
        return None
    shutil.copyfile(made, there)
    return there


def differences(environment: Environment, record: Path) -> list[str]:
    """What in an environment is not as its record says, in words; looks at every byte. Raises: ReleaseError."""
    folder, name = environment.folder / FOLDER, f"environment-{environment.platform}.json"
    expected = read_environment(record / name if (record / name).is_file() else folder / name)
    found = checking.differences(environment.folder, {key: each.files_sha256 for key, each in expected.items()}, OWN)
    for each in (RELEASE, MANIFEST, LOCK):
        if not (folder / each).is_file() or sha256_of(folder / each) != sha256_of(record / each):
            found.append(f"{FOLDER}/{each} is not that of the record")
    if checking.wheel_differs(environment.folder, OWN, record / environment.release.wheel):
        found.append(f"{OWN} is not that of {environment.release.wheel}")
    return found


def copy_record(record: Path, folder: Path) -> None:
    """Puts what the code of a release asks for about itself into its environment."""
    (folder / FOLDER).mkdir(exist_ok=True)
    for name in (RELEASE, MANIFEST, LOCK):
        if (record / name).is_file():
            shutil.copyfile(record / name, folder / FOLDER / name)


def check_loads(environment: Environment, *, with_libraries: bool = True) -> None:
    """Imports the release's definitions in the environment, as its code location does.

    Args:
        with_libraries: also all that a run will import later; not where a scan was just processed in it.
    Raises: ReleaseError with what the code says.
    """
    with tempfile.TemporaryDirectory() as home:
        env = own_environment(os.environ) | {"GEOMAGIC_HOME": home}
        code = LOADED if with_libraries else f"import {DEFINITIONS}"
        _run([environment.python, "-c", code], f"release {environment.release.version} to load", env)


def activate(environment: Environment, home: Path) -> None:
    """Puts an environment in force, as one step; the one before stays beside it, older ones go."""
    line = line_folder(home, environment.release.line)
    link, beside = line / ENV, line / f".{uuid.uuid4().hex}.link"
    before = link.resolve() if link.exists() else None
    beside.symlink_to(environment.folder.name)
    beside.replace(link)
    _sweep(line, but=before)


def remove(home: Path, line: str, wait_s: float = LEAVE_S) -> int:
    """Removes all environments of a release; returns the bytes that this freed.

    Raises: ReleaseError where processes still run in one after `wait_s`; nothing new starts in it by then.
    """
    folder = line_folder(home, line)
    with locked(home, line):
        (folder / ENV).unlink(missing_ok=True)
        until_s = time.monotonic() + wait_s
        while (users := processes_in(folder)) and time.monotonic() < until_s:
            time.sleep(0.2)
        if users:
            raise ReleaseError(
                folder,
                expected="nobody who still runs in it",
                received=f"processes {', '.join(map(str, users[:5]))}",
                do=f"Nothing new starts there. When they have ended, say it again: geomagic release archive {line}.",
            )
        freed = sum(sharing.usage(each).own for each in folder.glob(f"{ENV}-*"))
        shutil.rmtree(folder)
    return freed


def processes_in(folder: Path) -> list[int]:
    """The processes whose interpreter lies in a folder; elsewhere than on Linux nobody can tell."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if command.read_bytes().startswith(os.fsencode(folder) + b"/"):
                found.append(int(command.parent.name))
    return sorted(found)


def memory_of(folder: Path) -> int:
    """Bytes of memory that the processes whose interpreter lies in a folder take now, shared pages divided."""
    total = 0
    for pid in processes_in(folder):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


@contextmanager
def locked(home: Path, line: str) -> Iterator[None]:
    """One at a time changes the environments of a release. Raises: ReleaseError where another process does."""
    folder = line_folder(home, line)
    with ExitStack() as lock:
        try:
            lock.enter_context(held(folder / ".lock", wait=False))
        except BlockingIOError:
            raise ReleaseError(
                folder, expected="to be the only one", received="another that installs it right now", do="Wait for it."
            ) from None
        yield


def _sweep(line: Path, but: Path | None = None) -> None:
    """Removes the environments of a release that are neither in force nor `but`, and that nobody runs in: what killed
    installs left, and what hotfixes replaced."""
    link = line / ENV
    kept = {link.resolve() if link.exists() else None, but}
    for each in line.glob(f"{ENV}-*"):
        if each.resolve() not in kept and not processes_in(each):
            shutil.rmtree(each)


def python_version() -> tuple[int, int, int]:
    """Of this process."""
    return sys.version_info[0], sys.version_info[1], sys.version_info[2]


def _run(command: Sequence[str | Path], expected: str, env: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, errors="replace", check=False,
            env=dict(env if env is not None else own_environment(os.environ)),
        )  # fmt: skip
        last = done.stderr.strip().rpartition("\n")[2]  # of a traceback, what it is about
        received = "" if done.returncode == 0 else last or f"exit code {done.returncode}"
    except OSError as error:
        received = str(error)
        done = None
    if done is None or received:
        raise ReleaseError(command[0], expected=expected, received=received, do="Nothing was installed.")
    return done.stdout
