"""Debian's nginx with the gate's own configuration, before the real console, webservers and rooms.

Belongs here: starting and ending them, users with sessions, asking the gate. Does not belong here: what must hold
(test_gate.py). Ports are free ones of the loopback; of the configuration only ports, name and paths are others.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from geomagic_dagster.drill.place import free_ports
from tests.conftest import REPOSITORY

NAME = "localhost"
USERS = ("researcher", "engineer", "scientist", "operator", "viewer")
NOBODY = "nobody"
"""Has a login and no role."""
PORTS = {"console": 3003, "full": 3000, "read_only": 3004, "rooms": 3001, "metrics": 9464}
MAIN = """daemon off; pid {there}/nginx.pid; error_log {there}/error.log warn; worker_processes 1; {user}
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {there}/body; proxy_temp_path {there}/proxy; fastcgi_temp_path {there}/fastcgi;
    uwsgi_temp_path {there}/uwsgi; scgi_temp_path {there}/scgi;
    include {there}/geomagic.conf;
}}
"""
MAKE_USERS = """
import json, sys
from geomagic_dagster.console.server import set_up
set_up()
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from geomagic_dagster.console.people import make_user
from geomagic_dagster.console.scans import tokens
sessions = {}
for name in sys.argv[2:]:
    user = make_user(name, sys.argv[1], [] if name == "nobody" else [name])
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session.create()
    sessions[name] = session.session_key
    if name == "operator":
        sessions["token"] = tokens.make(user, "app", ["upload"])[1]
print(json.dumps(sessions))
"""
PASSWORD = "a long password 1"
PATIENCE_S = 300.0
"""For processes that start: only something broken takes so long, however busy the machine is."""


def nginx_program() -> str | None:
    return shutil.which("nginx", path=f"{os.environ['PATH']}:{Path(sys.executable).parent}:/usr/sbin")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def to(self) -> str:
        return self.headers.get("location", "")


class Metrics(ThreadingHTTPServer):
    """In the exporter's place: says which headers came, and remembers that somebody came."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.requests: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner.requests.append(self.requestline)
                body = json.dumps(
                    {"metrics": True, "headers": [(k.lower(), v) for k, v in self.headers.items()]}
                ).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Set-Cookie", "sessionid=planted")
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", port), Handler)


@dataclass
class Gate:
    """What a test asks."""

    folder: Path
    ports: dict[str, int]
    plain: int = 0
    secure: int = 0
    sessions: dict[str, str] = field(default_factory=dict)
    metrics: Any = None
    trust: Any = None

    def ask(
        self, path: str, who: str | None = None, method: str = "GET", body: Any = None, *, accept: str = "text/html",
        host: str | None = None, port: int = 0, **headers: str,
    ) -> Answer:  # fmt: skip
        connection = http.client.HTTPSConnection(NAME, port or self.secure, timeout=90, context=self.trust)
        with closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            sent = {"Host": host or f"{NAME}:{port or self.secure}", "Accept": accept} | {
                name.replace("_", "-"): value for name, value in headers.items()
            }
            if who:
                sent["Cookie"] = self.cookie(who)
            if body is not None:
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                sent = {"Content-Type": "application/json"} | sent | {"Content-Length": str(len(body))}
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            got = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, got, answer.read().decode(errors="replace"))

    def cookie(self, who: str) -> str:
        return f"sessionid={self.sessions[who]}"

    def query(self, who: str | None, query: str, **headers: str) -> Any:
        answer = self.ask("/dagster/graphql", who, "POST", {"query": query}, accept="*/*", **headers)
        return json.loads(answer.body) if answer.status in (200, 400) else answer.status

    def raw(self, content: bytes, wait_s: float = 3.0) -> bytes:
        """All that comes back for these bytes until the other side closes, or falls silent."""
        got = b""
        with self.connection(wait_s) as connection, suppress(OSError):  # silent, or gone before it had read everything
            connection.sendall(content)
            while piece := connection.recv(65536):
                got += piece
        return got

    @contextmanager
    def connection(self, wait_s: float) -> Iterator[ssl.SSLSocket]:
        with (
            socket.create_connection((NAME, self.secure), timeout=wait_s) as plain,
            self.trust.wrap_socket(plain, server_hostname=NAME) as connection,
        ):
            yield connection


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-made one, as README.md makes it."""
    key, made = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
         "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", key, "-out", made],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, made


def write_nginx(there: Path, ports: dict[str, int], plain: int, secure: int) -> Path:
    """The gate's configuration with these ports and paths."""
    there.mkdir()
    shutil.copytree(REPOSITORY / "deploy" / "gate" / "geomagic", there / "geomagic")
    key, made = certificate(there)
    text = (REPOSITORY / "deploy" / "gate" / "geomagic.conf").read_text()
    changes = {f"server 127.0.0.1:{PORTS[name]};": f"server 127.0.0.1:{port};" for name, port in ports.items()} | {
        "listen 80 ": f"listen 127.0.0.1:{plain} ",
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen 443 ": f"listen 127.0.0.1:{secure} ",
        "https://$server_name$request_uri": f"https://$server_name:{secure}$request_uri",
        "geomagic.example.org": NAME,
        "/etc/nginx/geomagic/certificate.pem": str(made),
        "/etc/nginx/geomagic/key.pem": str(key),
        "/var/log/nginx/geomagic.log": str(there / "geomagic.log"),
    }
    for old, new in changes.items():
        assert old in text, f"geomagic.conf: expected {old!r}"
        text = text.replace(old, new)
    (there / "geomagic.conf").write_text(text)
    main = there / "nginx.conf"
    main.write_text(MAIN.format(there=there, user="user root;" if os.geteuid() == 0 else ""))
    return main


