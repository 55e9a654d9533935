"""Reading scans with other libraries gives another scan artefact."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from geomagic_dagster import scans
from geomagic_dagster.cv.code import versions_of
from geomagic_dagster.resources import scan_source


def test_the_libraries_that_read_scans_are_those_that_their_syntax_names():
    modules: set[str] = set()
    for path in Path(scans.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())) if "made_up" not in path.as_posix() else ():
            if isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
    expected = versions_of(modules - sys.stdlib_module_names - {"geomagic_dagster"})
    assert scan_source.scan_libraries() == expected
    assert {"numpy", "opencv-python-headless", "lzfse"} <= expected.keys()


def test_another_version_of_one_is_another_scan(monkeypatch):
    before = scan_source.scan_identity("room", "0" * 64)
    assert scan_source.scan_identity("room", "0" * 64) == before
    monkeypatch.setattr(scan_source, "scan_libraries", lambda: {"numpy": "99"})
    assert scan_source.scan_identity("room", "0" * 64) != before
