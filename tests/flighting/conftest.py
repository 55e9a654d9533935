"""An installation for the watcher: a real Dagster instance, a real routing table, and toy runs with planted outcomes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterEvent, DagsterInstance, Failure, MetadataValue, Output, job, op
from dagster._core.events import EngineEventData, JobCanceledData, JobFailureData
from dagster._core.execution.plan.objects import StepFailureData, UserFailureData
from dagster._core.execution.plan.outputs import StepOutputData, StepOutputHandle

from geomagic_dagster.flighting.again import Again
from geomagic_dagster.flighting.rejected import Rejected
from geomagic_dagster.flighting.smoke import Smoke
from geomagic_dagster.flighting.watch import Watcher
from geomagic_dagster.guardrails.tags import (
    DEADLINE_TAG,
    FLIGHT_TAG,
    RELEASE_TAG,
    ROUTE_REVISION_TAG,
    SCAN_TAG,
    SHADOW_TAG,
    UPLOAD_TAG,
)
from geomagic_dagster.releases.routing import RoutingStore
from geomagic_dagster.releases.routing_changes import make_live, start_flight
from geomagic_dagster.resources.places import Places

ONE_TABLE = """telemetry: {enabled: false}
event_log_storage:
  module: dagster._core.storage.event_log
  class: ConsolidatedSqliteEventLogStorage
  config: {base_dir: %s}
