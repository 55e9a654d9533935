"""What the customer's files must hold: the mesh unchanged, true colours, true scale, the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geomagic_dagster.cv.containers import decode_image
from geomagic_dagster.cv.package import PackageParams, measure_package, package, preview_package
from geomagic_dagster.cv.pictures import BACKGROUND_RGB, linear_to_srgb, srgb_to_linear
from geomagic_dagster.cv.room_document import ROOM_T_WORLD_33, world_to_room
from geomagic_dagster.cv.stage import ScanRejected, StageError, describe_stage
from geomagic_dagster.cv.types import Furniture, Layout, Mesh, Package
from tests.cv.hand_made_rooms import (
    NO_FURNITURE,
    PARTIAL,
    SOME_FURNITURE,
    WHOLE,
    box_mesh,
    frames_of,
    poses_of,
    scan_of,
)

RED, GREEN, BLUE, YELLOW = (200, 30, 30), (30, 160, 40), (40, 60, 200), (210, 190, 40)
FLOOR, CEILING, TABLE = (120, 90, 60), (240, 240, 240), (200, 40, 200)
WALLS = {0: RED, 1: GREEN, 2: BLUE, 3: YELLOW}  # wall k faces the room from azimuth k quarter turns
FILES = ["manifest.json", "measurements.csv", "plan.png", "plan.svg", "preview.png", "room.glb", "room.json", "top.png"]
SMALL = PackageParams(preview_width_px=320, preview_height_px=240, top_max_px=320)


def faces_of_box(low: tuple[float, ...], high: tuple[float, ...], rgb_6: list[Any], *, inward: bool = False) -> Mesh:
    """A box of six coloured faces (+x, +y, -x, -y, bottom, top), each its own four vertices; outward by default."""
    box = trimesh.creation.box(bounds=[low, high])
    order = {(1, 0, 0): 0, (0, 1, 0): 1, (-1, 0, 0): 2, (0, -1, 0): 3, (0, 0, -1): 4, (0, 0, 1): 5}
    triangles_f3 = box.faces[:, ::-1] if inward else box.faces
    colour_f = [rgb_6[order[tuple(round(c) for c in normal)]] for normal in box.face_normals]
    normal_f3 = -box.face_normals if inward else box.face_normals
    return Mesh(
        box.vertices[triangles_f3].reshape(-1, 3).astype(np.float32),
        np.arange(36, dtype=np.int32).reshape(12, 3),
        np.repeat(np.array(colour_f, np.uint8), 3, axis=0),
        np.repeat(normal_f3.astype(np.float32), 3, axis=0),
        voxel_m=0.02,
    )


def joined(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0, *(len(m.vertices_world_m_v3) for m in meshes)])
    return Mesh(
        np.concatenate([m.vertices_world_m_v3 for m in meshes]),
        np.concatenate([m.triangles_f3 + np.int32(s) for m, s in zip(meshes, starts, strict=False)]),
        np.concatenate([m.rgb_v3 for m in meshes]),
        np.concatenate([m.normals_world_v3 for m in meshes]),
        voxel_m=0.02,
    )


def room(ceiling_slab: bool = False, walls: dict[int, Any] = WALLS) -> Mesh:
    """4 x 3 x 2.5 m around (1, 0.5), floor at -1.5 m; a table of 2 x 1 m, 0.75 m high, at its centre."""
    shell = faces_of_box((-1, -1, -1.5), (3, 2, 1.0), [*walls.values(), FLOOR, CEILING], inward=True)
    table = faces_of_box((0, 0, -0.8), (2, 1, -0.75), [TABLE] * 6)
    slab = faces_of_box((-1, -1, 1.0), (3, 2, 1.2), [CEILING] * 6)
    return joined(shell, table, slab) if ceiling_slab else joined(shell, table)


def sphere(subdivisions: int) -> Mesh:
    ball = trimesh.creation.icosphere(subdivisions=subdivisions)
    rgb_v3 = np.random.default_rng(0).integers(0, 256, ball.vertices.shape, np.uint8)
    return Mesh(
        ball.vertices.astype(np.float32),
        ball.faces.astype(np.int32),
        rgb_v3,
        ball.vertex_normals.astype(np.float32),
        voxel_m=0.02,
    )


def packed(
    mesh: Mesh,
    *,
    name: str = "Küche",
    floor_z_m: float | None = -1.5,
    colour: bool = True,
    params: PackageParams = SMALL,
    layout: Layout = WHOLE,
    furniture: Furniture = SOME_FURNITURE,
) -> Package:
    scan = scan_of(name, colour=colour)
    layout = replace(layout, floor_z_world_m=floor_z_m)
    return package(scan, frames_of(scan), poses_of(scan, floor_z_m), mesh, layout, furniture, params)


def manifest_of(package: Package) -> dict[str, Any]:
    return json.loads(package.files["manifest.json"])


def picture_of(package: Package) -> np.ndarray:
    return decode_image(package.files["preview.png"])


def loaded(package: Package) -> trimesh.Trimesh:
    scene = trimesh.load_scene(io.BytesIO(package.files["room.glb"]), file_type="glb", process=False)
    assert list(scene.graph.nodes_geometry) == ["room"], "what a plain viewer shows"
    return scene.geometry["room"]


def gltf_of(package: Package) -> tuple[dict[str, Any], bytes]:
    """JSON and binary chunk, read by hand from the GLB's layout (glTF 2.0, section 4)."""
    glb = package.files["room.glb"]
    assert glb[:4] == b"glTF"
    length = int.from_bytes(glb[12:16], "little")
    return json.loads(glb[20 : 20 + length]), glb[28 + length :]


