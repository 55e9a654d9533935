"""The API of scans: send, ask, cancel, fetch. For programs, with a token.

Belongs here: addresses, headers, which scope a call needs, and which right of the token's owner. Does not belong here:
what is done (uploads.py, receiving.py, actions.py), pages for people (pages.py).

An upload speaks tus 1.0, so that existing clients work; who has none sends JSON to create it, and bytes with PATCH.
"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.request import RawPostDataException
from ninja import NinjaAPI, Query
from ninja.errors import ValidationError
from ninja.security import HttpBearer
from pydantic import ValidationError as Invalid

from geomagic_dagster.console import roles
from geomagic_dagster.console.client import client_ip, counted_as
from geomagic_dagster.console.registry.audit import Actor
from geomagic_dagster.console.scans import actions, rates, refusals, tokens, tus, uploads
from geomagic_dagster.console.scans.api_schemas import (
    CREATE_BODY,
    ERRORS,
    PART_HEADERS,
    TUS_HEADERS,
    NewScan,
    Scans,
    ScanSaid,
)
from geomagic_dagster.console.scans.describing import described, package_file
from geomagic_dagster.console.scans.files import file_answer
from geomagic_dagster.console.scans.models import Scan, Scope, State, Token
from geomagic_dagster.console.scans.outcomes import end
from geomagic_dagster.console.scans.receiving import DIGESTS, append
from geomagic_dagster.console.scans.refusals import Refused
from geomagic_dagster.launching import intake

PAGE = 50
JSON_BYTES = 64 * 2**10
CUT = 408
WHEN_SENDING = (400, 401, 403, 408, 409, 412, 413, 415, 422, 423, 429, 460, 503, 507)
"""Refusals of whatever takes bytes."""


class Bearer(HttpBearer):
    """The token of the Authorization header."""

    def __call__(self, request: HttpRequest) -> Token:
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        try:
            token = tokens.find(secret.strip() if scheme.lower() == "bearer" else "")
        except Refused:
            rates.count("bad token", counted_as(request))
            raise
        rates.count("call", token.pk)
        return token

    def authenticate(self, request: HttpRequest, token: str) -> Token:
        return tokens.find(token)


api = NinjaAPI(
    title="geomagic scans",
    version="1",
    description="Room scans in, AR-ready rooms out.",
    auth=Bearer(),
    docs_url=None,
    openapi_url=None,  # our own below: it needs a token too
    urls_namespace="scans-api",
)


@api.exception_handler(intake.Refused)
def _refused(request: HttpRequest, error: intake.Refused) -> HttpResponse:
    return tus.speak(refusals.answer(request, error))


@api.exception_handler(ValidationError)
def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    first = error.errors[0]
    kind, *place = map(str, first["loc"])
    said = f"{'.'.join(place) or kind}: {first['msg']}. Look at /api/openapi.json."
    return tus.speak(JsonResponse({"error": said}, status=404 if kind == "path" else 422))


# --- sending ----------------------------------------------------------------------------------------


@api.api_operation(["OPTIONS"], "/scans", response={204: None, **ERRORS(401, 429)}, operation_id="discover")
def discover(request: HttpRequest) -> HttpResponse:
    """What of tus is spoken here."""
    headers = {
        "Tus-Version": tus.VERSION,
        "Tus-Extension": tus.EXTENSIONS,
        "Tus-Max-Size": str(uploads.limits().bytes),
        "Tus-Checksum-Algorithm": ",".join(sorted(DIGESTS)),
    }
    return tus.speak(HttpResponse(status=204, headers=headers))


@api.post(
    "/scans",
    response={
        201: ScanSaid,
        200: ScanSaid,
        **ERRORS(*WHEN_SENDING),
    },
    openapi_extra={"requestBody": CREATE_BODY, "parameters": TUS_HEADERS},
    operation_id="create",
)
def create(request: HttpRequest) -> HttpResponse:
    """A new upload: by tus' headers, or by JSON. The same Idempotency-Key twice is one scan."""
    token = _token(request, Scope.UPLOAD)
    tokens.need_right(token, *tokens.SENDS)
    tus.check_version(request)
    rates.count("create", token.pk)
    key = request.headers.get("Idempotency-Key", "").strip()
    if len(key) > 200 or not key.isprintable():
        raise Refused("Idempotency-Key", expected="up to 200 letters", received="something else", do="", status=400)
    asked = _asked(request)
    scan, is_new = uploads.create(
        token.owner, token, asked.name, asked.bytes, sha256=asked.sha256, webhook_url=asked.webhook, key=key
    )
    size = uploads.received(scan)
    if is_new and request.content_type == tus.BYTES:
        size = _receive_first(request, scan)
    answer = JsonResponse(described(scan), status=201 if is_new else 200)
    answer["Location"] = request.build_absolute_uri(f"/api/scans/{scan.pk}")
    answer["Upload-Offset"] = str(size)
    return tus.speak(answer, scan)


