"""What a researcher sees: the real webserver and daemon in a throwaway home, clicked through in a real Chromium.

Belongs here: what only a browser can show (the form, the picture, the switch). Does not belong here: what the
steps make of a scan (tests/cv, tests/assets, tests/jobs). Elements are found by role and by the words that a
person reads; every wait is for a condition. GEOMAGIC_SCREENSHOTS names a folder to keep the pictures in.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from geomagic_dagster.assets.metadata import THUMBNAIL_PX
from geomagic_dagster.assets.settings import settings_form
from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.drill.place import free_ports
from geomagic_dagster.jobs.local_run import REPOSITORY, dagster_home
from geomagic_dagster.scans.formats import canonical
from geomagic_dagster.scans.made_up import PHONE, make_room, scan_room
from tests.conftest import BROWSER_PATIENCE_MS, workspace_of_latest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

RELEASE = "latest"
CORPUS_SCAN = "made_up_2"
UPLOAD = "Wohnküche 2. Stock"
DEADLINE_S = 600.0
"""For what processes and runs do: only something broken takes so long."""
STAGES = find_stages()


# --- the processes ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A throwaway home with one small made-up room in the corpus."""
    home = tmp_path_factory.mktemp("home")
    scan = scan_room(make_room(2), PHONE.but(frames=40, size_wh=(160, 120))).scan
    canonical.write(replace(scan, name=CORPUS_SCAN, consent="research"), home / "corpus" / CORPUS_SCAN)
    return home


@pytest.fixture(scope="module")
def url(home) -> Iterator[str]:
    """Dagster's webserver and daemon, up and with latest loaded."""
    workspace = str(workspace_of_latest(home))
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    with _process(home, "dagster-webserver", "-w", workspace, "-h", "127.0.0.1", "-p", str(port)) as webserver:
        _wait_until(lambda: webserver.poll() is not None or _answers(url), f"dagster-webserver at {url}")
        log = (home / "dagster-webserver.log").read_text()
        assert webserver.poll() is None and "Error loading" not in log, log
        # Not before: two processes that make the same new SQLite database at once leave it broken (Dagster 1.13.27).
        with _process(home, "dagster-daemon", "run", "-w", workspace):
            yield url