def looks_like(picture_hw3: np.ndarray, rgb: tuple[int, int, int]) -> np.ndarray:
    """(h, w) bool: pixels of this hue (shading changes brightness only), the background left out."""
    linear_hw3 = srgb_to_linear(picture_hw3).astype(np.float64)
    wanted = srgb_to_linear(np.array(rgb, np.uint8)).astype(np.float64)
    cosine = linear_hw3 @ wanted / (np.linalg.norm(linear_hw3, axis=2) * np.linalg.norm(wanted) + 1e-9)
    background = (np.abs(picture_hw3.astype(int) - BACKGROUND_RGB) <= 2).all(axis=2)
    return (cosine > 0.995) & ~background


# --- room.glb ------------------------------------------------------------------------------------


def test_the_stage_is_declared_completely() -> None:
    stage = describe_stage(package)
    assert stage.inputs == ("scan", "frames", "poses", "mesh", "layout", "furniture")
    assert stage.returns is Package


def test_glb_holds_the_mesh_unchanged_in_gltf_axes() -> None:
    mesh = room()
    back = loaded(packed(mesh))
    vertices = mesh.vertices_world_m_v3
    np.testing.assert_array_equal(back.vertices, np.stack((vertices[:, 0], vertices[:, 2], -vertices[:, 1]), axis=1))
    np.testing.assert_array_equal(back.faces, mesh.triangles_f3)
    np.testing.assert_allclose(back.vertex_normals, world_to_room(mesh.normals_world_v3), atol=1e-6)
    np.testing.assert_allclose(back.extents, [4.0, 2.5, 3.0], atol=1e-6)


def test_glb_has_names_material_and_generator() -> None:
    tree, _ = gltf_of(packed(room()))
    assert tree["asset"] == {"version": "2.0", "generator": "geomagic"}
    assert (tree["nodes"][0], tree["meshes"][0]["name"]) == ({"name": "room", "mesh": 0}, "room")
    assert tree["materials"][0] == {
        "name": "room",
        "doubleSided": True,
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
    }


