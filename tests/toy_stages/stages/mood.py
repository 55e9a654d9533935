"""A stage that fails as it is told to: in passing, for ever, or as only native code can."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import threading
import time
from pathlib import Path

from geomagic_dagster.cv.stage import Field, Params, ScanRejected, minutes, progress, stage
from tests.toy_stages.stages.nouns import Mood, Shades


class MoodParams(Params):
    passing_failures: int = Field(0, ge=0, description="Fail so often before it works; counted in $TOY_CALLS.")
    rejects: bool = Field(False, description="Say that the scan can never work.")
    trouble: str = Field("", description="What goes wrong, one of TROUBLES.")
    troubles: int = Field(1, ge=0, description="How often that goes wrong; counted in $TOY_CALLS.")
    slow_s: float = Field(0.0, ge=0, description="Take so long, in a hundred rounds.")


def hang_with_the_lock() -> None:
    """In C, which holds the interpreter's lock and looks for no signal."""
    sum(itertools.repeat(0, 10**13))


def hang_in_vain() -> None:
    """And does not let itself be told to end."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            time.sleep(60)
        except Exception:
            continue


def leak_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(600,), name="forgotten").start()


def full_gpu() -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


TROUBLES = {
    "hang": lambda: time.sleep(60),
    "hang with the lock": hang_with_the_lock,
    "hang in vain": hang_in_vain,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "crash": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(3),
    "bug": lambda: {}["no such key"],
    "full GPU": full_gpu,
    "thread": leak_a_thread,
    "nothing": lambda: None,
}


@stage(version="1", timeout=minutes(2), retries=2, gpu=True, owner="team:toys")
def mood(shades: Shades, params: MoodParams) -> Mood:
    calls = Path(os.environ.get("TOY_CALLS", os.devnull))
    if calls.exists() and calls.is_file():
        calls.write_text(calls.read_text() + "x")
    count = len(calls.read_text()) if calls.is_file() else 1
    if params.rejects:
        raise ScanRejected("mood", expected="a merry room", received="a sad one", do="Scan another room.")
    if calls.is_file() and count <= params.passing_failures:
        raise TimeoutError("the storage did not answer")
    if params.trouble and count <= params.troubles:
        TROUBLES[params.trouble]()
    for _ in progress(range(100), "thoughts"):
        time.sleep(params.slow_s / 100)
    score = float("nan") if params.trouble == "nothing" else float(shades.brightness_b.sum())
    return Mood(shades=shades, score=score)


def measure_mood(mood: Mood) -> dict[str, float]:
    return {"score": mood.score}
