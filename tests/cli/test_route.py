"""`geomagic route ...`: what a person reads, and that every change says who and why."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from geomagic_dagster.cli import app


@pytest.fixture
def route(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOMAGIC_HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "ada")

    def call(*arguments: str):
        return CliRunner().invoke(app, ["route", *arguments])

    return call


def test_a_release_is_made_live_flown_made_default_and_rolled_back(route):
    for arguments in (
        ("live", "1.0", "--why", "installed"),
        ("flight", "1.0", "10", "--why", "a first look"),
        ("flight", "1.0", "5", "--shadow", "--why", "and copies"),
        ("pin", "room-1", "1.0", "--why", "the customer asked", "--by", "bob"),
        ("flag", "new_fit", "--per-cent", "20", "--scan", "room-2", "--why", "a trial"),
        ("flag", "old_fit", "--off", "--why", "it was never good"),
    ):
        assert route(*arguments).exit_code == 0, arguments
    shown = route("show", "--scan", "room-1").stdout
    for words in (
        "revision 6, written ",
        "by ada: it was never good",
        "default  latest",
        "live     latest, 1.0",
        "flight   1.0 10 %",
        "shadow   1.0 5 %",
        "pin      room-1 to 1.0",
        "flag     new_fit 20 %, 1 scans by name",
        "flag     old_fit 0 %",
        "room-1: release 1.0",
    ):
        assert words in shown, words
    assert "default  1.0, on probation; before it latest" in route("default", "1.0", "--why", "approved").stdout
    assert "taken back: 1.0" in route("roll-back", "--why", "its smoke scan failed").stdout
    for arguments in (
        ("flight", "1.0", "1", "--why", "mended"),
        ("end-flight", "1.0", "--taken-back", "--why", "not so"),
    ):
        assert route(*arguments).exit_code == 0
    assert "pin" not in route("unpin", "room-1", "--why", "over").stdout
    assert route("live", "1.0", "--off", "--why", "archived").exit_code == 0
    history = route("history").stdout
    assert "ada: its smoke scan failed" in history and "bob: the customer asked" in history
    assert history.splitlines()[0].split()[0] == "12", "the newest first"
    assert json.loads(route("show", "--json").stdout)["live"] == ["latest"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("default", "1.9", "--why", "x"), "Make it live first: geomagic route live 1.9"),
        (("flight", "latest", "10", "--why", "x"), "expected a release that is not the default"),
        (("roll-back", "--why", "x"), "expected a release that was the default before latest"),
        (("roll-back", "--to", "latest", "--why", "x"), "expected another release than now; got the same"),
        (("flag", "fast", "--why", "x"), "expected --on, --off, --per-cent or --scan; got none of them"),
        (("unpin", "room", "--why", " "), "expected words; got nothing. Say who and why."),
    ],
)
def test_a_change_that_is_refused_says_why_and_changes_nothing(route, arguments, words):
    result = route(*arguments)
    assert result.exit_code == 2 and words in result.stderr
    assert "revision 0, never written" in route("show").stdout


def test_a_release_that_nobody_recorded_may_be_mistyped_and_is_said_so(route):
    result = route("live", "9.9", "--why", "x")
    assert result.exit_code == 0 and "live     latest, 9.9" in result.stdout
    assert "release 9.9: expected one that is recorded here (latest, 1.0" in result.stderr
    assert "geomagic route live 9.9 --off" in result.stderr
    assert not route("live", "1.0", "--why", "x").stderr and not route("live", "9.9", "--off", "--why", "x").stderr


def test_no_history_is_said(route):
    result = route("history")
    assert (result.stdout, result.stderr) == ("", "nothing yet: everything goes to latest\n")


def test_a_broken_table_is_said_beside_the_last_good_one(route, tmp_path):
    route("live", "1.0", "--why", "installed")
    (tmp_path / "store" / "routing" / "000000002.json").write_text("{")
    result = route("show")
    assert result.exit_code == 1 and "revision 1" in result.stdout
    assert "000000002.json: expected JSON" in result.stderr
