"""What Dagster knows of scans, copied into the console's tables: also of scans that came by other ways.

Belongs here: which run is about which scan, and what its status means for it. Does not belong here: how far a running
one is (progress.py).

Only what changed since the last look is asked for. Looking twice changes nothing, so a console that was killed in the
middle just looks again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus, RunRecord, RunsFilter
from django.conf import settings
from django.db import DataError, transaction
from django.utils import timezone

from geomagic_dagster.console.registry.models import AuditEntry
from geomagic_dagster.console.scans.models import Followed, Run, Scan, State
from geomagic_dagster.console.scans.outcomes import REOPENED, end, reopen
from geomagic_dagster.flighting.watch import BY as WATCHER
from geomagic_dagster.guardrails.tags import (
    AGAIN_TAG,
    ATTEMPT_TAG,
    FLIGHT_TAG,
    RELEASE_TAG,
    SCAN_TAG,
    SHADOW_OF_TAG,
    SHADOW_TAG,
    TAKEN_BACK_TAG,
    UPLOAD_KEY_TAG,
    UPLOAD_TAG,
    VERSION_TAG,
)
from geomagic_dagster.guardrails.words import plain
from geomagic_dagster.jobs import withdrawn
from geomagic_dagster.jobs.process_scan import JOB, PUBLISH

log = logging.getLogger("geomagic.console.following")

CONSOLE_TAG = "geomagic/console_scan"
"""Of a run that was started here: the id of the scan."""
LIMIT, OVERLAP_S = 200, 60.0
"""Runs for a look; and how long a run may take to appear to us with the time of its change."""
RESOLUTION_S = 1.0
"""Of that time: many may have the same."""
WAITING = (DagsterRunStatus.NOT_STARTED, DagsterRunStatus.QUEUED)
WORKING = (DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING)


def follow(instance: DagsterInstance) -> int:
    """Looks at the runs that changed since the last look; returns how many there were."""
    followed, _ = Followed.objects.get_or_create(pk=1)
    now_s = time.time()
    since_s = followed.until_s if followed.until_s < now_s else now_s - OVERLAP_S  # also where the clock was set back
    records, is_all = _changed_since(since_s, instance)
    for record in records:
        _look_at_one_of_many(record, instance)
    followed.until_s = max(now_s - OVERLAP_S, 0.0) if is_all else _changed_s(records[-1]) - RESOLUTION_S
    followed.save()
    _look_again_at_failed(instance)
    return len(records)


def _look_at_one_of_many(record: RunRecord, instance: DagsterInstance) -> None:
    """A run that cannot be noted, whatever is odd about it, must not keep the others from being noted."""
    try:
        look_at(record, instance)
    except (ValueError, DataError):
        log.exception("run %s: expected to note what became of it; it is left out", record.dagster_run.run_id)


def _changed_since(since_s: float, instance: DagsterInstance) -> tuple[Sequence[RunRecord], bool]:
    """Runs by the time of their change, the oldest first, and whether these are all; enough of them to get further."""
    limit = LIMIT
    while True:
        records = instance.get_run_records(
            RunsFilter(job_name=JOB, updated_after=datetime.fromtimestamp(since_s, UTC)),
            limit=limit,
            order_by="update_timestamp",
            ascending=True,
        )
        is_all = len(records) < limit
        if is_all or _changed_s(records[-1]) - RESOLUTION_S > max(since_s, _changed_s(records[0])):
            return records, is_all
        limit *= 2


def _changed_s(record: RunRecord) -> float:
    return record.update_timestamp.timestamp()


def look_at(record: RunRecord, instance: DagsterInstance) -> Scan | None:
    """Notes what one run is now, and what that means for its scan. None where it is about no upload."""
    run, tags = record.dagster_run, record.dagster_run.tags
    scan = _scan_of(record)
    if scan is None:
        return None
    values = {
        "scan": scan,
        "release": tags.get(RELEASE_TAG, ""),
        "version": tags.get(VERSION_TAG, ""),
        "flight": tags.get(FLIGHT_TAG, ""),
        "is_shadow": tags.get(SHADOW_TAG) == "true",
        "is_taken_back": tags.get(TAKEN_BACK_TAG) == "true",
        "taken_up_again": int(said) if (said := tags.get(AGAIN_TAG, "")).isdecimal() else None,
        "status": run.status.value,
        "attempt": int(tags.get(ATTEMPT_TAG, "1")),
        "created_at": record.create_timestamp,
        "started_at": _time(record.start_time),
        "ended_at": _time(record.end_time),
    }
    known = Run.objects.filter(pk=run.run_id).first()
    if known is not None and all(getattr(known, name) == value for name, value in values.items()):
        return scan
    with transaction.atomic():  # a run that is noted is never one whose meaning was not
        scan.refresh_from_db(from_queryset=Scan.objects.select_for_update())  # nobody quarantines it meanwhile
        seen, _ = Run.objects.update_or_create(run_id=run.run_id, defaults=values)
        if seen.taken_up_again is not None and (known is None or known.taken_up_again is None):
            _note_taken_up_again(scan, seen)
        newest = newest_of(scan)
        if newest is not None and newest.pk == seen.pk:
            _draw_conclusions(scan, seen, instance, is_rerun=CONSOLE_TAG in tags)
    return scan


def newest_of(scan: Scan) -> Run | None:
    """The run that says what the scan is: the newest that is neither for comparison only nor another release's."""
    return scan.runs.filter(is_shadow=False, is_taken_back=False).first()


