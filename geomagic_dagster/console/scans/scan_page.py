"""The console's page of one scan: its room in 3D, what was measured, its runs, and what can be done with it.

Belongs here: what is on that page, and the pages of its actions. Does not belong here: lists (admin.py), what the
sender sees (pages.py), what an action does (actions.py).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.views.decorators.http import require_http_methods
from pydantic import ValidationError

from geomagic_dagster.console import roles
from geomagic_dagster.console.registry import service
from geomagic_dagster.console.registry.actions import ReasonForm
from geomagic_dagster.console.registry.audit import Actor
from geomagic_dagster.console.registry.models import AuditEntry
from geomagic_dagster.console.scans import actions, describing
from geomagic_dagster.console.scans.dagster_link import run_url
from geomagic_dagster.console.scans.models import Scan, State
from geomagic_dagster.cv.room_model import RoomDocument
from geomagic_dagster.launching.intake import Refused

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; connect-src 'self' data: blob:; "
    "style-src 'self' 'unsafe-inline'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""The 3D viewer brings its own style and a decoder in WebAssembly, and makes pictures of the model's; nothing comes
from elsewhere."""
COLOURS = {
    "done": "default", "running": "flighted", "queued": "staged", "received": "staged", "receiving": "tested",
    "rejected": "revoked", "failed": "revoked", "cancelled": "archived", "expired": "archived",
}  # fmt: skip
MOST_ROWS = 200


def badge(scan: Scan) -> str:
    """Its state as a coloured word."""
    said = "cancelling" if scan.is_cancelling and not scan.is_over else scan.state
    if scan.quarantined_at is not None and scan.is_over:
        said = "quarantined"
    return format_html('<span class="state state-{}">{}</span>', COLOURS[scan.state], said)


