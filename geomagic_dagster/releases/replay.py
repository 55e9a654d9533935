"""Replays a scan from the record of a release alone: the environment is made anew, and every byte compared.

Belongs here: what was published or stored then, beside what comes out now. Does not belong here: making the
environment (environments.py), processing (pinned.py).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomagic_dagster.releases import environments, pinned
from geomagic_dagster.releases.environments import Environment, Say
from geomagic_dagster.releases.record import ReleaseError, read_release, record_folder, sha256_of
from geomagic_dagster.releases.weights import bring_here
from geomagic_dagster.resources.places import Places
from geomagic_dagster.resources.weights import WeightStore

RUN = ".run.json"


@dataclass(frozen=True)
class Replay:
    """What became of it."""

    version: str
    same: tuple[str, ...]
    differing: tuple[str, ...]
    """In words; empty where every byte is as it was."""


def replay(
    records: Path,
    home: Path,
    name: str,
    scan: Path,
    *,
    package: Path | None = None,
    artefact: Path | None = None,
    weights: WeightStore | None = None,
    say: Say = lambda line: None,
    build: Callable[..., Environment] = environments.build,
) -> Replay:
    """Processes a scan under a release, and compares with what it became then.

    Args:
        package: `<packages>/<scan>.run.json`, with the package's folder beside it.
        artefact: `<store>/artefacts/<stage>/<identity>/artefact.json`, or its folder.
        weights: where the release's trained weights lie; the home's unless said. What this machine has of them already
            is taken without asking the store.
    Raises: ReleaseError.
    """
    if package is not None:
        then, files = _package(package)
        version = _version(name, then.get("version"))
        flags = [flag for flag in then.get("route", {}).get("flags", "").split(",") if flag]
    elif artefact is not None:
        then, files = _read(artefact / "artefact.json" if artefact.is_dir() else artefact), {}
        version = name  # another release may have made it first: same code, libraries, settings and inputs
        flags = then.get("flags", [])
    else:
        raise ReleaseError(
            "replay", expected="--package or --artefact: what it became then", received="neither", do="Name one."
        )
    record = record_folder(records, version)
    weights_here = bring_here(record, weights or Places.in_home(home).weights())
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=".replay-") as folder:
        wheelhouse, share = home / environments.RELEASES / environments.WHEELS, environments.all_environments(home)
        environment = build(record, Path(folder), say=say, wheelhouse=wheelhouse, share_with=share)
        say(f"processing {scan} under {environment.release.version} ...")
        now = pinned.process(environment, scan, flags, weights_here)
    found = _compare_package(then, files, now) if package is not None else _compare_artefact(then, now)
    return Replay(read_release(record).version, *found)


def _version(asked: str, said: str | None) -> str:
    """The version to replay: the one that the record names, of the line that was asked for."""
    if said is None or said == asked:
        return asked
    if asked.count(".") == 1 and said.startswith(f"{asked}."):
        return said
    raise ReleaseError(
        f"replay under {asked}",
        expected=f"a result of {asked}",
        received=f"one that {said} made",
        do=f"geomagic release replay {said} ...",
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}")
    except (OSError, ValueError) as error:
        raise ReleaseError(
            path, expected="the record of a result, in JSON", received=str(error), do="Look at the path."
        ) from error
    return content


def _package(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    folder = path.with_name(path.name.removesuffix(RUN))
    if not path.name.endswith(RUN) or not folder.is_dir():
        raise ReleaseError(
            path,
            expected=f"<packages>/<scan>{RUN} with the folder of the package beside it",
            received="something else",
            do="Look into the packages' folder.",
        )
    return _read(path), {each.name: sha256_of(each) for each in sorted(folder.iterdir())}


def _compare_package(
    then: dict[str, Any], files: dict[str, str], now: pinned.Result
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = sorted(files | now.package)
    same = [name for name in names if files.get(name) == now.package.get(name)]
    differing = [
        f"{name}: {_said(files.get(name))} then, {_said(now.package.get(name))} now"
        for name in names
        if name not in same
    ]
    for stage in ("scan", "package"):
        identity = now.records[stage]["identity"]
        if then.get(stage) not in (None, identity):
            differing.append(f"identity of {stage}: {then[stage]} then, {identity} now")
    return tuple(same), tuple(differing)


def _compare_artefact(then: dict[str, Any], now: pinned.Result) -> tuple[tuple[str, ...], tuple[str, ...]]:
    record = now.records.get(then["stage"])
    if record is None:
        return (), (f"{then['stage']}: no such stage now",)
    differing = []
    if record["identity"] != then["identity"]:
        differing.append(f"identity: {then['identity']} then, {record['identity']} now")
    before, after = ({name: each["sha256"] for name, each in one["files"].items()} for one in (then, record))
    same = [name for name in before if after.get(name) == before[name]]
    names = sorted((before | after).keys() - set(same))
    differing += [f"{name}: {_said(before.get(name))} then, {_said(after.get(name))} now" for name in names]
    if pinned.content_sha256(then) != pinned.content_sha256(record) and not differing:
        differing.append("values and numbers: others now")
    return tuple(same), tuple(differing)


def _said(digest: str | None) -> str:
    return f"sha256 {digest[:12]}..." if digest else "no such file"
