"""Words for templates.

Belongs here: how a value is said. Does not belong here: where it comes from.
"""

from __future__ import annotations

from datetime import timedelta

from django import template

register = template.Library()


@register.filter
def duration(time: timedelta | None) -> str:
    """45 min, 3.5 hours, 2.0 days; a dash where there is none yet."""
    if time is None:
        return "–"
    minutes = time.total_seconds() / 60
    if abs(minutes) < 90:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} hours" if abs(minutes) < 48 * 60 else f"{minutes / 1440:.1f} days"


@register.filter
def words(name: str) -> str:
    """make_default as "make default"."""
    return str(name).replace("_", " ")
