"""Compile: the stages become one JSON document, which is what is reviewed, approved and locked.

The same commit compiles to the same manifest on any machine: versions of libraries are those of the lock, not those
that happen to be installed, and of Python it holds what the project requires. Its form is manifest.schema.json.

Belongs here: what is in a manifest, its checks, and whether some code is what a manifest says. Does not belong here:
the difference of two in words (diff.py), where manifests of releases lie in an environment (installed.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import geomagic_dagster
from geomagic_dagster.cv.code import code_behind, normal_name
from geomagic_dagster.cv.stage import Stage, StageError, in_order
from geomagic_dagster.guardrails import deadlines
from geomagic_dagster.releases.installed import LATEST, ReleaseBroken, installed_release, made_anew
from geomagic_dagster.releases.nouns import schema_of, type_in_words

SCHEMA = 1
PACKAGE = Path(geomagic_dagster.__file__).parent
REPOSITORY = PACKAGE.parent
MANIFEST = "manifest.json"
SHOWN = 5

Manifest = dict[str, Any]


class ManifestError(StageError):
    """The stages do not compile, or a manifest is not one; the message says where, and what to do."""


def compile_manifest(
    stages: Iterable[Stage],
    lock: Path | None,
    *,
    newest: Mapping[str, Any] | None = None,
    python: str | None = None,
) -> Manifest:
    """The manifest of these stages; equal for equal code, whatever the machine.

    Args:
        lock: the dependency lock; without one there are no versions but those that are installed.
        newest: manifest of the newest release: where a result has other fields than there, its stage needs another
            version.
        python: versions of Python that it runs on; those that the project requires unless said.
    Raises: StageError for an unknown input, a cycle, types that disagree, deadlines that do not nest, a library that
    is not in the lock, other fields without another version.
    """
    stages = in_order({each.name: each for each in stages})
    deadlines.check_nesting(stages, deadlines.SCAN)
    manifest = _describe(stages, lock, required_python() if python is None else python)
    if newest is not None:
        _check_versions(manifest, newest)
    return manifest | {"sha256": manifest_sha256(manifest)}


def _describe(stages: Sequence[Stage], lock: Path | None, python: str) -> Manifest:
    packages = read_lock(lock) if lock is not None else {}
    described = [_stage(each, packages, lock) for each in stages]
    return {
        "schema": SCHEMA,
        "stages": described,
        "flags": sorted({flag for each in stages for flag in each.flags}),
        "deadlines": {
            "read_s": deadlines.read_deadline().seconds,
            "scan_s": deadlines.SCAN.seconds,
            "run_s": deadlines.RUN_S,
        },
        "reading_sha256": _sources(PACKAGE / "scans", but=("made_up",)),
        "platform_sha256": _sources(PACKAGE, but=("cv", "scans"), besides=("cv/stage.py", "cv/code.py")),
        "python": python,
        "lock": None
        if lock is None
        else {"sha256": hashlib.sha256(lock.read_bytes()).hexdigest(), "packages": packages},
    }


def manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """Of its canonical JSON, its own digest left out."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(manifest: Mapping[str, Any]) -> str:
    """As it is committed: sorted, a value a line, so that a reviewer reads what changed."""
    return json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Raises: ManifestError where there is none, or it is not as it was written."""
    try:
        manifest = json.loads(path.read_bytes())
        said, is_ = manifest["sha256"], manifest_sha256(manifest)
    except FileNotFoundError:
        do = "`geomagic compile --output FILE` writes one."
        raise ManifestError(f"{path}: expected a manifest; got no such file. {do}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(
            f"{path}: expected a manifest in JSON; got {type(error).__name__}: {error}. Restore it from git."
        ) from error
    if said != is_:
        raise ManifestError(
            f"{path}: expected a manifest with sha256 {is_[:12]}..., which is that of its content; got one that says "
            f"{str(said)[:12]}.... It was edited: restore it from git."
        )
    return manifest


def check_installed(stages: Iterable[Stage]) -> None:
    """Raises: ReleaseBroken where this environment holds a release and these stages are not those of its manifest."""
    if (installed := installed_release()) is not None:
        check_against(stages, installed.manifest(), f"release {installed.version}", made_anew(installed.line))


def check_against(
    stages: Iterable[Stage], recorded: Mapping[str, Any], release: str = "the release", do: str = ""
) -> None:
    """Raises: ReleaseBroken naming every place where the code is not what a manifest recorded (the first few)."""
    if recorded.get("sha256") != manifest_sha256(recorded):
        raise ReleaseBroken(
            f"manifest of {release}: expected content with sha256 {str(recorded.get('sha256'))[:12]}..., as it says; "
            f"got {manifest_sha256(recorded)[:12]}.... It was edited. {do}"
        )
    found = _describe(list(stages), None, str(recorded.get("python")))
    places = list(_disagreements(_comparable(recorded), _comparable(found), ""))
    if places:
        more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        raise ReleaseBroken(
            f"{release}: its code is not what its manifest says: {'; '.join(places[:SHOWN])}{more}. {do}"
        )


# --- where manifests and locks lie ---------------------------------------------------------------


def read_lock(lock: Path) -> dict[str, str]:
    """Distribution and version of every line `name==version` of a dependency lock. Raises: ManifestError."""
    found: dict[str, str] = {}
    try:
        lines = lock.read_text().splitlines()
    except OSError as error:
        raise ManifestError(
            f"{lock}: expected the dependency lock; got: {error.strerror}. `make lock` writes it."
        ) from error
    for line in lines:
        if match := re.match(r"([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", line):
            found[normal_name(match[1])] = match[2]
        elif line.strip() and not line.lstrip().startswith(("#", "-")):
            raise ManifestError(
                f"{lock}: expected lines like numpy==2.2.1; got {line.strip()!r}. `make lock` pins them."
            )
    return dict(sorted(found.items()))


def required_python() -> str:
    """Which versions of Python the project runs on; which one a release was cut with, its release.toml says."""
    project = REPOSITORY / "pyproject.toml"
    if project.is_file():  # a checkout: what its editable installation said once may be out of date
        return str(tomllib.loads(project.read_text())["project"]["requires-python"])
    return str(metadata.metadata("geomagic-dagster")["Requires-Python"])


def newest_manifest(releases: Path) -> Manifest | None:
    """That of the newest release that is recorded in a folder; None where there is none yet."""
    lines = [folder for folder in releases.glob("*") if (folder / MANIFEST).is_file() and _numbers(folder.name)]
    return read_manifest(max(lines, key=lambda folder: _numbers(folder.name)) / MANIFEST) if lines else None


def recorded_manifest(name: str, releases: Path) -> Manifest:
    """The manifest of a line (1.0), a version (1.0.1) or a file (its path). Raises: ManifestError."""
    if Path(name).suffix == ".json":
        return read_manifest(Path(name))
    line = ".".join(name.split(".")[:2])
    in_history = releases / line / "history" / name / MANIFEST
    place = in_history if in_history.is_file() else releases / line / MANIFEST
    if not place.is_file():
        known = sorted((folder.name for folder in releases.glob("*") if _numbers(folder.name)), key=_numbers)
        raise ManifestError(
            f"release {name!r}: expected one that is recorded in {releases}, or {LATEST}; got none of this name. "
            f"There are: {', '.join([*known, LATEST])}."
        )
    manifest = read_manifest(place)
    if place is not in_history and name.count(".") == 2:
        said = str(tomllib.loads((place.parent / "release.toml").read_text()).get("version"))
        if said != name:
            raise ManifestError(
                f"release {name!r}: expected it in {place.parent}; got {said} there. Say {said} or {line}."
            )
    return manifest


def _numbers(line: str) -> tuple[int, ...]:
    return tuple(map(int, line.split("."))) if re.fullmatch(r"\d+(\.\d+)*", line) else ()


# --- what is in it -------------------------------------------------------------------------------


def _stage(stage: Stage, packages: Mapping[str, str], lock: Path | None) -> dict[str, Any]:
    nouns = schema_of(stage.returns)
    return {
        "name": stage.name,
        "version": stage.version,
        "code_sha256": stage.code_sha256,
        "inputs": [{"name": name, "type": _type_of_input(stage, name)} for name in stage.inputs],
        "returns": {"noun": type_in_words(stage.returns), "sha256": _digest(nouns), "fields": nouns},
        "settings": _settings(stage),
        "deadline_s": stage.timeout_s,
        "retries": stage.retries,
        "retry_timeouts": stage.retry_timeouts,
        "gpu": stage.gpu,
        "memory_gb": stage.memory_gb,
        "owner": stage.owner,
        "expects": {name: [_bound(low), _bound(high)] for name, (low, high) in sorted(stage.expects.items())},
        "flags": list(stage.flags),
        "weights": dict(sorted(stage.weights.items())),
        "libraries": _locked(stage, packages, lock),
    }


def _type_of_input(stage: Stage, name: str) -> str:
    return type_in_words(typing.get_type_hints(stage.function)[name])


def _settings(stage: Stage) -> dict[str, Any]:
    schema = stage.params.model_json_schema()
    try:
        json.dumps(schema, allow_nan=False)
    except ValueError as error:
        raise ManifestError(
            f"stage {stage.name}: expected settings whose defaults are finite numbers, text, lists of these; got one "
            "that JSON cannot hold. Give it a finite default."
        ) from error
    return schema


def _bound(number: float) -> float | None:
    """None: no bound, which JSON has no number for."""
    return float(number) if math.isfinite(number) else None


def _locked(stage: Stage, packages: Mapping[str, str], lock: Path | None) -> dict[str, str]:
    """Versions of a stage's libraries, those of the lock where there is one."""
    if lock is None:
        return {name: _public(version) for name, version in sorted(stage.libraries.items())}
    if unknown := code_behind(stage.function.__module__).unknown:  # somewhere else they would be in the manifest
        raise ManifestError(
            f"stage {stage.name}: expected every library that its code imports to be installed here; got "
            f"{', '.join(unknown)}, of no installed distribution. `make setup` installs what {lock.name} names; "
            "a new library is named in pyproject.toml, then: make lock setup."
        )
    for name, version in sorted(stage.libraries.items()):
        if name not in packages:
            raise ManifestError(
                f"stage {stage.name}: expected its libraries in {lock.name}; got {name} {version}, which is not in it. "
                "Add it to the dependencies in pyproject.toml and run `make lock`."
            )
    return {name: packages[name] for name in sorted(stage.libraries)}


