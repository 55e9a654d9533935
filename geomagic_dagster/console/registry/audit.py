"""Writing the audit trail.

Belongs here: who acts, and one entry for what they did. Does not belong here: what is done (service.py, scans/).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.http import HttpRequest

from geomagic_dagster.console import roles
from geomagic_dagster.console.client import client_ip
from geomagic_dagster.console.registry.models import AuditEntry


@dataclass(frozen=True)
class Actor:
    """Somebody who does something, and from where."""

    user: AbstractBaseUser | AnonymousUser
    ip: str | None = None

    @classmethod
    def of(cls, request: HttpRequest) -> Actor:
        return cls(request.user, client_ip(request))

    @property
    def name(self) -> str:
        return self.user.get_username()

    @property
    def names(self) -> tuple[str, ...]:
        """All that this person is known by: git knows an address or a full name."""
        full_name = getattr(self.user, "get_full_name", str)()
        return tuple(filter(None, (self.name, getattr(self.user, "email", ""), full_name)))

    @property
    def role(self) -> str:
        return ", ".join(sorted(roles.roles_of(self.user)))


def record(
    actor: Actor,
    action: str,
    what: str,
    *,
    before: Any = None,
    after: Any = None,
    reason: str = "",
    revision: int | None = None,
) -> AuditEntry:
    """Adds one entry. Inside the transaction of what it tells of, so that there is never one without the other."""
    return AuditEntry.objects.create(
        who=actor.name,
        role=actor.role,
        action=action,
        object=what[:200],
        before=before,
        after=after,
        reason=reason,
        ip=actor.ip,
        revision=revision,
    )