def _scan_of(record: RunRecord) -> Scan | None:
    tags = record.dagster_run.tags
    upload = tags.get(UPLOAD_TAG) or tags.get(SCAN_TAG)
    if not upload:
        return None
    if (known := Run.objects.filter(pk=record.dagster_run.run_id).select_related("scan").first()) is not None:
        return known.scan
    if CONSOLE_TAG in tags:
        return Scan.objects.filter(pk=tags[CONSOLE_TAG]).first()
    if (followed := Run.objects.filter(pk=tags.get(SHADOW_OF_TAG, "")).select_related("scan").first()) is not None:
        return followed.scan
    if scan := Scan.objects.filter(upload=upload, origin="api").first():  # such a name is there only once
        return scan
    if (scan := _taken_up_again(upload, tags.get(UPLOAD_KEY_TAG, ""))) is not None:
        return scan
    key = tags.get(UPLOAD_KEY_TAG) or f"run {record.dagster_run.root_run_id or record.dagster_run.run_id}"
    scan, _ = Scan.objects.get_or_create(
        upload_key=key[:300],
        origin="inbox",
        defaults={
            "name": tags.get(SCAN_TAG, upload)[:200],
            "upload": upload[:255],
            "state": State.QUEUED,
            "created_at": record.create_timestamp,
            "received_at": record.create_timestamp,
        },
    )
    return scan


def _taken_up_again(upload: str, key: str) -> Scan | None:
    """The scan whose upload the watcher put back into the inbox, by the first run of its new stay there; None for
    another upload of that name."""
    if not key or Scan.objects.filter(upload_key=key[:300], origin="inbox").exists():
        return None
    scan = Scan.objects.filter(upload=upload, origin="inbox").exclude(reopened_at=None).first()
    newest = None if scan is None else newest_of(scan)
    if scan is None or newest is None or newest.taken_up_again is None:
        return None
    scan.upload_key = key[:300]
    scan.save(update_fields=["upload_key"])
    return scan


def _note_taken_up_again(scan: Scan, run: Run) -> None:
    """Once: in the audit trail."""
    Scan.objects.filter(pk=scan.pk).update(reopened_at=timezone.now())
    AuditEntry.objects.create(
        who=WATCHER,
        action="take_up_again",
        object=f"scan {scan.pk}",
        before={"state": scan.state, "run": run.run_id, "release": run.release, "flight": run.flight},
        after={"state": State.QUEUED, "revision": run.taken_up_again},
        reason=f"release {run.release} could not use it, and was taken back as of revision {run.taken_up_again}",
    )


