from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from geomagic_dagster.guardrails import processes
from geomagic_dagster.guardrails.processes import Process, descendants, threads

pytestmark = pytest.mark.skipif(not processes.is_supported, reason="Linux only")


def test_a_process_is_known_until_it_ends_and_as_it_is_written_down():
    with subprocess.Popen(["sleep", "60"]) as sleeping:
        process = Process.loads(Process.of(sleeping.pid).dumps())
        assert process == Process.of(sleeping.pid)
        assert process.is_alive()
        assert sleeping.pid in descendants(os.getpid())
        sleeping.kill()
        os.waitid(os.P_PID, sleeping.pid, os.WEXITED | os.WNOWAIT)
        assert not process.is_alive()  # ended, though nobody has waited for it yet
    assert not process.is_alive()
    with pytest.raises(ProcessLookupError):
        Process.of(sleeping.pid)


@pytest.mark.parametrize("other", [{"started": 1}, {"boot": "before"}])
def test_another_process_that_has_its_pid_by_now_is_not_it(other):
    assert not replace(Process.of(os.getpid()), **other).is_alive()


def test_threads_are_seen():
    before, is_over = threads(), threading.Event()
    thread = threading.Thread(target=is_over.wait)
    thread.start()
    assert len(threads()) == len(before) + 1
    is_over.set()
    thread.join()


def test_a_child_ends_with_its_parent():
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, time; from geomagic_dagster.guardrails.processes import die_with_parent\n"
            "print(subprocess.Popen(['sleep', '600'], preexec_fn=die_with_parent).pid, flush=True); time.sleep(600)",
        ],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout
    child = Process.of(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 90
    while child.is_alive() and time.monotonic() < until:
        time.sleep(0.02)
    assert not child.is_alive()
    parent.stdout.close()
