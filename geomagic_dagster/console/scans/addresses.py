"""Which addresses the console sends messages to: never one of its own network, unless a setting allows it.

Belongs here: checking an URL when it is given, and what it resolves to when it is used. Does not belong here: what is
sent (webhooks.py).

A name is looked up once, and the connection goes to the very address that was checked: a name that answers something
else a moment later gains nothing. Redirects are not followed.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from django.conf import settings

from geomagic_dagster.console.scans.refusals import Refused

MAX_URL = 500
TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
"""IPv6 addresses that a router turns into IPv4 ones, private ones among them."""


class Address(NamedTuple):
    """Where a message goes."""

    scheme: str
    host: str
    port: int
    path: str
    ip: str = ""


def allows_private() -> bool:
    """For installations whose receivers stand in the same network, and for tests."""
    return bool(getattr(settings, "WEBHOOKS_MAY_BE_PRIVATE", False))


def check(url: str) -> Address:
    """An URL as a webhook may have it, not yet looked up. Raises: Refused."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _refused(f"{url[:80]!r} ({error})") from None
    schemes = ("https", "http") if allows_private() else ("https",)
    if parts.scheme not in schemes or not host or parts.username is not None or parts.password is not None:
        raise _refused(repr(url[:80]))
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise _refused("one that is too long, or has letters that no URL has")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    address = Address(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path)
    name = host.rstrip(".")
    if (literal := _literal(name)) is not None:
        _check_public(literal, host)
    elif name == "localhost" or name.endswith((".localhost", ".local", ".internal")):
        _check_public(None, host)
    return address


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host stands for by itself, in any of the ways to write one: 127.1, 0x7f000001, 2130706433."""
    with suppress(ValueError):
        return ipaddress.ip_address(host)
    with suppress(OSError):
        return ipaddress.IPv4Address(socket.inet_aton(host))
    return None


def resolve(url: str) -> Address:
    """The same with the one address to connect to. Raises: Refused; OSError where the name is not known."""
    address = check(url)
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    ips = list(dict.fromkeys(str(each[4][0]) for each in found))
    for ip in ips:  # one private address among public ones is no accident
        _check_public(ipaddress.ip_address(ip.split("%")[0]), address.host)
    return address._replace(ip=ips[0])


def is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is somewhere in the Internet, by none of the ways to write a private one."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(ip.ipv4_mapped)
        is_tunnelled = ip.sixtofour is not None or ip.teredo is not None or any(ip in each for each in TRANSLATED)
        if ip.is_site_local or is_tunnelled:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _check_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address | None, host: str) -> None:
    if not allows_private() and (ip is None or not is_public(ip)):
        raise _refused(f"{host}, which is of a private network")


def _refused(received: str) -> Refused:
    return Refused(
        "webhook",
        expected="an https URL of a server in the Internet, without a user name",
        received=received,
        do="Give another one, or leave it out and ask for the state.",
    )
