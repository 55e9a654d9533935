"""Assembles the code location of this release from what the environment says (resources/environment.py).

Belongs here: which assets, jobs, sensors and resources there are. Does not belong here: anything that does something.
Loading it imports neither torch nor OpenCV: an idle code location stays small and answers at once.
"""

import os

# Both are read when numpy and torch are imported, so they stand before everything else.
# OpenBLAS adds up in another order on another number of threads: one thread, and the same bytes everywhere.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Threads that wait for each other sleep instead of spinning, unless somebody wishes otherwise. Steps share the
# machine with other steps: a stage of 2.5 s took 43 s when something else kept both cores busy.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import warnings
from collections.abc import Mapping, Sequence

from dagster import BetaWarning, Definitions, ExecutorDefinition, in_process_executor

from geomagic_dagster.assets.corpus_scan import corpus_scan_asset
from geomagic_dagster.assets.stages import stage_assets
from geomagic_dagster.cv.stage import Stage, find_stages
from geomagic_dagster.flighting.shadows import shadow_sensor
from geomagic_dagster.guardrails.logs import make_logfmt_the_default
from geomagic_dagster.jobs.corpus_sensor import corpus_sensor
from geomagic_dagster.jobs.process_scan import process_scan_job
from geomagic_dagster.jobs.upload_sensor import upload_sensor
from geomagic_dagster.releases.installed import LATEST, release_here
from geomagic_dagster.releases.manifest import check_installed
from geomagic_dagster.resources.environment import home_from as home_from  # others look for both here, too
from geomagic_dagster.resources.environment import places_from as places_from
from geomagic_dagster.resources.io_manager import ArtefactIOManager
from geomagic_dagster.resources.places import Places


def release_from(environment: Mapping[str, str]) -> str:
    return release_here(environment.get("GEOMAGIC_RELEASE"))


def build_definitions(
    stages: Sequence[Stage], places: Places, release: str, executor: ExecutorDefinition = in_process_executor
) -> Definitions:
    """Everything of Dagster for these stages."""
    job = process_scan_job(stages, release, executor)
    return Definitions(
        assets=[corpus_scan_asset(release), *stage_assets(stages, release)],
        jobs=[job],
        # the corpus is one for all releases: were each to add its partitions, two could add the same at once
        sensors=[
            upload_sensor(job, release),
            shadow_sensor(job, release),
            *([corpus_sensor()] if release == LATEST else []),
        ],
        resources={"places": places, "io_manager": ArtefactIOManager(places=places)},
        executor=executor,
    )


# Dagster's own decorator passes this parameter to Dagster's own class, and then warns whoever loads a sensor.
warnings.filterwarnings("ignore", message=".*`owners` of initializer `SensorDefinition", category=BetaWarning)

make_logfmt_the_default()
stages = find_stages()
check_installed(stages)
defs = build_definitions(stages, places_from(os.environ), release_from(os.environ))
