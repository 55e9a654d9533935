"""Makes the partitions of Dagster those scans that lie in the corpus folder.

Belongs here: the sensor. Does not belong here: what a corpus scan is (corpus/scans.py).
"""

from pathlib import Path

from dagster import DefaultSensorStatus, SensorDefinition, SensorEvaluationContext, SensorResult

from geomagic_dagster.assets.stages import CORPUS, CORPUS_NAME
from geomagic_dagster.corpus.scans import names
from geomagic_dagster.resources.places import Places

MIN_INTERVAL_S = 10


def corpus_sensor() -> SensorDefinition:
    """Adds what is new in the corpus folder as partitions and removes what is gone."""

    def evaluate(context: SensorEvaluationContext, places: Places) -> SensorResult:
        folder = Path(places.corpus)
        if not folder.is_dir():  # a disk that is not mounted is no empty corpus
            return SensorResult(skip_reason=f"no corpus folder at {folder}")
        lie_there, known = set(names(folder)), set(context.instance.get_dynamic_partitions(CORPUS_NAME))
        added, gone = sorted(lie_there - known), sorted(known - lie_there)
        requests = []
        if added:
            requests.append(CORPUS.build_add_request(added))
        if gone:
            requests.append(CORPUS.build_delete_request(gone))
        if not requests:
            return SensorResult(skip_reason=f"{len(known)} corpus scans, nothing new")
        return SensorResult(dynamic_partitions_requests=requests)

    return SensorDefinition(
        name="corpus_sensor",
        evaluation_fn=evaluate,
        minimum_interval_seconds=MIN_INTERVAL_S,
        default_status=DefaultSensorStatus.RUNNING,
        description="Keeps the partitions of the corpus as the corpus folder is.",
    )
