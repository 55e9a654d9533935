"""The same stages as Dagster runs them when nothing is configured: a process for each step, a sensor every 30 s."""

import os

from dagster import multiprocess_executor

from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.definitions import build_definitions, places_from, release_from
from geomagic_dagster.jobs import upload_sensor

upload_sensor.MIN_INTERVAL_S = 30
defs = build_definitions(find_stages(), places_from(os.environ), release_from(os.environ), multiprocess_executor)
