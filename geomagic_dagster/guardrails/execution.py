"""The one place where a stage is executed: a check of what came back, the numbers, the expected ranges, its cost.

Belongs here: what every stage gets for free from the process that it runs in. Does not belong here: that process and
its deadlines (child.py), where inputs come from and where the result goes.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from geomagic_dagster.cv.stage import Params, Stage, StageError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one execution of a stage gave."""

    result: Any
    numbers: dict[str, float]
    seconds: float
    peak_memory_mb: float
    """Most memory that the process held during the stage, all of the process and mapped files included."""
    out_of_range: tuple[str, ...]
    """A sentence for every number outside of the range that the stage expects."""


def run_stage(stage: Stage, inputs: Mapping[str, Any], settings: Params, log: logging.Logger) -> Outcome:
    """Calls the stage's function. Raises: whatever the stage raises; StageError for a result of another type."""
    arguments = dict(inputs)
    if "params" in inspect.signature(stage.function).parameters:
        arguments["params"] = settings
    result, seconds, peak_memory_mb = measured(lambda: stage.function(**arguments))
    if not isinstance(result, stage.returns):
        raise StageError(
            f"stage {stage.name}: expected it to return {stage.returns.__name__}, as it declares; "
            f"got {type(result).__name__}. Make the two agree."
        )
    numbers = stage.measure(result)
    out_of_range = numbers_out_of_range(stage, numbers)
    for sentence in out_of_range:
        log.warning(sentence)
    log.info(f"{stage.name}: {seconds:.2f} s, at most {peak_memory_mb:.0f} MB")
    return Outcome(result, numbers, seconds, peak_memory_mb, out_of_range)


def measured(call: Callable[[], T]) -> tuple[T, float, float]:
    """What a call gives, its seconds, and the most memory in MB that the process held meanwhile."""
    gc.collect()  # what earlier stages left behind is not this one's memory
    _forget_peak_memory()
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started, _peak_memory_mb()


def numbers_out_of_range(stage: Stage, numbers: Mapping[str, float]) -> tuple[str, ...]:
    """A sentence for every number outside of its expected range, or that could not be measured in this scan."""
    sentences = [
        f"{stage.name}: expected {name} to be a number; got {value}. Mend measure_{stage.name}: it is left out."
        for name, value in numbers.items()
        if not math.isfinite(value) and name not in stage.expects
    ]
    given = f"measure_{stage.name} gave {', '.join(numbers)}" if numbers else f"No measure_{stage.name} gave a number"
    for name, (low, high) in stage.expects.items():
        received = f"{numbers[name]:g}." if name in numbers else f"nothing that could be measured. {given}."
        if not is_in_range(numbers.get(name), low, high):
            sentences.append(
                f"{stage.name}: expected {name} of {low:g} to {high:g}; got {received} Look at its picture."
            )
    return tuple(sentences)


def is_in_range(number: float | None, low: float, high: float) -> bool:
    """Whether a number was measured and lies between two others; NaN lies nowhere."""
    return number is not None and low <= number <= high


def _forget_peak_memory() -> None:
    """Linux counts a process's peak since it was last told to forget it; elsewhere the peak is that of the process."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # some sandboxes do not have it: then, too, it is that of the process
            Path("/proc/self/clear_refs").write_text("5")


def _peak_memory_mb() -> float:
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS
