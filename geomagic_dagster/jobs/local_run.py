"""`process_scan` for one scan, in this process: what `make run` does.

Belongs here: starting the job without a daemon, and reading what it did out of its events. Does not belong
here: what a person sees of it (cli.py). The run appears in the UI like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster import DagsterInstance, Definitions, ExecuteInProcessResult

from geomagic_dagster.cv.stage import SOURCE, ScanRejected, refuse_unknown_flags, report_progress_to
from geomagic_dagster.guardrails.failures import Unavailable
from geomagic_dagster.guardrails.tags import FLAGS_TAG, SCAN_TAG
from geomagic_dagster.guardrails.whole_files import replace_whole
from geomagic_dagster.jobs.process_scan import JOB, PUBLISH
from geomagic_dagster.resources.weights import WeightsCorrupt, WeightsMissing

REPOSITORY = Path(__file__).parents[2]
NO_NUMBERS = ("attempt", "deadline_s", "peak_memory_mb", "seconds")
"""Floats in a step's metadata that say what it cost, not what it made."""

EXPLAINED = (ScanRejected, Unavailable, WeightsMissing, WeightsCorrupt)
"""What is no mistake in the code: its sentence says what to do."""


@dataclass(frozen=True)
class Step:
    name: str
    seconds: float
    numbers: dict[str, float]
    is_reused: bool


@dataclass(frozen=True)
class LocalRun:
    """What became of a scan: a package, or the sentence that says why not."""

    run_id: str
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]
    package: Path | None
    failure: str
    is_explained: bool
    """Whether something of EXPLAINED is to blame, and `failure` is all that a person needs; else it is a bug."""


def dagster_home(home: Path) -> Path:
    """Dagster's own folder, with a copy of the repository's dagster.yaml, since Dagster looks for it there."""
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    default, copied = REPOSITORY / "dagster.yaml", folder / "dagster.yaml"
    if default.is_file() and not (copied.exists() and copied.read_bytes() == default.read_bytes()):
        replace_whole(copied, default.read_bytes())  # another process may read it at this moment
    return folder


def process_here(
    defs: Definitions,
    upload: Path,
    report: Callable[[str, int, int | None], None] | None = None,
    flags: Iterable[str] = (),
) -> LocalRun:
    """Runs the job to its end; `report(what, done, total)` hears of every long loop of the stages.

    Raises: ScanRejected for a feature flag that no stage declares.
    """
    refuse_unknown_flags(flags)
    job = defs.resolve_job_def(JOB)
    run_config: dict[str, Any] = {
        "ops": {SOURCE: {"config": {"upload": str(upload)}}},
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},  # the terminal shows bars and a table instead
    }
    tags = {SCAN_TAG: upload.name} | ({FLAGS_TAG: ",".join(sorted(set(flags)))} if flags else {})
    report_progress_to(report)
    try:
        with DagsterInstance.get() as instance:
            result = job.execute_in_process(run_config=run_config, instance=instance, tags=tags, raise_on_error=False)
    finally:
        report_progress_to(None)
    return _read(result)


def _read(result: ExecuteInProcessResult) -> LocalRun:
    outputs: dict[str, dict[str, Any]] = {}
    steps, warnings, failure, is_explained = [], [], "", False
    for event in result.all_events:
        name = str(event.step_key)
        if event.is_successful_output:
            outputs[name] = {key: value.value for key, value in event.step_output_data.metadata.items()}
            warnings += [str(outputs[name]["out_of_range"])] if "out_of_range" in outputs[name] else []
        elif event.is_step_success:
            numbers = {k: v for k, v in outputs[name].items() if isinstance(v, float) and k not in NO_NUMBERS}
            seconds = event.step_success_data.duration_ms / 1000
            steps.append(Step(name, seconds, numbers, bool(outputs[name].get("reused"))))
        elif event.is_step_failure:
            data = event.step_failure_data
            failure = str(data.user_failure_data.description if data.user_failure_data else data.error_display_string)
            is_explained = any(_is_caused_by(data.error, each.__name__) for each in EXPLAINED)
    package = outputs.get(PUBLISH, {}).get("package")
    return LocalRun(
        run_id=result.run_id,
        steps=tuple(steps),
        warnings=tuple(warnings),
        package=Path(str(package)) if result.success and package else None,
        failure=failure,
        is_explained=is_explained,
    )


def _is_caused_by(error: Any, class_name: str) -> bool:
    """Whether an error that crossed a process border has a class of this name anywhere in its causes."""
    return error is not None and (error.cls_name == class_name or _is_caused_by(error.cause, class_name))
