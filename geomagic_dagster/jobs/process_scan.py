"""`process_scan`: an upload through every stage to a package, as product traffic runs it.

Belongs here: the adapter from `@stage` to `@op`, the two hand-written ops around the stages (`scan` reads
the upload, `publish` hands out the package), and the hook that moves a rejected upload aside. Does not
belong here: anything about one stage; how uploads are moved (inbox.py) and packages published (publishing.py).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dagster import (
    Config,
    DependencyDefinition,
    ExecutorDefinition,
    GraphDefinition,
    HookContext,
    HookDefinition,
    In,
    JobDefinition,
    MetadataValue,
    Nothing,
    OpDefinition,
    OpExecutionContext,
    Out,
    Output,
    failure_hook,
    in_process_executor,
    op,
)
from pydantic import Field

from geomagic_dagster.assets.settings import settings_form
from geomagic_dagster.assets.steps import scan_remaining_s, scan_step, stage_step
from geomagic_dagster.cv.stage import SOURCE, Stage, StageError
from geomagic_dagster.guardrails import deadlines
from geomagic_dagster.guardrails.failures import bug_in, disk_in_words, rejection_in, sorted_failures
from geomagic_dagster.guardrails.retries import retry_policy
from geomagic_dagster.guardrails.tags import (
    DEADLINE_TAG,
    MAX_RUNTIME_TAG,
    RELEASE_TAG,
    SHADOW_TAG,
    TAKEN_BACK_TAG,
    UPLOAD_KEY_TAG,
    VERSION_TAG,
    route_in,
)
from geomagic_dagster.guardrails.words import plain
from geomagic_dagster.jobs.assignments import TakenBack, begin, forget
from geomagic_dagster.jobs.inbox import move_aside, move_to_done, was_touched
from geomagic_dagster.jobs.publishing import publish_package
from geomagic_dagster.releases.installed import made_by
from geomagic_dagster.resources.places import Places
from geomagic_dagster.resources.shelf import PACKAGE
from geomagic_dagster.resources.store import Artefact
from geomagic_dagster.resources.weights import wanted_by
from geomagic_dagster.viewer.addresses import PACKAGES, page_path

JOB = "process_scan"
PUBLISH = "publish"


class Upload(Config):
    """What to process."""

    upload: str = Field(description="Path of the uploaded folder or archive.")


def process_scan_job(
    stages: Iterable[Stage], release: str, executor: ExecutorDefinition = in_process_executor
) -> JobDefinition:
    """The job: scan, every stage, publish. An op has the name of its stage.

    By default the steps of a run stand in its one process, which only waits: each does its work in a process of its
    own all the same, so that a crash ends one step, not the run (guardrails/child.py).
    """
    by_name = {stage.name: stage for stage in stages}
    if PACKAGE not in by_name:
        raise StageError(f"{JOB}: expected a stage {PACKAGE!r}, whose files are published; got {', '.join(by_name)}.")
    deadlines.check_nesting(by_name.values(), deadlines.SCAN)
    graph = GraphDefinition(
        name=JOB,
        description="An upload through every stage to a package.",
        node_defs=[
            scan_op(release, wanted_by(by_name.values())),
            *map(stage_op, by_name.values()),
            publish_op(release),
        ],
        dependencies={
            **{stage.name: {name: DependencyDefinition(name) for name in stage.inputs} for stage in by_name.values()},
            PUBLISH: {SOURCE: DependencyDefinition(SOURCE), PACKAGE: DependencyDefinition(PACKAGE)},
        },
    )
    return graph.to_job(
        name=JOB,
        tags={
            RELEASE_TAG: release,
            **({VERSION_TAG: version} if (version := made_by().get("version")) else {}),
            DEADLINE_TAG: f"{deadlines.SCAN.seconds:g}",
            MAX_RUNTIME_TAG: f"{deadlines.RUN_S:.0f}",
        },
        hooks={put_aside()},
        executor_def=executor,
    )


def stage_op(stage: Stage) -> OpDefinition:
    form = settings_form(stage)

    @op(
        name=stage.name,
        description=stage.description,
        ins={name: In() for name in stage.inputs},
        out=Out(),
        code_version=stage.code_version,
        retry_policy=retry_policy(stage.retries),
        tags={"kind": "gpu" if stage.gpu else "python"},
    )
    def execute(
        context: OpExecutionContext,
        config: form,  # pyright: ignore[reportInvalidTypeForm] - a class made from the stage's Params
        places: Places,
        **inputs: Artefact,
    ) -> Output[Any]:
        artefact, metadata = stage_step(stage, context, config, places, inputs)
        return Output(artefact, metadata=metadata)

    return execute


def scan_op(release: str, weights: Mapping[str, str]) -> OpDefinition:
    """`weights`: digests that the stages of the job need, and which stage each (resources/weights.py)."""

    @op(name=SOURCE, description="Reads and checks the upload.", out=Out(), retry_policy=retry_policy(2))
    def scan(context: OpExecutionContext, config: Upload, places: Places) -> Output[Any]:
        with sorted_failures(SOURCE):
            begin_run(context, places, release)
            if weights:  # a customer must not wait for ten minutes to learn that one is missing
                places.weights().fetch(weights, scan_remaining_s(context))
        artefact, metadata = scan_step(Path(config.upload), None, context, places)
        return Output(artefact, metadata=metadata)

    return scan


def publish_op(release: str) -> OpDefinition:
    @op(
        name=PUBLISH,
        description="Hands out the package and moves the upload from the inbox to done.",
        ins={SOURCE: In(), PACKAGE: In()},
        out=Out(Nothing),
        retry_policy=retry_policy(2),
    )
    def publish(context: OpExecutionContext, places: Places, **inputs: Artefact) -> Output[None]:
        upload, inbox = upload_of(context.run.run_config), Path(places.inbox)
        if context.run.tags.get(SHADOW_TAG) == "true":
            return Output(None, metadata={"shadow": True, "upload": str(upload)})
        with sorted_failures(PUBLISH):
            begin_run(context, places, release)  # also where a person has started only this step anew
            with disk_in_words(f"packages in {places.packages}", "room to write them"):
                folder = publish_package(
                    inputs[PACKAGE],
                    inputs[SOURCE],
                    Path(places.packages),
                    run_id=context.run_id,
                    release=release,
                    route=route_in(context.run.tags),
                )
            if was_touched(upload, inbox, context.run.tags.get(UPLOAD_KEY_TAG)):
                context.log.warning(
                    f"{upload} changed after it was taken from the inbox; the package is of what was read then, and "
                    "what lies there now is taken up as another upload"
                )
                moved_to = None
            else:
                with disk_in_words(f"{upload}", f"to move it to {places.done}"):
                    moved_to = move_to_done(upload, inbox, Path(places.done))
                    forget(inbox, context.run.tags.get(UPLOAD_KEY_TAG, ""))
        metadata = {
            "room": MetadataValue.url(places.rooms_url + page_path(PACKAGES, folder.name)),
            "package": MetadataValue.path(folder),
            "upload": str(moved_to or upload),
        }
        return Output(None, metadata=metadata)

    return publish


def begin_run(context: OpExecutionContext, places: Places, release: str) -> None:
    """Makes sure that the upload in the inbox still belongs to this run. Raises: TakenBack."""
    run = context.run
    if (key := run.tags.get(UPLOAD_KEY_TAG)) is None or run.tags.get(SHADOW_TAG) == "true":
        return

    def is_alive(run_id: str) -> bool:
        other = context.instance.get_run_by_id(run_id)
        return other is not None and not other.is_finished

    try:
        begin(upload_of(run.run_config), Path(places.inbox), key, release, run.run_id, is_alive)
    except TakenBack:
        context.instance.add_run_tags(run.run_id, {TAKEN_BACK_TAG: "true"})
        raise


def put_aside() -> HookDefinition:
    """Moves the upload of a rejected scan to quarantine, and one that met a bug to failed. A passing failure leaves it
    where it is: it is taken up again (attempts.py)."""

    @failure_hook(name="put_aside", required_resource_keys={"places"})
    def hook(context: HookContext) -> None:
        rejection, bug = rejection_in(context.op_exception), bug_in(context.op_exception)
        run = context.instance.get_run_by_id(context.run_id)
        if run is None or not (rejection or bug) or run.tags.get(SHADOW_TAG) == "true":
            return
        places: Places = context.resources.places
        upload, inbox = upload_of(run.run_config), Path(places.inbox)
        if was_touched(upload, inbox, run.tags.get(UPLOAD_KEY_TAG)):
            context.log.warning(f"{upload} changed after it was taken from the inbox; it is taken up again")
            return
        if rejection:
            folder, reason = places.quarantine, plain(str(rejection))
        else:
            folder, reason = places.failed, f"{bug} Run {context.run_id}. When it is mended: geomagic inbox retry."
        if moved_to := move_aside(upload, inbox, Path(folder), reason):
            forget(inbox, run.tags.get(UPLOAD_KEY_TAG, ""))
            context.log.error(f"{reason} The upload lies in {moved_to}, with this sentence in reason.txt.")

    return hook


def upload_of(run_config: Mapping[str, Any]) -> Path:
    """The upload that a run is about."""
    return Path(run_config["ops"][SOURCE]["config"]["upload"])
