"""How long somebody may take to say what they want of the console.

Belongs here: gunicorn's worker with that limit. Does not belong here: starting it (server.py), bodies of uploads, which
may take as long as bytes come (scans/receiving.py).

gunicorn waits for a request's head, and Django for a form, for as long as a byte comes now and then, and each of them
keeps one of the console's few threads: a handful of connections that never say what they want would silence it.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import Any

from gunicorn.workers.gthread import DEFAULT_WORKER_DATA_TIMEOUT, TConn, ThreadWorker

HEAD_S = 10.0
BODY_S = 20.0
"""Of a form, or of JSON: 64 kB at most are read."""
UPLOADED = ("/api/", "application/offset+octet-stream")
"""Address and content type of bytes of an upload, which few may send at once (scans/uploads.py)."""


class Worker(ThreadWorker):
    """Hangs up on whoever takes longer; what was said in full by then is answered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._until_s: dict[TConn, float] = {}

    def handle(self, conn: TConn) -> Any:
        self._until_s[conn] = time.monotonic() + DEFAULT_WORKER_DATA_TIMEOUT + HEAD_S
        try:
            return super().handle(conn)
        finally:
            self._until_s.pop(conn, None)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        if _is_upload(req):
            self._until_s.pop(conn, None)
        else:
            self._until_s[conn] = time.monotonic() + BODY_S
        return super().handle_request(req, conn)

    def murder_pending(self) -> None:
        """Of gunicorn's own loop: every second, or more often."""
        super().murder_pending()
        now_s = time.monotonic()
        for conn, until_s in list(self._until_s.items()):
            if now_s > until_s:
                with suppress(OSError):  # gone already
                    conn.sock.shutdown(socket.SHUT_RD)  # it is read to here; an answer on its way still arrives


def _is_upload(req: Any) -> bool:
    address, kind = UPLOADED
    said = next((value for name, value in req.headers if name == "CONTENT-TYPE"), "")
    return req.path.startswith(address) and said.partition(";")[0].strip() == kind
