"""What docs/uploads.md says is so."""

from __future__ import annotations

import json
import re

import pytest

from geomagic_dagster.console import roles
from geomagic_dagster.console.origins import VARIABLE, allowed_origins
from geomagic_dagster.console.scans import tus, uploads
from geomagic_dagster.console.scans.models import Scope, State
from geomagic_dagster.console.scans.outcomes import AGAIN
from tests.conftest import REPOSITORY
from tests.console.scans.conftest import archive

pytestmark = pytest.mark.django_db
PAGE = (REPOSITORY / "docs" / "uploads.md").read_text()


def test_states_scopes_and_extensions_are_all_named():
    for word in (*State.values, *Scope.values, *tus.EXTENSIONS.split(",")):
        assert word in PAGE, word


def test_messages_settings_and_limits_are_named():
    for word in (AGAIN, "scan.done", "reopened_at", VARIABLE, f"{uploads.Limits().silence_s:g} s"):
        assert word in PAGE, word
    (said,) = re.findall(rf"{VARIABLE}=(\S+)", PAGE)
    assert len(allowed_origins(said)) == 2
    assert uploads.Limits().senders == 4 and "Four uploads" in PAGE
    assert uploads.Limits().open_uploads == 5 and "five open\n  uploads" in PAGE
    assert "GEOMAGIC_KEEP_UPLOADS_DAYS" in PAGE and f"--role {roles.SENDER}" in PAGE


def test_its_three_calls_do_what_it_says(api, taken):
    content = archive()
    (said,) = re.findall(r'-d "(\{.*?\})"', PAGE)
    body = said.replace("\\", "").replace("$(stat -c %s kitchen.zip)", str(len(content)))
    assert json.loads(body)["name"] == "kitchen.zip"
    created = api.call("POST", "/api/scans", body.encode())
    assert created.status_code == 201
    url = created.json()["url"]
    sent = api.call("PATCH", url, content, "application/offset+octet-stream", Upload_Offset="0")
    assert sent.status_code == 204 and api.state(url)["state"] == "queued"
