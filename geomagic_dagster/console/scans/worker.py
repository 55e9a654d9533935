"""What the console does by itself, beside answering: one thread of one process.

Belongs here: how often, and that one failing task does not keep the others from being done. Does not belong here: the
tasks.

Nothing depends on it being quick but two things: an upload whose console was killed goes on, and the lists are
up to date.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from django.conf import settings
from django.db import close_old_connections
from django.utils import timezone

from geomagic_dagster.console.scans import actions, following, uploads, webhooks
from geomagic_dagster.console.scans.dagster_link import instance
from geomagic_dagster.console.scans.models import Scan, State

log = logging.getLogger("geomagic.console.worker")

EVERY_S = 2.0
STUCK_S = 5.0
"""By then whoever received the last byte has given the upload to the intake, if it lives."""


def follow_runs() -> None:
    following.follow(instance())


def hand_over_what_is_whole() -> None:
    """Uploads whose console was killed after their last byte, and those that no intake was there for."""
    before = timezone.now() - timedelta(seconds=STUCK_S)
    for scan in Scan.objects.filter(state=State.RECEIVED, received_at__lt=before):
        uploads.hand_over(scan)
    for scan in Scan.objects.filter(state=State.RECEIVING, created_at__lt=before):
        if uploads.received(scan) == scan.bytes_total:
            uploads.hand_over(scan)


def give_up_what_does_not_go_on() -> None:
    for scan in Scan.objects.filter(state=State.RECEIVING, expires_at__lt=timezone.now()):
        uploads.expire(scan)


def cancel_what_was_asked_for() -> None:
    """A run that was only made after somebody cancelled its scan."""
    for scan in Scan.objects.filter(is_cancelling=True).exclude(state__in=[State.CANCELLED, State.DONE]):
        actions.end_runs(scan)


TASKS: tuple[Callable[[], object], ...] = (
    hand_over_what_is_whole,
    follow_runs,
    cancel_what_was_asked_for,
    webhooks.deliver_due,
    give_up_what_does_not_go_on,
)


def work_once() -> None:
    """Every task once; one that fails is tried again the next time."""
    for task in TASKS:
        try:
            task()
        except Exception:
            log.exception("%s did not work out; it is tried again in %g s", task.__name__, EVERY_S)
        finally:
            close_old_connections()


def start(stop: threading.Event | None = None) -> threading.Thread:
    """Works in a thread of its own, while no other process of this installation does."""
    stop = stop or threading.Event()

    def work() -> None:
        place = settings.HOME / "console.worker"
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place, "w") as lock:
            while not stop.is_set():
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    lock.seek(0)
                    lock.write(str(os.getpid()))
                    lock.flush()
                    while not stop.wait(EVERY_S):
                        work_once()
                stop.wait(EVERY_S)

    thread = threading.Thread(target=work, name="console worker", daemon=True)
    thread.start()
    return thread
