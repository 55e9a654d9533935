"""The admin's pages of scans: the list with pictures, tokens, the log of messages.

Belongs here: columns and filters, and which page shows what. Does not belong here: what actions do (actions.py), one
scan's page (scan_page.py).
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html

from geomagic_dagster.console import roles
from geomagic_dagster.console.registry.admin import ReadOnly
from geomagic_dagster.console.registry.audit import Actor, record
from geomagic_dagster.console.scans import scan_page, tokens
from geomagic_dagster.console.scans.models import Delivery, Scan, Scope, State, Token

MAX_DAYS = 3 * 365


@admin.register(Scan)
class ScanAdmin(ReadOnly):
    list_display = ("picture", "shown", "where", "release_shown", "flight", "sender", "created_at")
    list_display_links = ("shown",)
    list_filter = ("state", "release", "origin", "flight")
    search_fields = ("name", "upload", "run_id", "=id")
    list_select_related = ("owner",)
    date_hierarchy = "created_at"
    list_per_page = 25

    class Media:
        css = {"all": ["scans/scan.css"]}

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view
        own = path("<uuid:pk>/do/<str:action>/", view(scan_page.do), name="scans_scan_do")
        return [own, *super().get_urls()]

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None):
        scan = self.get_object(request, object_id)
        if scan is None or not self.has_view_permission(request, scan):
            return super().change_view(request, object_id, form_url, extra_context)
        return scan_page.page(request, scan)

    @admin.display(description="")
    def picture(self, scan: Scan) -> str:
        if not scan.package or scan.state != State.DONE:
            return ""
        address = reverse("scan-file", args=[scan.pk, "preview.png"])
        return format_html('<img class="scan-picture" src="{}" alt="" width="96" height="72" loading="lazy">', address)

    @admin.display(description="scan", ordering="name")
    def shown(self, scan: Scan) -> str:
        return scan.name

    @admin.display(description="state", ordering="state")
    def where(self, scan: Scan) -> str:
        return scan_page.badge(scan)

    @admin.display(description="release", ordering="release")
    def release_shown(self, scan: Scan) -> str:
        return scan.version or scan.release or "–"

    @admin.display(description="sent by")
    def sender(self, scan: Scan) -> str:
        return str(scan.owner) if scan.owner else "inbox"


class TokenForm(forms.ModelForm):
    """What is asked of whoever makes a token."""

    owner = forms.ModelChoiceField(
        User.objects.filter(is_active=True),
        help_text="Whose scans it sends and reads. For an app or a partner: an account of its own, a sender.",
    )
    scopes = forms.MultipleChoiceField(
        choices=Scope.choices, widget=forms.CheckboxSelectMultiple, initial=[Scope.UPLOAD]
    )
    days = forms.IntegerField(min_value=1, max_value=MAX_DAYS, initial=tokens.DAYS, help_text="Then it expires.")

    class Meta:
        model = Token
        fields = ("name", "owner")

    def clean(self) -> Any:
        """No scope that its owner's roles do not reach."""
        said = super().clean() or {}
        if said.get("owner") and (problems := tokens.beyond(said["owner"], said.get("scopes", ()))):
            self.add_error("owner", " ".join(problems))
        return said


@admin.register(Token)
class TokenAdmin(ReadOnly):
    list_display = ("name", "hint", "owner", "scopes", "is_valid", "expires_at", "last_used_at")
    list_filter = ("scopes", "revoked_at")
    search_fields = ("name", "hint", "owner__username")
    list_select_related = ("owner",)
    actions = ["revoke"]
    fields = ("name", "owner", "hint", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return roles.allows(request.user, "manage_tokens")

    has_module_permission = has_view_permission

    def has_add_permission(self, request: HttpRequest) -> bool:
        return roles.allows(request.user, "manage_tokens")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """A form; and then, this once, the secret. It goes into no message, session or log."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = TokenForm(request.POST or None)
        context = self.admin_site.each_context(request) | {"title": "New token", "opts": self.opts, "form": form}
        if request.method == "POST" and form.is_valid():
            said = form.cleaned_data
            with transaction.atomic():
                token, secret = tokens.make(said["owner"], said["name"], said["scopes"], said["days"])
                after = {"owner": str(token.owner), "scopes": token.scopes, "expires_at": str(token.expires_at)}
                record(Actor.of(request), "make_token", f"token {token}", after=after)
            context |= {"token": token, "secret": secret, "webhook_secret": tokens.webhook_secret(token)}
        answer = TemplateResponse(request, "scans/new_token.html", context)
        answer["Cache-Control"] = "no-store"
        return answer

    @admin.display(boolean=True, description="valid")
    def is_valid(self, token: Token) -> bool:
        return token.revoked_at is None and token.expires_at > timezone.now() and token.owner.is_active

    @admin.action(description="Revoke: they open nothing any more")
    def revoke(self, request: HttpRequest, chosen: QuerySet[Token]) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied
        for token in chosen:
            with transaction.atomic():
                tokens.revoke(token)
                record(Actor.of(request), "revoke_token", f"token {token}")
        messages.success(request, f"Revoked: {', '.join(map(str, chosen))}")


@admin.register(Delivery)
class DeliveryAdmin(ReadOnly):
    list_display = ("event", "scan", "host", "attempts", "delivered_at", "next_at", "last_said")
    list_filter = ("event", "delivered_at")
    search_fields = ("scan__name",)
    list_select_related = ("scan",)
    actions = ["send_again"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """The address for those alone who gave its sender a token: it may open something at its receiver's."""
        fields = super().get_fields(request, obj)
        return fields if roles.allows(request.user, "manage_tokens") else [name for name in fields if name != "url"]

    @admin.display(description="to")
    def host(self, delivery: Delivery) -> str:
        return delivery.host

    @admin.display(description="last answer")
    def last_said(self, delivery: Delivery) -> str:
        return delivery.log[-1]["said"][:120] if delivery.log else "not sent yet"

    @admin.action(description="Send again, now")
    def send_again(self, request: HttpRequest, chosen: QuerySet[Delivery]) -> None:
        if not roles.allows(request.user, "manage_tokens"):
            raise PermissionDenied
        for delivery in chosen:
            with transaction.atomic():
                Delivery.objects.filter(pk=delivery.pk).update(next_at=timezone.now())
                record(Actor.of(request), "send_again", f"scan {delivery.scan.pk}", after={"event": delivery.event})
        messages.success(request, "They are sent within some seconds.")

    def get_actions(self, request: HttpRequest) -> Any:
        return super().get_actions(request) if roles.allows(request.user, "manage_tokens") else {}
