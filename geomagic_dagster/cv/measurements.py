"""measurements.csv: every measurement of room.json as a row of a table, with its standard deviation.

Belongs here: which rows there are. Does not belong here: computing any of them (room_document.py).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from geomagic_dagster.cv.room_model import Quantity, RoomDocument

COLUMNS = ("what", "name", "value", "unit", "sigma", "confidence", "note")
Row = tuple[str, str, float, str, float | None, float | None, str]


def measurements_csv(document: RoomDocument) -> bytes:
    """UTF-8, a header, a row a measurement; `sigma` is one standard deviation in the unit of the value, else empty."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(_rows(document))
    return text.getvalue().encode()


def _rows(document: RoomDocument) -> Iterator[Row]:
    measured = document.measured
    quantities: tuple[tuple[str, Quantity | None, str], ...] = (
        ("area", measured.area, "m2"),
        ("perimeter", measured.perimeter, "m"),
        ("ceiling height", measured.height, "m"),
        ("volume", measured.volume, "m3"),
    )
    for what, quantity, unit in quantities:
        if quantity is not None:
            yield what, "room", quantity.value, unit, quantity.sigma, None, ""
    for wall in document.walls:
        guessed = "guessed, not seen" if wall.is_guessed else ""
        yield "length", wall.name, wall.dimensions[0], "m", wall.sigma.length, wall.confidence_value, guessed
        seen = "" if wall.is_height_measured else "as high as surface was seen"
        note = "; ".join(part for part in (guessed, seen) if part)
        yield "height", wall.name, wall.dimensions[1], "m", wall.sigma.height, wall.confidence_value, note
    names = {each.identifier: each.name for each in (*document.walls, *document.boxes())}
    for opening in (*document.doors, *document.windows, *document.openings):
        note = f"in {names[opening.parent_identifier or '']}"
        for what, value in zip(("width", "height"), opening.dimensions, strict=False):
            yield what, opening.name, value, "m", opening.sigma.edge, opening.confidence_value, note
        yield "sill", opening.name, opening.sill, "m", opening.sigma.edge, opening.confidence_value, note
    for box in document.boxes():
        note = {"floor": "", "wall": "hangs on a wall"}.get(box.stands_on) or (
            f"stands on {names[box.parent_identifier]}" if box.parent_identifier else ""
        )
        for what, value, sigma in zip(("width", "height", "depth"), box.dimensions, box.sigma.dimensions, strict=True):
            yield what, box.name, value, "m", sigma, box.confidence_value, note
