"""Boxes of furniture in rooms that are built here triangle by triangle, so that every number is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geomagic_dagster.cv.furniture import furniture, measure_furniture, preview_furniture
from geomagic_dagster.cv.types import Furniture, Layout, Mesh

F64 = NDArray[np.float64]
Triangles = F64
"""(f, 3, 3): corners of triangles."""


# --- rooms ------------------------------------------------------------------------------------------------------


def face(origin, along, across, step_m: float = 0.05) -> Triangles:
    """A rectangle in triangles of about 5 cm; counter-clockwise seen from along x across."""
    origin, along, across = (np.array(each, float) for each in (origin, along, across))
    n, m = (max(1, round(float(np.linalg.norm(each)) / step_m)) for each in (along, across))
    i, j = (each.ravel() for each in np.meshgrid(np.arange(n), np.arange(m), indexing="ij"))

    def corner(a, b) -> F64:
        return origin + (i + a)[:, None] / n * along + (j + b)[:, None] / m * across

    return np.concatenate(
        (
            np.stack((corner(0, 0), corner(1, 0), corner(1, 1)), 1),
            np.stack((corner(0, 0), corner(1, 1), corner(0, 1)), 1),
        )
    )


def block(centre_2, size_3, bottom: float = 0.0, sides: str = "lrfbt") -> Triangles:
    """A box: l(eft) r(ight) f(ront, +y) b(ack, -y) t(op) u(nder) as seen with +y in front."""
    (x, y), (w, d, h), z = centre_2, size_3, bottom
    low, high = np.array([x - w / 2, y - d / 2, z]), np.array([x + w / 2, y + d / 2, z + h])
    faces = {
        "t": face((low[0], low[1], high[2]), (w, 0, 0), (0, d, 0)),
        "u": face(low, (0, d, 0), (w, 0, 0)),
        "l": face(low, (0, 0, h), (0, d, 0)),
        "r": face((high[0], low[1], low[2]), (0, d, 0), (0, 0, h)),
        "b": face(low, (w, 0, 0), (0, 0, h)),
        "f": face((low[0], high[1], low[2]), (0, 0, h), (w, 0, 0)),
    }
    return np.concatenate([faces[side] for side in sides])


def table(x: float, y: float, w: float = 1.4, d: float = 0.8, h: float = 0.75) -> Triangles:
    legs = [block((x + a * (w / 2 - 0.06), y + b * (d / 2 - 0.06)), (0.06, 0.06, h - 0.04), sides="lrfb")
            for a in (-1, 1) for b in (-1, 1)]  # fmt: skip
    return np.concatenate([block((x, y), (w, d, 0.04), h - 0.04, "lrfbtu"), *legs])


def chair(x: float, y: float) -> Triangles:
    """Back at -y; 0.44 x 0.48, seat at 0.45, back up to 0.9."""
    return np.concatenate((block((x, y), (0.44, 0.48, 0.45)), block((x, y - 0.21), (0.44, 0.06, 0.45), 0.45)))


def shell(w: float = 5.0, d: float = 4.0, h: float = 2.5, ceiling: bool = True) -> Triangles:
    """An empty room from (0, 0) to (w, d)."""
    faces = [
        face((0, 0, 0), (w, 0, 0), (0, d, 0), 0.2), face((0, 0, 0), (0, 0, h), (w, 0, 0), 0.2),
        face((0, d, 0), (w, 0, 0), (0, 0, h), 0.2), face((0, 0, 0), (0, d, 0), (0, 0, h), 0.2),
        face((w, 0, 0), (0, 0, h), (0, d, 0), 0.2),
    ]  # fmt: skip
    return np.concatenate([*faces, face((0, 0, h), (0, d, 0), (w, 0, 0), 0.2)] if ceiling else faces)


def mesh_of(*parts: Triangles, yaw: float = 0.0, noise_m: float = 0.0) -> Mesh:
    corners = np.concatenate(parts) if parts else np.zeros((0, 3, 3))
    vertices, index = np.unique(np.round(corners.reshape(-1, 3), 6), axis=0, return_inverse=True)
    vertices = vertices + noise_m * np.random.default_rng(0).normal(size=vertices.shape)
    cos, sin = np.cos(yaw), np.sin(yaw)
    vertices = vertices @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    return Mesh(
        vertices.astype(np.float32), index.reshape(-1, 3).astype(np.int32), np.zeros((len(vertices), 3), np.uint8),
        np.zeros((len(vertices), 3), np.float32), 0.02,
    )  # fmt: skip


def layout_of(corners, floor: float | None = 0.0, ceiling: float | None = 2.5, closed: bool = True, yaw=0.0) -> Layout:
    corners = np.array(corners, float).reshape(-1, 2)
    cos, sin = np.cos(yaw), np.sin(yaw)
    corners = corners @ np.array([[cos, sin], [-sin, cos]])
    n, none = len(corners), np.zeros(0)
    return Layout(
        corners_world_m_n2=corners, is_closed=closed and n > 0, wall_is_guessed_w=np.zeros(n, bool),
        wall_sigma_m_w=np.full(n, 0.01), wall_confidence_w=np.ones(n), corner_sigma_m_n=np.full(n, 0.01),
        length_sigma_m_w=np.full(n, 0.01), floor_z_world_m=floor, floor_sigma_m=0.005, ceiling_z_world_m=ceiling,
        ceiling_sigma_m=0.005, floor_levels_world_m_l=none, ceiling_planes_l4=np.zeros((0, 4)), opening_kind_k=(),
        opening_wall_k=np.zeros(0, np.int64), opening_start_m_k=none, opening_width_m_k=none, opening_sill_m_k=none,
        opening_height_m_k=none, opening_sigma_m_k=none, opening_confidence_k=none, area_sigma_m2=0.1, snapped="",
        warnings=(),
    )  # fmt: skip


ROOM = [(0, 0), (5, 0), (5, 4), (0, 4)]


def found(*parts: Triangles, **layout) -> Furniture:
    return furniture(layout_of(ROOM, **layout), mesh_of(shell(), *parts, noise_m=0.002))


def size_of(result: Furniture, k: int = 0) -> list[float]:
    """Longer edge, shorter edge, height."""
    return [*sorted(result.size_m_k3[k, :2], reverse=True), result.size_m_k3[k, 2]]


def top_of(result: Furniture, k: int = 0) -> float:
    return float(result.centre_world_m_k3[k, 2] + 0.5 * result.size_m_k3[k, 2])


# --- one thing ----------------------------------------------------------------------------------------------------


def test_a_table_has_its_size_and_its_class_and_stands_on_the_floor():
    result = found(table(2.5, 2.0))
    assert result.kind_k == ("table",)
    np.testing.assert_allclose(size_of(result), (1.4, 0.8, 0.75), atol=0.03)
    np.testing.assert_allclose(result.centre_world_m_k3[0], (2.5, 2.0, 0.375), atol=0.02)
    assert result.stands_on_k.tolist() == [-1]


def test_a_seat_with_a_back_is_one_chair():
    result = found(chair(2.5, 2.0))
    assert result.kind_k == ("chair",)
    np.testing.assert_allclose(size_of(result), (0.48, 0.44, 0.9), atol=0.03)


def test_of_a_wardrobe_only_the_front_is_seen_and_the_wall_is_its_back():
    result = found(block((2.0, 0.32), (1.2, 0.58, 2.0), sides="f"))
    assert result.kind_k == ("storage",)
    np.testing.assert_allclose(size_of(result), (1.2, 0.6, 2.0), atol=0.04)
    assert result.size_sigma_m_k3[0].max() > found(table(2.5, 2.0)).size_sigma_m_k3[0, :2].max()


def test_a_shelf_hangs_on_the_wall_and_is_not_let_down_to_the_floor():
    result = found(block((2.0, 0.115), (0.9, 0.22, 0.25), 1.5, "lrftu"))
    assert result.stands_on_k.tolist() == [-2]
    np.testing.assert_allclose(size_of(result), (0.9, 0.22, 0.25), atol=0.04)


def test_a_picture_is_no_furniture():
    assert found(block((2.0, 0.015), (0.9, 0.03, 0.6), 1.3, "lrftu")).kind_k == ()


def test_a_lamp_on_the_ceiling_is_no_furniture():
    assert found(block((2.5, 2.0), (0.4, 0.4, 0.3), 2.19, "lrfbu")).kind_k == ()


def back_alone(x: float, y: float, bottom: float = 0.55) -> Triangles:
    """The back of `chair(x, y)`, whose seat nobody saw."""
    return block((x, y - 0.21), (0.44, 0.06, 0.9 - bottom), bottom)


@pytest.mark.parametrize("bottom", [0.05, 0.55])
def test_a_chair_at_a_table_of_which_only_the_back_was_seen_is_a_chair_that_faces_the_table(bottom: float):
    result = found(table(2.5, 2.0), back_alone(2.3, 1.30, bottom))
    assert result.kind_k == ("table", "chair")
    k = result.kind_k.index("chair")
    np.testing.assert_allclose(size_of(result, k), (0.5, 0.44, 0.9), atol=0.04)
    np.testing.assert_allclose(result.centre_world_m_k3[k, :2], (2.3, 1.30), atol=0.05)
    assert result.size_sigma_m_k3[k, :2].max() > 1.5 * result.size_sigma_m_k3[0, :2].max(), "its depth was not seen"
    assert result.confidence_k[k] < 0.5 * result.confidence_k[0]


def test_of_a_chair_seen_from_behind_the_seat_is_on_the_other_side():
    rear = face((2.28, 1.79, 0.5), (0.44, 0, 0), (0, 0, 0.4))
    result = found(table(4.2, 3.2, 1.0, 0.8), rear, face((2.28, 1.79, 0.9), (0.44, 0, 0), (0, 0.03, 0)))
    assert sorted(result.kind_k) == ["chair", "table"]
    k = result.kind_k.index("chair")
    np.testing.assert_allclose(result.centre_world_m_k3[k, :2], (2.5, 2.04), atol=0.05)


def test_a_plate_before_a_wall_is_no_chair():
    assert "chair" not in found(block((2.0, 0.09), (0.44, 0.06, 0.4), 0.5)).kind_k


def test_a_vase_on_a_low_cupboard_does_not_make_it_a_chair():
    result = found(block((2.5, 2.0), (0.45, 0.40, 0.5)), block((2.5, 2.12), (0.14, 0.14, 0.28), 0.5))
    assert result.kind_k == ("storage", "object") and result.stands_on_k.tolist() == [-1, 0]


def test_a_pillar_is_no_furniture_and_a_wardrobe_up_to_the_ceiling_is():
    result = found(block((0.25, 2.0), (0.4, 0.4, 2.48), sides="rfb"), block((4.65, 2.0), (0.6, 1.8, 2.45), sides="lfb"))
    assert result.kind_k == ("storage",)
    np.testing.assert_allclose(size_of(result)[:2], (1.8, 0.65), atol=0.06)


# --- things that touch ----------------------------------------------------------------------------------------------


def test_a_carton_on_a_table_stands_on_it():
    result = found(table(2.5, 2.0), block((2.3, 2.1), (0.35, 0.25, 0.2), 0.75))
    assert result.kind_k == ("table", "object")
    assert result.stands_on_k.tolist() == [-1, 0]
    np.testing.assert_allclose(size_of(result, 0), (1.4, 0.8, 0.75), atol=0.03)
    np.testing.assert_allclose(size_of(result, 1), (0.35, 0.25, 0.2), atol=0.03)
    assert top_of(result, 1) == pytest.approx(0.95, abs=0.02)


def test_two_cupboards_that_touch_are_told_apart_by_their_heights():
    # fused surfaces run into each other: the one's top ends in the other's side
    result = found(block((1.5, 2), (0.8, 0.5, 0.6), sides="lfbt"), block((2.3, 2), (0.8, 0.5, 0.9)))
    assert sorted(np.round(result.size_m_k3[:, 2], 1)) == [0.6, 0.9]
    np.testing.assert_allclose(np.sort(result.centre_world_m_k3[:, 0]), (1.5, 2.3), atol=0.06)


def test_chairs_at_a_table_stay_chairs():
    result = found(table(2.5, 2.0), chair(2.2, 1.33), chair(2.8, 1.33))
    assert sorted(result.kind_k) == ["chair", "chair", "table"]


def test_of_two_boxes_in_one_place_the_one_of_which_more_was_seen_stays():
    inside = block((2.5, 2.0), (0.5, 0.3, 0.7), 0.1, "lrfb")  # what fusion left inside of a cupboard
    result = found(block((2.5, 2.0), (1.2, 0.5, 0.9), sides="lrfb"), inside)
    assert len(result.kind_k) == 1
    np.testing.assert_allclose(size_of(result), (1.2, 0.5, 0.9), atol=0.03)


def test_a_chair_pushed_under_a_table_stays():
    result = found(table(2.5, 2.0), back_alone(2.5, 1.70))  # its back is 8 cm from the table's edge
    assert result.kind_k == ("table", "chair")
    np.testing.assert_allclose(result.centre_world_m_k3[1, :2], (2.5, 1.70), atol=0.05)


# --- the frame of reference, and the layout's errors --------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(st.floats(-3.1, 3.1))
def test_turning_the_world_turns_the_boxes_and_nothing_else(yaw: float):
    parts = (shell(), table(2.5, 2.0), chair(1.0, 3.0))
    still = furniture(layout_of(ROOM), mesh_of(*parts))
    turned = furniture(layout_of(ROOM, yaw=yaw), mesh_of(*parts, yaw=yaw))
    assert sorted(turned.kind_k) == sorted(still.kind_k)
    assert sorted(turned.size_m_k3.prod(1)) == pytest.approx(sorted(still.size_m_k3.prod(1)), rel=0.05)
    across = np.mod(turned.yaw_world_rad_k - yaw + np.pi / 4, np.pi / 2) - np.pi / 4
    np.testing.assert_allclose(across, 0, atol=0.02)


@pytest.mark.parametrize("shift_m", [-0.03, 0.03])
def test_a_layout_that_is_3_cm_off_gives_the_same_pieces(shift_m: float):
    off = [(-shift_m, -shift_m), (5 + shift_m, -shift_m), (5 + shift_m, 4 + shift_m), (-shift_m, 4 + shift_m)]
    mesh = mesh_of(shell(), table(2.5, 2.0), block((4.6, 3.0), (0.6, 1.2, 0.9)))
    exact, moved = (furniture(layout_of(each), mesh) for each in (ROOM, off))
    assert moved.kind_k == exact.kind_k
    np.testing.assert_allclose(np.sort(moved.size_m_k3), np.sort(exact.size_m_k3), atol=0.06)


def test_the_same_scan_gives_the_same_bytes():
    first, second = found(table(2.5, 2.0), chair(2.2, 1.3)), found(table(2.5, 2.0), chair(2.2, 1.3))
    assert first.kind_k == second.kind_k
    for name in ("centre_world_m_k3", "size_m_k3", "yaw_world_rad_k", "size_sigma_m_k3", "confidence_k", "stands_on_k"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


# --- bad input ------------------------------------------------------------------------------------------------------


def test_nothing_in_an_empty_mesh():
    result = furniture(layout_of(ROOM), mesh_of())
    assert result.kind_k == () and result.size_m_k3.shape == (0, 3)
    assert measure_furniture(result)["pieces"] == 0
    assert preview_furniture(result).dtype == np.uint8


@pytest.mark.parametrize("corners", [ROOM, []])
def test_nothing_on_a_bare_floor(corners):
    assert furniture(layout_of(corners, ceiling=None), mesh_of(face((0, 0, 0), (5, 0, 0), (0, 4, 0)))).kind_k == ()


def test_an_empty_room_is_empty():
    assert found().kind_k == ()


def test_without_any_wall_what_stands_on_the_floor_is_found():
    mesh = mesh_of(face((0, 0, 0), (5, 0, 0), (0, 4, 0)), table(2.5, 2.0))
    result = furniture(layout_of([], ceiling=None), mesh)
    assert result.kind_k == ("table",) and top_of(result) == pytest.approx(0.75, abs=0.01)


def test_an_open_outline_serves_with_the_walls_it_has():
    cupboard = block((2.0, 0.3), (1.2, 0.54, 0.9), sides="lrft")
    result = furniture(layout_of([(5, 4), (0, 4), (0, 0), (5, 0)][::-1][:2], closed=False), mesh_of(shell(), cupboard))
    assert "storage" in result.kind_k


def test_without_a_floor_heights_are_above_the_lowest_surface_and_a_warning_says_so():
    result = furniture(layout_of(ROOM, floor=None, ceiling=None), mesh_of(table(2.5, 2.0)))
    assert result.kind_k == ("table",)
    assert "No floor was seen" in result.warnings[0]


def test_furniture_against_every_wall_loses_none():
    parts = [
        block((2.5, 0.25), (3.0, 0.44, 0.8), sides="lrft"), block((2.5, 3.75), (3.0, 0.44, 0.9), sides="lrbt"),
        block((0.25, 2.0), (0.44, 2.0, 1.0), sides="rfbt"), block((4.75, 2.0), (0.44, 2.0, 1.1), sides="lfbt"),
    ]  # fmt: skip
    result = found(*parts)
    assert len(result.kind_k) == 4
    np.testing.assert_allclose(np.sort(result.size_m_k3[:, 2]), (0.8, 0.9, 1.0, 1.1), atol=0.03)


def test_a_cupboard_of_half_a_metre_is_a_room_without_furniture():
    corners = [(0, 0), (0.5, 0), (0.5, 0.5), (0, 0.5)]
    assert furniture(layout_of(corners, ceiling=0.5), mesh_of(shell(0.5, 0.5, 0.5))).kind_k == ()


def test_a_tree_outdoors_is_no_furniture():
    tree = block((2.5, 2.0), (3.0, 3.0, 6.0))
    mesh = mesh_of(face((-5, -5, 0), (10, 0, 0), (0, 10, 0), 0.2), tree)
    assert furniture(layout_of([], ceiling=None), mesh).kind_k == ()


def test_what_a_mirror_shows_behind_the_wall_is_no_furniture():
    behind = [table(2.5, -2.0), face((0, -4, 0), (5, 0, 0), (0, 3.99, 0), 0.2), block((1.0, -3.0), (0.8, 0.5, 1.8))]
    result = found(table(2.5, 2.0), *behind)
    assert result.kind_k == ("table",)
    np.testing.assert_allclose(result.centre_world_m_k3[0, :2], (2.5, 2.0), atol=0.03)


def test_of_two_storeys_only_what_stands_in_the_one_that_layout_chose():
    above, below = shell() + [0, 0, 2.8], shell() - [0, 0, 2.8]
    mesh = mesh_of(shell(), table(2.5, 2.0), above, table(1.5, 1.5) + [0, 0, 2.8], below, chair(1, 1) - [0, 0, 2.8])
    result = furniture(layout_of(ROOM), mesh)
    assert result.kind_k == ("table",) and top_of(result) == pytest.approx(0.75, abs=0.01)


def test_in_a_corridor_open_at_both_ends_a_cupboard_keeps_its_size():
    walls = [face((0, 0, 0), (0, 0, 2.5), (10, 0, 0), 0.2), face((0, 1.6, 0), (10, 0, 0), (0, 0, 2.5), 0.2)]
    mesh = mesh_of(
        face((0, 0, 0), (10, 0, 0), (0, 1.6, 0), 0.2), *walls, block((5, 0.22), (1.2, 0.4, 0.9), sides="lrft")
    )
    result = furniture(layout_of([(10, 1.6), (0, 1.6), (0, 0), (10, 0)], closed=False), mesh)
    assert result.kind_k == ("storage",)
    np.testing.assert_allclose(size_of(result), (1.2, 0.42, 0.9), atol=0.04)


def test_in_a_hall_of_30_m_a_chair_keeps_its_size():
    corners = [(0, 0), (30, 0), (30, 18), (0, 18)]
    mesh = mesh_of(shell(30, 18, 5), chair(20, 9), block((29.6, 9), (0.7, 2.0, 2.1), sides="lfbt"))
    result = furniture(layout_of(corners, ceiling=5.0), mesh)
    assert sorted(result.kind_k) == ["chair", "storage"]
    np.testing.assert_allclose(size_of(result, result.kind_k.index("chair")), (0.48, 0.44, 0.9), atol=0.03)
    np.testing.assert_allclose(size_of(result, result.kind_k.index("storage")), (2.0, 0.75, 2.1), atol=0.05)


def test_with_gravity_5_degrees_off_boxes_stand_on_the_floor_as_layout_levelled_it():
    angle = np.radians(5)
    R_33 = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    mesh = mesh_of(*(part @ R_33.T for part in (shell(), table(2.5, 2.0), chair(1.0, 3.0))))
    upright = furniture(layout_of(ROOM), mesh_of(shell(), table(2.5, 2.0), chair(1.0, 3.0)))
    # layout turns the tilted floor level about its middle: the room is shifted by what the middle has moved
    middle = R_33 @ np.array([2.5, 2.0, 0.0]) - (2.5, 2.0, 0.0)
    tilted = furniture(layout_of(np.array(ROOM) + middle[:2], floor=middle[2], ceiling=2.5 + middle[2]), mesh)
    assert tilted.kind_k == upright.kind_k == ("table", "chair")
    np.testing.assert_allclose(tilted.size_m_k3, upright.size_m_k3, atol=0.03)
    np.testing.assert_allclose(tilted.centre_world_m_k3, upright.centre_world_m_k3 + middle, atol=0.05)
    assert any("5.0 degrees" in warning for warning in tilted.warnings)


# --- numbers and picture ----------------------------------------------------------------------------------------------


def test_numbers_and_picture_of_a_furnished_room():
    result = found(table(2.5, 2.0), chair(1.0, 3.0))
    numbers = measure_furniture(result)
    assert numbers["pieces"] == 2 and numbers["table_pieces"] == 1 and numbers["chair_pieces"] == 1
    assert numbers["floor_covered_m2"] == pytest.approx(1.4 * 0.8 + 0.44 * 0.48, rel=0.08)
    assert all(np.isfinite(value) for value in numbers.values())
    picture = preview_furniture(result)
    assert picture.dtype == np.uint8 and max(picture.shape) == 640
    assert not np.array_equal(picture, preview_furniture(replace(result, kind_k=("bed", "bed"))))
