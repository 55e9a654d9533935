"""What is made to harm, sent as any upload is: it ends in a sentence for its sender, and nowhere else.

The bytes go through the API, and the run that an intake would start is run here. Archives alone are in
tests/scans/test_hostile_archives.py; the same with real processes is in test_installation.py.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from geomagic_dagster.assets import steps
from geomagic_dagster.console.scans import following, webhooks
from geomagic_dagster.console.scans.models import Delivery
from geomagic_dagster.guardrails import child
from geomagic_dagster.guardrails.words import LETTERS
from tests.console.scans.hostile import HOSTILE, HTML, packed, room
from tests.console.scans.test_following import tags_in
from tests.toy_stages.installation import Toys

pytestmark = pytest.mark.django_db
HOOK = "https://93.184.216.34/hook"


@pytest.fixture
def toys(home, monkeypatch) -> Toys:
    """Every step in this process: that a step of its own ends well is another test's."""
    monkeypatch.setattr("geomagic_dagster.guardrails.retries.FIRST_DELAY_S", 0.0)
    monkeypatch.setattr(child, "call", lambda function, request, *, log, **_: function(request, log))
    monkeypatch.setattr(steps, "_begin", lambda request: None)
    return Toys(home)


@pytest.fixture
def scratch(tmp_path_factory, monkeypatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def sent(api, toys, instance, taken, monkeypatch):
    """Sends bytes and processes them; what its sender is told."""
    told: list[dict] = []
    monkeypatch.setattr(webhooks, "_post", lambda delivery: (told.append(json.loads(delivery.body)) or 200, ""))

    def send(content: bytes, name: str = "room.zip") -> dict:
        url = api.created(content, name, webhook=HOOK)
        answer = api.patch(url, content)
        if answer.status_code == 204:
            toys.process(toys.inbox / taken[-1], instance, tags=tags_in(toys.inbox, taken[-1]))
            following.follow(instance)
        webhooks.deliver_due()
        said = api.state(url)
        assert told == [] or told[-1]["data"]["reason"] == said["reason"]
        said["told"] = bool(told)
        return said

    return send


def outside(home: Path) -> set[str]:
    """Files beside those that this installation makes."""
    ours = ("inbox", "quarantine", "failed", "done", "store", "packages", "dagster", "artefacts", "routing")
    return {path.name for path in home.iterdir() if path.name not in ours}


@pytest.mark.parametrize(("make", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_it_ends_in_a_sentence_that_its_sender_reads(make, words, sent, api, home, toys, scratch):
    before = outside(home)
    said = sent(make())
    assert said["state"] == "rejected", said
    assert words in said["reason"] and ": expected " in said["reason"]
    assert said["reason"].isprintable() and len(said["reason"]) <= LETTERS + len(" … ")
    assert said["told"] and Delivery.objects.get().delivered_at
    page = api.client.get(said["status_page"])
    assert page.status_code == 200 and b"<script>" not in page.content
    assert str(home) not in said["reason"] + page.content.decode(), "where things lie is nobody's matter"
    assert [path.name for path in toys.inbox.iterdir() if not path.name.startswith(".")] == []
    assert outside(home) == before and not (home / "packages").exists()
    assert list(scratch.iterdir()) == [], "nothing is unpacked to a place that stays"


def test_one_that_nobody_can_note_keeps_no_other_from_being_told(api, toys, instance, taken, monkeypatch):
    """As an older release makes them, whose sentences hold whatever was in the upload."""
    monkeypatch.setattr(following, "plain", lambda text: text)
    monkeypatch.setattr("geomagic_dagster.guardrails.failures.plain", lambda text: text)
    urls = [api.send(HOSTILE[each][0](), f"{i}.zip") for i, each in enumerate(("a name of half a letter", "a bomb"))]
    for name in taken:
        toys.process(toys.inbox / name, instance, tags=tags_in(toys.inbox, name))
    following.follow(instance)
    assert api.state(urls[1])["state"] == "rejected"
    monkeypatch.undo()
    following.follow(instance)
    assert api.state(urls[0])["state"] == "rejected"


def test_what_is_beside_the_scan_is_never_handed_out(sent, api):
    """A good scan with pages in it: they are in no package."""
    said = sent(
        packed({**_files(room()), "index.html": HTML, "plan.svg": HTML, "Room.json": b"{}", "ROOM.JSON": b"[]"})
    )
    assert said["state"] == "done"
    assert sorted(each["name"] for each in said["files"]) == ["empty.bin", "letter.txt"]
    for name in ("index.html", "plan.svg", "..%2fscan.json", "%2e%2e/%2e%2e/console.secret"):
        assert api.call("GET", f"{said['url']}/files/{name}").status_code == 404
    answer = api.call("GET", said["files"][0]["url"])
    assert answer.headers["Content-Type"] in ("application/octet-stream", "text/plain; charset=utf-8")
    assert answer.headers["Content-Disposition"].startswith("attachment")


def test_names_that_only_a_mac_takes_for_one_are_two(sent):
    """Case, and letters composed or not: a scan is never unpacked, so none takes the other's place."""
    assert sent(packed({**_files(room()), "A.txt": b"1", "a.txt": b"2"}))["state"] == "done"
    said = sent(packed({**_files(room()), "\u00e9.txt": b"1", "e\u0301.txt": b"2"}), "again.zip")
    assert said["state"] == "rejected" and "é.txt: expected each name once; got two files" in said["reason"]


def _files(content: bytes) -> dict[str, bytes]:
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
