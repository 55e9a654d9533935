"""Pages that belong to no app: whether it lives, and who is logged in.

Belongs here: what load balancers and proxies ask. Does not belong here: pages for people.
"""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required  # pyright: ignore[reportAttributeAccessIssue]
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from geomagic_dagster.console import roles


@login_not_required
@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """200 if the database answers; says nothing else, since anybody may ask."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return JsonResponse({"status": "ok"})


@login_not_required  # it answers a proxy's sub-request, which wants 401 and no page to log in
def session(request: HttpRequest) -> HttpResponse:
    """For nginx's auth_request: 204 with the user's name and whether they may change things, or 401."""
    user = request.user
    if not roles.allows(user, "view"):
        return HttpResponse(status=401)
    rights = "write" if roles.allows(user, "launch_runs") else "read"
    return HttpResponse(status=204, headers={"X-Geomagic-User": user.get_username(), "X-Geomagic-Rights": rights})
