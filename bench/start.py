"""How long a customer waits for nothing: from a complete upload to the first stage, and overhead in all.

The same made-up room, in one run on one machine, (a) by the same functions in one plain Python process whose
imports are not counted, (b) by Dagster as it comes (a sensor every 30 s, the queue every 5 s, a process for each step),
(c) by this installation as `make ui` starts it. Times of (b) and (c) are those of the event log.

    python -m bench.start [--small] [--times 3]
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from geomagic_dagster.drill.place import answers, free_ports
from geomagic_dagster.jobs.local_run import REPOSITORY

DEADLINE_S = 900.0
PORTS = ("port", "rooms-port", "intake-port", "metrics-port", "console-port")


@dataclass(frozen=True)
class Timed:
    to_first_stage_s: float
    in_all_s: float


def report(small: bool = False, times: int = 3) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        archive = _archive(Path(folder), small)
        ours, plain = [], []
        with _ours(Path(folder) / "ours") as (home, port):
            _upload(home, port, archive, "warm-up")
            for number in range(times):  # one after the other, so that a busy machine is busy for both
                plain.append(_plain(archive))
                ours.append(_upload(home, port, archive, f"room {number}"))
        default = [_default(Path(folder) / "default", archive)]
    base_s = statistics.median(each.in_all_s for each in plain)
    table = Table(
        "",
        "to the first stage",
        "in all",
        "overhead over (a)",
        "times ours",
        title=f"{archive.stem}, load {os.getloadavg()[0]:.1f}",
    )
    ours_over_s = _median(ours).in_all_s - base_s
    for name, runs in (("(a) plain Python", plain), ("(b) Dagster's defaults", default), ("(c) ours", ours)):
        each = _median(runs)
        over_s = each.in_all_s - base_s
        ratios = f"{each.to_first_stage_s / _median(ours).to_first_stage_s:.1f}, {over_s / ours_over_s:.1f}"
        table.add_row(
            name,
            f"{each.to_first_stage_s:.2f} s",
            f"{each.in_all_s:.2f} s",
            f"{over_s:.2f} s",
            "" if runs is plain else ratios,
        )
    Console().print(table)


def _median(runs: list[Timed]) -> Timed:
    return Timed(
        statistics.median(run.to_first_stage_s for run in runs), statistics.median(run.in_all_s for run in runs)
    )


def _archive(folder: Path, small: bool) -> Path:
    from geomagic_dagster.scans.formats import canonical
    from geomagic_dagster.scans.made_up import PHONE, make_room, scan_room

    options = PHONE.but(frames=40, size_wh=(160, 120)) if small else PHONE
    canonical.write(replace(scan_room(make_room(2), options).scan, name="room"), folder / "room")
    return Path(shutil.make_archive(str(folder / "room"), "zip", folder / "room"))


# --- (a) ------------------------------------------------------------------------------------------


def _plain(archive: Path) -> Timed:
    said = subprocess.run(
        [sys.executable, "-m", "bench.start", "--plain", str(archive)], check=True, capture_output=True, text=True
    )
    return Timed(*map(float, said.stdout.split()))


def run_plain(archive: Path) -> Timed:
    """Reads, checks and processes a scan with nothing of Dagster around it."""
    from geomagic_dagster.launching.preload import preload

    preload("geomagic_dagster.definitions")
    from geomagic_dagster.cv.stage import find_stages
    from geomagic_dagster.scans.check import check_path, raise_errors
    from geomagic_dagster.scans.reader import read_scan

    began_s = time.perf_counter()
    raise_errors(check_path(archive))
    results = {"scan": read_scan(archive, "room")}
    to_first_s = time.perf_counter() - began_s
    for stage in find_stages():
        result = stage.function(**{name: results[name] for name in stage.inputs})
        stage.measure(result)
        results[stage.name] = result
    return Timed(to_first_s, time.perf_counter() - began_s)


# --- (b) and (c) ----------------------------------------------------------------------------------


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GEOMAGIC_", "DAGSTER_"))}
    return kept | {"GEOMAGIC_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}


@contextmanager
def _process(home: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env=_environment(home),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def _ours(home: Path) -> Iterator[tuple[Path, int]]:
    home.mkdir()
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    options = [word for name, port in ports.items() for word in (f"--{name}", str(port))]
    with _process(home, "-m", "geomagic_dagster.cli", "ui", *options) as process:
        url = f"http://127.0.0.1:{ports['intake-port']}/health"
        _wait(lambda: answers(url), process)  # the warm-up upload waits for the rest
        yield home, ports["intake-port"]


def _upload(home: Path, port: int, archive: Path, name: str) -> Timed:
    began_s = time.time()
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request("POST", f"/scans/{name.replace(' ', '%20')}.zip", archive.read_bytes())
    answer = client.getresponse()
    assert answer.status == 201, answer.read()
    client.close()
    return _of_run(home, name, began_s)


def _default(home: Path, archive: Path) -> Timed:
    dagster_home = home / "dagster"
    dagster_home.mkdir(parents=True)
    (home / "inbox").mkdir()
    (dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with _process(home, "-m", "dagster", "dev", "-m", "bench.default_location", "-p", "0") as process:
        _wait(lambda: (home / "log").read_text().count("upload_sensor") >= 2, process)  # it has looked once
        time.sleep(15)  # an upload comes at any moment: on average half an interval before the next look
        shutil.copy(archive, home / "inbox" / ".room")
        began_s = time.time()
        (home / "inbox" / ".room").rename(home / "inbox" / "room.zip")
        return _of_run(home, "room", began_s)


def _of_run(home: Path, scan: str, began_s: float) -> Timed:
    from dagster import DagsterEventType, DagsterInstance, RunsFilter

    from geomagic_dagster.cv.stage import find_stages

    os.environ["DAGSTER_HOME"] = str(home / "dagster")
    with DagsterInstance.get() as instance:

        def finished() -> bool:
            runs = instance.get_runs(RunsFilter(tags={"geomagic/scan": scan}))
            return bool(runs) and runs[0].is_finished

        _wait(finished)
        (run,) = instance.get_runs(RunsFilter(tags={"geomagic/scan": scan}))
        assert run.is_success, (home / "log").read_text()[-5000:]
        first = find_stages()[0].name
        events = [event for event in instance.all_logs(run.run_id) if event.dagster_event]
    begin_s = min(
        event.timestamp
        for event in events
        if event.step_key == first and event.dagster_event_type == DagsterEventType.STEP_START
    )
    end_s = max(event.timestamp for event in events if event.dagster_event_type == DagsterEventType.RUN_SUCCESS)
    return Timed(begin_s - began_s, end_s - began_s)


def _wait(condition: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"{process.args}: expected it to run; it ended with {process.returncode}")
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"still waiting after {DEADLINE_S:g} s")
        time.sleep(0.2)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__)
    arguments.add_argument("--small", action="store_true", help="40 small frames instead of 150")
    arguments.add_argument("--times", type=int, default=3)
    arguments.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.plain:
        timed = run_plain(chosen.plain)
        print(timed.to_first_stage_s, timed.in_all_s)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        report(chosen.small, chosen.times)
