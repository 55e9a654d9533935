"""The 3D viewer that lies in the repository is what the lock file pins, with its licences, and asks nobody."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess

import pytest

from tests.conftest import REPOSITORY

BUNDLE = REPOSITORY / "deploy" / "console"
STATIC = REPOSITORY / "geomagic_dagster" / "console" / "scans" / "static" / "scans"


def test_every_package_is_pinned_with_its_checksum_and_says_its_licence():
    wanted = json.loads((BUNDLE / "package.json").read_text())
    locked = json.loads((BUNDLE / "package-lock.json").read_text())["packages"]
    for name, version in wanted["dependencies"].items():
        assert locked[f"node_modules/{name}"]["version"] == version, "exact, no range"
    for name, package in locked.items():
        if name:
            assert re.match("sha512-[A-Za-z0-9+/]{86}==$", package["integrity"])
            assert package["license"] in ("MIT", "Apache-2.0", "BSD-3-Clause")


def test_the_licences_lie_beside_the_bundle():
    licences = (STATIC / "model-viewer.LICENSE").read_text()
    for words in ("==== @google/model-viewer", "==== three", "==== lit", "Apache License", "BSD 3-Clause License"):
        assert words in licences


@pytest.mark.slow
def test_the_bundle_is_what_the_lock_file_gives(tmp_path):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on the PATH: install Node.js 18 or later to bundle the viewer anew")
    with (BUNDLE / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one of several test processes installs
        if not (BUNDLE / "node_modules" / "three" / "package.json").is_file():
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            installed = subprocess.run(command, cwd=BUNDLE, capture_output=True, text=True, check=False)
            if re.search("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH", installed.stderr):
                pytest.skip(f"npm ci in {BUNDLE} found no network: {installed.stderr[-300:]}")
            assert installed.returncode == 0, installed.stderr
    subprocess.run(["sh", str(BUNDLE / "bundle.sh"), str(tmp_path)], check=True)
    for name in ("model-viewer.js", "model-viewer.LICENSE"):
        assert (tmp_path / name).read_bytes() == (STATIC / name).read_bytes(), "make viewer copies it anew"
