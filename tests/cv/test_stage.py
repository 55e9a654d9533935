"""What the `@stage` contract promises a researcher, and the words it says when something is missing."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from pydantic import ValidationError

from geomagic_dagster.cv import stage as stage_module
from geomagic_dagster.cv.stage import (
    Params,
    ScanRejected,
    StageError,
    describe_stage,
    find_stages,
    progress,
    report_progress_to,
)

TOY = '''
"""Twice the scan."""
from __future__ import annotations
from geomagic_dagster.cv.stage import Field, Params, minutes, stage

class DoubleParams(Params):
    factor: float = Field(2.0, gt=0, description="How much.")

@stage(version="1", timeout=minutes(1), expects={"size": (0, 10)})
def double(scan: int, params: DoubleParams = DoubleParams()) -> float:
    return scan * params.factor

def measure_double(result: float) -> dict[str, float]:
    return {"size": result}
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes modules of a throwaway package of stages; returns its name."""
    name = f"toy_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()

    def write(**modules: str) -> str:
        for module, source in modules.items():
            (folder / f"{module}.py").write_text(textwrap.dedent(source))
        return name

    return write


def test_a_new_file_is_a_new_stage_with_everything_read_from_it(package):
    (double,) = find_stages(package(double=TOY))
    assert (double.name, double.inputs, double.version, double.timeout_s) == ("double", ("scan",), "1", 60.0)
    assert double.description == "Twice the scan."
    assert double.function(4) == 8.0, "it stays an ordinary function"
    assert double.measure(8.0) == {"size": 8.0}
    assert double.preview_rgb_hw3(8.0) is None
    assert double.expects == {"size": (0, 10)}


def test_upstream_comes_before_downstream_whatever_the_names_are(package):
    consumer = TOY.replace("def double(scan: int", "def a(b: float").replace("measure_double", "measure_a")
    maker = TOY.replace("def double", "def b").replace("measure_double", "measure_b")
    assert [each.name for each in find_stages(package(a=consumer, b=maker))] == ["b", "a"]


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ({"double": TOY.replace("scan: int", "scann: int")}, ["'scann'", "neither 'scan' nor a stage"]),
        ({"other": TOY}, ["rename the file or the function"]),
        ({"double": TOY.replace("scan: int,", "scan,")}, ["'scan' has no type"]),
        ({"double": TOY.replace('(2.0, gt=0, description="How much.")', '(2.0, gt=0, description="")')}, ["description"]),
        ({"double": TOY.replace("minutes(1)", "minutes(0)")}, ["timeout above 0 s", "minutes(4)"]),
        ({"double": TOY.replace("(0, 10)", "(10, 0)")}, ["lower bound first"]),
        ({"double": TOY.replace('"""Twice the scan."""', "")}, ["begin the file with a sentence"]),
        (
            {"a": TOY.replace("def double(scan: int", "def a(b: float"), "b": TOY.replace("def double(scan: int", "def b(a: float")},
            ["wait for each other: a, b"],
        ),
        (
            {"a": TOY.replace("def double(scan: int", "def a(b: int"), "b": TOY.replace("def double", "def b")},
            ["takes b as int", "returns float"],
        ),
        ({"double": TOY.replace('version="1"', "version=1")}, ["version in quotes", 'version="1"']),
        ({"double": TOY.replace("scan: int", "scan: int | None")}, ["expected one class", "takes scan as int | None"]),
        ({"double": TOY.replace("DoubleParams()) -> float", "DoubleParams()) -> list[int]")}, ["returns list[int]", "frozen dataclass"]),
        ({"double": TOY.replace("scan: int", "scan: Scann")}, ["'Scann' is not defined", "Import it at the top"]),
        ({"double": TOY.replace("measure_double", "measure_doubel")}, ["expected measure_double", "got measure_doubel", "Rename"]),
        ({"double": TOY.replace("(2.0, gt=0", "(-2.0, gt=0")}, ["default within its own limits", "-2.0"]),
        ({"double": TOY.replace("timeout=minutes(1), ", "")}, ["double.py, line", "got TypeError", "'timeout'"]),
        ({"double": TOY + "import no_such_library\n"}, ["double.py, line 15:", "no_such_library", "pyproject.toml", "make lock"]),
        ({"double": TOY + "\nnumbers = [\n"}, ["double.py, line", "'[' was never closed"]),
    ],
    ids=[
        "unknown input", "file name", "no type", "no description", "no deadline", "range", "no docstring", "cycle", "types",
        "version", "two types", "type of many", "unknown type", "measure's name", "default", "argument left out", "library",
        "no Python",
    ],
)  # fmt: skip
def test_a_wrong_declaration_says_where_and_what_to_write(package, modules, words):
    with pytest.raises(StageError) as refused:
        find_stages(package(**modules))
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("gives", "words"),
    [
        ("[3.0]", "stage double: measure_double: expected a dict of numbers; got list. Write return"),
        ('{"size": [1, 2]}', "stage double: measure_double: expected a number as 'size'; got list"),
        ('{"size": "big"}', "stage double: measure_double: expected a number as 'size'; got str"),
    ],
)
def test_what_measures_gives_numbers_by_name_or_is_told_to(package, gives, words):
    (double,) = find_stages(package(double=TOY.replace('{"size": result}', gives)))
    with pytest.raises(StageError) as refused:
        double.measure(8.0)
    assert str(refused.value).startswith(words)


