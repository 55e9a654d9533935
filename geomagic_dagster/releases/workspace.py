"""The entries of releases in workspace.yaml: which code locations there are.

    - python_module:  # release 1.0
        module_name: geomagic_dagster.definitions
        location_name: "1.0"
        executable_path: .home/releases/1.0/env/bin/python

`.home` stands for the home of the installation, wherever that is. Belongs here: adding, removing and resolving
entries; what else is in the file, comments too, stays as it is. Does not belong here: starting anything (launching/).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from geomagic_dagster.releases.environments import ENV, RELEASES, installed
from geomagic_dagster.releases.record import ReleaseError

HOME = ".home"
MODULE = "geomagic_dagster.definitions"
OF_RELEASE = re.compile(rf"{re.escape(HOME)}/{RELEASES}/([0-9.]+)/{ENV}/bin/python")


def add(workspace: Path, line: str) -> None:
    """Adds a release's entry; one that is there stays. Raises: ReleaseError."""
    if any(_line_of(each) == line for each in _entries(workspace)):
        return
    text = workspace.read_text()
    entry = (
        f"  - python_module:  # release {line}\n"
        f"      module_name: {MODULE}\n"
        f'      location_name: "{line}"\n'
        f"      executable_path: {HOME}/{RELEASES}/{line}/{ENV}/bin/python\n"
    )
    _write(workspace, text if text.endswith("\n") else text + "\n", entry)


def remove(workspace: Path, line: str) -> None:
    """Removes a release's entry, where there is one. Raises: ReleaseError."""
    text = workspace.read_text()
    entries = re.split(r"(?m)^(?=  - )", text)
    kept = [each for each in entries if f"{HOME}/{RELEASES}/{line}/{ENV}/" not in each]
    _write(workspace, "".join(kept))


def lines(workspace: Path) -> set[str]:
    """The releases that have an entry: the others are archived. Raises: ReleaseError."""
    return {line for line in map(_line_of, _entries(workspace)) if line}


def _write(workspace: Path, text: str, entry: str = "") -> None:
    beside = workspace.with_name(f".{workspace.name}.partial")
    beside.write_text(text + entry)
    try:
        _entries(beside)
    except ReleaseError:
        beside.unlink()
        raise
    beside.replace(workspace)


def _entries(workspace: Path) -> list[dict[str, Any]]:
    import yaml

    try:
        entries = yaml.safe_load(workspace.read_text())["load_from"]
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise TypeError(f"load_from: {entries!r}")
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ReleaseError(
            workspace,
            expected="a list load_from, with two spaces before every entry",
            received=repr(error),
            do="Restore it from git.",
        ) from error
    return entries


def _line_of(entry: dict[str, Any]) -> str | None:
    """The release of an entry; None for any other."""
    path = (entry.get("python_module") or {}).get("executable_path", "")
    match = OF_RELEASE.fullmatch(str(path))
    return match[1] if match else None


def locations(workspace: Path, home: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """(entries that can be started, the environment of a release as its real path; what is left out, in words).

    Raises: ReleaseError.
    """
    there, left_out = [], []
    for entry in _entries(workspace):
        line = _line_of(entry)
        if line is None:
            there.append(entry)
        elif (environment := installed(home, line)) is None:
            left_out.append(f"release {line} is not installed, and left out: geomagic release install {line}")
        else:
            there.append({"python_module": entry["python_module"] | {"executable_path": str(environment.python)}})
    return there, left_out
