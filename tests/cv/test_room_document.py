"""room.json says what layout and furniture say, where Apple puts it, and keeps to its published schema."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings

import geomagic_dagster.cv
from geomagic_dagster.cv.measurements import COLUMNS, measurements_csv
from geomagic_dagster.cv.room_document import room_document, world_to_room
from geomagic_dagster.cv.room_model import OBJECT_KINDS, RoomDocument, schema
from geomagic_dagster.cv.stage import StageError
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
    layout_of,
    rooms,
    scan_of,
)

PUBLISHED = Path(geomagic_dagster.cv.__file__).with_name("room.schema.json")
VALIDATOR = jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text("utf-8")))
SURFACES = ("walls", "doors", "windows", "openings", "floors", "ceilings")
LAYOUTS = {
    "whole": WHOLE,
    "L-shaped": layout_of(L_SHAPE),
    "oblique": layout_of(OBLIQUE),
    "U-shaped": layout_of(U_SHAPE),
    **PARTIAL,
}


def document_of(layout: Layout = WHOLE, furniture: Furniture = SOME_FURNITURE, name: str = "Küche") -> RoomDocument:
    return room_document(scan_of(name), box_mesh(), layout, furniture)


def room_json(layout: Layout = WHOLE, furniture: Furniture = SOME_FURNITURE, name: str = "Küche") -> dict[str, Any]:
    return json.loads(document_of(layout, furniture, name).to_json())


def placed(element: dict[str, Any], points_own_n3: Any) -> np.ndarray:
    """Points of an element's own axes in those of room.glb, as an app computes them."""
    room_T_own_44 = np.array(element["transform"]).reshape(4, 4, order="F")
    return np.asarray(points_own_n3) @ room_T_own_44[:3, :3].T + room_T_own_44[:3, 3]


# --- the schema -------------------------------------------------------------------------------------


def test_the_published_schema_is_that_of_the_models() -> None:
    assert PUBLISHED.read_text("utf-8") == schema(), (
        "python -m geomagic_dagster.cv.room_model > geomagic_dagster/cv/room.schema.json"
    )
    jsonschema.Draft202012Validator.check_schema(json.loads(schema()))


@pytest.mark.parametrize("furniture", [SOME_FURNITURE, NO_FURNITURE], ids=["furnished", "empty"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_room_whole_or_in_parts_keeps_to_the_schema(layout: Layout, furniture: Furniture) -> None:
    VALIDATOR.validate(room_json(layout, furniture))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("walls", 0, "category"), {"door": {}}),
        (("walls", 0, "category"), {"wall": {}, "door": {}}),
        (("objects", 0, "category"), {"spaceship": {}}),
        (("walls", 0, "dimensions"), [1.0, 2.0]),
        (("walls", 0, "identifier"), "wall_0"),
        (("walls", 0, "transform"), [0.0] * 15),
        (("measured", "area", "sigma"), -0.1),
        (("units",), "feet"),
        (("schemaVersion",), 2),
        (("surprise",), 1),
    ],
)  # fmt: skip
def test_the_schema_is_awake(path: tuple[Any, ...], value: Any) -> None:
    document = room_json()
    parent: Any = document
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    assert list(VALIDATOR.iter_errors(document))
    with pytest.raises(ValueError):
        RoomDocument.model_validate_json(json.dumps(document), strict=True)


def test_every_element_has_what_a_decoder_of_captured_room_asks_for() -> None:
    document = room_json()
    assert {
        "identifier",
        "version",
        "story",
        "walls",
        "doors",
        "windows",
        "openings",
        "floors",
        "objects",
        "sections",
    } <= set(document)
    of_all = {"identifier", "category", "confidence", "dimensions", "transform", "parentIdentifier", "story"}
    categories = {
        "walls": {"wall"}, "doors": {"door"}, "windows": {"window"}, "openings": {"opening"}, "floors": {"floor"},
        "objects": set(OBJECT_KINDS),
    }  # fmt: skip
    for kind, allowed in categories.items():
        assert document[kind], kind
        for element in document[kind]:
            assert of_all <= set(element)
            assert set(element["category"]) <= allowed
            assert len(element["category"]) == len(element["confidence"]) == 1
            if kind != "objects":
                assert {"polygonCorners", "completedEdges", "curve"} <= set(element)
                assert element["dimensions"][2] == 0
    assert document["doors"][0]["category"] == {"door": {"isOpen": False}}
    assert document["objects"][0]["attributes"] == {}


# --- the numbers ------------------------------------------------------------------------------------


