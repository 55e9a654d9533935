"""The supervisor goes on, whatever becomes of one of its processes, of the terminal, or of the list of releases."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from geomagic_dagster.guardrails import processes
from geomagic_dagster.jobs.local_run import REPOSITORY
from geomagic_dagster.launching import serve as serve_module
from geomagic_dagster.launching.serve import Ports, serve
from geomagic_dagster.monitoring import supervised

pytestmark = pytest.mark.skipif(not processes.is_supported, reason="the supervisor adopts orphans on Linux only")

SUPERVISE = """
from pathlib import PosixPath
from geomagic_dagster.launching.locations import Member
from geomagic_dagster.launching.serve import Supervisor
Supervisor([Member(name, tuple(command)) for name, command in {members!r}], counted_in={folder!r}).run()
"""
NAP = [sys.executable, "-c", "import time; time.sleep(600)"]


def supervise(*members: tuple[str, list[str]], folder: Path | None = None, **options) -> subprocess.Popen[bytes]:
    options.setdefault("stderr", subprocess.PIPE)
    code = SUPERVISE.format(members=members, folder=folder)
    return subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, **options)


def lines_until(supervisor: subprocess.Popen[bytes], word: str) -> list[str]:
    """What it says, up to a line with this word."""
    assert supervisor.stderr
    found: list[str] = []
    for line in supervisor.stderr:
        found.append(line.decode())
        if word in found[-1]:
            return found
    raise AssertionError(f"expected {word!r}; got {''.join(found)}")


def end(supervisor: subprocess.Popen[bytes]) -> None:
    supervisor.send_signal(signal.SIGTERM)
    supervisor.communicate(timeout=90)
    assert supervisor.returncode == 0


def test_a_program_that_is_not_there_is_tried_again_and_the_others_go_on():
    supervisor = supervise(("fine", NAP), ("gone", ["/nowhere/python"]))
    first = lines_until(supervisor, "again in 0.5 s")[-1]
    assert "expected to start /nowhere/python; got [Errno 2] No such file or directory" in first
    lines_until(supervisor, "again in 1 s")
    assert list(processes.descendants(supervisor.pid))
    end(supervisor)


def test_what_ends_again_and_again_is_counted_where_the_exporter_sees_it(tmp_path):
    supervisor = supervise(("fine", NAP), ("brief", [sys.executable, "-c", ""]), folder=tmp_path)
    lines_until(supervisor, "again in 1 s")
    deadline = time.monotonic() + 90
    while "2" not in (told := (tmp_path / supervised.FILE).read_text()):
        assert time.monotonic() < deadline, told
        time.sleep(0.02)
    [family] = supervised.families(tmp_path)
    assert {sample.labels["process"]: sample.value for sample in family.samples} == {"brief": 2, "fine": 0}
    end(supervisor)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"ends": 3}', b'{"ends": {"intake": "often"}}'])
def test_counts_that_are_none_are_said_and_the_page_goes_on(tmp_path, caplog, content):
    assert list(supervised.families(tmp_path)) == []
    (tmp_path / supervised.FILE).write_bytes(content)
    assert list(supervised.families(tmp_path)) == []
    assert "processes.json: expected what the supervisor wrote; got " in caplog.text


def test_last_words_are_said_also_where_their_line_has_no_end():
    supervisor = supervise(("brief", [sys.executable, "-c", "print('killed by a bug', end='', flush=True)"]))
    assert lines_until(supervisor, "killed by a bug")[-1] == "brief | killed by a bug\n"
    end(supervisor)


def test_what_never_ends_its_line_is_not_kept_for_ever():
    bar = "import sys, time\nfor i in range(300_000): sys.stdout.write('%08d\\r' % i)\nsys.stdout.flush(); time.sleep(600)"
    supervisor = supervise(("bar", [sys.executable, "-c", bar]))
    said = lines_until(supervisor, "00200000")
    assert len(said) > 5 and max(map(len, said)) < 4 * serve_module.LONGEST_LINE
    end(supervisor)


def test_a_terminal_that_is_closed_ends_everything_in_order(tmp_path):
    """What a process does when it is told to end is done, although nobody is there to hear of it."""
    code = f"""
        import pathlib, signal, sys, time
        def leave(*_):
            time.sleep(0.5)
            pathlib.Path({str(tmp_path / "tidy")!r}).touch()
            sys.exit()
        signal.signal(signal.SIGTERM, leave)
        print("ready", flush=True)
        time.sleep(600)
    """
    ours, theirs = pty.openpty()
    supervisor = supervise(
        ("tidy", [sys.executable, "-c", textwrap.dedent(code)]), stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    said = b""
    while b"ready" not in said:
        said += os.read(ours, 1024)
    os.close(ours)
    supervisor.send_signal(signal.SIGHUP)
    assert supervisor.wait(90) == 0
    assert (tmp_path / "tidy").exists()


@pytest.mark.parametrize("what", ["the list of releases", "its own list"])
def test_a_disk_that_fails_while_it_looks_for_releases_does_not_end_it(tmp_path, monkeypatch, capsys, what):
    looks: list = []

    class Looking:
        def __init__(self, table, look, greeting, counted_in) -> None:
            looks.append(look)

        def run(self) -> None:
            pass

    found = iter([([], []), ([{"grpc_server": {"location_name": "1.0", "port": 1}}], ["a word"])] * 2)
    monkeypatch.setattr(serve_module, "Supervisor", Looking)
    monkeypatch.setattr(serve_module, "installed_locations", lambda *_: next(found))
    serve(tmp_path / "workspace.yaml", tmp_path, "127.0.0.1", Ports(0, 0, 0, 0))
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(
            serve_module, "installed_locations" if what == "the list of releases" else "write_workspace", fail
        )
        assert looks[0]() is None
    assert "No space left on device" in capsys.readouterr().err
    if what == "its own list":
        next(found)
    assert looks[0]() is not None, "the next look sees what this one could not"
    assert "a word" in capsys.readouterr().err
    assert "1.0" in (tmp_path / "workspace.yaml").read_text()
