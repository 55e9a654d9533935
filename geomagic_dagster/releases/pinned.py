"""What a scan becomes under a release, as digests: the proof that a hotfix or a replay gives the same bytes.

A release is asked by its own commands, in its own environment, with an empty home: `geomagic scan make-up` and
`geomagic run`, which every release has. Belongs here: those two calls, the digests, and comparing them in words.
Does not belong here: when that is done (cut.py, replay.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomagic_dagster.releases.environments import Environment, own_environment
from geomagic_dagster.releases.record import Pinned, ReleaseError, sha256_of

SEED, FRAMES = 7, 24
SOURCE, PACKAGE = "scan", "package"
WEIGHTS = "GEOMAGIC_WEIGHTS"


@dataclass(frozen=True)
class Result:
    """All that a release made of one scan."""

    records: dict[str, dict[str, Any]]
    """Stage -> what artefact.json says."""
    package: dict[str, str]
    """File -> sha256."""

    @property
    def artefacts(self) -> dict[str, str]:
        """Stage -> digest of its result, whatever its identity."""
        return {stage: content_sha256(record) for stage, record in self.records.items()}


def content_sha256(record: Mapping[str, Any]) -> str:
    """Digest of an artefact's values and files, of what its record says: not of how and by whom it was made."""
    content = {
        "value": record["value"],
        "numbers": record["numbers"],
        "files": {name: each["sha256"] for name, each in record["files"].items()},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def process(environment: Environment, scan: Path, flags: Iterable[str] = (), weights: Path | None = None) -> Result:
    """Processes a scan under a release in an empty home, with the trained weights of a folder.

    Raises: ReleaseError with the release's own words.
    """
    with tempfile.TemporaryDirectory(prefix="geomagic-") as folder:
        home = Path(folder)
        options = [word for flag in flags for word in ("--flag", flag)]
        geomagic(environment, home, "run", str(scan.absolute()), *options, weights=weights)
        packages = [path for path in (home / "packages").iterdir() if path.is_dir()]
        records = [json.loads(path.read_bytes()) for path in (home / "store" / "artefacts").glob("*/*/artefact.json")]
        return Result(
            dict(sorted((record["stage"], record) for record in records)),
            {path.name: sha256_of(path) for path in sorted(packages[0].iterdir())},
        )


def pinned_scan(
    environment: Environment, seed: int = SEED, frames: int = FRAMES, weights: Path | None = None
) -> tuple[Pinned, Result]:
    """What the made-up room of a seed becomes under a release. Raises: ReleaseError."""
    with tempfile.TemporaryDirectory(prefix="geomagic-") as folder:
        scan = Path(folder) / "pinned"
        options = ("--seed", str(seed), "--frames", str(frames), "--clean")
        geomagic(environment, Path(folder), "scan", "make-up", str(scan), *options)
        result = process(environment, scan, weights=weights)
    return Pinned(seed, frames, environment.platform, result.artefacts, result.package), result


def geomagic(environment: Environment, home: Path, *arguments: str, weights: Path | None = None) -> None:
    """Runs a command of a release. Raises: ReleaseError with what it said."""
    dagster_home = home / "dagster"
    dagster_home.mkdir(parents=True, exist_ok=True)
    (dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    elsewhere = {name: value for name, value in os.environ.items() if not name.startswith(("GEOMAGIC_", "DAGSTER_"))}
    env = own_environment(elsewhere) | {"GEOMAGIC_HOME": str(home), "DAGSTER_HOME": str(dagster_home)}
    if weights is not None:
        env[WEIGHTS] = str(weights)
    command = [str(environment.python), "-m", "geomagic_dagster.cli", *arguments]
    done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise ReleaseError(
            f"release {environment.release.version}: geomagic {' '.join(arguments)}",
            expected="it to succeed",
            received=f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-3000:]}",
            do="Run it in a checkout of the same commit to look closer.",
        )


# --- a hotfix -------------------------------------------------------------------------------------


def compare(old: Pinned, new: Pinned, old_manifest: Mapping[str, Any], new_manifest: Mapping[str, Any]) -> list[str]:
    """What a hotfix changed, in words, a line for each stage that it touches.

    Raises: ReleaseError where a stage gives other bytes although neither its code, libraries and settings nor what it
    takes changed: then the hotfix changed something that nobody knows of.
    """
    if old.artefacts[SOURCE] != new.artefacts.get(SOURCE):
        raise ReleaseError(
            f"pinned scan (made-up room {old.seed})",
            expected="the same scan as before, so that results can be compared",
            received="another one",
            do="A hotfix leaves scans/ as it is; what changes there belongs into a new release.",
        )
    before = {each["name"]: each for each in old_manifest["stages"]}
    changed, words, unexplained, same = set[str](), [], [], []
    for stage in new_manifest["stages"]:
        name, was = stage["name"], before.get(stage["name"])
        is_same = old.artefacts.get(name) == new.artefacts.get(name)
        if not is_same:
            changed.add(name)
        why = _changed(was, stage)
        through = sorted({each["name"] for each in stage["inputs"]} & changed)
        if not is_same and not why and not through:
            unexplained.append(name)
        elif why or through:
            reason = "; ".join([*why, *([f"it takes {', '.join(through)}, which changed"] if through else [])])
            words.append(f"{name}: {'the same bytes' if is_same else 'other bytes'} ({reason})")
        else:
            same.append(name)
    words += [f"{name}: is gone" for name in before.keys() - {each["name"] for each in new_manifest["stages"]}]
    files = sorted(name for name in old.package | new.package if old.package.get(name) != new.package.get(name))
    if files and PACKAGE not in changed:
        unexplained.append(f"published {', '.join(files)}")
    if unexplained:
        raise ReleaseError(
            f"pinned scan (made-up room {old.seed}), {', '.join(unexplained)}",
            expected="the bytes of the version before, since neither the stage nor what it takes changed",
            received="other bytes",
            do="Look for what the stage reads beside its inputs; a hotfix changes what it names and nothing else.",
        )
    if same:
        words.append(f"{', '.join(same)}: untouched, the same bytes")
    words.append(f"package: other bytes in {', '.join(files)}" if files else "package: the same bytes in every file")
    return words


def _changed(was: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    if was is None:
        return ["it is new"]
    found = []
    if was["version"] != now["version"]:
        found.append(f"version {was['version']} is {now['version']}")
    if was["code_sha256"] != now["code_sha256"]:
        found.append("its code changed")
    if was["settings"] != now["settings"]:
        found.append("its settings changed")
    if was["weights"] != now["weights"]:
        found.append("its weights changed")
    for name in sorted(was["libraries"].keys() | now["libraries"].keys()):
        old, new = was["libraries"].get(name, "none"), now["libraries"].get(name, "none")
        if old != new:
            found.append(f"{name} {old} is {new}")
    return found
