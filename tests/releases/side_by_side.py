"""A true installation with latest and a release, on free ports, and what tests ask it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geomagic_dagster.drill.place import free_ports
from geomagic_dagster.guardrails import processes
from geomagic_dagster.jobs.local_run import REPOSITORY, dagster_home

DEADLINE_S = 600.0
PORTS = ("web", "rooms", "intake", "metrics", "console")
WORKSPACE = """{workspaceOrError {... on Workspace {locationEntries {name locationOrLoadError {
    ... on RepositoryLocation {dagsterLibraryVersions {name version}
        repositories {sensors {name} assetNodes {assetKey {path} partitionKeys}}}
    ... on PythonError {message causes {message}}}}}}}"""
LAUNCH = """mutation($params: ExecutionParams!) {launchRun(executionParams: $params) {
    ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}}}"""
RUN = """query($run: ID!) {runOrError(runId: $run) {... on Run {status tags {key value}}}}"""
EVENTS = """query($run: ID!) {logsForRun(runId: $run) {... on EventConnection {events {
    __typename ... on MessageEvent {message stepKey}}}}}"""
RUNS = """query($filter: RunsFilter!) {runsOrError(filter: $filter) {... on Runs {results {runId status}}}}"""


@dataclass
class Site:
    """An installation with latest and 1.0: `geomagic ui` on free ports, while it is `running()`."""

    project: Path
    record: Path
    home: Path
    ports: dict[str, int] = field(default_factory=dict)
    supervisor: subprocess.Popen[bytes] = field(init=False)

    @contextmanager
    def running(self) -> Iterator[None]:
        """All processes; also once more, after somebody has killed them."""
        self.start()
        try:
            yield
        finally:
            self.supervisor.send_signal(signal.SIGTERM)
            self.supervisor.wait(60)

    def start(self) -> None:
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        options = [f"--{'' if name == 'web' else f'{name}-'}port={port}" for name, port in self.ports.items()]
        command = [*self.geomagic, "ui", "--workspace", str(self.project / "workspace.yaml"), *options]
        with open(self.home / "ui.log", "ab") as log:
            self.supervisor = subprocess.Popen(command, cwd=REPOSITORY, env=self.environment, stdout=log, stderr=log)

    # --- as drill.story_people knows a site --------------------------------------------------------

    python, checkout = Path(sys.executable), REPOSITORY

    @property
    def environment(self) -> dict[str, str]:
        """Of every process of it; nothing of an installation that the tests run in."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GEOMAGIC_", "DAGSTER_"))}
        env = kept | {"GEOMAGIC_HOME": str(self.home), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        return env | {"DAGSTER_HOME": str(dagster_home(self.home))}

    def url(self, name: str, path: str = "") -> str:
        return f"http://127.0.0.1:{self.ports[name]}/{path}"

    @property
    def geomagic(self) -> list[str]:
        return [sys.executable, "-m", "geomagic_dagster.cli"]

    # --- what it says -----------------------------------------------------------------------------

    def log(self) -> str:
        return (self.home / "ui.log").read_text(errors="replace")

    def get(self, name: str, path: str) -> str:
        with urllib.request.urlopen(self.url(name, path), timeout=DEADLINE_S) as answer:
            return answer.read().decode()

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self.url("web", "graphql"), body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            said = json.load(answer)
        assert "errors" not in said, said
        return said["data"]

    def locations(self) -> dict[str, dict[str, Any]]:
        entries = self.ask(WORKSPACE)["workspaceOrError"]["locationEntries"]
        return {entry["name"]: entry["locationOrLoadError"] or {} for entry in entries}

    def has_loaded(self, *names: str) -> bool:
        there = self.locations()
        return there.keys() == set(names) and all("repositories" in each for each in there.values())

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            with suppress(OSError):
                if answer := condition():
                    return answer
            assert self.supervisor.poll() is None, self.log()[-4000:]
            assert time.monotonic() < deadline, f"still waiting for {what}\n{self.log()[-6000:]}"
            time.sleep(0.3)

    # --- runs -------------------------------------------------------------------------------------

    def launch(self, location: str, config: dict[str, Any]) -> str:
        """Starts process_scan of a location; its run's id."""
        selector = {"repositoryLocationName": location, "repositoryName": "__repository__", "jobName": "process_scan"}
        params = {"selector": selector, "runConfigData": config, "mode": "default"}
        return self.ask(LAUNCH, params=params)["launchRun"]["run"]["runId"]

    def status(self, run: str) -> str:
        return self.ask(RUN, run=run)["runOrError"]["status"]

    def ended(self, run: str) -> str:
        """How a run ends."""
        self.wait(lambda: self.status(run) in ("SUCCESS", "FAILURE", "CANCELED"), f"the end of run {run}")
        return self.status(run)

    def tags(self, run: str) -> dict[str, str]:
        return {each["key"]: each["value"] for each in self.ask(RUN, run=run)["runOrError"]["tags"]}

    def runs(self, **tags: str) -> list[str]:
        """The ids of runs, the latest first; names of tags begin with geomagic/ and are given without that."""
        wanted = {"tags": [{"key": f"geomagic/{name}", "value": value} for name, value in tags.items()]}
        return [each["runId"] for each in self.ask(RUNS, filter=wanted)["runsOrError"]["results"]]

    def events(self, run: str, kind: str) -> list[str]:
        """What the events of this kind say, as GraphQL calls it: ExecutionStepStartEvent, ..."""
        events = self.ask(EVENTS, run=run)["logsForRun"]["events"]
        return [f"{each.get('stepKey')}: {each.get('message')}" for each in events if each["__typename"] == kind]

    def code_server(self, name: str) -> int:
        """Its pid; 0 while there is none."""
        for pid in processes.descendants(self.supervisor.pid):
            with suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"\0grpc\0" in command and f"/{name}.sock".encode() in command:
                    return pid
        return 0
