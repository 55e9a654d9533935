"""What an asset and an op of one stage have in common, which is everything but how Dagster calls them.

The work is done in a process of its own (guardrails/child.py): `make_step` and `read_step` run there, `stage_step`
and `scan_step` are called by the adapters and wait. Only names of artefacts travel, never their values.

Belongs here: one stage, given artefacts and a filled-in form, becomes an artefact and its metadata. Does
not belong here: executing (guardrails/execution.py), deciding whether to (resources/reuse.py).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from logging import Logger
from pathlib import Path
from typing import Any

from dagster import Config, Failure, MetadataValue, OpExecutionContext

from geomagic_dagster.assets.metadata import scan_shown, shown
from geomagic_dagster.cv.stage import SOURCE, Params, Stage, known_flags, report_progress
from geomagic_dagster.guardrails import child
from geomagic_dagster.guardrails.deadlines import Deadline, read_deadline, remaining_s, stage_deadline
from geomagic_dagster.guardrails.execution import numbers_out_of_range
from geomagic_dagster.guardrails.failures import sorted_failures
from geomagic_dagster.guardrails.logs import lines_of, log_everything_as_logfmt, run_fields
from geomagic_dagster.guardrails.progress import ProgressEvents
from geomagic_dagster.guardrails.tags import FLAGS_TAG, RECOMPUTE_TAG, SHADOW_TAG, flags_in
from geomagic_dagster.resources.places import Places
from geomagic_dagster.resources.reuse import make_or_reuse, trusted
from geomagic_dagster.resources.scan_source import read_upload
from geomagic_dagster.resources.shelf import PACKAGE
from geomagic_dagster.resources.store import Artefact
from geomagic_dagster.resources.weights import wanted_by
from geomagic_dagster.viewer.addresses import ARTEFACTS, page_path

_told: set[str] = set()
SHADOW_NICE = 15
"""Added to the niceness of a step that gives way; 19 is the most."""


@dataclass(frozen=True)
class StepRequest:
    """What the process of a step is told."""

    places: dict[str, Any]
    fields: dict[str, str]
    """Of every line that it logs."""
    recompute: bool
    gives_way: bool = False
    """A shadow run: whatever else the machine does goes before."""
    flags: tuple[str, ...] = ()
    """Feature flags that are on in this run."""
    stage: Stage | None = None
    """None for the step that reads an upload."""
    settings: Params | None = None
    inputs: tuple[tuple[str, str, str], ...] = ()
    """(argument, stage, identity) of the artefacts to work on."""
    upload: str = ""
    name: str | None = None


@dataclass(frozen=True)
class StepResult:
    """What it answers: which artefact is in the store now, and what Dagster shows of it."""

    stage: str
    identity: str
    metadata: dict[str, Any]


def stage_step(
    stage: Stage, context: OpExecutionContext, form: Config, places: Places, inputs: Mapping[str, Artefact]
) -> tuple[Artefact, dict[str, Any]]:
    """The artefact of a stage in this run, and what Dagster shows of it.

    Raises: dagster.Failure with a sentence, and whether to try again (guardrails/failures.py).
    """
    request = StepRequest(
        stage=stage,
        settings=stage.params(**form.model_dump()),
        inputs=tuple((name, artefact.stage, artefact.identity) for name, artefact in inputs.items()),
        **_about(context, places),
    )
    return _in_a_child(make_step, request, stage_deadline(stage), context, places)


def scan_step(
    upload: Path, name: str | None, context: OpExecutionContext, places: Places
) -> tuple[Artefact, dict[str, Any]]:
    """The scan of an upload, read and checked, and what Dagster shows of it. Raises: as `stage_step`."""
    request = StepRequest(upload=str(upload), name=name, **_about(context, places))
    return _in_a_child(read_step, request, read_deadline(), context, places)


def _about(context: OpExecutionContext, places: Places) -> dict[str, Any]:
    step_key = context.get_step_execution_context().step.key
    fields = run_fields(context.run_id, context.run.tags, step_key, _attempt(context))
    recompute = context.run.tags.get(RECOMPUTE_TAG) == "true"
    return {
        "places": places.model_dump(),
        "fields": fields,
        "recompute": recompute,
        "gives_way": context.run.tags.get(SHADOW_TAG) == "true",
        "flags": _flags(context),
    }


def _flags(context: OpExecutionContext) -> tuple[str, ...]:
    """The flags of the run that some stage of this release declares; newer ones than this code are told of once."""
    named = flags_in(context.run.tags)
    if (unknown := sorted(set(named) - known_flags())) and context.run_id not in _told:
        _told.clear()  # one run at a time in a process
        _told.add(context.run_id)
        context.log.warning(
            f"{FLAGS_TAG}: expected flags that a stage of this release declares "
            f"({', '.join(sorted(known_flags())) or 'none does'}); got {', '.join(unknown)} too. "
            "Left out: they are of a newer release, or mistyped."
        )
    return tuple(name for name in named if name not in unknown)


def _attempt(context: OpExecutionContext) -> int:
    return context.retry_number + 1


def _in_a_child(
    function: Any, request: StepRequest, deadline: Deadline, context: OpExecutionContext, places: Places
) -> tuple[Artefact, dict[str, Any]]:
    step_key = request.fields["stage"]
    events = ProgressEvents(
        deadline.name,
        lambda sentence, ratio: _show(context, step_key, sentence, {"progress": MetadataValue.float(ratio)}),
    )

    def report(what: str, done: int, total: int | None) -> None:
        report_progress(what, done, total)  # whoever listens in this process: the bars of a terminal
        events.report(what, done, total)

    try:
        with lines_of(request.fields), sorted_failures(request.upload or deadline.name):
            left_s = scan_remaining_s(context)
            if request.stage is not None and request.stage.weights:  # here, which takes nothing of its deadline
                places.weights().fetch(wanted_by([request.stage]), left_s)
                left_s = scan_remaining_s(context)
            deadline = deadline.within(left_s)
            result = child.call(function, request, deadline=deadline, log=context.log, report=report)
            artefact = places.store().find(result.stage, result.identity)
    except Failure as failure:  # Dagster forgets what it says of itself when the step is retried
        said = {**failure.metadata, "attempt": MetadataValue.int(_attempt(context))}
        _show(context, step_key, str(failure.description), said)
        raise
    limits = {"deadline_s": MetadataValue.float(deadline.seconds), "attempt": MetadataValue.int(_attempt(context))}
    return artefact, result.metadata | limits


def scan_remaining_s(context: OpExecutionContext) -> float:
    """What is left of the scan's deadline in this run."""
    record = context.instance.get_run_record_by_id(context.run_id)
    return remaining_s(context.run_id, record.start_time if record is not None else None)


