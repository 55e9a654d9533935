"""`geomagic corpus ...`: the known scans that changes are judged on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from geomagic_dagster.cli.common import Seed, plain_errors

corpus_app = typer.Typer(no_args_is_help=True, help="The known scans that changes are judged on.")


@corpus_app.command()
def add(
    path: Annotated[
        Path | None, typer.Argument(help="A scan whose person agreed to research. Without one: a made-up room.")
    ] = None,
    seed: Seed = 1,
    agreed: Annotated[
        bool, typer.Option("--agreed", help="The person agreed to research outside of the scan's own record.")
    ] = False,
) -> None:
    """Take a scan into the corpus; it appears as a partition of every stage's asset."""
    with plain_errors():
        from geomagic_dagster.corpus import scans
        from geomagic_dagster.definitions import places_from

        corpus = Path(places_from(os.environ).corpus)
        if path is None:
            print(scans.add_made_up(seed, corpus))
        else:
            print(scans.add(path, corpus, consent="research" if agreed else None))


@corpus_app.command("list")
def list_corpus() -> None:
    """Name the scans of the corpus."""
    from geomagic_dagster.corpus.scans import names
    from geomagic_dagster.definitions import places_from

    for name in names(Path(places_from(os.environ).corpus)):
        print(name)
