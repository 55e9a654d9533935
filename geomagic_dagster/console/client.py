"""Where a request comes from.

Belongs here: the address of whoever asks, for the audit trail and for limits. Does not belong here: the limits.
"""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest


def client_ip(request: HttpRequest) -> str | None:
    """The address of the other side; behind our proxy, the one that the proxy saw (the last of the list: what
    stands before it is whatever the other side claims)."""
    if settings.IS_HTTPS and (forwarded := request.META.get("HTTP_X_FORWARDED_FOR", "")):
        return forwarded.split(",")[-1].strip() or None
    return request.META.get("REMOTE_ADDR") or None
