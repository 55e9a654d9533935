"""The console in a real Chromium: log in, see a scan in 3D, its sender's page; on a desk and on a phone.

GEOMAGIC_SCREENSHOTS names a folder to keep the pictures in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from geomagic_dagster.console.scans import dagster_link
from geomagic_dagster.console.scans.describing import link_key
from geomagic_dagster.console.scans.models import Scan, State
from geomagic_dagster.resources.places import Places
from tests.conftest import BROWSER_PATIENCE_MS
from tests.console.people import PASSWORD
from tests.viewer import rooms

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

DESK, PHONE = (1280, 860), (375, 740)
DRAWN_MS = BROWSER_PATIENCE_MS
NAME = "Wohnküche 2. Stock"


@pytest.fixture(scope="module", autouse=True)
def database_beside_playwright(django_db_setup) -> Iterator[None]:
    """Playwright's loop runs in the thread of the tests, where Django would see an asynchronous program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        yield


@pytest.fixture
def scan(tmp_path, settings) -> Scan:
    settings.HOME, settings.PLACES = tmp_path, Places.in_home(tmp_path)
    dagster_link.instance.cache_clear()
    folder = tmp_path / "packages" / "parlour"
    folder.mkdir(parents=True)
    kept = os.environ.get("GEOMAGIC_TEST_PACKAGE")
    files = {path.name: path.read_bytes() for path in Path(kept).iterdir()} if kept else rooms.package()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return Scan.objects.create(name=NAME, state=State.DONE, upload="parlour.zip", package="parlour", release="1.0")


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def page(chromium, live_server, request) -> Iterator[Page]:
    width, height = request.param
    context = chromium.new_context(viewport={"width": width, "height": height}, base_url=live_server.url)
    context.set_default_timeout(BROWSER_PATIENCE_MS)
    page, complaints = context.new_page(), []
    known = "Mesh is missing primitive index association"  # the viewer's word for meshes that share their vertices
    page.on(
        "console",
        lambda said: (
            complaints.append(f"{said.text} {said.location}") if said.type == "error" and said.text != known else None
        ),
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            complaints.append(asked.url) if not asked.url.startswith((live_server.url, "data:", "blob:")) else None
        ),
    )
    yield page
    context.close()
    assert complaints == []


def keep(page: Page, name: str) -> None:
    if folder := os.environ.get("GEOMAGIC_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}_{page.viewport_size['width']}.png", full_page=True)


def log_in(page: Page, name: str) -> None:
    page.goto("/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def fits(page: Page) -> bool:
    """Whether nothing makes the page itself scroll sideways."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_scan_is_seen_in_3d(page, scan, make_user):
    make_user("otto", "operator")
    log_in(page, "otto")
    page.goto("/admin/scans/scan/")
    keep(page, "scans")
    page.get_by_role("link", name=NAME).click()
    expect(page.get_by_role("heading", name=NAME)).to_be_visible()
    page.evaluate("""() => new Promise((done, failed) => {
        const viewer = document.querySelector('model-viewer');
        viewer.addEventListener('error', event => failed(event.detail.type));
        const look = () => viewer.loaded && viewer.modelIsVisible ? done() : requestAnimationFrame(look);
        look();
    })""")  # waiting by the policy: wait_for_function evaluates strings
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    drawn = page.locator("model-viewer").screenshot()
    picture = cv2.imdecode(np.frombuffer(drawn, np.uint8), cv2.IMREAD_COLOR)[12:-12, 12:-12]
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 30, "a blank canvas"
    keep(page, "scan")
    assert (
        page.locator(".plan img").evaluate(
            "image => (image.loading = 'eager', image.decode().then(() => image.naturalWidth))"
        )
        > 0
    )
    assert fits(page)
    page.get_by_role("link", name="Run again").click()
    expect(page.get_by_label("Release")).to_be_visible()
    keep(page, "rerun")
    assert fits(page)


def test_its_sender_sees_how_far_it_is_without_a_login(page, scan):
    page.goto(f"/s/{link_key(scan)}")
    expect(page.get_by_role("status")).to_have_text("The room is ready.")
    assert page.locator("main img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    keep(page, "status_done")
    assert fits(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="room.glb").click()
    assert download.value.suggested_filename == "room.glb"
    page.get_by_role("link", name=re.compile("Look at the room")).click()
    expect(page.locator("#stage")).to_have_attribute("data-state", "ready", timeout=DRAWN_MS)
    Scan.objects.update(state=State.RECEIVING, bytes_total=1000)
    page.goto(f"/s/{link_key(scan)}")
    expect(page.get_by_role("status")).to_have_text("The scan is being received.")
    keep(page, "status_receiving")
    Scan.objects.update(
        state=State.REJECTED,
        reason="no floor seen in this scan: expected a floor; got none. Walk once around with the phone tilted down.",
    )
    expect(page.locator(".reason")).to_contain_text("Walk once around")  # by itself
    keep(page, "status_rejected")
