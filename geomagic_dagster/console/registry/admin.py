"""The admin's pages of the registry: lists and details, all of them to be read; what is done is done by actions.

Belongs here: which columns, filters and details. Does not belong here: pages that are no list (pages.py), actions
(actions.py).
"""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from geomagic_dagster.console import roles
from geomagic_dagster.console.registry import differences, flights, lead_time, service
from geomagic_dagster.console.registry.actions import ACTIONS, links
from geomagic_dagster.console.registry.audit import Actor, record
from geomagic_dagster.console.registry.models import Approval, AuditEntry, Incident, Release, StagingTest
from geomagic_dagster.console.registry.sync import look
from geomagic_dagster.console.scans.models import Run
from geomagic_dagster.releases.lifecycle import APPROVALS, KEPT, State

ASKED = ("", "exact", "id__exact", "isnull", "gte", "lt")
PARTS_OF_A_DATE = ("year", "month", "day")
LADDER = (*KEPT[1:], State.FLIGHTED, State.DEFAULT)


def badge(state: str) -> str:
    """A state as a coloured word."""
    return format_html('<span class="state state-{}">{}</span>', state, state)


class ReadOnly(admin.ModelAdmin):
    """To be read by everybody with a role, to be changed by nobody here."""

    list_per_page = 50
    actions = None

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        """What the page's own links ask for, and nothing else. In an address anybody with a role may write more: a
        regular expression that never ends, or letter by letter the beginning of what no column shows."""
        name, _, how = lookup.partition("__")
        offered: set[Any] = {self.date_hierarchy, *self.list_filter}
        is_number = str(value).isdecimal() and len(str(value)) <= len("2026")
        return name in offered and (how in ASKED or (how in PARTS_OF_A_DATE and is_number))

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return roles.allows(request.user, "view")

    has_module_permission = has_view_permission

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        look()
        title = str(self.opts.verbose_name_plural).capitalize()
        return super().changelist_view(request, {"title": title, "subtitle": None} | (extra_context or {}))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def _menu_entry(name: str) -> Any:
    """An entry of the list's menu: the action's page for the one release that was ticked."""

    def go(self: Any, request: HttpRequest, chosen: QuerySet[Release]) -> HttpResponse | None:
        versions = list(chosen.values_list("version", flat=True))
        if len(versions) == 1:
            return redirect("admin:do_to", name, versions[0])
        messages.error(request, f"{ACTIONS[name].label}: expected one release; got {len(versions)}. Tick one.")
        return None

    go.__name__ = name
    go.short_description = ACTIONS[name].label  # pyright: ignore[reportFunctionMemberAccess]
    return go


@admin.register(Release)
class ReleaseAdmin(ReadOnly):
    list_display = ("version", "where", "approved_by", "cut_at", "cut_by", "default_at", "open_incidents")
    list_filter = ("line", "kept", "traffic")
    search_fields = ("version", "commit", "cut_by", "changes__title", "changes__commit")
    actions = [_menu_entry(name) for name in ACTIONS if ACTIONS[name].target == "release"]

    def get_actions(self, request: HttpRequest) -> Any:
        return {name: each for name, each in super().get_actions(request).items() if roles.allows(request.user, name)}

    def get_list_display(self, request: HttpRequest) -> Any:
        """With the steps of whoever asks: this object is shared by all threads, so that it remembers nobody."""

        @admin.display(description="next legal step")
        def steps(release: Release) -> str:
            ahead = ((each.url, each.label) for each in links(request.user, release) if each.leads_on)
            return format_html_join(" ", '<a class="step" href="{}">{}</a>', ahead) or "–"

        version, where, *others = self.list_display
        return (version, where, steps, *others)

    @admin.display(description="state")
    def where(self, release: Release) -> str:
        return badge(release.state)

    @admin.display(description="approvals")
    def approved_by(self, release: Release) -> str:
        given = release.approvals.filter(proposal=release.proposal).count() if release.proposal else 0
        return f"{given} of {APPROVALS}"

    @admin.display(description="incidents")
    def open_incidents(self, release: Release) -> str:
        return str(release.incidents.filter(closed_at=None).count() or "–")

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None):
        look()
        release = self.get_object(request, object_id)
        if release is None or not self.has_view_permission(request, release):
            return super().change_view(request, object_id, form_url, extra_context)
        reached = LADDER.index(release.state) if release.state in LADDER else len(LADDER)
        context = {
            "title": f"Release {release.version}",
            "opts": self.opts,
            "release": release,
            "ladder": [(state, state == release.state, n < reached) for n, state in enumerate(LADDER)],
            "is_aside": release.state not in LADDER,
            "links": links(request.user, release),
            "approvals": release.approvals.select_related("user").order_by("-proposal", "at"),
            "missing": service.missing_approvals(release) if release.state == State.PROPOSED else (),
            "differences": differences.of(release),
            "again": flights.again(Run.objects.filter(release=release.line, version__in=(release.version, ""))),
            "tests": release.staging_tests.all()[:10],
            "leads": [lead_time.lead(each) for each in release.changes.select_related("release")[:100]],
            "incidents": release.incidents.all(),
            "entries": AuditEntry.objects.filter(object=f"release {release.version}")[:30],
        }
        return TemplateResponse(request, "console/release.html", self.admin_site.each_context(request) | context)


