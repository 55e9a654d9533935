"""`geomagic ...`: thin commands over the other rooms, one file a family of commands.

Belongs here: arguments, what a person reads on the screen, exit codes (0 done, 1 failed, 2 the input is not
usable, with one sentence). Does not belong here: anything that a test would call without a terminal.
Everything heavy is imported inside the commands, so that `geomagic --help` answers at once.
"""

from __future__ import annotations

import typer

from geomagic_dagster.cli.compile import app as compiling
from geomagic_dagster.cli.console import console_app
from geomagic_dagster.cli.corpus import corpus_app
from geomagic_dagster.cli.dark_check import app as dark_checking
from geomagic_dagster.cli.inbox import inbox_app
from geomagic_dagster.cli.processing import app as processing
from geomagic_dagster.cli.release import release_app
from geomagic_dagster.cli.rooms import room_app
from geomagic_dagster.cli.route import route_app
from geomagic_dagster.cli.scans import scan_app
from geomagic_dagster.cli.serving import app as serving
from geomagic_dagster.cli.watch import app as watching
from geomagic_dagster.cli.weights import weights_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From a phone's room scan to an AR-ready room.",
)
app.add_typer(processing)
app.add_typer(serving)
app.add_typer(watching)
app.add_typer(compiling)
app.add_typer(dark_checking)
families = {
    "scan": scan_app,
    "inbox": inbox_app,
    "room": room_app,
    "route": route_app,
    "corpus": corpus_app,
    "release": release_app,
    "weights": weights_app,
    "console": console_app,
}
for name, family in families.items():
    app.add_typer(family, name=name)
