"""A stage that fails as it is told to: in passing, or for ever."""

from __future__ import annotations

import os
from pathlib import Path

from geomagic_dagster.cv.stage import Field, Params, ScanRejected, seconds, stage
from tests.toy_stages.stages.nouns import Mood, Shades


class MoodParams(Params):
    passing_failures: int = Field(0, ge=0, description="Fail so often before it works; counted in $TOY_CALLS.")
    rejects: bool = Field(False, description="Say that the scan can never work.")


@stage(version="1", timeout=seconds(10), retries=2, gpu=True, owner="team:toys")
def mood(shades: Shades, params: MoodParams) -> Mood:
    calls = Path(os.environ.get("TOY_CALLS", os.devnull))
    if calls.exists() and calls.is_file():
        calls.write_text(calls.read_text() + "x")
    if params.rejects:
        raise ScanRejected("mood", expected="a merry room", received="a sad one", do="Scan another room.")
    if calls.is_file() and len(calls.read_text()) <= params.passing_failures:
        raise TimeoutError("the storage did not answer")
    return Mood(shades=shades, score=float(shades.brightness_b.sum()))
