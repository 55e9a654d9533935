"""Speed and memory, as ratios within one run on one machine: `make bench`."""

import os

# As definitions.py has them; read when numpy and torch are imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
