"""Assembles the code location of this release; the only reader of the environment.

Belongs here: which assets, jobs, sensors and resources there are, and where GEOMAGIC_* say that everything
lies. Does not belong here: anything that does something. Loading it imports neither torch nor OpenCV: an idle
code location stays small and answers at once.

    GEOMAGIC_HOME        everything that is not said to be elsewhere lies below it (default: .home)
    GEOMAGIC_RELEASE     the name of this release (default: that of the environment, else latest)
    GEOMAGIC_STORE       artefacts: a folder or any fsspec URL; GEOMAGIC_CACHE: its local cache where it is elsewhere
    GEOMAGIC_INBOX, GEOMAGIC_DONE, GEOMAGIC_QUARANTINE, GEOMAGIC_FAILED, GEOMAGIC_PACKAGES, GEOMAGIC_CORPUS
    GEOMAGIC_ROUTING     the routing table: a folder or an fsspec URL (default: routing/ in the store)
    GEOMAGIC_WEIGHTS     files of trained weights: a folder or an fsspec URL (default: weights/ in the store)
    GEOMAGIC_ROOMS_URL   where browsers find the pages of rooms (default: http://127.0.0.1:3001)
    GEOMAGIC_DEVICE      where tensors live (default: CUDA where there is one)
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
from pathlib import Path

from dagster import BetaWarning, Definitions, ExecutorDefinition, in_process_executor

from geomagic_dagster.assets.corpus_scan import corpus_scan_asset
from geomagic_dagster.assets.stages import stage_assets
from geomagic_dagster.cv.stage import Stage, find_stages
from geomagic_dagster.flighting.shadows import shadow_sensor
from geomagic_dagster.guardrails.logs import make_logfmt_the_default
from geomagic_dagster.jobs.corpus_sensor import corpus_sensor
from geomagic_dagster.jobs.process_scan import process_scan_job
from geomagic_dagster.jobs.upload_sensor import upload_sensor
from geomagic_dagster.releases.installed import LATEST, check_installed, release_here
from geomagic_dagster.resources.io_manager import ArtefactIOManager
from geomagic_dagster.resources.places import Places

VARIABLES = {
    "GEOMAGIC_STORE": "store_url",
    "GEOMAGIC_CACHE": "cache",
    "GEOMAGIC_INBOX": "inbox",
    "GEOMAGIC_DONE": "done",
    "GEOMAGIC_QUARANTINE": "quarantine",
    "GEOMAGIC_FAILED": "failed",
    "GEOMAGIC_PACKAGES": "packages",
    "GEOMAGIC_CORPUS": "corpus",
    "GEOMAGIC_ROUTING": "routing_url",
    "GEOMAGIC_WEIGHTS": "weights_url",
    "GEOMAGIC_ROOMS_URL": "rooms_url",
    "GEOMAGIC_DEVICE": "device",
}


def home_from(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("GEOMAGIC_HOME") or ".home").expanduser().absolute()


def places_from(environment: Mapping[str, str]) -> Places:
    """The places that the environment names; folders become absolute, since steps run in other processes."""
    home = home_from(environment)
    said = {field: environment[variable] for variable, field in VARIABLES.items() if environment.get(variable)}
    folders = {name: said[name] for name in said if name not in ("device", "rooms_url") and "://" not in said[name]}
    return Places.in_home(
        home, **said | {name: str(Path(path).expanduser().absolute()) for name, path in folders.items()}
    )


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