def test_a_wall_stands_where_the_layout_has_it_and_faces_the_room() -> None:
    wall = room_json()["walls"][0]  # from (-1, -1) to (3, -1), floor -1.5, ceiling 1
    assert wall["dimensions"] == [4.0, 2.5, 0.0]
    right, up, into_room, centre = np.array(wall["transform"]).reshape(4, 4)[:, :3]
    np.testing.assert_allclose(centre, [1.0, -0.25, 1.0], atol=1e-9)
    np.testing.assert_allclose(right, [-1, 0, 0], atol=1e-9)  # who looks at this wall has the world's x on the left
    np.testing.assert_allclose(up, [0, 1, 0], atol=1e-9)
    np.testing.assert_allclose(into_room, [0, 0, -1], atol=1e-9)
    assert wall["sigma"] == {"position": 0.004, "length": 0.007, "height": 0.005}
    assert (wall["confidence"], wall["confidenceValue"]) == ({"high": {}}, 0.9)
    assert wall["parentIdentifier"] is None


def test_openings_lie_in_their_walls_and_name_them() -> None:
    document = room_json()
    door, window, passage = document["doors"][0], document["windows"][0], document["openings"][0]
    walls = document["walls"]
    assert [each["parentIdentifier"] for each in (door, window, passage)] == [walls[i]["identifier"] for i in (0, 1, 3)]
    np.testing.assert_allclose(door["transform"][12:15], [-1 + 0.3 + 0.45, -1.5 + 1.0, 1.0], atol=1e-9)
    np.testing.assert_allclose(window["transform"][12:15], [3.0, -1.5 + 0.9 + 0.65, -(-1 + 0.8 + 0.6)], atol=1e-9)
    np.testing.assert_allclose(passage["transform"][12:15], [-1.0, -1.5 + 1.1, -(2 - 1.0 - 0.75)], atol=1e-9)
    assert (door["dimensions"], window["dimensions"], passage["dimensions"]) == (
        [0.9, 2.0, 0.0],
        [1.2, 1.3, 0.0],
        [1.5, 2.2, 0.0],
    )
    assert (window["sill"], window["start"], window["sigma"]) == (0.9, 0.8, {"edge": 0.02})
    assert window["confidence"] == {"medium": {}}
    for opening, wall in ((door, walls[0]), (window, walls[1]), (passage, walls[3])):
        assert opening["transform"][:12] == wall["transform"][:12]


@pytest.mark.parametrize("corners", [RECTANGLE, L_SHAPE, OBLIQUE, U_SHAPE], ids=["rectangle", "L", "oblique", "U"])
def test_floor_and_ceiling_polygons_are_the_footprint_at_their_heights(corners: np.ndarray) -> None:
    document = room_json(layout_of(corners))
    for surface, y, faces in ((document["floors"][0], -1.5, 1.0), (document["ceilings"][0], 1.0, -1.0)):
        polygon = np.array(surface["polygonCorners"])
        expected = world_to_room(np.column_stack((corners, np.full(len(corners), y))))
        found = placed(surface, polygon)
        np.testing.assert_allclose(found if faces > 0 else found[::-1], expected, atol=3e-6)
        np.testing.assert_allclose(
            placed(surface, [[0, 0, 1]]) - placed(surface, [[0, 0, 0]]), [[0, faces, 0]], atol=1e-9
        )
        x, y_own = polygon[:, 0], polygon[:, 1]
        assert 0.5 * (x * np.roll(y_own, -1) - np.roll(x, -1) * y_own).sum() > 0, "counter-clockwise seen from the room"
        np.testing.assert_allclose(surface["dimensions"][:2], np.ptp(polygon[:, :2], axis=0), atol=2e-6)
    extent = np.ptp(corners, axis=0)  # most walls run along x and y
    assert sorted(document["floors"][0]["dimensions"][:2]) == pytest.approx(sorted(extent), abs=1e-5)