def _receive_first(request: HttpRequest, scan: Scan) -> int:
    """The bytes that come with a creation. Where they are refused nobody has learnt of the upload: it is no more."""
    try:
        return _receive(request, scan, 0)
    except Refused as refused:
        if refused.status != CUT:  # its sender may ask for it again, by its idempotency key
            end(scan, State.CANCELLED, str(refused), instead_of=(State.RECEIVING,))
            uploads.drop(scan)
        raise


def _asked(request: HttpRequest) -> NewScan:
    """What is to be created, from headers or from JSON."""
    if "Upload-Length" in request.headers or "Upload-Defer-Length" in request.headers:
        said = tus.metadata(request)
        name = said.get("filename") or said.get("name") or "scan"
        content: Any = {"name": name, "bytes": tus.number(request, "Upload-Length")}
        content |= {name: said[name] for name in ("sha256", "webhook") if name in said}
    else:
        if request.content_type != "application/json":
            raise Refused(
                "content-type",
                expected="application/json, or the header Upload-Length of tus",
                received=repr((request.content_type or "")[:60]),
                do="Look at /api/openapi.json.",
                status=415,
            )
        content = _json(request)
    try:
        return NewScan.model_validate(content)
    except Invalid as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "body"
        raise Refused(place, expected="what /api/openapi.json says", received=first["msg"], do="Mend it.") from None


def _json(request: HttpRequest) -> Any:
    length = request.headers.get("Content-Length", "")
    if not (length.isascii() and length.isdigit()) or int(length) > JSON_BYTES:
        received = length or "no length"
        raise Refused("body", expected=f"JSON of at most {JSON_BYTES} bytes", received=received, do="", status=413)
    try:
        return json.loads(request.body)
    except (ValueError, RecursionError, RawPostDataException) as error:
        raise Refused("body", expected="JSON", received=str(error)[:100], do="Mend it.", status=400) from None


@api.api_operation(
    ["HEAD"], "/scans/{scan_id}", response={200: None, **ERRORS(401, 403, 404, 410, 412, 429)}, operation_id="offset"
)
def offset(request: HttpRequest, scan_id: UUID) -> HttpResponse:
    """How much of an upload was received: go on from Upload-Offset."""
    scan = _scan(request, scan_id, Scope.UPLOAD, rights=tokens.SENDS)
    tus.check_version(request)
    _check_open(scan)
    name = base64.b64encode(scan.name.encode()).decode()
    headers = {
        "Upload-Offset": str(uploads.received(scan)),
        "Upload-Length": str(scan.bytes_total or 0),
        "Upload-Metadata": f"filename {name}",
    }
    return tus.speak(HttpResponse(headers=headers), scan)


