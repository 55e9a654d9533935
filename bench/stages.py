"""Seconds and peak memory of each stage, on a made-up room of 150 frames or a real scan.

Each stage runs in the same process, one after the other, as `make run` does it; the share says where the
time goes, and survives a change of machine better than the seconds do.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.guardrails.execution import run_stage


def report(path: Path | None) -> None:
    if path is None:
        from geomagic_dagster.scans.made_up import PHONE, make_room, scan_room

        started = time.perf_counter()
        scan = scan_room(make_room(1), PHONE).scan
        print(f"made-up room of {len(scan.recording)} frames: {time.perf_counter() - started:.1f} s", file=sys.stderr)
    else:
        from geomagic_dagster.scans.reader import read_scan

        scan = read_scan(path)
    results: dict[str, Any] = {"scan": scan}
    rows = []
    for stage in find_stages():
        outcome = run_stage(
            stage, {name: results[name] for name in stage.inputs}, stage.params(), logging.getLogger("bench")
        )
        results[stage.name] = outcome.result
        rows.append((stage.name, outcome.seconds, outcome.peak_memory_mb))
    total_s = sum(seconds for _, seconds, _ in rows)
    table = Table("stage", "seconds", "share", "peak memory", title=f"{scan.name}: {len(scan.recording)} frames")
    for name, seconds, peak_memory_mb in rows:
        table.add_row(name, f"{seconds:.2f}", f"{100 * seconds / total_s:.0f} %", f"{peak_memory_mb:.0f} MB")
    table.add_row("all", f"{total_s:.2f}", "", f"{max(row[2] for row in rows):.0f} MB")
    Console().print(table)
    for name, seconds, _ in rows:
        if name in ("layout", "furniture"):  # what they promise
            said = "under" if seconds < 0.25 * total_s else "OVER"
            print(f"{name}: {said} a quarter of the whole")
