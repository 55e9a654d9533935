"""Refusals of the API: one sentence, a status, and what a client needs to do better.

Belongs here: the exception and its answer. Does not belong here: what is refused (the files that raise it).
"""

from __future__ import annotations

from collections.abc import Mapping

from django.http import HttpRequest, JsonResponse

from geomagic_dagster.launching import intake


class Refused(intake.Refused):
    """This is not taken; `headers` go with the answer."""

    def __init__(
        self,
        place: str,
        *,
        expected: str,
        received: str,
        do: str,
        status: int = 422,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(place, expected=expected, received=received, do=do, status=status)
        self.headers = dict(headers or {})

    @classmethod
    def saying(cls, sentence: str, status: int = 422) -> Refused:
        """With a sentence that is made already."""
        refused = cls("", expected="", received="", do="", status=status)
        refused.args = (sentence,)
        return refused


def answer(request: HttpRequest, refused: intake.Refused) -> JsonResponse:
    """A refusal as JSON. What was not read of the request's body is not read any more: the connection ends."""
    headers = getattr(refused, "headers", {})
    said = JsonResponse({"error": str(refused)}, status=refused.status, headers=headers)
    if request.method in ("PATCH", "POST"):
        said["Connection"] = "close"
    return said


def not_found(scan_id: object) -> Refused:
    """The same words for a scan that is not there and for somebody else's."""
    return Refused(
        f"scan {scan_id}",
        expected="a scan of this token's owner",
        received="none of this id",
        do="Look at the id that creating it answered.",
        status=404,
    )