def test_colours_are_linear_in_sixteen_bits_and_come_back_exactly() -> None:
    mesh = sphere(5)  # 10,242 random colours
    tree, binary = gltf_of(packed(mesh))
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    assert (accessor["componentType"], accessor["type"], accessor["normalized"]) == (5123, "VEC4", True)
    start = tree["bufferViews"][accessor["bufferView"]]["byteOffset"]
    linear_v4 = np.frombuffer(binary, "<u2", count=4 * accessor["count"], offset=start).reshape(-1, 4) / 65535.0
    np.testing.assert_array_equal(linear_to_srgb(linear_v4[:, :3]), mesh.rgb_v3)
    assert (linear_v4[:, 3] == 1.0).all()
    # mid grey is a fifth of white's light; stored as if it were sRGB it would be a half
    np.testing.assert_allclose(srgb_to_linear(np.full((1, 3), 128, np.uint8)), 0.2159, atol=1e-4)


def test_all_256_levels_survive_linear_light() -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    np.testing.assert_array_equal(linear_to_srgb(srgb_to_linear(levels)), levels)


@given(arrays(np.float32, (5, 3), elements=st.floats(-1e4, 1e4, width=32)))
def test_axes_are_a_pure_rotation_that_gives_the_devices_y_up_back(points_world_n3: np.ndarray) -> None:
    room_n3 = world_to_room(points_world_n3)
    assert room_n3.dtype == points_world_n3.dtype
    np.testing.assert_array_equal(room_n3, points_world_n3 @ ROOM_T_WORLD_33.T.astype(np.float32))
    # a reader turns the device's y up to z up by +90 degrees about x: (x, y, z) -> (x, -z, y)
    device_n3 = room_n3
    np.testing.assert_array_equal(
        np.stack((device_n3[:, 0], -device_n3[:, 2], device_n3[:, 1]), axis=1), points_world_n3
    )
    np.testing.assert_array_equal(ROOM_T_WORLD_33 @ ROOM_T_WORLD_33.T, np.eye(3))
    assert np.linalg.det(ROOM_T_WORLD_33) == 1.0


@pytest.mark.parametrize("mesh", [room(), sphere(1), sphere(6)], ids=["small", "smaller", "82k triangles"])
@pytest.mark.parametrize("colour", [True, False], ids=["colour", "plain"])
def test_khronos_validator_has_nothing_to_say(
    validate_glb: Callable[[bytes], dict[str, Any]], mesh: Mesh, colour: bool
) -> None:
    report = validate_glb(packed(mesh, colour=colour).files["room.glb"])
    assert report["issues"]["messages"] == []
    assert report["info"]["generator"] == "geomagic"


def test_the_validator_is_awake(validate_glb: Callable[[bytes], dict[str, Any]]) -> None:
    glb = packed(room()).files["room.glb"].replace(b'"VEC4"', b'"VEC2"')
    assert validate_glb(glb)["issues"]["numErrors"] > 0


# --- the pictures --------------------------------------------------------------------------------


@pytest.mark.parametrize("quarter", range(4))
def test_preview_shows_the_far_walls_on_their_true_sides_and_hides_the_near_ones(quarter: int) -> None:
    # which corner is looked into is the picture's choice; turning the colours must turn what is seen
    turned = {k: WALLS[(k + quarter) % 4] for k in range(4)}
    preview = picture_of(packed(room(walls=turned)))
    columns = {k: np.nonzero(looks_like(preview, turned[k]))[1] for k in range(4)}
    seen = [k for k in range(4) if len(columns[k]) > 0.01 * preview[..., 0].size]
    assert len(seen) == 2, "two far walls, and no near one"
    first = seen[0] if seen[1] == seen[0] + 1 else seen[1]  # the wall from which the other is a quarter turn on
    assert (first + 1) % 4 in seen
    assert columns[(first + 1) % 4].mean() < columns[first].mean(), "from inside, a quarter turn on is to the left"


def test_preview_frames_the_room_and_shows_floor_and_table() -> None:
    preview = picture_of(packed(room()))
    assert preview.shape == (240, 320, 3)
    background = (np.abs(preview.astype(int) - BACKGROUND_RGB) <= 2).all(axis=2)
    rows, columns = np.nonzero(~background)
    margins = [rows.min() / 240, 1 - (rows.max() + 1) / 240, columns.min() / 320, 1 - (columns.max() + 1) / 320]
    assert min(margins) >= 0.02
    assert min(max(margins[:2]), max(margins[2:])) <= 0.05, "as near as can be"
    table = looks_like(preview, TABLE)
    assert table.mean() > 0.03
    assert looks_like(preview, FLOOR).mean() > 0.05
    row, column = (i.mean() for i in np.nonzero(table))
    assert 100 < row < 170
    assert 130 < column < 190
    assert not looks_like(preview, CEILING).any()


