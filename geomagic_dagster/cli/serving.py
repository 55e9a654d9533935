"""`geomagic ui`, `intake`, `metrics`: what stays running."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from geomagic_dagster.cli.common import console_lacks, homes, plain_errors

app = typer.Typer()


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="Address to listen on; there is no login in front of it.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the web page; the others move as far as it does.")] = 3000,
    rooms_port: Annotated[int | None, typer.Option(help="Port of the rooms' pages.  [default: 3001]")] = None,
    intake_port: Annotated[
        int | None, typer.Option(help="Port that uploads are sent to, on this machine only.  [default: 3002]")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port that Prometheus asks, on this machine only.  [default: 9464]")
    ] = None,
    console_port: Annotated[
        int | None, typer.Option(help="Port of the console; 0: without it.  [default: 3003]")
    ] = None,
    workspace: Annotated[
        Path | None, typer.Option(help="The list of code locations; default: workspace.yaml of the checkout.")
    ] = None,
    gate: Annotated[
        str | None, typer.Option(help="Name of this installation behind nginx: https://NAME. See deploy/gate.")
    ] = None,
) -> None:
    """The whole installation on this machine: webserver, daemon, warm processes, rooms, intake, metrics, console."""
    from dagster import DagsterInstance

    from geomagic_dagster.definitions import home_from, places_from
    from geomagic_dagster.jobs.local_run import REPOSITORY
    from geomagic_dagster.launching.addresses import (
        LET_GO_S,
        CannotStart,
        Greeting,
        addresses_of,
        only_one,
        ports_beside,
        refuse_taken,
    )
    from geomagic_dagster.launching.serve import gated_environment, serve

    if gate and host != "127.0.0.1":
        print(
            f"--host {host}: expected 127.0.0.1 behind the gate; got an address that passes it by. Leave --host out.",
            file=sys.stderr,
        )
        raise typer.Exit(2)
    if console_port != 0 and (lacking := console_lacks()):
        print(lacking, file=sys.stderr)
        console_port = 0
    dagster_home, inbox = homes()
    try:
        ports = ports_beside(port, rooms_port, intake_port, metrics_port, console_port)
        addresses = addresses_of(host, ports, gate is not None)
        with only_one(dagster_home) as was_killed:
            refuse_taken(addresses, LET_GO_S if was_killed else 0.0)
            inbox.mkdir(parents=True, exist_ok=True)
            if gate:
                os.environ.update(gated_environment(gate, port))
            os.environ.setdefault("GEOMAGIC_ROOMS_URL", f"http://{host}:{ports.rooms}")
            os.environ.setdefault("GEOMAGIC_DAGSTER_URL", f"http://{host}:{port}")
            print("starting; the addresses are said as soon as everything answers", file=sys.stderr)
            with DagsterInstance.get():  # one process makes its database; two at once on a new one collide
                pass
            serve(
                workspace or REPOSITORY / "workspace.yaml",
                dagster_home,
                host,
                ports,
                home=home_from(os.environ),
                routing=places_from(os.environ).routing(),
                has_gate=gate is not None,
                greeting=Greeting(addresses, inbox, gate),
            )
    except CannotStart as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None


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

    dagster_home, inbox = homes()
    if listen:
        from geomagic_dagster.guardrails.logs import log_everything_as_logfmt
        from geomagic_dagster.resources.environment import places_from

        log_everything_as_logfmt()
        token = os.environ.get("GEOMAGIC_INTAKE_TOKEN")
        serve(inbox, places_from(os.environ).routing(), dagster_home / "workspace.yaml", host, port, token)
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
    with plain_errors():
        import signal
        import threading

        from dagster import DagsterInstance

        from geomagic_dagster.guardrails.logs import log_everything_as_logfmt
        from geomagic_dagster.jobs.local_run import dagster_home
        from geomagic_dagster.monitoring.exporter import exporter_of, serve
        from geomagic_dagster.monitoring.state import CannotStart
        from geomagic_dagster.resources.environment import home_from, places_from

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
                    log_everything_as_logfmt()
                    serve(exporter, host, port, stop)
        except CannotStart as error:
            print(error, file=sys.stderr)
            raise typer.Exit(2) from None