def test_settings_are_frozen_and_refuse_unknown_names(package):
    (double,) = find_stages(package(double=TOY))
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        double.params(facter=3)
    with pytest.raises(ValidationError, match="greater than 0"):
        double.params(factor=0)
    with pytest.raises(ValidationError, match="frozen"):
        double.params().factor = 3.0


def test_identity_changes_with_settings_inputs_and_code_and_with_nothing_else(package, tmp_path):
    (double,) = find_stages(package(double=TOY))
    first = double.identity(double.params(), {"scan": "x"})
    assert double.identity(double.params(factor=2.0), {"scan": "x"}) == first
    assert double.identity(double.params(factor=3.0), {"scan": "x"}) != first
    assert double.identity(double.params(), {"scan": "y"}) != first
    Path(inspect.getsourcefile(double.function)).write_text(TOY.replace("scan * ", "scan + "))
    assert double.identity(double.params(), {"scan": "x"}) == first, "what runs is the code that was imported"
    edited = describe_stage(double.function)
    assert edited.identity(edited.params(), {"scan": "x"}) != first, "an edit without a new version must not reuse"


def test_the_code_version_covers_what_a_stage_imports_inside_functions(package):
    helper = "def help(): return 1\n"
    name = package(
        helper=helper,
        double=TOY.replace("    return scan * params.factor", "    from PACKAGE.helper import help\n    return help()"),
    )
    folder = Path(importlib.import_module(name).__path__[0])
    (folder / "double.py").write_text((folder / "double.py").read_text().replace("PACKAGE", name))
    (double,) = find_stages(name)
    before = double.code_version
    (folder / "helper.py").write_text(helper.replace("1", "2"))
    assert describe_stage(double.function).code_version != before


def test_the_stages_of_the_project_are_found_in_the_order_of_the_journey():
    assert [each.name for each in find_stages()][:4] == ["frames", "odometry", "poses", "depth"]


def test_no_stage_imports_another_stage():
    names = {each.name for each in find_stages()}
    for each in find_stages():
        source = Path(inspect.getsourcefile(each.function)).read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("geomagic_dagster.cv"):
                assert node.module.split(".")[-1] not in names, (
                    f"cv/{each.name}.py imports {node.module}: a stage takes another's result as an argument; "
                    "what both need belongs in cv/camera.py"
                )


def test_finding_the_stages_loads_no_heavy_library():
    heavy = ["torch", "kornia", "cv2", "numba", "scipy", "skimage", "trimesh", "fast_simplification", "dagster"]
    code = (
        "import sys; from geomagic_dagster.cv.stage import find_stages; find_stages(); "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert loaded == "[]", f"imported at the top of a stage: {loaded}; import it inside the function that needs it"


def test_every_expected_range_names_a_number_that_the_stage_could_measure():
    for each in find_stages():
        measure = each.function.__globals__.get(f"measure_{each.name}")
        assert measure is not None or not each.expects, f"{each.name} expects numbers but has no measure_{each.name}"
        if measure is not None:
            source = inspect.getsource(measure)
            for number in each.expects:
                assert f'"{number}"' in source, (
                    f"{each.name}: expects {number!r}, which measure_{each.name} never gives"
                )


def test_a_rejection_says_place_expected_received_and_next_step_also_after_pickling():
    rejection = ScanRejected("depth", expected="depth images", received="none", do="Scan again.")
    assert str(rejection) == "depth: expected depth images; got none. Scan again."
    assert str(pickle.loads(pickle.dumps(rejection))) == str(rejection)


def test_progress_passes_everything_through_and_reports_to_the_end():
    heard = []
    report_progress_to(lambda *report: heard.append(report))
    try:
        assert list(progress("abc", "letters")) == ["a", "b", "c"]
    finally:
        report_progress_to(None)
    assert heard == [("letters", 0, 3), ("letters", 1, 3), ("letters", 2, 3), ("letters", 3, 3)]


def test_compute_device_is_what_the_platform_chose():
    stage_module.use_compute_device("cpu")
    try:
        assert stage_module.compute_device().type == "cpu"
    finally:
        stage_module.use_compute_device(None)


def test_params_without_settings_are_allowed():
    assert Params().model_dump() == {}
