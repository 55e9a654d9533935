"""The console over a real installation of the toy stages: from the last byte to the package, and cancelled on the way."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import requests

from geomagic_dagster.drill.place import free_ports
from geomagic_dagster.guardrails import processes
from geomagic_dagster.jobs.local_run import REPOSITORY
from tests.console.people import PASSWORD
from tests.console.scans.hostile import HOSTILE
from tests.console.scans.test_real_server import Console, wait
from tests.launching.installation import Installation, environment, installed

pytestmark = [
    pytest.mark.skipif(not processes.is_supported, reason="runs are forked on Linux only"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("home") / "home", free_ports(1)[0]) as installation:
        yield installation


@pytest.fixture(scope="module")
def webserver(installation) -> Iterator[str]:
    """Dagster's own, of the same installation."""
    port = free_ports(1)[0]
    home = installation.home / "dagster"
    command = [sys.executable, "-m", "dagster_webserver", "-w", str(home / "workspace.yaml"), "-h", "127.0.0.1"]
    with open(home / "webserver.log", "wb") as log:
        process = subprocess.Popen(
            [*command, "-p", str(port)], cwd=REPOSITORY, env=environment(installation.home), stdout=log, stderr=log
        )
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(90)


@pytest.fixture(scope="module")
def console(installation, webserver) -> Iterator[Console]:
    console = Console(installation.home, GEOMAGIC_DAGSTER_URL=webserver)
    yield console
    console.process.send_signal(signal.SIGTERM)
    console.process.wait(90)


def send(console: Console, content: bytes, name: str) -> str:
    url = console.create(len(content), name)
    status, _, said = console.patch(url, content, 0)
    assert status == 204, said
    return url


def test_an_upload_starts_at_once_and_its_package_can_be_fetched(installation, console):
    content = installation.archive("parlour").read_bytes()
    started_s = time.monotonic()
    url = send(console, content, "parlour.zip")
    handed_over_s = time.monotonic() - started_s
    assert console.call("GET", url)[2]["state"] in ("queued", "running", "done")
    said = wait(lambda: (said := console.call("GET", url)[2])["state"] == "done" and said, "the package")
    print(
        f"\nlast byte to a run: {handed_over_s:.2f} s; to done, as its sender sees it: {time.monotonic() - started_s:.2f} s"
    )
    (letter,) = [file for file in said["files"] if file["name"] == "letter.txt"]
    status, headers, _ = console.call("GET", letter["url"])
    assert status == 200 and headers["Content-Disposition"].startswith("attachment")
    upload = next(path.name for path in (installation.home / "done").iterdir())
    assert upload.startswith("parlour-") and len(installation.runs(upload)) == 1


def test_a_running_scan_is_cancelled_and_its_upload_put_aside(installation, console):
    content = installation.archive("cellar").read_bytes()
    with installation.held():
        url = send(console, content, "cellar.zip")
        said = wait(lambda: (said := console.call("GET", url)[2])["state"] == "running" and said, "the run")
        assert said["progress"] is None or said["progress"]["stages"] == 5
        assert console.call("DELETE", url)[0] == 204
        wait(lambda: console.call("GET", url)[2]["state"] == "cancelled", "its end")
    wait(lambda: list((installation.home / "failed").glob("cellar-*/reason.txt")), "its upload to be put aside")


def test_a_rejected_scan_says_why(installation, console):
    folder = installation.home / "elsewhere" / "junk"
    folder.mkdir()
    (folder / "picture.png").write_bytes(b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    (folder / "page.jpg").write_bytes(b"<!doctype html><script>alert(1)</script>")
    content = shutil.make_archive(str(folder), "zip", folder)
    with open(content, "rb") as file:
        url = send(console, file.read(), "junk.zip")
    said = wait(lambda: (said := console.call("GET", url)[2])["state"] == "rejected" and said, "the rejection")
    assert "expected a room scan; got a zip of no known format" in said["reason"]


@pytest.mark.parametrize("what", ["a bomb", "a name of half a letter", "SVG as every picture", "nonsense as bz2"])
def test_what_is_made_to_harm_ends_in_a_sentence(installation, console, what):
    make, words = HOSTILE[what]
    before = {path.name for path in installation.home.iterdir()}
    url = send(console, make(), f"{what}.zip")
    said = wait(lambda: (said := console.call("GET", url)[2])["state"] == "rejected" and said, "the rejection")
    assert words in said["reason"] and str(installation.home) not in said["reason"]
    upload = rows(console, f"select upload from scans_scan where id = '{url.rsplit('/', 1)[1].replace('-', '')}'")[0][0]
    assert wait(lambda: list((installation.home / "quarantine").glob(f"{upload}/reason.txt")), "it to be put aside")
    assert not (installation.inbox / upload).exists()
    assert {path.name for path in installation.home.iterdir()} - before <= {"quarantine"}


def test_a_scan_that_was_put_into_the_inbox_appears(installation, console):
    shutil.copy(installation.archive("attic"), installation.inbox / "attic.zip")
    installation.wait_for_success("attic.zip")
    wait(
        lambda: rows(console, "select state, origin, package from scans_scan where name = 'attic'"),
        "the console to see it",
    )
    wait(lambda: rows(console, "select package from scans_scan where name = 'attic'") == [("attic",)], "its package")


def test_a_scan_is_run_again_by_somebody_who_may(installation, console, webserver):
    content = installation.archive("hall").read_bytes()
    url = send(console, content, "hall.zip")
    wait(lambda: console.call("GET", url)[2]["state"] == "done", "the package")
    scan_id = url.rsplit("/", 1)[1]
    session, base = requests.Session(), f"http://127.0.0.1:{console.port}"
    wait(lambda: _is_up(webserver), "the webserver")

    def post(path: str, **said: str) -> requests.Response:
        session.get(base + path)
        said["csrfmiddlewaretoken"] = session.cookies["csrftoken"]
        return session.post(base + path, said, headers={"Referer": base + path})

    assert post("/admin/login/", username="ada", password=PASSWORD).status_code == 200
    answer = post(f"/admin/scans/scan/{scan_id}/do/rerun_scan/", release="latest", reason="to compare")
    assert answer.status_code == 200 and "Run again: done." in answer.text, answer.text[-3000:]
    query = f"select status from scans_run where scan_id = '{scan_id.replace('-', '')}'"
    wait(lambda: rows(console, query) == [("SUCCESS",), ("SUCCESS",)], "the second run")
    assert console.call("GET", url)[2]["state"] == "done"


def rows(console: Console, query: str) -> list[tuple]:
    with sqlite3.connect(f"file:{console.home / 'console.sqlite3'}?mode=ro", uri=True) as connection:
        return connection.execute(query).fetchall()


def _is_up(url: str) -> bool:
    try:
        return requests.get(f"{url}/server_info", timeout=5).ok
    except requests.ConnectionError:
        return False
