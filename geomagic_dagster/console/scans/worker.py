"""What the console does by itself, beside answering: a few threads, each in one process at a time.

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
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from functools import wraps

from django.conf import settings
from django.db import close_old_connections
from django.utils import timezone

from geomagic_dagster.console.scans import actions, following, retention, uploads, webhooks
from geomagic_dagster.console.scans.dagster_link import instance
from geomagic_dagster.console.scans.models import Scan, State

log = logging.getLogger("geomagic.console.worker")

EVERY_S, SELDOM_S = 2.0, 3600.0
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
    uploads.sweep()


def cancel_what_was_asked_for() -> None:
    """A run that was only made after somebody cancelled its scan."""
    for scan in Scan.objects.filter(is_cancelling=True).exclude(state__in=[State.CANCELLED, State.DONE]):
        actions.end_runs(scan)


Task = Callable[[], object]


def now_and_then(task: Task, every_s: float) -> Task:
    """The task, that does nothing until so much time went by; it begins with the first call."""
    next_s = float("-inf")

    @wraps(task)
    def maybe() -> None:
        nonlocal next_s
        if time.monotonic() >= next_s:
            next_s = time.monotonic() + every_s  # also where it fails
            task()

    return maybe


THREADS: dict[str, tuple[Task, ...]] = {
    "scans": (hand_over_what_is_whole, follow_runs, cancel_what_was_asked_for, give_up_what_does_not_go_on),
    "webhooks": (webhooks.deliver_due,),  # other people's servers are slow: they hold up nobody else
    "retention": (now_and_then(retention.remove_old, SELDOM_S),),  # a large upload takes long to remove
}


def work_once(tasks: Iterable[Task]) -> None:
    """Every task once; one that fails is tried again the next time."""
    for task in tasks:
        try:
            task()
        except Exception:
            log.exception("%s did not work out; it is tried again in %g s", task.__name__, EVERY_S)
        finally:
            close_old_connections()


def start(stop: threading.Event | None = None) -> None:
    """Works in threads of its own, while no other process of this installation does."""
    stop = stop or threading.Event()

    def work(name: str, tasks: tuple[Task, ...]) -> None:
        place = settings.HOME / f"console.{name}.lock"
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place, "a") as lock:  # whoever has it has written its number there
            while not stop.is_set():
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    lock.truncate(0)
                    lock.write(str(os.getpid()))
                    lock.flush()
                    while not stop.wait(EVERY_S):
                        work_once(tasks)
                stop.wait(EVERY_S)

    for each in THREADS.items():
        threading.Thread(target=work, args=each, name=f"console {each[0]}", daemon=True).start()
