"""Readers give what reading on the spot gives, and are never left behind."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from geomagic_dagster.guardrails.processes import Process
from geomagic_dagster.monitoring import event_log, run_files
from geomagic_dagster.monitoring.event_log import new_events
from geomagic_dagster.monitoring.fold import LiveRun
from geomagic_dagster.monitoring.run_files import ReaderDied, Readers, RunFile, events_of
from tests.conftest import REPOSITORY
from tests.monitoring.test_exporter import add_run, counters


def write_file(path: Path, rows: list[tuple[str, str, dict | str]]) -> RunFile:
    """A run's file of rows of (kind, step, JSON), with the columns that are read."""
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute(
            "CREATE TABLE event_logs (id INTEGER PRIMARY KEY, event TEXT, dagster_event_type TEXT, timestamp TIMESTAMP, "
            "step_key TEXT)"
        )
        for kind, step, content in rows:
            text = content if isinstance(content, str) else json.dumps({"dagster_event": content})
            values = (text, kind, "2026-01-31 12:00:00.250000", step)
            file.execute(
                "INSERT INTO event_logs (event, dagster_event_type, timestamp, step_key) VALUES (?, ?, ?, ?)", values
            )
    return RunFile(str(path), 0, True)


def output(label: str, value: float | str) -> dict:
    entry = {"label": label, "entry_data": {"text" if isinstance(value, str) else "value": value}}
    return {"event_type_value": "STEP_OUTPUT", "message": "", "event_specific_data": {"metadata_entries": [entry]}}


