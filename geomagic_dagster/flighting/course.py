"""What the watcher leaves of each flight for people to look at, also when it is over: metrics/flights/<flight>.json.

Belongs here: the form of that file. Does not belong here: the verdict (verdict.py), how it is drawn (the console).
Nothing is decided by it: a flight is judged by its runs alone, and a watcher that starts anew writes the same again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from geomagic_dagster.flighting.verdict import Point, Seen, Verdict
from geomagic_dagster.guardrails.whole_files import replace_whole

FOLDER = "flights"
MOST_POINTS = 200
"""Of a course; a longer one is thinned out, but for its last."""
LONGEST_NAME = 200


@dataclass(frozen=True)
class Course:
    """How the evidence went that a flight is worse, and what it was made of in the end."""

    sentence: str
    needed: float
    """What ends a flight."""
    points: tuple[Point, ...]
    measures: tuple[Seen, ...]
    not_compared: tuple[str, ...]


def write_course(metrics: Path, flight: str, verdict: Verdict) -> None:
    """Raises: OSError."""
    last = len(verdict.course) - 1
    step = max(1, -(-len(verdict.course) // MOST_POINTS))
    points = tuple(point for i, point in enumerate(verdict.course) if i % step == 0 or i == last)
    course = Course(verdict.sentence, verdict.needed, points, verdict.measures, verdict.not_compared)
    replace_whole(_path(metrics, flight), json.dumps(asdict(course)).encode())


def read_course(metrics: Path, flight: str) -> Course | None:
    """None where no watcher has judged it, or nothing can be made of what it left."""
    try:
        said = json.loads(_path(metrics, flight).read_bytes())
        return Course(
            str(said["sentence"]),
            float(said["needed"]),
            tuple(Point(int(runs), float(ended_s), float(evidence)) for runs, ended_s, evidence in said["points"]),
            tuple(
                Seen(str(each["measure"]), float(each["evidence"]), str(each["verb"]), str(each["words"]))
                for each in said["measures"]
            ),
            tuple(map(str, said["not_compared"])),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(metrics: Path, flight: str) -> Path:
    return metrics / FOLDER / f"{quote(flight, safe='')[:LONGEST_NAME]}.json"