def _public(version: str) -> str:
    """2.13.0 of 2.13.0+cpu: which build of it is installed belongs to the machine."""
    return version.partition("+")[0]


def _sources(folder: Path, but: Sequence[str] = (), besides: Sequence[str] = ()) -> str:
    """A digest of all Python sources in a folder, some subfolders left out but for some files in them."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
        parts = path.relative_to(folder).parts
        if parts[0] not in but or "/".join(parts) in besides:
            digest.update("/".join(parts).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# --- what is wrong with it -----------------------------------------------------------------------


def _check_versions(manifest: Manifest, newest: Mapping[str, Any]) -> None:
    """Raises: ManifestError where a result has other fields than in the newest release, and the same version."""
    before = {each["name"]: each for each in newest["stages"]}
    for stage in manifest["stages"]:
        old = before.get(stage["name"])
        if old is None or old["version"] != stage["version"] or old["returns"] == stage["returns"]:
            continue
        place = next(
            _disagreements(
                {old["returns"]["noun"]: old["returns"]["fields"]},
                {stage["returns"]["noun"]: stage["returns"]["fields"]},
                "",
            )
        )
        raise ManifestError(
            f"stage {stage['name']}: expected another version than {stage['version']!r}, that of the newest release, "
            f"since what it returns has other fields; got the same one. {place}. Raise version= in its @stage."
        )


def _comparable(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the code alone decides, by the names of stages, which says where something is better than a number does."""
    rest = {name: value for name, value in manifest.items() if name not in ("sha256", "lock", "stages", "schema")}
    stages = {
        f"stage {each['name']}": {
            **each,
            "inputs": {given["name"]: given["type"] for given in each["inputs"]},
            "libraries": {name: _public(version) for name, version in each["libraries"].items()},
        }
        for each in manifest["stages"]
    }
    return {"order of stages": [each["name"] for each in manifest["stages"]], **stages, **rest}


def _disagreements(recorded: Any, found: Any, place: str) -> Iterator[str]:
    if isinstance(recorded, dict) and isinstance(found, dict):
        for name in [*recorded, *(name for name in found if name not in recorded)]:
            yield from _disagreements(
                recorded.get(name, "nothing"), found.get(name, "nothing"), f"{place}, {name}" if place else name
            )
    elif recorded != found:
        yield f"{place}: recorded {_short(recorded)}, found {_short(found)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
