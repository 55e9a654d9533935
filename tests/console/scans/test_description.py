"""The API keeps what its OpenAPI description promises, asked by schemathesis."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from geomagic_dagster.console.scans.models import Scan
from geomagic_dagster.console.scans.uploads import Limits
from tests.console.scans.conftest import BYTES, archive

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

EXAMPLES = 25
schemathesis.serializer.alias(BYTES, "application/octet-stream")
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    response_headers_conformance, ignored_auth,
]  # fmt: skip


@pytest.fixture
def description(api, taken, settings) -> Any:
    """As a client gets it, of the application itself."""
    from geomagic_dagster.console.wsgi import application

    settings.SCAN_RATES = dict.fromkeys(("call", "create", "bad token"), (10**6, 60))
    settings.UPLOAD_LIMITS = Limits(open_uploads=10**6)
    headers = {"Authorization": f"Bearer {api.secret}"}
    return schemathesis.openapi.from_wsgi("/api/openapi.json", application, headers=headers)


def test_the_description_needs_a_token_and_names_every_call(client, api):
    assert client.get("/api/openapi.json").status_code == 401
    said = api.call("GET", "/api/openapi.json").json()
    calls = {f"{method} {path}" for path, methods in said["paths"].items() for method in methods}
    assert calls == {
        "options /api/scans", "post /api/scans", "get /api/scans", "get /api/scans/{scan_id}", "head /api/scans/{scan_id}",
        "patch /api/scans/{scan_id}", "delete /api/scans/{scan_id}", "get /api/scans/{scan_id}/files/{name}",
    }  # fmt: skip


def test_every_answer_is_one_that_the_description_names(description, api, taken):
    """Of whatever is asked: half of the time about a scan that is there."""
    waiting, whole = api.created(b"12345"), api.send(archive())
    headers = {"Authorization": f"Bearer {api.secret}"}
    asked = set()
    for found in description.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy(), url=st.sampled_from(["", waiting, whole]))
        @hypothesis_settings(
            max_examples=EXAMPLES, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
        )
        def ask(case: Any, url: str) -> None:
            if url and "scan_id" in (case.path_parameters or {}):
                case.path_parameters["scan_id"] = url.rsplit("/", 1)[1]
            case.call_and_validate(checks=CHECKS, headers=headers)
            asked.add(case.operation.label)

        ask()
    assert len(asked) == 8
    assert Scan.objects.count() > 2, "nothing that was made up was taken"
