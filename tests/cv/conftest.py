"""Khronos' validator, for all tests of GLB files."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GLTF = Path(__file__).parents[1] / "gltf"


@pytest.fixture(scope="session")
def validate_glb(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], dict[str, Any]]:
    """The Khronos validator's report on a GLB; installed into tests/gltf once."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("no npm and node on the PATH: install Node.js 18 or later to check room.glb by Khronos' validator")
    with (GLTF / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one of several test processes installs
        if not (GLTF / "node_modules" / "gltf-validator" / "package.json").is_file():
            installed = subprocess.run([npm, "ci"], cwd=GLTF, capture_output=True, text=True, check=False)
            if re.search("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH", installed.stderr):
                pytest.skip(f"npm ci in {GLTF} found no network: {installed.stderr[-300:]}")
            assert installed.returncode == 0, installed.stderr

    def validate(glb: bytes) -> dict[str, Any]:
        path = tmp_path_factory.mktemp("glb") / "room.glb"
        path.write_bytes(glb)
        command = [node, "validate.mjs", str(path)]
        return json.loads(subprocess.run(command, cwd=GLTF, capture_output=True, text=True, check=True).stdout)

    return validate
