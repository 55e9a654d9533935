"""Installs a release and is killed on the way: `python -m tests.releases.install_process RECORD HOME POINT`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from geomagic_dagster.releases import environments
from tests.releases.projects import borrowing


def die_at(point: str) -> None:
    if point == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    environments.install(Path(sys.argv[1]), Path(sys.argv[2]), fill=borrowing(), at=die_at)
