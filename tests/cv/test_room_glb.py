"""The parts in room.glb: the same as in room.json, where an app looks for them, and out of a plain viewer's sight."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from geomagic_dagster.cv.room_document import room_document
from geomagic_dagster.cv.room_glb import PARTS_SCENE, room_glb, triangulated
from geomagic_dagster.cv.stage import StageError
from geomagic_dagster.cv.types import Furniture, Layout
from tests.cv.hand_made_rooms import (
    L_SHAPE,
    NO_FURNITURE,
    OPENINGS,
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

COMPONENTS = {5123: "<u2", 5125: "<u4", 5126: "<f4"}


def written(layout: Layout = WHOLE, furniture: Furniture = SOME_FURNITURE) -> tuple[bytes, dict[str, Any]]:
    """room.glb and room.json."""
    document = room_document(scan_of(), box_mesh(), layout, furniture)
    return room_glb(box_mesh(), True, document), json.loads(document.to_json())


def read(glb: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(glb[12:16], "little")
    return json.loads(glb[20 : 20 + length]), glb[28 + length :]


def elements(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    kinds = ("walls", "doors", "windows", "openings", "floors", "ceilings", "objects", "otherObjects")
    return {each["name"]: each for kind in kinds for each in document[kind]}


def triangles_of(tree: dict[str, Any], binary: bytes, node: dict[str, Any]) -> np.ndarray:
    """(f, 3, 3) in the axes of the file."""

    def array(accessor: dict[str, Any], width: int) -> np.ndarray:
        view = tree["bufferViews"][accessor["bufferView"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        dtype = COMPONENTS[accessor["componentType"]]
        return np.frombuffer(binary, dtype, accessor["count"] * width, start).reshape(-1, width)

    primitive = tree["meshes"][node["mesh"]]["primitives"][0]
    corners = array(tree["accessors"][primitive["attributes"]["POSITION"]], 3).astype(np.float64)
    index = array(tree["accessors"][primitive["indices"]], 1).reshape(-1, 3)
    own = corners[index] * node.get("scale", [1, 1, 1])
    return own @ Rotation.from_quat(node["rotation"]).as_matrix().T + node["translation"]


def areas_and_normals(triangles_f33: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cross = np.cross(triangles_f33[:, 1] - triangles_f33[:, 0], triangles_f33[:, 2] - triangles_f33[:, 0])
    double = np.linalg.norm(cross, axis=1)
    return double / 2, cross / double[:, None]


# --- nodes ------------------------------------------------------------------------------------------


def test_a_plain_viewer_shows_the_mesh_alone_and_the_parts_are_a_second_scene() -> None:
    tree, _ = read(written()[0])
    names = [node["name"] for node in tree["nodes"]]
    assert tree["scene"] == 0
    assert tree["scenes"][0] == {"name": "room", "nodes": [names.index("room")]}
    assert tree["scenes"][1] == {"name": PARTS_SCENE, "nodes": [names.index("layout"), names.index("furniture")]}
    assert len(tree["scenes"]) == 2


@pytest.mark.parametrize("layout", [WHOLE, *PARTIAL.values()], ids=["whole", *PARTIAL])
def test_every_part_is_a_node_with_its_identifier_size_pose_and_sigma(layout: Layout) -> None:
    glb, document = written(layout)
    tree, _ = read(glb)
    nodes = {node["name"]: node for node in tree["nodes"]}
    assert len(nodes) == len(tree["nodes"])
    children = [
        tree["nodes"][i]["name"]
        for parent in ("layout", "furniture")
        if parent in nodes
        for i in nodes[parent]["children"]
    ]
    assert sorted(children) == sorted(elements(document))
    for name, element in elements(document).items():
        node = nodes[name]
        room_T_own_44 = np.array(element["transform"]).reshape(4, 4).T
        np.testing.assert_allclose(node["translation"], room_T_own_44[:3, 3], atol=1e-9)
        np.testing.assert_allclose(Rotation.from_quat(node["rotation"]).as_matrix(), room_T_own_44[:3, :3], atol=1e-8)
        if "standsOn" in element:
            assert node["scale"] == element["dimensions"]
        for key in ("identifier", "dimensions", "sigma", "category", "confidenceValue"):
            assert node["extras"][key] == element[key]
    assert ("layout" in nodes) == (len(layout.wall_is_guessed_w) > 0)


def test_boxes_share_one_unit_box_and_have_the_corners_of_room_json() -> None:
    glb, document = written()
    tree, binary = read(glb)
    boxes = [node for node in tree["nodes"] if "scale" in node and tree["meshes"][node["mesh"]]["name"] == "box"]
    assert {node["mesh"] for node in boxes} == {boxes[0]["mesh"]}
    assert len(boxes) == 5
    for node in boxes:
        triangles = triangles_of(tree, binary, node)
        element = elements(document)[node["name"]]
        room_T_own_44 = np.array(element["transform"]).reshape(4, 4).T
        own = (triangles.reshape(-1, 3) - room_T_own_44[:3, 3]) @ room_T_own_44[:3, :3]
        np.testing.assert_allclose(own.max(axis=0), 0.5 * np.array(element["dimensions"]), atol=1e-6)
        np.testing.assert_allclose(own.min(axis=0), -0.5 * np.array(element["dimensions"]), atol=1e-6)
        area, normals = areas_and_normals(triangles)
        assert (np.einsum("fi,fi->f", normals, triangles.mean(axis=1) - room_T_own_44[:3, 3]) > 0).all(), "outward"
        w, h, d = element["dimensions"]
        assert area.sum() == pytest.approx(2 * (w * h + w * d + h * d))


def test_walls_have_their_openings_cut_out_and_face_the_room() -> None:
    glb, document = written()
    tree, binary = read(glb)
    nodes = {node["name"]: node for node in tree["nodes"]}
    parts = elements(document)
    holes = {0: 0.9 * 2.0, 1: 1.2 * 1.3, 3: 1.5 * 2.2}
    middle = np.array([1.0, -0.25, -0.5])
    for i in range(4):
        triangles = triangles_of(tree, binary, nodes[f"wall_{i}"])
        area, normals = areas_and_normals(triangles)
        width, height, _ = parts[f"wall_{i}"]["dimensions"]
        assert area.sum() == pytest.approx(width * height - holes.get(i, 0.0), abs=1e-5)
        assert (np.einsum("fi,fi->f", normals, middle - triangles[:, 0]) > 0).all()
    door = triangles_of(tree, binary, nodes["door_0"])
    np.testing.assert_allclose(
        [door.min(axis=(0, 1)), door.max(axis=(0, 1))], [[-0.7, -1.5, 1.0], [0.2, 0.5, 1.0]], atol=1e-6
    )


@pytest.mark.parametrize(("corners", "area"), [(RECTANGLE, 12.0), (L_SHAPE, 17.5), (U_SHAPE, 16.5)])
def test_floor_and_ceiling_cover_the_footprint_and_face_each_other(corners: np.ndarray, area: float) -> None:
    tree, binary = read(written(layout_of(corners), NO_FURNITURE)[0])
    nodes = {node["name"]: node for node in tree["nodes"]}
    for name, y, up in (("floor_0", -1.5, 1.0), ("ceiling_0", 1.0, -1.0)):
        triangles = triangles_of(tree, binary, nodes[name])
        areas, normals = areas_and_normals(triangles)
        assert areas.sum() == pytest.approx(area, abs=1e-5)
        np.testing.assert_allclose(normals, np.tile([0, up, 0], (len(normals), 1)), atol=1e-6)
        np.testing.assert_allclose(triangles[..., 1], y, atol=1e-6)


def test_materials_of_parts_let_the_mesh_shine_through() -> None:
    tree, _ = read(written(PARTIAL["a wall guessed"])[0])
    materials = {each["name"]: each for each in tree["materials"]}
    assert set(materials) == {
        "room",
        "floor",
        "ceiling",
        "wall",
        "guessed wall",
        "door",
        "window",
        "opening",
        "furniture",
    }
    alpha = {
        name: each["pbrMetallicRoughness"].get("baseColorFactor", [1, 1, 1, 1])[3] for name, each in materials.items()
    }
    assert alpha["room"] == 1
    assert all(
        0 < value < 1 and materials[name]["alphaMode"] == "BLEND" for name, value in alpha.items() if name != "room"
    )
    assert alpha["guessed wall"] < alpha["wall"]


# --- the validator, and any room --------------------------------------------------------------------


ALL_OPENING = layout_of(RECTANGLE, openings=(("passage", 0, 0.0, 4.0, 0.0, 2.5),))


@pytest.mark.parametrize(
    "layout",
    [WHOLE, layout_of(U_SHAPE), ALL_OPENING, *PARTIAL.values()],
    ids=["whole", "U", "a wall all opening", *PARTIAL],
)
def test_khronos_validator_has_nothing_to_say(validate_glb: Callable[[bytes], dict[str, Any]], layout: Layout) -> None:
    report = validate_glb(written(layout)[0])
    assert report["issues"]["messages"] == []


@given(rooms())
@settings(max_examples=40, deadline=None)
def test_any_room_gives_the_same_whole_file(room: tuple[Layout, Furniture]) -> None:
    glb, document = written(*room)
    tree, binary = read(glb)
    nodes = {node["name"]: node for node in tree["nodes"]}
    assert set(elements(document)) <= set(nodes)
    for name, element in elements(document).items():
        if "mesh" in nodes[name]:
            triangles = triangles_of(tree, binary, nodes[name])
            assert np.isfinite(triangles).all()
            reach = 0.5 * np.linalg.norm(element["dimensions"]) + 1e-5
            assert (np.linalg.norm(triangles - np.array(element["transform"])[12:15], axis=2) <= reach).all()
    assert written(*room)[0] == glb


@given(st.lists(st.floats(0.3, 1.0), min_size=3, max_size=14), st.lists(st.floats(0.2, 3.0), min_size=14, max_size=14))
def test_triangles_cover_any_star_shaped_outline_exactly(steps: list[float], radii: list[float]) -> None:
    angle = 2 * np.pi * np.cumsum(steps) / np.sum(steps)
    if np.diff(np.concatenate((angle, angle[:1] + 2 * np.pi))).max() > 3.0:
        return  # its middle would lie outside
    corners = np.array(radii[: len(angle)])[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1)
    triangles = triangulated(corners)
    assert triangles.shape == (len(corners) - 2, 3)
    a, b, c = np.moveaxis(corners[triangles], 1, 0)
    double = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    x, y = corners.T
    assert (double >= -1e-12).all(), "none is turned over, so none overlap"
    assert double.sum() == pytest.approx((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


def test_an_outline_that_crosses_itself_is_named_as_a_fault_of_the_layout() -> None:
    with pytest.raises(StageError, match="does not cross itself.*fault of the layout stage"):
        triangulated(np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]))  # clockwise: no ear at all


def test_openings_of_two_walls_do_not_cut_each_others_walls() -> None:
    tree, binary = read(written(layout_of(RECTANGLE, openings=OPENINGS[:1]))[0])
    nodes = {node["name"]: node for node in tree["nodes"]}
    assert areas_and_normals(triangles_of(tree, binary, nodes["wall_2"]))[0].sum() == pytest.approx(10.0, abs=1e-5)
