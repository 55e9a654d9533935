"""The page of one room: everything that its package says, in one HTML file that needs no network.

Belongs here: turning the files of a package into that file. Does not belong here: where the files come from
(server.py, cli.py), drawing in 3D (static/room.js).

Nothing in a package is trusted: its texts are escaped, its pictures and its plan are shown as images (in which no
script of an SVG runs and nothing is loaded), and the page's policy lets it run its own two scripts, by their hashes,
and load nothing at all.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

from pydantic import ValidationError

from geomagic_dagster.cv.room_model import Quantity, RoomDocument

WHAT_IS_MISSING = {
    "room.glb": "room.glb, the surface of the room: nothing scanned to turn in 3D.",
    "room.json": "room.json, walls and furniture: they are not drawn in the 3D room, and no warnings are known.",
    "plan.svg": "plan.svg, the floor plan.",
    "measurements.csv": "measurements.csv, the table of measurements.",
    "preview.png": "preview.png, the picture of the room.",
    "manifest.json": "manifest.json, how the package came about.",
}
"""Files of a package that the page shows, each with what the page lacks without it."""

SHEETS = {(210, 297): "sheet a4", (297, 210): "sheet a4-wide", (297, 420): "sheet a3", (420, 297): "sheet a3-wide"}
"""Paper in millimetres, width and height, and what page.css calls it."""
MAKE_IT_AGAIN = "Make the package again."
COLUMNS = ("what", "name", "value", "unit", "sigma", "note")
"""Of measurements.csv."""
MOST_COLUMNS = 3
"""Of numbers beside each other: more do not fit on a phone."""
UNITS = {"m2": "m²", "m3": "m³"}
SCRIPTS = ("three.js", "room.js")
Json = dict[str, Any]


def room_page(files: Mapping[str, bytes], name: str) -> bytes:
    """One HTML document (UTF-8) of a package; what the package lacks, or holds broken, is said in it.

    Args:
        files: the files of the package by name; any of them may be missing.
        name: what the room is called; any text.
    """
    problems = [sentence for file, sentence in WHAT_IS_MISSING.items() if file not in files]
    manifest, room = _manifest(files, problems), _room(files, problems)
    parts = [
        f"<header><h1>{_text(name)}</h1>{_facts(room)}</header>",
        "<main>",
        _stage(files, name, room),
        _notes(room),
        _plan(files, name),
        _tables(files, problems),
        _problems(problems),
        "</main>",
        _footer(manifest, room),
        _held("room-glb", _base64(files.get("room.glb", b""))),
        _held("table-csv", _base64(files.get("measurements.csv", b""))),
        _held("room-json", _json(room)),
        *(f"<script>{static(script)}</script>" for script in SCRIPTS),
    ]
    return document(f"{name}: room", "\n".join(filter(None, parts)), policy=POLICY)


def scan_name(files: Mapping[str, bytes]) -> str:
    """The name of the scan that a package was made of; empty where it does not say."""
    return str(_part(_manifest(files, []), "scan").get("name", ""))


def document(title: str, body: str, policy: str) -> bytes:
    """A whole HTML document around a body that is HTML already; `title` is plain text."""
    page = Template(static("page.html"))
    return page.substitute(
        title=_text(title), body=body, style=static("page.css"), policy=html.escape(policy, quote=True)
    ).encode("utf-8", "replace")


@cache
def static(name: str) -> str:
    """A file of this folder's static/ as text."""
    return Path(__file__).with_name("static").joinpath(name).read_text("utf-8")


def _hashes(contents: Iterable[str]) -> str:
    digests = (hashlib.sha256(content.encode()).digest() for content in contents)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def security_policy(scripts: Iterable[str] = (), images: str = "data:") -> str:
    """A Content-Security-Policy: our own style, these scripts, images from `images`, and nothing else from anywhere."""
    run = _hashes(static(each) for each in scripts) or "'none'"
    return (
        f"default-src 'none'; script-src {run}; style-src {_hashes([static('page.css')])}; img-src {images}; "
        "base-uri 'none'; form-action 'none'"
    )


POLICY = security_policy(SCRIPTS)


# --- the parts of the page ------------------------------------------------------------------------------


def _facts(room: RoomDocument | None) -> str:
    """The room in a line of numbers: how large, how high, how many walls, openings and pieces."""
    if room is None:
        return ""
    guessed = sum(wall.is_guessed for wall in room.walls)
    facts = [
        ("Floor", _fact(room.measured.area, "m²")),
        ("Ceiling height", _fact(room.measured.height, "m")),
        ("Perimeter", _fact(room.measured.perimeter, "m")),
        ("Volume", _fact(room.measured.volume, "m³")),
        ("Walls", f"{len(room.walls)}" + (f" <small>({guessed} guessed)</small>" if guessed else "")),
        ("Openings", str(len(room.doors) + len(room.windows) + len(room.openings))),
        ("Furniture", str(len(room.boxes()))),
    ]
    rows = "".join(f"<div><dt>{title}</dt><dd>{value}</dd></div>" for title, value in facts if value)
    return f'<dl class="facts">{rows}</dl>'


