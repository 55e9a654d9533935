"""The toy stages as a code location whose steps wait, before they read the scan, while $TOY_HOME/hold exists."""

import os
import time
from pathlib import Path

from dagster import in_process_executor

from geomagic_dagster.jobs import process_scan
from tests.toy_stages.installation import Toys

HOME = Path(os.environ["TOY_HOME"])
_read_upload = process_scan.read_upload


def read_upload(*arguments, **options):
    while (HOME / "hold").exists():
        time.sleep(0.02)
    return _read_upload(*arguments, **options)


process_scan.read_upload = read_upload
process_scan.step_processes = lambda: in_process_executor
defs = Toys(HOME).defs
