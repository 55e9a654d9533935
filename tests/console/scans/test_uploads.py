"""An upload survives whatever is killed, and is never there twice."""

from __future__ import annotations

import http.client
import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from geomagic_dagster.console.scans import uploads, worker
from geomagic_dagster.console.scans.models import Scan, State
from geomagic_dagster.console.scans.receiving import append
from geomagic_dagster.console.scans.refusals import Refused
from tests.console.scans.conftest import BYTES, archive
from tests.console.scans.intake_stand_in import intake

pytestmark = pytest.mark.django_db

LONG_AGO = timezone.now() - timedelta(hours=1)


def whole(api) -> Scan:
    """An upload with all its bytes, whose console died before it noticed."""
    content = archive()
    scan = Scan.objects.get(pk=api.created(content).rsplit("/", 1)[1])
    uploads.part_of(scan).write_bytes(content)
    Scan.objects.update(created_at=LONG_AGO)
    return scan


def named(api) -> Scan:
    scan = whole(api)
    Scan.objects.update(state=State.RECEIVED, upload=uploads.upload_name(scan, ".zip"), received_at=LONG_AGO)
    scan.refresh_from_db()
    return scan


def moved(api) -> Scan:
    scan = named(api)
    uploads.part_of(scan).rename(uploads.ready_of(scan))
    return scan


def in_the_inbox(api) -> Scan:
    scan = moved(api)
    uploads.ready_of(scan).rename(uploads.folder().parent / scan.upload)
    return scan


@pytest.mark.parametrize("died", [whole, named, moved, in_the_inbox])
def test_a_console_that_died_at_any_step_goes_on_once(died, api, home, inbox):
    scan = died(api)
    with intake(home, inbox) as taken:
        for _ in range(3):
            worker.hand_over_what_is_whole()
    scan.refresh_from_db()
    assert scan.state == State.QUEUED
    assert taken == ([] if died is in_the_inbox else [scan.upload])
    assert [path.name for path in inbox.iterdir() if not path.name.startswith(".")] == [scan.upload]
    assert [path.name for path in uploads.folder().rglob("*") if path.is_file()] == []


def test_without_an_intake_an_upload_is_kept_and_its_sender_told(api, home, inbox):
    scan = whole(api)
    worker.hand_over_what_is_whole()
    said = api.state(f"/api/scans/{scan.pk}")
    assert said["state"] == "received"
    assert said["reason"] == "The intake is not running; the scan is kept and goes on as soon as it is."
    with intake(home, inbox) as taken:
        Scan.objects.update(received_at=LONG_AGO)
        worker.hand_over_what_is_whole()
    assert len(taken) == 1


@pytest.mark.parametrize(
    "how", [http.client.RemoteDisconnected("no answer"), TimeoutError("hangs"), ValueError("half")]
)
def test_an_intake_that_dies_or_hangs_in_the_middle_loses_nothing(api, home, inbox, monkeypatch, how):
    def dies(*_: object) -> None:
        raise how

    with monkeypatch.context() as patch:
        patch.setattr(uploads, "send_path", dies)
        url = api.send(archive())
    said = api.state(url)
    assert said["state"] == "received" and said["reason"] == "The intake did not take it; it is tried again."
    with intake(home, inbox) as taken:
        Scan.objects.update(received_at=LONG_AGO)
        worker.hand_over_what_is_whole()
    assert len(taken) == 1 and api.state(url)["state"] == "queued"


def test_files_that_nobody_was_told_of_are_removed(api):
    scan = Scan.objects.get(pk=api.created(b"12345").rsplit("/", 1)[1])
    stray = uploads.folder() / "00000000-0000-4000-8000-000000000000.part"
    for path in (stray, uploads.part_of(scan)):
        path.touch()
        os.utime(path, (0, 0))
    worker.give_up_what_does_not_go_on()
    assert not stray.exists() and uploads.part_of(scan).exists()


def test_one_task_that_fails_keeps_no_other_from_being_done(api, caplog):
    done = []

    def broken() -> None:
        raise RuntimeError("disk on fire")

    worker.work_once((broken, lambda: done.append(1)))
    assert done == [1] and "broken did not work out" in caplog.text


@given(
    content=st.binary(min_size=1, max_size=2000),
    sends=st.lists(st.tuples(st.integers(0, 2500), st.integers(0, 2500), st.booleans()), max_size=12),
)
def test_whatever_is_sent_in_whatever_order_only_the_right_bytes_are_kept(content, sends):
    """Senders that begin anywhere, are cut anywhere, and sometimes send nonsense behind the end."""
    folder = Path(tempfile.mkdtemp())
    try:
        part = folder / "part"
        part.touch()
        for start, length, is_cut in sends:
            left = [content[start : start + length] + (b"!" if start + length > len(content) else b"")]

            def read(size: int, left=left, is_cut=is_cut) -> bytes:
                if is_cut and not left[0]:
                    raise ConnectionResetError
                piece, left[0] = left[0][:7], left[0][7:]
                return piece

            before = part.read_bytes()
            try:
                size = append(part, start, len(content), read)
            except Refused as refused:
                status, size = refused.status, len(before)
            else:
                status = 204
                assert start == len(before) and size == start + min(length, len(content) - start)
            assert status in (204, 409, 413) and part.stat().st_size == size
            assert content.startswith(part.read_bytes())
    finally:
        shutil.rmtree(folder)


def test_a_full_disk_is_said_and_what_came_is_kept(tmp_path, monkeypatch):
    part = tmp_path / "part"
    part.touch()
    write, calls = os.write, []

    def full(descriptor: int, content: bytes) -> int:
        calls.append(1)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    pieces = [b"a" * 10, b"b" * 10, b"c" * 10]
    with pytest.raises(Refused, match="disk of the console: expected room for the upload; got a full disk.") as refused:
        append(part, 0, 30, lambda _: pieces.pop(0) if pieces else b"")
    assert refused.value.status == 507 and part.read_bytes() == b"a" * 10 + b"b" * 10


def test_who_sends_nothing_keeps_nothing_open(api, settings):
    """Else an upload that is never sent would keep its place, and its room on the disk, for ever."""
    url = api.created(b"12345")
    before = Scan.objects.get().expires_at
    assert api.patch(url, b"", Content_Type=BYTES).status_code == 204
    assert Scan.objects.get().expires_at == before
    assert api.patch(url, b"12").status_code == 204
    assert Scan.objects.get().expires_at > before
