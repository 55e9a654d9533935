"""`geomagic console`: releases and scans in a browser.

Belongs here: arguments and what a person reads on the screen. Does not belong here: what the console does.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from geomagic_dagster.cli.common import homes, plain_errors

console_app = typer.Typer(help="The console: releases, approvals, traffic, scans; in a browser, behind a login.")


@console_app.callback(invoke_without_command=True)
def console(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the console.")] = 3003,
) -> None:
    """The console in a browser. Its first user: geomagic console create-user NAME --role operator"""
    if context.invoked_subcommand is not None:
        return
    with plain_errors():
        homes()
        from geomagic_dagster.console.server import serve

        print(f"console: http://{host}:{port}", file=sys.stderr)
        serve(host, port)
