"""Installations of Dagster in a folder of the test."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster import DagsterInstance

from geomagic_dagster.monitoring.exporter import Exporter
from tests.toy_stages.installation import Toys

FILE_PER_RUN = "telemetry: {enabled: false}\n"
ONE_TABLE = """telemetry: {enabled: false}
event_log_storage:
  module: dagster._core.storage.event_log
  class: ConsolidatedSqliteEventLogStorage
  config: {base_dir: %s}
"""


def dagster_in(folder: Path, yaml: str = FILE_PER_RUN) -> DagsterInstance:
    folder.mkdir(exist_ok=True)
    (folder / "dagster.yaml").write_text(yaml % (folder / "events") if "%s" in yaml else yaml)
    return DagsterInstance.from_config(str(folder))


@pytest.fixture
def toys(tmp_path, monkeypatch) -> Toys:
    monkeypatch.setattr("geomagic_dagster.guardrails.retries.FIRST_DELAY_S", 0.0)
    calls = tmp_path / "calls"
    calls.write_text("")
    monkeypatch.setenv("TOY_CALLS", str(calls))
    return Toys(tmp_path / "home")


@pytest.fixture
def instance(tmp_path):
    with dagster_in(tmp_path / "dagster") as instance:
        yield instance


@pytest.fixture(params=[FILE_PER_RUN, ONE_TABLE], ids=["a file per run", "one table"])
def any_instance(tmp_path, request):
    """As SQLite lays events out, and as Postgres does."""
    with dagster_in(tmp_path / "dagster", request.param) as instance:
        yield instance


@pytest.fixture
def follow(tmp_path, monkeypatch):
    """A new exporter, as after a restart: on the same state, with nothing in memory."""

    monkeypatch.setattr("geomagic_dagster.monitoring.exporter.BIRTH_S", 0.0)

    def start(instance: DagsterInstance, toys: Toys) -> Exporter:
        path = tmp_path / "metrics" / "state.json"
        path.parent.mkdir(exist_ok=True)
        return Exporter(instance, toys.places, path)

    return start