def test_boxes_are_those_of_the_furniture_also_turned_ones() -> None:
    document = room_json()
    boxes = {each["name"]: each for each in document["objects"] + document["otherObjects"]}
    assert list(boxes) == ["table_0", "chair_0", "storage_0", "chair_1", "object_0"]
    unit = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    for k, name in enumerate(["table_0", "chair_0", "object_0", "storage_0", "chair_1"]):
        box = boxes[name]
        width, depth, height = SOME_FURNITURE.size_m_k3[k]
        assert box["dimensions"] == pytest.approx([width, height, depth])
        yaw = SOME_FURNITURE.yaw_world_rad_k[k]
        turn = np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        world = (unit * SOME_FURNITURE.size_m_k3[k]) @ turn + SOME_FURNITURE.centre_world_m_k3[k]
        own = unit[:, [0, 2, 1]] * [1, 1, -1] * box["dimensions"]  # z up to y up
        np.testing.assert_allclose(placed(box, own), world_to_room(world), atol=3e-6)
        assert np.linalg.det(np.array(box["transform"]).reshape(4, 4)[:3, :3]) == pytest.approx(1.0, abs=1e-6)
        assert box["sigma"] == {"dimensions": [0.01, 0.03, 0.02], "centre": [0.011, 0.013, 0.012]}
    assert [each["name"] for each in document["otherObjects"]] == ["object_0"], "no category of RoomPlan's"
    assert boxes["object_0"]["parentIdentifier"] == boxes["table_0"]["identifier"]
    assert [boxes[name]["standsOn"] for name in boxes] == ["floor", "floor", "wall", "floor", "object"]


def test_the_room_as_a_whole() -> None:
    measured = room_json()["measured"]
    assert measured["area"] == {"value": 12.0, "sigma": 0.04}
    assert measured["height"] == {"value": 2.5, "sigma": 0.005}
    assert measured["volume"] == {"value": 30.0, "sigma": pytest.approx(np.hypot(12 * 0.005, 2.5 * 0.04), abs=1e-6)}
    assert measured["perimeter"] == {"value": 14.0, "sigma": None}
    assert (measured["floorY"], measured["ceilingY"]) == (
        {"value": -1.5, "sigma": 0.003},
        {"value": 1.0, "sigma": 0.004},
    )
    assert [(c["x"], c["z"]) for c in measured["corners"]] == [(-1, 1), (3, 1), (3, -2), (-1, -2)]
    assert room_json(layout_of(L_SHAPE))["measured"]["area"]["value"] == 5 * 2 + 3 * 2.5


def test_a_sloped_ceiling_is_told_in_the_rooms_axes_and_has_no_volume() -> None:
    measured = room_json(PARTIAL["sloped ceiling"])["measured"]
    assert measured["volume"] is None
    plane = measured["ceilingPlanes"][1]
    x, y = 1.3, 0.7
    assert plane["slopeX"] * x + plane["slopeZ"] * -y + plane["y0"] == pytest.approx(0.5 * x - 0.2 * y + 0.4)


# --- what is missing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "counts", "words"),
    [
        ("open", (3, 0, 0), "outline is open"),
        ("open, an end guessed", (2, 0, 0), "Guessed, not seen: wall_1"),
        ("one wall", (1, 0, 0), "outline is open"),
        ("a wall guessed", (4, 1, 1), "Guessed, not seen: wall_2"),
        ("no floor", (4, 0, 1), "floor is missing"),
        ("no ceiling", (4, 1, 0), "No ceiling was seen"),
        ("no walls", (0, 0, 0), "no walls"),
        ("only a floor", (0, 0, 0), "No ceiling was seen"),
        ("only a ceiling", (0, 0, 0), "floor is missing"),
        ("walls alone", (4, 0, 0), "floor is missing"),
        ("sloped ceiling", (4, 1, 1), "no volume"),
    ],
)
def test_what_is_missing_is_said_and_not_invented(name: str, counts: tuple[int, int, int], words: str) -> None:
    layout = PARTIAL[name]
    document = room_json(layout)
    assert (len(document["walls"]), len(document["floors"]), len(document["ceilings"])) == counts
    assert any(words in warning for warning in document["warnings"])
    assert (document["measured"]["area"] is not None) == layout.is_closed
    assert (document["measured"]["height"] is None) == (None in (layout.floor_z_world_m, layout.ceiling_z_world_m))
    assert document["measured"]["volume"] is None or (layout.is_closed and "ceiling" not in name)


def test_a_whole_room_has_no_warnings_and_an_empty_one_says_so() -> None:
    assert room_json()["warnings"] == []
    assert room_json(furniture=NO_FURNITURE)["warnings"] == ["No furniture was found."]


def test_sentences_of_layout_and_furniture_come_first_and_once() -> None:
    layout = replace(WHOLE, warnings=("Mirror?", "Mirror?"), ceiling_z_world_m=None)
    furniture = replace(NO_FURNITURE, warnings=("Dark.",))
    assert room_json(layout, furniture)["warnings"][:3] == [
        "Mirror?",
        "Dark.",
        "No ceiling was seen: the height of the room is unknown.",
    ]


