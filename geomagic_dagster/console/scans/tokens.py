"""Bearer tokens: made, shown once, found by their hash, revoked.

Belongs here: everything about a token but who may make one (roles.py). Does not belong here: HTTP (api.py).

A token opens what its scopes say, and of that what the roles of its owner allow at the moment when it is shown: who
loses a role takes it from their tokens too.

A secret has 256 bits of chance, so a plain SHA-256 of it is as hard to turn back as a slow one; finding a token is one
look into an index, whose time says nothing about other tokens.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.utils import timezone
from django.utils.crypto import salted_hmac

from geomagic_dagster.console import roles
from geomagic_dagster.console.scans.models import Scope, Token
from geomagic_dagster.console.scans.refusals import Refused

PREFIX = "gm_"
DAYS = 365
SENDS, READS_OWN = ("upload_scan",), ("upload_scan", "view")
"""What the owner of a token must be allowed, one of these, to send scans; and to read what was sent so."""
ASKS: dict[str, tuple[tuple[str, ...], ...]] = {
    Scope.UPLOAD: (SENDS,),
    Scope.READ: (READS_OWN,),
    Scope.ADMIN: (SENDS, ("view",), ("cancel_scan",)),
}
"""What a token's owner must be allowed for a scope: one of each."""
USED_EVERY_S = 60.0
"""So often the last use is written down: not with each piece of an upload."""


def make(owner: Any, name: str, scopes: Iterable[str], days: float = DAYS) -> tuple[Token, str]:
    """A new token and its secret, which nobody can read again afterwards."""
    wanted = [str(scope) for scope in scopes]
    if not wanted or set(wanted) - set(Scope.values):
        raise ValueError(f"scopes: expected some of {', '.join(Scope.values)}; got {wanted}. Choose at least one.")
    secret = PREFIX + secrets.token_urlsafe(32)
    token = Token.objects.create(
        name=name,
        owner=owner,
        digest=_digest(secret),
        hint=secret[:8],
        scopes=",".join(wanted),
        expires_at=timezone.now() + timedelta(days=days),
    )
    return token, secret


def find(secret: str) -> Token:
    """The token with this secret. Raises: Refused (401), with the same words for a wrong and for no token."""
    token = Token.objects.select_related("owner").filter(digest=_digest(secret)).first()
    now = timezone.now()
    if token is None:
        raise _refused("one that is not known", "Send the header: Authorization: Bearer gm_...")
    if token.revoked_at is not None:
        raise _refused("one that was revoked", "Ask an operator for a new one.")
    if token.expires_at <= now:
        raise _refused(f"one that expired on {token.expires_at:%Y-%m-%d}", "Ask an operator for a new one.")
    if not token.owner.is_active:
        raise _refused("one whose owner may not log in any more", "Ask an operator.")
    if token.last_used_at is None or (now - token.last_used_at).total_seconds() > USED_EVERY_S:
        Token.objects.filter(pk=token.pk).update(last_used_at=now)
    return token


def need(token: Token, *scopes: str) -> None:
    """Raises Refused (403) where the token has none of these scopes."""
    if not any(token.allows(scope) for scope in scopes):
        raise Refused(
            "token",
            expected=f"one with the scope {' or '.join(scopes)}",
            received=f"one with {token.scopes}",
            do="Ask an operator for another.",
            status=403,
        )


def need_right(token: Token, *actions: str) -> None:
    """Raises Refused (403) where the owner of the token may do none of these."""
    if not any(roles.allows(token.owner, action) for action in actions):
        raise Refused(
            "token",
            expected=f"one whose owner has one of the roles {', '.join(_who(actions))}",
            received=f"one whose owner has {_roles(token.owner)}",
            do="Ask an operator for another, or for the role.",
            status=403,
        )


def beyond(owner: Any, scopes: Iterable[str]) -> list[str]:
    """Scopes that a token of this owner could not use, each with the roles that may."""
    return [
        f"{scope}: expected an owner with one of the roles {', '.join(_who(actions))}; {owner} has {_roles(owner)}."
        for scope in scopes
        for actions in ASKS.get(scope, ())
        if not any(roles.allows(owner, action) for action in actions)
    ]


def _who(actions: Iterable[str]) -> list[str]:
    return [role for role in roles.KNOWN if any(role in roles.TABLE[action] for action in actions)]


def _roles(user: Any) -> str:
    return ", ".join(sorted(roles.roles_of(user))) or "no role"


def revoke(token: Token) -> None:
    """From now on it opens nothing."""
    Token.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now())


def webhook_secret(token: Token) -> str:
    """What webhooks about this token's scans are signed with: derived, so that it is stored nowhere."""
    key = salted_hmac("geomagic.webhook", str(token.pk), algorithm="sha256").digest()  # pyright: ignore[reportCallIssue]
    return "whsec_" + base64.b64encode(key).decode()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def _refused(received: str, do: str) -> Refused:
    headers = {"WWW-Authenticate": 'Bearer realm="scans"'}
    return Refused("token", expected="a valid one", received=received, do=do, status=401, headers=headers)
