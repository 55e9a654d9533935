"""The toy stages as a code location; $TOY_HOME says where everything lies."""

import os
from pathlib import Path

from tests.toy_stages.installation import Toys

defs = Toys(Path(os.environ["TOY_HOME"])).defs