class RerunForm(ReasonForm):
    release = forms.ChoiceField(help_text="One that is live.")
    pin = forms.BooleanField(required=False, help_text="Later uploads of this name go to it too, until it is unpinned.")
    field_order = ["release", "pin", "reason"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        live = settings.PLACES.routing().read().table.live
        self.fields["release"].choices = [(line, line) for line in live]  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class Action:
    """One row of the table below."""

    label: str
    does: str
    run: Callable[[Actor, Scan, dict[str, Any]], Any]
    is_over: bool
    """Whether it is for scans that are over, or for those on their way."""
    form: type[ReasonForm] = ReasonForm


ACTIONS = {
    "rerun_scan": Action(
        "Run again",
        "processes it once more, with a release of your choice; the new package takes the place of the old one",
        lambda actor, scan, said: actions.rerun(scan, said["release"], actor, said["reason"], pin=said["pin"]),
        True,
        RerunForm,
    ),
    "quarantine_scan": Action(
        "Quarantine",
        "puts its upload aside; only operators see its package any more, and its sender is told the reason",
        lambda actor, scan, said: actions.quarantine(scan, actor, said["reason"]),
        True,
    ),
    "cancel_scan": Action(
        "Cancel",
        "ends its upload or its run, and puts the upload aside",
        lambda actor, scan, said: actions.cancel(scan, actor, said["reason"]),
        False,
    ),
}


def page(request: HttpRequest, scan: Scan) -> HttpResponse:
    """Everything about one scan."""
    is_open = describing.is_open(scan, request.user)
    files = {path.name: path for path in describing.package_files(scan)} if is_open else {}
    room = _room(files)
    said = describing.described(scan)
    context = {
        "title": scan.name,
        "opts": Scan._meta,
        "scan": scan,
        "said": said,
        "badge": badge(scan),
        "files": [{"name": path.name, "bytes": path.stat().st_size} for path in files.values()],
        "names": set(files),
        "facts": _facts(room) if isinstance(room, RoomDocument) else [],
        "warnings": room.warnings if isinstance(room, RoomDocument) else [],
        "without": room if isinstance(room, str) else _without(scan, is_open),
        "measurements": _measurements(files),
        "runs": [{"run": run, "url": run_url(run.pk)} for run in scan.runs.all()],
        "deliveries": scan.deliveries.all(),
        "entries": AuditEntry.objects.filter(object=f"scan {scan.pk}")[:30],
        "actions": [
            (name, action.label)
            for name, action in ACTIONS.items()
            if action.is_over == scan.is_over and roles.allows(request.user, name)
        ],
        "status_page": said["status_page"],
    }
    answer = _answer(request, "scans/scan.html", context)
    answer["Content-Security-Policy"] = POLICY
    return answer


@require_http_methods(["GET", "HEAD", "POST"])
def do(request: HttpRequest, pk: UUID, action: str) -> HttpResponse:
    """One action: what it does and a form that asks why; then it is done, or refused in words."""
    scan = get_object_or_404(Scan, pk=pk)
    back = reverse("admin:scans_scan_change", args=[pk])
    known = ACTIONS.get(action)
    if known is None:
        return redirect(back)
    context = {"title": known.label, "action": known, "name": action, "target": scan.name, "back": back}
    try:
        roles.require(request.user, action)
    except roles.NotAllowed as refused:
        return _answer(request, "console/do.html", context | {"refused": str(refused)}, HTTPStatus.FORBIDDEN)
    try:
        form = context["form"] = known.form(request.POST or None)
    except service.REFUSALS as refused:  # which releases are live, nobody knows
        return _answer(request, "console/do.html", context | {"refused": str(refused)}, HTTPStatus.CONFLICT)
    if request.method != "POST" or not form.is_valid():
        return _answer(request, "console/do.html", context)
    try:
        known.run(Actor.of(request), scan, form.cleaned_data)
    except (Refused, roles.NotAllowed, *service.REFUSALS) as refused:
        return _answer(request, "console/do.html", context | {"refused": str(refused)}, HTTPStatus.CONFLICT)
    messages.success(request, f"{known.label}: done.")
    return redirect(back)


def _room(files: dict[str, Path]) -> RoomDocument | str | None:
    """The package's room.json; in words why it says nothing; None where there is none."""
    try:
        return RoomDocument.model_validate_json(files["room.json"].read_bytes())
    except ValidationError:
        return "room.json is broken: expected a room document"
    except (KeyError, FileNotFoundError):  # another package takes its place at this moment
        return None


def _without(scan: Scan, is_open: bool) -> str:
    """Why there is no package to be seen, in words."""
    if scan.quarantined_at is not None:
        return "none was made before it was put into quarantine" if is_open else "in quarantine: only operators see it"
    if not scan.is_over:
        return "no package yet"
    if scan.state == State.DONE:
        return "it has a package, but not where packages are published: run it again"
    return f"none: the scan is {scan.state}"


def _facts(room: RoomDocument) -> list[tuple[str, str]]:
    """The room in numbers."""
    from geomagic_dagster.cv.floor_plan_dimensions import with_sigma

    measured = room.measured
    quantities = (
        ("Floor", measured.area, "m²"),
        ("Ceiling height", measured.height, "m"),
        ("Perimeter", measured.perimeter, "m"),
        ("Volume", measured.volume, "m³"),
    )
    facts = [
        (name, " ".join((f"{figure} {unit}", spread)).strip())
        for name, each, unit in quantities
        if each is not None
        for figure, spread in [with_sigma(each.value, each.sigma or None)]  # as the floor plan below has them
    ]
    openings = len(room.doors) + len(room.windows) + len(room.openings)
    counts = (("Walls", len(room.walls)), ("Doors, windows, openings", openings), ("Furniture", len(room.boxes())))
    return facts + [(name, str(count)) for name, count in counts]


def _measurements(files: dict[str, Any]) -> list[dict[str, str]]:
    if "measurements.csv" not in files:
        return []
    rows = csv.DictReader(io.StringIO(files["measurements.csv"].read_text("utf-8-sig", "replace")), restval="")
    return [
        row | {"value": _rounded(row.get("value", "")), "sigma": _rounded(row.get("sigma", ""))}
        for row, _ in zip(rows, range(MOST_ROWS), strict=False)
    ]


def _rounded(number: str) -> str:
    """To the millimetre, as far as it is a number."""
    try:
        return f"{float(number):.3f}"
    except ValueError:
        return number


def _answer(request: HttpRequest, template: str, context: dict[str, Any], status: int = HTTPStatus.OK) -> HttpResponse:
    return TemplateResponse(request, template, admin.site.each_context(request) | context, status=status)
