"""The shapes of the API's requests and answers, as its OpenAPI description has them.

Belongs here: those shapes. Does not belong here: what fills them (describing.py).
"""

from __future__ import annotations

from typing import Any, Literal

from ninja import Schema
from pydantic import ConfigDict, Field

from geomagic_dagster.console.scans import tus


class Error(Schema):
    """Every refusal: place, what was expected, what came, what to do next."""

    error: str


class NewScan(Schema):
    """What is to be sent."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=500, description="Any text; an archive's file name will do.")
    bytes: int = Field(ge=1, le=10**15, strict=True, description="How many bytes the archive has.")
    sha256: str = Field("", pattern=r"^([0-9a-fA-F]{64})?$", description="Of the whole archive: checked at its end.")
    webhook: str = Field("", max_length=500, description="An https URL that is told how the scan ended.")


class ProgressSaid(Schema):
    """How far the processing is."""

    done: int = Field(description="Steps that are over.")
    stages: int
    stage: str
    per_cent: float | None = Field(description="Of this step, where it says so.")
    overall: float = Field(description="Per cent of all steps.")


class FileSaid(Schema):
    """A file of the package."""

    name: str
    bytes: int
    url: str


class ScanSaid(Schema):
    """A scan, as its sender sees it."""

    id: str
    name: str
    state: Literal[
        "receiving", "received", "queued", "running", "cancelling",
        "done", "rejected", "failed", "cancelled", "expired",
    ]  # fmt: skip
    message: str = Field(description="One sentence for people.")
    reason: str = Field(description="Why it is rejected, or waits; what to do next.")
    bytes_received: int
    bytes_total: int | None
    created_at: str
    finished_at: str | None
    reopened_at: str | None = Field(
        description="When it was taken up again, since the version that could not use it was taken back."
    )
    expires_at: str | None
    progress: ProgressSaid | None
    files: list[FileSaid]
    release: str
    url: str
    status_page: str = Field(description="For a browser, without a token, for thirty days.")


class Scans(Schema):
    """A page of them, the newest first."""

    scans: list[ScanSaid]
    next_before: str | None


def ERRORS(*statuses: int) -> dict[int, Any]:
    return dict.fromkeys(statuses, Error)


def _header(name: str, description: str, *, required: bool = False, **schema: Any) -> dict[str, Any]:
    return {
        "in": "header",
        "name": name,
        "required": required,
        "description": description,
        "schema": {"type": "string", **schema},
    }


TUS_HEADERS = [
    _header("Idempotency-Key", "The same key again answers the same scan.", maxLength=200, pattern="^[!-~]*$"),
    _header("Tus-Resumable", "The version of tus.", enum=[tus.VERSION]),
]
PART_HEADERS = [
    _header("Upload-Offset", "Where these bytes belong.", required=True, pattern="^[0-9]{1,18}$"),
    _header("Tus-Resumable", "The version of tus.", enum=[tus.VERSION]),
    _header("Upload-Checksum", "sha256, a space, the base64 of the digest of these bytes."),
]
CREATE_BODY = {
    "required": True,
    "description": "With the header Upload-Length (tus) no body, or the first bytes; else this JSON.",
    "content": {"application/json": {"schema": NewScan.model_json_schema()}},
}
