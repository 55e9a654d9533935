"""When a passing failure is tried again.

Belongs here: Dagster's retry policy for a number of retries, and how long it may wait. Does not belong here: which
failures pass (failures.py). Retries of whole runs whose process died are set in dagster.yaml; an upload whose run
failed in passing is taken up again by the upload sensor (jobs/).
"""

from __future__ import annotations

from dagster import Backoff, Jitter, RetryPolicy

FIRST_DELAY_S = 2.0


def retry_policy(retries: int) -> RetryPolicy:
    """Waits up to 2, 6, 14, ... s: exponential, and a random part of it, so that many steps do not return at once."""
    return RetryPolicy(max_retries=retries, delay=FIRST_DELAY_S, backoff=Backoff.EXPONENTIAL, jitter=Jitter.FULL)


def longest_wait_s(retries: int) -> float:
    """The most that all waits before `retries` retries take together."""
    return sum((2.0 ** (attempt + 1) - 1.0) * FIRST_DELAY_S for attempt in range(retries))
