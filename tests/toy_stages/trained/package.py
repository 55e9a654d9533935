"""A letter about the light."""

from __future__ import annotations

from geomagic_dagster.cv.containers import Files
from geomagic_dagster.cv.stage import minutes, stage
from geomagic_dagster.cv.types import Package
from tests.toy_stages.trained.guess import Guess


@stage(version="1", timeout=minutes(1))
def package(guess: Guess) -> Package:
    return Package(files=Files({"letter.txt": f"{guess.warmth:.6f}\n".encode()}))