def _fact(quantity: Quantity | None, unit: str) -> str:
    return "" if quantity is None else _quantity(quantity.value, quantity.sigma, unit)


def _stage(files: Mapping[str, bytes], name: str, room: RoomDocument | None) -> str:
    """The 3D room; the picture stands in its place until it is drawn, in print, and where there is no WebGL."""
    picture = _image(files, "preview.png", f"{name}, seen from above at a slant, without its ceiling", "picture")
    if "room.glb" not in files and room is None:
        return f'<figure class="viewer"><div class="stage">{picture}</div></figure>' if picture else ""
    label = html.escape(f"3D model of {name}. Arrow keys turn it, plus and minus zoom.", quote=True)
    toggles = (("surface", "Scanned surface"), ("walls", "Walls and lengths"), ("furniture", "Furniture"))
    buttons = "".join(
        f'<button type="button" data-toggle="{key}" aria-pressed="false">{text}</button>' for key, text in toggles
    )
    save = _save("room-glb", "room.glb", "Save as room.glb") if "room.glb" in files else ""
    return f"""<section class="viewer" aria-label="3D room">
<div class="stage" id="stage" data-label="{label}">{picture}<div class="labels" id="labels"></div>
<output class="said" id="said" aria-live="polite"></output></div>
<div class="tools" id="tools" role="group" aria-label="What the 3D room shows" hidden>{buttons}
<button type="button" data-toggle="measure" aria-pressed="false">Tape measure</button>
<button type="button" data-look="above">From above</button><button type="button" data-look="corner">Whole room</button>
</div>
<div class="under">
<p class="hint" id="hint" hidden>Drag to turn, pinch or scroll to zoom, two fingers or the right button to move. With
the keyboard: arrows turn, + and − zoom. Click a label or a piece of furniture for its size.</p>
{save}</div><noscript><p class="hint">The 3D room needs JavaScript; the picture shows it from one side.</p></noscript>
</section>"""


def _notes(room: RoomDocument | None) -> str:
    if room is None or not room.warnings:
        return ""
    warnings = "".join(f"<li>{_text(each)}</li>" for each in room.warnings)
    return f'<section class="card notes" aria-labelledby="n"><h2 id="n">Warnings</h2><ul>{warnings}</ul></section>'


def _plan(files: Mapping[str, bytes], name: str) -> str:
    """The floor plan, else the picture from above."""
    file = next((each for each in ("plan.svg", "plan.png", "top.png") if each in files), None)
    if file is None:
        return ""
    title, alt = "Floor plan", f"Floor plan of {name} to scale, with its lengths; all of them are in the table below"
    if file == "top.png":
        title, alt = "From above", f"{name}, seen straight from above without its ceiling"
    return f"""<section class="card plan {_sheet(files[file])}" aria-labelledby="p"><h2 id="p">{title}</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="p">{_image(files, file, alt, "plan")}</div>
<p class="save" hidden><button type="button" id="larger" aria-pressed="false">Larger</button>
<button type="button" data-save="plan" data-file="{file}">Save as {file}</button></p></section>"""


def _sheet(plan: bytes) -> str:
    """The class of an SVG that is drawn on a sheet of paper: it is printed on such a sheet, as large as it is drawn."""
    size = re.match(rb'\s*<svg\b[^>]*?\swidth="(\d+)mm"\s+height="(\d+)mm"', plan)
    return SHEETS.get((int(size[1]), int(size[2])), "") if size else ""


def _tables(files: Mapping[str, bytes], problems: list[str]) -> str:
    """measurements.csv, which has one measurement a row, with one thing a row; things measured alike share a table."""
    if "measurements.csv" not in files:
        return ""
    rows = csv.DictReader(io.StringIO(files["measurements.csv"].decode("utf-8-sig", "replace")), restval="")
    if not set(COLUMNS) <= set(rows.fieldnames or ()):
        problems.append(
            f"measurements.csv is there, but broken: expected the columns {', '.join(COLUMNS)}; got "
            f"{', '.join(rows.fieldnames or ()) or 'none'}. {MAKE_IT_AGAIN}"
        )
        return ""
    things = [(name, list(of_it)) for name, of_it in groupby(rows, lambda row: row["name"])]
    tables = []
    for measured, alike in groupby(things, lambda thing: [row["what"] for row in thing[1]]):
        if len(measured) > MOST_COLUMNS:  # the room itself: a row a measurement
            for name, of_it in alike:
                body = "".join(_row(row["what"], row["note"], [row]) for row in of_it)
                tables.append(_one_table([_spoken(name), ""], body))
        else:
            body = "".join(_row(name, _notes_of(of_it), of_it) for name, of_it in alike)
            tables.append(_one_table(["name", *measured], body))
    save = _save("table-csv", "measurements.csv", "Save as measurements.csv")
    return f"""<section class="card" aria-labelledby="m"><h2 id="m">Measurements</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="m">{"".join(tables)}</div>{save}</section>"""


