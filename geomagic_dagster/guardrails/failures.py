"""Sorts failures into the two kinds there are: permanent ones, never retried, and passing ones, retried.

Belongs here: which exception is of which kind, and how that is said to Dagster. Does not belong here:
how often and when to retry (retries.py), what becomes of an upload that was rejected (jobs/).
"""

from __future__ import annotations

import errno
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


class Unavailable(Exception):
    """A disk or a network that cannot take or give anything right now: full, read-only, not there. It may pass."""

    def __init__(self, place: str, *, expected: str, received: str, do: str) -> None:
        super().__init__(f"{place}: expected {expected}; got {received}. {do}")


@contextmanager
def disk_in_words(place: str, expected: str) -> Iterator[None]:
    """Says in one sentence what a failing disk or network means, and what to do. Raises: Unavailable."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            received, do = "a full disk", "Free some space there, or point GEOMAGIC_HOME at a larger disk."
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            received, do = reason, "Give this user the right to write there, or point GEOMAGIC_HOME at another folder."
        else:
            received, do = f"{type(error).__name__}: {reason}", "Look at the disk or the network, then run it again."
        raise Unavailable(place, expected=expected, received=received, do=do) from error


@contextmanager
def sorted_failures(place: str) -> Iterator[None]:
    """Turns permanent failures into `dagster.Failure` without retries; lets passing ones through to the retry policy.

    A `dagster.Failure` shows its sentence, and nothing else, to whoever looks at the run.
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
    except Unavailable as error:
        raise Failure(description=str(error), allow_retries=True) from error


def rejection_in(error: BaseException | None) -> ScanRejected | None:
    """The `ScanRejected` behind an error as Dagster hands it on; None where the scan is not to blame."""
    while error is not None and not isinstance(error, ScanRejected):
        error = error.__cause__
    return error
