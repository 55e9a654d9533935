"""Starts one `process_scan` for every upload in the inbox that is complete and this release's; never two at a time.

Belongs here: which uploads are taken in a tick, and the sensor around it. Does not belong here: how to
tell that one is complete, and moving them (inbox.py), which release it belongs to (traffic.py), whether one whose run
failed is taken up again (attempts.py), what is done with one (process_scan.py).

The intake (launching/intake.py) starts what it puts here itself; the sensor takes what was put here otherwise, and what
an intake that was killed left behind.

Every release has such a sensor. They look at the same inbox, and each takes only what was assigned to it.

Four things hold "never two" within one of them, and the assignment between them: the cursor knows the names that were
taken and still lie in the inbox; a name that an intake holds right now is not taken; nor is one that a live run works
on, should the cursor be lost; and the run key, the same for as long as nobody touches the upload and whoever starts it,
lets Dagster drop a request that is repeated because a daemon died before it remembered.
"""

import base64
import json
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from dagster import (
    DagsterInstance,
    DefaultSensorStatus,
    JobDefinition,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
)

from geomagic_dagster.guardrails.tags import ATTEMPT_TAG, SCAN_TAG, UPLOAD_KEY_TAG, UPLOAD_TAG
from geomagic_dagster.jobs.assignments import Assignment, forget, sweep
from geomagic_dagster.jobs.attempts import ENDED, Standing, standing
from geomagic_dagster.jobs.inbox import (
    HALF_WRITTEN,
    Looks,
    Seen,
    is_claimed,
    is_upload,
    look_at,
    move_aside,
    move_to_done,
    run_key,
    scan_name,
)
from geomagic_dagster.jobs.traffic import Traffic, sign_of_life, tags_of
from geomagic_dagster.releases.routing import RoutingUnavailable
from geomagic_dagster.resources.places import Places

SENSOR = "upload_sensor"
MIN_INTERVAL_S = 3
MAX_REQUESTS = 10
"""For a tick. Dagster makes runs one after the other; many at once would hold up the sensors of others."""
MAX_LOOKS = 50_000
"""Questions to the file system in a tick, 2 to 5 µs each on a local disk."""
MAX_LOOK_S = 0.5
SHOWN = 5
ENDED_LIMIT, ENDED_OVERLAP_S = 500, 60.0
"""Ended runs that a tick asks for, and how far before the last tick it begins to."""
LOOK_AGAIN_S = 600.0
"""So often everything in the inbox is looked at anew, whatever the cursor says: it may be wrong, the inbox is not."""


@dataclass(frozen=True)
class Cursor:
    """What a tick leaves for the next one; bounded by what lies in the inbox."""

    taken: frozenset[str] = frozenset()
    """Names that were taken and still lie in the inbox."""
    after: str = ""
    """The name that was looked at last: the next tick goes on behind it, so that none is left out for ever."""
    ended_s: float = 0.0
    """Until when the runs that ended are known (seconds since 1970)."""
    all_s: float = 0.0
    """When everything was looked at anew last."""

    def dumps(self) -> str:
        packed = base64.b85encode(zlib.compress(json.dumps(sorted(self.taken)).encode())).decode()
        return json.dumps(
            {"schema": 2, "taken": packed, "after": self.after, "ended_s": self.ended_s, "all_s": self.all_s}
        )

    @classmethod
    def loads(cls, text: str | None) -> "Cursor":
        if not text:
            return cls()
        content = json.loads(text)
        taken = frozenset(json.loads(zlib.decompress(base64.b85decode(content["taken"]))))
        return cls(taken, content["after"], content.get("ended_s", 0.0), content.get("all_s", 0.0))


