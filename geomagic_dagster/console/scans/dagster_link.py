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
    """Where this console finds Dagster's webserver: on its own machine, past any proxy."""
    return settings.DAGSTER_URL.rstrip("/")


def run_url(run_id: str) -> str:
    """Where people find the page of a run."""
    return f"{(settings.DAGSTER_PAGES or settings.DAGSTER_URL).rstrip('/')}/runs/{run_id}"
