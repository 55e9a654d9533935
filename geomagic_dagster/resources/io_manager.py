"""Hands artefacts from step to step: a thin layer of Dagster over the store.

What travels is an `Artefact`: its identity, and a value that is read when asked for. Belongs here: which
pointer a step writes and which one the next step follows. Does not belong here: files, checksums, nouns.
"""

from contextlib import suppress

from dagster import (
    ConfigurableIOManager,
    DagsterInvariantViolationError,
    InputContext,
    OutputContext,
    ResourceDependency,
)

from geomagic_dagster.guardrails.failures import Broken, sorted_failures
from geomagic_dagster.resources.places import Places
from geomagic_dagster.resources.store import Artefact

NO_STEP = "none"
"""What Dagster calls the step of an asset that is loaded, but not made, in a run."""


class ArtefactIOManager(ConfigurableIOManager):
    """Saves what steps make, and finds what the step before made: in this run, in the run that it re-executes
    from failure, or, for an asset, whenever its partition was materialized last."""

    places: ResourceDependency[Places]

    def handle_output(self, context: OutputContext, obj: Artefact) -> None:
        store = self.places.store()
        with sorted_failures(context.step_key):
            artefact = obj if obj.is_saved else store.save(obj)
            for name in _names(context, context):
                store.point(name, artefact)

    def load_input(self, context: InputContext) -> Artefact:
        store = self.places.store()
        names = _names(context, context.upstream_output)
        what = context.name if context.has_input_name else context.asset_key.to_user_string()
        with sorted_failures(what):
            for name in names:
                if artefact := store.pointed(name):
                    return artefact
            raise Broken(
                f"input {what}: expected a saved artefact; got none under "
                f"{' or '.join('/'.join(name) for name in names)} in {store.url}. Run the step {what} first."
            )


def _names(context: InputContext | OutputContext, maker: OutputContext | None) -> list[tuple[str, ...]]:
    """Under which names the artefact of a step is remembered; that of the run goes before that of the partition,
    so that two runs of one partition at the same time never mix."""
    names: list[tuple[str, ...]] = []
    with suppress(DagsterInvariantViolationError):  # Dagster's way to say that no run of this lineage made it
        if maker is not None and maker.step_key != NO_STEP:
            names.append(("runs", maker.run_id, maker.step_key))
    if context.has_asset_key:
        names.append(("assets", *context.asset_key.path, context.asset_partition_key))
    return names
