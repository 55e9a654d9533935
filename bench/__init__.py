"""Speed and memory, as ratios within one run on one machine: `make bench`."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as definitions.py has it; read when torch is imported
