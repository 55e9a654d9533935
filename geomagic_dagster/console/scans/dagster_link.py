"""The console's one connection to Dagster's storage.

Belongs here: opening it, and where Dagster's own pages are. Does not belong here: what is asked of it.
"""

from __future__ import annotations

import os
from functools import cache

from dagster import DagsterInstance
from django.conf import settings

from geomagic_dagster.jobs.local_run import dagster_home


@cache
def instance() -> DagsterInstance:
    """Opened when it is first needed, and then kept: threads share it."""
    home = dagster_home(settings.HOME)
    os.environ.setdefault("DAGSTER_HOME", str(home))  # Dagster's own settings may refer to it
    return DagsterInstance.from_config(str(home))


def dagster_url() -> str:
    """Where people, and this console, find Dagster's webserver."""
    return str(getattr(settings, "DAGSTER_URL", "http://127.0.0.1:3000")).rstrip("/")


def run_url(run_id: str) -> str:
    return f"{dagster_url()}/runs/{run_id}"
