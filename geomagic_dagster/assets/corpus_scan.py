"""The scans of the corpus as the source of all other assets.

Belongs here: the hand-written asset (release, "scan"). Does not belong here: what makes a corpus scan
(corpus/), reading and checking (resources/scan_source.py).
"""

from pathlib import Path
from typing import Any

from dagster import AssetExecutionContext, AssetKey, AssetsDefinition, MaterializeResult, asset

from geomagic_dagster.assets.stages import CORPUS, asset_prefix
from geomagic_dagster.assets.steps import scan_step
from geomagic_dagster.cv.stage import SOURCE
from geomagic_dagster.guardrails.retries import retry_policy
from geomagic_dagster.resources.places import Places
from geomagic_dagster.resources.scan_source import scan_code_version


def corpus_scan_asset(release: str) -> AssetsDefinition:
    """The asset (release, "scan"), partitioned by corpus scan."""
    prefix = asset_prefix(release)

    @asset(
        key=AssetKey([prefix, SOURCE]),
        partitions_def=CORPUS,
        group_name=prefix,
        kinds={"python"},
        owners=["team:research"],
        code_version=scan_code_version(),
        description="A scan of the corpus, read and checked.",
        retry_policy=retry_policy(2),
    )
    def scan(context: AssetExecutionContext, places: Places) -> Any:
        name = context.partition_key
        artefact, metadata = scan_step(Path(places.corpus) / name, name, context.op_execution_context, places)
        return MaterializeResult(value=artefact, metadata=metadata)

    return scan
