"""A real installation of the toy stages in a folder: `python -m tests.launching.installation INTAKE_PORT`."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRun, RunsFilter

from geomagic_dagster.guardrails.processes import Process, descendants
from geomagic_dagster.jobs.local_run import REPOSITORY, dagster_home
from geomagic_dagster.jobs.upload_sensor import UPLOAD_TAG
from geomagic_dagster.launching.serve import Ports, Supervisor, members, write_workspace
from tests.toy_stages.scans import write_toy_scan

DEADLINE_S = 300.0
LOCATIONS: list[dict[str, Any]] = [
    {"python_module": {"module_name": "tests.launching.location", "location_name": "latest"}}
]


def environment(home: Path) -> dict[str, str]:
    """What processes of an installation in this folder see; nothing of one that the tests run in."""
    ours = ("GEOMAGIC_", "DAGSTER_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {
        "GEOMAGIC_HOME": str(home),
        "TOY_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }


def instance_in(home: Path) -> DagsterInstance:
    """Dagster's instance of an installation, with the repository's dagster.yaml."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(dagster_home(home)))
        return DagsterInstance.get()


class Installation:
    """The processes, and what a test wants to know of them."""

    def __init__(self, home: Path, supervisor: subprocess.Popen[bytes], intake_port: int) -> None:
        self.home, self.supervisor, self.intake_port = home, supervisor, intake_port
        self.inbox = home / "inbox"
        self.instance = instance_in(home)

    def log(self) -> str:
        return (self.home / "serve.log").read_text()

    def archive(self, name: str) -> Path:
        """A zipped scan outside of the inbox."""
        folder = Path(tempfile.mkdtemp(dir=self.home / "elsewhere"))
        write_toy_scan(folder / name)
        return Path(shutil.make_archive(str(folder / name), "zip", folder / name))

    def post(self, name: str, content: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
        client = http.client.HTTPConnection("127.0.0.1", self.intake_port, timeout=DEADLINE_S)
        try:
            client.request("POST", f"/scans/{name}", content, headers)
            answer = client.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            client.close()

    def runs(self, upload: str) -> list[DagsterRun]:
        """Every run about an upload, the latest first."""
        return list(self.instance.get_runs(RunsFilter(tags={UPLOAD_TAG: upload})))

    def run(self, run_id: str) -> DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run
        return run

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        while not (answer := condition()):
            assert self.supervisor.poll() is None, self.log()
            assert time.monotonic() < deadline, f"still waiting for {what} after {DEADLINE_S:g} s\n{self.log()[-6000:]}"
            time.sleep(0.05)
        return answer

    def wait_for_success(self, upload: str) -> DagsterRun:
        """The first run of an upload that succeeded."""
        return self.wait(
            lambda: next((run for run in self.runs(upload) if run.is_success), None), f"success of {upload}"
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Runs that start now wait before their first stage."""
        (self.home / "hold").touch()
        try:
            yield
        finally:
            (self.home / "hold").unlink()

    def processes(self) -> set[Process]:
        """The supervisor and all below it."""
        found = set()
        for pid in (self.supervisor.pid, *descendants(self.supervisor.pid)):
            with suppress(ProcessLookupError):
                found.add(Process.of(pid))
        return found


@contextmanager
def installed(home: Path, intake_port: int) -> Iterator[Installation]:
    """The installation, up; ended with all that it started."""
    (home / "elsewhere").mkdir(parents=True)
    instance_in(home).dispose()  # one process makes the database
    with open(home / "serve.log", "wb") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "tests.launching.installation", str(intake_port)],
            cwd=REPOSITORY,
            env=environment(home),
            stdout=log,
            stderr=log,
        )
    installation = Installation(home, supervisor, intake_port)
    try:
        installation.wait(lambda: 'level=info msg="warm after' in installation.log(), "the warm process")
        installation.wait(lambda: _answers(intake_port), "the intake")
        yield installation
    finally:
        installation.instance.dispose()
        everybody = installation.processes()
        supervisor.send_signal(signal.SIGTERM)
        supervisor.wait(DEADLINE_S)
        assert not [process for process in everybody if process.is_alive()]


def _answers(port: int) -> bool:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        client.request("GET", "/health")
        return client.getresponse().status == 200
    except OSError:
        return False
    finally:
        client.close()


if __name__ == "__main__":
    folder = Path(os.environ["DAGSTER_HOME"])
    with tempfile.TemporaryDirectory(prefix="geomagic-") as sockets:
        write_workspace(LOCATIONS, folder, Path(sockets))
        table = members(LOCATIONS, folder, Path(sockets), "127.0.0.1", Ports(0, 0, int(sys.argv[1]), 0))
        Supervisor([member for member in table if member.name != "webserver"]).run()