def test_what_faces_the_viewer_has_the_captured_colour() -> None:
    top = decode_image(packed(room()).files["top.png"])
    manifest = manifest_of(packed(room()))["top"]
    row = round((-0.5 - manifest["top_z_m"]) / manifest["metres_per_pixel"])  # the table's middle: y 0.5, so z -0.5
    column = round((1.0 - manifest["left_x_m"]) / manifest["metres_per_pixel"])
    np.testing.assert_allclose(top[row, column], TABLE, atol=1)


@pytest.mark.parametrize("slab", [False, True], ids=["inner ceiling", "ceiling with an upper side"])
@pytest.mark.parametrize("floor_z_m", [-1.5, None], ids=["floor known", "floor unknown"])
def test_ceiling_hides_nothing(slab: bool, floor_z_m: float | None) -> None:
    files = packed(room(ceiling_slab=slab), floor_z_m=floor_z_m).files
    top = decode_image(files["top.png"])
    table, floor = looks_like(top, TABLE).mean(), looks_like(top, FLOOR).mean()
    assert floor / table == pytest.approx((12 - 2) / 2, rel=0.02)  # 4 x 3 m of floor, 2 x 1 m of it under the table
    assert looks_like(decode_image(files["preview.png"]), TABLE).mean() > 0.03


@pytest.mark.parametrize("top_max_px", [150, 320, 1280])
def test_top_is_to_scale_and_its_bar_is_one_metre(top_max_px: int) -> None:
    files = packed(room(), params=SMALL.model_copy(update={"top_max_px": top_max_px}))
    top, scale = decode_image(files.files["top.png"]), manifest_of(files)["top"]
    metre_px = 1.0 / scale["metres_per_pixel"]
    rows, columns = np.nonzero(looks_like(top, TABLE))
    assert columns.max() - columns.min() + 1 == pytest.approx(2.0 * metre_px, abs=1)
    assert rows.max() - rows.min() + 1 == pytest.approx(1.0 * metre_px, abs=1)
    x_m = scale["left_x_m"] + columns * scale["metres_per_pixel"]
    z_m = scale["top_z_m"] + rows * scale["metres_per_pixel"]
    np.testing.assert_allclose([x_m.min(), x_m.max()], [0.0, 2.0], atol=1.01 * scale["metres_per_pixel"])
    np.testing.assert_allclose([z_m.min(), z_m.max()], [-1.0, 0.0], atol=1.01 * scale["metres_per_pixel"])
    bar_starts, bar_ends, *_ = np.flatnonzero(np.diff((top[-25] == 255).all(axis=1)))  # after it stands "1 m"
    assert bar_ends - bar_starts == round(metre_px)
    rows, columns = np.nonzero((top[:-40] != BACKGROUND_RGB).any(axis=2))
    assert max(np.ptp(rows), np.ptp(columns)) <= top_max_px


def test_pictures_begin_at_an_exact_cut_through_large_triangles() -> None:
    """A wall of two triangles from floor to ceiling keeps its part below the cut."""
    low, high = (
        picture_of(packed(room(), params=SMALL.model_copy(update={"cut_above_floor_m": cut}))) for cut in (1.0, 2.0)
    )
    walls_low, walls_high = (sum(looks_like(p, rgb).sum() for rgb in WALLS.values()) for p in (low, high))
    floor_low, floor_high = (looks_like(p, FLOOR).sum() for p in (low, high))
    assert 0.3 < (walls_low / floor_low) / (walls_high / floor_high) < 0.7


