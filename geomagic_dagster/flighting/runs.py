"""What is compared: runs of scans, each with what is known of how it went.

Belongs here: the nouns that observing and comparing share. Does not belong here: where they come from (observe.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["ok", "failed", "rejected"]
Ranges = Mapping[str, tuple[float, float]]
"""Expected ranges by "stage.number"."""


@dataclass(frozen=True)
class Run:
    """What one run of a scan did."""

    run_id: str
    scan: str
    release: str
    ended_s: float
    """Seconds since 1970."""
    outcome: Outcome
    failure: str = ""
    """One word: bug, timeout, killed, ...; empty unless it failed."""
    seconds: float | None = None
    """From its start to its end."""
    headroom: float | None = None
    """Least part left of the deadline of the scan and those of its stages."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """The stages' own, by "stage.number"."""
    out_of_range: frozenset[str] = frozenset()
    """Stages that say of themselves that a number is out of range, or could not be measured."""


@dataclass(frozen=True)
class Trial:
    """A run, and whether the lot had sent it to the flighted release."""

    run: Run
    is_flight: bool
    share: float
    """The chance that this scan went there, 0 to 1."""


@dataclass(frozen=True)
class Pair:
    """The same scan in both: the flighted release's shadow run, and the run that the customer got."""

    flight: Run
    other: Run
