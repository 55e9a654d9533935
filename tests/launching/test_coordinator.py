"""Who may start at once, and who waits; with runs that nobody executes."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter
from dagster._core.launcher import LaunchRunContext, RunLauncher
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.test_utils import create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._serdes import ConfigurableClass

from geomagic_dagster.jobs.local_run import REPOSITORY
from geomagic_dagster.launching.coordinator import RoomOrQueue, back_to_the_queue_if_full

LIMIT = 2
IN_PROGRESS = RunsFilter(statuses=[DagsterRunStatus.STARTING, DagsterRunStatus.STARTED])
QUEUED = RunsFilter(statuses=[DagsterRunStatus.QUEUED])


class Launched(RunLauncher, ConfigurableClass):
    """Starts nothing."""

    def __init__(self, inst_data=None):
        self._inst_data = inst_data

    inst_data = property(lambda self: self._inst_data)

    @classmethod
    def config_type(cls):
        return {}

    @classmethod
    def from_config_value(cls, inst_data, config_value):
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        back_to_the_queue_if_full(self._instance, context.dagster_run)

    def terminate(self, run_id: str) -> bool:
        return False


@pytest.fixture
def home(tmp_path) -> Path:
    settings = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
    settings["storage"]["custom"]["config"]["base_dir"] = str(tmp_path)
    settings["run_launcher"] = {"module": "tests.launching.test_coordinator", "class": "Launched"}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with DagsterInstance.from_config(str(tmp_path)):
        pass
    return tmp_path


def new_run(instance: DagsterInstance, **options) -> DagsterRun:
    origin = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="nowhere"), location_name="latest")
    job = RemoteJobOrigin(RemoteRepositoryOrigin(origin, "__repository__"), "process_scan")
    return create_run_for_test(
        instance,
        "process_scan",
        remote_job_origin=job,
        job_code_origin=_code_origin(),
        status=DagsterRunStatus.NOT_STARTED,
        **options,
    )


def _code_origin():
    from dagster._core.code_pointer import ModuleCodePointer
    from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

    return JobPythonOrigin("process_scan", RepositoryPythonOrigin(sys.executable, ModuleCodePointer("nowhere", "defs")))


def submit(instance: DagsterInstance) -> DagsterRunStatus:
    return instance.submit_run(new_run(instance).run_id, None).status  # pyright: ignore[reportArgumentType]


def test_the_repository_is_set_up_with_it_and_has_one_limit(home):
    with DagsterInstance.from_config(str(home)) as instance:
        assert isinstance(instance.run_coordinator, RoomOrQueue)
        config = instance.get_concurrency_config().run_queue_config
        assert config and config.max_concurrent_runs == LIMIT
        assert (
            "max_concurrent_runs"
            not in yaml.safe_load((home / "dagster.yaml").read_text())["run_coordinator"]["config"]
        )


def test_runs_start_at_once_while_there_is_room_and_queue_then(home):
    with DagsterInstance.from_config(str(home)) as instance:
        statuses = [submit(instance).value for _ in range(4)]
    assert statuses == ["STARTING", "STARTING", "QUEUED", "QUEUED"]


def test_nobody_overtakes_the_queue(home):
    with DagsterInstance.from_config(str(home)) as instance:
        runs = [new_run(instance) for _ in range(3)]
        for run in runs[:2]:
            instance.submit_run(run.run_id, None)  # pyright: ignore[reportArgumentType]
        instance.submit_run(runs[2].run_id, None)  # pyright: ignore[reportArgumentType]
        instance.report_run_failed(runs[0])
        assert submit(instance) == DagsterRunStatus.QUEUED  # the free place is for the one that waits already


def _submit_at_once(home, barrier):
    with DagsterInstance.from_config(str(home)) as instance:
        barrier.wait()
        submit(instance)


def test_the_limit_is_never_overshot_by_ten_who_submit_at_once(home):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(10)
    submitters = [context.Process(target=_submit_at_once, args=(home, barrier)) for _ in range(10)]
    for each in submitters:
        each.start()
    for each in submitters:
        each.join()
        assert each.exitcode == 0
    with DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_runs_count(IN_PROGRESS) == LIMIT
        assert instance.get_runs_count(QUEUED) == 10 - LIMIT


def test_a_run_that_the_dequeuer_launches_beyond_the_limit_goes_back_into_the_queue(home):
    with DagsterInstance.from_config(str(home)) as instance:
        late = new_run(instance)
        for _ in range(LIMIT):
            assert submit(instance) == DagsterRunStatus.STARTING
        # the dequeuer had counted before those two were there, and marks what it found in the queue since
        instance.launch_run(late.run_id, None)  # pyright: ignore[reportArgumentType]
        again = instance.get_run_by_id(late.run_id)
        assert again and again.status == DagsterRunStatus.QUEUED
        assert instance.get_runs_count(IN_PROGRESS) == LIMIT
