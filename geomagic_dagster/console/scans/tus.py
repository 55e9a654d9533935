"""The headers of tus 1.0, the protocol of resumable uploads (https://tus.io/protocols/resumable-upload).

Belongs here: reading and writing headers. Does not belong here: what is done (uploads.py, receiving.py).
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from email.utils import format_datetime

from django.http import HttpRequest, HttpResponse

from geomagic_dagster.console.scans.models import Scan, State
from geomagic_dagster.console.scans.receiving import DIGESTS
from geomagic_dagster.console.scans.refusals import Refused

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,expiration,termination,checksum"
BYTES = "application/offset+octet-stream"
METADATA_BYTES = 8192


def check_version(request: HttpRequest) -> None:
    """Raises Refused (412) for another version; a client that names none is taken as one of ours."""
    if (said := request.headers.get("Tus-Resumable")) not in (None, VERSION):
        raise Refused(
            "Tus-Resumable",
            expected=VERSION,
            received=repr(said[:20]),
            do="Speak tus 1.0.0.",
            status=412,
            headers={"Tus-Version": VERSION},
        )


def speak(answer: HttpResponse, scan: Scan | None = None) -> HttpResponse:
    """Adds what every answer of the protocol has."""
    answer["Tus-Resumable"] = VERSION
    answer["Cache-Control"] = "no-store"
    if scan is not None and scan.state == State.RECEIVING and scan.expires_at is not None:
        answer["Upload-Expires"] = format_datetime(_gmt(scan.expires_at), usegmt=True)
    return answer


def number(request: HttpRequest, header: str) -> int:
    """A header that is a number of bytes. Raises: Refused (400)."""
    said = request.headers.get(header, "")
    if not (said.isascii() and said.isdigit() and len(said) <= 18):
        raise Refused(
            header,
            expected="a whole number of bytes",
            received=repr(said[:40]) if said else "none",
            do="Send the header.",
            status=400,
        )
    return int(said)


def metadata(request: HttpRequest) -> dict[str, str]:
    """Upload-Metadata: keys, each with the base64 of its value. Raises: Refused (400)."""
    said = request.headers.get("Upload-Metadata", "")
    pairs = {}
    try:
        if len(said) > METADATA_BYTES:
            raise ValueError(f"{len(said)} letters")
        for each in filter(None, (part.strip() for part in said.split(","))):
            key, _, value = each.partition(" ")
            if key in pairs:
                raise ValueError(f"{key} twice")
            pairs[key] = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise Refused(
            "Upload-Metadata",
            expected="keys, each with a space and the base64 of UTF-8 text, comma separated",
            received=str(error)[:120],
            do="Mend the header.",
            status=400,
        ) from None
    return pairs


def checksum(request: HttpRequest) -> tuple[str, bytes] | None:
    """Upload-Checksum: (algorithm, digest). Raises: Refused (400)."""
    if (said := request.headers.get("Upload-Checksum")) is None:
        return None
    algorithm, _, encoded = said.partition(" ")
    try:
        digest = base64.b64decode(encoded, validate=True)
        if len(digest) != DIGESTS[algorithm]().digest_size:
            raise ValueError("length")
    except (KeyError, ValueError):
        raise Refused(
            "Upload-Checksum",
            expected=f"one of {', '.join(DIGESTS)}, a space, and the base64 of the digest",
            received=repr(said[:80]),
            do="Mend the header, or leave it out.",
            status=400,
        ) from None
    return algorithm, digest


def _gmt(at: datetime) -> datetime:
    from datetime import UTC

    return at.astimezone(UTC)
