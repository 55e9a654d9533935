"""Which files of tests begin first where several processes share them: those that take longest.

Belongs here: the order, as it was measured. Does not belong here: what is not run by default (the mark `slow`).
"""

from __future__ import annotations

LONGEST_FIRST: tuple[str, ...] = ()
