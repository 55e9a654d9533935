"""The exporter's memory on disk: what was read and what was counted, in one piece.

Belongs here: one file, written whole or not at all, by one exporter at a time. Does not belong here: what is
in it (fold.py, counts.py, event_log.py).

Cursor and numbers lie in the same file, so that whenever the exporter is killed they are of the same moment: what
was counted is behind the cursor, what is beyond the cursor was not counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from geomagic_dagster.guardrails.locks import held
from geomagic_dagster.monitoring.counts import Counts
from geomagic_dagster.monitoring.event_log import Seen
from geomagic_dagster.monitoring.fold import LiveRun

SCHEMA = 1


class CannotStart(Exception):
    """The exporter cannot begin; `str()` is the place, what was expected, what came, and what to do next."""


@dataclass
class State:
    seen: Seen = field(default_factory=Seen)
    live: dict[str, LiveRun] = field(default_factory=dict)
    """Runs that may have more to tell, by their ids."""
    counts: Counts = field(default_factory=Counts)

    def dumps(self) -> bytes:
        content = {
            "schema": SCHEMA,
            "recent": self.seen.recent,
            "created_s": self.seen.created_s,
            "live": {run_id: run.to_json() for run_id, run in self.live.items()},
            "counts": self.counts.to_json(),
        }
        return json.dumps(content, separators=(",", ":")).encode()

    @classmethod
    def loads(cls, text: bytes) -> State:
        content = json.loads(text)
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}")
        return cls(
            Seen(content["recent"], content["created_s"]),
            {run_id: LiveRun(**run) for run_id, run in content["live"].items()},
            Counts.from_json(content["counts"]),
        )


def load(path: Path) -> State:
    """The state that was written last; an empty one on the first start. Raises: CannotStart."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return State()
    try:
        return State.loads(text)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CannotStart(
            f"{path}: expected what this exporter wrote (schema {SCHEMA}); got {type(error).__name__}: {error}. "
            "Move it away: the whole event log is then counted anew, and the counters begin there."
        ) from error


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Holds the state file for this process; the kernel lets go of it however the process ends.

    Raises: CannotStart where another exporter holds it.
    """
    with ExitStack() as lock:
        try:
            lock.enter_context(held(path.with_name(f"{path.name}.lock"), wait=False))
        except BlockingIOError as error:
            raise CannotStart(
                f"{path}: expected no other exporter on it; got one that is running. "
                "Ask that one (curl http://127.0.0.1:9464/metrics), or end it first."
            ) from error
        yield
