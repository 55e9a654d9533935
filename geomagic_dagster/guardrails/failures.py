"""Sorts failures into the two kinds there are: permanent ones, never retried, and passing ones, retried.

Belongs here: which exception is of which kind, and how that is said to Dagster. Does not belong here:
how often and when to retry (retries.py), what becomes of an upload that was rejected (jobs/).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dagster import Failure

from geomagic_dagster.cv.containers import ImageUnreadable
from geomagic_dagster.cv.stage import ScanRejected, StageError


class Broken(Exception):
    """The platform, not the scan, is in a state that trying again does not mend; a person has to look.

    Raised by the artefact store for results that differ or are corrupt. `str()` is one sentence with the place,
    what was expected, what came, and what to do next.
    """


@contextmanager
def sorted_failures(place: str) -> Iterator[None]:
    """Turns permanent failures into `dagster.Failure` without retries; lets passing ones through to the retry policy.

    An unreadable image that only a stage found is the scan's fault like any other: it becomes a `ScanRejected`.
    """
    try:
        try:
            yield
        except ImageUnreadable as error:
            raise ScanRejected(
                f"{place}, image {error.index}",
                expected="a PNG or JPEG",
                received=error.received,
                do="Upload the scan again; if it fails again, export it anew from the app.",
            ) from error
    except (ScanRejected, StageError, Broken) as error:
        raise Failure(description=str(error), allow_retries=False) from error


def rejection_in(error: BaseException | None) -> ScanRejected | None:
    """The `ScanRejected` behind an error as Dagster hands it on; None where the scan is not to blame."""
    while error is not None and not isinstance(error, ScanRejected):
        error = error.__cause__
    return error
