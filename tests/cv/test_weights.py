"""Trained weights as a stage declares and reads them, without any platform."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geomagic_dagster.cv.stage import StageError, find_stages
from geomagic_dagster.cv.weights import weights, weights_as_inputs, weights_from
from tests.conftest import REPOSITORY
from tests.toy_stages.networks import write_net

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


def test_only_stages_with_weights_have_this_module_behind_them():
    """So that it came without another identity for any stage that was there before."""
    for file in (REPOSITORY / "geomagic_dagster" / "cv").glob("*.py"):
        declares = "weights={" in file.read_text()
        assert declares or file.name in ("weights.py", "stage.py") or "cv.weights" not in file.read_text(), file
