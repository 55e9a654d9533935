"""`geomagic console`: releases and scans in a browser.

Belongs here: arguments and what a person reads on the screen. Does not belong here: what the console does.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from geomagic_dagster.cli.common import console_lacks, homes, plain_errors

console_app = typer.Typer(help="The console: releases, approvals, traffic, scans; in a browser, behind a login.")


@console_app.callback(invoke_without_command=True)
def console(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the console.")] = 3003,
    processes: Annotated[
        int, typer.Option(help="How many processes answer.", min=1, max=64, envvar="GEOMAGIC_CONSOLE_PROCESSES")
    ] = 1,
) -> None:
    """The console in a browser. Its first user: geomagic console create-user NAME --role operator"""
    if lacking := console_lacks():
        print(lacking, file=sys.stderr)
        raise typer.Exit(2)
    if context.invoked_subcommand is not None:
        return
    with plain_errors():
        homes()
        from geomagic_dagster.console.server import serve

        print(f"console: http://{host}:{port}", file=sys.stderr)
        serve(host, port, processes)


@console_app.command("create-user")
def create_user(
    name: Annotated[str, typer.Argument(help="What they log in with.")],
    role: Annotated[
        list[str] | None,
        typer.Option(help="researcher, engineer, scientist, operator, viewer; may be repeated. sender: for an app."),
    ] = None,
    email: Annotated[str, typer.Option(help="As git knows them: nobody approves what they cut.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="May make other users.")] = False,
    new_password: Annotated[bool, typer.Option("--new-password", help="Of a user who is there already.")] = False,
) -> None:
    """Make a user, or give one a new password; it is asked for, or read from standard input.

    A sender is an app's or a partner's account: it owns tokens, has no password, and sees no page.
    """
    from getpass import getpass

    with plain_errors():
        homes()
        from geomagic_dagster.console.server import set_up

        set_up()
        from geomagic_dagster.console.people import CannotMakeUser, make_user, set_password

        try:
            is_app = set(role or []) == {"sender"} and not new_password
            password = None if is_app else getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
            if new_password:
                set_password(name, password or "")
            else:
                make_user(name, password, role or [], email=email, is_admin=admin)
        except CannotMakeUser as error:
            print(error, file=sys.stderr)
            raise typer.Exit(2) from None
    print(f"{name}: {'has a new password' if new_password else ', '.join(role or ['no role'])}")


@console_app.command("old-uploads")
def old_uploads(
    days: Annotated[float, typer.Option(help="Kept for longer than this.", min=0)] = 90.0,
) -> None:
    """List uploads that are kept for long, and what still needs them; GEOMAGIC_KEEP_UPLOADS_DAYS removes the rest."""
    with plain_errors():
        homes()
        from geomagic_dagster.console.server import set_up

        set_up()
        from geomagic_dagster.console.scans.retention import old

        for each in old(days):
            stays = f"stays: {each.still_needed}" if each.still_needed else "may go"
            print(each.place, f"since {each.since:%Y-%m-%d}", stays, sep="\t")


@console_app.command("run-staging-test", hidden=True)
def run_staging_test(number: Annotated[int, typer.Argument(help="Of a test that was begun.")]) -> None:
    """Run a test in staging that somebody began on a page."""
    homes()
    from geomagic_dagster.console.server import set_up

    set_up()
    from geomagic_dagster.console.registry.staging import run_begun

    test = run_begun(number)
    print(test.words)
    raise typer.Exit(0 if test.passed else 1)
