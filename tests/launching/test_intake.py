"""Names, claims and moves: what holds uploads apart, without Dagster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from itertools import islice

import pytest

from geomagic_dagster.jobs import inbox as inbox_module
from geomagic_dagster.jobs.attempts import Standing
from geomagic_dagster.jobs.inbox import Looks, claimed, is_claimed, move_to_free, names_like, why_not_whole
from geomagic_dagster.jobs.upload_sensor import Cursor, look_over
from geomagic_dagster.launching.intake import Refused, checked_name
from tests.toy_stages.scans import write_toy_scan


def test_a_claim_is_held_by_one_and_let_go_of(tmp_path):
    order = []
    assert not is_claimed(tmp_path, "room")
    with claimed(tmp_path, "room"):
        assert is_claimed(tmp_path, "room")
        assert not is_claimed(tmp_path, "other")
        other = threading.Thread(target=lambda: claimed(tmp_path, "room").__enter__() or order.append("other"))
        other.start()
        other.join(0.3)
        order.append("first")
    other.join(60)
    assert order == ["first", "other"]


def test_a_claim_ends_with_whoever_holds_it(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from geomagic_dagster.jobs.inbox import claimed\n"
        "with claimed(Path(sys.argv[1]), 'room'):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        assert is_claimed(tmp_path, "room")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not is_claimed(tmp_path, "room")
    with claimed(tmp_path, "room"):
        pass
    assert list((tmp_path / ".claims").iterdir()) == []


def _claim_and_count(inbox, counter, times):
    for _ in range(times):
        with claimed(inbox, "room"):
            value = int(counter.read_text())
            counter.write_text(str(value + 1))


def test_many_who_claim_at_once_take_turns(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("fork")
    crowd = [context.Process(target=_claim_and_count, args=(tmp_path, counter, 200)) for _ in range(4)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    assert counter.read_text() == "800"


def test_the_sensor_leaves_a_claimed_upload_alone_for_as_long_as_it_is_claimed(tmp_path):
    upload = write_toy_scan(tmp_path / "room")
    (upload / "upload.complete").touch()
    with claimed(tmp_path, "room"):
        tick = look_over(tmp_path, Cursor(), lambda name, seen: Standing("start"), Looks())
        assert (tick.ready, tick.strays) == ({}, ()) and "intake" in tick.waiting["room"]
    assert set(look_over(tmp_path, tick.cursor, lambda name, seen: Standing("start"), Looks()).ready) == {"room"}


@pytest.mark.parametrize("has_renameat2", [True, False])
@pytest.mark.parametrize("is_folder", [True, False])
def test_a_move_never_goes_over_what_is_there(tmp_path, monkeypatch, has_renameat2, is_folder):
    if not has_renameat2:  # another system, or a disk that cannot
        monkeypatch.setattr(inbox_module, "_libc", object())
    source, target = tmp_path / "source", tmp_path / "target"
    for each in (source, target):
        each.mkdir() if is_folder else each.write_text(each.name)
    assert not move_to_free(source, target)
    assert source.exists()
    assert move_to_free(source, tmp_path / "free")
    assert not source.exists() and (tmp_path / "free").exists()
    with pytest.raises(OSError, match="No such file"):
        move_to_free(source, tmp_path / "nothing")


def test_names_go_on_before_the_ending():
    assert list(islice(names_like("room.tar.gz"), 3)) == ["room.tar.gz", "room-2.tar.gz", "room-3.tar.gz"]
    assert list(islice(names_like("room"), 2)) == ["room", "room-2"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a.zip", "a/b.zip", "a\0.zip", "a\n.zip", ".zip", ".a.zip", "a.zip.part", "a.exe"]
)
def test_names_that_are_none_are_refused(name):
    with pytest.raises(Refused, match="expected a plain file name") as refused:
        checked_name(name)
    assert refused.value.status == 400


def test_plain_names_are_taken():
    for name in ("room.zip", "Wohnküche 2. Stock.tar.gz", "x.R3D"):
        assert checked_name(name) == name


def test_what_is_half_written_is_seen_whatever_its_age(tmp_path):
    folder = write_toy_scan(tmp_path / "room")
    assert why_not_whole(folder) == ""
    (folder / "color" / "9.png.part").touch()
    assert "9.png.part" in why_not_whole(folder)
    (tmp_path / "room.zip").write_bytes(b"PK")
    assert why_not_whole(tmp_path / "room.zip")
    os.truncate(tmp_path / "room.zip", 0)
    assert why_not_whole(tmp_path / "room.zip")
