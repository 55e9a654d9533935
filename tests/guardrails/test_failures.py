"""Every failure has its kind, and every sentence has place, expected, received and the next step."""

from __future__ import annotations

import errno
import logging
import pickle
import re
import signal
import sqlite3

import pytest
import sqlalchemy.exc
from dagster import Failure

from geomagic_dagster.cv.containers import ImageUnreadable
from geomagic_dagster.cv.stage import ScanRejected, StageError, minutes
from geomagic_dagster.guardrails import child
from geomagic_dagster.guardrails.child import CaughtElsewhere, ChildDied
from geomagic_dagster.guardrails.deadlines import Deadline, StageTimeout
from geomagic_dagster.guardrails.failures import (
    Broken,
    Unavailable,
    disk_in_words,
    rejection_in,
    sort_failure,
    sorted_failures,
)
from geomagic_dagster.resources.store import ArtefactCorrupt, ArtefactDiffers, ArtefactMissing


def raised_by_torch() -> Exception:
    import torch

    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")


def raised_by_a_remote_store() -> Exception:
    module = type("EndpointConnectionError", (Exception,), {"__module__": "botocore.exceptions"})
    return module("Could not connect to the endpoint URL")


def locked_database() -> Exception:
    return sqlalchemy.exc.OperationalError("SELECT 1", {}, sqlite3.OperationalError("database is locked"))


FAILURES = [
    (ScanRejected("depth", expected="depth images", received="none", do="Scan again."), "permanent", "rejected"),
    (ImageUnreadable(3, "an empty file"), "permanent", "rejected"),
    (Broken("artefact depth/a1: expected one; got none. Run it again."), "permanent", "broken"),
    (ArtefactCorrupt("artefact depth/a1: expected x; got y. Run the step again."), "permanent", "corrupt"),
    (ArtefactMissing("artefact depth/a1: expected x; got y. Run the step again."), "permanent", "missing"),
    (ArtefactDiffers("artefact depth/a1: expected x; got y. Look for chance."), "permanent", "differs"),
    (StageTimeout("mesh", 240.0), "passing", "timeout"),
    (StageTimeout("mesh", 240.0, is_hard=True, may_pass=False), "permanent", "timeout"),
    (ChildDied("mesh", -signal.SIGKILL, 900.0, ""), "passing", "killed"),
    (ChildDied("mesh", 137, 900.0, ""), "passing", "killed"),
    (ChildDied("mesh", -signal.SIGSEGV, 900.0, ""), "passing", "crashed"),
    (ChildDied("mesh", 3, 900.0, ""), "passing", "crashed"),
    (raised_by_torch(), "passing", "out_of_memory"),
    (MemoryError(), "passing", "out_of_memory"),
    (RuntimeError("CUDA error: an illegal memory access was encountered"), "passing", "gpu_lost"),
    (raised_by_a_remote_store(), "passing", "unreachable"),
    (OSError(errno.ENOSPC, "No space left on device", "/p/room.glb"), "passing", "disk_full"),
    (OSError(errno.EROFS, "Read-only file system", "/p/room.glb"), "passing", "not_allowed"),
    (OSError(errno.EIO, "Input/output error"), "passing", "unreachable"),
    (ConnectionResetError(104, "Connection reset by peer"), "passing", "unreachable"),
    (TimeoutError("the storage did not answer"), "passing", "unreachable"),
    (locked_database(), "passing", "unreachable"),
    (
        Unavailable("store", expected="room", received="a full disk", do="Free some.", failure="disk_full"),
        "passing",
        "disk_full",
    ),
    (StageError("stage depth: expected Mesh; got int. Make the two agree."), "bug", "stage_error"),
    (KeyError("no such key"), "bug", "bug"),
    (FileNotFoundError(2, "No such file", "weights.bin"), "bug", "bug"),
    (ValueError("shapes (3,) and (4,) do not fit"), "bug", "bug"),
    (CaughtElsewhere("Odd: it could not travel"), "bug", "bug"),
]


