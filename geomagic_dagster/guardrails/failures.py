"""Sorts failures: the one place that says of an exception what kind it is, what a person reads, what to do next.

    permanent   this scan, or this installation, will never get further as it is; not retried
    passing     a full disk, a lost GPU, a killed process, a deadline: retried with growing waits
    bug         a mistake in the code: not retried, since it would be made again; filed under a number

Belongs here: that table, the exceptions that platform code raises, and how all of it is said to Dagster. Does not
belong here: how often and when to retry (retries.py), what becomes of an upload that failed (jobs/).
"""

from __future__ import annotations

import errno
import hashlib
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from dagster import Failure, MetadataValue

from geomagic_dagster.cv.containers import ImageUnreadable
from geomagic_dagster.cv.stage import ScanRejected, StageError
from geomagic_dagster.guardrails.child import CaughtElsewhere, ChildDied
from geomagic_dagster.guardrails.deadlines import StageTimeout
from geomagic_dagster.guardrails.words import plain

Kind = Literal["permanent", "passing", "bug"]
REMOTE = ("botocore.", "aiobotocore.", "aiohttp.", "s3fs.", "gcsfs.", "adlfs.", "urllib3.", "requests.")
"""Modules whose exceptions mean that something on the other end of a wire did not answer as it should."""
DATABASE = {
    "sqlite3.OperationalError",
    "sqlalchemy.exc.OperationalError",
    "sqlalchemy.exc.InterfaceError",
    "sqlalchemy.exc.TimeoutError",
    "dagster_postgres.utils.DagsterPostgresException",
}
"""Dagster's own is locked, restarted or out of reach: a step asks it too, and tells it how far it has come."""


class Broken(Exception):
    """The platform, not the scan, is in a state that trying again does not mend; a person has to look.

    Raised by the artefact store for results that differ or are corrupt. `str()` is one sentence with the place,
    what was expected, what came, and what to do next.
    """

    failure = "broken"


class Unavailable(Exception):
    """A disk or a network that cannot take or give anything right now: full, read-only, not there. It may pass."""

    def __init__(self, place: str, *, expected: str, received: str, do: str, failure: str = "unreachable") -> None:
        self.failure = failure
        super().__init__(f"{place}: expected {expected}; got {received}. {do}")

    def __reduce__(self) -> tuple[object, ...]:  # exceptions with keyword arguments do not pickle by themselves
        return (_unavailable, (self.args[0], self.failure))


def _unavailable(sentence: str, failure: str) -> Unavailable:
    error = Unavailable("", expected="", received="", do="", failure=failure)
    error.args = (sentence,)
    return error


@dataclass(frozen=True)
class Sorted:
    """What a failure is."""

    kind: Kind
    failure: str
    """One word, for metrics: rejected, timeout, killed, out_of_memory, disk_full, unreachable, ..."""
    sentence: str
    """Place, expected, received, next step."""
    bug: str = ""
    """Number that the same mistake gets each time it is made."""


def sort_failure(error: BaseException, place: str) -> Sorted:
    """What kind of failure an exception at `place` is, in words."""
    text = str(error)
    if isinstance(error, ScanRejected):  # it quotes names that whoever sent it chose
        return Sorted("permanent", "rejected", plain(text))
    if isinstance(error, ImageUnreadable):  # found only by a stage; the scan's fault like any other
        return Sorted("permanent", "rejected", str(_rejected_for(error, place)))
    if isinstance(error, Broken):
        return Sorted("permanent", error.failure, text)
    if isinstance(error, StageError):
        return Sorted("bug", "stage_error", text, _bug_number(error))
    if isinstance(error, Unavailable):
        return Sorted("passing", error.failure, text)
    if isinstance(error, StageTimeout):
        return Sorted("passing" if error.may_pass else "permanent", "timeout", text)
    if isinstance(error, ChildDied):
        return Sorted("passing", "killed" if error.was_killed else "crashed", text)
    names = {f"{each.__module__}.{each.__qualname__}" for each in type(error).__mro__}
    if {"torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError"} & names:
        received, do = f"a GPU without room ({_first_line(text)})", "Run fewer at once on it; it is tried again."
        return Sorted("passing", "out_of_memory", f"{place}: expected room on the GPU; got {received}. {do}")
    if "torch.AcceleratorError" in names or (isinstance(error, RuntimeError) and "CUDA error" in text):
        received, do = _first_line(text), "It is tried again; if it stays, look at the GPU with nvidia-smi."
        return Sorted("passing", "gpu_lost", f"{place}: expected a working GPU; got {received}. {do}")
    if isinstance(error, MemoryError):
        received, do = f"a refusal ({_first_line(text) or 'MemoryError'})", "Run fewer at once; it is tried again."
        return Sorted("passing", "out_of_memory", f"{place}: expected room in memory; got {received}. {do}")
    if isinstance(error, OSError) and not isinstance(error, (FileNotFoundError, FileExistsError)):
        unavailable = _disk_trouble(error, place, "a disk and a network that answer")
        return Sorted("passing", unavailable.failure, str(unavailable))
    if any(name.startswith(REMOTE) for name in names):
        received = f"{type(error).__name__}: {_first_line(text)}"
        do = "It is tried again; if it stays, look at the store and the network."
        return Sorted("passing", "unreachable", f"{place}: expected an answer from the store; got {received}. {do}")
    if DATABASE & names:
        do = "It is tried again; if it stays, look at the database and its disk."
        sentence = f"{place}: expected an answer from Dagster's database; got {_first_line(text)}. {do}"
        return Sorted("passing", "unreachable", sentence)
    number = _bug_number(error)
    received = text if isinstance(error, CaughtElsewhere) else f"{type(error).__name__}: {_first_line(text)}"
    received = received.rstrip(".") + _line_of_stage(error)
    do = f"This is a mistake in the code, filed as bug {number}: its traceback is below. Mend it, then run it again."
    return Sorted("bug", "bug", f"{place}: expected a result; got {received}. {do}", number)


