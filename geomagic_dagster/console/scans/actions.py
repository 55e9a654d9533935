"""What people do with scans: cancel, run again, quarantine. Each is checked against roles.py and written down.

Belongs here: those services. Does not belong here: pages (admin.py, pages.py), the API's tokens (api.py).
"""

from __future__ import annotations

from pathlib import Path

from dagster import DagsterRunStatus, RunsFilter
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from geomagic_dagster.console import roles
from geomagic_dagster.console.registry import service
from geomagic_dagster.console.registry.audit import Actor, record
from geomagic_dagster.console.scans import uploads
from geomagic_dagster.console.scans.dagster_link import dagster_url, instance
from geomagic_dagster.console.scans.following import CONSOLE_TAG
from geomagic_dagster.console.scans.models import ON_ITS_WAY, OVER, Scan, State
from geomagic_dagster.console.scans.outcomes import end
from geomagic_dagster.console.scans.refusals import Refused
from geomagic_dagster.cv.stage import SOURCE
from geomagic_dagster.flighting.shadows import published_from
from geomagic_dagster.guardrails.tags import RELEASE_TAG, SCAN_TAG, UPLOAD_KEY_TAG, UPLOAD_TAG
from geomagic_dagster.guardrails.whole_files import replace_whole
from geomagic_dagster.jobs.attempts import ALIVE
from geomagic_dagster.jobs.inbox import REASON, claimed, move_aside, names_aside, reason_beside, scan_name
from geomagic_dagster.jobs.process_scan import JOB
from geomagic_dagster.jobs.withdrawn import withdraw

REPOSITORY = "__repository__"
"""What Dagster calls the definitions of a location."""


# --- cancel -----------------------------------------------------------------------------------------


def cancel(scan: Scan, actor: Actor, reason: str = "") -> None:
    """By somebody with the role to it. Raises: Refused, roles.NotAllowed."""
    roles.require(actor.user, "cancel_scan")
    cancel_as_sender(scan, actor, reason)


def cancel_as_sender(scan: Scan, actor: Actor, reason: str = "") -> None:
    """By whoever sent it. Raises: Refused (409) where it is over already."""
    scan.refresh_from_db()
    if scan.state == State.CANCELLED:
        return
    if scan.state in OVER:
        raise Refused(
            scan.name,
            expected="a scan that is on its way",
            received=f"one that is {scan.state}",
            do="Nothing is left to cancel.",
            status=409,
        )
    with transaction.atomic():
        record(actor, "cancel_scan", f"scan {scan.pk}", before={"state": scan.state}, reason=reason)
        is_over = end(scan, State.CANCELLED, "It was cancelled.", instead_of=(State.RECEIVING,))
        if not is_over:
            Scan.objects.filter(pk=scan.pk, state__in=ON_ITS_WAY).update(is_cancelling=True)
    if is_over:
        uploads.drop(scan)
    else:
        end_runs(scan)


def end_runs(scan: Scan) -> None:
    """Takes a scan that is being cancelled as far towards its end as it gets right now; may be repeated."""
    scan.refresh_from_db()
    if scan.state == State.RECEIVED and uploads.take_away(scan):  # before the intake had it
        end(scan, State.CANCELLED, "It was cancelled.", instead_of=ON_ITS_WAY)
        return
    if not scan.upload:
        return
    inbox = Path(settings.PLACES.inbox)
    with claimed(inbox, scan.upload):  # neither the intake nor the sensor starts it meanwhile
        living = instance().get_runs(RunsFilter(tags=_tags_of(scan), statuses=[DagsterRunStatus.NOT_STARTED, *ALIVE]))
        for run in living:
            if run.status != DagsterRunStatus.CANCELING:
                instance().run_coordinator.cancel_run(run.run_id)
        if not living and move_aside(
            inbox / scan.upload, inbox, Path(settings.PLACES.failed), "It was cancelled before it ran."
        ):
            end(scan, State.CANCELLED, "It was cancelled.", instead_of=ON_ITS_WAY)


def _tags_of(scan: Scan) -> dict[str, str]:
    """Of the runs that the sensor and the intake start for it."""
    if scan.upload_key and not scan.upload_key.startswith("run "):
        return {UPLOAD_KEY_TAG: scan.upload_key}
    return {UPLOAD_TAG: scan.upload}


# --- run again --------------------------------------------------------------------------------------


