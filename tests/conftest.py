"""What all tests share. Real scans are data beside the repository; they are never committed."""

from __future__ import annotations

import os
from pathlib import Path

# As definitions.py has them; read when numpy and torch are imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_scans() -> Path:
    """The folder of real room scans: $GEOMAGIC_SCANS, else ../shared/scans beside the repository."""
    folder = Path(os.environ.get("GEOMAGIC_SCANS", REPOSITORY.parent / "shared" / "scans"))
    if not folder.is_dir():
        pytest.skip(f"no real scans at {folder}; point GEOMAGIC_SCANS at a folder that holds them")
    return folder