def start_nginx(stack: ExitStack, main: Path) -> None:
    command = [
        nginx_program() or "nginx",
        "-p",
        str(main.parent),
        "-e",
        str(main.parent / "error.log"),
        "-c",
        str(main),
    ]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0 and "[warn]" not in checked.stderr, checked.stderr
    start(stack, command, os.environ, main.parent / "nginx.out")


def start(stack: ExitStack, command: list[str], environment: Any, output: Path) -> subprocess.Popen[bytes]:
    """A process that ends with the stack, by its id."""
    with open(output, "wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)

    def end() -> None:
        process.send_signal(signal.SIGTERM)  # nothing where it has ended already
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)
    return process


def wait_for(port: int, process: subprocess.Popen[bytes] | None = None, output: Path | None = None) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if process is not None and process.poll() is not None:
            break
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}: {output.read_text()[-2000:] if output else ''}")


def installation(stack: ExitStack, folder: Path) -> Gate:
    """Starts everything."""
    plain, secure, *others = free_ports(2 + len(PORTS))
    ports = dict(zip(PORTS, others, strict=True))
    gate = Gate(folder, ports, plain, secure)
    home, dagster_home = folder / "home", folder / "home" / "dagster"
    dagster_home.mkdir(parents=True)
    (dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    workspace = folder / "workspace.yaml"
    workspace.write_text("load_from: []\n")
    package = home / "packages" / "my room"
    package.mkdir(parents=True)
    (package / "preview.png").write_bytes(b"the picture of a room")
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("GEOMAGIC_", "DJANGO_", "DATABASE_URL"))
    } | {
        "GEOMAGIC_HOME": str(home),
        "DAGSTER_HOME": str(dagster_home),
        "GEOMAGIC_CONSOLE_HOSTS": NAME,
        "GEOMAGIC_CONSOLE_HTTPS": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    python = sys.executable
    made = subprocess.run(
        [python, "-c", MAKE_USERS, PASSWORD, *USERS, NOBODY], env=environment, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    gate.sessions = json.loads(made.stdout.splitlines()[-1])
    # Dagster's database is made by one process, before two that would both like to.
    subprocess.run(
        [python, "-c", "from dagster import DagsterInstance as D\nwith D.get() as d: d.get_runs(limit=1)"],
        env=environment, check=True,
    )  # fmt: skip
    web = [python, "-m", "dagster_webserver", "-w", str(workspace), "-h", "127.0.0.1", "-l", "/dagster", "-p"]
    geomagic = [python, "-m", "geomagic_dagster.cli"]
    commands = {
        "console": [*geomagic, "console", "--port", str(ports["console"])],
        "full": [*web, str(ports["full"])],
        "read_only": [*web, str(ports["read_only"]), "--read-only"],
        "rooms": [*geomagic, "room", "serve", "--port", str(ports["rooms"])],
    }
    started = {name: start(stack, command, environment, folder / f"{name}.out") for name, command in commands.items()}
    gate.metrics = Metrics(ports["metrics"])
    stack.callback(gate.metrics.shutdown)
    threading.Thread(target=gate.metrics.serve_forever, daemon=True).start()
    main = write_nginx(folder / "nginx", ports, gate.plain, gate.secure)
    gate.trust = ssl.create_default_context(cafile=str(main.parent / "certificate.pem"))
    start_nginx(stack, main)
    stack.callback(lambda: [process.terminate() for process in started.values()])  # all at once, then one by one
    for name, process in started.items():
        wait_for(ports[name], process, folder / f"{name}.out")
    wait_for(gate.secure)
    return gate


def hidden_field(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]+)"', page)
    assert found, page[:500]
    return found[1]
