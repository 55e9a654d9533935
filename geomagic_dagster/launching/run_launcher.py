"""Starts runs in forks of a warm process: milliseconds where a process that imports everything takes seconds.

Belongs here: Dagster's launcher, and what it knows of a worker: whether it lives, how to end it. Does not belong
here: the warm process (starter.py), whether there is room for a run (coordinator.py).

The same launcher serves the daemon, the webserver and the intake. Where no starter answers it starts one and waits
for it, which takes as long as starting a cold worker. Where that does not work either (not on Linux, an
older release without a starter) the run is launched as DefaultRunLauncher does, and says so among its events.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dagster import DagsterEventType, DagsterRun, DagsterRunStatus
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._core.origin import JobPythonOrigin
from dagster._grpc.types import ExecuteRunArgs

from geomagic_dagster.guardrails import processes
from geomagic_dagster.guardrails.processes import Process
from geomagic_dagster.launching.coordinator import back_to_the_queue_if_full
from geomagic_dagster.launching.starter import Forked, StarterUnavailable, ask, socket_of
from geomagic_dagster.releases.environments import own_environment

log = logging.getLogger("dagster.geomagic.launcher")

WORKER_TAG = "geomagic/worker"
WARM_UP_S = 60.0
"""How long a starter that is being started may take to import everything, on a busy machine."""
KEPT_BYTES = 20 * 2**20
"""Of what such a starter and its workers say, and as much again of before."""
TERMINATE_S = 5.0
"""How long a cancelled worker has until it is killed."""


class WarmRunLauncher(DefaultRunLauncher):
    """Forks run workers off the starter of their code location; configured in dagster.yaml."""

    def launch_run(self, context: LaunchRunContext) -> None:
        run = context.dagster_run
        if back_to_the_queue_if_full(self._instance, run):
            return
        try:
            worker = self._forked(run)
        except StarterUnavailable as reason:
            log.warning("run %s is launched cold: %s", run.run_id, reason)
            self._instance.report_engine_event(
                f"No warm process for this run, so it is launched as Dagster does by default, which takes longer: "
                f"{reason}",
                run,
                cls=type(self),
            )
            super().launch_run(context)
            return
        try:  # first remember who it is, then let it begin: a run that has begun is always known by its worker
            self._instance.add_run_tags(run.run_id, {WORKER_TAG: worker.process.dumps()})
        except BaseException:
            worker.dismiss()
            raise
        worker.go()

    def _forked(self, run: DagsterRun) -> Forked:
        if not processes.is_supported:
            raise StarterUnavailable(f"runs are forked on Linux only; this is {sys.platform}")
        origin = run.job_code_origin
        if origin is None or run.remote_job_origin is None:
            raise StarterUnavailable("the run does not say which code it belongs to")
        location = run.remote_job_origin.location_name
        path = socket_of(Path(self._instance.root_directory), location)
        arguments = ExecuteRunArgs(
            job_origin=origin,
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
            set_exit_code_on_failure=True,
        ).get_command_args()
        arguments = arguments[arguments.index("execute_run") + 1 :]
        try:
            return ask(path, arguments, run.run_id, WARM_UP_S)
        except StarterUnavailable as reason:
            if not isinstance(reason.__cause__, FileNotFoundError | ConnectionRefusedError):
                raise
        starting = _start(path, location, origin)
        deadline_s = time.monotonic() + WARM_UP_S
        while True:
            try:
                return ask(path, arguments, run.run_id, WARM_UP_S)
            except StarterUnavailable as reason:
                if not isinstance(reason.__cause__, FileNotFoundError | ConnectionRefusedError):
                    raise
                if time.monotonic() > deadline_s or starting.poll() not in (None, 0):
                    raise
            time.sleep(0.05)

    # --- what became of it ------------------------------------------------------------------------

    @property
    def supports_check_run_worker_health(self) -> bool:
        return processes.is_supported

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        if (worker := _worker_of(run)) is None:
            return self._health_of_cold(run)
        if worker.is_alive():
            return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(worker.pid))
        return self._gone(run, worker.pid)

    def _health_of_cold(self, run: DagsterRun) -> CheckRunHealthResult:
        """Of a run launched as Dagster does by default: its code server finds it dead, unless it died with it.

        Only its pid is known: where another process has it by now, the run's deadline ends it.
        """
        events = self._instance.get_records_for_run(run.run_id, of_type=DagsterEventType.ENGINE_EVENT, limit=50).records
        for record in events:
            said = record.event_log_entry.get_dagster_event().engine_event_data.metadata.get("pid")
            if said is not None and processes.is_supported:
                pid = int(str(said.value))
                try:
                    Process.of(pid)
                except ProcessLookupError:
                    return self._gone(run, pid)
                return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(pid))
        return CheckRunHealthResult(WorkerStatus.RUNNING, "launched as Dagster does by default, and not begun yet")

    def _gone(self, run: DagsterRun, pid: int) -> CheckRunHealthResult:
        now = self._instance.get_run_by_id(run.run_id)
        if now is None or now.is_finished:
            return CheckRunHealthResult(WorkerStatus.SUCCESS, run_worker_id=str(pid))
        return CheckRunHealthResult(
            WorkerStatus.FAILED,
            f"the run's process {pid} is gone: killed, out of memory, or the machine was restarted",
            run_worker_id=str(pid),
        )

    def terminate(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if (worker := _worker_of(run)) is None:
            return super().terminate(run_id)
        if run.status != DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run)
        was_there = _send(worker, signal.SIGTERM)
        deadline_s = time.monotonic() + TERMINATE_S
        while worker.is_alive() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        if worker.is_alive():  # in native code; or a step's retry policy took the interrupt for a failure that passes
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)  # it leads a session of its own
        now = self._instance.get_run_by_id(run_id)
        if now is not None and not now.is_finished:
            self._instance.report_run_canceled(now, message=f"The run's process {worker.pid} is gone.")
        return was_there

    def join(self, timeout: int = 30) -> None:
        """Workers are nobody's children here: there is nothing to wait for."""


def _worker_of(run: DagsterRun) -> Process | None:
    return Process.loads(run.tags[WORKER_TAG]) if WORKER_TAG in run.tags and processes.is_supported else None


def _send(worker: Process, number: int) -> bool:
    """Sends a signal to this process and to no other that has its pid by now; False where it is gone."""
    try:
        descriptor = os.pidfd_open(worker.pid)
    except ProcessLookupError:
        return False
    try:
        if not worker.is_alive():
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def _start(path: Path, location: str, origin: JobPythonOrigin) -> subprocess.Popen[bytes]:
    """A starter for a code location, with the interpreter and the module of its code, that outlives this process."""
    repository = origin.repository_origin
    module_name = getattr(repository.code_pointer, "module", None)
    if module_name is None:
        raise StarterUnavailable(f"expected code location {location} to be a module; got {repository.code_pointer}")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [repository.executable_path, "-m", "geomagic_dagster.launching.starter", location, module_name, "--alone"]
    is_ours = repository.executable_path == sys.executable
    env = dict(os.environ) if is_ours else own_environment(os.environ)  # a release sees its own code alone
    log.info("starting a warm process for %s", location)
    said = path.with_suffix(".log")
    if said.exists() and said.stat().st_size > KEPT_BYTES:  # of all runs of this release so far
        said.replace(said.with_suffix(".log.1"))
    with open(said, "ab") as output:
        return subprocess.Popen(
            command,
            cwd=getattr(repository.code_pointer, "working_directory", None) or None,
            env=env | {"DAGSTER_HOME": str(path.parent.parent)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
