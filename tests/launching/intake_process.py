"""An intake that is killed on the way: `python -m tests.launching.intake_process PATH INBOX POINT`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from geomagic_dagster.launching.intake import Intake
from geomagic_dagster.resources.places import Places


def die_at(point: str) -> None:
    if point == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    inbox = Path(sys.argv[2])
    workspace = str(Path(os.environ["DAGSTER_HOME"]) / "workspace.yaml")
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, WorkspaceFileTarget([workspace])) as context,
    ):
        Intake(context, inbox, Places.in_home(inbox.parent).routing(), die_at).take_in_path(Path(sys.argv[1]))
