"""The page of a room in a real Chromium without a network: what is seen, what buttons do, on a desk and on a phone.

GEOMAGIC_SCREENSHOTS names a folder to keep the pictures in.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from geomagic_dagster.viewer.addresses import PACKAGES
from geomagic_dagster.viewer.folders import PackageFolder
from geomagic_dagster.viewer.page import room_page
from geomagic_dagster.viewer.server import room_server
from tests.conftest import BROWSER_PATIENCE_MS
from tests.viewer import rooms

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DESK, PHONE = (1280, 860), (375, 740)
DRAWN_S = BROWSER_PATIENCE_MS / 1000


@pytest.fixture
def show(chromium, tmp_path, request) -> Iterator[Callable[..., Page]]:
    """Opens the page of a package; at the end, the page asked nobody for anything and its console has no error."""
    contexts, complaints = [], []

    def show(files: dict[str, bytes], size=DESK, script: str | None = None, **context) -> Page:
        path = tmp_path / "room.html"
        path.write_bytes(room_page(files, "my room"))
        width, height = size
        contexts.append(chromium.new_context(viewport={"width": width, "height": height}, offline=True, **context))
        contexts[-1].set_default_timeout(BROWSER_PATIENCE_MS)
        page = contexts[-1].new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(("data:", path.as_uri())) else complaints.append(asked.url),
        )
        if script:
            page.add_init_script(script)
        page.goto(path.as_uri())
        return page

    yield show
    folder = os.environ.get("GEOMAGIC_SCREENSHOTS")
    for number, context in enumerate(contexts):
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            name = re.sub(r"\W+", "_", request.node.name)
            context.pages[0].screenshot(path=Path(folder) / f"{name}_{number}.png", full_page=True, caret="initial")
        context.close()
    assert complaints == []


def drawn(page: Page) -> np.ndarray:
    """The 3D room as it is seen, (h, w, 3), without what lies over it."""
    expect(page.locator("#stage")).to_have_attribute("data-state", "ready", timeout=DRAWN_S * 1000)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    hide = "all => all.forEach(each => { each.style.visibility = '%s'; })"  # a style sheet would be against the policy
    page.locator(".labels, .said, .label").evaluate_all(hide % "hidden")
    picture = page.locator("#stage").screenshot(caret="initial")
    page.locator(".labels, .said, .label").evaluate_all(hide % "")
    return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)[12:-12, 12:-12]  # its corners are round


def colours(picture: np.ndarray) -> int:
    return len(np.unique(picture.reshape(-1, 3), axis=0))


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def at(page: Page, x: float, y: float) -> dict[str, float]:
    """A point of the 3D room, 0 to 1 from its upper left corner."""
    box = page.locator("#stage").bounding_box()
    return {"x": x * box["width"], "y": y * box["height"]}


def test_the_room_is_drawn_and_every_button_changes_what_is_seen(show):
    page = show(rooms.package())
    first = drawn(page)
    assert colours(first) > 30, "three sides of the room, the table, edges"
    for name in ("Scanned surface", "Walls and lengths", "Furniture"):
        button = page.get_by_role("button", name=name)
        before, was = drawn(page), button.get_attribute("aria-pressed")
        button.click()
        assert button.get_attribute("aria-pressed") != was
        assert (drawn(page) != before).any(axis=2).sum() > 500
        button.click()
        assert np.array_equal(drawn(page), before), "and back"
    before = drawn(page)
    press(page, "From above")
    assert (drawn(page) != before).any(axis=2).mean() > 0.1
    press(page, "Whole room")
    assert np.array_equal(drawn(page), first)
    for name in ("Scanned surface", "Walls and lengths"):
        press(page, name)
    assert colours(drawn(page)) == 1, "nothing left"


def test_lengths_of_walls_and_sizes_of_furniture_are_told(show):
    page = show(rooms.package())
    drawn(page)
    expect(page.get_by_role("button", name="4.00 m").first).to_be_visible()
    page.get_by_role("button", name="about 3.00 m").press("Enter")
    expect(page.get_by_role("status")).to_have_text(re.compile(r"^wall 3: about 3\.00 m ± 0\.6 cm long, .*guessed$"))
    press(page, "Furniture")
    table = page.get_by_role("button", name="table 0")
    table.click()
    told = re.compile(r"^table 0: 1\.20 m wide, 0\.80 m deep, 0\.74 m high, ± 2\.5 cm; confidence high$")
    expect(page.get_by_role("status")).to_have_text(told)
    expect(table).to_have_attribute("aria-pressed", "true")
    table.click()
    expect(page.get_by_role("status")).to_be_empty()
    press(page, "From above")
    page.locator("#stage canvas").click(position=at(page, 0.56, 0.62))  # the box itself, beside its name
    expect(page.get_by_role("status")).to_have_text(told)


def test_the_tape_measures_between_two_points_of_the_room(show):
    page = show(rooms.package())
    drawn(page)
    press(page, "From above")
    press(page, "Scanned surface")  # the walls are left, and only their inner sides can be hit
    press(page, "Scanned surface")
    press(page, "Tape measure")
    canvas = page.locator("#stage canvas")
    canvas.click(position=at(page, 0.02, 0.5))
    expect(page.get_by_role("status")).to_have_text(re.compile("nothing to measure"))
    floor = [corner_on_screen(page, corner) for corner in ((-1.5, 0, -1), (1.5, 0, -1))]
    canvas.click(position=floor[0])
    expect(page.get_by_role("status")).to_have_text(re.compile("second"))
    canvas.click(position=floor[1])
    expect(page.get_by_role("status")).to_have_text(
        re.compile(r"^(2\.9[5-9]|3\.0[0-5]) m between the two points \(0\.00 m")
    )
    expect(page.locator(".label.tape")).to_be_visible()
    canvas.press("Escape")
    expect(page.locator(".label.tape")).to_have_count(0)


def corner_on_screen(page: Page, point: tuple[float, float, float]) -> dict[str, float]:
    """Where a point of the room is seen from above, from where the names of the walls are seen: they are at y = 2.5."""
    north, south = (page.locator(".label").nth(i).bounding_box() for i in (0, 2))
    stage = page.locator("#stage").bounding_box()
    middle_x, middle_y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    y = [box["y"] + box["height"] / 2 - middle_y for box in (north, south)]
    per_m = (y[1] - y[0]) / rooms.DEPTH  # at the height of the ceiling; the floor is seen smaller
    slope = np.tan(np.radians(35 / 2))
    above_ceiling = stage["height"] / 2 / per_m / slope
    per_m_floor = per_m * above_ceiling / (above_ceiling + rooms.HEIGHT)
    return {
        "x": middle_x - stage["x"] + point[0] * per_m_floor,
        "y": middle_y - stage["y"] + point[2] * per_m_floor,
    }


def test_dragging_and_keys_turn_the_room_and_the_wheel_scrolls_the_page_until_it_is_touched(show):
    page = show(rooms.package())
    seen = [drawn(page)]
    canvas = page.locator("#stage canvas")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 400, box["y"] + 300)
    page.mouse.wheel(0, 200)
    deadline = time.monotonic() + DRAWN_S
    while page.evaluate("scrollY") < 100:
        assert time.monotonic() < deadline
    page.evaluate("scrollTo(0, 0)")
    assert np.array_equal(drawn(page), seen[0])
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 300, steps=4)
    page.mouse.up()
    seen.append(drawn(page))
    page.mouse.wheel(0, -300)
    seen.append(drawn(page))
    assert page.evaluate("scrollY") == 0
    for key in ("ArrowLeft", "ArrowUp", "+", "-", "ArrowDown"):
        canvas.press(key)
        seen.append(drawn(page))
    assert all((one != two).any() for one, two in pairwise(seen))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("files", [rooms.package(), {"room.glb": rooms.glb()}, {}], ids=["all", "only the GLB", "none"])
def test_on_a_phone_nothing_is_wider_than_the_phone(show, scheme, files):
    page = show(files, PHONE, color_scheme=scheme, has_touch=True, is_mobile=True)
    if files:
        drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    assert page.evaluate("document.querySelector('.scroll')?.scrollWidth ?? 0") <= PHONE[0]
    overflowing = "all => all.filter(each => each.scrollWidth > each.clientWidth).map(each => each.textContent)"
    assert page.locator("td, th").evaluate_all(overflowing) == []
    for button in page.get_by_role("button").filter(visible=True).all():
        size = button.bounding_box()
        assert size["height"] >= 40 or "label" in str(button.get_attribute("class")), "a thumb's size"


def test_text_has_contrast_in_both_schemes(show):
    for scheme in ("light", "dark"):
        page = show(rooms.package(), color_scheme=scheme)
        drawn(page)
        for selector in (
            "h1",
            ".facts dt",
            ".hint",
            ".notes li",
            "td small",
            "footer p",
            "button[aria-pressed='true']",
        ):
            ratio = page.locator(selector).first.evaluate(CONTRAST)
            assert ratio >= 4.5, f"{selector} in {scheme}"


CONTRAST = """element => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => numbers(colour).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let behind = element;
  while (numbers(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const [a, b] = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


def test_the_served_list_leads_to_the_room_and_asks_for_nothing_else(chromium, tmp_path):
    for name in ("one", "<i>two"):
        (tmp_path / name).mkdir()
        for file, content in rooms.package().items():
            (tmp_path / name / file).write_bytes(content)
    complaints: list[str] = []
    with room_server({PACKAGES: PackageFolder(tmp_path)}, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        page = chromium.new_page(viewport={"width": PHONE[0], "height": PHONE[1]})
        page.set_default_timeout(BROWSER_PATIENCE_MS)
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("request", lambda asked: None if asked.url.startswith(("data:", url)) else complaints.append(asked.url))
        page.goto(url)
        assert sorted(page.get_by_role("link").all_inner_texts()) == ["<i>two", "one"]
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
        for picture in page.locator("img").all():  # each is fetched when it comes into view
            picture.scroll_into_view_if_needed()
            picture.evaluate("each => each.complete || new Promise(done => each.onload = done)")
            assert picture.evaluate("each => each.naturalWidth") == 80
        page.get_by_role("link", name="<i>two").click()
        assert colours(drawn(page)) > 30
        page.close()
        server.shutdown()
    assert complaints == []


def test_without_webgl_the_picture_is_shown_with_a_sentence(show):
    blind = "HTMLCanvasElement.prototype.getContext = () => null;"
    page = show(rooms.package(), script=f"{blind} console.error = () => {{}};")  # three.js complains there
    expect(page.get_by_role("status")).to_have_text(re.compile("no WebGL.*here is a picture"))
    expect(page.locator("#stage img")).to_be_visible()
    expect(page.locator("#tools")).to_be_hidden()


def test_a_broken_model_is_said_and_the_rest_of_the_page_stands(show):
    page = show(rooms.package(room_glb=b"glTF no more"))
    expect(page.get_by_role("status")).to_have_text(re.compile("could not be read"))
    expect(page.locator("#stage img")).to_be_visible()
    expect(page.get_by_role("heading", name="Measurements")).to_be_visible()


def test_without_javascript_the_picture_the_plan_and_the_table_are_there(show):
    page = show(rooms.package(), java_script_enabled=False)
    expect(page.locator("#stage img")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("^Floor plan"))).to_be_visible()
    expect(page.locator("noscript .hint")).to_be_visible()
    assert page.get_by_role("button").filter(visible=True).count() == 0


def test_print_shows_the_picture_and_the_plan_and_no_buttons(show):
    page = show(rooms.package())
    drawn(page)
    expect(page.locator("#stage img")).to_be_hidden()
    page.emulate_media(media="print", color_scheme="dark")
    expect(page.locator("#stage img")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("^Floor plan"))).to_be_visible()
    assert page.get_by_role("button").filter(visible=True).count() == 0
    assert page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") == "rgb(255, 255, 255)"


def test_a_plan_on_paper_is_printed_as_large_as_it_is_drawn(show):
    page = show(rooms.package())
    drawn(page)
    press(page, "Larger")
    assert page.get_by_role("img", name=re.compile("^Floor plan")).bounding_box()["width"] == pytest.approx(
        68 * 16, abs=1
    )
    pages = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", page.pdf(prefer_css_page_size=True))
    sizes_mm = [(round(float(width) / 72 * 25.4), round(float(height) / 72 * 25.4)) for width, height in pages]
    assert sizes_mm.count((297, 210)) == 1, sizes_mm
    page.emulate_media(media="print")
    box = page.get_by_role("img", name=re.compile("^Floor plan")).bounding_box()
    assert (box["x"], box["width"] / 96 * 25.4, box["height"] / 96 * 25.4) == pytest.approx((0, 297, 210), abs=0.3)


@pytest.mark.parametrize("file", ["room.glb", "measurements.csv", "plan.svg"])
def test_files_are_saved_as_they_are_in_the_package(show, file):
    files = rooms.package()
    page = show(files)
    drawn(page)
    with page.expect_download() as saved:
        press(page, f"Save as {file}")
    assert saved.value.suggested_filename == file
    assert saved.value.path().read_bytes() == files[file]


def test_a_hostile_package_runs_nothing(show):
    evil = "</script><script>document.title='evil'</script><img src=x onerror=document.title='evil'>"
    svg = "<svg xmlns='http://www.w3.org/2000/svg' onload=\"document.title='evil'\"><script>document.title='evil'</script></svg>"
    csv = f"what,name,value,unit,sigma,confidence,note\nwidth,{evil},1,m,,,{evil}\n"
    document = rooms.document((evil,), table=evil).to_json()
    page = show(rooms.package(plan_svg=svg.encode(), measurements_csv=csv.encode(), room_json=document))
    drawn(page)
    press(page, "Furniture")
    page.get_by_role("button", name=re.compile("script")).click()
    expect(page.get_by_role("status")).to_contain_text(evil)
    assert page.title() == "my room: room"
