"""The draft: what is in the checkout, and in no release yet.

Belongs here: asking git for it. Does not belong here: what is in a release (its record says it).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from django.conf import settings

from geomagic_dagster.console.registry.models import Release
from geomagic_dagster.releases import git
from geomagic_dagster.releases.record import ReleaseError


def changes(releases: Sequence[Release]) -> list[str]:
    """The days of the commits that are in no release yet, the newest first; none where there is no git to ask."""
    current = [each for each in releases if each.is_current]
    if not current:
        return []
    try:
        head = git.git(settings.REPOSITORY, "rev-parse", "HEAD").strip()
        return list(_changes(max(current, key=lambda each: each.cut_at).commit, head))
    except (ReleaseError, OSError):  # an installation without a checkout: it has no draft
        return []


@lru_cache(maxsize=8)
def _changes(since: str, until: str) -> tuple[str, ...]:
    return tuple(each.authored_at[:10] for each in git.changes(settings.REPOSITORY, since, until))
