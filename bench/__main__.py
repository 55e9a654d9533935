"""`make bench`: every benchmark of the project, one after the other."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import fusion, rooms, stages


def main() -> None:
    arguments = argparse.ArgumentParser(prog="make bench", description=__doc__)
    arguments.add_argument("--scan", type=Path, help="a real scan; without one, a made-up room")
    rooms.add_arguments(arguments)
    chosen = arguments.parse_args()
    stages.report(chosen.scan)
    if chosen.rooms > 0:
        rooms.report_chosen(chosen)
    fusion.report(chosen.scan)


if __name__ == "__main__":
    main()
