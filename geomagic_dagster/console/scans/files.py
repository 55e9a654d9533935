"""Files of packages over HTTP: none of them ever runs in the console's name.

Belongs here: content types and the headers around them. Does not belong here: which files there are (describing.py).
"""

from __future__ import annotations

from pathlib import Path

from django.http import FileResponse

from geomagic_dagster.viewer.server import FILE_POLICY, TYPES

UNKNOWN = "application/octet-stream"
SHOWN = (".png", ".jpg", ".svg", ".glb")
"""What the console's own pages show; everything else is only ever downloaded."""


def file_answer(path: Path, *, may_show: bool = False) -> FileResponse:
    """A file as a download, or, on our own pages, as a picture or a model."""
    suffix = path.suffix.lower()
    is_shown = may_show and suffix in SHOWN
    answer = FileResponse(
        open(path, "rb"),  # noqa: SIM115 - the response closes it
        as_attachment=not is_shown,
        filename=path.name,
        content_type=TYPES.get(suffix, UNKNOWN),
    )
    answer["Content-Security-Policy"] = f"{FILE_POLICY}; frame-ancestors 'none'"
    answer["X-Content-Type-Options"] = "nosniff"
    answer["Cross-Origin-Resource-Policy"] = "same-origin"
    answer["Referrer-Policy"] = "no-referrer"
    answer["Cache-Control"] = "private, no-cache"
    return answer
