"""The console's admin site: its name, its front page, who gets in.

Belongs here: what is true of all pages. Does not belong here: the pages of an app (its admin.py).
"""

from __future__ import annotations

from django.contrib.admin import AdminSite
from django.http import HttpRequest

from geomagic_dagster.console import roles


class ConsoleSite(AdminSite):
    site_header = site_title = "geomagic"
    index_title = "Releases"
    site_url = ""

    def has_permission(self, request: HttpRequest) -> bool:
        """Whoever has a role; what they may do there is a matter of roles.py."""
        user = request.user
        return user.is_active and (user.is_superuser or bool(roles.roles_of(user)))  # pyright: ignore[reportAttributeAccessIssue]
