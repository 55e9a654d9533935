"""`geomagic route ...`: which release takes which uploads. Every change is a new revision, with who and why."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from geomagic_dagster.releases.routing import Reading, RoutingStore, RoutingTable
    from geomagic_dagster.releases.routing_changes import Edit

route_app = typer.Typer(no_args_is_help=True, help="The routing table: which release takes which uploads.")

By = Annotated[str, typer.Option("--by", help="Who changes it; default: your login name.", show_default=False)]
Why = Annotated[str, typer.Option("--why", help="The reason, for the history.")]
ReleaseName = Annotated[str, typer.Argument(metavar="RELEASE", help="latest, or a line like 1.0.")]


@route_app.command()
def show(
    scan: Annotated[str | None, typer.Option(help="Also where the scan of this name goes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The document itself.")] = False,
) -> None:
    """The table in force, and what is wrong with its place."""
    with _refusals():
        reading = _store().read()
        if as_json:
            print(json.dumps(dict(reading.table.document), indent=1))
        else:
            print("\n".join(_lines(reading, scan)))
    if reading.problem:
        print(reading.problem, file=sys.stderr)
        raise typer.Exit(1)


@route_app.command()
def history(last: Annotated[int, typer.Option(min=1, help="So many of the newest.")] = 20) -> None:
    """Who changed what, when and why; the newest first."""
    with _refusals():
        tables = list(_store().history())[-last:]
        if not tables:
            print("nothing yet: everything goes to latest", file=sys.stderr)
        for table in reversed(tables):
            flights = ", ".join(f"{each.release} {each.per_cent:g} %" for each in table.flights) or "none"
            print(
                f"{table.revision:>6}  {table.written_at}  {table.written_by}: {table.why}\n"
                f"        default {table.default}; flights: {flights}"
            )


@route_app.command()
def default(release: ReleaseName, why: Why, by: By = "") -> None:
    """Everything that no pin and no flight takes goes to this release; it is on probation until its smoke scan."""
    from geomagic_dagster.flighting.promote import make_default

    _done(lambda store, who: make_default(store, release, by=who, why=why), by)


@route_app.command("roll-back")
def roll_back_command(
    why: Why,
    by: By = "",
    to: Annotated[str | None, typer.Option(help="Go back to this one; default: the one before.")] = None,
    of: Annotated[str | None, typer.Option(help="The default that is meant; refused where it is another now.")] = None,
) -> None:
    """Back to the default before. What was routed to the present one and has not begun is routed anew."""
    from geomagic_dagster.flighting.promote import roll_back
    from geomagic_dagster.releases.routing_changes import go_back_to

    if to:
        _change(go_back_to(to), by, why)
    else:
        _done(lambda store, who: roll_back(store, by=who, why=why, meant=of), by)


@route_app.command()
def flight(
    release: ReleaseName,
    per_cent: Annotated[float, typer.Argument(metavar="PERCENT", help="Share of all scans.")],
    why: Why,
    shadow: Annotated[bool, typer.Option("--shadow", help="It sees a copy; customers get another's result.")] = False,
    by: By = "",
) -> None:
    """Send a share of the scans to a release, always the same ones; where it flies already, change the share."""
    from geomagic_dagster.releases.routing_changes import start_flight

    _change(start_flight(release, per_cent, shadow=shadow), by, why)


@route_app.command("end-flight")
def end_flight_command(
    flight: Annotated[str, typer.Argument(help="Its id, or its release.")],
    why: Why,
    taken_back: Annotated[
        bool, typer.Option("--taken-back", help="It proved worse: what it has not begun is routed anew.")
    ] = False,
    by: By = "",
) -> None:
    """End a flight: its share goes where the others go."""
    from geomagic_dagster.releases.routing_changes import end_flight

    _change(end_flight(flight, taken_back=taken_back), by, why)


@route_app.command()
def pin(
    scan: Annotated[str, typer.Argument(help="Name of the scan: its upload without .zip.")],
    release: ReleaseName,
    why: Why,
    by: By = "",
) -> None:
    """Send one scan to one release, whatever else the table says."""
    from geomagic_dagster.releases.routing_changes import pin as edit

    _change(edit(scan, release), by, why)


@route_app.command()
def unpin(scan: Annotated[str, typer.Argument(help="Name of the scan.")], why: Why, by: By = "") -> None:
    """Let a scan go where the others go."""
    from geomagic_dagster.releases.routing_changes import unpin as edit

    _change(edit(scan), by, why)


@route_app.command()
def flag(
    name: Annotated[str, typer.Argument(help="As a stage declares it.")],
    why: Why,
    on: Annotated[bool | None, typer.Option("--on/--off", help="For everybody, or nobody.", show_default=False)] = None,
    per_cent: Annotated[float | None, typer.Option(help="For this share of the scans.")] = None,
    scan: Annotated[list[str] | None, typer.Option(help="For this scan; may be repeated.")] = None,
    by: By = "",
) -> None:
    """Turn a feature flag on: for everybody, a share of the scans, or single ones."""
    from geomagic_dagster.releases.routing_changes import set_flag

    if on is None and per_cent is None and scan is None:
        print(f"flag {name}: expected --on, --off, --per-cent or --scan; got none of them.", file=sys.stderr)
        raise typer.Exit(2)
    _change(set_flag(name, on=on, per_cent=per_cent, scans=tuple(scan) if scan else None), by, why)


@route_app.command()
def live(
    release: ReleaseName,
    why: Why,
    off: Annotated[bool, typer.Option("--off", help="It gets no traffic any more.")] = False,
    by: By = "",
) -> None:
    """Let a release get traffic, once something sends it some; or let it get none."""
    from geomagic_dagster.releases.installed import LATEST
    from geomagic_dagster.releases.manifest import REPOSITORY
    from geomagic_dagster.releases.routing_changes import make_live, take_off

    known = [LATEST, *sorted(each.parent.name for each in REPOSITORY.glob("releases/*/release.toml"))]
    if not off and release not in known:  # no refusal: it may be recorded on another machine
        print(
            f"release {release}: expected one that is recorded here ({', '.join(known)}); got another. "
            "Uploads that are sent to it wait until it is there. Was it mistyped: "
            f'geomagic route live {release} --off --why "..."',
            file=sys.stderr,
        )
    _change(take_off(release) if off else make_live(release), by, why)


def _store() -> RoutingStore:
    from geomagic_dagster.definitions import places_from

    return places_from(os.environ).routing()


def _change(edit: Edit, by: str, why: str) -> None:
    _done(lambda store, who: store.change(edit, by=who, why=why), by)


def _done(write: Callable[[RoutingStore, str], RoutingTable], by: str) -> None:
    """Writes a revision in the name of whoever is said, or logged in, and shows what is in force then."""
    with _refusals():
        print("\n".join(_table_lines(write(_store(), by or getpass.getuser()))))


@contextmanager
def _refusals() -> Iterator[None]:
    from geomagic_dagster.releases.routing import RoutingRefused, RoutingUnavailable

    try:
        yield
    except (RoutingRefused, RoutingUnavailable) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None


def _lines(reading: Reading, scan: str | None) -> Iterator[str]:
    yield from _table_lines(reading.table)
    if scan is not None:
        route = reading.table.choose(scan)
        by = f" by flight {route.flight}" if route.flight else ""
        shadows = f"; a copy to {', '.join(route.shadows)}" if route.shadows else ""
        flags = f"; flags {', '.join(route.flags)}" if route.flags else ""
        yield f"{scan}: release {route.release}{by}{shadows}{flags}"


def _table_lines(table: RoutingTable) -> Iterator[str]:
    written = (
        f", written {table.written_at} by {table.written_by}: {table.why}" if table.written_by else ", never written"
    )
    yield f"revision {table.revision}{written}"
    probation = f", on probation; before it {table.probation.previous}" if table.probation else ""
    yield f"default  {table.default}{probation}"
    yield f"live     {', '.join(table.live)}"
    for each in table.flights:
        kind = "shadow  " if each.shadow else "flight  "
        yield f"{kind} {each.release} {each.per_cent:g} %  {each.id}  since {each.started_at}"
    for scan, release in sorted(table.pins.items()):
        yield f"pin      {scan} to {release}"
    for name, flag in sorted(table.flags.items()):
        scans = f", {len(flag.scans)} scans by name" if flag.scans else ""
        yield f"flag     {name} {'on' if flag.on else f'{flag.per_cent:g} %'}{scans}"
    if table.taken_back:
        yield f"taken back: {', '.join(table.taken_back)}"
