"""The libraries of an environment: installed from a release's record or its lock, and written down.

    <environment>/geomagic-release/environment-<platform>.json   distribution -> its wheel, and the digest of its files

Belongs here: which wheels, downloaded, linked or unpacked in which order. Does not belong here: pip (wheels.py),
linking (taking.py), the rest of an environment (environments.py).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from geomagic_dagster.releases import checking, taking, wheels
from geomagic_dagster.releases.installed import FOLDER
from geomagic_dagster.releases.record import LOCK, ReleaseError, sha256_of

SCHEMA = 1
Say = Callable[[str], None]


def fill_from_wheels(
    folder: Path,
    record: Path,
    tag: str,
    version: str,
    wheelhouse: Path,
    record_new: bool,
    say: Say,
    others: Sequence[Path] = (),
) -> str:
    """Installs the libraries and writes environment-<platform>.json; returns the platform.

    Where the record knows this platform, exactly the recorded files are taken. Else those that the lock gives here
    are, and recorded.

    Args:
        others: environments whose files may be linked instead of unpacked.
    """
    known = [] if record_new else sorted(record.glob(f"environment-{tag}*.json"))
    failures = []
    for path in known:
        there = read_environment(path)
        wanted = {name: each.wheel for name, each in there.items()}
        try:
            _bring(wanted, wheelhouse, folder / "bin" / "python", say)
            _install_these(_take(wanted, folder, wheelhouse, others, say), wheelhouse, folder / "bin" / "python")
        except wheels.PipFailed as error:
            failures.append(f"{path.name}: {error}")
            continue
        target = folder / FOLDER / path.name
        target.parent.mkdir()
        shutil.copyfile(path, target)
        if wrong := checking.differences(folder, {name: each.files_sha256 for name, each in there.items()}):
            raise ReleaseError(
                path, expected="the files that it records", received="; ".join(wrong), do="Another installer? Tell us."
            )
        return path.stem.removeprefix("environment-")
    if failures:
        raise ReleaseError(
            f"{record}, platform {tag}",
            expected="the very files that the record names, by their sha256",
            received="\n".join(failures),
            do="Get these wheels (--wheels FOLDER), or say --record-new to record this machine's builds beside them.",
        )
    installed_ = _from_lock((record / LOCK).read_text(), folder, tag, wheelhouse, () if record_new else others, say)
    variant = "-".join(sorted({each.version.partition("+")[2] for each in installed_.values()} - {""}))
    platform = f"{tag}-{variant}" if variant else tag
    while (record / f"environment-{platform}.json").is_file():  # other builds of the same: recorded beside
        platform += "-again"
    write_environment(folder, record, platform, version, installed_)
    return platform


def _from_lock(
    lock: str, folder: Path, tag: str, wheelhouse: Path, others: Sequence[Path], say: Say
) -> dict[str, wheels.Wheel]:
    """Installs what a lock says; of what other environments have already, the same wheels."""
    wanted = taking.chosen(lock, [each for other in others for each in _wheels_in(other, tag)])
    wanted = {name: wheel for name, wheel in wanted.items() if wheel.is_in(wheelhouse)}
    left = _take(wanted, folder, wheelhouse, others, say)
    taken = {name: wheel for name, wheel in wanted.items() if name not in left}
    python = folder / "bin" / "python"
    with _file(lock) as file:  # whole: pip installs what is not there yet, and looks whether all of it fits together
        try:
            installed = wheels.install(file, wheelhouse, python)
        except wheels.PipFailed:
            say(f"downloading what is missing in {wheelhouse} ...")
            wheels.fetch(file, wheelhouse, python, say=say)
            installed = wheels.install(file, wheelhouse, python)
    return dict(sorted((taken | installed).items()))


def have_same(names: Sequence[str], *environments: Path) -> bool:
    """Whether environments were made with the same wheels of these libraries."""
    there = [each for environment in environments for each in _wheels_in(environment)]
    return len(there) == len(environments) and len({tuple(map(each.get, names)) for each in there}) == 1


def _wheels_in(environment: Path, tag: str = "") -> Iterator[dict[str, wheels.Wheel]]:
    """What an environment was made with, once; nothing where it was made for another platform, or cannot say."""
    for path in (environment / FOLDER).glob(f"environment-{tag}*.json"):
        with suppress(ReleaseError):  # a damaged one: nothing is taken from there, and `release verify` says so
            yield {name: each.wheel for name, each in read_environment(path).items()}


def _take(
    wanted: Mapping[str, wheels.Wheel], folder: Path, wheelhouse: Path, others: Sequence[Path], say: Say
) -> dict[str, wheels.Wheel]:
    """Installs what other environments have, of wheels that lie here; returns what is left to be unpacked."""
    left = {
        name: wheel
        for name, wheel in wanted.items()
        if not (others and taking.take(wheelhouse / wheel.file, folder, others))
    }
    if taken := len(wanted) - len(left):
        say(f"{taken} libraries are linked from other releases on this disk ...")
    return left


def write_environment(
    folder: Path, record: Path, platform: str, version: str, installed_: Mapping[str, wheels.Wheel]
) -> None:
    """Says in an environment what was installed into it."""
    content = {
        "schema": SCHEMA,
        "platform": platform,
        "python": version,
        "lock_sha256": sha256_of(record / LOCK),
        "distributions": {
            name: asdict(wheel) | {"files_sha256": checking.files_sha256(folder, name)}
            for name, wheel in installed_.items()
        },
    }
    target = folder / FOLDER / f"environment-{platform}.json"
    target.parent.mkdir()
    target.write_text(json.dumps(content, indent=1) + "\n")


@dataclass(frozen=True)
class Distribution:
    """What an environment's record says of one library."""

    wheel: wheels.Wheel
    files_sha256: str
    """Of the list of its files with their hashes, as they lie in an environment."""


def read_environment(path: Path) -> dict[str, Distribution]:
    """Raises: ReleaseError."""
    try:
        content = json.loads(path.read_bytes())
        return {
            name: Distribution(wheels.Wheel(each["version"], each["file"], each["sha256"]), each["files_sha256"])
            for name, each in content["distributions"].items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError(
            path, expected="the record of an environment", received=repr(error), do="Restore it from git."
        ) from error


def _install_these(wanted: Mapping[str, wheels.Wheel], wheelhouse: Path, python: Path) -> None:
    if wanted:
        with _file(wheels.requirements_of(wanted)) as file:
            wheels.install(file, wheelhouse, python, with_needs=False)


def _bring(wanted: Mapping[str, wheels.Wheel], wheelhouse: Path, python: Path, say: Say) -> None:
    """Downloads these very wheels where the wheelhouse has not all of them. Raises: PipFailed."""
    if missing := [wheel.file for wheel in wanted.values() if not wheel.is_in(wheelhouse)]:
        say(f"downloading what is missing in {wheelhouse}: {len(missing)} of {len(wanted)} libraries ...")
        with _file(wheels.requirements_of(wanted)) as file:
            wheels.fetch(file, wheelhouse, python, say=say)


@contextmanager
def _file(requirements: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text(requirements)
        yield path
