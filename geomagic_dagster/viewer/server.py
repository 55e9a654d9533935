"""A small server of rooms for this machine's browsers: http://127.0.0.1:3001 beside Dagster.

A browser opens no file:// link on a page that came by http, so what Dagster links to has to be served.

    /                         the published rooms, with their pictures
    /packages/NAME/           the page of a published package;      /packages/NAME/FILE   one of its files
    /artefacts/IDENTITY/      the page of a package in the store;   /artefacts/IDENTITY/FILE

Belongs here: addresses, headers, what is refused. Does not belong here: the page (page.py), where packages lie
(folders.py, resources/shelf.py). It only reads, has no login, and answers only who asks for it by a name it knows.
"""

from __future__ import annotations

import html
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes, urlsplit

from geomagic_dagster.viewer.addresses import ARTEFACTS, PACKAGES, page_path
from geomagic_dagster.viewer.page import POLICY, document, room_page, scan_name, security_policy

log = logging.getLogger("geomagic.rooms")

TYPES = {
    ".glb": "model/gltf-binary",
    ".usdz": "model/vnd.usdz+zip",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".txt": "text/plain; charset=utf-8",
}
"""Everything else, HTML too, is only ever downloaded."""
FILE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
LIST_POLICY = security_policy(images="'self' data:")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Shelf(Protocol):
    """Where packages lie."""

    def names(self) -> list[str]: ...

    def files(self, name: str) -> Mapping[str, bytes] | None: ...


@dataclass(frozen=True)
class Answer:
    status: HTTPStatus
    content: bytes
    kind: str = "text/html; charset=utf-8"
    policy: str = LIST_POLICY
    headers: tuple[tuple[str, str], ...] = ()


def answer(shelves: Mapping[str, Shelf], target: str) -> Answer:
    """What the server says to a GET of `target`, a path with an optional query."""
    parts = [os.fsdecode(unquote_to_bytes(part)) for part in urlsplit(target).path.split("/")[1:]]
    if parts == [""]:
        return Answer(HTTPStatus.OK, _list(shelves[PACKAGES]))
    shelf = shelves.get(parts[0])
    if shelf is None or not 2 <= len(parts) <= 3:
        return _not_found("This address belongs to no room.")
    files = shelf.files(parts[1])
    if files is None:
        return _not_found(
            f"There is no room {parts[1]!r} in {parts[0]}; it was removed, put into quarantine, or never published."
        )
    if len(parts) == 2:  # without its last slash
        to = page_path(parts[0], parts[1]).split("/", 2)[2]  # relative: a proxy may have put something before it
        return Answer(HTTPStatus.MOVED_PERMANENTLY, b"", headers=(("Location", to),))
    name = parts[2]
    if name == "":
        return Answer(HTTPStatus.OK, room_page(files, _name(files, parts)), policy=POLICY)
    if name not in files:
        return _not_found(f"There is no file {name!r} in the room {parts[1]!r}; it has {', '.join(files)}.")
    kind = TYPES.get(PurePosixPath(name).suffix.lower())
    return Answer(
        HTTPStatus.OK,
        files[name],
        kind or "application/octet-stream",
        FILE_POLICY,
        () if kind else (("Content-Disposition", "attachment"),),
    )


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD; everything else is refused."""

    protocol_version = "HTTP/1.1"
    server_version = "geomagic"
    sys_version = ""
    timeout = 60

    def __init__(self, shelves: Mapping[str, Shelf], hosts: frozenset[str] | None, *args: Any) -> None:
        self.shelves, self.hosts = shelves, hosts
        super().__init__(*args)

    def do_GET(self) -> None:
        if self.hosts is not None and _host(self.headers.get("Host", "")) not in self.hosts:
            # A page elsewhere may give its own name this machine's address and then read what is served here.
            self._send(_sentence(HTTPStatus.MISDIRECTED_REQUEST, "This server answers only to its own name."))
            return
        try:
            said = answer(self.shelves, self.path)
        except Exception as error:  # said to whoever asked, and, as any bug, on the terminal
            log.exception("a room's page")
            said = _sentence(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
        self._send(said)

    do_HEAD = do_GET

    def refuse(self) -> None:
        refusal = _sentence(HTTPStatus.METHOD_NOT_ALLOWED, "Rooms can only be looked at here: GET and HEAD.")
        self.close_connection = True  # whatever follows is not read
        self._send(refusal, ("Allow", "GET, HEAD"), ("Connection", "close"))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = refuse

    def _send(self, said: Answer, *more: tuple[str, str]) -> None:
        self.send_response(said.status)
        for name, value in (
            ("Content-Type", said.kind),
            ("Content-Length", str(len(said.content))),
            ("Content-Security-Policy", f"{said.policy}; frame-ancestors 'none'"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-cache"),
            *said.headers,
            *more,
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said.content)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: names of rooms stay out of logs."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a browser that went away is none
            super().handle_error(request, client_address)


def room_server(shelves: Mapping[str, Shelf], host: str, port: int) -> ThreadingHTTPServer:
    """A server that listens, not yet answering: call `serve_forever`. Port 0 takes a free one.

    Raises: OSError where nothing can listen there.
    """
    hosts = frozenset((*LOOPBACK, host)) if host in LOOPBACK else None
    return _Server((host, port), partial(Handler, shelves, hosts))


def _host(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _name(files: Mapping[str, bytes], parts: list[str]) -> str:
    """What to call a room: as it was published, or, for an artefact, which has only a number, as its scan."""
    return (parts[0] == ARTEFACTS and scan_name(files)) or parts[1]


def _list(shelf: Shelf) -> bytes:
    rooms = []
    for name in shelf.names():
        path = page_path(PACKAGES, name)[1:]
        rooms.append(
            f'<li><a href="{path}"><img src="{path}preview.png" alt="" loading="lazy">'
            f"<span>{html.escape(name)}</span></a></li>"
        )
    found = f'<ul class="rooms">{"".join(rooms)}</ul>' if rooms else "<p>No room was published yet.</p>"
    return document("Rooms", f"<header><h1>Rooms</h1></header><main>{found}</main>", LIST_POLICY)


def _not_found(sentence: str) -> Answer:
    return _sentence(HTTPStatus.NOT_FOUND, sentence)


def _sentence(status: HTTPStatus, sentence: str) -> Answer:
    body = f"<header><h1>{status.phrase}</h1></header><main><p>{html.escape(sentence)}</p></main>"
    return Answer(status, document(status.phrase, body, LIST_POLICY))
