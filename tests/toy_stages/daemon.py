"""Dagster's sensor daemon for one tick, in a process that may be killed in the middle of it.

python -m tests.toy_stages.daemon SECONDS_FROM_NOW [CRASH_POINT]
"""

from __future__ import annotations

import logging
import signal
import sys
import time

from dagster import DagsterInstance
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.sensor import execute_sensor_iteration


def tick(instance: DagsterInstance, seconds_from_now: float, crash_at: str | None = None) -> None:
    """Lets every sensor look once; later than its interval, whatever the clock says."""
    target = InProcessWorkspaceLoadTarget(
        InProcessCodeLocationOrigin(
            LoadableTargetOrigin(module_name="tests.toy_stages.location"), location_name="latest"
        )
    )
    flags = {"upload_sensor": {crash_at: signal.SIGKILL}} if crash_at else {}
    with (
        create_test_daemon_workspace_context(target, instance) as context,
        freeze_time(time.time() + seconds_from_now),
    ):
        errors = list(
            execute_sensor_iteration(context, logging.getLogger("daemon"), None, None, debug_crash_flags=flags)
        )
    for error in filter(None, errors):
        raise RuntimeError(error.to_string())


if __name__ == "__main__":
    with DagsterInstance.get() as instance:
        tick(instance, float(sys.argv[1]), *sys.argv[2:])
