"""Uploads that a release rejected, and that was taken back since: the release that customers get now takes them up.

A rejection is told to the customer and put into quarantine/. Where the release that said it proved worse, it may have
been that release's mistake, and nobody can tell from outside: so the upload goes back into the inbox, once, and the
default has the last word. What it rejects too stays rejected.

Only what the release rejected in the time that ended by its being taken back (taken_back.py), what nothing and nobody
has touched since, and what lies in quarantine/ still. A few at a time, so that new customers do not wait behind them,
and none that was rejected more than a month before: by then not even the link to the scan's page opens any more.

Belongs here: which uploads these are. Does not belong here: taking a release back (watch.py), what it failed on
(again.py), moving uploads (jobs/inbox.py), telling the sender (the console, from the tag that is left at the run).

It may be killed at any moment. The run's tag is written first, then the upload moves, then its folder goes; whoever
looks next finds which of these is still to be done.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from geomagic_dagster.flighting.promote import SMOKE
from geomagic_dagster.flighting.taken_back import TakenBack, TakenBackReleases
from geomagic_dagster.guardrails.tags import (
    AGAIN_TAG,
    RELEASE_TAG,
    ROUTE_REVISION_TAG,
    SCAN_TAG,
    SHADOW_TAG,
    TAKEN_BACK_TAG,
    UPLOAD_TAG,
)
from geomagic_dagster.jobs.inbox import REASON, is_claimed, names_aside, reason_beside, scan_name, take_back
from geomagic_dagster.jobs.process_scan import JOB
from geomagic_dagster.releases.routing import RoutingStore, RoutingTable

log = logging.getLogger("geomagic.watch")

RECENT_S = 30 * 24 * 3600.0
"""Before its release was taken back."""
AT_A_TIME = 10
"""Of them in the inbox."""
LOOKED_AT = 50
"""Of them in one look of the watcher, each with some questions to Dagster."""
PAGE = 200
OVERLAP_S, RESOLUTION_S = 60.0, 1.0
"""How late a run may appear with the time of its change, and how many may have the same."""
RUNS_OF_A_SCAN = 20

Outcome = Literal["taken up", "later", "not ours"]


class Rejected:
    """The uploads in one installation's quarantine/.

    Args:
        at: hears how far it has come; tests end the process there.
    """

    def __init__(
        self,
        instance: DagsterInstance,
        quarantine: Path,
        inbox: Path,
        routing: RoutingStore,
        *,
        now: Callable[[], float] = time.time,
        at: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._instance, self._quarantine, self._inbox = instance, quarantine, inbox
        self._now, self._at = now, at
        self._taken_back = TakenBackReleases(routing)
        self._since_s: dict[TakenBack, float] = {}
        """Until when the runs of each are known. As all that is kept here: only so that nothing is asked twice."""
        self._open: dict[TakenBack, dict[str, DagsterRun]] = {}
        """Runs of each that are still to be looked at, by their ids."""
        self._waiting: list[Path] = []
        """What was moved into the inbox, as long as it lies there."""

    def look(self, table: RoutingTable) -> list[Path]:
        """Takes up what there is room for; where it lies in the inbox now."""
        began_s = self._now()
        taken_back = [each for each in self._taken_back.look(table).values() if began_s - each.at_s < RECENT_S]
        for known in (self._since_s, self._open):
            for gone in known.keys() - set(taken_back):
                del known[gone]
        self._waiting = [place for place in self._waiting if os.path.lexists(place)]
        moved: list[Path] = []
        looks = LOOKED_AT
        for each in taken_back:
            runs = self._open.setdefault(each, {})
            if len(runs) < PAGE:
                runs |= {run.run_id: run for run in self._failed(each)}
            for run in list(runs.values()):
                if looks == 0 or len(self._waiting) >= AT_A_TIME:
                    return moved
                looks -= 1
                outcome, place = self._take_up(run, each, table)
                del runs[run.run_id]
                if outcome == "later":  # behind the others
                    runs[run.run_id] = run
                if place is not None:
                    moved.append(place)
                    self._waiting.append(place)
        return moved

    def _failed(self, of: TakenBack) -> Iterator[DagsterRun]:
        """Runs of customers' uploads that ended badly by then and since, a page of those that were not seen yet."""
        began_s, limit = self._now(), PAGE
        since_s = self._since_s.get(of, of.at_s - RECENT_S)
        while True:
            records = self._instance.get_run_records(
                RunsFilter(
                    job_name=JOB,
                    statuses=[DagsterRunStatus.FAILURE],
                    tags={RELEASE_TAG: of.release},
                    updated_after=datetime.fromtimestamp(since_s, UTC),
                ),
                limit=limit,
                order_by="update_timestamp",
                ascending=True,
            )
            is_all = len(records) < limit
            last_s = records[-1].update_timestamp.timestamp() - RESOLUTION_S if records else since_s
            if is_all or last_s > since_s:
                break
            limit *= 2
        self._since_s[of] = max(since_s, began_s - OVERLAP_S) if is_all else last_s
        for record in records:
            run = record.dagster_run
            upload = run.tags.get(UPLOAD_TAG, "")
            is_customers = upload and not upload.startswith(SMOKE) and run.tags.get(SHADOW_TAG) != "true"
            if is_customers and of.routed(run.tags.get(ROUTE_REVISION_TAG, "")):
                yield run

    def _take_up(self, run: DagsterRun, of: TakenBack, table: RoutingTable) -> tuple[Outcome, Path | None]:
        name = run.tags[UPLOAD_TAG]
        folders = self._folders(name)
        if not folders or table.choose(scan_name(name)).release == of.release:  # somebody pinned it there
            return "not ours", None
        sentence = rejection_of(self._instance, run.run_id)
        # other words than the run's are those of a person, who wants it to stay
        folders = [folder for folder in folders if reason_beside(folder) == sentence]
        last = self._last_run(run)
        if last is None or not folders:
            return "not ours", None
        if not last.is_finished:
            return "later", None
        if AGAIN_TAG in run.tags:
            folders = [folder for folder in folders if not _clear(folder)]
        folders = [folder for folder in folders if os.path.lexists(folder / name)]
        if last.run_id != run.run_id or not folders:
            return "not ours", None
        if os.path.lexists(self._inbox / name) or is_claimed(self._inbox, name):  # another one of that name
            return "later", None
        return self._move(run, max(folders, key=lambda folder: folder.stat().st_mtime_ns), of)

    def _move(self, run: DagsterRun, folder: Path, of: TakenBack) -> tuple[Outcome, Path | None]:
        self._instance.add_run_tags(run.run_id, {AGAIN_TAG: str(of.revision)})
        self._at("rejected: tagged")
        try:
            place = take_back(folder, self._inbox)
        except FileNotFoundError:  # somebody took it away since we looked
            self._instance.add_run_tags(run.run_id, {AGAIN_TAG: ""})
            return "not ours", None
        self._at("rejected: moved")
        log.info("%s: release %s rejected it and was taken back since; taken up again", place.name, of.release)
        return "taken up", place

    def _folders(self, name: str) -> list[Path]:
        """Where uploads of this name lie aside: one had to make room for the other (jobs/inbox.py)."""
        return [self._quarantine / each for each in names_aside(self._quarantine, name)]

    def _last_run(self, run: DagsterRun) -> DagsterRun | None:
        """The run that has the last word on its upload, be it one that a person started by hand; no copies."""
        upload = run.tags[UPLOAD_TAG]
        scan = run.tags.get(SCAN_TAG, scan_name(upload))
        for each in self._instance.get_runs(RunsFilter(tags={SCAN_TAG: scan}), limit=RUNS_OF_A_SCAN):
            is_word = "true" not in (each.tags.get(SHADOW_TAG), each.tags.get(TAKEN_BACK_TAG))
            if is_word and each.tags.get(UPLOAD_TAG, upload) == upload:
                return each
        return None


def rejection_of(instance: DagsterInstance, run_id: str) -> str | None:
    """What a run told the customer; None where it did not reject the scan."""
    records = instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_FAILURE, ascending=False).records
    for each in records:
        event = each.event_log_entry.dagster_event
        said = event.step_failure_data.user_failure_data if event is not None else None
        kind = said.metadata.get("failure") if said is not None else None
        if said is not None and kind is not None and kind.value == "rejected":
            return str(said.description).strip()
    return None


def _clear(folder: Path) -> bool:
    """Removes what is left of a folder whose upload was moved by a watcher that then was killed."""
    if [path.name for path in folder.iterdir()] != [REASON]:
        return False
    (folder / REASON).unlink()
    folder.rmdir()
    return True
