"""How often somebody may ask.

Belongs here: counting, and the refusal. Does not belong here: how much may be uploaded (uploads.py), logins (axes).
"""

from __future__ import annotations

import time
from contextlib import suppress

from django.conf import settings
from django.core.cache import cache

from geomagic_dagster.console.scans.refusals import Refused

RATES = {
    "call": (1200, 60),
    "create": (60, 60),
    "bad token": (30, 60),
    "login": (30, 60),
    "page": (240, 60),
}
"""So many in so many seconds; `settings.SCAN_RATES` puts others in their place."""


def count(what: str, who: object) -> None:
    """One more of this kind by this one. Raises: Refused (429) where there were too many."""
    most, seconds = {**RATES, **getattr(settings, "SCAN_RATES", {})}[what]
    window, since_s = divmod(time.time(), seconds)
    key = f"rate {what} {who} {window:.0f}".replace(" ", "_")
    if _counted(key, 2 * seconds) > most:
        wait_s = int(seconds - since_s) + 1
        raise Refused(
            "rate",
            expected=f"at most {most} a {'minute' if seconds == 60 else f'{seconds} s'} ({what})",
            received="more",
            do=f"Try again in {wait_s} s.",
            status=429,
            headers={"Retry-After": str(wait_s)},
        )


def _counted(key: str, seconds: int) -> int:
    """One more; from the beginning where the cache has forgotten it, also between two lines."""
    while not cache.add(key, 1, seconds):
        with suppress(ValueError):  # forgotten meanwhile
            return cache.incr(key)
    return 1
