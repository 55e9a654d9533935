"""The toy stages as two releases, which are code locations of one process: `latest` and `line_1_0`; none of them runs."""

import os
from pathlib import Path

from tests.toy_stages.installation import Toys

HOME = Path(os.environ["TOY_HOME"])
latest = Toys(HOME, "latest").defs
line_1_0 = Toys(HOME, "1.0").defs
