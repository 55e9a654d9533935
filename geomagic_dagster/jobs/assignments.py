"""Which release an upload in the inbox belongs to: decided once, by whoever looks first, and kept until it leaves.

    <inbox>/.routes/<upload>.1.json    decided: release 1.1, by table 12
                    <upload>.2.json    begun: by a run of 1.1
                    <upload>.3.json    decided anew: release 1.0, since 1.1 was taken back

A log for each upload. An entry is created only where there is none and never changed; the last one holds. So of two
who decide at once, one does, and the other reads what it decided. A run begins by the next entry too: it and whoever
decides anew compete for the same one, so an upload is never begun by a run that it does not belong to any more, however
late that run comes.

Belongs here: that log. Does not belong here: which release it should be (traffic.py), looking at uploads (inbox.py).

Releases of every age read these files, so the format only grows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from geomagic_dagster.guardrails.failures import Broken
from geomagic_dagster.guardrails.whole_files import create_whole
from geomagic_dagster.jobs.inbox import was_touched
from geomagic_dagster.releases.routing import Route

log = logging.getLogger("geomagic.routing")

SCHEMA = 1
FOLDER = ".routes"
LEFT_OVER_S = 3600.0
"""What whoever moved an upload did not get to remove is removed after so long."""


class TakenBack(Broken):
    """The upload of this run belongs to another run by now."""

    failure = "taken_back"


@dataclass(frozen=True)
class Assignment:
    """What holds for one stay of one upload in the inbox."""

    upload: str
    key: str
    """The run key of its first attempt: tells one stay from another."""
    route: Route
    number: int = 1
    """Of the entry."""
    decision: int = 1
    """How often a release was decided on for it."""
    decided_by: str = ""
    decided_s: float = 0.0
    """Seconds since 1970."""
    why: str = ""
    """Of a decision that was made anew."""
    run_id: str | None = None
    """The run that began to work on it."""
    document: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def release(self) -> str:
        return self.route.release


def assigned(inbox: Path, key: str) -> Assignment | None:
    """What holds for an upload; None where nobody has decided yet."""
    return _read(inbox, key)[0]


def assign(inbox: Path, upload: str, key: str, route: Route, by: str) -> Assignment:
    """Decides on a release, unless somebody has: then theirs holds."""
    while True:
        last, top = _read(inbox, key)
        if last is not None:
            return last
        with suppress(FileExistsError):
            return _append(inbox, Assignment(upload, key, route, top + 1, 1, by, time.time()))


def assign_anew(inbox: Path, last: Assignment, route: Route, by: str, why: str) -> Assignment:
    """Decides on another release, unless something has happened since `last`: then that holds."""
    new = Assignment(last.upload, last.key, route, last.number + 1, last.decision + 1, by, time.time(), why)
    with suppress(FileExistsError):
        return _append(inbox, new)
    return assigned(inbox, last.key) or last


def begin(upload: Path, inbox: Path, key: str, release: str, run_id: str, is_alive: Callable[[str], bool]) -> None:
    """Writes down that a run works on an upload from now on; again for the same run is no harm.

    Raises: TakenBack where the upload belongs to another release, a living run works on it, or it has left.
    """
    place = f"upload {upload.name}"
    while True:
        last, top = _read(inbox, key)
        if last is None:  # nobody has decided, or it has left; what lies there now may be another of the same name
            if not os.path.lexists(upload) or was_touched(upload, inbox, key):
                raise TakenBack(
                    f"{place}: expected the upload that this run was made for; got none or another one of that name. "
                    "Nothing to do: it was processed, or what lies there is."
                )
            return
        if last.run_id == run_id:
            return
        if last.release != release:
            because = f" ({last.why})" if last.why else ""
            raise TakenBack(
                f"{place}: expected it to belong to release {release}, of which this is a run; got {last.release}"
                f"{because}. A run of {last.release} processes it: nothing to do."
            )
        if last.run_id is not None and is_alive(last.run_id):
            raise TakenBack(
                f"{place}: expected that no other run works on it; got run {last.run_id}. Nothing to do: it goes on."
            )
        with suppress(FileExistsError):
            route, decided = last.route, (last.decision, last.decided_by, last.decided_s, last.why)
            _append(inbox, Assignment(last.upload, key, route, top + 1, *decided, run_id, last.document))
            return


def forget(inbox: Path, key: str) -> None:
    """Removes what was decided on an upload that has left the inbox."""
    _, top = _read(inbox, key)
    for number in range(top, 0, -1):  # the first entry last: without it there is none
        _file(inbox, key, number).unlink(missing_ok=True)


def sweep(inbox: Path, now_s: float | None = None) -> None:
    """Removes what a killed process left of uploads that are not there any more."""
    now_s = time.time() if now_s is None else now_s
    for file in (inbox / FOLDER).glob("*.1.json"):
        with suppress(FileNotFoundError):
            if now_s - file.stat().st_mtime > LEFT_OVER_S:
                said = _parse(file.read_bytes(), file)
                if said is not None and not os.path.lexists(inbox / said.upload):
                    forget(inbox, said.key)


def _file(inbox: Path, key: str, number: int) -> Path:
    digest = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32]
    return inbox / FOLDER / f"{digest}.{number}.json"


def _read(inbox: Path, key: str) -> tuple[Assignment | None, int]:
    """The last entry that can be read, and the number of the last one that is there."""
    last = None
    for number in count(1):
        file = _file(inbox, key, number)
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return last, number - 1
        last = _parse(content, file) or last
    raise AssertionError("numbers never end")


def _parse(content: bytes, file: Path) -> Assignment | None:
    try:
        said = json.loads(content)
        route = Route(
            release=str(said["release"]),
            flight=said.get("flight"),
            shadows=tuple(str(each["release"]) for each in said.get("shadows", ())),
            flags=tuple(map(str, said.get("flags", ()))),
            revision=int(said.get("route_revision", 0)),
            shadow_flights=tuple(str(each["flight"]) for each in said.get("shadows", ())),
        )
        return Assignment(
            str(said["upload"]),
            str(said["key"]),
            route,
            number=int(file.name.split(".")[1]),
            decision=int(said.get("decision", 1)),
            decided_by=str(said.get("decided_by", "")),
            decided_s=float(said.get("decided_s", 0.0)),
            why=str(said.get("why", "")),
            run_id=said.get("run_id"),
            document=said,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.error("%s: expected what a release decided on an upload; got %r. It is passed over.", file, error)
        return None


def _append(inbox: Path, new: Assignment) -> Assignment:
    """Raises: FileExistsError where somebody was first."""
    known = {
        "schema": max(SCHEMA, int(new.document.get("schema", SCHEMA))),
        "upload": new.upload,
        "key": new.key,
        "release": new.route.release,
        "flight": new.route.flight,
        "flags": list(new.route.flags),
        "shadows": [
            {"release": release, "flight": flight}
            for release, flight in zip(new.route.shadows, new.route.shadow_flights, strict=True)
        ],
        "route_revision": new.route.revision,
        "decision": new.decision,
        "decided_by": new.decided_by,
        "decided_s": new.decided_s,
        "why": new.why,
        "run_id": new.run_id,
    }
    content = json.dumps({**new.document, **known}, indent=1).encode()
    create_whole(_file(inbox, new.key, new.number), content)
    return new
