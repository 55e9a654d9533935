"""`geomagic inbox ...`: what waits, and what was put aside."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

inbox_app = typer.Typer(no_args_is_help=True, help="What waits, and what was put aside.")


@inbox_app.command("list")
def list_inbox() -> None:
    """What waits in the inbox, and what was put aside with its reason."""
    from geomagic_dagster.definitions import places_from

    places = places_from(os.environ)
    folders = (places.inbox, places.failed, places.quarantine)
    if not any(any(Path(folder).glob("[!.]*")) for folder in folders):
        print(f"nothing waits in {places.inbox}, and nothing was put aside", file=sys.stderr)
    for folder in folders:
        for path in sorted(Path(folder).glob("[!.]*")):
            reason = path / "reason.txt"
            print(path, reason.read_text(encoding="utf-8").strip() if reason.is_file() else "", sep="\t")


@inbox_app.command()
def retry(
    names: Annotated[
        list[str] | None, typer.Argument(help="Uploads that the platform failed on; default: all.")
    ] = None,
) -> None:
    """Put uploads that the platform failed on back into the inbox, after what was wrong was mended."""
    from geomagic_dagster.definitions import places_from
    from geomagic_dagster.jobs.inbox import take_back

    places = places_from(os.environ)
    failed = Path(places.failed)
    for name in names or sorted(path.name for path in failed.glob("[!.]*")):
        try:
            print(take_back(failed / name, Path(places.inbox)))
        except FileNotFoundError as error:
            print(f"{error.filename}: {error.strerror}. See: geomagic inbox list", file=sys.stderr)
            raise typer.Exit(2) from None