def many_files(folder: Path, count: int = 11) -> list[RunFile]:
    """Each another run, and among them what goes wrong with files."""
    files = []
    for number in range(count):
        rows = [("STEP_START", "depth", "{}"), ("STEP_OUTPUT", "depth", output(f"n{number}", number / 7))]
        files.append(write_file(folder / f"{number}.db", [*rows, ("HANDLED_OUTPUT", "depth", "{}")] * (number % 3)))
    files[4] = files[4]._replace(read_to=1)
    files[5] = RunFile(str(folder / "nothing here.db"), 0, True)
    (folder / "just made.db").touch()
    files[6] = RunFile(str(folder / "just made.db"), 0, False)
    files[7] = write_file(folder / "strange.db", [("STEP_OUTPUT", "depth", text) for text in ("", "[1]", '{"a": 1}')])
    files[8] = write_file(folder / "long.db", [("STEP_OUTPUT", "depth", output("picture", "x" * 100_000))])
    return files


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_readers_give_what_reading_on_the_spot_gives_in_the_same_order(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(run_files, "FILES_AT_ONCE", at_once)
    files = many_files(tmp_path)
    expected = [events_of(file) for file in files]
    assert [len(events) for events in expected] == [0, 2, 4, 0, 1, 0, 0, 3, 1, 0, 2]
    with Readers() as readers:
        for _ in range(2):
            assert list(readers.read(files)) == expected
            assert list(readers.read([])) == []
    assert len(expected[8][0].data["metadata"]["picture"]) == 200, "no picture crosses the border"


def test_what_reading_a_file_raises_is_raised_and_the_next_reading_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(run_files, "FILES_AT_ONCE", 1)
    files = many_files(tmp_path)
    (tmp_path / "broken.db").mkdir()
    with Readers() as readers:
        with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
            list(readers.read([files[1], RunFile(str(tmp_path / "broken.db"), 0, True), *files]))
        assert list(readers.read(files)) == [events_of(file) for file in files]


def test_a_reading_that_nobody_finishes_does_not_mix_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(run_files, "FILES_AT_ONCE", 1)
    files = many_files(tmp_path)
    with Readers() as readers:
        begun = readers.read(files)
        next(begun)
        begun.close()  # type: ignore[attr-defined]
        assert list(readers.read(files[1:3])) == [events_of(file) for file in files[1:3]]


def test_a_reader_that_is_killed_is_named_and_the_next_look_counts_each_run_once(toys, instance, follow, monkeypatch):
    monkeypatch.setattr(event_log, "BACKLOG", 0)
    monkeypatch.setattr(run_files, "FILES_AT_ONCE", 1)
    for _ in range(8):
        add_run(instance)
    exporter = follow(instance, toys)
    start = run_files._start

    def start_and_kill():
        process, connection = start()
        process.kill()
        return process, connection

    with monkeypatch.context() as patch:
        patch.setattr(run_files, "_start", start_and_kill)
        with pytest.raises(
            ReaderDied, match=r"expected the events of .* got its end \(exit code -9\)\. Nothing is lost"
        ):
            exporter.look()
    assert 'last_error_info{error="ReaderDied"}' in exporter.page()
    exporter.look()
    assert counters(exporter)[("geomagic_runs_total", "", "", "process_scan", "success", "1.0")] == 8


def test_readers_are_for_a_backlog_of_the_past_only(instance, monkeypatch):
    asked = []

    class Noted(Readers):
        def read(self, files):
            asked.append(len(files))
            return map(events_of, files)

    run_ids = [add_run(instance) for _ in range(4)]

    def read(past: int) -> int:
        runs = {
            run_id: LiveRun("process_scan", "1.0", 0.0, is_past=number < past) for number, run_id in enumerate(run_ids)
        }
        return sum(len(events) for _, events in new_events(instance, runs, Noted()))

    monkeypatch.setattr(event_log, "BACKLOG", 3)
    assert read(past=2) == 8
    assert asked == []
    assert read(past=3) == 8
    assert asked == [4]


IN_THE_MIDDLE = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and hands that on
from geomagic_dagster.monitoring import run_files
run_files.FILES_AT_ONCE = 1
readers = run_files.Readers()
reading = readers.read([run_files.RunFile(sys.argv[1], 0, True)] * 50)
next(reading)
print(*(process.pid for process, _ in readers._started), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("what", ["waits for work", "waits until its answer is taken"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_readers_end_with_the_exporter_however_that_ends(tmp_path, what, how):
    message = "x" * (1000 if what == "waits for work" else 2_000_000)  # more than a socket holds
    note = {"event_type_value": "ENGINE_EVENT", "message": message, "event_specific_data": {}}
    file = write_file(tmp_path / "run.db", [("ENGINE_EVENT", "depth", note)])
    exporter = subprocess.Popen(
        [sys.executable, "-c", IN_THE_MIDDLE, file.path],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with exporter:
        assert exporter.stdout is not None
        readers = [Process.of(int(pid)) for pid in exporter.stdout.readline().split()]
        assert len(readers) == run_files.READERS
        assert all(reader.is_alive() for reader in readers)
        exporter.send_signal(how)
    until = time.monotonic() + 60
    while any(reader.is_alive() for reader in readers):
        assert time.monotonic() < until, f"within 60 s after the exporter's end: {readers}"
        time.sleep(0.02)


def test_signals_to_the_whole_group_leave_the_ending_to_the_exporter(tmp_path, monkeypatch):
    monkeypatch.setattr(run_files, "FILES_AT_ONCE", 1)
    files = many_files(tmp_path)
    with Readers() as readers:
        list(readers.read(files))  # each has answered, so it ignores them by now
        for process, _ in readers._started:
            for number in (signal.SIGINT, signal.SIGTERM):
                process.send_signal(number)
        assert list(readers.read(files)) == [events_of(file) for file in files]
        processes = [process for process, _ in readers._started]
    assert [process.returncode for process in processes] == [0, 0]


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("geomagic_dagster.monitoring.run_files", {"dagster", "sqlalchemy", "prometheus_client"}),
        (
            "geomagic_dagster.resources.environment",
            {"geomagic_dagster.definitions", "geomagic_dagster.jobs.process_scan"},
        ),
    ],
)
def test_what_is_started_for_the_first_page_loads_only_what_it_needs(module, spared):
    loaded = subprocess.run(
        [sys.executable, "-c", f"import {module}, sys; print(*sys.modules)"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert module in loaded
    assert not spared & set(loaded)