def rerun(scan: Scan, release: str, actor: Actor, reason: str, *, pin: bool = False) -> str:
    """Runs a scan once more, with a release of somebody's choice; the id of the run.

    What the customer has stays until the new package takes its place. With `pin`, later uploads of the same name go to
    this release too. Raises: Refused, roles.NotAllowed.
    """
    roles.require(actor.user, "rerun_scan")
    scan.refresh_from_db()
    if scan.quarantined_at is not None:  # its package would be everybody's again
        roles.require(actor.user, "quarantine_scan")
    upload = where_upload_lies(scan)
    if not scan.is_over or upload is None:
        raise Refused(
            scan.name,
            expected="a scan that is over, and whose upload is still kept",
            received=f"one that is {scan.state}" if not scan.is_over else "one whose upload is kept nowhere",
            do="Wait for its end, or cancel it first." if not scan.is_over else "Ask for the scan again.",
            status=409,
        )
    if pin:
        roles.require(actor.user, "set_pin")
        service.set_pin(actor, scan_name(scan.upload), release, reason)
    run_id = _submit(scan, release, upload)
    record(
        actor, "rerun_scan", f"scan {scan.pk}", before={"release": scan.release, "run": scan.run_id},
        after={"release": release, "run": run_id, "pinned": pin}, reason=reason,
    )  # fmt: skip
    return run_id


def _submit(scan: Scan, release: str, upload: Path) -> str:
    """By the webserver, which has the locations of all live releases."""
    from urllib.parse import urlsplit

    import requests
    from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError

    address = urlsplit(dagster_url())
    try:
        client = DagsterGraphQLClient(
            address.hostname or "",
            port_number=address.port,
            use_https=address.scheme == "https",
            path_prefix=address.path.rstrip("/"),
        )
        return client.submit_job_execution(
            JOB,
            repository_location_name=release,
            repository_name=REPOSITORY,
            run_config={"ops": {SOURCE: {"config": {"upload": str(upload)}}}},
            tags={SCAN_TAG: scan_name(scan.upload), RELEASE_TAG: release, CONSOLE_TAG: str(scan.pk)},
        )
    except (DagsterGraphQLClientError, requests.RequestException) as error:
        raise Refused(
            f"release {release}",
            expected=f"Dagster at {dagster_url()} to start a run of it",
            received=str(error).split("\n")[0][:300],
            do="Look whether the release is live and Dagster is up, then try again.",
            status=502,
        ) from error


def where_upload_lies(scan: Scan) -> Path | None:
    """Where the upload of a scan is kept now: done, put aside, or still in the inbox.

    Uploads by the inbox may have one name: which of them it is, its run knows, or the reason that lies beside it.
    """
    if not scan.upload or Path(scan.upload).name != scan.upload:
        return None
    places, name = settings.PLACES, scan.upload
    run = instance().get_run_by_id(scan.run_id) if scan.run_id else None
    done = Path(places.done) / name if run is None else published_from(instance(), run)
    candidates = [done] if done is not None and done.parent == Path(places.done) else []
    for folder in (Path(places.failed), Path(places.quarantine)):
        aside = [folder / each / name for each in names_aside(folder, name)]
        candidates += sorted(aside, key=lambda each: not reason_beside(each.parent).startswith(scan.reason))
    return next((each for each in (*candidates, Path(places.inbox) / name) if each.exists()), None)


# --- quarantine -------------------------------------------------------------------------------------


def quarantine(scan: Scan, actor: Actor, reason: str) -> None:
    """Puts a scan aside by hand: its package is for operators alone, and nothing processes it. Raises: Refused.

    Where an operator runs it again, it is free with the package that comes of it.
    """
    roles.require(actor.user, "quarantine_scan")
    scan.refresh_from_db()
    if not reason.strip():
        raise Refused("reason", expected="a sentence for whoever asks later", received="none", do="Say why.")
    if not scan.is_over:
        raise Refused(
            scan.name,
            expected="a scan that is over",
            received=f"one that is {scan.state}",
            do="Cancel it first.",
            status=409,
        )
    upload = where_upload_lies(scan)
    quarantined = Path(settings.PLACES.quarantine)
    with transaction.atomic():
        scan.refresh_from_db(from_queryset=Scan.objects.select_for_update())
        before = {"state": scan.state, "package": scan.package}
        record(actor, "quarantine_scan", f"scan {scan.pk}", before=before, reason=reason)
        end(scan, State.REJECTED, reason, instead_of=State.values, quarantined_at=timezone.now())
        if scan.package:
            withdraw(Path(settings.PLACES.packages), quarantined, scan.package)
        words = f"{reason} ({actor.name})"
        if upload is not None and upload.is_relative_to(quarantined):  # other words than a run's: it stays there
            replace_whole(upload.parent / REASON, f"{words}\n".encode())
        elif upload is not None:
            move_aside(upload, upload.parent, quarantined, words)
