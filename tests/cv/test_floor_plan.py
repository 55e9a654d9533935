"""The floor plan: true to its scale, the figures those of room.json, no word on another, the same in SVG and PNG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from geomagic_dagster.cv.containers import decode_image
from geomagic_dagster.cv.floor_plan import draw_plan
from geomagic_dagster.cv.floor_plan_dimensions import readable_deg, with_sigma
from geomagic_dagster.cv.floor_plan_paper import Plan
from geomagic_dagster.cv.page import Text, overlap, to_png, to_svg, wrapped
from geomagic_dagster.cv.room_document import room_document
from geomagic_dagster.cv.room_model import RoomDocument
from geomagic_dagster.cv.types import Furniture, Layout
from tests.cv.hand_made_rooms import (
    L_SHAPE,
    NO_FURNITURE,
    OBLIQUE,
    PARTIAL,
    RECTANGLE,
    SOME_FURNITURE,
    U_SHAPE,
    WHOLE,
    box_mesh,
    furniture_of,
    layout_of,
    rooms,
    scan_of,
)

SVG = "{http://www.w3.org/2000/svg}"
TURN = np.array([[np.cos(0.4), np.sin(0.4)], [-np.sin(0.4), np.cos(0.4)]])
L_OPENINGS = (
    ("window", 0, 1, 1.5, 0.9, 1.2),
    ("window", 4, 0.5, 1.2, 0.9, 1.2),
    ("door", 2, 0.5, 0.9, 0, 2),
    ("door", 3, 0.5, 0.9, 0, 2),
)
WHOLE_ROOMS = {
    "rectangle": WHOLE,
    "turned": layout_of(RECTANGLE @ TURN),
    "L": layout_of(L_SHAPE @ TURN, openings=L_OPENINGS),
    "U": layout_of(U_SHAPE, openings=(("door", 4, 1.0, 1.0, 0.0, 2.0),)),
    "oblique": layout_of(OBLIQUE),
    "large": layout_of(RECTANGLE * 8),
    "small": layout_of(RECTANGLE * 0.15),
}  # fmt: skip
LAYOUTS = {**WHOLE_ROOMS, **PARTIAL}


def document_of(layout: Layout = WHOLE, furniture: Furniture = SOME_FURNITURE) -> RoomDocument:
    return room_document(scan_of(), box_mesh(), layout, furniture)


def plan_of(layout: Layout = WHOLE, furniture: Furniture = SOME_FURNITURE) -> Plan:
    return draw_plan(document_of(layout, furniture))


def texts_of(svg: bytes, what: str) -> list[tuple[str, str]]:
    """(what it is of, the words) of every text of a kind."""
    found = ElementTree.fromstring(svg).iter(f"{SVG}text")
    return [(each.get("data-of", ""), each.text or "") for each in found if each.get("class") == what]


def overlapping(plan: Plan) -> list[tuple[str, str]]:
    return [(a.text, b.text) for a, b in combinations(plan.page.texts, 2) if overlap(a.box_mm_42, b.box_mm_42)]


# --- true to scale ----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", WHOLE_ROOMS.values(), ids=WHOLE_ROOMS)
def test_walls_on_the_sheet_times_the_scale_are_the_walls_of_room_json(layout: Layout) -> None:
    document = document_of(layout)
    root = ElementTree.fromstring(to_svg(draw_plan(document).page))
    width, height = root.get("width"), root.get("height")
    assert root.get("viewBox") == f"0 0 {width[:-2]} {height[:-2]}", "a unit is a millimetre"
    assert width.endswith("mm")
    scale = int(re.search(r"1:(\d+)", texts_of(to_svg(draw_plan(document).page), "title")[0][1])[1])
    for wall in document.walls:
        lines = [each for each in root.iter(f"{SVG}polyline") if each.get("data-of") == wall.name]
        points = np.array([[float(v) for v in p.split(",")] for line in lines for p in line.get("points").split()])
        away = np.linalg.norm(points[:, None] - points[None], axis=2)
        outer = draw_plan(document).thickness_mm * 2 * scale / 1000  # the outer face reaches farther at its corners
        assert wall.dimensions[0] - 1e-3 <= away.max() * scale / 1000 <= wall.dimensions[0] + 2 * outer
        inner = [
            np.array([[float(v) for v in p.split(",")] for p in line.get("points").split()])
            for line in lines
            if line.get("stroke-width") == "0.5"
        ]
        inner_m = sum(np.linalg.norm(line[1] - line[0]) for line in inner) * scale / 1000
        openings = [
            each
            for each in (*document.doors, *document.windows, *document.openings)
            if each.parent_identifier == wall.identifier
        ]
        assert inner_m == pytest.approx(
            wall.dimensions[0] - sum(each.dimensions[0] for each in openings), abs=2e-6 * scale * 3
        )


def test_the_plan_is_seen_from_above_and_not_mirrored() -> None:
    plan = plan_of(layout_of(L_SHAPE), NO_FURNITURE)
    corners = plan.corners_mm_n2
    x, y = corners.T
    assert 0.5 * (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() < 0, "anticlockwise as seen, for y is down"
    expected = (L_SHAPE - L_SHAPE[0]) * [1, -1] * 1000 / plan.scale
    np.testing.assert_allclose(corners - corners[0], expected, atol=1e-3)


def test_boxes_lie_where_room_json_has_them() -> None:
    plan = plan_of()
    table = next(box for box in plan.boxes if box.name == "table_0")
    yaw = 0.3
    turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    world = np.array([[-0.8, -0.4], [0.8, -0.4], [0.8, 0.4], [-0.8, 0.4]]) @ turn + [0.9, 0.6]
    on_paper = (world - RECTANGLE[0]) * [1, -1] * 1000 / plan.scale + plan.corners_mm_n2[0]
    np.testing.assert_allclose(table.corners_mm_42, on_paper, atol=1e-3)


def test_walls_lie_level_or_upright_but_for_an_oblique_one() -> None:
    for name, walls in (("turned", 4), ("L", 6), ("oblique", 3)):
        layout = WHOLE_ROOMS[name]
        assert sum(min(abs(wall.along_2)) < 1e-6 for wall in plan_of(layout).walls) == walls


@pytest.mark.parametrize(
    ("metres", "paper", "scale"),
    [
        (0.4, "A4", 5),
        (1.5, "A4", 20),
        (4.0, "A4", 50),
        (9.0, "A3", 50),
        (14.0, "A4", 100),
        (28.0, "A4", 200),
        (45.0, "A3", 200),
        (900.0, "A3", 5000),
    ],
)
def test_the_scale_is_a_standard_one_and_the_largest_that_fits(metres: float, paper: str, scale: int) -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * metres
    plan = plan_of(layout_of(square), NO_FURNITURE)
    assert (plan.paper, plan.scale) == (paper, scale)
    assert sorted((plan.page.width_mm, plan.page.height_mm)) == {"A4": [210, 297], "A3": [297, 420]}[paper]
    assert f"1:{scale} ({paper})" in texts_of(to_svg(plan.page), "title")[0][1]


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    plan = plan_of()
    bar = np.vstack([shape.points_mm_n2 for shape in plan.page.shapes if shape.of == "scale bar"])
    metres = float(texts_of(to_svg(plan.page), "scale bar")[-1][1].removesuffix(" m"))
    assert np.ptp(bar[:, 0]) * plan.scale / 1000 == pytest.approx(metres)


# --- figures and words ------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_dimension_is_on_the_plan_and_is_that_of_room_json(layout: Layout) -> None:
    document = document_of(layout)
    svg = to_svg(draw_plan(document).page)
    expected = {}
    for each in (*document.walls, *document.doors, *document.windows, *document.openings):
        figure = f"{each.dimensions[0]:.2f}"
        expected[each.name] = f"({figure})" if getattr(each, "is_guessed", False) else figure
    assert sorted(texts_of(svg, "dimension")) == sorted(expected.items())
    sigmas = {wall.name: with_sigma(0.0, wall.sigma.length)[1] for wall in document.walls if not wall.is_guessed}
    assert sorted(texts_of(svg, "sigma")) == sorted(sigmas.items())


def test_area_height_and_openings_are_those_of_room_json() -> None:
    svg = to_svg(plan_of().page)
    assert texts_of(svg, "area") == [("room", "12.00 ±0.04 m²")]
    assert texts_of(svg, "height") == [("room", "height 2.50 ±0.01 m")]
    assert "area 12.00 ±0.04 m²" in texts_of(svg, "title")[0][1]
    schedule = [words for _, words in texts_of(svg, "schedule")]
    assert schedule[:3] == ["D1 door 0.90 × 2.00", "W1 window 1.20 × 1.30, sill 0.90", "P1 passage 1.50 × 2.20"]
    assert sorted(words for _, words in texts_of(svg, "tag")) == ["D1", "P1", "W1"]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_piece_is_named_in_place_or_has_a_number_that_the_foot_explains(layout: Layout) -> None:
    document = document_of(layout)
    svg = to_svg(draw_plan(document).page)
    named = {of for of, _ in texts_of(svg, "label")} - {"room"}
    numbered = dict(texts_of(svg, "number"))
    assert named | set(numbered) == {box.name for box in document.boxes()}
    assert not named & set(numbered)
    schedule = [words for _, words in texts_of(svg, "schedule")]
    for box in document.boxes():
        if box.name in numbered:
            width, height, depth = box.dimensions
            kind = next(iter(box.category))
            assert f"{numbered[box.name]} {kind} {width:.2f} × {depth:.2f}, h {height:.2f}" in schedule


@pytest.mark.parametrize("layout", PARTIAL.values(), ids=PARTIAL)
def test_what_is_missing_stands_at_the_foot(layout: Layout) -> None:
    document = document_of(layout)
    foot = " ".join(words for _, words in texts_of(to_svg(draw_plan(document).page), "warning"))
    assert foot == " ".join(f"! {warning}" for warning in document.warnings)


def test_guessed_walls_are_dashed_and_not_filled() -> None:
    root = ElementTree.fromstring(to_svg(plan_of(PARTIAL["a wall guessed"]).page))
    guessed = [each for each in root.iter() if each.get("data-of") == "wall_2" and each.tag != f"{SVG}text"]
    assert guessed
    assert all(each.get("stroke-dasharray") and each.get("fill") is None for each in guessed)
    seen = [each for each in root.iter() if each.get("data-of") == "wall_0"]
    assert not any(each.get("stroke-dasharray") for each in seen)
    assert any(each.get("fill") for each in seen)


def test_an_open_outline_has_no_area_and_says_that_it_is_open() -> None:
    svg = to_svg(plan_of(PARTIAL["open"]).page)
    assert texts_of(svg, "area") == []
    assert ("room", "open: only a part was seen") in texts_of(svg, "label")
    assert "area" not in texts_of(svg, "title")[0][1]


def test_what_hangs_above_the_cut_is_dashed() -> None:
    shapes = [shape for shape in plan_of().page.shapes if shape.of == "storage_0" and len(shape.points_mm_n2) == 4]
    assert shapes[0].dash_mm is not None
    assert shapes[0].fill is None
    table = [shape for shape in plan_of().page.shapes if shape.of == "table_0"]
    assert table[0].dash_mm is None


def test_no_sigma_shows_as_nought_and_none_smaller_than_it_is() -> None:
    assert with_sigma(3.4249, 0.0001) == ("3.42", "±0.01")
    assert with_sigma(3.4249, 0.0101) == ("3.42", "±0.02")
    assert with_sigma(3.4249, 0.02) == ("3.42", "±0.02")


@pytest.mark.parametrize("degrees", [0, 30, 89, 90, 91, 135, 180, 200, 269.9, 270, 271, 315])
def test_words_are_read_from_below_or_from_the_right(degrees: float) -> None:
    along = np.array([np.cos(np.radians(degrees)), -np.sin(np.radians(degrees))])
    angle = readable_deg(along)
    assert -88 <= angle < 92
    assert (angle - degrees) % 180 == pytest.approx(0, abs=1e-5) or (angle - degrees) % 180 == pytest.approx(
        180, abs=1e-5
    )


# --- no word on another -----------------------------------------------------------------------------


@pytest.mark.parametrize("furniture", [SOME_FURNITURE, NO_FURNITURE], ids=["furnished", "empty"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_no_word_lies_on_another_or_off_the_sheet(layout: Layout, furniture: Furniture) -> None:
    plan = plan_of(layout, furniture)
    assert overlapping(plan) == []
    corners = np.vstack([text.box_mm_42 for text in plan.page.texts])
    assert (corners >= 0).all()
    assert (corners <= (plan.page.width_mm, plan.page.height_mm)).all()


def test_thirty_pieces_on_each_other_are_all_told() -> None:
    pieces = [("object", (0.5 + 0.01 * k, 0.5, -1.0), (0.3, 0.3, 0.5 + 0.01 * k), 0.1 * k, -1) for k in range(30)]
    document = document_of(furniture=furniture_of(*pieces))
    plan = draw_plan(document)
    assert overlapping(plan) == []
    svg = to_svg(plan.page)
    told = {of for what in ("label", "number") for of, _ in texts_of(svg, what)}
    assert told >= {box.name for box in document.boxes()}


@given(rooms())
@settings(max_examples=40, deadline=None)
def test_any_room_gives_a_legible_plan(room: tuple[Layout, Furniture]) -> None:
    document = document_of(*room)
    plan = draw_plan(document)
    assert overlapping(plan) == []
    svg = to_svg(plan.page)
    openings = [each.name for each in (*document.doors, *document.windows, *document.openings)]
    told = {of for of, _ in texts_of(svg, "dimension")}
    assert {wall.name for wall in document.walls} <= told <= {wall.name for wall in document.walls} | set(openings)
    assert len(texts_of(svg, "schedule")) >= len(openings), "there also stand openings too narrow for a figure"
    assert svg == to_svg(draw_plan(document_of(*room)).page)


# --- SVG and PNG ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dpi", [100, 150])
def test_the_png_is_the_same_sheet_at_its_resolution(dpi: int) -> None:
    plan = plan_of()
    png = to_png(plan.page, dpi)
    assert png[37:41] == b"pHYs"
    assert int.from_bytes(png[41:45], "big") == int.from_bytes(png[45:49], "big") == round(dpi / 0.0254)
    assert decode_image(png).shape == tuple(round(mm / 25.4 * dpi) for mm in (plan.page.height_mm, plan.page.width_mm))
    picture = decode_image(png)
    wall = plan.walls[2]
    column, row = (0.5 * (wall.body_mm_42[0] + wall.body_mm_42[2]) * dpi / 25.4).astype(int)
    assert picture[row, column] == 90, "in the wall"
    assert (picture == 255).mean() > 0.8


def test_every_sign_of_the_plan_is_in_the_font() -> None:
    question_marks = ink(Text("?????????", (5.0, 20.0), 8.0))
    words = ink(Text("±×²³()!,ß", (5.0, 20.0), 8.0))
    assert not np.array_equal(question_marks, words)
    for sign in "±×²³":
        assert not np.array_equal(ink(Text(sign, (5.0, 20.0), 8.0)), ink(Text("?", (5.0, 20.0), 8.0)))


@pytest.mark.parametrize("angle", [0.0, 90.0, -37.0])
@pytest.mark.parametrize("anchor", ["start", "middle", "end"])
def test_ink_stays_in_the_box_that_words_are_said_to_cover(angle: float, anchor: Any) -> None:
    text = Text("gÄ 3.42 ±0.01 m²", (30.0, 30.0), 3.0, anchor, angle)
    rows, columns = np.nonzero(ink(text, 300) < 128)
    points = np.stack((columns, rows), axis=1) / 300 * 25.4
    along = np.array([np.cos(np.radians(angle)), -np.sin(np.radians(angle))])
    down = np.array([-along[1], along[0]])
    for axis, slack in ((along, 0.25), (down, 0.75)):  # dots of capitals rise above them
        low, high = (text.box_mm_42 @ axis).min(), (text.box_mm_42 @ axis).max()
        assert low - slack <= (points @ axis).min()
        assert (points @ axis).max() <= high + slack
        assert (points @ axis).max() - (points @ axis).min() >= 0.75 * (high - low)


def ink(text: Text, dpi: int = 150) -> np.ndarray:
    from geomagic_dagster.cv.page import Page

    return decode_image(to_png(Page(60.0, 60.0, texts=[text]), dpi))


def test_words_in_the_svg_are_held_to_their_measured_width_and_escaped() -> None:
    from geomagic_dagster.cv.page import Page

    text = Text("a < b & c", (10.0, 10.0), 3.0)
    element = next(ElementTree.fromstring(to_svg(Page(60.0, 60.0, texts=[text]))).iter(f"{SVG}text"))
    assert element.text == "a < b & c"
    assert float(element.get("textLength")) == pytest.approx(text.width_mm, abs=1e-3)


def test_sentences_are_wrapped_to_the_sheet() -> None:
    sentence = "word " * 200
    lines = wrapped(sentence, 2.2, 100.0)
    assert " ".join(lines) == sentence.strip()
    assert all(80.0 < Text(line, (0.0, 0.0), 2.2).width_mm <= 100.0 for line in lines[:-1])


def test_the_same_room_gives_the_same_bytes() -> None:
    first, second = plan_of(), plan_of()
    assert to_svg(first.page) == to_svg(second.page)
    assert to_png(first.page, 150) == to_png(second.page, 150)
