"""The toy stages as a code location whose steps wait, before they read the scan, while $TOY_HOME/hold exists."""

import os
import time
from pathlib import Path

from geomagic_dagster.assets import steps
from tests.toy_stages.installation import Toys

HOME = Path(os.environ["TOY_HOME"])
_read_upload = steps.read_upload


def read_upload(*arguments, **options):
    while (HOME / "hold").exists():
        time.sleep(0.02)
    return _read_upload(*arguments, **options)


steps.read_upload = read_upload  # the processes of steps are forked off one that has imported this
defs = Toys(HOME).defs