def test_only_a_ceiling_still_gives_its_files_and_says_that_nothing_is_seen() -> None:
    ceiling = faces_of_box((-1, -1, 1.0), (3, 2, 1.0001), [CEILING] * 6, inward=True)
    only = Mesh(**{**vars(ceiling), "triangles_f3": ceiling.triangles_f3[ceiling.normals_world_v3[::3, 2] < -0.5]})
    assert measure_package(packed(only))["preview_covered"] == 0.0


def test_one_wall_seen_from_in_front_is_a_package_too() -> None:
    sheet = faces_of_box((0, 0, 0), (0.001, 3, 2), [RED, *[BLUE] * 5])
    wall = Mesh(**{**vars(sheet), "triangles_f3": sheet.triangles_f3[sheet.normals_world_v3[::3, 0] > 0.5]})
    preview = picture_of(packed(wall, floor_z_m=0.0))
    assert looks_like(preview, RED).mean() > 0.2


def test_without_colour_the_room_is_grey_and_the_glb_has_no_colours() -> None:
    plain = packed(room(), colour=False)
    tree, _ = gltf_of(plain)
    assert "COLOR_0" not in tree["meshes"][0]["primitives"][0]["attributes"]
    assert manifest_of(plain)["mesh"]["has_colour"] is False
    preview = picture_of(plain).astype(int)
    background = (np.abs(preview - BACKGROUND_RGB) <= 8).all(axis=2)
    assert (np.ptp(preview[~background], axis=1) <= 6).all()
    assert measure_package(plain)["preview_covered"] > 0.2


# --- manifest.json -------------------------------------------------------------------------------


def test_manifest_checksums_are_those_of_the_bytes() -> None:
    made = packed(room())
    manifest = manifest_of(made)
    assert sorted(made.files) == FILES
    assert manifest["files"] == {
        name: {"bytes": len(made.files[name]), "sha256": hashlib.sha256(made.files[name]).hexdigest()}
        for name in made.files
        if name != "manifest.json"
    }


def test_manifest_says_what_the_room_is() -> None:
    manifest = manifest_of(packed(room()))
    assert manifest["schema_version"] == 2
    assert manifest["scan"] == {"name": "Küche", "source_format": "made-up"}
    assert manifest["frames"] == {"in_scan": 3, "kept": 2, "used": 1}
    assert manifest["units"] == "metres"
    assert manifest["axes"]["world_T_scan_33"] == np.eye(3).tolist()
    assert manifest["room"] == {
        "identifier": json.loads(packed(room()).files["room.json"])["identifier"],
        "floor_y_m": -1.5,
        "min_xyz_m": [-1.0, -1.5, -2.0],
        "max_xyz_m": [3.0, 1.0, 1.0],
    }
    shell_m2, table_m2 = 2 * (4 * 3 + 4 * 2.5 + 3 * 2.5), 2 * (2 * 1 + 2 * 0.05 + 1 * 0.05)
    assert manifest["mesh"] == {
        "vertices": 72,
        "triangles": 24,
        "area_m2": pytest.approx(shell_m2 + table_m2, abs=1e-3),
        "voxel_m": 0.02,
        "has_colour": True,
    }
    assert manifest_of(packed(room(), floor_z_m=None))["room"]["floor_y_m"] is None


@pytest.mark.parametrize("name", ["Küche im Grünen", "scan 1", "厨房", 'a "quoted" \\ name', "latin1-\udcfc"])
def test_scan_names_of_all_kinds_survive(name: str) -> None:
    text = packed(room(), name=name).files["manifest.json"]
    assert json.loads(text.decode("utf-8"))["scan"]["name"] == name


@pytest.mark.parametrize("furniture", [SOME_FURNITURE, NO_FURNITURE], ids=["furnished", "empty"])
@pytest.mark.parametrize("layout", PARTIAL.values(), ids=PARTIAL)
def test_a_room_seen_in_part_is_a_package_that_says_what_is_missing(layout: Layout, furniture: Furniture) -> None:
    made = packed(box_mesh(), layout=layout, furniture=furniture, floor_z_m=layout.floor_z_world_m)
    assert sorted(made.files) == FILES
    manifest, document = manifest_of(made), json.loads(made.files["room.json"])
    assert manifest["warnings"] == document["warnings"] != []
    assert manifest["parts"]["walls"] == len(layout.wall_is_guessed_w)
    assert manifest["parts"]["boxes"] == len(furniture.kind_k)
    assert measure_package(made)["warnings"] == len(document["warnings"])


