from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter, build_sensor_context

from geomagic_dagster.guardrails.tags import UPLOAD_TAG
from geomagic_dagster.jobs import inbox as inbox_module
from geomagic_dagster.jobs import upload_sensor
from geomagic_dagster.jobs.attempts import Standing
from geomagic_dagster.jobs.inbox import Looks, Seen, look_at, move_aside, move_to_done, take_back
from geomagic_dagster.jobs.upload_sensor import MAX_LOOKS, Cursor, look_over
from tests.toy_stages.installation import Toys
from tests.toy_stages.scans import write_toy_scan

REPOSITORY = Path(__file__).parents[2]


def nobody(name: str, seen: Seen) -> Standing:
    """No run has been about it."""
    return Standing("start")


def settled(inbox: Path, cursor: Cursor = Cursor(), stand=nobody, **options):
    """A look over the inbox as if everything in it had been left alone for a minute."""
    options.setdefault("max_look_s", 60.0)
    return look_over(inbox, cursor, stand, options.pop("looks", Looks()), now_s=time.time() + 60, **options)


# --- what is complete ------------------------------------------------------------------------------


def zip_of(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def test_a_folder_is_complete_when_nothing_in_it_changed_for_a_while(tmp_path):
    upload = write_toy_scan(tmp_path / "room")
    now_s = time.time()
    assert not look_at(upload, Looks(), now_s + 8).complete
    assert look_at(upload, Looks(), now_s + 11).complete


def test_times_that_were_copied_along_do_not_make_a_folder_look_old(tmp_path):
    upload = write_toy_scan(tmp_path / "room")
    for path in upload.rglob("*"):
        os.utime(path, (0, 0))  # cp -p, rsync -t
    assert not look_at(upload, Looks(), time.time()).complete


def test_a_folder_that_says_it_is_complete_does_not_wait(tmp_path):
    upload = write_toy_scan(tmp_path / "room")
    assert not look_at(upload, Looks()).complete
    (upload / "upload.complete").touch()
    assert look_at(upload, Looks()).complete


@pytest.mark.parametrize("name", ["000009.png.part", "x.tmp", "x.filepart", "x.crdownload", "x.PARTIAL"])
def test_a_half_written_file_in_it_holds_a_folder_back(tmp_path, name):
    upload = write_toy_scan(tmp_path / "room")
    (upload / "color" / name).touch()
    seen = look_at(upload, Looks(), time.time() + 60)
    assert not seen.complete
    assert f"color/{name} is half-written" in seen.why


def test_an_archive_is_complete_at_every_length_but_its_whole_one_never(tmp_path):
    whole = zip_of(write_toy_scan(tmp_path / "room"), tmp_path / "room.zip").read_bytes()
    path = tmp_path / "cut.zip"
    for length in (0, 1, 21, 22, 100, len(whole) // 2, len(whole) - 22, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert not look_at(path, Looks()).complete, length
    path.write_bytes(whole)
    assert look_at(path, Looks()).complete


def test_an_archive_with_a_comment_or_of_another_ending_is_complete_at_once(tmp_path):
    path = zip_of(write_toy_scan(tmp_path / "room"), tmp_path / "room.R3D")
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"from my phone PK"
    assert look_at(path, Looks()).complete


def test_the_end_of_an_archive_inside_of_a_half_written_one_is_not_its_end(tmp_path):
    inner = zip_of(write_toy_scan(tmp_path / "room"), tmp_path / "inner.zip")
    outer = tmp_path / "outer.zip"
    with zipfile.ZipFile(outer, "w") as archive:
        archive.write(inner, "inner.zip")
    whole = outer.read_bytes()
    outer.write_bytes(whole[: whole.rindex(inner.read_bytes()) + inner.stat().st_size])
    assert not look_at(outer, Looks()).complete


def test_a_tar_is_complete_with_its_two_empty_blocks(tmp_path):
    path = tmp_path / "room.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(write_toy_scan(tmp_path / "room"), "room")
    whole = path.read_bytes()
    assert look_at(path, Looks()).complete
    end = len(whole.rstrip(b"\0"))
    for length in (0, 512, end, end // 512 * 512):
        path.write_bytes(whole[:length])
        assert not look_at(path, Looks()).complete, length


@pytest.mark.parametrize("ending", ["tar.gz", "tgz"])
def test_a_compressed_tar_is_complete_when_it_settled(tmp_path, ending):
    path = tmp_path / f"room.{ending}"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(write_toy_scan(tmp_path / "room"), "room")
    assert not look_at(path, Looks()).complete
    assert look_at(path, Looks(), time.time() + 11).complete


def test_an_archive_whose_end_never_comes_is_taken_in_the_end_so_that_somebody_is_told(tmp_path):
    path = tmp_path / "room.zip"
    path.write_bytes(b"")
    assert not look_at(path, Looks(), time.time() + 590).complete
    assert look_at(path, Looks(), time.time() + 610).complete


# --- which are taken -------------------------------------------------------------------------------


def test_each_upload_is_taken_once_for_as_long_as_it_stays(tmp_path):
    write_toy_scan(tmp_path / "a")
    write_toy_scan(tmp_path / "Küche 2. Stock")
    tick = settled(tmp_path)
    assert set(tick.ready) == {"a", "Küche 2. Stock"}
    cursor = Cursor.loads(tick.cursor.dumps())
    assert settled(tmp_path, cursor).ready == {}
    (tmp_path / "a" / "late.png").touch()  # it grows: still the same stay
    tick = settled(tmp_path, cursor)
    assert tick.ready == {}
    shutil.rmtree(tmp_path / "a")
    tick = settled(tmp_path, tick.cursor)
    assert tick.cursor.taken == {"Küche 2. Stock"}
    write_toy_scan(tmp_path / "a")  # the same name and bytes again: another stay
    assert set(settled(tmp_path, tick.cursor).ready) == {"a"}


def test_the_run_key_is_the_same_while_nobody_touches_it_and_another_for_a_later_stay(tmp_path):
    write_toy_scan(tmp_path / "a")
    first = settled(tmp_path).ready["a"].listing
    assert settled(tmp_path).ready["a"].listing == first
    shutil.rmtree(tmp_path / "a")
    write_toy_scan(tmp_path / "a")
    assert settled(tmp_path).ready["a"].listing != first


def test_half_written_names_are_not_seen_and_strays_are_reported(tmp_path):
    for name in ("room.zip.part", ".hidden", "x.tmp", "x.crdownload"):
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "link").symlink_to("/etc")
    tick = settled(tmp_path)
    assert tick.ready == {}
    assert tick.strays == ("link", "notes.txt")
    assert tick.summary() == (
        "link, notes.txt: expected a folder or an archive (zip, tar, tar.gz); got something else. "
        "It is left where it is"
    )


def test_a_name_on_which_a_live_run_works_is_not_taken_again(tmp_path):
    write_toy_scan(tmp_path / "a")
    tick = settled(tmp_path, stand=lambda name, seen: Standing("busy" if name == "a" else "start"))
    assert tick.ready == {}
    assert tick.cursor.taken == {"a"}


def test_with_ten_thousand_scans_a_tick_stays_within_its_bounds_and_none_starves(tmp_path):
    names = {f"2026-11-21 room {i:05d}.zip" for i in range(10_000)}
    whole = zip_of(write_toy_scan(tmp_path / "room"), tmp_path / "room.zip").read_bytes()[-22:]
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for i, name in enumerate(sorted(names)):
        (inbox / name).write_bytes(b"" if i % 100 else b"PK\5\6" + bytes(18))  # one in a hundred is complete
    assert len(whole) == 22
    cursor, taken, looked, ticks = Cursor(), [], 0, 0
    while len(taken) < 100:
        looks = Looks(500)
        tick = look_over(inbox, cursor, nobody, looks, max_look_s=60.0)
        assert looks.used <= 500
        assert len(tick.ready) <= 10
        cursor = Cursor.loads(tick.cursor.dumps())
        taken += tick.ready
        looked, ticks = looked + looks.used, ticks + 1
        assert ticks < 40
    assert len(set(taken)) == 100

    full = Cursor(taken=frozenset(names))
    looks = Looks(MAX_LOOKS)
    tick = look_over(inbox, full, nobody, looks)
    assert looks.used == 0  # all are taken: nothing but the names is read
    assert tick.cursor.taken == names
    assert len(tick.cursor.dumps()) < 100_000


def test_a_cursor_that_cannot_be_read_starts_anew(tmp_path):
    toys = Toys(tmp_path)
    sensor = toys.defs.resolve_sensor_def("upload_sensor")
    write_toy_scan(toys.inbox / "a")
    (toys.inbox / "a" / "upload.complete").touch()
    with DagsterInstance.ephemeral() as instance:
        context = build_sensor_context(
            instance, cursor="{broken", resources={"places": toys.places}, definitions=toys.defs
        )
        with context:
            [request] = sensor.evaluate_tick(context).run_requests
    assert request.tags[UPLOAD_TAG] == "a"
    assert request.run_config == {"ops": {"scan": {"config": {"upload": str(toys.inbox / "a")}}}}


# --- moving ----------------------------------------------------------------------------------------


def test_what_lies_elsewhere_is_never_moved(tmp_path):
    inbox = tmp_path / "inbox"
    for upload in (write_toy_scan(tmp_path / "elsewhere"), write_toy_scan(inbox / "room") / "color", inbox / "gone"):
        assert move_to_done(upload, inbox, tmp_path / "done") is None
        assert move_aside(upload, inbox, tmp_path / "quarantine", "why") is None
    assert not (tmp_path / "done").exists()
    assert not (tmp_path / "quarantine").exists()


def test_a_name_that_is_taken_gets_a_number(tmp_path):
    for expected in ("room.zip", "room.zip-2", "room.zip-3"):
        (tmp_path / "inbox").mkdir(exist_ok=True)
        (tmp_path / "inbox" / "room.zip").write_text(expected)
        moved = move_to_done(tmp_path / "inbox" / "room.zip", tmp_path / "inbox", tmp_path / "done")
        assert moved.name == expected
        assert moved.read_text() == expected


@pytest.fixture
def other_disk(tmp_path):
    if os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("one disk is all there is here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def visible(folder: Path) -> dict[str, list[str]]:
    """What a sensor or a person takes for uploads, and the files in each."""
    found = list(folder.glob("[!.]*")) if folder.is_dir() else []
    return {path.name: sorted(str(file.relative_to(path)) for file in path.rglob("*")) for path in found}


def test_an_upload_moves_whole_to_another_disk(tmp_path, other_disk):
    for name in ("room", "room"):
        upload = write_toy_scan(tmp_path / "inbox" / name)
        whole = visible(tmp_path / "inbox")["room"]
        moved = move_to_done(upload, tmp_path / "inbox", other_disk / "done")
        assert visible(moved.parent)[moved.name] == whole
        assert list((tmp_path / "inbox").iterdir()) == []
    assert set(visible(other_disk / "done")) == {"room", "room-2"}
    (tmp_path / "inbox" / "room.zip").write_text("zip")
    aside = move_aside(tmp_path / "inbox" / "room.zip", tmp_path / "inbox", other_disk / "failed", "why")
    assert take_back(aside, tmp_path / "inbox").read_text() == "zip"


def killed_at(moment: int, call: Callable[[], object]) -> bool:
    """Whether a process that made this call was killed before the how manieth thing that it did to a disk."""
    if (pid := os.fork()) == 0:
        left = moment

        def hook(event: str, arguments: object) -> None:
            nonlocal left
            if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "shutil.copytree"):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        call()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_whoever_is_killed_on_the_way_to_another_disk_leaves_no_half_and_loses_none(tmp_path, other_disk, monkeypatch):
    monkeypatch.setattr(inbox_module.os, "sync", lambda: None)  # no power fails here
    inbox, done = tmp_path / "inbox", other_disk / "done"
    whole = visible(write_toy_scan(inbox / "room").parent)["room"]
    moments = 0
    while killed_at(moments, lambda: move_to_done(inbox / "room", inbox, done)):
        here, there = visible(inbox), visible(done)
        assert here or there, moments
        assert set(map(tuple, [*here.values(), *there.values()])) == {tuple(whole)}, moments
        shutil.rmtree(done, ignore_errors=True)
        shutil.rmtree(inbox)
        write_toy_scan(inbox / "room")
        moments += 1
    assert moments > 10
    assert (visible(inbox), visible(done)) == ({}, {"room": whole})


def test_an_upload_that_is_taken_back_stays_an_archive_and_takes_nobodys_place(tmp_path):
    inbox, aside = tmp_path / "inbox", tmp_path / "failed" / "room.tar.gz"
    for path in (inbox / "room.tar.gz", aside / "room.tar.gz"):
        path.parent.mkdir(parents=True)
        path.write_text(str(path))
    (aside / "reason.txt").write_text("a bug")
    assert take_back(aside, inbox) == inbox / "room-2.tar.gz"
    assert (inbox / "room.tar.gz").read_text() == str(inbox / "room.tar.gz")
    assert not aside.exists()
    assert settled(inbox).strays == ()


def test_an_upload_that_cannot_be_put_aside_leaves_no_trail_of_folders(tmp_path, monkeypatch):
    upload = write_toy_scan(tmp_path / "inbox" / "room")
    monkeypatch.setattr(inbox_module, "move_to_free", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
    for _ in range(3):
        with pytest.raises(OSError, match="Input/output"):
            move_aside(upload, tmp_path / "inbox", tmp_path / "failed", "why")
    assert list((tmp_path / "failed").iterdir()) == []
    assert upload.is_dir()


# --- one that is trouble does not hold up the others -----------------------------------------------


def test_an_upload_that_nobody_may_read_waits_in_words_and_the_others_are_taken(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        write_toy_scan(tmp_path / name)
    real = upload_sensor.look_at

    def look_at(path, *rest):
        if path.name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *rest)

    monkeypatch.setattr(upload_sensor, "look_at", look_at)
    tick = settled(tmp_path)
    assert set(tick.ready) == {"a", "c"}
    assert tick.waiting == {"b": "it cannot be read: Permission denied"}


def test_an_upload_that_cannot_be_moved_away_does_not_keep_the_others_from_being_taken(tmp_path, monkeypatch):
    toys = Toys(tmp_path)
    for name in ("over", "new"):
        (write_toy_scan(toys.inbox / name) / "upload.complete").touch()
    monkeypatch.setattr(
        upload_sensor, "standing", lambda _, name, *rest: Standing("published" if name == "over" else "start")
    )
    monkeypatch.setattr(upload_sensor, "move_to_done", Mock(side_effect=OSError(errno.ENOSPC, "No space left")))
    with DagsterInstance.ephemeral() as instance:
        context = build_sensor_context(instance, resources={"places": toys.places}, definitions=toys.defs)
        with context:
            [request] = toys.defs.resolve_sensor_def("upload_sensor").evaluate_tick(context).run_requests
    assert request.tags[UPLOAD_TAG] == "new"
    assert (toys.inbox / "over").exists()


# --- with Dagster's own daemon ---------------------------------------------------------------------


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    """Ticks of the sensor daemon on one installation, each with everything started anew."""
    home = tmp_path / "dagster"
    home.mkdir()
    settings = (REPOSITORY / "dagster.yaml").read_text()
    assert "max_concurrent_runs: 2" in settings
    (home / "dagster.yaml").write_text(
        settings.replace("max_concurrent_runs: 2", "max_concurrent_runs: 0")
    )  # all queue
    environment = os.environ | {
        "DAGSTER_HOME": str(home),
        "TOY_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(REPOSITORY),
    }
    ticks = iter(range(1, 100))

    def tick(crash_at: str = "") -> int:
        arguments = [sys.executable, "-m", "tests.toy_stages.daemon", str(60 * next(ticks)), *filter(None, [crash_at])]
        done = subprocess.run(arguments, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert crash_at or done.returncode == 0, done.stderr
        return done.returncode

    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return tick


def runs_of(name: str) -> list:
    with DagsterInstance.get() as instance:
        return instance.get_runs(RunsFilter(tags={UPLOAD_TAG: name}))


def forget_the_cursor() -> None:
    with DagsterInstance.get() as instance:
        [state] = [s for s in instance.all_instigator_state() if s.instigator_name == "upload_sensor"]
        instance.update_instigator_state(state.with_data(state.instigator_data._replace(cursor=None)))


@pytest.mark.slow
def test_one_upload_is_one_run_whatever_is_killed_when(tmp_path, daemon):
    inbox = tmp_path / "home" / "inbox"
    points = ("TICK_CREATED", "TICK_HELD", "RUN_IDS_RESERVED", "RUN_CREATED", "RUN_LAUNCHED")
    for point in points:
        upload = write_toy_scan(inbox / point)
        (upload / "upload.complete").touch()
        assert daemon(crash_at=point) == -9, point
        daemon()
    daemon()
    for point in points:
        [run] = runs_of(point)
        assert run.status == DagsterRunStatus.QUEUED, point


@pytest.mark.slow
def test_one_upload_is_one_run_also_when_the_cursor_is_lost_and_it_grows(tmp_path, daemon):
    upload = write_toy_scan(tmp_path / "home" / "inbox" / "room")
    (upload / "upload.complete").touch()
    daemon()
    assert len(runs_of("room")) == 1
    forget_the_cursor()
    daemon()
    assert len(runs_of("room")) == 1
    (upload / "late.txt").touch()
    forget_the_cursor()
    daemon()
    assert len(runs_of("room")) == 1
    with DagsterInstance.get() as instance:  # it ended, the upload left, and the same comes again
        instance.report_run_canceled(runs_of("room")[0])
    shutil.rmtree(upload)
    daemon()
    (write_toy_scan(upload) / "upload.complete").touch()
    daemon()
    assert len(runs_of("room")) == 2