def _one_table(head: list[str], body: str) -> str:
    cells = "".join(f'<th scope="col">{_text(each)}</th>' if each else "<td></td>" for each in head)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _row(name: str, notes: str, measurements: list[dict[str, str]]) -> str:
    """A row of a table: what it is called, with what is to be said of it, and each measurement."""
    cells = "".join(f"<td>{_measurement(row)}</td>" for row in measurements)
    note = f" <small>{_text(_spoken(notes))}</small>" if notes else ""
    return f'<tr><th scope="row">{_text(_spoken(name))}{note}</th>{cells}</tr>'


def _notes_of(measurements: list[dict[str, str]]) -> str:
    return "; ".join(dict.fromkeys(part for row in measurements for part in row["note"].split("; ") if part))


def _measurement(row: dict[str, str]) -> str:
    unit = UNITS.get(row["unit"], row["unit"])
    try:
        value, sigma = float(row["value"]), float(row["sigma"]) if row["sigma"] else None
    except ValueError:  # as it stands
        return _text(f"{row['value']} {row['unit']}")
    return _quantity(value, sigma, unit)


def _problems(problems: list[str]) -> str:
    if not problems:
        return ""
    rows = "".join(f"<li>{_text(each)}</li>" for each in problems)
    return f'<section class="missing" aria-labelledby="x"><h2 id="x">What is missing</h2><ul>{rows}</ul></section>'


def _footer(manifest: Json, room: RoomDocument | None) -> str:
    scan, frames, mesh = (_part(manifest, key) for key in ("scan", "frames", "mesh"))
    sentences = []
    if scan:
        sentences.append(f"Scan {scan.get('name')}, read as {scan.get('source_format')}.")
    if frames:
        sentences.append(f"{frames.get('used')} of {frames.get('in_scan')} frames were used.")
    if mesh:
        sentences.append(f"The surface has {mesh.get('triangles')} triangles.")
    if room and room.measured.snapped:
        sentences.append(room.measured.snapped)
    made = f"<p>{_text(' '.join(sentences))}</p>" if sentences else ""
    return (
        f"<footer>{made}<p>Lengths are metres; ± is one standard deviation. 3D by three.js (MIT licence).</p></footer>"
    )


# --- small things -----------------------------------------------------------------------------------------


def _manifest(files: Mapping[str, bytes], problems: list[str]) -> Json:
    """{} where it is missing or, which is then said, broken."""
    try:
        content = json.loads(files.get("manifest.json", b"{}"))
    except ValueError as error:
        content = str(error)
    if isinstance(content, dict):
        return content
    problems.append(f"manifest.json is there, but broken: expected a JSON object; got {content}. {MAKE_IT_AGAIN}")
    return {}


def _room(files: Mapping[str, bytes], problems: list[str]) -> RoomDocument | None:
    """None where it is missing or, which is then said, not what room.json is in this release."""
    if "room.json" not in files:
        return None
    try:
        return RoomDocument.model_validate_json(files["room.json"])
    except ValidationError as error:
        first = error.errors()[0]
        problems.append(
            f"room.json is there, but not as this release reads it: {first['msg']} at "
            f"{'.'.join(map(str, first['loc'])) or 'its beginning'}. {MAKE_IT_AGAIN}"
        )
        return None


def _json(room: RoomDocument | None) -> str:
    return "" if room is None else room.model_dump_json().replace("<", "\\u003c")


def _part(content: Json, key: str) -> Json:
    part = content.get(key)
    return part if isinstance(part, dict) else {}


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _quantity(value: float, sigma: float | None, unit: str) -> str:
    spread = "" if sigma is None else f' <small class="spread">± {_sigma(sigma, unit)}</small>'
    return f"{value:.2f}\u00a0<small>{_text(unit)}</small>{spread}"


def _spoken(text: str) -> str:
    """Names of elements as a person reads them: wall_0 becomes wall 0."""
    return re.sub(r"_(?=\d+\b)", " ", text)


def _sigma(sigma: float, unit: str) -> str:
    """Of lengths in centimetres, down to a tenth; never a zero that nobody can mean."""
    scaled, unit, digits = (100 * sigma, "cm", 1) if unit == "m" else (sigma, unit, 2)
    return _text(f"{max(scaled, 10.0**-digits):.{digits}f} {unit}")


def _image(files: Mapping[str, bytes], name: str, alt: str, identity: str) -> str:
    if name not in files:
        return ""
    kind = "image/svg+xml" if name.endswith(".svg") else "image/png"
    return f'<img id="{identity}" src="data:{kind};base64,{_base64(files[name])}" alt="{_text(alt)}">'


def _save(held: str, file: str, text: str) -> str:
    return f'<p class="save" hidden><button type="button" data-save="{held}" data-file="{file}">{text}</button></p>'


def _held(identity: str, content: str) -> str:
    """Data that the page carries for its scripts; a type that browsers do not run."""
    return f'<script type="application/octet-stream" id="{identity}">{content}</script>' if content else ""


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
