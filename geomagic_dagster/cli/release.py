"""`geomagic release ...`: cut releases, install them, prove that they are what they were."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from geomagic_dagster.resources.weights import WeightStore

release_app = typer.Typer(no_args_is_help=True, help="Cut, install, verify, archive and replay releases.")

Name = Annotated[str, typer.Argument(help="A release: its line (1.0), or one of its versions (1.0.1).")]
Checkout = Annotated[
    Path | None, typer.Option(help="The project's checkout, which holds releases/; default: that of this command.")
]
Wheels = Annotated[
    Path | None, typer.Option("--wheels", help="A folder of wheels; with all of them there, no network is needed.")
]


@release_app.command()
def cut(name: Name, checkout: Checkout = None) -> None:
    """Make a release of the commit that is checked out. 1.0 is a new line; 1.0.1 is a hotfix, and takes its place."""
    with plain_release_errors():
        from geomagic_dagster.releases.cut import cut as cut_release

        done = cut_release(_checkout(checkout), _home(), name, weights=_weights(), say=_say)
    for line in done.differences:
        print(line)
    print(
        f"{done.release.version} is cut: {done.record}\n"
        f"Commit it: git add {done.record} workspace.yaml && git commit -m 'Release {done.release.version}'"
    )


@release_app.command()
def install(
    name: Name,
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder with the records; default: releases/ of the checkout.")
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(help="The interpreter to make it with; default: one of the version that it was cut with."),
    ] = None,
    wheels: Wheels = None,
    record_new: Annotated[
        bool, typer.Option("--record-new", help="Take the builds of libraries that this machine gets, and record them.")
    ] = False,
    checkout: Checkout = None,
) -> None:
    """Make the environment of a release from its record, and verify every hash."""
    with plain_release_errors():
        _install(name, source or _checkout(checkout) / "releases", python, wheels, record_new)


@release_app.command()
def verify(name: Name, checkout: Checkout = None) -> None:
    """Read every file of a release's record and of its environment again, and compare it with its hash."""
    with plain_release_errors():
        from geomagic_dagster.releases import environments
        from geomagic_dagster.releases import weights as releases_weights
        from geomagic_dagster.releases.record import ReleaseError, record_folder, verify_record

        record = record_folder(_checkout(checkout) / "releases", name)
        release = verify_record(record)
        print(f"{release.version}: the record is as it was cut ({len(release.files)} files)")
        if files := releases_weights.check(record, _weights()):
            print(f"{release.version}: its weights are as their digests say ({files} files)")
        environment = environments.installed(_home(), release.line)
        if environment is None or environment.release.version != release.version:
            print(f"{release.version}: not installed here")
            return
        if wrong := environments.differences(environment, record):
            raise ReleaseError(
                environment.folder,
                expected="every file as it was installed",
                received="; ".join(wrong),
                do=f"Nothing in a release is ever edited: geomagic release install {release.line}.",
            )
        print(f"{release.version}: its environment is as it was installed ({environment.platform})")


@release_app.command("list")
def list_releases(checkout: Checkout = None) -> None:
    """Every release, whether it is installed here, and what it takes on the disk."""
    with plain_release_errors():
        from rich.console import Console
        from rich.table import Table

        from geomagic_dagster.releases import environments, sharing
        from geomagic_dagster.releases.record import released
        from geomagic_dagster.releases.workspace import lines

        root = _checkout(checkout)
        columns = ("release", "commit", "cut", "by", "here", "disk", "own", "memory")
        caption = "MB; own: what removing it would free; memory: of its processes, now"
        table = Table(*columns, caption=caption, box=None, pad_edge=False)
        named = lines(root / "workspace.yaml")
        for release in released(root / "releases"):
            environment = environments.installed(_home(), release.line)
            here = "archived" if release.line not in named else "not installed"
            sizes = (0, 0, 0)
            if environment is not None:
                usage = sharing.usage(environment.folder)
                sizes = (usage.total, usage.own, environments.memory_of(environment.folder.parent))
                here = "installed"
                if environment.release.version != release.version:
                    here = f"{environment.release.version} is installed"
            said = (release.version, release.commit[:8], release.cut_at[:10])
            table.add_row(*said, release.cut_by.partition(" <")[0], here, *(f"{size / 1e6:,.0f}" for size in sizes))
        Console().print(table)


