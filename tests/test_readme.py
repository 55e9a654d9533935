"""What the README says of the code is true."""

from __future__ import annotations

import re

from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.scans.reader import known_formats
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def part(name: str) -> str:
    return re.search(rf"<!-- {name}: tested against the code -->(.*?)<!-- /{name} -->", README, re.DOTALL)[1].strip()


def test_the_journey_is_the_stages_in_their_order():
    rows = ["| stage | takes | makes | what it does |", "|---|---|---|---|"]
    for each in find_stages():
        sentence = re.match(r".*?\.(?=\s|$)", each.description, re.DOTALL)[0].replace("\n", " ")
        rows.append(f"| `{each.name}` | {', '.join(each.inputs)} | {each.returns.__name__} | {sentence} |")
    assert part("journey") == "\n".join(rows)


def test_the_formats_are_those_that_are_there():
    assert part("formats") == ", ".join(each.NAME for each in known_formats())


def test_the_make_targets_are_there_and_the_files_it_names_exist():
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?<!`)make ([a-z]+)\b(?= {2,}|`)", README)) <= targets
    for path in re.findall(r"`((?:geomagic_dagster|bench|docs|tests|deploy)/[^`]*)`|\((docs/[^)]*)\)", README):
        assert (REPOSITORY / (path[0] or path[1])).exists(), path
