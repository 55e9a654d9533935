"""The intake as a process that stays: everything imported, the code location's jobs at hand.

Belongs here: HTTP, and its client for this machine. Does not belong here: what is done with an upload (intake.py).

    POST /scans/<name>   an archive as the body, streamed to the inbox's disk; answers {"upload", "run_id", "status"}:
                         201, 200 for what is being processed already, 202 where the run starts later
    POST /paths          {"path": ...}: a folder or archive of this machine; on the unix socket of its owner only
    GET  /health

Without a token it takes no request that a browser sends for another page (Origin), and listens on loopback only.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import json
import logging
import os
import shutil
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from geomagic_dagster.launching.starter import in_folder
from geomagic_dagster.releases.routing import RoutingStore

log = logging.getLogger("geomagic.intake")

SOCKET = "intake.sock"
"""In DAGSTER_HOME; for its owner."""
MAX_BYTES = 20 * 2**30
WRITE_BYTES = 2**20
RESERVE_BYTES = 2**30
"""Of the inbox's disk, which stay free whatever comes: Dagster writes there too."""
HEAD_S, SILENCE_S = 20.0, 60.0
"""How long somebody may take to say what they want; and how long an upload may be silent."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(inbox: Path, routing: RoutingStore, workspace: Path, host: str, port: int, token: str | None) -> None:
    """Listens until SIGTERM."""
    import uvicorn
    from dagster import DagsterInstance
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    from geomagic_dagster.launching.intake import Intake

    if host not in LOOPBACK and not token:
        raise ValueError(
            f"intake on {host}: expected a token, since others can reach it; got none. Set GEOMAGIC_INTAKE_TOKEN."
        )
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, WorkspaceFileTarget([str(workspace)])) as context,
    ):
        app = application(Intake(context, inbox, routing), token)
        outside = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        inside = _listen(Path(instance.root_directory) / SOCKET)
        config = uvicorn.Config(
            app, http=_protocol(), log_level="warning", log_config=None, timeout_graceful_shutdown=5
        )
        server = uvicorn.Server(config)
        log.info("intake: http://%s:%d", host, port)
        server.run(sockets=[outside, inside])


def application(intake: Any, token: str | None, max_bytes: int = MAX_BYTES) -> Any:
    """The ASGI application around an `Intake`."""
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from geomagic_dagster.launching.intake import Refused, TakenIn, checked_name

    def check(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if token and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise Refused(
                "authorization",
                expected="the token of this intake",
                received="another or none",
                do="Send it.",
                status=401,
            )
        if not token and "origin" in request.headers:
            raise Refused("origin", expected="no browser", received="one", do="Set GEOMAGIC_INTAKE_TOKEN.", status=403)

    async def scans(request: Request) -> JSONResponse:
        check(request)
        name = checked_name(request.path_params["name"])
        with intake.part() as folder:
            path, digest, size = folder / name, hashlib.sha256(), 0
            announced = int(request.headers.get("content-length", 0))
            _check_size(announced, max_bytes)
            _check_room(folder, announced)
            with open(path, "xb", buffering=0) as file:
                held, stream = bytearray(), request.stream()
                while (chunk := await _next(stream)) is not None:
                    held += chunk
                    size += len(chunk)
                    _check_size(size, max_bytes)
                    if len(held) >= WRITE_BYTES:
                        _check_room(folder, len(held))
                        await asyncio.to_thread(_write, file, digest, bytes(held))
                        held.clear()
                await asyncio.to_thread(_write, file, digest, bytes(held), sync=True)
            return _answer(await asyncio.to_thread(intake.take_in, path, name, digest.hexdigest()))

    async def paths(request: Request) -> JSONResponse:
        if (request.scope.get("server") or ("", None))[1] is not None:  # not by the unix socket
            raise Refused("/paths", expected="its owner's socket", received="the network", do="Send it.", status=403)
        return _answer(await asyncio.to_thread(intake.take_in_path, Path((await request.json())["path"])))

    def _answer(taken: TakenIn) -> JSONResponse:
        status = 202 if taken.run_id is None else 201 if taken.is_new else 200
        return JSONResponse({"upload": taken.upload, "run_id": taken.run_id, "status": taken.status}, status)

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def refused(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, getattr(error, "status", 422))

    async def failed(request: Request, error: Exception) -> JSONResponse:  # its traceback goes to the log
        return JSONResponse(
            {
                "error": f"{request.url.path}: expected the upload to be taken in; got {type(error).__name__}. "
                "Look at the intake's log, and send it again."
            },
            500,
        )

    async def hung_up(request: Request, error: Exception) -> JSONResponse:
        log.warning("%s: whoever sent it hung up in the middle; nothing of it is kept", request.url.path)
        return JSONResponse({"error": "expected the whole upload; got a part of it"}, 400)

    app = Starlette(
        routes=[
            Route("/scans/{name}", scans, methods=["POST"]),
            Route("/paths", paths, methods=["POST"]),
            Route("/health", health),
        ],
        exception_handlers={Refused: refused, ClientDisconnect: hung_up, Exception: failed},
    )
    app.router.redirect_slashes = False  # to whatever name the request says that we have
    return app


def _check_size(size: int, max_bytes: int) -> None:
    from geomagic_dagster.launching.intake import Refused

    if size > max_bytes:
        raise Refused(
            "size of the upload",
            expected=f"at most {max_bytes} bytes",
            received=f"{size} or more",
            do="Send a shorter scan.",
            status=413,
        )


def _check_room(folder: Path, more: int) -> None:
    from geomagic_dagster.launching.intake import Refused

    free = shutil.disk_usage(folder).free
    if free - more < RESERVE_BYTES:
        raise Refused(
            "disk of the inbox",
            expected=f"room for {more} bytes beside {RESERVE_BYTES} that stay free",
            received=f"{free} free",
            do="Nothing of it is kept. Send it again when there is room.",
            status=507,
        )


async def _next(stream: AsyncGenerator[bytes, None]) -> bytes | None:
    """What comes next of a body; None at its end. Raises: Refused where nothing comes for too long."""
    from geomagic_dagster.launching.intake import Refused

    try:
        async with asyncio.timeout(SILENCE_S):
            return await anext(stream, None)
    except TimeoutError:
        raise Refused(
            "upload",
            expected=f"a byte every {SILENCE_S:g} s",
            received="silence",
            do="Nothing of it is kept. Send it again, to its end.",
            status=408,
        ) from None


def _protocol() -> Any:
    """uvicorn's own HTTP, which by itself would wait for ever for the end of a request's head."""
    from uvicorn.protocols.http import auto

    base: Any = auto.AutoHTTPProtocol  # one of two, by what is installed

    class Protocol(base):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait_for_another(None)

        def _wait_for_another(self, last: Any) -> None:
            self._patience = self.loop.call_later(HEAD_S, self._look, last)

        def _look(self, last: Any) -> None:
            is_between = self.cycle is None or self.cycle.response_complete
            if is_between and self.cycle is last:
                self.transport.close()
            else:
                self._wait_for_another(self.cycle)

        def connection_lost(self, exc: Exception | None) -> None:
            self._patience.cancel()
            super().connection_lost(exc)

    return Protocol


def _write(file: Any, digest: Any, content: bytes, sync: bool = False) -> None:
    digest.update(content)
    left = memoryview(content)
    while left:  # a disk that is nearly full takes a part, and says so
        left = left[file.write(left) :]
    if sync:
        os.fsync(file.fileno())


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        with in_folder(path) as address:
            listener.bind(address)
    finally:
        os.umask(mask)
    listener.listen(64)
    return listener


# --- the client on this machine -------------------------------------------------------------------


def send_path(dagster_home: Path, path: Path, timeout_s: float | None = None) -> dict[str, Any] | None:
    """Asks the running intake to take a path in; None where none is running. Raises: OSError (also where it does not
    answer in time), http.client.HTTPException, ValueError where it died in the middle."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)  # on another disk it copies gigabytes first: then there is none
    try:
        with in_folder(dagster_home / SOCKET) as address:
            connection.connect(address)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    client = http.client.HTTPConnection("intake")
    client.sock = connection
    try:
        client.request("POST", "/paths", json.dumps({"path": str(path)}), {"content-type": "application/json"})
        return json.loads(client.getresponse().read())
    finally:
        client.close()
