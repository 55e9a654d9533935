"""Tokens, uploads and places for the tests of scans."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from pathlib import Path

import pytest
from dagster import DagsterInstance
from django.core.cache import cache
from django.test import Client

from geomagic_dagster.console.scans import dagster_link, tokens
from geomagic_dagster.resources.places import Places
from tests.console.scans.intake_stand_in import intake

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = "application/offset+octet-stream"


def archive(content: bytes = b"frames " * 1000) -> bytes:
    """A zip of one file that does not shrink."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as zipped:
        zipped.writestr("scan.txt", content)
    return packed.getvalue()


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Api:
    """The API as a client with one token sees it."""

    def __init__(self, secret: str = "") -> None:
        self.client, self.secret = Client(), secret

    def call(self, method: str, path: str, body: bytes = b"", kind: str = "application/json", **headers: str):
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.secret:
            said.setdefault("Authorization", f"Bearer {self.secret}")
        return self.client.generic(method, path, body, kind, headers=said)

    def create(self, content: bytes = b"", name: str = "room.zip", **more):
        said = {"name": name, "bytes": len(content)} | more
        return self.call("POST", "/api/scans", json.dumps(said).encode())

    def created(self, content: bytes, name: str = "room.zip", **more) -> str:
        answer = self.create(content, name, **more)
        assert answer.status_code == 201, answer.content
        return answer.json()["url"]

    def patch(self, url: str, content: bytes, offset: int = 0, **headers: str):
        return self.call("PATCH", url, content, BYTES, Upload_Offset=str(offset), **TUS, **headers)

    def offset(self, url: str) -> int:
        answer = self.call("HEAD", url, **TUS)
        assert answer.status_code == 200, answer.status_code
        return int(answer.headers["Upload-Offset"])

    def send(self, content: bytes, name: str = "room.zip", **more) -> str:
        url = self.created(content, name, **more)
        answer = self.patch(url, content)
        assert answer.status_code == 204, answer.content
        return url

    def state(self, url: str) -> dict:
        return self.call("GET", url).json()


@pytest.fixture(autouse=True)
def nothing_remembered():
    """How far a run is, is remembered for a moment."""
    cache.clear()


@pytest.fixture
def home(tmp_path, settings) -> Path:
    settings.HOME = tmp_path
    settings.PLACES = Places.in_home(tmp_path)
    return tmp_path


@pytest.fixture
def inbox(home) -> Path:
    return home / "inbox"


@pytest.fixture
def instance(home):
    """A Dagster instance of its own, in memory."""
    with DagsterInstance.ephemeral() as instance, pytest.MonkeyPatch.context() as patch:
        dagster_link.instance.cache_clear()
        for module in ("describing", "actions", "worker", "retention"):
            patch.setattr(f"geomagic_dagster.console.scans.{module}.instance", lambda: instance)
        yield instance


@pytest.fixture
def taken(home, inbox):
    """An intake that takes everything in; the names of what it took."""
    with intake(home, inbox) as taken:
        yield taken


@pytest.fixture
def ada(make_user):
    return make_user("ada", "operator")


@pytest.fixture
def api(ada, home, instance) -> Api:
    return Api(tokens.make(ada, "app", ["upload"])[1])
