"""Pages of the registry that are no list of a table: the front page, traffic, lead time, one for every action.

Belongs here: what is on them. Does not belong here: lists and details of tables (admin.py), what an action does
(service.py).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from geomagic_dagster.console import roles
from geomagic_dagster.console.registry import draft, flights, lead_time, service
from geomagic_dagster.console.registry.actions import ACTIONS, links
from geomagic_dagster.console.registry.audit import Actor
from geomagic_dagster.console.registry.course_drawing import draw
from geomagic_dagster.console.registry.models import Approval, AuditEntry, Incident, Release
from geomagic_dagster.console.registry.sync import look
from geomagic_dagster.console.registry.table_words import flag_words
from geomagic_dagster.flighting.promote import present_and_before
from geomagic_dagster.releases.lifecycle import State
from geomagic_dagster.releases.routing import RoutingRefused, RoutingUnavailable

REVISIONS_A_PAGE = 25
OVER = (State.SUPERSEDED, State.ARCHIVED, State.REVOKED)


def dashboard(request: HttpRequest) -> dict[str, Any]:
    """What somebody wants to know first: who gets traffic, what waits for whom, what is wrong."""
    seen = look()
    releases = list(Release.objects.all()[:100])
    proposed = [each for each in releases if each.state == State.PROPOSED]
    return {
        "seen": seen,
        "flights": flights.flown(seen.table) if seen.table else [],
        "problems": [*seen.problems, *filter(None, (each.standing.problem for each in releases))],
        "incidents": Incident.objects.filter(closed_at=None).select_related("release"),
        "on_their_way": [row(request, each) for each in releases if each.state not in OVER],
        "draft": draft.changes(releases),
        "over": [each for each in releases if each.state in OVER][:5],
        "your_turn": [each for each in proposed if _may_approve(request, each)],
        "summary": lead_time.summary(),
        "recent": AuditEntry.objects.all()[:8],
    }


def row(request: HttpRequest, release: Release) -> dict[str, Any]:
    """A release with what can be done about it now."""
    missing = service.missing_approvals(release) if release.state == State.PROPOSED else ()
    return {"release": release, "links": links(request.user, release), "missing": missing}


def _may_approve(request: HttpRequest, release: Release) -> bool:
    is_asked = roles.allows(request.user, "approve") and release.proposed_by != request.user.get_username()
    given = Approval.objects.filter(release=release, proposal=release.proposal, user_id=request.user.pk)
    return is_asked and not given.exists()


@require_safe
def traffic(request: HttpRequest) -> HttpResponse:
    """The routing table in force, in words, and every revision before it."""
    seen = look()
    history = AuditEntry.objects.exclude(revision=None).order_by("-revision")
    context = {
        "title": "Traffic",
        "seen": seen,
        "flights": flights.flown(seen.table) if seen.table else [],
        "ended": flights.ended(seen.table),
        "flags": {name: flag_words(flag) for name, flag in seen.table.flags.items()} if seen.table else {},
        "actions": [
            (name, ACTIONS[name].label)
            for name in ("roll_back", "set_pin", "set_flag")
            if roles.allows(request.user, name)
        ],
        "may_end": roles.allows(request.user, "end_flight"),
        "page": Paginator(history, REVISIONS_A_PAGE).get_page(request.GET.get("page")),
    }
    return _page(request, "console/traffic.html", context)


@require_safe
def flight(request: HttpRequest, flight: str) -> HttpResponse:
    """One flight, also when it is over: what was done to it, its numbers, and the uploads that were taken up again."""
    seen = look()
    story = flights.story(flight)
    if story is None:
        raise Http404(f"flight {flight}: expected one that the routing table or a run knows")
    is_flying = seen.table is not None and flight in {each.id for each in seen.table.flights}
    context = {
        "title": f"Flight {flight}",
        "seen": seen,
        "story": story,
        "again": story.again,
        "drawing": draw(story.course) if story.course else None,
        "is_flying": is_flying,
        "may_end": roles.allows(request.user, "end_flight"),
    }
    return _page(request, "console/flight.html", context)


@require_safe
def lead_times(request: HttpRequest) -> HttpResponse:
    """Change by change: from its commit to the first customer's scan, and to the default."""
    look()
    page = Paginator(lead_time.changes(), REVISIONS_A_PAGE).get_page(request.GET.get("page"))
    context = {
        "title": "Lead time",
        "page": page,
        "leads": [lead_time.lead(each) for each in page],
        "summary": lead_time.summary(),
    }
    return _page(request, "console/lead_time.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def do(request: HttpRequest, action: str, target: str = "") -> HttpResponse:
    """One action: what it does and a form that asks why; then it is done, or refused in words."""
    known = ACTIONS.get(action)
    if known is None or (known.target == "none") != (target == ""):
        raise Http404(f"{action}: expected one of {', '.join(ACTIONS)}, with what it is done to")
    context = {
        "title": known.label,
        "action": known,
        "name": action,
        "target": target,
        "back": _back(known.target, target),
    }
    try:
        roles.require(request.user, action)
    except roles.NotAllowed as refused:
        return _refused(request, context, refused, HTTPStatus.FORBIDDEN)
    if action == "roll_back":
        context["effect"] = _rolled_back()
    form = known.form(request.POST or None)
    form.fit(request.user)
    context["form"] = form
    if known.target == "release":
        context["release"] = release = Release.objects.filter(version=target).first()
        if release is None:
            raise Http404(f"release {target}: expected one that was cut")
        try:
            release.standing.check(action)
        except service.REFUSALS as refused:
            return _refused(request, context, refused, HTTPStatus.CONFLICT)
    if request.method != "POST" or not form.is_valid():
        status = HTTPStatus.UNPROCESSABLE_ENTITY if request.method == "POST" else HTTPStatus.OK
        return _page(request, "console/do.html", context, status)
    try:
        known.run(Actor.of(request), target, form.cleaned_data)
    except roles.NotAllowed as refused:
        return _refused(request, context, refused, HTTPStatus.FORBIDDEN)
    except service.REFUSALS as refused:
        return _refused(request, context, refused, HTTPStatus.CONFLICT)
    messages.success(request, f"{known.label}: done.")
    return redirect(context["back"])


def _rolled_back() -> str:
    """From where to where rolling back would go, before anybody says yes to it."""
    try:
        present, before = present_and_before(settings.PLACES.routing())
    except (RoutingRefused, RoutingUnavailable) as refused:
        return str(refused)
    return f"The default is {present} now, and {before} then."


def _refused(request: HttpRequest, context: dict[str, Any], refused: Exception, status: HTTPStatus) -> HttpResponse:
    return _page(request, "console/do.html", context | {"refused": str(refused)}, status)


def _back(kind: str, target: str) -> str:
    if kind == "release":
        release = Release.objects.filter(version=target).first()
        return reverse("admin:registry_release_change", args=[release.pk]) if release else reverse("admin:index")
    if kind == "incident":
        return reverse("admin:registry_incident_changelist")
    return reverse("admin:traffic") if kind == "flight" else reverse("admin:index")


def _page(request: HttpRequest, template: str, context: dict[str, Any], status: int = HTTPStatus.OK) -> HttpResponse:
    return TemplateResponse(request, template, admin.site.each_context(request) | context, status=status)
