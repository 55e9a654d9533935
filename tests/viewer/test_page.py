"""What the page of a room holds: everything of its package, nothing from elsewhere, and no text as anything but text."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomagic_dagster.viewer.page import SCRIPTS, WHAT_IS_MISSING, room_page, static
from tests.viewer import rooms

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "<!--<script>",
    "&lt;b&gt;",
    "$title ${body}",
    "\udcff\u202e name",
)


class Elements(HTMLParser):
    """Every element of a page with its attributes, and what stands in its scripts."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self._in = ""
        self.feed(page.decode())

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._in = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts[dict(attributes).get("id") or f"own {len(self.scripts)}"] = ""

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[list(self.scripts)[-1]] += data
        elif not self._in:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for each, attributes in self.found if each == tag]


def policy_of(page: Elements) -> dict[str, str]:
    [meta] = [each for each in page.of("meta") if each.get("http-equiv")]
    return dict(part.strip().split(" ", 1) for part in str(meta["content"]).split(";"))


def test_the_page_holds_every_part_of_the_package():
    files = rooms.package()
    page = Elements(room_page(files, "my room"))
    assert base64.b64decode(page.scripts["room-glb"]) == files["room.glb"]
    assert json.loads(page.scripts["room-json"]) == json.loads(files["room.json"])
    images = [base64.b64decode(str(each["src"]).partition("base64,")[2]) for each in page.of("img")]
    assert images == [files["preview.png"], files["plan.svg"]]
    assert all(each["alt"] and "my room" in str(each["alt"]) for each in page.of("img"))
    for words in ("my room", "12.00", "± 0.03 m²", "± 0.3 cm", "(1 guessed)", "behind the sofa", "guessed, not seen"):
        assert words in page.text
    assert "wall 3" in page.text and "wall_3" not in page.text
    assert "8 of 9 frames" in page.text and "tum_rgbd" in page.text
    assert "What is missing" not in page.text


def test_the_page_asks_nobody_for_anything():
    content = room_page(rooms.package(), "room")
    page = Elements(content)
    for tag, attributes in page.found:
        assert tag not in ("iframe", "object", "embed", "base", "form")
        assert all(str(attributes.get(name) or "data:").startswith("data:") for name in ("src", "srcset", "action"))
        assert str(attributes.get("href") or "data:").startswith("data:")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert "url(" not in static("page.css") and "@import" not in static("page.css")
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|sendBeacon|import)\s*\(", static("room.js"))


def test_the_policy_runs_these_two_scripts_and_loads_nothing():
    page = Elements(room_page(rooms.package(), "room"))
    policy = policy_of(page)
    own = [content for name, content in page.scripts.items() if name.startswith("own")]
    digests = [base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in own]
    assert own == [static(name) for name in SCRIPTS]
    assert policy["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert policy["default-src"] == "'none'" and policy["img-src"] == "data:"
    assert not any(word in " ".join(policy.values()) for word in ("unsafe", "http", "*", "blob", "self"))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_and_texts_stay_texts(hostile):
    spoken = hostile.encode("utf-8", "replace").decode()
    harmless = Elements(room_page(rooms.package(), "room"))
    clean = hostile.encode("utf-8", "ignore").decode()
    files = rooms.package(
        room_json=rooms.document((clean,), table=clean).to_json(),
        measurements_csv=f'what,name,value,unit,sigma,confidence,note\n"{clean.replace(chr(34), chr(34) * 2)}",x,1,m,0,0,\n'.encode(),
        manifest_json=json.dumps({"scan": {"name": hostile, "source_format": hostile}}).encode(),
    )
    page = Elements(room_page(files, hostile))
    tags = {tag for tag, _ in harmless.found}
    assert {tag for tag, _ in page.found} <= tags
    assert len(page.of("script")) == len(harmless.of("script"))
    assert not any(name.startswith("on") for _, attributes in page.found for name in attributes)
    assert spoken in page.text
    assert json.loads(page.scripts["room-json"])["warnings"] == [clean]


@settings(max_examples=50, deadline=None)
@given(st.text(), st.text())
def test_any_name_is_shown_as_it_is(name, warning):
    files = {"room.json": rooms.document((warning.encode("utf-8", "ignore").decode(),)).to_json()}
    page = room_page(files, name).decode()
    assert f"<h1>{html.escape(name.encode('utf-8', 'replace').decode())}</h1>" in page
    assert json.loads(Elements(page.encode()).scripts["room-json"])["warnings"] == [
        warning.encode("utf-8", "ignore").decode()
    ]


@pytest.mark.parametrize("name", WHAT_IS_MISSING)
def test_a_file_that_is_missing_is_said(name):
    page = Elements(room_page(rooms.package(**{name.replace(".", "_"): None}), "room"))
    _, _, missing = page.text.partition("What is missing")
    assert name in missing
    assert not any(other in missing for other in WHAT_IS_MISSING if other != name)


def test_an_older_package_shows_what_it_has():
    files = {name: rooms.package()[name] for name in ("room.glb", "preview.png", "top.png", "manifest.json")}
    page = Elements(room_page(files, "room"))
    assert "room-glb" in page.scripts and "room-json" not in page.scripts
    assert "From above" in page.text
    for name in ("room.json", "plan.svg", "measurements.csv"):
        assert name in page.text


def test_without_a_package_there_is_still_a_page():
    page = Elements(room_page({}, "room"))
    assert not any(each.get("id") == "stage" for _, each in page.found)
    assert all(name in page.text for name in WHAT_IS_MISSING)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("room.json", b"no JSON"),
        ("room.json", b"[]"),
        ("room.json", b'{"walls": 5}'),
        ("room.json", b"\xff\xfe"),
        ("manifest.json", b"no JSON"),
        ("manifest.json", b"[1]"),
        ("manifest.json", b"\xff"),
        ("measurements.csv", b""),
        ("measurements.csv", b"\xff\x00,b\n1,2,3\n"),
        ("measurements.csv", b"a,b\n1\n1,2,3\n"),
    ],
)
def test_a_broken_file_is_said_and_the_rest_is_shown(name, content):
    page = Elements(room_page(rooms.package(**{name.replace(".", "_"): content}), "room"))
    _, _, broken = page.text.partition("What is missing")
    assert f"{name} is there, but" in broken
    assert "Make the package again." in broken
    assert "room-glb" in page.scripts


def test_rows_of_the_table_that_are_short_long_or_no_numbers_are_shown_as_they_stand():
    csv = b"what,name,value,unit,sigma,confidence,note\nwidth,a\nwidth,b,wide,m,,,\nwidth,c,1,m,0.1,,,more,and more\n"
    page = Elements(room_page(rooms.package(measurements_csv=csv), "room"))
    assert "wide m" in page.text
    assert "1.00\u00a0m ± 10.0 cm" in page.text


def test_the_same_package_gives_the_same_page():
    assert room_page(rooms.package(), "room") == room_page(rooms.package(), "room")
