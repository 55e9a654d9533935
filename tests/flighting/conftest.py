"""An installation for the watcher: a real Dagster instance, a real routing table, and toy runs with planted outcomes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, Failure, MetadataValue, Output, job, op

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

RANGES = {"depth.coverage": (0.2, 1.0), "layout.walls": (3.0, 40.0)}
WALLS_M = (2.0, 2.0, 3.0, 3.0)
HEIGHT_M = 2.5
KILLED = -signal.SIGKILL


@op
def depth(context):
    plan = json.loads(context.run.tags["plan"])
    if failure := plan.get("fails"):
        kind = {"rejected": "permanent", "bug": "bug"}.get(failure, "passing")
        said = {"failure_kind": MetadataValue.text(kind), "failure": MetadataValue.text(failure)}
        raise Failure("depth: expected a wall; got none.", said, allow_retries=False)
    seconds = float(plan.get("seconds", 30.0))
    numbers = {"coverage": 0.8, "seconds": seconds, "deadline_s": 240.0, "attempt": 1.0} | plan.get("numbers", {})
    outside = {"out_of_range": "depth: expected more."} if plan.get("outside") else {}
    yield Output(1, metadata={name: MetadataValue.float(float(value)) for name, value in numbers.items()} | outside)


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

    def run(self, scan: str, release: str, revision: int | None, plan: dict | None = None, **tags: str) -> str:
        said = {SCAN_TAG: scan, UPLOAD_TAG: scan, RELEASE_TAG: release, DEADLINE_TAG: "4500"} | tags
        if revision is not None:
            said[ROUTE_REVISION_TAG] = str(revision)
        said["plan"] = json.dumps(self.plans.get(release, {}) if plan is None else plan)
        result = toy_job.execute_in_process(instance=self.instance, tags=said, raise_on_error=False)
        return result.run_id

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
        return Watcher(
            self.instance, self.routing, smoke, lambda release: RANGES, self.home / "watcher.json", at=at, **options
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
    (tmp_path / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        made = House(tmp_path, instance)
        for place in (made.places.inbox, made.places.done, made.places.packages):
            Path(place).mkdir(parents=True, exist_ok=True)
        yield made