def _draw_conclusions(scan: Scan, run: Run, instance: DagsterInstance, *, is_rerun: bool) -> None:
    """What a scan is, by its newest run that is none for comparison only."""
    status = DagsterRunStatus(run.status)
    if scan.quarantined_at is not None and not (is_rerun and run.created_at > scan.quarantined_at):
        if status == DagsterRunStatus.SUCCESS:  # it began before, or was started past the console: it frees nothing
            _withdraw(package_of(instance, run.run_id))
        return
    about = {"run_id": run.run_id, "release": run.release, "version": run.version, "flight": run.flight}
    if status == DagsterRunStatus.SUCCESS:
        was, package = scan.quarantined_at and scan.package, package_of(instance, run.run_id)
        end(scan, State.DONE, instead_of=State.values, package=package, quarantined_at=None, **about)
        if was:
            withdrawn.forget(Path(settings.PLACES.quarantine), was)
        return
    if is_rerun and scan.package:  # what the customer has stays, until there is something in its place
        return
    if status in WAITING or status in WORKING:
        state = State.QUEUED if status in WAITING else State.RUNNING
        is_cancelling = scan.is_cancelling or status == DagsterRunStatus.CANCELING
        reason = REOPENED if scan.reopened_at is not None and not is_rerun else ""
        Scan.objects.filter(pk=scan.pk).update(
            state=state, reason=reason, finished_at=None, is_cancelling=is_cancelling, **about
        )
    elif status == DagsterRunStatus.CANCELED:
        end(scan, State.CANCELLED, "It was cancelled.", instead_of=State.values, **about)
    elif status == DagsterRunStatus.FAILURE:
        kind, sentence = failure_of(instance, run.run_id)
        Run.objects.filter(pk=run.pk).update(reason=sentence)
        if run.taken_up_again is not None:
            reopen(scan, run.run_id)
        elif kind == "rejected":
            end(scan, State.REJECTED, sentence, instead_of=State.values, **about)
        elif _is_in_inbox(scan):
            reason = f"Attempt {run.attempt} did not work out, it is tried again by itself: {sentence}"
            Scan.objects.filter(pk=scan.pk).update(state=State.QUEUED, reason=reason, **about)
        else:
            end(scan, State.FAILED, sentence, instead_of=State.values, **about)


def _withdraw(package: str) -> None:
    if package:
        withdrawn.withdraw(Path(settings.PLACES.packages), Path(settings.PLACES.quarantine), package)


def _look_again_at_failed(instance: DagsterInstance) -> None:
    """A scan whose attempts are over leaves the inbox without any run that would tell us."""
    for scan in Scan.objects.filter(state=State.QUEUED).exclude(run_id=""):
        newest = newest_of(scan)
        if newest is not None and newest.status == DagsterRunStatus.FAILURE.value and not _is_in_inbox(scan):
            _draw_conclusions(scan, newest, instance, is_rerun=False)


def _is_in_inbox(scan: Scan) -> bool:
    return (Path(settings.PLACES.inbox) / scan.upload).exists()


def package_of(instance: DagsterInstance, run_id: str) -> str:
    """The folder's name of the package that a run has published; empty where it has none."""
    for event in _events(instance, run_id, DagsterEventType.STEP_OUTPUT):
        if event.step_key == PUBLISH and "package" in event.step_output_data.metadata:
            folder = Path(str(event.step_output_data.metadata["package"].value))
            return folder.name if folder.parent == Path(settings.PLACES.packages) else ""
    return ""


def failure_of(instance: DagsterInstance, run_id: str) -> tuple[str, str]:
    """What kind of failure ended a run ("rejected", "timeout", ...; empty where its process died), in words too."""
    for event in _events(instance, run_id, DagsterEventType.STEP_FAILURE):
        data = event.step_failure_data
        if said := data.user_failure_data:
            kind = said.metadata.get("failure")
            return (str(kind.value) if kind else ""), plain(str(said.description))  # an older release's may be anything
        return "", plain(str(data.error_display_string).split("\n")[0])
    return "", f"Run {run_id} ended without a word, each time it was tried. Its log says more."


def _events(instance: DagsterInstance, run_id: str, kind: DagsterEventType) -> list[Any]:
    """The newest first."""
    records = instance.get_records_for_run(run_id, of_type=kind, ascending=False).records
    return [event for each in records if (event := each.event_log_entry.dagster_event) is not None]


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
