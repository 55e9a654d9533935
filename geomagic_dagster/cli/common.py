"""What several commands need: where things lie, bars, and errors in one sentence.

Belongs here: what two files of commands share. Does not belong here: a command.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

REMEDIES = {
    errno.ENOSPC: "Free some space, or point GEOMAGIC_HOME at another disk.",
    errno.EDQUOT: "Free some of your quota, or point GEOMAGIC_HOME at another disk.",
    errno.EROFS: "Point GEOMAGIC_HOME at a disk that can be written.",
    errno.EACCES: "Point GEOMAGIC_HOME at a folder of your own.",
    errno.EPERM: "Point GEOMAGIC_HOME at a folder of your own.",
}
"""What a person can do about a file that cannot be written."""

Seed = Annotated[int, typer.Option(help="Which made-up room; the same seed gives the same room.")]


def homes() -> tuple[Path, Path]:
    """Dagster's folder and the inbox; every process that is started from here on sees the same."""
    from geomagic_dagster.definitions import home_from, places_from
    from geomagic_dagster.jobs.local_run import dagster_home

    os.environ.setdefault("GEOMAGIC_HOME", str(home_from(os.environ)))
    os.environ.setdefault("DAGSTER_HOME", str(dagster_home(home_from(os.environ))))
    return Path(os.environ["DAGSTER_HOME"]), Path(places_from(os.environ).inbox)


def own_name() -> str:
    """How this command is called from here: by its name, or by its path where the terminal would not find it."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "geomagic" and shutil.which("geomagic") is None else "geomagic"


def console_lacks() -> str:
    """What to install before the console can start; nothing where it can."""
    from importlib.util import find_spec

    missing = [
        name for name in ("django", "gunicorn", "ninja", "axes", "corsheaders", "whitenoise") if find_spec(name) is None
    ]
    if not missing:
        return ""
    return f"console: expected {', '.join(missing)}; got none here. Install: pip install 'geomagic-dagster[console]'"


def write_made_up_scan(out: Path, seed: int, *, frames: int, clean: bool) -> None:
    from dataclasses import replace

    from geomagic_dagster.scans.formats import canonical
    from geomagic_dagster.scans.made_up import CLEAN, PHONE, make_room, scan_room

    options = (CLEAN if clean else PHONE).but(frames=frames)
    canonical.write(replace(scan_room(make_room(seed), options).scan, name=out.name), out)


@contextmanager
def bars() -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar for every long loop of the stages, on a terminal and in a log alike."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bars:
        tasks = {"all": bars.add_task("process_scan", total=None)}

        def report(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done if done >= 0 else total)

        yield report
        bars.update(tasks["all"], total=1, completed=1)


@contextmanager
def plain_errors() -> Iterator[None]:
    """One sentence and exit code 2 for input, disk or a stage's declaration; a bug keeps its traceback."""
    from geomagic_dagster.cv.stage import ScanRejected, StageError

    try:
        yield
    except (ScanRejected, StageError) as error:
        print(error, file=sys.stderr)
    except FileExistsError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        print(f"{error.filename}: expected to write here; got: {error.strerror}. {remedy}", file=sys.stderr)
    else:
        return
    raise typer.Exit(2)
