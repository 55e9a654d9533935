"""The warm process alone, with a package of its own that is edited while it lives."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from geomagic_dagster.guardrails import processes
from geomagic_dagster.jobs.local_run import REPOSITORY
from geomagic_dagster.launching.preload import late_imports, preload
from geomagic_dagster.launching.starter import StarterUnavailable, ask, in_folder, socket_of

pytestmark = pytest.mark.skipif(not processes.is_supported, reason="runs are forked on Linux only")


def write(home: Path, code: str) -> None:
    """The package `rooms`; what it imports is told in the file `imports`."""
    (home / "rooms").mkdir(exist_ok=True)
    (home / "rooms" / "__init__.py").touch()
    (home / "rooms" / "defs.py").write_text(f"open({str(home / 'imports')!r}, 'a').write({code!r} + '\\n')\n{code}\n")


@contextmanager
def started(home: Path, *options: str) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    path = socket_of(home, "latest")
    environment = os.environ | {"DAGSTER_HOME": str(home), "PYTHONPATH": f"{home}:{REPOSITORY}"}
    command = [sys.executable, "-m", "geomagic_dagster.launching.starter", "latest", "rooms.defs", *options]
    with open(home / "log", "ab") as log, subprocess.Popen(command, env=environment, stderr=log, stdout=log) as starter:
        try:
            yield path, starter
        finally:
            starter.terminate()


def wait_for(what: Path) -> None:
    deadline = time.monotonic() + 300
    while not what.exists():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def asked(path: Path) -> processes.Process:
    """A worker that never begins."""
    worker = ask(path, ["{}"], "a run", 60.0)
    process = worker.process
    assert process.is_alive()
    worker.dismiss()
    return process


def ended(process: processes.Process) -> bool:
    deadline = time.monotonic() + 55  # before a worker gives up by itself
    while process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not process.is_alive()


def test_edited_code_is_never_run_old(tmp_path):
    write(tmp_path, "version = 1")
    with started(tmp_path) as (path, starter):
        wait_for(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        first = asked(path)
        assert (tmp_path / "imports").read_text() == "version = 1\n"
        assert ended(first)  # one whose asker hung up never begins

        write(tmp_path, "version = 22")
        asked(path)  # at once
        assert (tmp_path / "imports").read_text() == "version = 1\nversion = 22\n"

        write(tmp_path, "this is no Python")
        with pytest.raises(StarterUnavailable, match="SyntaxError"):
            asked(path)
        write(tmp_path, "version = 4444")
        asked(path)
        assert starter.poll() is None  # it has been the same process all the time


def test_a_worker_that_is_told_to_begin_runs_the_command_line_of_dagster(tmp_path):
    write(tmp_path, "")
    with started(tmp_path) as (path, _):
        wait_for(path)
        worker = ask(path, ["no json"], "a run", 60.0)
        worker.go()
        assert ended(worker.process)
    log = (tmp_path / "log").read_text()
    assert "execute_run" in log and "run a run: worker ended, exit code 1" in log


def test_code_that_starts_a_thread_at_import_is_not_forked(tmp_path):
    write(tmp_path, "import threading, time; threading.Thread(target=time.sleep, args=(99,), daemon=True).start()")
    with started(tmp_path) as (path, _):
        wait_for(path)
        with pytest.raises(StarterUnavailable, match="expected one thread"):
            asked(path)
    assert "expected one thread" in (tmp_path / "log").read_text()


def test_a_request_that_is_none_does_no_harm(tmp_path):
    write(tmp_path, "")
    with started(tmp_path) as (path, _):
        wait_for(path)
        for content in (b"", b"\n", b"[]\n", b"{}\n", json.dumps({"run_id": 1}).encode() + b"\n", b"\xff\xfe\n"):
            with socket.socket(socket.AF_UNIX) as client, in_folder(path) as address:
                client.connect(address)
                client.sendall(content)
        assert ended(asked(path))


def test_there_is_one_of_a_location_and_another_takes_over_when_it_dies(tmp_path):
    write(tmp_path, "")
    with started(tmp_path) as (path, first):
        wait_for(path)
        asked(path)
        with started(tmp_path, "--alone") as (_, alone):
            assert alone.wait(300) == 0
        with started(tmp_path) as (_, substitute):
            time.sleep(1)
            first.send_signal(signal.SIGKILL)
            first.wait()
            deadline = time.monotonic() + 300
            while True:
                try:
                    assert ended(asked(path))
                    break
                except StarterUnavailable:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            assert substitute.poll() is None


# --- what it imports ahead ------------------------------------------------------------------------


KILLED_WORKER = """
import os, signal, subprocess, sys, time
from geomagic_dagster.launching.starter import Starter
starter = Starter.__new__(Starter)
read, write = os.pipe()
if (worker := os.fork()) == 0:
    os.setsid()
    program = subprocess.Popen(["sleep", "600"], preexec_fn=os.setpgrp)
    os.write(write, str(program.pid).encode())
    signal.pause()
starter.workers = {worker: "a run"}
print(os.read(read, 20).decode(), flush=True)
os.kill(worker, signal.SIGKILL)
while starter.workers:
    starter._reap()
    time.sleep(0.01)
"""


def test_programs_that_a_killed_worker_had_called_end_with_it():
    done = subprocess.run([sys.executable, "-c", KILLED_WORKER], capture_output=True, text=True, check=True, timeout=90)
    deadline = time.monotonic() + 60
    while True:
        try:
            if not processes.Process.of(int(done.stdout)).is_alive():
                return
        except ProcessLookupError:
            return
        assert time.monotonic() < deadline, done.stdout
        time.sleep(0.02)


def test_imports_inside_functions_are_found(tmp_path, monkeypatch):
    package = tmp_path / "late_rooms"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "defs.py").write_text(
        "from late_rooms import a\ndef f():\n    import colorsys\n    from late_rooms.b import x\n    import no_such\n"
    )
    (package / "a.py").write_text(
        "def f():\n    class C:\n        def g(self):\n            from late_rooms import c\n"
    )
    (package / "b.py").write_text("x = 1\n")
    (package / "c.py").write_text("def f():\n    import sndhdr_that_is_not_there as s\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    failed = preload("late_rooms.defs")
    assert set(failed) == {"no_such", "sndhdr_that_is_not_there"}
    assert {"late_rooms.a", "late_rooms.b", "late_rooms.c", "colorsys"} <= set(sys.modules)
    assert late_imports(sys.modules["late_rooms.defs"]) == ["colorsys", "late_rooms.b.x", "no_such"]


@pytest.mark.slow
def test_everything_heavy_is_imported_ahead_and_starts_no_thread():
    code = (
        "import sys; from geomagic_dagster.launching.preload import preload; from geomagic_dagster.guardrails.processes "
        "import threads; print(preload('geomagic_dagster.definitions'), threads()); print(*sys.modules)"
    )
    said, modules = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=REPOSITORY
    ).stdout.splitlines()
    assert said == "{} ()"
    heavy = {"torch", "kornia", "cv2", "numba", "scipy.ndimage", "skimage.measure", "trimesh", "fast_simplification"}
    assert heavy <= set(modules.split())
    assert "geomagic_dagster.scans.formats.record3d" in modules.split()
