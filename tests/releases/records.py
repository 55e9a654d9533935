"""Records of releases that were never cut: as much of them as tests of weights look at."""

from __future__ import annotations

import json
from pathlib import Path

from geomagic_dagster.releases.record import Release, with_hashes, write_release


def write_record(folder: Path, version: str, **weights: dict[str, str]) -> Path:
    """A record whose manifest has these stages, each with its weights."""
    folder.mkdir(parents=True)
    stages = [{"name": stage, "weights": digests} for stage, digests in weights.items()]
    (folder / "manifest.json").write_text(json.dumps({"stages": [{"name": "of_old"}, *stages]}))
    for name in ("requirements.lock", f"geomagic_dagster-{version}-py3-none-any.whl"):
        (folder / name).touch()
    release = Release(
        line=version.rpartition(".")[0], version=version, commit="c" * 40, branch="main", cut_by="Ada Byron",
        cut_at="2026-11-21T10:00:00+00:00", python="3.11.7",
    )  # fmt: skip
    write_release(with_hashes(release, folder), folder)
    return folder
