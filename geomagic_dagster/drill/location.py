"""The code location of a drill: the stages as they are, with short deadlines, that hang when they are told to.

$GEOMAGIC_DRILL names the folder where orders lie: a file there whose name begins with "hang" is one order. The next
stage that begins takes it, once, and from then on holds the interpreter's lock for ever.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from geomagic_dagster import definitions
from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.drill.faults import take_order
from geomagic_dagster.guardrails import execution
from geomagic_dagster.resources import reuse

STAGE_S = float(os.environ.get("GEOMAGIC_DRILL_STAGE_S", "20"))
"""Deadline of every stage; the rooms of a drill are small."""


def _run_stage(*arguments: Any, **named: Any) -> Any:
    if take_order(Path(os.environ["GEOMAGIC_DRILL"]), "hang"):
        sum(itertools.repeat(0, 10**15))
    return execution.run_stage(*arguments, **named)


reuse.run_stage = _run_stage  # the processes of steps are forked off one that has imported this
defs = definitions.build_definitions(
    [replace(stage, timeout_s=min(stage.timeout_s, STAGE_S)) for stage in find_stages()],
    definitions.places_from(os.environ),
    definitions.release_from(os.environ),
)
