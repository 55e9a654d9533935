"""Who may do what: one table, action by role.

Belongs here: the roles, the actions, the table. Does not belong here: whether a step is legal now, and who
may take it (releases/lifecycle.py, whose rows are taken over), how it is done (registry/service.py, scans/).

A role is a Django group of the same name. Somebody may have several. Being a superuser gives no right to any of
these actions: it is for making users.

`sender` is for the account that stands for an app or a partner: tokens belong to somebody, and open no more than their
owner may do. It opens no page: its scans are all that it ever sees.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from geomagic_dagster.releases.lifecycle import DOERS, MAKERS, OPERATOR, RESEARCHER, ROLES, STEPS

SENDER = "sender"
KNOWN = (*ROLES, SENDER)
"""Those of people, who see everything, and the one of apps."""

TABLE: dict[str, tuple[str, ...]] = {
    "view": ROLES,
    # releases: whoever made one moves it; taking it back is for everybody who may do anything
    **{name: step.who for name, step in STEPS.items()},
    "set_pin": MAKERS,
    "set_flag": MAKERS,
    "open_incident": DOERS,
    "close_incident": MAKERS,
    # scans
    "upload_scan": (RESEARCHER, OPERATOR, SENDER),
    "rerun_scan": MAKERS,
    "cancel_scan": (RESEARCHER, OPERATOR),
    "quarantine_scan": (OPERATOR,),
    "manage_tokens": (OPERATOR,),
    # Dagster's own pages, behind the console's login
    "launch_runs": MAKERS,
}


def roles_of(user: Any) -> frozenset[str]:
    """The roles of a user; none where nobody is logged in."""
    if not getattr(user, "is_authenticated", False):
        return frozenset()
    if not hasattr(user, "_console_roles"):
        user._console_roles = frozenset(user.groups.values_list("name", flat=True)) & frozenset(KNOWN)
    return user._console_roles


def may(roles: Iterable[str], action: str) -> bool:
    """Whether one of these roles has this right."""
    return not set(TABLE[action]).isdisjoint(roles)


def allows(user: Any, action: str) -> bool:
    """Whether this user has this right."""
    return bool(getattr(user, "is_active", False)) and may(roles_of(user), action)


class NotAllowed(PermissionError):
    """Somebody without the right to it; the words say who has it."""


def require(user: Any, action: str) -> None:
    """Raises NotAllowed where this user may not do this."""
    if not allows(user, action):
        has = ", ".join(sorted(roles_of(user))) or "no role"
        raise NotAllowed(
            f"{action}: expected one of the roles {', '.join(TABLE[action])}; {user} has {has}. "
            "Ask somebody who has it."
        )
