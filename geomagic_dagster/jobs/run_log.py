"""What the runs of a scan say, as lines of logfmt, while they say it.

Belongs here: following Dagster's event log. Does not belong here: the format (guardrails/logs.py), the terminal
(cli.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from dagster import DagsterInstance, RunRecord, RunsFilter

from geomagic_dagster.guardrails.logs import event_line
from geomagic_dagster.guardrails.tags import SCAN_TAG
from geomagic_dagster.jobs.attempts import ENDED

POLL_S = 0.5
PAGE = 500


def lines_of_scan(instance: DagsterInstance, scan: str, *, follow: bool, is_enough: Any = None) -> Iterator[str]:
    """Every line of every run of a scan, oldest run first; with `follow`, until the last run has ended.

    Args:
        is_enough: asked when nothing is new; ends the following where it says so.
    """
    seen: dict[str, str | None] = {}
    ended: set[str] = set()
    while True:
        records = _runs_of(instance, scan)
        found = False
        for record in records:
            run_id = record.dagster_run.run_id
            if run_id in ended:
                continue
            has_ended = record.dagster_run.status in ENDED  # asked before its lines: none comes after that
            for line, cursor in _new_lines(instance, record, seen.get(run_id)):
                found, seen[run_id] = True, cursor
                yield line
            if has_ended:
                ended.add(run_id)
        is_over = bool(records) and all(record.dagster_run.run_id in ended for record in records)
        if not follow or is_over or (is_enough is not None and is_enough()):
            return
        if not found:
            time.sleep(POLL_S)


def _runs_of(instance: DagsterInstance, scan: str) -> list[RunRecord]:
    return list(reversed(instance.get_run_records(RunsFilter(tags={SCAN_TAG: scan}), limit=PAGE)))


def _new_lines(instance: DagsterInstance, record: RunRecord, cursor: str | None) -> Iterator[tuple[str, str | None]]:
    run = record.dagster_run
    while True:
        page = instance.get_records_for_run(run.run_id, cursor=cursor, limit=PAGE, ascending=True)
        cursor = page.cursor
        for each in page.records:
            yield event_line(each.event_log_entry, run.tags), cursor
        if not page.has_more:
            return
