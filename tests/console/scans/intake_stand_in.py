"""An intake on its unix socket that moves what it is told of into the inbox, and starts nothing."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from geomagic_dagster.jobs.local_run import dagster_home
from geomagic_dagster.launching.intake_server import SOCKET
from geomagic_dagster.launching.starter import in_folder


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@contextmanager
def intake(home: Path, inbox: Path) -> Iterator[list[str]]:
    """Names of what it took, in order."""
    taken: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def address_string(self) -> str:
            return "socket"

        def log_message(self, format: str, *args: object) -> None: ...

        def do_POST(self) -> None:
            path = Path(json.loads(self.rfile.read(int(self.headers["content-length"])))["path"])
            try:
                path.rename(inbox / path.name)
                taken.append(path.name)
                answer = {"upload": path.name, "run_id": f"run-{len(taken)}", "status": "STARTING"}
            except FileNotFoundError:
                answer = {"error": f"{path}: expected a folder or an archive; got nothing there. Look at the path."}
            content = json.dumps(answer).encode()
            self.send_response(201)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    inbox.mkdir(parents=True, exist_ok=True)
    place = dagster_home(home) / SOCKET
    with in_folder(place) as address:
        server = _Server(address, Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        server.shutdown()
        server.server_close()
        place.unlink()
