"""`geomagic ...`: thin commands over the other rooms.

Belongs here: arguments, what a person reads on the screen, exit codes (0 done, 1 failed, 2 the input is not
usable, with one sentence). Does not belong here: anything that a test would call without a terminal.
Everything heavy is imported inside the commands, so that `geomagic --help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="From a phone's room scan to an AR-ready room.")
scan_app = typer.Typer(no_args_is_help=True, help="Look at room scans, and make some up.")
corpus_app = typer.Typer(no_args_is_help=True, help="The known scans that changes are judged on.")
app.add_typer(scan_app, name="scan")
app.add_typer(corpus_app, name="corpus")

Seed = Annotated[int, typer.Option(help="Which made-up room; the same seed gives the same room.")]


@app.command()
def run(
    scan: Annotated[Path | None, typer.Argument(help="A scan: folder, zip or tar. Without one: a made-up room.")] = None,
    seed: Seed = 1,
) -> None:
    """Turn a room scan into an AR package, through the Dagster job `process_scan`, in this process."""
    with _plain_errors():
        from geomagic_dagster.local_run import run_locally

        raise typer.Exit(run_locally(scan, seed))


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="Address to listen on; there is no login in front of it.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the web page.")] = 3000,
) -> None:
    """Dagster's webserver and daemon, with the upload sensor on."""
    with _plain_errors():
        from geomagic_dagster.local_run import serve

        serve(host, port)


@app.command()
def stages() -> None:
    """The journey of a scan: every stage with its inputs, version, deadline and settings."""
    from rich.console import Console
    from rich.table import Table

    from geomagic_dagster.cv.stage import find_stages

    table = Table("stage", "takes", "makes", "version", "deadline", "retries", "settings", title="the journey of a scan")
    for each in find_stages():
        settings = "\n".join(f"{name} = {field.default}" for name, field in each.params.model_fields.items())
        deadline = f"{each.timeout_s / 60:g} min"
        table.add_row(
            each.name, ", ".join(each.inputs), each.returns.__name__, each.version, deadline, str(each.retries), settings
        )
    Console().print(table)


@scan_app.command()
def check(path: Annotated[Path, typer.Argument(help="A scan: folder, zip or tar.")]) -> None:
    """Say on one screen what was found in a scan, what is wrong with it, and what to do."""
    with _plain_errors():
        from rich.console import Console

        from geomagic_dagster.scans.check import check_path, render

        report = check_path(path)
        Console().print(render(report))
        raise typer.Exit(2 if report.errors else 0)


@scan_app.command("make-up")
def make_up(
    out: Annotated[Path, typer.Argument(help="Folder to write the scan into (canonical layout); must not exist.")],
    seed: Seed = 1,
    frames: Annotated[int, typer.Option(min=2, help="How many frames the walk has.")] = 150,
    clean: Annotated[bool, typer.Option("--clean", help="Perfect depth and poses instead of a phone's.")] = False,
) -> None:
    """Make up a furnished room and scan it; the truth is known exactly (see scans/made_up)."""
    with _plain_errors():
        from geomagic_dagster.local_run import write_made_up_scan

        write_made_up_scan(out, seed, frames=frames, clean=clean)
        print(out)


@corpus_app.command()
def add(
    path: Annotated[Path | None, typer.Argument(help="A scan whose owner agreed to research. Without one: a made-up room.")] = None,
    seed: Seed = 1,
) -> None:
    """Take a scan into the corpus; it appears as a partition of every stage's asset."""
    with _plain_errors():
        from geomagic_dagster.corpus.scans import add as add_scan
        from geomagic_dagster.definitions import Places

        print(add_scan(path if path is not None else seed, Places.from_environment()))


@corpus_app.command("list")
def list_corpus() -> None:
    """Name the scans of the corpus."""
    with _plain_errors():
        from geomagic_dagster.corpus.scans import names
        from geomagic_dagster.definitions import Places

        for name in names(Places.from_environment()):
            print(name)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Ends with one sentence and exit code 2 where the input is to blame; a bug keeps its traceback."""
    from geomagic_dagster.cv.stage import ScanRejected

    try:
        yield
    except ScanRejected as rejected:
        print(rejected, file=sys.stderr)
        raise typer.Exit(2) from None
