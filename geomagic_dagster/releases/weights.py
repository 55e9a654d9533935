"""The trained weights of releases: which of them use which, and whether they are there.

The record of a release holds the digests of its weights (manifest.json), never the files: these lie in the place that
all releases and latest share.

Belongs here: digests out of manifests, and what a missing file means for a release, in words. Does not belong here:
the files (resources/weights.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geomagic_dagster.cv.stage import Stage
from geomagic_dagster.guardrails.failures import sort_failure
from geomagic_dagster.releases.installed import LATEST
from geomagic_dagster.releases.record import HISTORY, MANIFEST, RELEASE, ReleaseError, read_release, released
from geomagic_dagster.resources.weights import WeightStore


def wanted_by_release(record: Path) -> dict[str, str]:
    """Every digest that the manifest of a record names, and who uses it, in words. Raises: ReleaseError."""
    users: dict[str, list[str]] = {}
    for stage, name, digest in _declared(record):
        users.setdefault(digest, []).append(f"stage {stage}, weights {name}")
    return {digest: " and ".join(of) for digest, of in users.items()}


def bring_here(record: Path, weights: WeightStore) -> Path:
    """Makes sure that the weights of a release are on this machine, each verified; returns the folder.

    Raises: ReleaseError where one is missing, is not what its digest says, or the store does not answer.
    """
    with _in_words(record):
        weights.fetch(wanted_by_release(record))
    return weights.here


def check(record: Path, weights: WeightStore) -> int:
    """Reads the weights of a release again, every byte; returns how many files. Raises: as `bring_here`."""
    wanted = wanted_by_release(record)
    for digest, of in wanted.items():
        with _in_words(record):
            weights.check(digest, of)
    return len(wanted)


def uses(records: Path, stages: Iterable[Stage]) -> dict[str, list[str]]:
    """Digest -> all that use it: latest's stages, and those of every recorded release, former versions too."""
    found: dict[str, list[str]] = {}
    for stage in stages:
        for name, digest in sorted(stage.weights.items()):
            found.setdefault(digest, []).append(f"{LATEST} {stage.name}: {name}")
    for release in released(records):
        line = records / release.line
        for folder in [line, *sorted(each.parent for each in line.glob(f"{HISTORY}/*/{RELEASE}"))]:
            version = read_release(folder).version
            for stage, name, digest in _declared(folder):
                found.setdefault(digest, []).append(f"{version} {stage}: {name}")
    return found


def _declared(record: Path) -> Iterator[tuple[str, str, str]]:
    """(stage, name, digest) of a record's manifest."""
    path = record / MANIFEST
    try:
        stages: list[Mapping[str, Any]] = json.loads(path.read_bytes())["stages"]
        for stage in stages:
            for name, digest in sorted(stage.get("weights", {}).items()):
                yield str(stage["name"]), name, digest
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseError(
            path, expected="the manifest of a release", received=repr(error), do="Restore it from git."
        ) from error


@contextmanager
def _in_words(record: Path) -> Iterator[None]:
    """What is wrong with weights, said of the release that needs them. Raises: ReleaseError."""
    try:
        yield
    except Exception as error:
        known = sort_failure(error, "weights")
        if known.kind == "bug":
            raise
        raise ReleaseError(
            f"release {read_release(record).version}",
            expected="its weights, each as its digest says",
            received=known.sentence.rstrip("."),
            do="Then say it again.",
        ) from error
