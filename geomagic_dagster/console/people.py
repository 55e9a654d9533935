"""Users of the console, as the command line makes them.

Belongs here: making one, giving one a new password. Does not belong here: what roles may do (roles.py), the admin's
pages of users (registry/admin.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib.auth.models import Group, User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from geomagic_dagster.console.registry.models import AuditEntry
from geomagic_dagster.console.roles import KNOWN

COMMAND_LINE = "command line"


class CannotMakeUser(ValueError):
    """The words say why, and what to do."""


@transaction.atomic
def make_user(
    name: str, password: str | None, roles: Sequence[str], *, email: str = "", is_admin: bool = False
) -> User:
    """Without a password nobody logs in as this user: for an app, whose tokens need an owner.

    Raises: CannotMakeUser.
    """
    if unknown := sorted(set(roles) - set(KNOWN)):
        raise CannotMakeUser(
            f"--role: expected some of {', '.join(KNOWN)}; got {', '.join(unknown)}. Choose among them."
        )
    if User.objects.filter(username=name).exists():
        raise CannotMakeUser(
            f"{name}: expected a name that nobody has; got one that is taken. Choose another, or say --new-password."
        )
    user = User(username=name, email=email, is_staff=True, is_superuser=is_admin)
    try:
        user.full_clean(exclude=["password"])
    except ValidationError as error:
        raise CannotMakeUser(f"{name}: expected a plain name; got: {' '.join(error.messages)}") from None
    if password is None:
        user.set_unusable_password()
        user.save()
    else:
        _set(user, password)
    user.groups.set(Group.objects.filter(name__in=roles))
    after = {"roles": sorted(roles), "superuser": is_admin}
    AuditEntry.objects.create(who=COMMAND_LINE, action="add_user", object=f"user {name}", after=after)
    return user


@transaction.atomic
def set_password(name: str, password: str) -> None:
    """Raises: CannotMakeUser. Whoever is logged in as this user is logged out by it."""
    user = User.objects.filter(username=name).first()
    if user is None:
        known = ", ".join(User.objects.values_list("username", flat=True)) or "nobody"
        raise CannotMakeUser(f"{name}: expected a user of the console ({known}); got none. Leave out --new-password.")
    _set(user, password)
    AuditEntry.objects.create(who=COMMAND_LINE, action="change_user", object=f"user {name}", after="new password")


def _set(user: User, password: str) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise CannotMakeUser(f"password: expected a good one; got: {' '.join(error.messages)}") from None
    user.set_password(password)
    user.save()
