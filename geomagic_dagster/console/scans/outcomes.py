"""The end of a scan, said once: its state, its reason, and the message to whoever sent it, in one transaction. And the
end that is taken back, since the release that said it was.

Belongs here: that transaction. Does not belong here: when it is the end (uploads.py, following.py), sending the message
(webhooks.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.utils import timezone

from geomagic_dagster.console.scans.models import ON_ITS_WAY, Delivery, Scan, State

UNDONE = (State.REJECTED, State.FAILED)
"""Bad ends, which may be taken back."""
AGAIN = "scan.reopened"
REOPENED = (
    "The version of our software that could not use this scan was taken back since, so it is processed once more. "
    "Nothing is to be done. If it works out, you are told; otherwise what you were told stands."
)
"""What its sender reads meanwhile."""


def end(scan: Scan, state: str, reason: str = "", *, instead_of: Iterable[str], **changes: Any) -> bool:
    """Brings a scan to its end; False where it is in none of the states `instead_of` (any more).

    Whoever sent it is told, but not what they were told before it was taken up again.
    """
    with transaction.atomic():
        changed = Scan.objects.filter(pk=scan.pk, state__in=list(instead_of)).update(
            state=state, reason=reason, finished_at=timezone.now(), is_cancelling=False, **changes
        )
        if changed and state != State.EXPIRED and not _stands(scan, state):
            _tell(scan, f"scan.{state}", changes.get("run_id", scan.run_id))
    if changed:
        scan.refresh_from_db()
    return bool(changed)


def reopen(scan: Scan, run_id: str) -> bool:
    """A scan that this run had brought to a bad end goes on; False where it is at none.

    Whoever was told of that end is told of this too; who was not, of nothing.
    """
    with transaction.atomic():
        was_told = scan.deliveries.filter(event__in=[f"scan.{state}" for state in UNDONE]).exists()
        here = Scan.objects.filter(pk=scan.pk)
        changed = here.filter(state__in=[*UNDONE, *ON_ITS_WAY]).exclude(state=State.QUEUED, reason=REOPENED)
        is_new = changed.update(state=State.QUEUED, reason=REOPENED, finished_at=None, is_cancelling=False)
        if is_new and was_told:
            _tell(scan, AGAIN, run_id)
    scan.refresh_from_db()
    return bool(is_new)


def _stands(scan: Scan, state: str) -> bool:
    """Whether a scan that was taken up again comes to the end that its sender knows."""
    if state not in UNDONE or not scan.deliveries.filter(event=AGAIN).exists():
        return False
    told = scan.deliveries.exclude(event=AGAIN).first()  # the newest
    return told is not None and told.event == f"scan.{state}"


def _tell(scan: Scan, event: str, run_id: str) -> None:
    if scan.webhook_url and scan.token_id:
        said = {"url": scan.webhook_url, "next_at": timezone.now()}
        Delivery.objects.get_or_create(scan=scan, event=event, run_id=run_id, defaults=said)