@api.patch(
    "/scans/{scan_id}",
    response={204: None, **ERRORS(404, 410, *WHEN_SENDING)},
    openapi_extra={
        "requestBody": {"required": True, "content": {tus.BYTES: {"schema": {"type": "string", "format": "binary"}}}},
        "parameters": PART_HEADERS,
    },
    operation_id="send",
)
def send(request: HttpRequest, scan_id: UUID) -> HttpResponse:
    """The bytes from Upload-Offset on: all that are left, or some."""
    scan = _scan(request, scan_id, Scope.UPLOAD, rights=tokens.SENDS)
    tus.check_version(request)
    if request.content_type != tus.BYTES:
        received = repr((request.content_type or "")[:60])
        raise Refused("content-type", expected=tus.BYTES, received=received, do="Send the header.", status=415)
    _check_open(scan)
    size = _receive(request, scan, tus.number(request, "Upload-Offset"))
    return tus.speak(HttpResponse(status=204, headers={"Upload-Offset": str(size)}), scan)


def _receive(request: HttpRequest, scan: Scan, at: int) -> int:
    """The body of a request, to the end of an upload; raises Refused where that shows that it is of no use."""
    if scan.state != State.RECEIVING:
        at_most = scan.bytes_total or 0
        raise Refused(
            "upload",
            expected="bytes that are missing",
            received="more of an upload that is whole",
            do="Ask for its state (GET).",
            status=409,
            headers={"Upload-Offset": str(at_most)},
        )
    checksum, total = tus.checksum(request), scan.bytes_total or 0
    length = tus.number(request, "Content-Length") if request.headers.get("Content-Length") else None
    read, hang_up = _body_of(request)
    with uploads.a_senders_place():
        try:
            size = append(uploads.part_of(scan), at, total, read, length=length, checksum=checksum, hang_up=hang_up)
        except FileNotFoundError:  # cancelled, or whole, since we looked
            raise _gone(scan) from None
    uploads.went_on(scan, size, came=size > at)
    scan.refresh_from_db()
    if scan.state == State.REJECTED:
        raise Refused.saying(scan.reason)
    return size


def _body_of(request: HttpRequest) -> tuple[Callable[[int], bytes], Callable[[], None] | None]:
    """How to read the body as it comes, and how to hang up; a connection that is silent for too long is cut."""
    connection: socket.socket | None = request.META.get("gunicorn.socket")
    if connection is not None:
        connection.settimeout(uploads.limits().silence_s)
    hang_up = None if connection is None else lambda: connection.shutdown(socket.SHUT_RDWR)
    if not request.META.get("CONTENT_LENGTH") and request.META.get("wsgi.input_terminated"):
        return request.META["wsgi.input"].read, hang_up  # chunked: Django would take it for empty
    return request.read, hang_up


# --- asking, cancelling, fetching -------------------------------------------------------------------


@api.get("/scans", response={200: Scans, **ERRORS(401, 403, 422, 429)}, operation_id="list")
def list_scans(
    request: HttpRequest,
    limit: int = Query(20, ge=1, le=PAGE),  # pyright: ignore[reportArgumentType, reportCallIssue]
    before: datetime | None = None,
    state: State | None = None,
) -> JsonResponse:
    """The owner's scans, the newest first; `before` goes on behind a page."""
    token = _token(request, Scope.READ, Scope.UPLOAD)
    tokens.need_right(token, *tokens.READS_OWN)
    scans = Scan.objects.all() if _sees_all(token) else Scan.objects.filter(owner=token.owner)
    if before is not None:
        scans = scans.filter(created_at__lt=_in_utc(before))
    if state is not None:
        scans = scans.filter(state=state)
    found = list(scans.select_related("token")[: limit + 1])
    following = found[limit - 1].created_at.isoformat() if len(found) > limit else None
    return JsonResponse({"scans": [described(scan) for scan in found[:limit]], "next_before": following})


