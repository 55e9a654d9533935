"""Feature flags as a stage declares and reads them."""

from __future__ import annotations

import pytest

from geomagic_dagster.cv.stage import StageError, find_stages, flag, flags_on, known_flags, minutes, stage

SHADES = next(each for each in find_stages("tests.toy_stages.stages") if each.name == "shades")


def test_a_flag_is_off_unless_somebody_turns_it_on():
    assert not flag("dimmer")
    with flags_on("dimmer"):
        assert flag("dimmer")
        with flags_on(stage=SHADES):
            assert not flag("dimmer")
        assert flag("dimmer")
    assert not flag("dimmer")
    assert "dimmer" in known_flags()


def test_a_flag_that_nobody_declares_is_refused_in_words():
    with pytest.raises(StageError, match=r"expected a flag that its @stage declares.*got flag\('dimer'\)"):
        flag("dimer")
    undeclared = next(each for each in find_stages("tests.toy_stages.stages") if each.name == "mood")
    with (
        flags_on("dimmer", stage=undeclared),
        pytest.raises(
            StageError, match=r"stage mood: .*it declares none.*Write @stage\(\.\.\., flags=\(\"dimmer\",\)\)"
        ),
    ):
        flag("dimmer")


def test_only_flags_that_are_on_and_declared_are_part_of_the_identity():
    settings, inputs = SHADES.params(), {"scan": "x"}
    off = SHADES.identity(settings, inputs)
    assert SHADES.identity(settings, inputs, ["newer_than_this_code"]) == off
    assert SHADES.identity(settings, inputs, ["dimmer"]) != off
    assert SHADES.identity(settings, inputs, ["dimmer", "newer_than_this_code"]) == SHADES.identity(
        settings, inputs, ["dimmer"]
    )


@pytest.mark.parametrize("name", ["New", "new plane", "a,b", "1st", ""])
def test_a_flag_is_a_plain_word(name):
    with pytest.raises(StageError, match="expected flags like"):
        stage(version="1", timeout=minutes(1), flags=(name,))(lambda scan: scan)


def test_one_flag_may_be_said_as_a_word():
    declared = stage(version="1", timeout=minutes(1), flags="dimmer")(lambda scan: scan)
    assert declared.__stage__["flags"] == ("dimmer",)


@pytest.mark.parametrize("digest", ["", "abc", "sha256:abc", "sha256:" + "g" * 64, "md5:" + "0" * 64])
def test_weights_are_named_by_a_whole_digest(digest):
    with pytest.raises(StageError, match=r"expected weights\['net'\] as sha256: and 64 hexadecimal digits"):
        stage(version="1", timeout=minutes(1), weights={"net": digest})(lambda scan: scan)
    stage(version="1", timeout=minutes(1), weights={"net": "sha256:" + "0" * 64})(lambda scan: scan)
