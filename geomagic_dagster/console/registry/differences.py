"""What a release changes, in words, from the manifests that were recorded.

Belongs here: which release to compare with. Does not belong here: the comparison (releases/diff.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from geomagic_dagster.console.registry.models import Release
from geomagic_dagster.releases.diff import diff_in_words
from geomagic_dagster.releases.manifest import ManifestError, recorded_manifest


@dataclass(frozen=True)
class Differences:
    """To which release, and line by line; or why nothing can be said."""

    to: str
    lines: tuple[str, ...]
    problem: str = ""


def of(release: Release) -> Differences:
    """What changed since the release that was cut before it."""
    before = Release.objects.filter(cut_at__lt=release.cut_at).order_by("-cut_at").first()
    if before is None:
        return Differences("", (), "It is the first release.")
    try:
        old, new = (recorded_manifest(each.version, settings.RELEASES) for each in (before, release))
        return Differences(before.version, tuple(diff_in_words(old, new)))
    except (ManifestError, KeyError) as error:
        return Differences(before.version, (), str(error))
