"""What every answer of the console carries, unless its page says something stricter.

Belongs here: those headers. Does not belong here: those of Django's own middlewares (settings.py), of pages that show
what somebody uploaded (scans/files.py, scans/pages.py, scans/scan_page.py).
"""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Scripts and styles are files of ours: text that somebody smuggles into a page does nothing there."""


def careful(answer_to: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: no script but ours, and no cache keeps what may be about somebody."""

    def answer(request: HttpRequest) -> HttpResponseBase:
        said = answer_to(request)
        said.headers.setdefault("Content-Security-Policy", POLICY)
        said.headers.setdefault("Cache-Control", "no-store")
        return said

    return answer
