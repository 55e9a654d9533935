"""What people do in the console, in a real browser: log in, approve with two users, flight, roll back, look it up.

Belongs here: what only a browser shows. Does not belong here: rights and rules (test_roles.py, test_service.py).
GEOMAGIC_SCREENSHOTS names a folder to keep the pictures in.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from geomagic_dagster.drill.place import free_ports
from geomagic_dagster.flighting.compare import compare
from geomagic_dagster.flighting.course import write_course
from geomagic_dagster.releases import environments
from geomagic_dagster.releases.installed import FOLDER
from geomagic_dagster.releases.record import Change, Release, write_release
from tests.flighting.test_compare import RANGES, uploads

pytestmark = [pytest.mark.browser, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
PASSWORD = "a long password 1"
PEOPLE = {"rita": "researcher", "eve": "engineer", "sam": "scientist", "olga": "operator", "vera": "viewer"}
PHONE, DESK = (375, 812), (1280, 900)
DEADLINE_S = 300.0
COMMITS = [
    Change("3f1c9a7e" * 5, "2026-11-18T09:12:00+01:00", "Walls that meet at an angle keep it"),
    Change("b07d2244" * 5, "2026-11-19T16:40:00+01:00", "Depth beyond 8 m no longer bends the floor"),
]


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> Path:
    """A home with two releases, recorded and installed, and five people."""
    root = tmp_path_factory.mktemp("console")
    for version, at in (("1.0.0", "2026-11-10T10:00:00+00:00"), ("1.1.0", "2026-11-20T08:30:00+00:00")):
        line = version[:3]
        record = Release(
            line, version, "c0ffee00" * 5, "main", "Cy Cutter <cy@example.org>", at, "3.11.7",
            files={"manifest.json": version.replace(".", "") * 12}, changes=tuple(COMMITS if version == "1.1.0" else ()),
        )  # fmt: skip
        for folder in (root / "records" / line, environments.line_folder(root / "home", line) / "env-1" / FOLDER):
            folder.mkdir(parents=True)
            write_release(record, folder)
            (folder / "manifest.json").write_text(json.dumps(_manifest(version)))
            (folder / "environment-cp311-linux.json").write_text("{}")
        (environments.line_folder(root / "home", line) / "env").symlink_to("env-1")
    done = _geomagic(root, "console", "create-user", "rita", "--role", "researcher", input=f"{PASSWORD}\n")
    assert done.returncode == 0, done.stderr
    others = {name: role for name, role in PEOPLE.items() if name != "rita"}
    _in_console(root, f"[people.make_user(name, {PASSWORD!r}, [role]) for name, role in {others}.items()]")
    return root


def _manifest(version: str) -> dict:
    from geomagic_dagster.cv.stage import find_stages
    from geomagic_dagster.releases.manifest import compile_manifest, manifest_sha256

    manifest = compile_manifest(find_stages(), None)
    if version == "1.1.0":
        layout = next(each for each in manifest["stages"] if each["name"] == "layout")
        layout |= {"version": f"{int(layout['version']) + 1}", "code_sha256": "0" * 64, "deadline_s": 360.0}
    return manifest | {"sha256": manifest_sha256(manifest)}


def _environment(root: Path) -> dict[str, str]:
    kept = {n: value for n, value in os.environ.items() if not n.startswith(("GEOMAGIC_", "DAGSTER_", "DJANGO_"))}
    return kept | {"GEOMAGIC_HOME": str(root / "home"), "GEOMAGIC_RECORDS": str(root / "records")}


def _geomagic(root: Path, *arguments: str, **more) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "geomagic_dagster.cli", *arguments]
    return subprocess.run(command, env=_environment(root), cwd=REPOSITORY, capture_output=True, text=True, **more)


def _in_console(root: Path, code: str) -> str:
    """Runs a few lines in a process that has the console's settings, as another program of the installation would."""
    preparation = "from geomagic_dagster.console.server import set_up; set_up(); "
    imports = (
        "from django.conf import settings; from geomagic_dagster.console import people; from django.contrib.auth.models import User; "
        "from geomagic_dagster.console.registry import service; from geomagic_dagster.console.registry.audit import Actor; "
        "from geomagic_dagster.flighting import promote; who = lambda name: Actor(User.objects.get(username=name)); "
    )
    done = subprocess.run(
        [sys.executable, "-c", preparation + imports + code], env=_environment(root), cwd=REPOSITORY,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def url(installation) -> Iterator[str]:
    """The console, up."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "geomagic_dagster.cli", "console", "--port", str(port)]
    with open(installation / "console.log", "wb") as log:
        process = subprocess.Popen(
            command, env=_environment(installation), cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not _answers(f"http://127.0.0.1:{port}/healthz"):
            said = (installation / "console.log").read_text()
            assert process.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture
def context(chromium, url) -> Iterator[BrowserContext]:
    context = chromium.new_context(viewport={"width": DESK[0], "height": DESK[1]}, base_url=url)
    context.set_default_timeout(DEADLINE_S * 1000)
    yield context
    context.close()


@pytest.fixture(scope="module")
def keep(tmp_path_factory):
    """Keeps a picture of a page, at a desk's width and at a phone's; nothing may stick out of the phone."""
    folder = Path(os.environ.get("GEOMAGIC_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)

    def keep(page: Page, name: str) -> None:
        for what, (width, height) in {"desk": DESK, "phone": PHONE}.items():
            page.set_viewport_size({"width": width, "height": height})
            page.screenshot(path=folder / f"console-{name}-{what}.png", animations="disabled", full_page=True)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name} is {wide} px wide on a screen of {width}"
        page.set_viewport_size({"width": DESK[0], "height": DESK[1]})

    return keep


def log_in(context: BrowserContext, name: str) -> Page:
    context.clear_cookies()
    page = context.new_page()
    page.goto("/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    return page


def do(page: Page, label: str, reason: str, **fields: str) -> None:
    """Follows the link of an action, says why, and does it."""
    page.get_by_role("link", name=label, exact=True).first.click()
    for name, value in fields.items():
        page.get_by_label(re.compile(name)).fill(value)
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name=label).click()
    expect(page.get_by_text("done.")).to_be_visible()


def open_release(page: Page, version: str) -> None:
    page.goto("/admin/")
    page.get_by_role("link", name=version, exact=True).first.click()


def test_a_release_from_cut_to_default_and_back(context, installation, keep):
    # 1.0 is the default already, by other people than we log in as now
    _in_console(
        installation,
        "r, e, s = map(who, ('rita', 'eve', 'sam')); "
        "service.stage(r, '1.0.0', 'the first one'); service.record_staging_test(r, '1.0.0', True, '2 smoke scans'); "
        "service.propose(r, '1.0.0', 'the first one'); service.approve(e, '1.0.0', 'fine'); "
        "service.approve(s, '1.0.0', 'fine'); service.make_default(r, '1.0.0', 'the first one'); "
        "settings.PLACES.routing().change(promote.off_probation('1.0', failed=False), by='watcher', why='smoke passed')",
    )
    context.new_page().goto("/")
    keep(context.pages[0], "login")

    page = log_in(context, "rita")
    keep(page, "dashboard-cut")
    open_release(page, "1.1.0")
    expect(page.get_by_text("layout: code changed, version")).to_be_visible()
    do(page, "Put in staging", "walls that meet at an angle")
    _in_console(
        installation, "service.record_staging_test(who('rita'), '1.1.0', True, '2 smoke scans became packages')"
    )
    open_release(page, "1.1.0")
    do(page, "Propose", "corner errors halve on the corpus")
    expect(page.get_by_text("lacks one engineering approval and one science approval")).to_be_visible()
    keep(page, "release-proposed")
    page.goto("/admin/do/make_default/1.1.0/")
    expect(page.get_by_role("alert")).to_contain_text("it is proposed. Next legal step: approve.")
    keep(page, "refused")

    page = log_in(context, "eve")
    expect(page.get_by_role("heading", name="Waiting for your approval")).to_be_visible()
    keep(page, "dashboard-your-turn")
    page.get_by_role("link", name="Approve", exact=True).first.click()
    keep(page, "approve")
    page.get_by_label("Reason").fill("read it all")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("lacks one science approval")).to_be_visible()

    page = log_in(context, "sam")
    open_release(page, "1.1.0")
    do(page, "Approve", "numbers are better on 40 rooms")

    page = log_in(context, "rita")
    open_release(page, "1.1.0")
    do(page, "Flight", "a tenth first", **{"Per cent": "10"})
    page.goto("/admin/traffic/")
    expect(page.get_by_text("10 % to 1.1").first).to_be_visible()
    keep(page, "traffic-flight")
    page.get_by_role("link", name=re.compile("^f-")).first.click()
    write_course(
        installation / "home" / "metrics", page.url.rstrip("/").rpartition("/")[2],
        compare(uploads(8, share=0.3, flight={"fails": 0.4}), RANGES, flight="release 1.1", other="the default 1.0"),
    )  # fmt: skip
    page.reload()
    expect(page.get_by_role("img", name="100 ends the flight")).to_be_visible()
    page.get_by_text("Measure by measure").click()
    expect(page.get_by_role("row").filter(has_text="failures")).to_contain_text("fails more often")
    keep(page, "flight")
    page.emulate_media(color_scheme="dark")
    keep(page, "flight-dark")
    page.emulate_media(color_scheme="light")
    open_release(page, "1.1.0")
    do(page, "Make default", "no worse in 200 scans")
    keep(page, "release-default")
    page.goto("/admin/")
    expect(page.get_by_text("on probation")).to_be_visible()

    page = log_in(context, "olga")
    page.goto("/admin/traffic/")
    do(page, "Roll back", "a customer's floor is tilted")
    expect(page.get_by_role("heading", name="Open incidents")).to_be_visible()
    keep(page, "dashboard-rolled-back")
    open_release(page, "1.1.0")
    keep(page, "release-superseded")

    page = log_in(context, "vera")
    for place in (
        "registry/auditentry",
        "registry/release",
        "registry/incident",
        "registry/stagingtest",
        "lead-time",
        "traffic",
    ):
        page.goto(f"/admin/{place}/")
        keep(page, place.partition("/")[2] or place)
    page.goto("/admin/registry/auditentry/")
    row = page.get_by_role("row").filter(has_text="roll_back")
    expect(row).to_contain_text("olga")
    expect(row).to_contain_text("a customer's floor is tilted")
    row.get_by_role("link").first.click()
    keep(page, "audit-entry")
    expect(page.get_by_role("link", name=re.compile("Put in staging|Roll back|Propose"))).to_have_count(0)


def test_the_dark_theme_is_readable(chromium, url, keep):
    context = chromium.new_context(viewport={"width": DESK[0], "height": DESK[1]}, base_url=url, color_scheme="dark")
    context.set_default_timeout(DEADLINE_S * 1000)
    page = log_in(context, "vera")
    open_release(page, "1.1.0")
    keep(page, "release-dark")
    context.close()
