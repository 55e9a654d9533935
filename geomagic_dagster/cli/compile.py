"""`geomagic compile`: the stages as one document, and what changed since a release."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from geomagic_dagster.cli.common import plain_errors

app = typer.Typer()


@app.command("compile")
def compile_stages(
    output: Annotated[Path | None, typer.Option(help="Write the manifest here; without it: to the screen.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail where the file of --output is not up to date.")
    ] = False,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Say in words what changed between two: a release (1.0), latest, a manifest's file."),
    ] = None,
    lock: Annotated[
        Path | None, typer.Option(help="The dependency lock; default: requirements.lock of the checkout.")
    ] = None,
    releases: Annotated[
        Path | None, typer.Option(help="Where releases are recorded; default: releases/ of the checkout.")
    ] = None,
) -> None:
    """Compile the stages to a manifest: what is reviewed, approved and locked. Fails where they do not fit together."""
    from geomagic_dagster.cv.stage import StageError, find_stages
    from geomagic_dagster.releases.diff import diff_in_words
    from geomagic_dagster.releases.installed import LATEST
    from geomagic_dagster.releases.manifest import (
        REPOSITORY,
        Manifest,
        compile_manifest,
        newest_manifest,
        read_manifest,
        recorded_manifest,
        to_json,
    )

    recorded = releases or REPOSITORY / "releases"
    default_lock = REPOSITORY / "requirements.lock"
    locked = lock or (default_lock if default_lock.is_file() else None)

    def compiled(newest: Manifest | None) -> Manifest:
        return compile_manifest(find_stages(), locked, newest=newest)

    try:
        if diff is not None:
            old, new = (compiled(None) if name == LATEST else recorded_manifest(name, recorded) for name in diff)
            for line in diff_in_words(old, new) or ["nothing changed"]:
                print(line)
            return
        manifest = compiled(newest_manifest(recorded))
        before = read_manifest(output) if check and output is not None else manifest
    except StageError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None
    if before["sha256"] != manifest["sha256"]:
        print(f"{output}: expected what the stages compile to; got another manifest:", file=sys.stderr)
        for line in diff_in_words(before, manifest):
            print(f"  {line}", file=sys.stderr)
        print(f"`geomagic compile --output {output}` writes it anew.", file=sys.stderr)
        raise typer.Exit(1)
    if output is None and not check:
        print(to_json(manifest), end="")
        return
    if output is not None and not check:
        with plain_errors():
            output.absolute().parent.mkdir(parents=True, exist_ok=True)
            output.write_text(to_json(manifest), encoding="utf-8")
    stages = ", ".join(f"{each['name']} {each['version']}" for each in manifest["stages"])
    flags = ", ".join(manifest["flags"]) or "none"
    print(f"{manifest['sha256'][:12]}: {stages}; flags: {flags}")
