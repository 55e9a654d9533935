"""`geomagic scan ...`: look at room scans, and make some up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from geomagic_dagster.cli.common import Seed, plain_errors, write_made_up_scan

scan_app = typer.Typer(no_args_is_help=True, help="Look at room scans, and make some up.")


@scan_app.command()
def check(path: Annotated[Path, typer.Argument(help="A scan: folder, zip or tar.")]) -> None:
    """Say on one screen what was found in a scan, what is wrong with it, and what to do."""
    with plain_errors():
        from rich.console import Console

        from geomagic_dagster.scans.check import check_path, render

        report = check_path(path)
        Console().print(render(report))
        raise typer.Exit(2 if report.errors else 0)


@scan_app.command()
def convert(
    path: Annotated[Path, typer.Argument(help="A scan: folder, zip or tar.")],
    out: Annotated[Path, typer.Argument(help="Folder to write into; must not exist.")],
    to: Annotated[str, typer.Option(help="The format to write, by its name or how that begins: tum.")],
) -> None:
    """Write a scan as another format, and say what that could not hold."""
    with plain_errors():
        from geomagic_dagster.scans.convert import convert as convert_scan

        for remark in convert_scan(path, out, to):
            print(remark, file=sys.stderr)
    print(out)


@scan_app.command("make-up")
def make_up(
    out: Annotated[Path, typer.Argument(help="Folder to write the scan into (canonical layout); must not exist.")],
    seed: Seed = 1,
    frames: Annotated[int, typer.Option(min=2, help="How many frames the walk has.")] = 150,
    clean: Annotated[bool, typer.Option("--clean", help="Perfect depth and poses instead of a phone's.")] = False,
) -> None:
    """Make up a furnished room and scan it; the truth is known exactly (see scans/made_up)."""
    with plain_errors():
        write_made_up_scan(out, seed, frames=frames, clean=clean)
    print(out)
