"""What the launcher knows of a run's process that it did not fork itself: one launched as Dagster does by default."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_run_for_test

from geomagic_dagster.guardrails import processes
from geomagic_dagster.launching import run_launcher

pytestmark = pytest.mark.skipif(not processes.is_supported, reason="processes are asked for on Linux only")
SETTINGS = """telemetry: {enabled: false}
run_launcher: {module: geomagic_dagster.launching.run_launcher, class: WarmRunLauncher}
"""


@pytest.fixture
def instance(tmp_path):
    (tmp_path / "dagster.yaml").write_text(SETTINGS)
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def begun(instance: DagsterInstance, pid: int | None) -> DagsterRun:
    run = create_run_for_test(instance, job_name="process_scan", status=DagsterRunStatus.STARTED)
    instance.report_engine_event("It is launched cold.", run)
    if pid is not None:
        instance.report_engine_event("Executing steps in process", run, EngineEventData.in_process(pid))
    return run


def test_what_a_rare_release_says_is_not_kept_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(run_launcher, "KEPT_BYTES", 100)
    monkeypatch.setattr(run_launcher.subprocess, "Popen", lambda *_, stdout, **__: stdout.write(b"x" * 60))
    repository = SimpleNamespace(code_pointer=SimpleNamespace(module="toys"), executable_path=sys.executable)
    for _ in range(9):
        run_launcher._start(tmp_path / "starters" / "1.0.sock", "1.0", SimpleNamespace(repository_origin=repository))
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "starters").iterdir()}
    assert sizes == {"1.0.log": 60, "1.0.log.1": 120}


def test_one_that_lives_is_running(instance):
    said = instance.run_launcher.check_run_worker_health(begun(instance, os.getpid()))
    assert (said.status, said.run_worker_id) == (WorkerStatus.RUNNING, str(os.getpid()))


def test_one_that_has_not_begun_is_left_to_the_deadline_of_starting(instance):
    said = instance.run_launcher.check_run_worker_health(begun(instance, None))
    assert (said.status, said.msg) == (
        WorkerStatus.RUNNING, "launched as Dagster does by default, and not begun yet",
    )  # fmt: skip


def test_one_that_died_together_with_its_code_server_is_found_dead(instance):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    said = instance.run_launcher.check_run_worker_health(begun(instance, process.pid))
    assert said.status == WorkerStatus.FAILED
    assert f"the run's process {process.pid} is gone: killed, out of memory, or the machine was restarted" in said.msg


def test_one_that_ended_with_its_run_is_no_failure(instance):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    run = begun(instance, process.pid)
    instance.report_run_failed(run)
    assert instance.run_launcher.check_run_worker_health(run).status == WorkerStatus.SUCCESS
