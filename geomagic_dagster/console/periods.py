"""How long something is kept, as a setting says it.

Belongs here: reading such a setting. Does not belong here: what is kept (scans/retention.py).
"""

from __future__ import annotations

import math

from django.core.exceptions import ImproperlyConfigured


def kept_days(said: str) -> float:
    """Days; 0 where nothing is said: for ever. Raises: ImproperlyConfigured."""
    if not said.strip():
        return 0.0
    try:
        days = float(said)
    except ValueError:
        days = math.nan
    if not 1 <= days < math.inf:  # shadow runs see an upload for an hour after its customer's run
        raise ImproperlyConfigured(
            f"GEOMAGIC_KEEP_UPLOADS_DAYS: expected days, 1 or more, like 90; got {said[:40]!r}. Leave it out to keep "
            "uploads for ever."
        )
    return days
