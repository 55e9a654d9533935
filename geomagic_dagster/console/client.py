"""Where a request comes from.

Belongs here: the address of whoever asks, for the audit trail and for limits. Does not belong here: the limits.
"""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def client_ip(request: HttpRequest) -> str | None:
    """The address of the other side; behind our proxy, the one that the proxy saw (the last of the list: what
    stands before it is whatever the other side claims)."""
    if settings.IS_HTTPS and (forwarded := request.META.get("HTTP_X_FORWARDED_FOR", "")):
        return forwarded.split(",")[-1].strip() or None
    return request.META.get("REMOTE_ADDR") or None


NETWORK_BITS = 64
"""Of an IPv6 address: what one line is given; whoever has it has 2^64 addresses."""


def counted_as(request: HttpRequest) -> str | None:
    """For whom limits count: the address, or where it is IPv6, its network."""
    said = client_ip(request)
    try:
        ip = ipaddress.ip_address((said or "").split("%")[0])
    except ValueError:  # none, or a proxy's own word for one
        return said
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, NETWORK_BITS), strict=False).network_address)
