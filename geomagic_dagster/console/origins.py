"""Sites whose pages may call the API from a browser: tus-js-client and Uppy on a partner's own page.

Belongs here: which origins a setting names, and the headers that such a page may send and read. Does not belong here:
answering a browser that asks (django-cors-headers does it, settings.py says for which addresses).
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

VARIABLE = "GEOMAGIC_CONSOLE_ORIGINS"
ORIGIN = re.compile(r"https?://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[1-9][0-9]*)?")
USUAL_PORT = {"https": 443, "http": 80}
ASKED_WITH = [
    "authorization",
    "content-type",
    "idempotency-key",
    "tus-resumable",
    "upload-checksum",
    "upload-defer-length",
    "upload-length",
    "upload-metadata",
    "upload-offset",
    "x-request-id",
]
"""tus 1.0 with the extensions that the API speaks, our own, and what tus-js-client adds when asked to."""
ANSWERED_WITH = [
    "Location",
    "Retry-After",
    "Tus-Checksum-Algorithm",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Resumable",
    "Tus-Version",
    "Upload-Expires",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Offset",
]


def allowed_origins(said: str) -> list[str]:
    """The origins of a comma separated list, each of them whole. Raises: ImproperlyConfigured.

    An origin is compared letter by letter with what browsers send: no pattern, no path, no port that goes without
    saying.
    """
    return [_origin(each) for each in (part.strip() for part in said.split(",")) if each]


def _origin(said: str) -> str:
    try:
        parts = urlsplit(said)
        is_right = ORIGIN.fullmatch(said) is not None and parts.port not in (0, USUAL_PORT.get(parts.scheme))
    except ValueError:  # no port, no address
        is_right = False
    if not is_right:
        raise ImproperlyConfigured(
            f"{VARIABLE}: expected origins as browsers send them, like https://app.example.org, comma separated; got "
            f"{said[:100]!r}. Write scheme and host in small letters, a port only where it is no usual one, nothing "
            "behind it, and no * for all."
        )
    return said
