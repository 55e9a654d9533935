"""Makes an artefact, or reuses the one that is there: same code, settings and inputs, same result.

Belongs here: that decision, for stages and for the scan alike. Does not belong here: how a stage is
executed (guardrails/execution.py), how artefacts are kept (store.py), what Dagster shows of it (assets/).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from geomagic_dagster.cv.stage import SOURCE, Params, Stage, find_stages, flags_on, use_compute_device
from geomagic_dagster.cv.weights import weights_as_inputs, weights_from
from geomagic_dagster.guardrails.execution import Outcome, run_stage
from geomagic_dagster.releases.installed import made_by
from geomagic_dagster.resources.store import Artefact, ArtefactCorrupt, ArtefactStore
from geomagic_dagster.resources.weights import WeightStore


@dataclass(frozen=True, eq=False)
class Made:
    """An artefact, and what its execution told; `outcome` is None where nothing had to be executed."""

    artefact: Artefact
    outcome: Outcome | None


def make_or_reuse(
    stage: Stage,
    inputs: Mapping[str, Artefact],
    settings: Params,
    store: ArtefactStore,
    log: logging.Logger,
    *,
    recompute: bool = False,
    device: str | None = None,
    flags: Iterable[str] = (),
    weights: WeightStore | None = None,
) -> Made:
    """Runs a stage on artefacts, unless its result is in the store. A new result is not saved yet.

    `flags` are those that are on; only those that the stage declares have to do with it. `weights` is where it finds
    the files that it declares.
    """
    on = stage.own_flags(flags)
    input_identities = {name: artefact.identity for name, artefact in inputs.items()}
    identity = stage.identity(settings, input_identities | weights_as_inputs(stage), on)
    if not recompute and (there := reusable(stage.name, identity, store, log)):
        return Made(there, None)
    use_compute_device(device)
    values = {name: artefact.value for name, artefact in inputs.items()}
    if on:
        log.info(f"{stage.name}: with flags on: {', '.join(on)}")
    find = None if weights is None else lambda name: weights.path(stage.weights[name], f"{stage.name}, weights {name}")
    with flags_on(*on, stage=stage), weights_from(find, stage):
        outcome = run_stage(stage, values, settings, log)
    artefact = Artefact(
        stage=stage.name,
        identity=identity,
        get=lambda: outcome.result,
        code_version=stage.code_version,
        settings=settings.model_dump(mode="json"),
        inputs=input_identities,
        numbers=outcome.numbers,
        libraries=dict(stage.libraries),
        flags=on,
        weights=dict(stage.weights),
        made_by=made_by(),
    )
    return Made(artefact, outcome)


def reusable(stage: str, identity: str, store: ArtefactStore, log: logging.Logger) -> Artefact | None:
    """The artefact of this identity, verified; a corrupt one is set aside, so that it is made anew."""
    if not store.saved(stage, identity):
        return None
    try:
        artefact = store.find(stage, identity)
        _ = artefact.value  # verifies every checksum
    except ArtefactCorrupt as error:
        aside = store.set_aside(stage, identity)
        log.warning(f"{error} It is made anew now; the corrupt one lies at {aside}.")
        return None
    log.info(f"{stage}: reused artefact {identity}: same code, settings and inputs")
    return artefact


def trusted(
    asked_by: Stage,
    stage: str,
    identity: str,
    store: ArtefactStore,
    log: logging.Logger,
    weights: WeightStore | None = None,
) -> Artefact:
    """The artefact that a stage asks for, every checksum verified; a corrupt one is made anew from what made it.

    Raises: ArtefactCorrupt where that is not possible: its record is corrupt too, or it is a scan, whose bytes come
    only from the upload.
    """
    artefact = store.find(stage, identity)
    try:
        _ = artefact.value
    except ArtefactCorrupt as error:
        aside = store.set_aside(stage, identity)
        if stage == SOURCE:
            raise ArtefactCorrupt(f"{error} It lies at {aside} now; run the scan again from its beginning.") from error
        log.warning(f"{error} It is made anew now; the corrupt one lies at {aside}.")
    else:
        return artefact
    package = asked_by.function.__module__.rpartition(".")[0]
    maker = next(each for each in find_stages(package) if each.name == stage)
    inputs = {name: trusted(maker, name, of, store, log, weights) for name, of in artefact.inputs.items()}
    settings = maker.params(**artefact.settings)
    made = make_or_reuse(maker, inputs, settings, store, log, flags=artefact.flags, weights=weights)
    if made.artefact.identity != identity:
        raise ArtefactCorrupt(
            f"artefact {stage}/{identity}: expected to make the same anew; got {made.artefact.identity}: its code "
            f"or a library has changed since. Run the step {stage} again."
        )
    return store.save(made.artefact)
