"""`geomagic digest`, `geomagic dark-check`: does other code give the same bytes?"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from geomagic_dagster.cli.common import plain_errors, write_made_up_scan
from geomagic_dagster.cli.weights import plain_weights_errors

app = typer.Typer()


@app.command()
def digest(
    scan: Annotated[Path, typer.Argument(help="A scan: folder, zip or tar.")],
    as_json: Annotated[bool, typer.Option("--json", help="The whole document, for other programs.")] = False,
    flag: Annotated[list[str] | None, typer.Option(help="A feature flag to turn on; say it again for another.")] = None,
) -> None:
    """What a scan becomes, as digests of every stage's artefact; made in a folder that is gone afterwards."""
    import geomagic_dagster.definitions  # noqa: F401  # it sets what numpy and torch read when they are imported
    from geomagic_dagster.cv.stage import find_stages
    from geomagic_dagster.definitions import places_from
    from geomagic_dagster.releases.digest import digest_scan

    places = places_from(os.environ)
    with plain_errors():
        found = digest_scan(scan, find_stages(), device=places.device, flags=flag or (), weights=places.weights())
    if as_json:
        print(json.dumps(found))
    else:
        for each in found["stages"]:
            print(f"{each['sha256'][:16]}  {each['stage']}  {each['identity']}")
    if found["rejected"]:
        print(found["rejected"], file=sys.stderr)
        raise typer.Exit(2)


@app.command("dark-check")
def dark_check(
    old: Annotated[str, typer.Argument(help="latest, a release (1.0), or the path of an environment's python.")],
    new: Annotated[str, typer.Argument(help="The same, of the code to hold against it.")] = "latest",
    corpus: Annotated[
        Path | None, typer.Option(help="A folder of scans; default: the corpus, made-up rooms where it is empty.")
    ] = None,
    rooms: Annotated[int, typer.Option(min=1, help="How many made-up rooms where there are no scans.")] = 2,
    frames: Annotated[int, typer.Option(min=12, help="How many frames each of them has.")] = 60,
) -> None:
    """Hold the results of two releases against each other, all feature flags off: no byte may differ."""
    import tempfile

    from geomagic_dagster.corpus.scans import names
    from geomagic_dagster.cv.stage import find_stages
    from geomagic_dagster.definitions import home_from, places_from
    from geomagic_dagster.releases.dark_check import NoDigest, interpreter
    from geomagic_dagster.releases.dark_check import dark_check as check
    from geomagic_dagster.releases.installed import LATEST
    from geomagic_dagster.resources.weights import wanted_by

    home, places = home_from(os.environ), places_from(os.environ)
    folder, weights = corpus or Path(places.corpus), places.weights()
    if LATEST in (old, new):  # those of a release are here since it was installed
        with plain_weights_errors():
            weights.fetch(wanted_by(find_stages()))
    with tempfile.TemporaryDirectory(prefix="geomagic-rooms-") as made_up:
        scans = [folder / name for name in names(folder)]
        if not scans:
            print(f"no scans in {folder}: making up {rooms} rooms", file=sys.stderr)
            scans = [Path(made_up, f"made_up_{seed}") for seed in range(1, rooms + 1)]
            for seed, scan in enumerate(scans, start=1):
                write_made_up_scan(scan, seed, frames=frames, clean=False)
        try:
            sides = interpreter(old, home, weights.here), interpreter(new, home, weights.here)
            found = check(*sides, scans, lambda line: print(line, flush=True))
        except NoDigest as error:
            print(error, file=sys.stderr)
            raise typer.Exit(2) from None
    differing = sum(not each.is_same for each in found)
    print(f"{len(found) - differing} of {len(found)} scans gave the same bytes in {old} and {new}, all flags off")
    raise typer.Exit(1 if differing else 0)
