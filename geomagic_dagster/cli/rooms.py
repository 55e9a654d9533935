"""`geomagic room ...`: look at finished rooms."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from geomagic_dagster.cli.common import plain_errors

room_app = typer.Typer(no_args_is_help=True, help="Look at finished rooms.")


@room_app.command()
def show(
    package: Annotated[str, typer.Argument(help="The folder of a package, or the name of a published one.")],
    output: Annotated[Path | None, typer.Option(help="Where to write the page; default: beside the package.")] = None,
    is_opened: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
) -> None:
    """Write the page of a room, one HTML file that needs no network, and open it in the browser."""
    with plain_errors():
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
    from geomagic_dagster.guardrails.logs import log_everything_as_logfmt
    from geomagic_dagster.jobs.withdrawn import uploads
    from geomagic_dagster.resources.environment import places_from
    from geomagic_dagster.resources.shelf import StoreShelf
    from geomagic_dagster.viewer.addresses import ARTEFACTS, PACKAGES
    from geomagic_dagster.viewer.folders import PackageFolder
    from geomagic_dagster.viewer.server import room_server

    log_everything_as_logfmt()
    places = places_from(os.environ)

    def withdrawn() -> frozenset[str]:
        return uploads(Path(places.quarantine))

    shelves = {PACKAGES: PackageFolder(Path(places.packages)), ARTEFACTS: StoreShelf(places.store(), withdrawn)}
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
