"""`geomagic metrics` against a long event log: python -m bench.exporter [--runs 10000]

Measured on the real command in a process of its own: seconds from its start to a page with all of the past, seconds of
later pages and looks, and its memory.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from bench.event_log import STAGES, templates, write_runs

PORT = 19464


def page() -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=10) as answer:
        return answer.read().decode()


def value(text: str, name: str) -> float:
    """The sum of a metric over its labels."""
    return sum(float(number) for number in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


def wait_for(name: str, at_least: float, began: float) -> tuple[float, str]:
    """Seconds since `began` until a metric is as large."""
    while time.perf_counter() - began < 600:
        try:
            text = page()
            if value(text, name) >= at_least:
                return time.perf_counter() - began, text
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.05)
    raise SystemExit(f"{name}: expected {at_least:g} within 600 s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    runs = parser.parse_args().runs
    folder = Path(tempfile.mkdtemp(prefix="geomagic-bench-"))
    try:
        began = time.perf_counter()
        kinds = templates(folder / "templates")
        home, dagster_home = folder / "home", folder / "dagster"
        events = write_runs(dagster_home, kinds, runs)
        print(f"made up {runs} runs of {events} events in {time.perf_counter() - began:.0f} s", flush=True)
        environment = os.environ | {"GEOMAGIC_HOME": str(home), "DAGSTER_HOME": str(dagster_home)}
        command = [sys.executable, "-m", "geomagic_dagster.cli", "metrics", "--port", str(PORT)]
        measure(command, environment, runs, lambda first, count: write_runs(dagster_home, kinds, count, first=first))
        print(f"state on disk {(home / 'metrics' / 'state.json').stat().st_size / 1e3:.0f} kB")
    finally:
        shutil.rmtree(folder)


def measure(command: list[str], environment: dict[str, str], runs: int, add_runs) -> None:
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        seconds, text = wait_for("geomagic_exporter_ready", 1, began)
        counted = value(text, "geomagic_runs_total")
        steps = value(text, "geomagic_steps_total")
        failed = runs // 20
        assert counted == runs, (counted, runs)
        assert steps == (runs - failed) * len(STAGES) + failed * 3, steps
        print(
            f"first page with all of the past: {seconds:.2f} s after the command (the look: {look(text):.2f} s; "
            f"{value(text, 'process_cpu_seconds_total'):.2f} s of processor without its readers; "
            f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)"
        )
        memory = [memory_mb(text)]
        pages, looks = [], []
        for _ in range(20):
            began = time.perf_counter()
            text = page()
            pages.append(time.perf_counter() - began)
            looks.append(look(text))
            time.sleep(0.5)
        print(f"later pages: median {statistics.median(pages) * 1e3:.0f} ms, slowest {max(pages) * 1e3:.0f} ms")
        print(f"later looks, nothing new: {looks[-1] * 1e3:.0f} ms")
        memory.append(memory_mb(text))
        for part in range(3):
            add_runs(runs + part * runs // 10, runs // 10)
            began = time.perf_counter()
            _, text = wait_for("geomagic_runs_total", runs + (part + 1) * (runs // 10), began)
            memory.append(memory_mb(text))
        print("memory in MB, at first, later, and after each further tenth of the runs:", *map(round, memory))
    finally:
        process.terminate()
        process.wait(20)


def look(text: str) -> float:
    return value(text, "geomagic_exporter_look_seconds")


def memory_mb(text: str) -> float:
    return value(text, "process_resident_memory_bytes") / 1e6


if __name__ == "__main__":
    main()