@contextmanager
def _process(home: Path, program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program of this environment, in a process group of its own, which is ended with all that it started."""
    ours = ("GEOMAGIC_", "DAGSTER_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"GEOMAGIC_HOME": str(home), "DAGSTER_HOME": str(dagster_home(home))}
    with open(home / f"{program}.log", "wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name(program), *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # code servers and steps that outlive their parent
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what} after {DEADLINE_S:g} s"
        time.sleep(0.2)


# --- the browser ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Where screenshots go."""
    folder = os.environ.get("GEOMAGIC_SCREENSHOTS")
    if not folder:
        return tmp_path_factory.mktemp("screenshots")
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


@pytest.fixture
def page(chromium, url, pictures, request) -> Iterator[Page]:
    """The first page of the UI, in a fresh profile. How it looked at the end is kept, also when a test fails."""
    context = chromium.new_context(viewport={"width": 1600, "height": 1000}, base_url=url)
    context.set_default_timeout(BROWSER_PATIENCE_MS)
    page = context.new_page()
    page.goto("/")
    yield page
    _keep(page, pictures, request.node.name)
    context.close()


def _keep(page: Page, pictures: Path, name: str) -> None:
    page.screenshot(path=pictures / f"{name}.png", animations="disabled")  # dialogs at rest, not half faded in


def _go_to(page: Page, place: str) -> None:
    """A link of the navigation on the left; the name of its icon stands before it."""
    page.get_by_role("link", name=re.compile(rf"\b{place}$")).first.click()


def _reload_until_visible(page: Page, locator: Locator) -> None:
    """What the daemon does shows only on a page that is loaded anew (or a minute later)."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return expect(locator).to_be_visible(timeout=5000)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            page.reload()


def _follow_to_success(page: Page, run: Locator) -> None:
    """Opens a run, and stays on its page until it has ended."""
    run.click()
    status = page.get_by_text(re.compile(r"^(Success|Failure|Canceled)$"))
    expect(status).to_be_visible(timeout=DEADLINE_S * 1000)
    expect(status).to_have_text("Success")
    expect(page.get_by_text("Errored (0)", exact=True)).to_be_visible()


# --- what a researcher does -------------------------------------------------------------------------------


def test_the_graph_of_the_release_shows_every_stage(page):
    _go_to(page, "Lineage")
    page.locator(".CodeMirror").click()  # the search field, which has no name of its own
    page.keyboard.type(f'group:"{RELEASE}"')
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("asset-groups~group"))
    for name in ("scan", *(stage.name for stage in STAGES)):
        expect(page.get_by_text(name, exact=True).filter(visible=True)).to_have_count(2)  # in the list, in the graph


def test_a_corpus_scan_goes_through_every_stage_and_its_picture_is_seen(page, pictures):
    _go_to(page, "Catalog")
    _reload_until_visible(page, page.get_by_text("1 partition", exact=True).first)  # the corpus sensor has been there

    _go_to(page, "Lineage")
    page.get_by_role("button", name="Materialize all").click()
    dialog = page.get_by_role("dialog").filter(has_text="Partition selection")
    expect(dialog).to_contain_text(f"materialize {len(STAGES) + 1} assets")
    dialog.get_by_text("Select a partition or create one").click()
    page.get_by_role("menuitem").filter(has_text=CORPUS_SCAN).click()
    page.keyboard.press("Escape")
    _keep(page, pictures, "dialog")
    dialog.get_by_role("button", name="Launch 1 run").click()
    launched = page.get_by_text(re.compile(r"Launched run [0-9a-f]{8}"))
    run_id = launched.inner_text().split()[-1]

    _go_to(page, "Runs")
    _follow_to_success(page, page.get_by_role("link", name=run_id))
    expect(page.get_by_text(f"Succeeded ({len(STAGES) + 1})", exact=True)).to_be_visible()
    _keep(page, pictures, "run")

    package = next(stage for stage in STAGES if stage.name == "package")
    _go_to(page, "Catalog")
    page.get_by_role("link", name=f"{RELEASE} / {package.name}").click()
    _reload_until_visible(page, page.get_by_role("link", name=CORPUS_SCAN))  # its latest materialization
    for number in ("glb_bytes", "triangles", "size_x_m"):
        expect(page.get_by_role("row").filter(has_text=number)).to_contain_text(re.compile(r"\d{4}|\d\.\d"))
    _keep(page, pictures, "asset")
    page.get_by_role("row").filter(has_text="thumbnail").get_by_text("Show Markdown").click()
    image = page.get_by_role("dialog").get_by_role("img", name=package.name)
    expect(image).to_be_visible()
    _keep(page, pictures, "thumbnail")
    assert max(image.evaluate("image => [image.naturalWidth, image.naturalHeight]")) == THUMBNAIL_PX
    assert _grey_levels(image).std() > 10  # a room, not one colour
    page.get_by_role("button", name="Close").click()

    page.get_by_role("tab", name="Checks").click()
    for number in package.expects:
        expect(page.get_by_text(number, exact=True).first).to_be_visible()
    expect(page.get_by_text(re.compile("^(Succeeded|Failed)$"))).to_have_count(len(package.expects))
    _keep(page, pictures, "checks")


def test_the_launchpad_shows_the_settings_with_defaults_and_descriptions(page):
    _go_to(page, "Jobs")
    page.get_by_role("link", name="process_scan").click()
    page.get_by_role("tab", name="Launchpad").click()
    stage = min(STAGES, key=lambda stage: stage.name)  # the first in the form: the others may need scrolling
    settings = settings_form(stage).model_fields
    editor = page.get_by_role("presentation").filter(has_text="ops:").first
    for name, setting in settings.items():
        expect(editor).to_contain_text(f"{name}: {setting.default}")
    editor.get_by_text(next(iter(settings)), exact=True).click()
    for setting in settings.values():
        expect(page.get_by_text(f"/* {setting.description} */")).to_be_visible()


def test_the_upload_sensor_is_on(page):
    _go_to(page, "Automation")
    page.get_by_role("link", name="upload_sensor").click()
    expect(page.get_by_role("row", name=re.compile("^Running")).get_by_role("checkbox")).to_be_checked()
    expect(page.get_by_role("row", name=re.compile("^Target"))).to_contain_text("process_scan")


def test_an_upload_becomes_a_run_and_a_package(page, home, tmp_path):
    archive = shutil.make_archive(str(tmp_path / UPLOAD), "zip", home / "corpus" / CORPUS_SCAN)
    (home / "inbox").mkdir(exist_ok=True)
    shutil.move(archive, home / "inbox" / f"{UPLOAD}.zip")

    _go_to(page, "Runs")
    run = page.get_by_role("link", name=re.compile(r"run [0-9a-f]{8}$"))
    of_the_upload = page.locator("div").filter(has_text=f"geomagic/scan: {UPLOAD}").filter(has=run).last  # innermost
    _reload_until_visible(page, of_the_upload)
    _follow_to_success(page, of_the_upload.locator(run))
    expect(page.get_by_role("link", name="process_scan")).to_be_visible()

    assert (home / "packages" / UPLOAD / "room.glb").read_bytes()[:4] == b"glTF"
    assert not (home / "inbox" / f"{UPLOAD}.zip").exists()
    assert (home / "done" / f"{UPLOAD}.zip").is_file()


def _grey_levels(image: Locator) -> np.ndarray:
    """The picture that a page shows (h, w), out of the page itself."""
    content = base64.b64decode(str(image.get_attribute("src")).partition("base64,")[2])
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
