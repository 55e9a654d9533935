"""A whole installation of the toy stages in one folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dagster import (
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    ExecutorDefinition,
    in_process_executor,
)

from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.definitions import build_definitions
from geomagic_dagster.resources.places import Places


class Toys:
    """The definitions of the toy stages with everything below `home`, and the ways to run them."""

    def __init__(
        self,
        home: Path,
        release: str = "latest",
        executor: ExecutorDefinition = in_process_executor,
        mood_timeout_s: float | None = None,
        package: str = "tests.toy_stages.stages",
        **elsewhere: str,
    ) -> None:
        code_from = ["geomagic_dagster.cv", package]
        self.places = Places.in_home(home, code_from=code_from, **elsewhere)
        stages = [
            replace(stage, timeout_s=mood_timeout_s) if mood_timeout_s and stage.name == "mood" else stage
            for stage in find_stages(package)
        ]
        self._has_mood = any(stage.name == "mood" for stage in stages)
        self.defs: Definitions = build_definitions(stages, self.places, release, executor)
        self.inbox, self.corpus = Path(self.places.inbox), Path(self.places.corpus)
        self.store = self.places.store()

    def process(
        self, upload: Path, instance: DagsterInstance, mood: dict | None = None, **options
    ) -> ExecuteInProcessResult:
        """Runs `process_scan` on an upload."""
        config: dict = {"ops": {"scan": {"config": {"upload": str(upload)}}}}
        if self._has_mood:
            config["ops"]["mood"] = {"config": mood or {}}
        job = self.defs.resolve_job_def("process_scan")
        return job.execute_in_process(run_config=config, instance=instance, raise_on_error=False, **options)

    def materialize(
        self, name: str, instance: DagsterInstance, mood: dict | None = None, **options
    ) -> ExecuteInProcessResult:
        """Materializes every asset of a corpus scan."""
        instance.add_dynamic_partitions("corpus", [name])
        job = self.defs.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            run_config={"ops": {"latest__mood": {"config": mood or {}}} if self._has_mood else {}},
            instance=instance,
            partition_key=name,
            raise_on_error=False,
            **options,
        )

    def artefacts(self) -> dict[str, bytes]:
        """Every file of every artefact, by its place in the store."""
        folder = Path(self.places.store_url) / "artefacts"
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
