"""How far a long step has come, as Dagster's UI shows it: a percentage and what is left, in the run's events.

Belongs here: when it is worth an event, and its words. Does not belong here: the loops themselves (`progress` of
cv/stage.py), the bars of a terminal (cli.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

FIRST_S, SHORTEST_S, GROWTH = 2.0, 1.0, 0.1
"""The first event after two seconds; then at most one a second, and rarer the longer it takes: a loop of an hour
makes about a hundred."""


@dataclass
class ProgressEvents:
    """Tells `emit(sentence, ratio)` of the loops of one step, now and then."""

    place: str
    emit: Callable[[str, float], None]
    clock: Callable[[], float] = time.monotonic
    _started_s: dict[str, float] = field(default_factory=dict)
    _next_s: float = -1.0

    def report(self, what: str, done: int, total: int | None) -> None:
        now = self.clock()
        started = self._started_s.setdefault(what, now)
        if self._next_s < 0:
            self._next_s = now + FIRST_S
        if not total or done < 0 or now < self._next_s:
            return
        self._next_s = now + max(SHORTEST_S, GROWTH * (now - min(self._started_s.values())))
        ratio = min(done / total, 1.0)
        left = f", about {in_words((now - started) * (1 - ratio) / ratio)} left" if 0 < ratio < 1 else ""
        self.emit(f"{self.place}: {what} {100 * ratio:.0f} % ({done} of {total}){left}", ratio)


def in_words(seconds: float) -> str:
    """ "40 s" or "3 min": nobody needs more of an estimate."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
