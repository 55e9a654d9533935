"""An event log of Dagster with as many runs as wanted: one real run each of a few kinds, copied.

Belongs here: making the runs and their events as Dagster's SQLite storage lays them out. Does not belong here:
measuring (exporter.py).
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dagster import DagsterInstance, Failure, JobDefinition, Output, RetryPolicy, job, op

STAGES = ("scan", "frames", "poses", "depth", "mesh", "layout", "furniture", "package")
THUMBNAIL_BYTES = 12_000
DAGSTER_YAML = "telemetry: {enabled: false}\n"


def toy_job(name: str, fails_at: str | None = None) -> JobDefinition:
    """A chain of steps that report what our stages report; one may fail, after a retry."""

    def step(stage: str):
        @op(name=stage, retry_policy=RetryPolicy(max_retries=1))
        def execute(_before=None):
            if stage == fails_at:
                raise Failure(
                    f"{stage}: expected a room; got a field. Scan a room.",
                    metadata={"failure_kind": "passing", "failure": "timeout"},
                )
            numbers = {f"number_{i}": random.random() for i in range(8)}
            costs = {"seconds": 1.5, "peak_memory_mb": 900.0, "deadline_s": 60.0, "attempt": 1.0}
            return Output(1, metadata=numbers | costs | {"thumbnail": "x" * THUMBNAIL_BYTES, "reused": False})

        return execute

    steps = [step(stage) for stage in STAGES]

    @job(name=name)
    def chain():
        made = steps[0]()
        for each in steps[1:]:
            made = each(made)

    return chain


@dataclass(frozen=True)
class Template:
    run_id: str
    run_row: tuple
    tags: list[tuple[str, str]]
    file: Path
    events: int


def templates(home: Path) -> list[Template]:
    """One run that works and one that fails at its third step, done for real in an installation of their own."""
    made = []
    os.makedirs(home)
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    with DagsterInstance.from_config(str(home)) as instance:
        for fails_at in (None, "poses"):
            chain = toy_job("process_scan", fails_at)
            tags = {"geomagic/release": "latest", "geomagic/scan": "somebody's room", "geomagic/deadline_s": "600"}
            run_id = chain.execute_in_process(instance=instance, tags=tags, raise_on_error=False).run_id
            with closing(sqlite3.connect(home / "history" / "runs.db")) as runs:
                row = runs.execute(f"SELECT {RUN_COLUMNS} FROM runs WHERE run_id = ?", (run_id,)).fetchone()
                kept = runs.execute("SELECT key, value FROM run_tags WHERE run_id = ?", (run_id,)).fetchall()
            shard = home / "history" / "runs" / f"{run_id}.db"
            with closing(sqlite3.connect(shard)) as events:
                events.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                [count] = events.execute("SELECT count(*) FROM event_logs").fetchone()
            made.append(Template(run_id, row, kept, shard, count))
    return made


RUN_COLUMNS = (
    "run_id, snapshot_id, pipeline_name, mode, status, run_body, partition, partition_set, start_time, end_time"
)


def write_runs(dagster_home: Path, kinds: list[Template], count: int, *, first: int = 0) -> int:
    """Adds `count` runs that ended long ago, a minute apart; every 20th of the failing kind. Returns their events."""
    (dagster_home / "dagster.yaml").parent.mkdir(parents=True, exist_ok=True)
    (dagster_home / "dagster.yaml").write_text(DAGSTER_YAML)
    with DagsterInstance.from_config(str(dagster_home)):  # makes the tables
        pass
    folder = dagster_home / "history" / "runs"
    events = 0
    with closing(sqlite3.connect(dagster_home / "history" / "runs.db")) as runs:
        for number in range(first, first + count):
            kind = kinds[number % 20 == 19]
            run_id = str(uuid.UUID(int=random.Random(number).getrandbits(128), version=4))
            created = datetime.now(UTC) - timedelta(minutes=20_000 - number)
            row = [value.replace(kind.run_id, run_id) if isinstance(value, str) else value for value in kind.run_row]
            runs.execute(
                f"INSERT INTO runs ({RUN_COLUMNS}, create_timestamp, update_timestamp) VALUES ({'?,' * 11}?)",
                (*row, _text(created), _text(created)),
            )
            runs.executemany(
                "INSERT INTO run_tags (run_id, key, value) VALUES (?, ?, ?)", [(run_id, *tag) for tag in kind.tags]
            )
            shutil.copyfile(kind.file, folder / f"{run_id}.db")
            with closing(sqlite3.connect(folder / f"{run_id}.db", isolation_level=None)) as shard:
                shard.execute("PRAGMA synchronous=OFF")
                shard.execute(
                    "UPDATE event_logs SET run_id = ?, event = replace(event, ?, ?), timestamp = ?",
                    (run_id, kind.run_id, run_id, _text(created)),
                )
            events += kind.events
        runs.commit()
    return events


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S.%f")
