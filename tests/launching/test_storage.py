"""Dagster's SQLite storage, set up not to wait."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dagster import DagsterInstance
from dagster._core.test_utils import create_run_for_test
from sqlalchemy import text

from geomagic_dagster.jobs.local_run import REPOSITORY
from geomagic_dagster.launching import storage
from geomagic_dagster.launching.storage import MAX_KEPT, QuickSqliteStorage


@pytest.fixture
def instance(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_bytes((REPOSITORY / "dagster.yaml").read_bytes())
    with DagsterInstance.get() as instance:
        yield instance


def test_the_repository_is_set_up_with_it_and_connections_do_not_wait(instance):
    assert isinstance(instance._ref.storage, QuickSqliteStorage)
    with instance.run_storage.connect() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 1  # NORMAL
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"


def test_who_watches_a_run_hears_of_every_event(instance):
    """The page of a run follows it like this."""
    run = create_run_for_test(instance, "a job")
    instance.report_engine_event("before", run)
    heard, all_heard = [], threading.Event()

    def hear(event, cursor):
        heard.append(event.dagster_event.message)
        if heard[-1] == "event 4":
            all_heard.set()

    instance.watch_event_logs(run.run_id, None, hear)
    for number in range(5):
        instance.report_engine_event(f"event {number}", run)
    assert all_heard.wait(90)
    instance.end_watch_event_logs(run.run_id, hear)
    assert [message for message in heard if message != "before"] == [f"event {number}" for number in range(5)]


def test_idle_connections_stay_few(instance):
    for _ in range(MAX_KEPT + 5):
        instance.report_engine_event("hello", create_run_for_test(instance, "a job"))
    assert len(storage._kept) <= MAX_KEPT


def test_a_forked_process_opens_its_own_and_leaves_its_parents_alone(instance):
    run = create_run_for_test(instance, "a job")
    instance.report_engine_event("parent", run)
    if (child := os.fork()) == 0:
        ok = not storage._kept and storage._of_parents
        instance.report_engine_event("child", run)
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    instance.report_engine_event("parent again", run)
    messages = [event.dagster_event.message for event in instance.all_logs(run.run_id)]
    assert messages == ["parent", "child", "parent again"]
    assert Path(instance.root_directory).is_dir()


def test_all_who_open_new_databases_at_once_can(tmp_path):
    """Dagster makes tables where it sees none; two that do so at once met an OperationalError or an IntegrityError."""
    number = 4
    together = threading.Barrier(number)

    def opens(folder: Path) -> int:
        together.wait(60)
        made = QuickSqliteStorage.from_config_value(None, {"base_dir": str(folder)})  # pyright: ignore[reportArgumentType]
        return made.run_storage.get_runs_count()

    with ThreadPoolExecutor(number) as threads:
        for attempt in range(3):
            folder = tmp_path / f"home-{attempt}"
            assert list(threads.map(opens, [folder] * number)) == [0] * number