def test_walls_without_floor_or_ceiling_are_as_high_as_the_mesh_and_say_so() -> None:
    wall = room_json(PARTIAL["walls alone"])["walls"][0]
    assert wall["dimensions"][1] == pytest.approx(2.5, abs=1e-6)  # of box_mesh
    assert wall["isHeightMeasured"] is False
    assert wall["sigma"]["height"] is None
    guessed = room_json(PARTIAL["a wall guessed"])["walls"][2]
    assert (guessed["isGuessed"], guessed["confidence"]) == (True, {"low": {}})


def test_a_number_that_is_none_and_a_wall_without_length_are_named_as_faults_of_their_stages() -> None:
    broken = replace(SOME_FURNITURE, size_sigma_m_k3=np.full((5, 3), np.nan))
    with pytest.raises(
        StageError, match=r"sigma.*BoxSigma.*got nan.*fault of the layout or the furniture stage|dimensions.*got nan"
    ):
        document_of(furniture=broken)
    for bad in (0.0, np.nan):
        corners = RECTANGLE.copy()
        corners[1] = corners[0] + bad
        with pytest.raises(
            StageError, match="walls with a length; got .* for wall 0. This is a fault of the layout stage"
        ):
            document_of(layout_of(corners))


# --- identifiers ------------------------------------------------------------------------------------


def test_identifiers_are_unique_stay_and_belong_to_the_scan() -> None:
    def identifiers(document: dict[str, Any]) -> list[str]:
        return re.findall(r'"identifier": "([^"]*)"', json.dumps(document))

    once = identifiers(room_json())
    assert len(set(once)) == len(once) == 1 + 4 + 3 + 2 + 5
    assert all(
        re.fullmatch(r"[0-9A-F]{8}-[0-9A-F]{4}-5[0-9A-F]{3}-[89AB][0-9A-F]{3}-[0-9A-F]{12}", each) for each in once
    )
    assert identifiers(room_json()) == once
    other_numbers = replace(WHOLE, corners_world_m_n2=WHOLE.corners_world_m_n2 * 1.001)
    assert identifiers(room_json(other_numbers)) == once, "of the scan, not of what was measured in it"
    assert not set(identifiers(room_json(name="another"))) & set(once)


def test_names_that_are_not_utf8_do_not_stop_it() -> None:
    VALIDATOR.validate(room_json(name="latin1-\udcfc"))


# --- measurements.csv -------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_table_holds_every_measurement_of_the_document(layout: Layout) -> None:
    document = document_of(layout)
    rows = list(csv.DictReader(io.StringIO(measurements_csv(document).decode())))
    told = {(row["what"], row["name"]): float(row["value"]) for row in rows}
    assert len(told) == len(rows)
    expected = {}
    measured = document.measured
    for what, quantity in (
        ("area", measured.area),
        ("perimeter", measured.perimeter),
        ("ceiling height", measured.height),
        ("volume", measured.volume),
    ):
        if quantity is not None:
            expected[what, "room"] = quantity.value
    for wall in document.walls:
        expected |= {("length", wall.name): wall.dimensions[0], ("height", wall.name): wall.dimensions[1]}
    for each in (*document.doors, *document.windows, *document.openings):
        expected |= {
            ("width", each.name): each.dimensions[0],
            ("height", each.name): each.dimensions[1],
            ("sill", each.name): each.sill,
        }
    for box in document.boxes():
        expected |= {
            (what, box.name): value for what, value in zip(("width", "height", "depth"), box.dimensions, strict=True)
        }
    assert told == expected
    assert all(row["sigma"] == "" or float(row["sigma"]) > 0 for row in rows)
    assert list(rows[0]) == list(COLUMNS)


def test_the_table_says_what_things_are_in_and_on() -> None:
    rows = list(csv.DictReader(io.StringIO(measurements_csv(document_of(PARTIAL["a wall guessed"])).decode())))
    notes = {(row["what"], row["name"]): row["note"] for row in rows}
    assert notes["width", "door_0"] == "in wall_0"
    assert notes["width", "object_0"] == "stands on table_0"
    assert notes["width", "storage_0"] == "hangs on a wall"
    assert notes["length", "wall_2"] == "guessed, not seen"


# --- any room ---------------------------------------------------------------------------------------


@given(rooms())
@settings(max_examples=60, deadline=None)
def test_any_room_gives_a_valid_document(room: tuple[Layout, Furniture]) -> None:
    document = room_json(*room)
    VALIDATOR.validate(document)
    lengths = np.linalg.norm(np.roll(room[0].corners_world_m_n2, -1, axis=0) - room[0].corners_world_m_n2, axis=1)
    np.testing.assert_allclose(
        [wall["dimensions"][0] for wall in document["walls"]], lengths[: len(document["walls"])], atol=1e-6
    )
