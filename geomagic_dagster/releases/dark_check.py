"""Dark check: with all flags off, new code gives the bytes that the old code gave.

"When you deploy new code, no behaviour should change." Old and new each run in their own interpreter, with their own
libraries, and only digests come back (digest.py).

Belongs here: running the two and comparing, in words. Does not belong here: which scans, from where (the command).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomagic_dagster.guardrails.deadlines import SCAN
from geomagic_dagster.releases.installed import LATEST, installed_release

PACKAGE = "package"
"""The stage whose files people receive."""
KEPT = ("GEOMAGIC_DEVICE",)
"""Variables of ours that both sides are told; places of this installation are none of theirs."""
WEIGHTS = "GEOMAGIC_WEIGHTS"
"""And where the files lie that both may need: each is taken by its digest, so none can be another."""
OWN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables that would show one environment the code of another."""
SHOWN = 4


class NoDigest(Exception):
    """Some code gave no digest of a scan. `str()` has place, expected, received, what to do."""


@dataclass(frozen=True)
class Interpreter:
    """The Python of an environment, and what its release is called here."""

    name: str
    python: Path
    weights: Path | None = None
    """Folder of this machine's files of trained weights."""

    def digest(self, scan: Path) -> dict[str, Any]:
        """What its code makes of a scan (releases/digest.py). Raises: NoDigest."""
        place = f"{self.name}, scan {scan.name}"
        command = [str(self.python), "-m", "geomagic_dagster.cli", "digest", str(scan.absolute()), "--json"]
        with tempfile.TemporaryDirectory(prefix="geomagic-dark-") as folder:  # -m looks for modules here, too
            try:
                done = subprocess.run(
                    command, cwd=folder, env=self._environment(), capture_output=True, text=True, timeout=SCAN.hard_s
                )
            except OSError as error:
                raise NoDigest(
                    f"{place}: expected a Python at {self.python}; got: {error.strerror}. "
                    f"`geomagic release install {self.name}` builds the environment of a release."
                ) from error
            except subprocess.TimeoutExpired as error:
                raise NoDigest(
                    f"{place}: expected an end within {SCAN.hard_s:g} s; got none. Take a smaller scan."
                ) from error
        try:
            return json.loads(done.stdout)
        except ValueError:
            said = "\n  ".join(done.stderr.strip().splitlines()[-10:]) or "nothing on stderr"
            raise NoDigest(
                f"{place}: expected the digests of its artefacts; got exit code {done.returncode} and\n  {said}\n"
                f"Run it alone: {' '.join(command)}"
            ) from None

    def _environment(self) -> dict[str, str]:
        is_this = self.python == Path(sys.executable)
        ours = ("GEOMAGIC_", "DAGSTER_")
        kept = {name: value for name, value in os.environ.items() if name in KEPT or not name.startswith(ours)}
        if self.weights is not None:
            kept[WEIGHTS] = str(self.weights)
        return kept if is_this else {name: value for name, value in kept.items() if name not in OWN}


def interpreter(name: str, home: Path, weights: Path | None = None) -> Interpreter:
    """The Python of latest, of a release by its line (1.0), or the one at a path. Raises: NoDigest."""
    if name == LATEST:
        if (release := installed_release()) is not None:
            raise NoDigest(
                f"{LATEST}: expected this command in the environment of the checkout; got that of release "
                f"{release.version}. Run it there, or name the path of the checkout's python."
            )
        return Interpreter(name, Path(sys.executable), weights)
    if os.sep in name:
        return Interpreter(name, Path(name).absolute(), weights)
    return Interpreter(name, home / "releases" / name / "env" / "bin" / "python", weights)


@dataclass(frozen=True)
class Comparison:
    """What two digests of one scan have in common."""

    scan: str
    differing: tuple[str, ...]
    """Stages whose content differs, in the order of the journey: the first is where it began."""
    files: tuple[str, ...]
    """Files of the first one that differ."""
    package_files: tuple[str, ...]
    """Of those, what people receive."""
    rejected: tuple[str | None, str | None]
    only: tuple[tuple[str, str], ...]
    """(stage, "old" or "new"): stages that the other does not have; a difference only where it shows in the package."""
    same: int
    """Stages whose content is the same."""

    @property
    def is_same(self) -> bool:
        return not self.differing and self.rejected[0] == self.rejected[1]

    def sentence(self) -> str:
        if self.rejected[0] != self.rejected[1]:
            old, new = (f"rejected ({why})" if why else "processed" for why in self.rejected)
            first = f"; {self.differing[0]} differs first" if self.differing else ""
            return f"{self.scan}: old: {old}; new: {new}{first}"
        notes = "".join(f"; stage {stage} is only in the {where} code" for stage, where in self.only)
        if self.is_same:
            rejected = ", and rejected with the same sentence" if self.rejected[0] else ""
            return f"{self.scan}: the same in {self.same} artefacts{rejected}{notes}"
        first, *after = self.differing
        then = f", then {', '.join(after)}" if after else ""
        package = f"; files of the package: {', '.join(self.package_files)}" if self.package_files else ""
        files = ", ".join(self.files[:SHOWN]) + (
            f" and {len(self.files) - SHOWN} more" if len(self.files) > SHOWN else ""
        )
        return f"{self.scan}: {first} differs first ({files}){then}{package}{notes}"


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """Two digests of one scan."""
    before, after = ({each["stage"]: each for each in digest["stages"]} for digest in (old, new))
    common = [name for name in after if name in before]
    differing = [name for name in common if before[name]["files"] != after[name]["files"]]
    is_cut = (old.get("rejected"), new.get("rejected")) != (None, None)  # then one simply came further
    only = [(name, "old") for name in before if name not in after] + [(n, "new") for n in after if n not in before]
    return Comparison(
        scan=str(new["scan"]),
        differing=tuple(differing),
        files=_files(before[differing[0]], after[differing[0]]) if differing else (),
        package_files=_files(before[PACKAGE], after[PACKAGE]) if PACKAGE in differing else (),
        rejected=(old.get("rejected"), new.get("rejected")),
        only=() if is_cut else tuple(only),
        same=len(common) - len(differing),
    )


def _files(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    before, after = old["files"], new["files"]
    return tuple(name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name))


def dark_check(
    old: Interpreter,
    new: Interpreter,
    scans: Iterable[Path],
    say: Callable[[str], None] = lambda sentence: None,
) -> list[Comparison]:
    """Every scan by old and by new code with all flags off; `say` hears a sentence for each. Raises: NoDigest."""
    found = []
    for scan in scans:
        found.append(compare(old.digest(scan), new.digest(scan)))
        say(found[-1].sentence())
    return found
