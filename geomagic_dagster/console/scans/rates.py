"""How often somebody may ask, counted over all processes of the console.

Belongs here: counting, and the refusal. Does not belong here: how much may be uploaded (uploads.py), logins (axes).

The counts stand in the console's own database, where each is one statement that adds and answers. None of Django's
caches that need no further server does that: they read, add, and write, so that two processes lose each other's counts.
"""

from __future__ import annotations

import hashlib
import time

from django.conf import settings
from django.db import connection

from geomagic_dagster.console.scans.models import Asked
from geomagic_dagster.console.scans.refusals import Refused

RATES = {
    "call": (1200, 60),
    "create": (60, 60),
    "bad token": (30, 60),
    "login": (30, 60),
    "page": (240, 60),
}
"""So many in so many seconds; `settings.SCAN_RATES` puts others in their place."""
ONE_MORE = (
    "INSERT INTO {table} (key, number, until_s) VALUES (%s, 1, %s) "
    "ON CONFLICT (key) DO UPDATE SET number = {table}.number + 1 RETURNING number"
)
"""Understood by SQLite and by Postgres."""


def count(what: str, who: object) -> None:
    """One more of this kind by this one. Raises: Refused (429) where there were too many."""
    most, seconds = {**RATES, **getattr(settings, "SCAN_RATES", {})}[what]
    now_s = time.time()
    window, since_s = divmod(now_s, seconds)
    key = hashlib.sha256(f"{what} {who} {window:.0f}".encode(errors="surrogateescape")).hexdigest()
    if _one_more(key, now_s - since_s + seconds) > most:
        wait_s = int(seconds - since_s) + 1
        raise Refused(
            "rate",
            expected=f"at most {most} a {'minute' if seconds == 60 else f'{seconds} s'} ({what})",
            received="more",
            do=f"Try again in {wait_s} s.",
            status=429,
            headers={"Retry-After": str(wait_s)},
        )


def _one_more(key: str, until_s: float) -> int:
    with connection.cursor() as cursor:
        cursor.execute(ONE_MORE.format(table=Asked._meta.db_table), [key, until_s])
        row = cursor.fetchone()
        assert row is not None, "RETURNING answers with the row"
        number = row[0]
    if number == 1:  # once a window: what is over goes, so that there are never more rows than askers in a window
        Asked.objects.filter(until_s__lt=time.time()).delete()
    return number