def test_a_whole_room_has_no_warning() -> None:
    manifest = manifest_of(packed(room()))
    assert manifest["warnings"] == []
    assert manifest["parts"] == {"is_closed": True, "walls": 4, "doors": 1, "windows": 1, "openings": 1, "boxes": 5}
    assert manifest["plan"] == {"paper": "A4", "width_mm": 210.0, "height_mm": 297.0, "scale": 50, "dpi": 150}


def test_the_assets_picture_shows_the_room_and_its_plan() -> None:
    made = packed(room())
    both = preview_package(made)
    np.testing.assert_array_equal(both[:, :320], picture_of(made))
    plan = both[:, 320:]
    assert plan.shape == (240, round(240 * 210 / 297), 3)
    assert (plan == 255).mean() > 0.7
    assert (plan < 128).any()


def test_numbers() -> None:
    made = packed(room())
    numbers = measure_package(made)
    assert numbers["glb_bytes"] == len(made.files["room.glb"])
    assert numbers["triangles"] == 24
    assert (numbers["size_x_m"], numbers["size_y_m"], numbers["size_z_m"]) == (4.0, 2.5, 3.0)
    assert 0.2 < numbers["preview_covered"] < 0.9


# --- the same bytes ------------------------------------------------------------------------------


def test_same_mesh_same_bytes() -> None:
    mesh = joined(sphere(4), room())
    assert dict(packed(mesh).files) == dict(packed(mesh).files)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a process to one core")
def test_same_bytes_on_one_core_as_on_all() -> None:
    script = (
        "import importlib.util, os, sys\n"
        "spec = importlib.util.spec_from_file_location('t', sys.argv[1])\n"
        "t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t)\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(t.packed(t.joined(t.sphere(5), t.room())).files['manifest.json'].decode('utf-8'))\n"
    )
    command = [sys.executable, "-c", script, __file__]
    there = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    assert json.loads(there) == manifest_of(packed(joined(sphere(5), room())))


# --- what cannot be packaged ---------------------------------------------------------------------


def test_empty_mesh_is_rejected_in_plain_words() -> None:
    mesh = room()
    with pytest.raises(ScanRejected, match=r"package: expected a mesh with a surface; got 72 vertices and 0 triangles"):
        packed(Mesh(**{**vars(mesh), "triangles_f3": mesh.triangles_f3[:0]}))
    nothing = Mesh(*(field[:0] for field in list(vars(mesh).values())[:4]), voxel_m=0.02)
    with pytest.raises(ScanRejected, match=r"got 0 vertices and 0 triangles. Scan again"):
        packed(nothing)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vertices_that_are_no_numbers_are_rejected_in_plain_words(bad: float) -> None:
    mesh = room()
    mesh.vertices_world_m_v3[7, 1] = bad
    with pytest.raises(ScanRejected, match=r"expected vertices that are finite numbers; got 1 of 72 .* vertex 7"):
        packed(mesh)


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_a_missing_normal_is_named_as_a_fault_of_the_mesh(bad: float) -> None:
    mesh = room()
    mesh.normals_world_v3[5] = bad
    with pytest.raises(StageError, match=r"1 of 72 have none, first vertex 5. This is a fault of the mesh stage"):
        packed(mesh)


def test_a_triangle_of_no_vertex_is_named_as_a_fault_of_the_mesh() -> None:
    mesh = room()
    mesh.triangles_f3[3, 0] = 72
    with pytest.raises(StageError, match=r"vertices 0 to 71; got 0 to 72. This is a fault of the mesh stage"):
        packed(mesh)


def test_normals_of_any_length_are_stored_with_length_one() -> None:
    mesh = room()
    long = Mesh(**{**vars(mesh), "normals_world_v3": mesh.normals_world_v3 * 3.0})
    assert packed(long).files["room.glb"] == packed(mesh).files["room.glb"]
