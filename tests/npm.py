"""What holds for every bundle that is made of npm packages and lies in the repository."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest


def assert_pinned(bundle: Path, wanted: Mapping[str, str], licences: tuple[str, ...]) -> None:
    """Every package of the lock file has a checksum and one of these licences, the wanted ones an exact version."""
    locked = json.loads((bundle / "package-lock.json").read_text())["packages"]
    for name, version in wanted.items():
        assert locked[f"node_modules/{name}"]["version"] == version, "exact, no range"
    for name, package in locked.items():
        if name:
            assert re.match("sha512-[A-Za-z0-9+/]{86}==$", package["integrity"])
            assert package["license"] in licences


def npm_with_installed(bundle: Path) -> str:
    """npm, after the packages of the lock file were installed; skips where there is no npm or no network."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on the PATH: install Node.js 18 or later to make the bundles anew")
    with (bundle / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one of several test processes installs
        if not (bundle / "node_modules" / "three" / "package.json").is_file():
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            installed = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False)
            if re.search("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH", installed.stderr):
                pytest.skip(f"npm ci in {bundle} found no network: {installed.stderr[-300:]}")
            assert installed.returncode == 0, installed.stderr
    return npm
