"""Trained weights as a stage declares and reads them, without any platform."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geomagic_dagster.cv.stage import StageError, describe_stage, find_stages
from geomagic_dagster.cv.types import Frames
from geomagic_dagster.cv.weights import weights, weights_as_inputs, weights_from
from tests.conftest import REPOSITORY
from tests.toy_stages.networks import write_net
from tests.toy_stages.scans import toy_scan

GUESS = next(each for each in find_stages("tests.toy_stages.trained") if each.name == "guess")
LOOK = next(each for each in find_stages("tests.toy_stages.trained") if each.name == "look")


def test_a_notebook_says_where_the_file_lies_and_calls_the_stage(tmp_path):
    look = LOOK.returns(np.array([0.5, 0.25, 0.125], np.float32))
    with weights_from({"net": write_net(tmp_path / "net.pt")}):
        assert GUESS.function(look).warmth == pytest.approx(0.875)
        with weights_from({"net": str(write_net(tmp_path / "other.pt", bias=0.0))}):
            assert GUESS.function(look).warmth == pytest.approx(0.375)
        assert GUESS.function(look).warmth == pytest.approx(0.875)
    with pytest.raises(StageError, match="got nobody"):
        weights("net")


def test_whoever_is_asked_without_an_answer_says_how_to_give_one(tmp_path):
    with pytest.raises(
        StageError, match=r'this process: .* got nobody.*with weights_from\(\{"net": "path/of/the/file"'
    ):
        weights("net")
    with weights_from(None, GUESS), pytest.raises(StageError, match=r"stage guess: expected somebody to say where"):
        weights("net")
    with (
        weights_from({"other": tmp_path}),
        pytest.raises(StageError, match=r"file for weights\('net'\); got one for other"),
    ):
        weights("net")
    with weights_from({"net": tmp_path / "no.pt"}), pytest.raises(StageError, match=r"no\.pt; got no such file"):
        weights("net")


def test_weights_that_the_stage_does_not_declare_are_refused_in_words():
    with (
        weights_from({"nut": Path("here")}, stage=GUESS),
        pytest.raises(
            StageError,
            match=r"stage guess: expected weights that its @stage declares \(net\); got weights\('nut'\). "
            r'Write @stage\(\.\.\., weights=\{"nut": "sha256:\.\.\."\}\); `geomagic weights add FILE` prints the line',
        ),
    ):
        weights("nut")
    with weights_from({}, stage=LOOK), pytest.raises(StageError, match="it declares none"):
        weights("net")


def test_weights_are_part_of_the_identity_and_without_any_it_is_what_it_was():
    settings, inputs = GUESS.params(), {"look": "x"}
    assert weights_as_inputs(LOOK) == {}
    first = GUESS.identity(settings, inputs | weights_as_inputs(GUESS))
    other = replace(GUESS, weights={"net": "sha256:" + 64 * "1"})  # the same code: it read them from somewhere
    assert other.code_sha256 == GUESS.code_sha256
    assert other.identity(settings, inputs | weights_as_inputs(other)) != first
    renamed = replace(GUESS, weights={"web": GUESS.weights["net"]})
    assert renamed.identity(settings, inputs | weights_as_inputs(renamed)) != first


UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "urllib", "requests", "huggingface_hub"}
CV = REPOSITORY / "geomagic_dagster" / "cv"


@pytest.mark.parametrize("file", sorted(CV.glob("*.py")), ids=lambda file: file.stem)
def test_the_science_unpickles_nothing_and_downloads_nothing(file):
    """What a file of weights may hold is numbers: docs/weights.md says why."""
    assert unsafe_in(file.read_text()) == []


def unsafe_in(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names if each.name.partition(".")[0] in UNSAFE]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in UNSAFE:
            found.append(str(node.module))
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.hub."):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call):
            said = {each.arg: ast.unparse(each.value) for each in node.keywords}
            if said.get("allow_pickle", "False") != "False":
                found.append("allow_pickle")
            if ast.unparse(node.func) == "torch.load" and said.get("weights_only") != "True":
                found.append("torch.load without weights_only=True")
    return found


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "torch.hub.load('a', 'b')",
        "np.load(path, allow_pickle=True)",
        "torch.load(weights('net'))",
        "torch.load(weights('net'), weights_only=False)",
        "import urllib.request",
    ],
)
def test_whatever_unpickles_or_downloads_is_found(line):
    assert unsafe_in(line)
    assert not unsafe_in(
        "torch.load(weights('net'), map_location='cpu', weights_only=True)\nnp.load(p, allow_pickle=False)"
    )


def test_the_example_in_the_docs_runs_as_it_stands(tmp_path, monkeypatch):
    import torch

    text = (REPOSITORY / "docs" / "weights.md").read_text()
    code = re.search(r"<!-- stage: tested -->\n```python\n(.*?)```", text, re.DOTALL)[1]
    (tmp_path / "of_the_docs").mkdir()
    (tmp_path / "of_the_docs" / "__init__.py").touch()
    (tmp_path / "of_the_docs" / "glass.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("of_the_docs.glass")
    declared = describe_stage(module.glass)
    assert f'weights={{"glass": "{declared.weights["glass"]}"}}\n```' in text, "the line that the command prints"
    assert unsafe_in(code) == []
    torch.save(module.network().state_dict(), tmp_path / "glass.pt")
    recording = toy_scan().recording
    ones_b = np.ones(len(recording))
    with weights_from({"glass": tmp_path / "glass.pt"}):
        frames = Frames(recording, np.arange(len(recording)), ones_b, ones_b, ())
        assert declared.measure(module.glass(frames)).keys() == {"share"}
    del sys.modules["of_the_docs.glass"], sys.modules["of_the_docs"]


def test_what_every_stage_imports_does_not_import_this():
    """So that no stage without weights got another identity by it, or gets one when it changes."""
    for name in ("stage", "types", "camera", "containers", "code"):
        assert "cv.weights" not in (CV / f"{name}.py").read_text()
