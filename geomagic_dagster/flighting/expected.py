"""The ranges in which a release's numbers are expected, from its manifest.

Belongs here: reading `expects` of all stages. Does not belong here: compiling a manifest (releases/manifest.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from geomagic_dagster.cv.stage import Stage
from geomagic_dagster.flighting.runs import Ranges

MANIFEST = Path("env", "geomagic-release", "manifest.json")
"""In the folder of an installed release."""


def ranges_of_release(release: str, releases: Path) -> Ranges:
    """Expected ranges by "stage.number"; those of this checkout where the release is not installed on this machine.

    Args:
        releases: folder of the installed releases.
    """
    try:
        manifest = json.loads((releases / release / MANIFEST).read_bytes())
    except FileNotFoundError:
        from geomagic_dagster.cv.stage import find_stages

        return ranges_of_stages(find_stages())
    return {
        f"{stage['name']}.{number}": (_bound(low, -math.inf), _bound(high, math.inf))
        for stage in manifest["stages"]
        for number, (low, high) in (stage.get("expects") or {}).items()
    }


def ranges_of_stages(stages: Iterable[Stage]) -> Ranges:
    return {f"{stage.name}.{number}": bounds for stage in stages for number, bounds in stage.expects.items()}


def _bound(said: Any, otherwise: float) -> float:
    """A number; JSON has none for infinity, so that it stands as text or null."""
    return otherwise if said is None else float(said)
