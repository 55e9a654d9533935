"""Pages for people: the status of one scan for whoever sent it, and a scan's files and room.

Belongs here: those pages, and who may see them. Does not belong here: lists and actions (admin.py), the API (api.py).

Whoever sent a scan has a link with a signature, that opens this scan and nothing else, without a login.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_not_required  # pyright: ignore[reportAttributeAccessIssue]
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from geomagic_dagster.console import roles
from geomagic_dagster.console.client import counted_as
from geomagic_dagster.console.scans import rates
from geomagic_dagster.console.scans.describing import described, is_open, package_file, package_folder, scan_of_link
from geomagic_dagster.console.scans.files import file_answer
from geomagic_dagster.console.scans.models import Scan, State
from geomagic_dagster.console.scans.refusals import Refused
from geomagic_dagster.viewer.folders import package_files
from geomagic_dagster.viewer.page import POLICY, room_page

STATUS_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REFRESH_S = {State.RECEIVING: 5, State.RECEIVED: 2, State.QUEUED: 3, State.RUNNING: 2}
View = Callable[..., HttpResponse | FileResponse]


def by_link(view: View) -> View:
    """With the signed link's scan in place of its key; 404 for what we have not signed, or too long ago."""

    @login_not_required
    @require_safe
    @wraps(view)
    def answer(request: HttpRequest, key: str, **more: Any) -> HttpResponse | FileResponse:
        try:
            rates.count("page", counted_as(request))
        except Refused as refused:
            return HttpResponse(str(refused), status=429, headers=refused.headers, content_type="text/plain")
        scan = scan_of_link(key)
        if scan is None:
            return _private(render(request, "scans/no_such_link.html", status=404))
        return view(request, scan, **more)

    return answer


def by_role(view: View) -> View:
    """For whoever is logged in and may see scans."""

    @require_safe
    @wraps(view)
    def answer(request: HttpRequest, pk: str, **more: Any) -> HttpResponse | FileResponse:
        if not roles.allows(request.user, "view"):
            raise Http404
        return view(request, get_object_or_404(Scan, pk=pk), **more)

    return answer


def _status(request: HttpRequest, scan: Scan) -> HttpResponse:
    """One phone-wide page that refreshes itself until the scan is over."""
    said = described(scan)
    received = 100.0 * said["bytes_received"] / scan.bytes_total if scan.bytes_total else 0.0
    progress = said["progress"]
    content = {
        "scan": scan,
        "said": said,
        "base": request.path.removesuffix("/status"),
        "refresh_s": REFRESH_S.get(State(scan.state)),
        "received_per_cent": received if scan.state == State.RECEIVING else None,
        "overall": progress["overall"] if progress else None,
        "files": [file["name"] for file in said["files"]],
        "has_picture": any(file["name"] == "preview.png" for file in said["files"]),
    }
    return _private(render(request, "scans/status.html", content))


def _file(request: HttpRequest, scan: Scan, name: str) -> FileResponse:
    path = package_file(scan, name) if is_open(scan, request.user) else None
    if path is None:
        raise Http404
    return file_answer(path, may_show="download" not in request.GET)


def _room(request: HttpRequest, scan: Scan) -> HttpResponse:
    """The page of the room, whole: it needs nothing else, and its policy lets it ask for nothing else."""
    folder = package_folder(scan) if is_open(scan, request.user) else None
    if folder is None:
        raise Http404
    answer = HttpResponse(room_page(package_files(folder), scan.name))
    answer["Content-Security-Policy"] = f"{POLICY}; frame-ancestors 'none'"
    answer["Referrer-Policy"] = "no-referrer"
    answer["Cache-Control"] = "private, no-cache"
    return answer


def _private(answer: HttpResponse) -> HttpResponse:
    answer["Content-Security-Policy"] = STATUS_POLICY
    answer["Referrer-Policy"] = "no-referrer"
    answer["Cache-Control"] = "private, no-store"
    answer["X-Robots-Tag"] = "noindex"
    return answer


status_by_link, file_by_link, room_by_link = by_link(_status), by_link(_file), by_link(_room)
status, file, room = by_role(_status), by_role(_file), by_role(_room)
