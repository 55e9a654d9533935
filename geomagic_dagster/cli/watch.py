"""`geomagic watch`: ends flights of worse releases, tries out a new default, rolls it back."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from geomagic_dagster.cli.common import homes

app = typer.Typer()


@app.command()
def watch(
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 3.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, say how the flights stand, and end.")] = False,
) -> None:
    """Watch flights and new defaults: what is worse loses its traffic, what fails its smoke scan is rolled back."""
    import logging
    import signal
    import threading

    from dagster import DagsterInstance

    from geomagic_dagster.definitions import home_from, places_from
    from geomagic_dagster.flighting.again import Again
    from geomagic_dagster.flighting.expected import ranges_of_release
    from geomagic_dagster.flighting.rejected import Rejected
    from geomagic_dagster.flighting.smoke import Smoke
    from geomagic_dagster.flighting.watch import CannotWatch, Watcher, only_one, read_counts, serve
    from geomagic_dagster.guardrails.logs import log_everything_as_logfmt
    from geomagic_dagster.launching.intake_server import send_path

    dagster_home, _ = homes()
    home, places = home_from(os.environ), places_from(os.environ)
    log_everything_as_logfmt()

    def ranges_of(release: str):
        return ranges_of_release(release, home / "releases")

    def send(path: Path) -> bool:
        answer = send_path(dagster_home, path)
        if answer is not None and "error" in answer:
            logging.getLogger("geomagic.watch").error("%s: the intake refused it: %s", path, answer["error"])
        return answer is not None and "error" not in answer

    kept = home / "metrics" / "watcher.json"
    try:
        with only_one(home / "metrics" / "watcher.lock"), DagsterInstance.get() as instance:
            smoke = Smoke(instance, places, home / "smoke", send, ranges_of)
            routing, inbox = places.routing(), Path(places.inbox)
            again = Again(instance, Path(places.failed), inbox)
            rejected = Rejected(instance, Path(places.quarantine), inbox, routing)
            watcher = Watcher(instance, routing, smoke, ranges_of, again, rejected, kept)
            if once:
                watcher.look()
            else:
                stop = threading.Event()
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, lambda *_: stop.set())
                serve(watcher, stop, every)
                return
    except CannotWatch as error:
        if not once:
            print(error, file=sys.stderr)
            raise typer.Exit(2) from None
    counts = read_counts(kept)  # those of the watcher that is running, where one is
    for flight, sentence in counts.sentences.items():
        print(f"{flight}: {sentence}")
    if not counts.sentences:
        print("no flights")
    if counts.problem:
        print(counts.problem, file=sys.stderr)
        raise typer.Exit(1)
