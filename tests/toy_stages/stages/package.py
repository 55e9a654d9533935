"""A letter about the room."""

from __future__ import annotations

from geomagic_dagster.cv.containers import Files
from geomagic_dagster.cv.stage import minutes, stage
from geomagic_dagster.cv.types import Package, Scan
from tests.toy_stages.stages.nouns import Mood


@stage(version="1", timeout=minutes(1))
def package(scan: Scan, mood: Mood) -> Package:
    return Package(files=Files({"letter.txt": f"{scan.name}: {mood.score:.6f}\n".encode(), "empty.bin": b""}))


def measure_package(package: Package) -> dict[str, float]:
    return {"bytes": float(len(package.files["letter.txt"]))}