@dataclass(frozen=True)
class Tick:
    """What one look over the inbox found."""

    ready: dict[str, Seen]
    """Complete uploads to take, by name."""
    attempt: dict[str, int]
    """The how manieth time each of them is taken."""
    over: dict[str, Standing]
    """Uploads that are to leave the inbox: published already, or given up."""
    waiting: dict[str, str]
    """Uploads that were looked at and are not complete, with what they wait for."""
    strays: tuple[str, ...]
    """What is no upload at all."""
    cursor: Cursor

    def summary(self) -> str:
        parts = []
        if self.strays:
            parts.append(
                f"{_some(self.strays)}: expected a folder or an archive (zip, tar, tar.gz); got something else. "
                "It is left where it is"
            )
        if self.waiting:
            parts.append("waiting for " + _some(tuple(f"{name} ({why})" for name, why in self.waiting.items())))
        return "; ".join(parts) or "nothing new in the inbox"


def look_over(
    inbox: Path,
    cursor: Cursor,
    stand: Callable[[str, Seen], Standing],
    looks: Looks,
    *,
    max_ready: int = MAX_REQUESTS,
    max_look_s: float = MAX_LOOK_S,
    now_s: float | None = None,
) -> Tick:
    """Looks at what is new in the inbox, as far as the bounds of a tick allow.

    Args:
        stand: what is to become of an upload of this name; asked only for those that are complete.
    """
    deadline_s = time.monotonic() + max_look_s
    uploads, strays = [], []
    with os.scandir(inbox) as entries:
        for entry in entries:
            if not HALF_WRITTEN.search(entry.name):
                (uploads if is_upload(entry) and _is_text(entry.name) else strays).append(entry.name)
    taken = cursor.taken.intersection(uploads)
    new = sorted(set(uploads) - taken)
    first = next((i for i, name in enumerate(new) if name > cursor.after), 0)
    ready: dict[str, Seen] = {}
    waiting: dict[str, str] = {}
    attempt: dict[str, int] = {}
    over: dict[str, Standing] = {}
    live: set[str] = set()
    after = cursor.after
    for name in new[first:] + new[:first]:
        if looks.spent() or len(ready) >= max_ready or time.monotonic() > deadline_s:
            break
        after = name
        try:
            seen = look_at(inbox / name, looks, now_s)
        except FileNotFoundError:  # taken away while we looked: it is gone, or still being put together
            continue
        except OSError as error:  # its owner's alone, a disk that fails: the others shall not wait for it
            waiting[name] = f"it cannot be read: {error.strerror}"
            continue
        if not seen.complete:
            waiting[name] = seen.why
        elif is_claimed(inbox, name):  # asked before the runs: who lets go of it has made one
            waiting[name] = "the intake is starting it"
        elif (what := stand(name, seen)).what == "busy":
            live.add(name)
        elif what.what in ("wait", "elsewhere"):
            waiting[name] = what.why
        elif what.what == "start":
            ready[name], attempt[name] = seen, what.attempt
        else:
            over[name] = what
    known = replace(cursor, taken=taken | ready.keys() | live, after=after)
    return Tick(ready, attempt, over, waiting, tuple(sorted(strays)), known)


def run_request(inbox: Path, name: str, seen: Seen, held: Assignment, attempt: int = 1) -> RunRequest:
    """What is to be run for an upload in the inbox, whoever starts it."""
    key = run_key(name, seen)
    again = f" #{attempt}" if attempt > 1 else ""
    anew = f" ~{held.decision}" if held.decision > 1 else ""
    return RunRequest(
        run_key=f"{key}{again}{anew}",
        run_config={"ops": {"scan": {"config": {"upload": str(inbox / name)}}}},
        tags={
            UPLOAD_TAG: name,
            UPLOAD_KEY_TAG: key,
            ATTEMPT_TAG: str(attempt),
            SCAN_TAG: scan_name(name),
            **tags_of(held),
        },
    )


