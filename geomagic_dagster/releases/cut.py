"""Cuts a release: a clean commit becomes a record that everything can be made again from.

The wheel is built from the commit, not from the checkout; its environment is made as on any other machine; the
manifest and the proof (pinned.py) come from what runs in that environment. Only when all of that worked does the
record appear in `releases/`, for a person to commit.

Belongs here: the order of these steps, and who may cut what. Does not belong here: how each of them is done.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geomagic_dagster.releases import environments, git, pinned, wheels, workspace
from geomagic_dagster.releases.environments import FOLDER, Environment, Say
from geomagic_dagster.releases.record import (
    HISTORY,
    LOCK,
    MANIFEST,
    RELEASE,
    Pinned,
    Release,
    ReleaseError,
    Version,
    read_release,
    released,
    verify_record,
    with_hashes,
    write_release,
)
from geomagic_dagster.releases.weights import bring_here
from geomagic_dagster.resources.places import Places
from geomagic_dagster.resources.weights import WeightStore

RELEASES = "releases"
WORKSPACE = "workspace.yaml"


@dataclass(frozen=True)
class Cut:
    """A release that was cut."""

    release: Release
    record: Path
    differences: tuple[str, ...]
    """What a hotfix changed, in words; empty for a new line."""


def cut(
    repository: Path,
    home: Path,
    name: str,
    *,
    weights: WeightStore | None = None,
    say: Say = lambda line: None,
    build: Callable[..., Environment] = environments.build,
) -> Cut:
    """Cuts a new line ("1.0"), or a hotfix ("1.0.1") that takes the place of the version before.

    Args:
        weights: where trained weights lie; the home's unless said.
        build: makes the environment; another one in tests.
    Raises: ReleaseError; nothing is left behind then.
    """
    version, records = Version.parse(name), repository / RELEASES
    commit, who = git.clean_commit(repository), git.person(repository)
    old = _replaced(records, version, commit.branch)
    since = old or _before(records, version)
    weights = weights or Places.in_home(home).weights()
    with environments.locked(home, version.line), tempfile.TemporaryDirectory(prefix="geomagic-") as folder:
        draft = Path(folder) / "record"
        draft.mkdir()
        say(f"building the wheel of {commit.sha[:12]} as {version} ...")
        git.export(repository, commit.sha, Path(folder) / "source")
        wheels.build_wheel(Path(folder) / "source", str(version), commit.committed_s, draft)
        shutil.copyfile(Path(folder) / "source" / LOCK, draft / LOCK)
        release = Release(
            line=version.line,
            version=str(version),
            commit=commit.sha,
            branch=commit.branch,
            cut_by=who,
            cut_at=datetime.now(UTC).isoformat(timespec="seconds"),
            python=".".join(map(str, environments.python_version())),
            built_with=wheels.built_with(),
            previous=since.version if since else "",
            changes=git.changes(repository, since.commit if since else "", commit.sha),
        )
        write_release(with_hashes(release, draft), draft)
        environment = build(draft, home, say=say)
        try:
            release, differences = _prove(release, draft, records, environment, old, weights, say, build, home)
            environments.copy_record(draft, environment.folder)
            environments.check_loads(environment, with_libraries=False)
            record = _place(draft, records, old)
            workspace.add(repository / WORKSPACE, version.line)
        except BaseException:
            shutil.rmtree(environment.folder, ignore_errors=True)
            raise
        environments.activate(environment, home)
    return Cut(release, record, tuple(differences))


def _replaced(records: Path, version: Version, branch: str) -> Release | None:
    """The version whose place this one takes; None for a new line. Raises: ReleaseError where it may not be cut."""
    folder = records / version.line
    there = read_release(folder) if (folder / RELEASE).is_file() else None
    if version.patch == 0:
        if there is not None:
            raise ReleaseError(
                f"release {version}",
                expected="a line that is not taken",
                received=f"{there.line}, cut as {there.version} by {there.cut_by} on {there.cut_at[:10]}",
                do=f"The next line is {version.major}.{version.minor + 1}; what is wrong in {there.line} is mended by "
                f"a hotfix: geomagic release cut {_next(there)}, on a branch release-{there.line}.",
            )
        return None
    if there is None or str(version) != _next(there):
        raise ReleaseError(
            f"release {version}",
            expected=_next(there) if there else f"a release {version.line} that it mends",
            received=f"{there.version} as the newest of its line" if there else "none",
            do=f"Cut {_next(there) if there else version.line}.",
        )
    if branch != f"release-{version.line}":
        raise ReleaseError(
            f"release {version}",
            expected=f"the branch release-{version.line}: a hotfix holds the release and its mending, nothing else",
            received=f"the branch {branch}",
            do=f"git switch --create release-{version.line} {there.commit[:12]}, bring releases/ there, and mend it.",
        )
    return there


def _next(release: Release) -> str:
    version = Version.parse(release.version)
    return str(replace(version, patch=version.patch + 1))


def _before(records: Path, version: Version) -> Release | None:
    """The newest release of an older line."""
    older = [each for each in released(records) if _numbers(each.line) < _numbers(version.line)]
    return older[-1] if older else None


def _numbers(line: str) -> tuple[int, ...]:
    return tuple(map(int, line.split(".")))


def _prove(
    release: Release,
    draft: Path,
    records: Path,
    environment: Environment,
    old: Release | None,
    weights: WeightStore,
    say: Say,
    build: Callable[..., Environment],
    home: Path,
) -> tuple[Release, list[str]]:
    """Compiles and runs the pinned scan in the new environment; writes the record whole."""
    say("compiling ...")
    options = ("--output", str(draft / MANIFEST), "--lock", str(draft / LOCK), "--releases", str(records))
    with tempfile.TemporaryDirectory(prefix="geomagic-") as folder:
        pinned.geomagic(environment, Path(folder), "compile", *options)
    weights_here = bring_here(draft, weights)  # a release whose weights nobody has could not be installed
    environments.copy_record(draft, environment.folder)  # from here on it loads, or says why not
    frames = (old.pinned.seed, old.pinned.frames) if old and old.pinned else (pinned.SEED, pinned.FRAMES)
    say(f"processing the pinned scan: made-up room {frames[0]}, {frames[1]} frames ...")
    result, _ = pinned.pinned_scan(environment, *frames, weights_here)
    differences = []
    if old is not None:
        before = _baseline(old, records / old.line, environment.platform, weights, say, build, home)
        differences = pinned.compare(before, result, _manifest(records / old.line), _manifest(draft))
    for path in (environment.folder / FOLDER).glob("environment-*.json"):
        shutil.copyfile(path, draft / path.name)
    release = with_hashes(replace(release, pinned=result), draft)
    write_release(release, draft)
    return verify_record(draft), differences


def _baseline(
    old: Release,
    record: Path,
    platform: str,
    weights: WeightStore,
    say: Say,
    build: Callable[..., Environment],
    home: Path,
) -> Pinned:
    """What the version before makes of the pinned scan on this platform."""
    if old.pinned is not None and old.pinned.platform == platform:
        return old.pinned
    say(f"{old.version} was cut on another platform: processing its pinned scan here ...")
    with tempfile.TemporaryDirectory(dir=home, prefix=".baseline-") as folder:
        share = environments.all_environments(home)
        wheelhouse = home / environments.RELEASES / environments.WHEELS
        environment = build(record, Path(folder), say=say, wheelhouse=wheelhouse, share_with=share)
        seed, frames = (old.pinned.seed, old.pinned.frames) if old.pinned else (pinned.SEED, pinned.FRAMES)
        return pinned.pinned_scan(environment, seed, frames, bring_here(record, weights))[0]


def _manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MANIFEST).read_bytes())


def _place(draft: Path, records: Path, old: Release | None) -> Path:
    """Moves the record to its place whole; what it replaces goes into its history."""
    release = read_release(draft)
    place, beside = records / release.line, records / f".{release.line}.partial"
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(draft, beside)
    if old is None:
        beside.rename(place)
        return place
    history = beside / HISTORY
    if (place / HISTORY).is_dir():
        shutil.copytree(place / HISTORY, history)
    (history / old.version).mkdir(parents=True)
    for path in place.iterdir():
        if path.is_file():
            shutil.copyfile(path, history / old.version / path.name)
    aside = records / f".{release.line}.old"
    place.rename(aside)
    try:
        beside.rename(place)
    except BaseException:
        aside.rename(place)
        raise
    shutil.rmtree(aside)
    return place