@release_app.command()
def archive(name: Name, checkout: Checkout = None) -> None:
    """Take a release out of the workspace and remove its environment. Its record stays: `restore` brings it back."""
    with plain_release_errors():
        from geomagic_dagster.definitions import places_from
        from geomagic_dagster.releases.archive import archive as archive_release
        from geomagic_dagster.releases.record import Version, record_folder

        root, line = _checkout(checkout), Version.parse(name).line
        record_folder(root / "releases", line)  # without its record it would never come back
        table = places_from(os.environ).routing().read().table
        freed = archive_release(root / "workspace.yaml", _home(), line, table)
    print(f"{line} is archived; {freed / 1e6:,.0f} MB are free again. Back: geomagic release restore {line}")


@release_app.command()
def restore(name: Name, wheels: Wheels = None, checkout: Checkout = None) -> None:
    """Bring an archived release back: its environment from the record, its entry in the workspace."""
    with plain_release_errors():
        from geomagic_dagster.releases import workspace
        from geomagic_dagster.releases.record import Version

        root = _checkout(checkout)
        _install(name, root / "releases", None, wheels, False)
        workspace.add(root / "workspace.yaml", Version.parse(name).line)


@release_app.command()
def replay(
    name: Name,
    scan: Annotated[Path, typer.Option(help="The scan, under the name that it had.")],
    package: Annotated[
        Path | None, typer.Option(help="<packages>/<scan>.run.json: compare the package beside it.")
    ] = None,
    artefact: Annotated[
        Path | None, typer.Option(help="<store>/artefacts/<stage>/<identity>: compare this result.")
    ] = None,
    checkout: Checkout = None,
) -> None:
    """Make a release anew from its record alone, process a scan, and compare every byte with what it was then."""
    with plain_release_errors():
        from geomagic_dagster.releases.replay import replay as replay_scan

        done = replay_scan(
            _checkout(checkout) / "releases", _home(), name, scan,
            package=package, artefact=artefact, weights=_weights(), say=_say,
        )  # fmt: skip
    for line in done.differing:
        print(line, file=sys.stderr)
    if done.differing:
        print(f"{done.version}: expected the same bytes; got other ones, see above", file=sys.stderr)
        raise typer.Exit(1)
    print(f"{done.version}: the same bytes in {', '.join(done.same)}")


def _install(name: str, records: Path, python: Path | None, wheels: Path | None, record_new: bool) -> None:
    from geomagic_dagster.releases import environments, sharing
    from geomagic_dagster.releases.record import record_folder
    from geomagic_dagster.releases.weights import bring_here

    record = record_folder(records, name)
    bring_here(record, _weights())
    environment = environments.install(
        record, _home(), say=_say, python=python, wheelhouse=wheels, record_new=record_new
    )
    usage = sharing.usage(environment.folder)
    print(
        f"{environment.release.version} is installed for {environment.platform}: {usage.total / 1e6:,.0f} MB, of them "
        f"{usage.own / 1e6:,.0f} MB its own"
    )
    if new := environments.record_platform(environment, record):
        print(f"This platform was not in the record. Commit it: git add {new}")


@contextmanager
def plain_release_errors() -> Iterator[None]:
    """As `plain_errors`, and what is wrong with a release in one sentence too."""
    from geomagic_dagster.cli.common import plain_errors
    from geomagic_dagster.releases.record import ReleaseError

    try:
        with plain_errors():
            yield
    except ReleaseError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None


def _checkout(said: Path | None) -> Path:
    from geomagic_dagster.jobs.local_run import REPOSITORY

    return said.absolute() if said else REPOSITORY


def _home() -> Path:
    from geomagic_dagster.definitions import home_from

    return home_from(os.environ)


def _weights() -> WeightStore:
    from geomagic_dagster.definitions import places_from

    return places_from(os.environ).weights()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
