"""Tells whoever sent a scan how it ended: signed, and again until they have it.

Belongs here: the message, its signature, its repetition. Does not belong here: where it may go (addresses.py), what is
in it (describing.py).

As https://www.standardwebhooks.com has it, so that its libraries check it: `webhook-id`, `webhook-timestamp`, and
`webhook-signature`, "v1," and the base64 of HMAC-SHA256 over "<id>.<timestamp>.<body>". The receiver refuses old
timestamps, and an id that it has seen.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import logging
import socket
import ssl
import threading
import time
from contextlib import suppress
from datetime import timedelta

from django.utils import timezone

from geomagic_dagster.console.scans import addresses, tokens
from geomagic_dagster.console.scans.describing import described
from geomagic_dagster.console.scans.models import Delivery
from geomagic_dagster.console.scans.refusals import Refused

log = logging.getLogger("geomagic.console.webhooks")

WAITS_S = (5, 30, 120, 600, 1800, 3600, 2 * 3600, 6 * 3600, 12 * 3600)
"""Before the next attempt; about a day in all, after which a person has to look."""
TIMEOUT_S, TOTAL_S = 10.0, 30.0
ANSWER_BYTES = 200
AT_A_TIME = 20


def deliver_due() -> int:
    """Sends what is due; returns how many were tried."""
    waiting = Delivery.objects.filter(next_at__lte=timezone.now()).order_by("next_at")
    due = waiting.select_related("scan__token__owner")[:AT_A_TIME]
    for delivery in due:
        deliver(delivery)
    return len(due)


def deliver(delivery: Delivery) -> bool:
    """One attempt; whether the other side took it. What it said stands in the delivery's log."""
    if not delivery.body:  # written once: every attempt says the same
        said = {"type": delivery.event, "timestamp": delivery.created_at.isoformat(), "data": described(delivery.scan)}
        delivery.body = json.dumps(said, separators=(",", ":"))
    started_s = time.monotonic()
    try:
        status, answer = _post(delivery)
        is_taken, said = 200 <= status < 300, f"{status} {answer}".strip()
    except (Refused, OSError, http.client.HTTPException) as error:
        is_taken, said = False, f"{type(error).__name__}: {error}"
    now = timezone.now()
    took_ms = round(1000 * (time.monotonic() - started_s))
    delivery.log = [*delivery.log, {"at": now.isoformat(timespec="seconds"), "took_ms": took_ms, "said": said}]
    delivery.attempts += 1
    if is_taken:
        delivery.delivered_at, delivery.next_at = now, None
    elif delivery.attempts > len(WAITS_S):
        delivery.next_at = None
        log.warning("webhook %s: given up after %d attempts: %s", delivery.pk, delivery.attempts, said)
    else:
        delivery.next_at = now + timedelta(seconds=WAITS_S[delivery.attempts - 1])
    delivery.save()
    return is_taken


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """What the receiver computes too."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _post(delivery: Delivery) -> tuple[int, str]:
    token = delivery.scan.token
    if token is None:
        raise Refused(
            "webhook", expected="the token that the scan was sent with", received="none any more", do="Ask for it."
        )
    if token.revoked_at is not None or not token.owner.is_active:
        raise Refused(
            "webhook",
            expected="a token that was not revoked, and whose owner may log in",
            received="one that was revoked" if token.revoked_at is not None else "one whose owner may not any more",
            do="A message tells of a scan, and has a link to it: it goes to nobody who was shut out.",
        )
    address, body, now_s = addresses.resolve(delivery.url), delivery.body.encode(), int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "geomagic",
        "webhook-id": str(delivery.pk),
        "webhook-timestamp": str(now_s),
        "webhook-signature": signature(tokens.webhook_secret(token), str(delivery.pk), now_s, body),
    }
    connection = _Connection(address)
    deadline = threading.Timer(TOTAL_S, connection.hang_up)  # also for who answers a byte at a time
    deadline.start()
    try:
        connection.request("POST", address.path, body, headers)
        answer = connection.getresponse()
        return answer.status, _plain(answer.read(ANSWER_BYTES))
    finally:
        deadline.cancel()
        connection.close()


class _Connection(http.client.HTTPConnection):
    """To the address that was checked, by the name that it was asked for."""

    def __init__(self, address: addresses.Address) -> None:
        super().__init__(address.host, address.port, timeout=TIMEOUT_S)
        self._address = address
        self._held: socket.socket | None = None

    def connect(self) -> None:
        plain = socket.create_connection((self._address.ip, self.port), self.timeout)
        if self._address.scheme == "https":
            self.default_port = 443
            plain = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)
        self.sock = self._held = plain

    def hang_up(self) -> None:
        """Whatever it is doing. `self.sock` is None as soon as the other side says that it will close."""
        if self._held is not None:
            with suppress(OSError):  # gone already
                self._held.shutdown(socket.SHUT_RDWR)


def _plain(content: bytes) -> str:
    text = content.decode("utf-8", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