@pytest.mark.parametrize(("error", "kind", "failure"), FAILURES, ids=lambda value: str(value)[:30])
def test_each_failure_is_sorted_and_says_place_expected_received_and_next_step(error, kind, failure):
    known = sort_failure(error, "mesh")
    assert (known.kind, known.failure) == (kind, failure)
    assert bool(known.bug) == (kind == "bug")
    assert re.match(r"[^:]+: expected [^;]+; got [^.]+\S*", known.sentence), known.sentence
    after = known.sentence.split("; got ", 1)[1]
    assert re.search(r"[.)] [A-Z][a-z]+ [^.]+\S*\.?$", after), f"no next step: {known.sentence}"
    assert "\n" not in known.sentence
    with pytest.raises(Failure) as caught, sorted_failures("mesh"):
        raise error
    assert caught.value.description == known.sentence
    assert caught.value.allow_retries is (kind == "passing")
    assert caught.value.metadata["failure_kind"].value == kind
    assert caught.value.metadata["failure"].value == failure


@pytest.mark.parametrize("error", [error for error, _, _ in FAILURES], ids=lambda value: type(value).__name__)
def test_each_survives_the_way_between_processes_or_says_the_same(error):
    travelled = child._travelling(error)
    again = pickle.loads(pickle.dumps(travelled))
    assert str(error) in str(again)
    if not isinstance(again, CaughtElsewhere):
        assert sort_failure(again, "mesh").failure == sort_failure(error, "mesh").failure


def test_a_failure_that_is_sorted_already_stays_as_it_is():
    failure = Failure("said")
    with pytest.raises(Failure) as caught, sorted_failures("mesh"):
        raise failure
    assert caught.value is failure


def test_a_full_disk_is_one_sentence():
    with pytest.raises(Failure) as caught, sorted_failures("publish"), disk_in_words("packages in /p", "room to write"):
        raise OSError(errno.ENOSPC, "No space left on device", "/p/room.glb")
    assert caught.value.description == (
        "packages in /p: expected room to write; got a full disk. "
        "Free some space there, or point GEOMAGIC_HOME at a larger disk."
    )


def test_a_deadline_that_passes_while_a_disk_is_read_stays_a_deadline():
    with pytest.raises(StageTimeout), disk_in_words("artefact mesh/a1", "room to write"):
        raise StageTimeout("mesh", 240.0, may_pass=False)


def first_mistake(_: None, log: logging.Logger) -> None:
    {}[str(id(object()))]


def second_mistake(_: None, log: logging.Logger) -> None:
    {}["no such key"]


def numbers_of(function) -> str:
    try:
        child.call(function, None, deadline=Deadline("nap", 60.0, "geomagic_nap"), log=logging.getLogger())
    except KeyError as error:
        return sort_failure(error, "nap").bug
    raise AssertionError


def test_a_bug_says_in_which_line_of_the_science_it_is():
    with pytest.raises(TypeError) as raised:
        minutes("four")  # pyright: ignore[reportArgumentType]
    sentence = sort_failure(raised.value, "nap").sentence
    assert re.search(
        r"got TypeError: .* \(cv/stage\.py, line \d+, in minutes\)\. This is a mistake in the code", sentence
    )


def test_a_bug_has_the_same_number_each_time_whatever_its_message_says(monkeypatch):
    assert numbers_of(first_mistake) == numbers_of(first_mistake)
    assert re.fullmatch("[0-9a-f]{8}", numbers_of(second_mistake))


def test_only_a_rejection_blames_the_scan():
    def failure(error: Exception) -> Failure:
        with pytest.raises(Failure) as caught, sorted_failures("frames"):
            raise error
        return caught.value

    rejection = ScanRejected("depth", expected="a", received="b", do="c")
    assert rejection_in(failure(rejection)) is rejection
    assert rejection_in(failure(ImageUnreadable(0, "x"))) is not None
    assert rejection_in(failure(StageError("x"))) is None
    assert rejection_in(None) is None