def _show(context: OpExecutionContext, step_key: str, sentence: str, said: Mapping[str, Any]) -> None:
    """An event of the step, at once; Dagster shows no other kind while a step runs."""
    from dagster._core.events import EngineEventData

    context.instance.report_engine_event(sentence, context.run, EngineEventData(metadata=said), step_key=step_key)


# --- in the process of the step ------------------------------------------------------------------


def _begin(request: StepRequest) -> None:
    log_everything_as_logfmt(request.fields)
    if request.gives_way and hasattr(os, "nice"):
        os.nice(SHADOW_NICE)


def make_step(request: StepRequest, log: Logger) -> StepResult:
    """Makes, or finds, the artefact of a stage."""
    assert request.stage is not None and request.settings is not None
    _begin(request)
    places = Places(**request.places)
    store, weights = places.store(), places.weights()
    made = make_or_reuse(
        request.stage,
        {
            argument: trusted(request.stage, stage, identity, store, log, weights)
            for argument, stage, identity in request.inputs
        },
        request.settings,
        store,
        log,
        recompute=request.recompute,
        device=places.device,
        flags=request.flags,
        weights=weights,
    )
    saved = made.artefact if made.artefact.is_saved else store.save(made.artefact)
    picture = request.stage.preview_rgb_hw3(made.artefact.value)
    out_of_range = numbers_out_of_range(request.stage, saved.numbers)
    page_url = places.rooms_url + page_path(ARTEFACTS, saved.identity) if saved.stage == PACKAGE else None
    return StepResult(saved.stage, saved.identity, shown(made, picture, out_of_range, page_url))


def read_step(request: StepRequest, log: Logger) -> StepResult:
    """Reads and checks an upload."""
    _begin(request)
    store = Places(**request.places).store()
    made = read_upload(Path(request.upload), request.name, store, log, recompute=request.recompute)
    if not made.artefact.is_saved:
        store.save(made.artefact)
    return StepResult(SOURCE, made.artefact.identity, scan_shown(made))