def _in_utc(at: datetime) -> datetime:
    """A time without a zone is one of UTC. Raises: Refused for one that UTC does not have."""
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        do = "Take next_before as it was answered."
        raise Refused("before", expected="a time of this age", received=at.isoformat(), do=do) from None


@api.get("/scans/{scan_id}", response={200: ScanSaid, **ERRORS(401, 403, 404, 429)}, operation_id="ask")
def ask(request: HttpRequest, scan_id: UUID) -> HttpResponse:
    """What has become of a scan so far."""
    return tus.speak(JsonResponse(described(_scan(request, scan_id, Scope.READ, Scope.UPLOAD))))


@api.delete("/scans/{scan_id}", response={204: None, **ERRORS(401, 403, 404, 409, 412, 429)}, operation_id="cancel")
def cancel(request: HttpRequest, scan_id: UUID) -> HttpResponse:
    """Ends an upload, or the processing of a scan. What has a package stays."""
    scan = _scan(request, scan_id, Scope.UPLOAD, rights=tokens.SENDS)
    tus.check_version(request)
    token: Token = request.auth  # pyright: ignore[reportAttributeAccessIssue]
    if scan.owner_id != token.owner_id:
        tokens.need_right(token, "cancel_scan")
    actions.cancel_as_sender(scan, Actor(token.owner, client_ip(request)), f"with the token {token}")
    return tus.speak(HttpResponse(status=204))


@api.get(
    "/scans/{scan_id}/files/{name}",
    response={200: bytes, **ERRORS(401, 403, 404, 429)},
    openapi_extra={
        "responses": {200: {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}},
    },
    operation_id="fetch",
)
def fetch(request: HttpRequest, scan_id: UUID, name: str) -> Any:
    """A file of the package of a scan that is done."""
    scan = _scan(request, scan_id, Scope.READ, Scope.UPLOAD)
    path = package_file(scan, name) if scan.state == State.DONE else None
    if path is None:
        do = "Ask for the scan: it lists its files once it is done."
        raise Refused("file", expected="one of the package's", received=repr(name[:80]), do=do, status=404)
    return file_answer(path)


@api.get("/openapi.json", include_in_schema=False)
def description(request: HttpRequest) -> JsonResponse:
    """This API, described."""
    return JsonResponse(api.get_openapi_schema())


def _token(request: HttpRequest, *scopes: str) -> Token:
    token: Token = request.auth  # pyright: ignore[reportAttributeAccessIssue]
    tokens.need(token, *scopes, Scope.ADMIN)
    return token


def _sees_all(token: Token) -> bool:
    return token.allows(Scope.ADMIN) and roles.allows(token.owner, "view")


def _scan(request: HttpRequest, scan_id: UUID, *scopes: str, rights: tuple[str, ...] = tokens.READS_OWN) -> Scan:
    """One of the token's owner. Raises: Refused; 404 for somebody else's, as if there were none."""
    token = _token(request, *scopes)
    tokens.need_right(token, *rights)
    scan = Scan.objects.select_related("token").filter(pk=scan_id).first()
    if scan is None or not (scan.owner_id == token.owner_id or _sees_all(token)):
        raise refusals.not_found(scan_id)
    return scan


def _check_open(scan: Scan) -> None:
    if scan.state in (State.CANCELLED, State.EXPIRED):
        raise _gone(scan)


def _gone(scan: Scan) -> Refused:
    scan.refresh_from_db()
    return Refused(
        "upload",
        expected="one that is open",
        received=f"one that is {scan.state}",
        do="Create a new one." if scan.is_over else "Ask for its state (GET).",
        status=410 if scan.is_over else 409,
    )


def not_behind_the_login() -> tuple[Any, ...]:
    """The API's addresses, each marked as one that asks for a token itself."""
    patterns, app_name, namespace = api.urls
    for pattern in patterns:
        setattr(pattern.callback, "login_required", False)  # noqa: B010 - a function's own attribute
    return patterns, app_name, namespace
