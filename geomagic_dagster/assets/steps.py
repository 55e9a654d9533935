"""What an asset and an op of one stage have in common, which is everything but how Dagster calls them.

Belongs here: one stage, given artefacts and a filled-in form, becomes an artefact and its metadata. Does
not belong here: executing (guardrails/execution.py), deciding whether to (resources/reuse.py).
"""

from collections.abc import Mapping
from typing import Any

from dagster import Config, OpExecutionContext

from geomagic_dagster.assets.metadata import shown
from geomagic_dagster.cv.stage import Stage
from geomagic_dagster.guardrails.execution import numbers_out_of_range
from geomagic_dagster.guardrails.failures import sorted_failures
from geomagic_dagster.resources.places import Places
from geomagic_dagster.resources.reuse import make_or_reuse
from geomagic_dagster.resources.shelf import PACKAGE
from geomagic_dagster.resources.store import Artefact
from geomagic_dagster.viewer.addresses import ARTEFACTS, page_path

RECOMPUTE_TAG = "geomagic/recompute"
"""A run with this tag set to "true" makes every artefact anew; the bytes are then compared to those that are there."""


def must_recompute(run_tags: Mapping[str, str]) -> bool:
    return run_tags.get(RECOMPUTE_TAG) == "true"


def stage_step(
    stage: Stage, context: OpExecutionContext, form: Config, places: Places, inputs: Mapping[str, Artefact]
) -> tuple[Artefact, dict[str, Any]]:
    """The artefact of a stage in this run, and what Dagster shows of it.

    Raises: dagster.Failure, not to be retried, for what is permanent; whatever the stage raises for the rest.
    """
    with sorted_failures(stage.name):
        made = make_or_reuse(
            stage,
            inputs,
            stage.params(**form.model_dump()),
            places.store(),
            context.log,
            recompute=must_recompute(context.run.tags),
            device=places.device,
        )
        out_of_range = numbers_out_of_range(stage, made.artefact.numbers)
        page_url = places.rooms_url + page_path(ARTEFACTS, made.artefact.identity) if stage.name == PACKAGE else None
        return made.artefact, shown(made, stage.preview_rgb_hw3(made.artefact.value), out_of_range, page_url)
