"""The console's admin site: its name, its front page, its own pages, who gets in.

Belongs here: what is true of all pages, and the list of those that no model has. Does not belong here: what is on
them (an app's admin.py and pages.py).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.auth.decorators import login_not_required  # pyright: ignore[reportAttributeAccessIssue]
from django.contrib.auth.forms import AuthenticationForm
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse
from django.utils.decorators import method_decorator

from geomagic_dagster.console import roles
from geomagic_dagster.console.client import counted_as
from geomagic_dagster.console.scans import rates
from geomagic_dagster.console.scans.refusals import Refused

ORDER = ("Release", "Traffic", "Incident", "Leadtime", "AuditEntry")
"""Of the links to the pages of the registry."""


class ConsoleSite(AdminSite):
    site_header = site_title = "geomagic"
    index_title = "Releases"
    site_url = ""
    index_template = "console/dashboard.html"
    login_form = AuthenticationForm  # a role lets people in, not Django's "staff"
    enable_nav_sidebar = False  # a strip of links at the top does it, also on a phone

    def has_permission(self, request: HttpRequest) -> bool:
        """Whoever may see it; what they may do there is a matter of roles.py."""
        user = request.user
        return bool(user.is_active and (user.is_superuser or roles.allows(user, "view")))

    @method_decorator(login_not_required)
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Limits what one address may try in all; what it may try on one name, axes limits."""
        if request.method == "POST":
            try:
                rates.count("login", counted_as(request))
            except Refused as refused:
                return HttpResponse(str(refused), status=429, headers=refused.headers, content_type="text/plain")
        return super().login(request, extra_context)

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """One's own; in the audit trail like the one that somebody else sets."""
        from geomagic_dagster.console.registry.audit import Actor, record

        with transaction.atomic():
            answer = super().password_change(request, extra_context)
            if request.method == "POST" and answer.status_code == HTTPStatus.FOUND:
                actor = Actor.of(request)
                record(actor, "change_user", f"user {actor.name}", after="new password")
        return answer

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        return super().each_context(request) | {"roles": ", ".join(sorted(roles.roles_of(request.user)))}

    def get_urls(self) -> list[Any]:
        from geomagic_dagster.console.registry import pages

        view = self.admin_view
        return [
            path("traffic/", view(pages.traffic), name="traffic"),
            path("traffic/<str:flight>/", view(pages.flight), name="flight"),
            path("lead-time/", view(pages.lead_times), name="lead_time"),
            path("do/<str:action>/", view(pages.do), name="do"),
            path("do/<str:action>/<str:target>/", view(pages.do), name="do_to"),
            *super().get_urls(),
        ]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        from geomagic_dagster.console.registry import pages

        return super().index(request, pages.dashboard(request) | (extra_context or {}))

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """The pages that no model has, among those that one has."""
        found: list[Any] = super().get_app_list(request, app_label)  # pyright: ignore[reportCallIssue]
        for app in found:
            if app["app_label"] == "registry":
                own = [_entry("Traffic", "traffic"), _entry("Lead time", "lead_time")]
                app["models"] = sorted(app["models"] + own, key=lambda each: ORDER.index(each["object_name"]))
        return sorted(found, key=lambda app: app["app_label"] != "registry")


def _entry(name: str, page: str) -> dict[str, Any]:
    return {
        "name": name,
        "object_name": name.replace(" ", ""),
        "admin_url": reverse(f"admin:{page}"),
        "add_url": None,
        "perms": {"view": True},
        "view_only": True,
        "model": None,
    }