@admin.register(Incident)
class IncidentAdmin(ReadOnly):
    list_display = ("title", "release", "is_open", "opened_by", "opened_at", "closed_by", "closed_at", "step")
    list_filter = ("closed_at", "release")
    search_fields = ("title", "words", "closed_because")
    list_select_related = ("release",)
    change_list_template = "console/incidents.html"

    @admin.display(boolean=True, description="open")
    def is_open(self, incident: Incident) -> bool:
        return incident.is_open

    @admin.display(description="")
    def step(self, incident: Incident) -> str:
        if not incident.is_open:
            return ""
        return format_html(
            '<a class="step" href="{}">Close</a>', reverse("admin:do_to", args=("close_incident", incident.pk))
        )

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        may = {"may_open": roles.allows(request.user, "open_incident")}
        return super().changelist_view(request, may | (extra_context or {}))


@admin.register(StagingTest)
class StagingTestAdmin(ReadOnly):
    list_display = ("release", "passed", "words", "by", "started_at", "ended_at")
    list_filter = ("passed", "release")
    list_select_related = ("release",)

    def get_model_perms(self, request: HttpRequest) -> dict[str, bool]:
        return {}  # a release's own page shows them: no link of their own


@admin.register(AuditEntry)
class AuditAdmin(ReadOnly):
    list_display = ("at", "who", "role", "action", "object", "reason", "ip")
    list_filter = ("action", "role")
    search_fields = ("who", "action", "object", "reason")
    date_hierarchy = "at"
    fields = ("at", "who", "role", "action", "object", "reason", "was", "became", "ip", "revision")
    show_full_result_count = False

    def has_been(self, value: Any) -> str:
        return format_html("<pre>{}</pre>", json.dumps(value, indent=1, ensure_ascii=False)) if value else "–"

    @admin.display(description="before")
    def was(self, entry: AuditEntry) -> str:
        return self.has_been(entry.before)

    @admin.display(description="after")
    def became(self, entry: AuditEntry) -> str:
        return self.has_been(entry.after)


@admin.register(Approval)
class ApprovalAdmin(ReadOnly):
    list_display = ("release", "proposal", "user", "side", "at", "reason")
    list_filter = ("side",)
    list_select_related = ("release", "user")

    def get_model_perms(self, request: HttpRequest) -> dict[str, bool]:
        return {}  # a release's own page shows them: no link of their own


# --- people ----------------------------------------------------------------------------------------

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(Group)
class RolesAdmin(GroupAdmin):
    """The roles are fixed: roles.py says what each may do."""

    has_add_permission = has_change_permission = has_delete_permission = lambda self, *args, **kwargs: False


@admin.register(User)
class PeopleAdmin(UserAdmin):
    """For superusers. Nobody is deleted: what they did stays theirs. Every change is in the audit trail."""

    list_display = ("username", "email", "role", "is_active", "is_superuser", "last_login")
    list_filter = ("groups", "is_active")
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Who", {"fields": ("first_name", "last_name", "email")}),
        ("Roles", {"fields": ("groups", "is_active", "is_superuser")}),
        ("When", {"fields": ("last_login", "date_joined")}),
    )
    filter_horizontal = ()

    @admin.display(description="roles")
    def role(self, user: User) -> str:
        return ", ".join(sorted(roles.roles_of(user))) or "none"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def log_addition(self, request: HttpRequest, object: Any, message: Any) -> Any:
        self._record(request, "add_user", object, message)
        return super().log_addition(request, object, message)

    def log_change(self, request: HttpRequest, object: Any, message: Any) -> Any:
        self._record(request, "change_user", object, message)
        return super().log_change(request, object, message)

    def _record(self, request: HttpRequest, action: str, user: User, message: Any) -> None:
        after = {
            "roles": sorted(user.groups.values_list("name", flat=True)),
            "active": user.is_active,
            "superuser": user.is_superuser,
            "changed": message if isinstance(message, list | str) else str(message),
        }
        record(Actor.of(request), action, f"user {user.get_username()}", after=after)
