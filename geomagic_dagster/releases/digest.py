"""What a scan becomes, stage by stage, as digests: to hold one release's results against another's.

Belongs here: a throwaway run of the stages, and the document that every release can print of it (`geomagic digest`).
Releases of different ages read it: it only grows. Does not belong here: comparing (dark_check.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from geomagic_dagster.cv.stage import SOURCE, ScanRejected, Stage, refuse_unknown_flags
from geomagic_dagster.releases.installed import made_by
from geomagic_dagster.resources.reuse import Made, make_or_reuse
from geomagic_dagster.resources.scan_source import read_upload
from geomagic_dagster.resources.store import Artefact, ArtefactStore
from geomagic_dagster.resources.weights import WeightStore, wanted_by

SCHEMA = 1


def digest_scan(
    scan: Path,
    stages: Iterable[Stage],
    *,
    device: str | None = None,
    flags: Iterable[str] = (),
    weights: WeightStore | None = None,
) -> dict[str, Any]:
    """Takes a scan through the stages in a folder that is gone afterwards; all flags are off but those that are named.

    Returns: {"schema", "made_by", "scan", "stages": [{"stage", "identity", "sha256", "files": {name: sha256}}],
    "rejected": why the scan can never be processed, or None}. The files of the stage `package` are what people receive.
    Raises: ScanRejected for a flag that no stage declares, not for the scan; WeightsMissing, WeightsCorrupt.
    """
    stages, flags = list(stages), tuple(flags)
    refuse_unknown_flags(flags)
    if weights is not None:
        weights.fetch(wanted_by(stages))
    log = logging.getLogger("geomagic.digest")
    done: dict[str, Artefact] = {}
    rejected = None
    with tempfile.TemporaryDirectory(prefix="geomagic-digest-") as folder:
        packages = tuple({each.returns.__module__.rpartition(".")[0] for each in stages} | {"geomagic_dagster.cv"})
        store = ArtefactStore(str(Path(folder, "store")), Path(folder, "cache"), packages)

        def keep(made: Made) -> None:
            done[made.artefact.stage] = store.save(made.artefact)

        try:
            keep(read_upload(scan, None, store, log))
            for stage in stages:
                inputs = {name: done[name] for name in stage.inputs}
                settings = stage.params()
                keep(make_or_reuse(stage, inputs, settings, store, log, device=device, flags=flags, weights=weights))
        except ScanRejected as error:
            rejected = str(error)
        described = [_described(store, artefact) for artefact in done.values()]
    name = done[SOURCE].settings["name"] if SOURCE in done else scan.name
    return {"schema": SCHEMA, "made_by": made_by(), "scan": name, "stages": described, "rejected": rejected}


def _described(store: ArtefactStore, artefact: Artefact) -> dict[str, Any]:
    files = store.digests(artefact.stage, artefact.identity)
    content = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return {"stage": artefact.stage, "identity": artefact.identity, "sha256": content, "files": files}