"""
RANGES = {"depth.coverage": (0.2, 1.0), "layout.walls": (3.0, 40.0)}
WALLS_M = (2.0, 2.0, 3.0, 3.0)
HEIGHT_M = 2.5
KILLED = -signal.SIGKILL


def _metadata(plan: dict[str, Any]) -> dict[str, MetadataValue]:
    numbers = {"coverage": 0.8, "seconds": plan.get("seconds", 30.0), "deadline_s": 240.0, "attempt": 1.0}
    outside = {"out_of_range": MetadataValue.text("depth: expected more.")} if plan.get("outside") else {}
    return {name: MetadataValue.float(float(n)) for name, n in (numbers | plan.get("numbers", {})).items()} | outside


def _failure(plan: dict[str, Any]) -> dict[str, MetadataValue]:
    kind = {"rejected": "permanent", "bug": "bug"}.get(plan["fails"], "passing")
    return {"failure_kind": MetadataValue.text(kind), "failure": MetadataValue.text(plan["fails"])}


SENTENCE = "depth: expected a wall; got none. Scan a wall."


@op
def depth(context):
    """Executed where the house is real."""
    plan = json.loads(context.run.tags["plan"])
    if plan.get("fails"):
        raise Failure(SENTENCE, _failure(plan), allow_retries=False)
    return Output(1, metadata=_metadata(plan))


def _events(plan: dict[str, Any], started_s: float, ended_s: float) -> list[tuple[str, float, str | None, Any]]:
    """What Dagster writes of such a run: (kind, time, step, data)."""
    rows: list[tuple[str, float, str | None, Any]] = [("PIPELINE_START", started_s, None, None)]
    if plan.get("fails"):
        said = UserFailureData("Failure", SENTENCE, _failure(plan))
        rows.append(("ENGINE_EVENT", ended_s, "depth", EngineEventData(metadata=_failure(plan))))
        rows.append(("STEP_FAILURE", ended_s, "depth", StepFailureData(None, said)))
    elif not plan.get("ends"):
        rows.append(
            ("STEP_OUTPUT", ended_s, "depth", StepOutputData(StepOutputHandle("depth"), metadata=_metadata(plan)))
        )
    kind = plan.get("ends") or ("PIPELINE_FAILURE" if plan.get("fails") else "PIPELINE_SUCCESS")
    data = (
        JobFailureData(None)
        if kind == "PIPELINE_FAILURE"
        else JobCanceledData(None)
        if kind == "PIPELINE_CANCELED"
        else None
    )
    return [*rows, (kind, ended_s, None, data)]


@job(name="process_scan")
def toy_job():
    depth()


@dataclass
class House:
    """One installation; `release` says what its runs do."""

    home: Path
    instance: DagsterInstance
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By release: what goes wrong in it."""
    sends: list[str] = field(default_factory=list)
    is_real: bool = False

    def __post_init__(self) -> None:
        self.places = Places.in_home(self.home)
        self.routing = RoutingStore(str(self.home / "routing"), self.home / "last_good.json")
        room = self.home / "smoke" / "made_up_1_24"
        (room / "scan").mkdir(parents=True)
        (room / "scan" / "scan.json").write_text("{}")
        (room / "truth.json").write_text(json.dumps({"walls_m": WALLS_M, "height_m": HEIGHT_M}))

    def live(self, *releases: str) -> None:
        for release in releases:
            self.routing.change(make_live(release), by="ada", why="installed")

    def fly(self, release: str, per_cent: float, **options: Any) -> str:
        table = self.routing.change(start_flight(release, per_cent, **options), by="ada", why="looks good")
        return table.flights[-1].id

    def upload(self, scan: str) -> None:
        """One upload, through the table, to a run that ends as its release does."""
        route = self.routing.read().table.choose(scan)
        flight = {FLIGHT_TAG: route.flight} if route.flight else {}
        self.run(scan, route.release, route.revision, **flight)
        for release, shadow in zip(route.shadows, route.shadow_flights, strict=True):
            self.run(scan, release, route.revision, **{FLIGHT_TAG: shadow, SHADOW_TAG: "true"})

    def run(
        self,
        scan: str,
        release: str,
        revision: int | None,
        plan: dict | None = None,
        ended_s: float | None = None,
        **tags: str,
    ) -> str:
        """A run as Dagster's log tells of it, or, where the house is `real`, one that is executed."""
        said = {SCAN_TAG: scan, UPLOAD_TAG: scan, RELEASE_TAG: release, DEADLINE_TAG: "4500"} | tags
        if revision is not None:
            said[ROUTE_REVISION_TAG] = str(revision)
        plan = self.plans.get(release, {}) if plan is None else plan
        said["plan"] = json.dumps(plan)
        if self.is_real:
            return toy_job.execute_in_process(instance=self.instance, tags=said, raise_on_error=False).run_id
        run_id = self.instance.create_run_for_job(toy_job, tags=said).run_id
        seconds = float(plan.get("seconds", 30.0))
        ended_s = time.time() if ended_s is None else ended_s
        for kind, at_s, step, data in _events(plan, ended_s - seconds, ended_s):
            message = SENTENCE if kind == "ENGINE_EVENT" else plan.get("message", "")
            event = DagsterEvent(kind, "process_scan", message=message, step_key=step, event_specific_data=data)
            self.instance.report_dagster_event(event, run_id, timestamp=at_s)
        return run_id

    def send(self, path: Path) -> bool:
        """The intake and the run that it starts, in no time."""
        self.sends.append(path.name)
        shutil.move(path, Path(self.places.inbox) / path.name)
        self.run_of_smoke(path.name)
        return True

    def run_of_smoke(self, name: str) -> None:
        route = self.routing.read().table.choose(name)
        plan = self.plans.get(route.release, {})
        if plan.get("does not load"):
            return
        run_id = self.run(name, route.release, route.revision)
        if plan.get("fails"):
            return
        shutil.move(Path(self.places.inbox) / name, Path(self.places.done) / name)
        package = Path(self.places.packages) / name
        package.mkdir(parents=True)
        walls = [{"dimensions": [length_m, HEIGHT_M, 0]} for length_m in plan.get("walls_m", WALLS_M)]
        (package / "room.json").write_text(json.dumps({"walls": walls}))
        record = {"run_id": run_id, "release": route.release}
        package.with_name(f"{name}.run.json").write_text(json.dumps(record))

    def watcher(self, **options: Any) -> Watcher:
        """A new one, as after a restart."""
        at = options.pop("at", lambda point: None)
        smoke = Smoke(
            self.instance, self.places, self.home / "smoke", self.send, lambda release: RANGES, at=at,
            start_s=options.pop("start_s", 25.0),
        )  # fmt: skip
        again = Again(self.instance, Path(self.places.failed), Path(self.places.inbox))
        rejected = Rejected(self.instance, Path(self.places.quarantine), Path(self.places.inbox), self.routing, at=at)
        return Watcher(
            self.instance,
            self.routing,
            smoke,
            lambda release: RANGES,
            again,
            rejected,
            self.home / "watcher.json",
            at=at,
            **options,
        )

    def look_in_a_process(self, killed_at: str | None) -> int:
        """One look of a new watcher in a process of its own, killed at a point; how that process ended."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self.watcher(
                    at=lambda point: os.kill(os.getpid(), signal.SIGKILL) if point == killed_at else None
                ).look()
                code = 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def written(self, by: str = "watcher") -> list[str]:
        """Why each revision of somebody was written."""
        return [table.why for table in self.routing.history() if table.written_by == by]


@pytest.fixture
def house(tmp_path) -> Callable[..., House]:
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text(ONE_TABLE % (tmp_path / "dagster" / "events"))
    with DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        made = House(tmp_path, instance)
        for place in (made.places.inbox, made.places.done, made.places.packages):
            Path(place).mkdir(parents=True, exist_ok=True)
        yield made
