"""What the server of rooms answers, and what it refuses: asked over a real socket, byte for byte."""

from __future__ import annotations

import http.client
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.viewer.addresses import ARTEFACTS, PACKAGES, page_path
from geomagic_dagster.viewer.folders import PackageFolder, package_at, package_files
from geomagic_dagster.viewer.page import POLICY, room_page
from geomagic_dagster.viewer.server import room_server
from tests.viewer import rooms

ODD_NAMES = ("room", "Wohnküche 2. Stock", "a%2fb", "a?b#c", ".hidden", "<b>", "\udcff", "a+b", "'\"")
IDENTITY = "0123456789abcdef" * 2


class OneArtefact:
    def names(self) -> list[str]:
        return []

    def files(self, name: str) -> Mapping[str, bytes] | None:
        if name == "broken":
            raise ValueError("it is <broken>")
        return rooms.package() if name == IDENTITY else None


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Packages of odd names, a secret beside them, links out, and one that is being written."""
    home = tmp_path_factory.mktemp("home")
    (home / "secret").mkdir()
    (home / "secret" / "room.glb").write_text("secret")
    for name in ODD_NAMES:
        folder = home / "packages" / name
        folder.mkdir(parents=True)
        for file, content in rooms.package().items():
            (folder / file).write_bytes(content)
    room = home / "packages" / "room"
    (room / "page.html").write_text("<script>alert(1)</script>")
    (room / "link.json").symlink_to(home / "secret" / "room.glb")
    (room / "folder.json").mkdir()
    (home / "packages" / "link").symlink_to(home / "secret")
    (home / "packages" / f".{'0' * 32}.partial").mkdir()
    (home / "packages" / "room.run.json").write_text("{}")
    return home


@pytest.fixture(scope="module")
def port(home) -> Iterator[int]:
    server = room_server({PACKAGES: PackageFolder(home / "packages"), ARTEFACTS: OneArtefact()}, "127.0.0.1", 0)
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def ask(port):
    """Sends one request as it stands, with no client that would tidy it; gives status, headers and body."""

    def ask(target: str, method: str = "GET", host: str = "127.0.0.1", body: bytes = b""):
        with socket.create_connection(("127.0.0.1", port), timeout=90) as connection:
            head = f"{method} {target} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode("latin-1") + body)
            answer = http.client.HTTPResponse(connection, method=method)
            answer.begin()
            return answer.status, answer.headers, answer.read()

    return ask


@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_published_room_has_its_page_and_its_files(ask, name):
    path = page_path(PACKAGES, name)
    status, headers, body = ask(path)
    assert status == 200
    files = rooms.package()
    assert body == room_page(files, name)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    for file, kind in {
        "room.glb": "model/gltf-binary",
        "room.json": "application/json",
        "plan.svg": "image/svg+xml",
        "plan.png": "image/png",
        "measurements.csv": "text/csv; charset=utf-8",
    }.items():
        status, headers, body = ask(path + file)
        assert (status, headers["Content-Type"], body) == (200, kind, files[file])


def test_the_list_names_every_room_once_with_its_picture(ask):
    status, _, body = ask("/")
    assert status == 200
    for name in ODD_NAMES:
        assert body.count(f'<a href="{page_path(PACKAGES, name)[1:]}">'.encode()) == 1
        assert body.count(f'<img src="{page_path(PACKAGES, name)[1:]}preview.png"'.encode()) == 1
    assert body.count(b"<li>") == len(ODD_NAMES), "no link, nothing half written, no record of a run"
    assert b"<b></span>" not in body


def test_a_room_of_the_store_is_called_by_the_name_of_its_scan(ask):
    status, _, body = ask(f"/{ARTEFACTS}/{IDENTITY}/")
    assert status == 200
    assert b"<h1>my scan</h1>" in body
    assert ask(f"/{ARTEFACTS}/{IDENTITY}/room.glb")[2] == rooms.glb()


@pytest.mark.parametrize(
    "target",
    [
        "/packages/../secret/room.glb",
        "/packages/%2e%2e/secret/room.glb",
        "/packages/..%2fsecret/room.glb",
        "/packages/..%5csecret/room.glb",
        "/packages/../",
        "/packages/./",
        "/packages/%2e/",
        "/packages//",
        "/packages/room/../../secret/room.glb",
        "/packages/room/..%2f..%2fsecret%2froom.glb",
        "/packages/room/%2e%2e",
        "/packages/room/.",
        "/packages/room%00/room.glb",
        "/packages/room/room.glb%00",
        "/packages/%2fetc/passwd",
        "/packages/link/",
        "/packages/link/room.glb",
        "/packages/room/link.json",
        "/packages/room/folder.json",
        "/packages/room/room.glb/",
        f"/packages/.{'0' * 32}.partial/",
        "/packages/room.run.json",
        "/packages/room.run.json/",
        "/packages/nothing/",
        "/packages",
        "/packages/",
        "/artefacts/",
        "/artefacts/../packages/room/",
        "/secret/room.glb",
        "/etc/passwd",
        "//127.0.0.1/packages/room/",
        "/%",
        "/%ff",
        "/" + "a" * 5000,
    ],
)
def test_nothing_but_packages_and_their_files_is_served(ask, target):
    status, headers, body = ask(target)
    assert status == 404
    assert body != b"secret"
    assert b"<main><p>" in body, "said in a sentence"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_rooms_can_only_be_looked_at(ask, home, method):
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    status, headers, body = ask("/packages/room/room.glb", method, body=b"x" * 100)
    assert status == 405
    assert headers["Allow"] == "GET, HEAD"
    assert b"only be looked at" in body
    assert before == {path: path.stat().st_mtime_ns for path in home.rglob("*")}


def test_an_unknown_method_is_refused(ask):
    assert ask("/", "BREW")[0] == 501


@pytest.mark.parametrize("target", ["/", "/packages/room/", "/packages/room/room.glb", "/packages/nothing/"])
def test_head_has_the_headers_of_get_and_no_body(ask, target):
    got, head = ask(target), ask(target, "HEAD")
    assert head[0] == got[0]
    assert head[2] == b""
    assert {k: v for k, v in head[1].items() if k != "Date"} == {k: v for k, v in got[1].items() if k != "Date"}


@pytest.mark.parametrize("target", ["/", "/packages/room/", "/packages/room/plan.svg", "/packages/nothing/"])
def test_every_answer_has_a_policy_that_asks_nobody_else(ask, target):
    headers = ask(target)[1]
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in headers["Server"]


def test_the_served_page_has_the_policy_that_is_written_in_it(ask):
    assert ask("/packages/room/")[1]["Content-Security-Policy"].startswith(POLICY)


def test_html_in_a_package_is_only_downloaded_and_a_plan_runs_no_script(ask):
    _, headers, _ = ask("/packages/room/page.html")
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"] == "attachment"
    assert "sandbox" in ask("/packages/room/plan.svg")[1]["Content-Security-Policy"]


def test_an_address_without_its_last_slash_is_led_on(ask):
    status, headers, _ = ask("/packages/Wohnk%C3%BCche%202.%20Stock")
    assert (status, headers["Location"]) == (301, "Wohnk%C3%BCche%202.%20Stock/")


@pytest.mark.parametrize(
    ("host", "status"), [("evil.example", 421), ("localhost", 200), ("127.0.0.1", 200), ("", 421), ("[", 421)]
)
def test_a_page_elsewhere_that_took_this_address_is_not_answered(ask, host, status):
    assert ask("/", host=host)[0] == status


def test_who_listens_to_others_on_purpose_is_answered_by_any_name(home):
    with room_server({PACKAGES: PackageFolder(home / "packages")}, "0.0.0.0", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=90)
        connection.request("GET", "/", headers={"Host": "rooms.example"})
        assert connection.getresponse().status == 200
        connection.close()
        server.shutdown()


def test_a_fault_is_said_in_words(ask, caplog):
    status, _, body = ask("/artefacts/broken/")
    assert status == 500
    assert b"it is &lt;broken&gt;" in body
    assert "Traceback" in caplog.text


def test_no_packages_yet_is_no_fault(tmp_path):
    assert PackageFolder(tmp_path / "packages").names() == []
    assert PackageFolder(tmp_path / "packages").files("room") is None


def test_the_newest_room_is_first(tmp_path):
    for age, name in enumerate(("new", "older", "oldest")):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    assert PackageFolder(tmp_path).names() == ["new", "older", "oldest"]


def test_a_folder_that_is_no_package_is_said(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ScanRejected, match="expected a package: a folder with room.glb .* got a folder with notes.txt"):
        package_at(tmp_path)
    assert list(package_files(tmp_path)) == ["notes.txt"]
