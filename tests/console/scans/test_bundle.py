"""The 3D viewer that lies in the repository is what the lock file pins, with its licences, and asks nobody."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.conftest import REPOSITORY
from tests.npm import assert_pinned, npm_with_installed

BUNDLE = REPOSITORY / "deploy" / "console"
STATIC = REPOSITORY / "geomagic_dagster" / "console" / "scans" / "static" / "scans"


def test_every_package_is_pinned_with_its_checksum_and_says_its_licence():
    wanted = json.loads((BUNDLE / "package.json").read_text())
    assert_pinned(BUNDLE, wanted["dependencies"], ("MIT", "Apache-2.0", "BSD-3-Clause"))


def test_the_licences_lie_beside_the_bundle():
    licences = (STATIC / "model-viewer.LICENSE").read_text()
    for words in ("==== @google/model-viewer", "==== three", "==== lit", "Apache License", "BSD 3-Clause License"):
        assert words in licences


@pytest.mark.slow
def test_the_bundle_is_what_the_lock_file_gives(tmp_path):
    npm_with_installed(BUNDLE)
    subprocess.run(["sh", str(BUNDLE / "bundle.sh"), str(tmp_path)], check=True)
    for name in ("model-viewer.js", "model-viewer.LICENSE"):
        assert (tmp_path / name).read_bytes() == (STATIC / name).read_bytes(), "make viewer copies it anew"
