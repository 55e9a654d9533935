"""The three.js that lies in the repository is what the lock file pins, bundled by what the lock file pins."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from geomagic_dagster.viewer.page import static
from tests.conftest import REPOSITORY

BUNDLE = REPOSITORY / "deploy" / "viewer"
STATIC = REPOSITORY / "geomagic_dagster" / "viewer" / "static"


def test_every_package_is_pinned_with_its_checksum_and_says_its_licence():
    wanted = json.loads((BUNDLE / "package.json").read_text())
    locked = json.loads((BUNDLE / "package-lock.json").read_text())["packages"]
    for name, version in {**wanted["dependencies"], **wanted["devDependencies"]}.items():
        assert locked[f"node_modules/{name}"]["version"] == version, "exact, no range"
    for name, package in locked.items():
        if name:
            assert re.match("sha512-[A-Za-z0-9+/]{86}==$", package["integrity"])
            assert package["license"] == "MIT"


def test_the_licence_lies_beside_the_bundle():
    assert "Permission is hereby granted" in static("three.LICENSE")
    assert "three.js, MIT licence" in static("three.js")[:100]


def test_the_bundle_has_what_the_room_uses_and_nothing_more():
    exported = set(re.findall(r"\b([A-Z]\w+)(?:,| \})", (BUNDLE / "three_parts.js").read_text()))
    assert exported == set(re.findall(r"THREE\.(\w+)", static("room.js")))


@pytest.mark.slow
def test_the_bundle_is_what_the_lock_file_gives(tmp_path):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on the PATH: install Node.js 18 or later to bundle three.js anew")
    with (BUNDLE / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one of several test processes installs
        if not (BUNDLE / "node_modules" / "three" / "package.json").is_file():
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            installed = subprocess.run(command, cwd=BUNDLE, capture_output=True, text=True, check=False)
            if re.search("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH", installed.stderr):
                pytest.skip(f"npm ci in {BUNDLE} found no network: {installed.stderr[-300:]}")
            assert installed.returncode == 0, installed.stderr
    bundle = tmp_path / "three.js"
    subprocess.run([npm, "run", "--silent", "build", "--", f"--outfile={bundle}"], cwd=BUNDLE, check=True)
    assert bundle.read_bytes() == (STATIC / "three.js").read_bytes(), "make viewer bundles it anew"
    licence = Path(BUNDLE / "node_modules" / "three" / "LICENSE").read_bytes()
    assert licence == (STATIC / "three.LICENSE").read_bytes()
