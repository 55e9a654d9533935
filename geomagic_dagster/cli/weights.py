"""`geomagic weights ...`: files of trained weights, put where every stage and release finds them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from geomagic_dagster.resources.weights import WeightStore

weights_app = typer.Typer(no_args_is_help=True, help="Files of trained weights, by their digest.")

Checkout = Annotated[
    Path | None, typer.Option(help="The project's checkout, which holds releases/; default: that of this command.")
]


@weights_app.command()
def add(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="A state dict (.pt), safetensors, ...")
    ],
    name: Annotated[str, typer.Option(help="What the stage calls it; default: the file's name.")] = "",
) -> None:
    """Put a copy of a file where stages find it, and print the line to paste into the stage."""
    with plain_weights_errors():
        store = _store()
        digest = store.add(file)
    print(f"{file.stat().st_size / 1e6:,.2f} MB in {store.url}. Into the @stage:", file=sys.stderr)
    name = name or re.sub(r"\W+", "_", file.stem).strip("_").lower() or "net"
    print(f'weights={{"{name}": "{digest}"}}')


@weights_app.command("list")
def list_weights(checkout: Checkout = None) -> None:
    """Every file that is there or needed: which stages of latest and of which releases use it, its size."""
    from rich.console import Console
    from rich.table import Table

    with plain_weights_errors():
        store, uses = _store(), _uses(checkout)
        sizes = store.sizes()
        table = Table("sha256", "MB", "store", "here", "used by", box=None, pad_edge=False, caption=store.url)
        for digest in sorted(uses.keys() | sizes.keys(), key=lambda digest: (uses.get(digest, ["~"]), digest)):
            size = f"{sizes[digest] / 1e6:,.2f}" if digest in sizes else ""
            there = "yes" if digest in sizes else "MISSING" if digest in uses else "no"
            here = "yes" if store.is_here(digest) else "no"
            table.add_row(digest[7:19], size, there, here, "\n".join(uses.get(digest, ["nobody"])))
    Console(soft_wrap=True).print(table)


@weights_app.command()
def check(checkout: Checkout = None) -> None:
    """Read every file again, in the store and on this machine, and compare it with its digest; name what is missing."""
    from geomagic_dagster.guardrails.failures import Broken

    with plain_weights_errors():
        store, uses = _store(), _uses(checkout)
        wrong = 0
        digests = sorted(uses.keys() | store.sizes().keys())
        for digest in digests:
            try:
                store.check(digest, ", ".join(uses.get(digest, ["used by nobody"])))
            except Broken as error:
                wrong += 1
                print(error, file=sys.stderr)
    if wrong:
        print(f"{wrong} of {len(digests)} files are missing or not what their digests say, see above", file=sys.stderr)
        raise typer.Exit(1)
    print(f"{len(digests)} files, each as its digest says")


def _store() -> WeightStore:
    from geomagic_dagster.definitions import places_from

    return places_from(os.environ).weights()


def _uses(checkout: Path | None) -> dict[str, list[str]]:
    from geomagic_dagster.cv.stage import find_stages
    from geomagic_dagster.jobs.local_run import REPOSITORY
    from geomagic_dagster.releases.weights import uses

    return uses((checkout or REPOSITORY) / "releases", find_stages())


@contextmanager
def plain_weights_errors() -> Iterator[None]:
    """Ends with one sentence and exit code 2 where the store, the disk or a release is to blame."""
    from geomagic_dagster.guardrails.failures import sort_failure
    from geomagic_dagster.releases.record import ReleaseError

    try:
        yield
    except ReleaseError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None
    except Exception as error:
        known = sort_failure(error, "weights")
        if known.kind == "bug":
            raise
        print(known.sentence, file=sys.stderr)
        raise typer.Exit(2) from None
