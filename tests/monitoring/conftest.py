"""Installations of Dagster in a folder of the test, on SQLite and on a throwaway Postgres."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from dagster import DagsterInstance

from geomagic_dagster.drill.place import free_ports
from geomagic_dagster.monitoring.exporter import Exporter
from tests.toy_stages.installation import Toys

FILE_PER_RUN = "telemetry: {enabled: false}\n"
ONE_TABLE = """telemetry: {enabled: false}
event_log_storage:
  module: dagster._core.storage.event_log
  class: ConsolidatedSqliteEventLogStorage
  config: {base_dir: %s}
"""
# dagster-postgres brings psycopg2; SQLAlchemy 2.1 takes psycopg 3 for a plain "postgresql".
POSTGRES = """telemetry: {enabled: false}
storage:
  postgres:
    postgres_db: {username: postgres, password: none, hostname: 127.0.0.1, port: %d, db_name: %s, scheme: postgresql+psycopg2}
"""


def dagster_in(folder: Path, yaml: str = FILE_PER_RUN) -> DagsterInstance:
    folder.mkdir(exist_ok=True)
    (folder / "dagster.yaml").write_text(yaml)
    return DagsterInstance.from_config(str(folder))


@pytest.fixture(scope="session")
def postgres_port():
    """A Postgres of its own, gone with the tests. It refuses to run as root, so there it runs as user postgres."""
    programs = [shutil.which(name, path=f"{os.environ['PATH']}:{_debian()}") for name in ("initdb", "postgres")]
    if None in programs:
        pytest.skip("no Postgres here (Debian: apt-get install postgresql)")
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="geomagic-postgres-"))
    if user:
        shutil.chown(folder, user)
    options = ["-D", folder / "data"]
    subprocess.run(
        [programs[0], *options, "-U", "postgres", "-A", "trust", "--no-sync"],
        user=user, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    port = free_ports(1)[0]
    server = subprocess.Popen(
        [programs[1], *options, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"],
        user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield port
    server.terminate()
    server.wait(90)
    shutil.rmtree(folder)


def _debian() -> str:
    return ":".join(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)))


def new_database(port: int) -> str:
    import psycopg2

    until = time.monotonic() + 90
    while True:
        try:
            connection = psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres")
            break
        except psycopg2.OperationalError:  # it is still starting
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    name = f"test_{uuid.uuid4().hex}"
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {name}")
    connection.close()
    return name


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


@pytest.fixture(params=["a file per run", "one table", "postgres"])
def any_instance(tmp_path, request):
    """On every way that Dagster has to lay out its events."""
    yaml = FILE_PER_RUN
    if request.param == "one table":
        yaml = ONE_TABLE % (tmp_path / "dagster" / "events")
    elif request.param == "postgres":
        port = request.getfixturevalue("postgres_port")
        yaml = POSTGRES % (port, new_database(port))
    with dagster_in(tmp_path / "dagster", yaml) as instance:
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
