"""Which libraries stand behind a stage, found in its source alone."""

from __future__ import annotations

import importlib
import importlib.metadata

import pytest

from geomagic_dagster.cv.code import code_behind, normal_name, versions_of
from geomagic_dagster.cv.stage import describe_stage, find_stages

TOY = '''
"""Twice the scan."""
from geomagic_dagster.cv.stage import minutes, stage

@stage(version="1", timeout=minutes(1))
def double(scan: int) -> float:
    return 2.0 * scan
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes modules of a throwaway package; returns its name."""
    name = f"behind_{tmp_path.name.replace('-', '_')}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def write(**modules: str) -> str:
        for module, source in modules.items():
            (tmp_path / name / f"{module}.py").write_text(source.replace("PACKAGE", name))
        importlib.invalidate_caches()
        return name

    return write


def test_the_versions_are_those_that_importlib_metadata_says():
    of_module = importlib.metadata.packages_distributions()
    for module in ("numpy", "torch", "cv2", "skimage", "scipy", "numba", "fast_simplification", "embreex", "yaml"):
        distributions = {normal_name(name): importlib.metadata.version(name) for name in of_module[module]}
        assert versions_of([module]) == distributions, module


def test_what_is_no_installed_library_has_no_version(package):
    name = package(loose="")
    assert versions_of([name, "json", "no_such_module"]) == {}
    name = package(double=f"{TOY}\nimport no_such_module, json, numpy\n")
    assert code_behind(f"{name}.double").unknown == ("no_such_module",)


def test_libraries_are_found_through_helpers_and_inside_functions_and_the_contract_itself_brings_none(package):
    helper = "def help():\n    import cv2, json, scipy.ndimage\n    from . import other\n"
    name = package(double=f"{TOY}\nfrom PACKAGE.helper import help\n", helper=helper, alone="import trimesh\n")
    behind = code_behind(f"{name}.double")
    assert list(behind.libraries) == ["opencv-python-headless", "scipy"]
    assert code_behind(f"{package(plain=TOY)}.plain").libraries == {}, "not torch and pydantic of cv/stage.py"


def test_what_a_stage_imports_of_its_package_is_its_code_and_the_contract_is_not(package, monkeypatch):
    name = package(double=f"{TOY}\nfrom PACKAGE.helper import help\n", helper="def help(): ...\n")
    before = code_behind(f"{name}.double").sha256
    package(helper="def help(): return 1\n")
    assert code_behind(f"{name}.double").sha256 != before
    depth = code_behind("geomagic_dagster.cv.depth").sha256
    monkeypatch.setattr("geomagic_dagster.cv.code.CONTRACT", "")  # as if stage.py were a module like any other
    assert code_behind("geomagic_dagster.cv.depth").sha256 != depth


def test_another_version_of_a_library_is_another_identity_but_no_other_code(package, monkeypatch):
    name = package(double=f"{TOY}\nimport numpy\n")
    (double,) = find_stages(name)
    before = double.identity(double.params(), {"scan": "x"})
    monkeypatch.setattr("geomagic_dagster.cv.code._distributions_of", lambda module, path: ((module, "99.0"),))
    newer = describe_stage(double.function)
    assert (double.libraries["numpy"], newer.libraries["numpy"]) == (importlib.metadata.version("numpy"), "99.0")
    assert newer.identity(newer.params(), {"scan": "x"}) != before
    assert newer.code_version == double.code_version


def test_every_stage_of_the_project_that_computes_names_numpy():
    for stage in find_stages():
        assert "numpy" in stage.libraries, stage.name
        assert "geomagic-dagster" not in stage.libraries
