"""The end of a scan, said once: its state, its reason, and the message to whoever sent it, in one transaction.

Belongs here: that transaction. Does not belong here: when it is the end (uploads.py, following.py), sending the message
(webhooks.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.utils import timezone

from geomagic_dagster.console.scans.models import Delivery, Scan, State


def end(scan: Scan, state: str, reason: str = "", *, instead_of: Iterable[str], **changes: Any) -> bool:
    """Brings a scan to its end; False where it is in none of the states `instead_of` (any more)."""
    with transaction.atomic():
        changed = Scan.objects.filter(pk=scan.pk, state__in=list(instead_of)).update(
            state=state, reason=reason, finished_at=timezone.now(), is_cancelling=False, **changes
        )
        if changed and scan.webhook_url and scan.token_id and state != State.EXPIRED:
            Delivery.objects.get_or_create(
                scan=scan,
                event=f"scan.{state}",
                run_id=changes.get("run_id", scan.run_id),
                defaults={"url": scan.webhook_url, "next_at": timezone.now()},
            )
    if changed:
        scan.refresh_from_db()
    return bool(changed)