def without_ended(cursor: Cursor, instance: DagsterInstance, now_s: float) -> Cursor:
    """The cursor without the uploads whose run has ended since: if they still lie in the inbox, they are looked at
    again."""
    since_s = min(cursor.ended_s, now_s) - ENDED_OVERLAP_S  # also where the clock was set back
    if now_s - cursor.all_s > LOOK_AGAIN_S or cursor.all_s > now_s:
        return replace(cursor, taken=frozenset(), ended_s=now_s, all_s=now_s)
    records = instance.get_run_records(
        RunsFilter(statuses=ENDED, updated_after=datetime.fromtimestamp(since_s, UTC)),
        limit=ENDED_LIMIT,
        order_by="update_timestamp",
        ascending=True,
    )
    names = {record.dagster_run.tags.get(UPLOAD_TAG, "") for record in records}
    is_all = len(records) < ENDED_LIMIT
    ended_s = now_s if is_all else records[-1].update_timestamp.timestamp() + ENDED_OVERLAP_S
    return replace(cursor, taken=cursor.taken - names, ended_s=ended_s)


def _held(traffic: Traffic, instance: DagsterInstance, name: str, key: str, now_s: float) -> Assignment:
    """Which release an upload belongs to. Decided anew only where nothing has begun, or what began has ended."""
    held = traffic.of(name, key)
    elsewhere = traffic.elsewhere(held, now_s)
    if elsewhere is None or (held.run_id is not None and standing(instance, name, key, now_s).what == "busy"):
        return held
    return traffic.anew(held, *elsewhere)


def upload_sensor(job: JobDefinition, release: str) -> SensorDefinition:
    """The sensor of one release; it is on from the start."""

    def evaluate(context: SensorEvaluationContext, places: Places) -> SensorResult:
        inbox = Path(places.inbox)
        inbox.mkdir(parents=True, exist_ok=True)
        try:
            cursor = Cursor.loads(context.cursor)
        except (ValueError, KeyError, zlib.error) as error:
            context.log.warning(
                f"cursor of upload_sensor: expected what this code wrote; got {error!r}. Starting anew."
            )
            cursor = Cursor()
        now_s = time.time()
        cursor = without_ended(cursor, context.instance, now_s)

        since_s = sign_of_life(inbox, release, now_s)
        traffic = Traffic(inbox, places.routing(), f"{SENSOR} of {release}", since_s)
        if cursor.all_s == now_s:
            sweep(inbox, now_s)
        ours: dict[str, Assignment] = {}

        def stand(name: str, seen: Seen) -> Standing:
            key = run_key(name, seen)
            try:
                held = _held(traffic, context.instance, name, key, now_s)
            except (RoutingUnavailable, OSError) as error:
                return Standing("wait", why=f"its release cannot be decided: {error}")
            if held.release != release:
                return Standing("elsewhere", why=f"release {held.release} takes it")
            ours[name] = held
            return standing(context.instance, name, key, now_s)

        tick = look_over(inbox, cursor, stand, Looks(MAX_LOOKS), now_s=now_s)
        for name, what in tick.over.items():
            try:
                if what.what == "published":
                    move_to_done(inbox / name, inbox, Path(places.done))
                else:
                    reason = (
                        f"{what.why} It was taken up {what.attempt} times; `geomagic inbox retry` takes it up again."
                    )
                    moved_to = move_aside(inbox / name, inbox, Path(places.failed), reason)
                    context.log.error(f"{name}: given up, it lies in {moved_to}: {reason}")
            except OSError as error:  # the next tick tries again; the uploads that wait shall not wait for this one
                context.log.error(f"{name}: expected to move it out of the inbox; got {error}. Look at the disk.")
                continue
            forget(inbox, ours[name].key)
        if not tick.ready:
            return SensorResult(skip_reason=tick.summary(), cursor=tick.cursor.dumps())
        context.log.info(tick.summary())
        requests = [run_request(inbox, name, seen, ours[name], tick.attempt[name]) for name, seen in tick.ready.items()]
        return SensorResult(run_requests=requests, cursor=tick.cursor.dumps())

    return SensorDefinition(
        name=SENSOR,
        evaluation_fn=evaluate,
        job=job,
        minimum_interval_seconds=MIN_INTERVAL_S,
        default_status=DefaultSensorStatus.RUNNING,
        description="Starts process_scan for every complete room scan in the inbox that the routing table sends here.",
    )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8: neither a tag nor a database can hold them
        return False
    return True


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) if not name.isprintable() else name for name in names[:SHOWN]) + more