@contextmanager
def sorted_failures(place: str) -> Iterator[None]:
    """Turns whatever is raised into a `dagster.Failure` that shows its sentence first, and says if to retry."""
    try:
        yield
    except Failure:
        raise
    except Exception as error:
        known = sort_failure(error, place)
        metadata = {"failure_kind": MetadataValue.text(known.kind), "failure": MetadataValue.text(known.failure)}
        if known.bug:
            metadata["bug"] = MetadataValue.text(known.bug)
        cause = _rejected_for(error, place) if isinstance(error, ImageUnreadable) else error
        if cause is not error:
            cause.__cause__ = error
        raise Failure(known.sentence, metadata, allow_retries=known.kind == "passing") from cause


@contextmanager
def disk_in_words(place: str, expected: str) -> Iterator[None]:
    """Says in one sentence what a failing disk or network means, and what to do. Raises: Unavailable."""
    try:
        yield
    except StageTimeout:  # an OSError too, and none of the disk
        raise
    except OSError as error:
        raise _disk_trouble(error, place, expected) from error


def rejection_in(error: BaseException | None) -> ScanRejected | None:
    """The `ScanRejected` behind an error as Dagster hands it on; None where the scan is not to blame."""
    while error is not None and not isinstance(error, ScanRejected):
        error = error.__cause__
    return error


def bug_in(error: BaseException | None) -> str:
    """The sentence of the bug behind an error as Dagster hands it on; empty where it is none."""
    while error is not None:
        if isinstance(error, Failure) and "bug" in error.metadata:
            return str(error.description)
        error = error.__cause__
    return ""


def _disk_trouble(error: OSError, place: str, expected: str) -> Unavailable:
    reason = f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
    failure = "unreachable"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        received, do = "a full disk", "Free some space there, or point GEOMAGIC_HOME at a larger disk."
        failure = "disk_full"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        received, do = reason, "Give this user the right to write there, or point GEOMAGIC_HOME at another folder."
        failure = "not_allowed"
    else:
        received, do = f"{type(error).__name__}: {reason}", "Look at the disk or the network, then run it again."
    return Unavailable(place, expected=expected, received=received, do=do, failure=failure)


def _rejected_for(error: ImageUnreadable, place: str) -> ScanRejected:
    return ScanRejected(
        f"{place}, image {error.index}",
        expected="a PNG or JPEG",
        received=error.received,
        do="Upload the scan again; if it fails again, export it anew from the app.",
    )


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0]


def _line_of_stage(error: BaseException) -> str:
    """Where in the science an error was raised, in brackets; nothing where it was not there."""
    text = "".join(traceback.format_exception(error))
    lines = re.findall(r'geomagic_dagster/(cv/\S+\.py)", line (\d+), in (\S+)', text)
    return " ({}, line {}, in {})".format(*lines[-1]) if lines else ""


def _bug_number(error: BaseException) -> str:
    """Eight letters that stay the same for the same exception raised through the same functions of ours.

    Lines move and messages hold numbers, so neither counts.
    """
    text = "".join(traceback.format_exception(error))
    frames = re.findall(r'geomagic_dagster/(\S+\.py)", line \d+, in (\S+)', text)
    ours = [f"{file}:{function}" for file, function in frames if not file.startswith(("guardrails/", "assets/"))]
    return hashlib.sha256("\n".join([type(error).__name__, *ours]).encode()).hexdigest()[:8]
