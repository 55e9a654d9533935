"""The whole installation, fed and broken: nothing is lost, nothing comes twice, nothing is corrupt."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from geomagic_dagster.drill.drill import Count, _take_stock, drill
from geomagic_dagster.drill.faults import FAULTS, take_order
from geomagic_dagster.drill.unreliable import UnreliableFileSystem

SEEDS_THAT_FAILED: tuple[int, ...] = ()
"""Every seed of `geomagic drill` that ever found something is run here for ever."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a drill finds the processes that it kills in /proc: Linux only")
@pytest.mark.parametrize("seed", [1, *SEEDS_THAT_FAILED])
def test_eight_uploads_under_eight_faults_become_what_they_should_once_each(tmp_path, seed):
    said: list[str] = []
    count = drill(tmp_path / "drill", uploads=8, faults=8, seed=seed, say=said.append)
    log = tmp_path / "drill" / "installation.log"
    assert count.complaints == (), f"{said}\n{log.read_text()[-4000:]}"
    assert count.packages.total() + count.rejections.total() == 8
    assert count.packages.total() >= 1 and count.rejections.total() >= 1
    assert count.artefacts >= 9 * count.packages.total()
    possible = {fault.name for fault in FAULTS} - (
        {"disk full"} if any("no right to mount" in s for s in said) else set()
    )
    assert len(possible - set(count.faults)) <= 1, "on a busy machine the work may end before the last fault finds some"


def a_count(**changed) -> Count:
    """Of a drill that went well, but for what is changed."""
    well = {
        "uploads": {"room-0.zip": True, "bad-1.zip": False},
        "packages": Counter({"room-0.zip": 1}),
        "rejections": Counter({"bad-1.zip": 1}),
    }
    return Count(**{**well, **changed})


def test_a_drill_that_went_well_has_no_complaints():
    assert a_count().complaints == ()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"packages": Counter()}, "upload room-0.zip: expected 1 package and 0 rejection; got 0 and 0."),
        (
            {"packages": Counter({"room-0.zip": 2})},
            "upload room-0.zip: expected 1 package and 0 rejection; got 2 and 0.",
        ),
        ({"rejections": Counter()}, "upload bad-1.zip: expected 0 package and 1 rejection; got 0 and 0."),
        (
            {"packages": Counter({"room-0.zip": 1, "x": 1})},
            "x: expected a package or rejection of an upload; got one of",
        ),
        ({"given_up": ("room-0.zip",)}, "upload room-0.zip: expected a package or a rejection; got given up"),
        ({"still_there": ("room-0.zip",)}, "upload room-0.zip: expected the inbox to be empty; got it there still"),
        ({"corrupt": ("artefact mesh/1: expected x; got y.",)}, "artefact mesh/1: expected x; got y."),
        ({"left_over": ("17 python",)}, "process 17 python: expected to have ended; got it alive"),
    ],
)
def test_whatever_is_not_as_it_should_be_is_a_sentence(changed, words):
    [complaint] = a_count(**changed).complaints
    assert complaint.startswith(words)


def test_an_upload_that_was_taken_up_again_counts_where_it_is_now(tmp_path):
    names = ("taken-up-again.zip", "rejected-twice.zip", "failed.zip", "killed-while-it-was-moved.zip")
    for folder in ("quarantine/rejected-twice.zip", "failed/failed.zip", "quarantine/killed-while-it-was-moved.zip"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "reason.txt").write_text("no floor")
        if "killed" not in folder:
            (tmp_path / folder / Path(folder).name).write_text("the scan")
    for name in ("taken-up-again", "killed-while-it-was-moved"):
        (tmp_path / "packages" / name).mkdir(parents=True)
        (tmp_path / "packages" / name / "manifest.json").write_text("{}")
    count = Count({name: name.startswith(("taken", "killed")) for name in names})
    environment = {"GEOMAGIC_PACKAGES": str(tmp_path / "packages"), "GEOMAGIC_STORE": str(tmp_path / "store")}
    _take_stock(tmp_path, environment, count)
    assert count.packages == {"taken-up-again.zip": 1, "killed-while-it-was-moved.zip": 1}
    assert count.rejections == {"rejected-twice.zip": 1}
    assert count.given_up == ("failed.zip",)


def test_an_order_is_taken_once(tmp_path):
    (tmp_path / "hang-1").touch()
    assert take_order(tmp_path, "hang")
    assert not take_order(tmp_path, "hang")


def test_a_store_that_is_away_answers_nothing_and_is_whole_when_it_is_back(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    files = UnreliableFileSystem()
    files.pipe_file(f"unreliable://{store}/a/b.json", b"here")
    Path(f"{store}.away").touch()
    for question in (
        lambda: files.cat_file(f"{store}/a/b.json"),
        lambda: files.exists(f"{store}/a/b.json") or files.info(f"{store}/a/b.json"),
        lambda: files.pipe_file(f"{store}/c", b""),
        lambda: files.ls(str(store)),
    ):
        with pytest.raises(ConnectionError, match="connection refused"):
            question()
    Path(f"{store}.away").unlink()
    assert files.cat_file(f"unreliable://{store}/a/b.json") == b"here"
    assert files.find(f"unreliable://{store}") == [f"{store}/a/b.json"]
