"""Every stage as an asset: what researchers materialize for the scans of the corpus, and compare.

Belongs here: the adapter from `@stage` to `@asset`. Does not belong here: anything about one stage; the
same stages as ops of product traffic (jobs/process_scan.py).
"""

import re
from collections.abc import Iterable

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetIn,
    AssetKey,
    AssetsDefinition,
    DynamicPartitionsDefinition,
    MaterializeResult,
    asset,
)

from geomagic_dagster.assets.settings import settings_form
from geomagic_dagster.assets.steps import stage_step
from geomagic_dagster.cv.stage import Stage
from geomagic_dagster.guardrails.execution import is_in_range
from geomagic_dagster.guardrails.retries import retry_policy
from geomagic_dagster.resources.places import Places
from geomagic_dagster.resources.store import Artefact

CORPUS_NAME = "corpus"
CORPUS = DynamicPartitionsDefinition(name=CORPUS_NAME)
"""One partition for each scan of the corpus."""


def asset_prefix(release: str) -> str:
    """What goes before a release's asset keys, since Dagster allows a key only once over all releases: 1.0 is v1_0."""
    return release if release.isidentifier() else "v" + re.sub(r"\W", "_", release)


def stage_assets(stages: Iterable[Stage], release: str) -> list[AssetsDefinition]:
    """One asset for each stage, with the key (release, stage)."""
    return [stage_asset(stage, release) for stage in stages]


def stage_asset(stage: Stage, release: str) -> AssetsDefinition:
    prefix = asset_prefix(release)
    key = AssetKey([prefix, stage.name])
    form = settings_form(stage)

    @asset(
        key=key,
        ins={name: AssetIn(key=AssetKey([prefix, name])) for name in stage.inputs},
        partitions_def=CORPUS,
        group_name=prefix,
        kinds={"python", "gpu"} if stage.gpu else {"python"},
        owners=[stage.owner],
        code_version=stage.code_version,
        description=stage.description,
        retry_policy=retry_policy(stage.retries),
        check_specs=[
            AssetCheckSpec(number, asset=key, description=expected_range(low, high))
            for number, (low, high) in stage.expects.items()
        ],
    )
    def materialize(
        context: AssetExecutionContext,
        config: form,  # pyright: ignore[reportInvalidTypeForm] - a class made from the stage's Params
        places: Places,
        **inputs: Artefact,
    ):  # no type: with one, Dagster refuses the checks as outputs of their own
        artefact, metadata = stage_step(stage, context.op_execution_context, config, places, inputs)
        return MaterializeResult(value=artefact, metadata=metadata, check_results=_checks(stage, artefact))

    return materialize


def expected_range(low: float, high: float) -> str:
    return f"Expected {low:,.6g} to {high:,.6g}."


def _checks(stage: Stage, artefact: Artefact) -> list[AssetCheckResult]:
    return [
        AssetCheckResult(
            check_name=number,
            passed=is_in_range(artefact.numbers.get(number), low, high),
            severity=AssetCheckSeverity.WARN,
            metadata={"value": artefact.numbers.get(number, "not measured"), "range": expected_range(low, high)},
        )
        for number, (low, high) in stage.expects.items()
    ]
