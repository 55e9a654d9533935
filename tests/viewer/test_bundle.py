"""The three.js that lies in the repository is what the lock file pins, bundled by what the lock file pins."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from geomagic_dagster.viewer.page import static
from tests.conftest import REPOSITORY
from tests.npm import assert_pinned, npm_with_installed

BUNDLE = REPOSITORY / "deploy" / "viewer"
STATIC = REPOSITORY / "geomagic_dagster" / "viewer" / "static"


def test_every_package_is_pinned_with_its_checksum_and_says_its_licence():
    wanted = json.loads((BUNDLE / "package.json").read_text())
    assert_pinned(BUNDLE, {**wanted["dependencies"], **wanted["devDependencies"]}, ("MIT",))


def test_the_licence_lies_beside_the_bundle():
    assert "Permission is hereby granted" in static("three.LICENSE")
    assert "three.js, MIT licence" in static("three.js")[:100]


def test_the_bundle_has_what_the_room_uses_and_nothing_more():
    exported = set(re.findall(r"\b([A-Z]\w+)(?:,| \})", (BUNDLE / "three_parts.js").read_text()))
    assert exported == set(re.findall(r"THREE\.(\w+)", static("room.js")))


@pytest.mark.slow
def test_the_bundle_is_what_the_lock_file_gives(tmp_path):
    npm = npm_with_installed(BUNDLE)
    bundle = tmp_path / "three.js"
    subprocess.run([npm, "run", "--silent", "build", "--", f"--outfile={bundle}"], cwd=BUNDLE, check=True)
    assert bundle.read_bytes() == (STATIC / "three.js").read_bytes(), "make viewer bundles it anew"
    licence = Path(BUNDLE / "node_modules" / "three" / "LICENSE").read_bytes()
    assert licence == (STATIC / "three.LICENSE").read_bytes()
