"""Uploads that a release failed on, and that was taken back since: the release that customers get now takes them up.

A mistake in a release's code puts an upload aside for a person (failed/). Once that release is taken back, its mistake
is no longer what stands between the customer and the room: the upload goes back into the inbox, where the routing
table sends it elsewhere. What fails there too stays aside, as ever.

Belongs here: which of the uploads in failed/ these are. Does not belong here: what it rejected (rejected.py), taking a
release back (watch.py), moving uploads (jobs/inbox.py), where they go then (jobs/traffic.py).
"""

from __future__ import annotations

import logging
from pathlib import Path

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from geomagic_dagster.flighting.promote import SMOKE
from geomagic_dagster.guardrails.tags import AGAIN_TAG, RELEASE_TAG, UPLOAD_TAG
from geomagic_dagster.jobs.inbox import REASON, scan_name, take_back
from geomagic_dagster.releases.routing_table import RoutingTable

log = logging.getLogger("geomagic.watch")


class Again:
    """The uploads in one installation's failed/.

    It may be killed at any moment: an upload is either still there, and found again, or back in the inbox.
    """

    def __init__(self, instance: DagsterInstance, failed: Path, inbox: Path) -> None:
        self._instance, self._failed, self._inbox = instance, failed, inbox
        self._known: tuple[int, set[tuple[str, int]]] = (-1, set())
        """Of one revision of the table: the folders that were looked at and stay."""

    def look(self, table: RoutingTable) -> list[Path]:
        """Takes them up again; where they lie in the inbox now."""
        if self._known[0] != table.revision:
            self._known = (table.revision, set())
        moved = []
        for folder in sorted(each for each in self._failed.glob("[!.]*") if each.is_dir()):  # not what somebody dropped
            looked_at = (folder.name, folder.stat().st_mtime_ns)
            if looked_at in self._known[1]:
                continue
            run = self._run_that_failed_on(folder)
            if run is not None and not run.is_finished:  # it has put the upload aside, and is about to end
                continue
            release = run.tags.get(RELEASE_TAG, table.default) if run is not None else table.default
            has_failed = run is not None and run.status == DagsterRunStatus.FAILURE
            if run is None or not has_failed or not table.is_taken_back(release) or self._is_kept(run, table):
                self._known[1].add(looked_at)
                continue
            self._instance.add_run_tags(run.run_id, {AGAIN_TAG: str(table.revision)})
            place = take_back(folder, self._inbox)
            log.info("%s: release %s failed on it and was taken back since; taken up again", place.name, release)
            moved.append(place)
        return moved

    def _is_kept(self, run: DagsterRun, table: RoutingTable) -> bool:
        """Whether it would go to the same release again: somebody pinned it there."""
        return table.choose(scan_name(run.tags[UPLOAD_TAG])).release == run.tags.get(RELEASE_TAG)

    def _run_that_failed_on(self, folder: Path) -> DagsterRun | None:
        """The run that put this upload aside; None where that was no customer's."""
        uploads = [path.name for path in folder.iterdir() if path.name != REASON]
        if len(uploads) != 1 or uploads[0].startswith(SMOKE):
            return None
        runs = self._instance.get_runs(RunsFilter(tags={UPLOAD_TAG: uploads[0]}), limit=1)
        return runs[0] if runs else None
