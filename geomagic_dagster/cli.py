"""`geomagic ...`: thin commands over the other rooms.

Belongs here: arguments, what a person reads on the screen, exit codes (0 done, 1 failed, 2 the input is not
usable, with one sentence). Does not belong here: anything that a test would call without a terminal.
Everything heavy is imported inside the commands, so that `geomagic --help` answers at once.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from geomagic_dagster.jobs.local_run import LocalRun

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From a phone's room scan to an AR-ready room.",
)
scan_app = typer.Typer(no_args_is_help=True, help="Look at room scans, and make some up.")
inbox_app = typer.Typer(no_args_is_help=True, help="What waits, and what was put aside.")
corpus_app = typer.Typer(no_args_is_help=True, help="The known scans that changes are judged on.")
app.add_typer(scan_app, name="scan")
room_app = typer.Typer(no_args_is_help=True, help="Look at finished rooms.")
app.add_typer(corpus_app, name="corpus")
app.add_typer(inbox_app, name="inbox")
app.add_typer(room_app, name="room")

REMEDIES = {
    errno.ENOSPC: "Free some space, or point GEOMAGIC_HOME at another disk.",
    errno.EDQUOT: "Free some of your quota, or point GEOMAGIC_HOME at another disk.",
    errno.EROFS: "Point GEOMAGIC_HOME at a disk that can be written.",
    errno.EACCES: "Point GEOMAGIC_HOME at a folder of your own.",
    errno.EPERM: "Point GEOMAGIC_HOME at a folder of your own.",
}
"""What a person can do about a file that cannot be written."""

Seed = Annotated[int, typer.Option(help="Which made-up room; the same seed gives the same room.")]


@app.command()
def run(
    scan: Annotated[
        Path | None, typer.Argument(help="A scan: folder, zip or tar. Without one: a made-up room.")
    ] = None,
    seed: Seed = 1,
) -> None:
    """Turn a room scan into an AR package, through the Dagster job `process_scan`, in this process."""
    with _plain_errors():
        from geomagic_dagster.definitions import defs, home_from
        from geomagic_dagster.jobs.local_run import dagster_home, process_here

        home = home_from(os.environ)
        os.environ.setdefault("DAGSTER_HOME", str(dagster_home(home)))
        if scan is None:
            scan = home / "made-up" / f"room-{seed}"
            if not scan.exists():
                print(f"making up room {seed} and scanning it ...", file=sys.stderr)
                _write_made_up_scan(scan, seed, frames=150, clean=False)
        with _bars() as report:
            done = process_here(defs, scan.absolute(), report)
    _print_run(done)
    raise typer.Exit(0 if done.package else 2 if done.is_explained else 1)


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="Address to listen on; there is no login in front of it.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the web page.")] = 3000,
    rooms_port: Annotated[int, typer.Option(help="Port of the rooms' pages, which Dagster links to.")] = 3001,
    intake_port: Annotated[int, typer.Option(help="Port that uploads are sent to, on this machine only.")] = 3002,
    metrics_port: Annotated[int, typer.Option(help="Port that Prometheus asks, on this machine only.")] = 9464,
) -> None:
    """The whole installation on this machine: webserver, daemon, warm processes, rooms, intake, metrics."""
    from dagster import DagsterInstance

    from geomagic_dagster.jobs.local_run import REPOSITORY
    from geomagic_dagster.launching.serve import Ports, serve

    dagster_home, inbox = _homes()
    inbox.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("GEOMAGIC_ROOMS_URL", f"http://{host}:{rooms_port}")
    with DagsterInstance.get():  # its database is made by one process; two that start at once on a new one collide
        print(
            f"http://{host}:{port}   rooms: http://{host}:{rooms_port}   "
            f"uploads: {inbox} or http://127.0.0.1:{intake_port}/scans/NAME",
            file=sys.stderr,
        )
    serve(REPOSITORY / "workspace.yaml", dagster_home, host, Ports(port, rooms_port, intake_port, metrics_port))


@app.command()
def intake(
    paths: Annotated[list[Path] | None, typer.Argument(help="Scans: folders or archives. They are moved.")] = None,
    listen: Annotated[bool, typer.Option("--listen", help="Stay, and receive uploads by HTTP.")] = False,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 3002,
) -> None:
    """Take uploads in: into the inbox, and their runs started at once. GEOMAGIC_INTAKE_TOKEN guards HTTP."""
    from geomagic_dagster.launching.intake_server import send_path, serve

    dagster_home, inbox = _homes()
    if listen:
        from geomagic_dagster.definitions import release_from

        token = os.environ.get("GEOMAGIC_INTAKE_TOKEN")
        serve(inbox, release_from(os.environ), dagster_home / "workspace.yaml", host, port, token)
        return
    worst = 0
    for path in paths or ():
        if (answer := send_path(dagster_home, path.absolute())) is None:
            print("intake: expected it to be running; got no answer. Start it with: geomagic ui", file=sys.stderr)
            raise typer.Exit(1)
        if "error" in answer:
            print(answer["error"], file=sys.stderr)
            worst = 2
        else:
            print(f"{answer['upload']}  run {answer['run_id'] or 'starts later'}  {answer['status']}")
    raise typer.Exit(worst)


@app.command()
def metrics(
    host: Annotated[str, typer.Option(help="Address to listen on; there is no login in front of it.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page for Prometheus.")] = 9464,
    once: Annotated[bool, typer.Option("--once", help="Print the page once and end.")] = False,
) -> None:
    """Numbers for Prometheus: runs, steps, deadlines, retries, queue, inbox, daemons, disks."""
    with _plain_errors():
        import logging
        import signal
        import threading

        from dagster import DagsterInstance

        from geomagic_dagster.definitions import home_from, places_from
        from geomagic_dagster.jobs.local_run import dagster_home
        from geomagic_dagster.monitoring.exporter import exporter_of, serve
        from geomagic_dagster.monitoring.state import CannotStart

        home = home_from(os.environ)
        os.environ.setdefault("DAGSTER_HOME", str(dagster_home(home)))
        state = home / "metrics" / "state.json"
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        try:
            with DagsterInstance.get() as instance, exporter_of(instance, places_from(os.environ), state) as exporter:
                if once:
                    exporter.look()
                    print(exporter.page(), end="")
                else:
                    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
                    serve(exporter, host, port, stop)
        except CannotStart as error:
            print(error, file=sys.stderr)
            raise typer.Exit(2) from None


@app.command()
def stages() -> None:
    """The journey of a scan: every stage with its inputs, version, deadline and settings."""
    from rich.console import Console
    from rich.table import Table

    from geomagic_dagster.cv.stage import find_stages

    table = Table(
        "stage", "takes", "makes", "version", "deadline", "retries", "settings", title="the journey of a scan"
    )
    for each in find_stages():
        settings = "\n".join(f"{name} = {field.default}" for name, field in each.params.model_fields.items())
        deadline = f"{each.timeout_s / 60:g} min"
        table.add_row(
            each.name,
            ", ".join(each.inputs),
            each.returns.__name__,
            each.version,
            deadline,
            str(each.retries),
            settings,
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


@scan_app.command()
def convert(
    path: Annotated[Path, typer.Argument(help="A scan: folder, zip or tar.")],
    out: Annotated[Path, typer.Argument(help="Folder to write into; must not exist.")],
    to: Annotated[str, typer.Option(help="The format to write, by its name or how that begins: tum.")],
) -> None:
    """Write a scan as another format, and say what that could not hold."""
    with _plain_errors():
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
    with _plain_errors():
        _write_made_up_scan(out, seed, frames=frames, clean=clean)
    print(out)


@inbox_app.command("list")
def list_inbox() -> None:
    """What waits in the inbox, and what was put aside with its reason."""
    from geomagic_dagster.definitions import places_from

    places = places_from(os.environ)
    for folder in (places.inbox, places.failed, places.quarantine):
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


@app.command()
def logs(
    scan: Annotated[str, typer.Option(help="Name of the scan, as in the inbox without its ending.")],
    follow: Annotated[bool, typer.Option(help="Go on until its last run has ended.")] = True,
) -> None:
    """Every line that the runs of a scan logged, as logfmt, while they log it."""
    from dagster import DagsterInstance

    from geomagic_dagster.jobs.run_log import lines_of_scan

    _homes()
    with DagsterInstance.get() as instance, suppress(KeyboardInterrupt):
        for line in lines_of_scan(instance, scan, follow=follow):
            print(line, flush=True)


@room_app.command()
def show(
    package: Annotated[str, typer.Argument(help="The folder of a package, or the name of a published one.")],
    output: Annotated[Path | None, typer.Option(help="Where to write the page; default: beside the package.")] = None,
    is_opened: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
) -> None:
    """Write the page of a room, one HTML file that needs no network, and open it in the browser."""
    with _plain_errors():
        from geomagic_dagster.cv.stage import ScanRejected
        from geomagic_dagster.viewer.folders import package_at
        from geomagic_dagster.viewer.page import room_page

        folder = Path(package)
        if not folder.is_dir():
            from geomagic_dagster.definitions import places_from

            folder = Path(places_from(os.environ).packages) / package
        if not folder.is_dir():
            raise ScanRejected(
                package,
                expected="the folder of a package, or the name of one",
                received=f"no such folder here or in {folder.parent}",
                do="`geomagic run` makes a package of a scan and prints its folder.",
            )
        folder = folder.resolve()
        page = (output or folder.with_name(f"{folder.name}.html")).absolute()
        content = room_page(package_at(folder), folder.name)
        try:
            page.write_bytes(content)
        except OSError as error:
            do = "Name another place with --output."
            raise ScanRejected(
                str(page), expected="to write here", received=str(error.strerror or error), do=do
            ) from error
    print(page)
    if is_opened:
        import webbrowser

        if not webbrowser.open(page.as_uri()):
            print("No browser could be started here: open this file in one.", file=sys.stderr)


@room_app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; there is no login in front of it.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 3001,
) -> None:
    """Serve the pages of finished rooms to this machine's browsers; `geomagic ui` does so too."""
    from geomagic_dagster.definitions import places_from
    from geomagic_dagster.resources.shelf import StoreShelf
    from geomagic_dagster.viewer.addresses import ARTEFACTS, PACKAGES
    from geomagic_dagster.viewer.folders import PackageFolder
    from geomagic_dagster.viewer.server import room_server

    places = places_from(os.environ)
    shelves = {PACKAGES: PackageFolder(Path(places.packages)), ARTEFACTS: StoreShelf(places.store())}
    try:
        server = room_server(shelves, host, port)
    except OSError as error:
        reason = f"expected a free port for the pages of rooms; got: {error.strerror or error}"
        print(f"{host}:{port}: {reason}. Is `geomagic ui` running already? Choose another port.", file=sys.stderr)
        raise typer.Exit(2) from None
    with server:
        print(f"http://{host}:{server.server_address[1]}   rooms: {places.packages}", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


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
    with _plain_errors():
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


def _homes() -> tuple[Path, Path]:
    """Dagster's folder and the inbox; every process that is started from here on sees the same."""
    from geomagic_dagster.definitions import home_from, places_from
    from geomagic_dagster.jobs.local_run import dagster_home

    os.environ.setdefault("GEOMAGIC_HOME", str(home_from(os.environ)))
    os.environ.setdefault("DAGSTER_HOME", str(dagster_home(home_from(os.environ))))
    return Path(os.environ["DAGSTER_HOME"]), Path(places_from(os.environ).inbox)


def _write_made_up_scan(out: Path, seed: int, *, frames: int, clean: bool) -> None:
    from dataclasses import replace

    from geomagic_dagster.scans.formats import canonical
    from geomagic_dagster.scans.made_up import CLEAN, PHONE, make_room, scan_room

    options = (CLEAN if clean else PHONE).but(frames=frames)
    canonical.write(replace(scan_room(make_room(seed), options).scan, name=out.name), out)


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int | None], None]]:
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


def _print_run(done: LocalRun) -> None:
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
        room = f"The room to turn and measure:  geomagic room show {shlex.quote(str(done.package))}"
        console.print(room, highlight=False, soft_wrap=True)
    console.print("The run with its pictures, and the stages as assets:  make ui", highlight=False)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Ends with one sentence and exit code 2 where the input or the disk is to blame; a bug keeps its traceback."""
    from geomagic_dagster.cv.stage import ScanRejected

    try:
        yield
    except ScanRejected as rejected:
        print(rejected, file=sys.stderr)
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


if __name__ == "__main__":
    app()
