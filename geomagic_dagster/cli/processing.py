"""`geomagic run`, `stages`, `logs`, `drill`, `story`: scans through the stages."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geomagic_dagster.cli.common import Seed, bars, homes, own_name, plain_errors, write_made_up_scan

if TYPE_CHECKING:
    from geomagic_dagster.jobs.local_run import LocalRun

app = typer.Typer()


@app.command()
def run(
    scan: Annotated[
        Path | None, typer.Argument(help="A scan: folder, zip or tar. Without one: a made-up room.")
    ] = None,
    seed: Seed = 1,
    flag: Annotated[list[str] | None, typer.Option(help="A feature flag to turn on; say it again for another.")] = None,
) -> None:
    """Turn a room scan into an AR package, through the Dagster job `process_scan`, in this process."""
    with plain_errors():
        from geomagic_dagster.definitions import defs, home_from
        from geomagic_dagster.jobs.local_run import dagster_home, process_here

        home = home_from(os.environ)
        os.environ.setdefault("DAGSTER_HOME", str(dagster_home(home)))
        if scan is None:
            scan = home / "made-up" / f"room-{seed}"
            if not scan.exists():
                print(f"making up room {seed} and scanning it ...", file=sys.stderr)
                write_made_up_scan(scan, seed, frames=150, clean=False)
        with bars() as report:
            done = process_here(defs, scan.absolute(), report, flags=flag or ())
    print_run(done)
    raise typer.Exit(0 if done.package else 2 if done.is_explained else 1)


@app.command()
def stages() -> None:
    """The journey of a scan: every stage with its inputs, version and deadline; then every setting and its meaning."""
    from rich.console import Console
    from rich.table import Column, Table

    with plain_errors():
        from geomagic_dagster.cv.stage import find_stages

        found = find_stages()
    journey = Table("stage", "takes", "makes", "version", "deadline", "retries", title="the journey of a scan")
    settings = Table("stage", Column("setting", no_wrap=True), "meaning", title="settings")  # no name is cut short
    for each in found:
        deadline = f"{each.timeout_s / 60:g} min"
        takes = ", ".join(each.inputs)
        journey.add_row(each.name, takes, each.returns.__name__, each.version, deadline, str(each.retries))
        for name, field in each.params.model_fields.items():
            settings.add_row(each.name, f"{name} = {field.default}", field.description)
    console = Console()
    console.print(journey)
    console.print(settings)


@app.command()
def story(
    home: Annotated[Path, typer.Option(help="Throwaway folder; must not exist.")],
    uploads: Annotated[int, typer.Option(min=1, help="How many uploads the flight sees.")] = 40,
    wheels: Annotated[
        Path | None, typer.Option(help="A folder of wheels, also filled; what lies there is not downloaded.")
    ] = None,
) -> None:
    """Play the life of three releases with the real thing: cut, approved, flown, taken back; each step is proved."""
    from geomagic_dagster.drill.story import story as tell
    from geomagic_dagster.drill.story_site import StoryFailed
    from geomagic_dagster.jobs.local_run import REPOSITORY

    try:
        told = tell(home.absolute(), REPOSITORY, uploads, lambda line: print(line, flush=True), wheels)
    except StoryFailed as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None
    print(f"told in {told.seconds:.0f} s; every step is proved")


@app.command()
def logs(
    scan: Annotated[str, typer.Option(help="Name of the scan, as in the inbox without its ending.")],
    follow: Annotated[bool, typer.Option(help="Go on until its last run has ended.")] = True,
) -> None:
    """Every line that the runs of a scan logged, as logfmt, while they log it."""
    from dagster import DagsterInstance, RunsFilter

    from geomagic_dagster.guardrails.tags import SCAN_TAG
    from geomagic_dagster.jobs.run_log import lines_of_scan

    homes()
    with DagsterInstance.get() as instance, suppress(KeyboardInterrupt):
        if not instance.get_runs(RunsFilter(tags={SCAN_TAG: scan}), limit=1):
            then = "Waiting for one; Ctrl-C ends that" if follow else "Look at the name"
            print(f"{scan}: expected a run of a scan of this name; got none so far. {then}.", file=sys.stderr)
        for line in lines_of_scan(instance, scan, follow=follow):
            print(line, flush=True)


@app.command()
def drill(
    home: Annotated[Path, typer.Option(help="Throwaway folder; must not exist.")],
    uploads: Annotated[int, typer.Option(min=1, help="How many rooms to upload, good ones and bad ones.")] = 8,
    faults: Annotated[int, typer.Option(min=0, help="How many things to break meanwhile.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Another seed: other moments, other order.")] = 1,
) -> None:
    """Start the real thing, feed it, break it all the while, and count: nothing lost, twice or corrupt."""
    from rich.console import Console
    from rich.table import Table

    from geomagic_dagster.drill.drill import drill as run_drill

    count = run_drill(home.absolute(), uploads, faults, seed, lambda line: print(line, file=sys.stderr, flush=True))
    table = Table("what", "how many", title=f"drill, seed {seed}, {count.seconds:.0f} s")
    for what, number in (
        ("uploads", len(count.uploads)),
        ("packages", count.packages.total()),
        ("rejections", count.rejections.total()),
        ("given up", len(count.given_up)),
        ("still in the inbox", len(count.still_there)),
        ("artefacts, corrupt", f"{count.artefacts}, {len(count.corrupt)}"),
        ("processes left over", len(count.left_over)),
        *((f"fault: {name}", number) for name, number in sorted(count.faults.items())),
    ):
        table.add_row(what, str(number))
    Console().print(table)
    for complaint in count.complaints:
        print(complaint, file=sys.stderr)
    raise typer.Exit(1 if count.complaints else 0)


def print_run(done: LocalRun) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "seconds", "numbers", title=f"process_scan, run {done.run_id[:8]}")
    for step in done.steps:
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in step.numbers.items())
        table.add_row(step.name, "reused" if step.is_reused else f"{step.seconds:.2f}", numbers)
    console = Console()
    if done.steps:
        console.print(table)
    for warning in done.warnings:
        console.print(warning, style="yellow", highlight=False, soft_wrap=True)
    if done.package is None:
        print(done.failure, file=sys.stderr)
    else:
        for file in sorted(done.package.iterdir()):
            console.print(f"  {file}  {file.stat().st_size / 1e6:.2f} MB", highlight=False, soft_wrap=True)
        room = f"The room to turn and measure:  {own_name()} room show {shlex.quote(str(done.package))}"
        console.print(room, highlight=False, soft_wrap=True)
    console.print("The run with its pictures, and the stages as assets:  make ui", highlight=False)
