"""Layout: simple worlds of boxes with exact truth for what is asked of bad scans; made-up rooms for its figures."""

from __future__ import annotations

import numpy as np
import pytest

from geomagic_dagster.cv.layout import layout, measure_layout, preview_layout
from geomagic_dagster.cv.plan import area_m2
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import DepthMaps, Layout, Mesh, Poses

SIZE_WH = (96, 72)
K_33 = np.array([[80.0, 0, 47.5], [0, 80.0, 35.5], [0, 0, 1]])


class World:
    """Triangles, each with a flag whether it gives depth; surfaces are thin and face any side."""

    def __init__(self) -> None:
        self.corners: list[np.ndarray] = []
        self.has_depth: list[bool] = []

    def rectangle(self, origin, a, b, has_depth: bool = True) -> World:
        """From a corner along two edges; the free side is that of the cross product a x b."""
        origin, a, b = (np.asarray(each, float) for each in (origin, a, b))
        self.corners += [np.stack((origin, origin + a, origin + a + b)), np.stack((origin, origin + a + b, origin + b))]
        self.has_depth += [has_depth, has_depth]
        return self

    def box(self, low, high) -> World:
        (x, y, z), (u, v, w) = low, high
        self.rectangle((x, y, w), (u - x, 0, 0), (0, v - y, 0))
        for a, b in (((x, y), (u, y)), ((u, y), (u, v)), ((u, v), (x, v)), ((x, v), (x, y))):
            self.wall(a, b, z, w, outward=True)
        return self

    def wall(self, start, end, low=0.0, high=2.5, outward=False, has_depth=True) -> World:
        """The free side is to the left of start to end; with `outward` to the right."""
        (x, y), (u, v) = start, end
        up = (0, 0, high - low)
        along = (u - x, v - y, 0)
        first, second = (along, up) if outward else (up, along)
        return self.rectangle((x, y, low), first, second, has_depth)

    def shell(self, footprint, high: float | None = 2.5, low: float = 0.0, walls: list[int] | None = None) -> World:
        """Floor, ceiling (none for high None) and the walls named of a footprint, counter-clockwise."""
        footprint = np.asarray(footprint, float)
        (x, y), (u, v) = footprint.min(axis=0), footprint.max(axis=0)
        self.rectangle((x, y, low), (u - x, 0, 0), (0, v - y, 0))
        if high is not None:
            self.rectangle((x, y, high), (0, v - y, 0), (u - x, 0, 0))
        for i in range(len(footprint)) if walls is None else walls:
            self.wall(footprint[i], footprint[(i + 1) % len(footprint)], low, high if high is not None else low + 2.2)
        return self

    def turned(self, R_33: np.ndarray) -> World:
        self.corners = [corners @ R_33.T for corners in self.corners]
        return self

    def seen(self, eyes, headings_rad, pitches_rad=(0.0, -0.5, 0.35), far_m=6.0, R_33=None):
        """(poses, depth, mesh) as the stages before give them: every eye looks along every heading and pitch."""
        import trimesh

        R_33 = np.eye(3) if R_33 is None else R_33
        corners_f33 = np.array(self.corners)
        poses_44 = []
        for eye in eyes:
            for heading in headings_rad:
                for pitch in pitches_rad:
                    forward = np.array(
                        [np.cos(pitch) * np.cos(heading), np.cos(pitch) * np.sin(heading), np.sin(pitch)]
                    )
                    right = np.array([np.sin(heading), -np.cos(heading), 0.0])
                    pose = np.eye(4)
                    pose[:3, :3] = R_33 @ np.stack((right, np.cross(forward, right), forward), axis=1)
                    pose[:3, 3] = R_33 @ np.asarray(eye, float)
                    poses_44.append(pose)
        world_T_cam_b44 = np.array(poses_44)
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        scene = EmbreeScene()
        flat = corners_f33.reshape(-1, 3).astype(np.float32)
        TriangleMesh(scene, flat, np.arange(len(flat), dtype=np.int32).reshape(-1, 3))
        y, x = np.mgrid[: SIZE_WH[1], : SIZE_WH[0]]
        cam = np.stack(((x - K_33[0, 2]) / K_33[0, 0], (y - K_33[1, 2]) / K_33[1, 1], np.ones(x.shape)), axis=-1)
        depth_m_bhw = np.zeros((len(world_T_cam_b44), SIZE_WH[1], SIZE_WH[0]), np.float32)
        points = []
        for i, pose in enumerate(world_T_cam_b44):
            rays = cam.reshape(-1, 3) @ pose[:3, :3].T
            met = scene.run(
                np.broadcast_to(pose[:3, 3], rays.shape).astype(np.float32), rays.astype(np.float32), output=True
            )
            ok = (met["primID"] >= 0) & np.array(self.has_depth)[np.maximum(met["primID"], 0)] & (met["tfar"] < far_m)
            depth = np.where(ok, met["tfar"], 0.0)
            depth_m_bhw[i] = depth.reshape(x.shape)
            points.append(pose[:3, 3] + rays[ok] * depth[ok, None])
        points = np.concatenate(points)
        solid = corners_f33[np.array(self.has_depth)]
        vertices, triangles = trimesh.remesh.subdivide_to_size(
            solid.reshape(-1, 3), np.arange(3 * len(solid)).reshape(-1, 3), 0.25
        )
        centre = vertices[triangles].mean(axis=1)
        if len(points):
            from scipy.spatial import KDTree

            triangles = triangles[KDTree(points[::5]).query(centre)[0] < 0.15]
        else:
            triangles = triangles[:0]
        views = len(world_T_cam_b44)
        poses = Poses(
            world_T_cam_b44=world_T_cam_b44, world_T_scan_44=np.eye(4), is_used_b=np.ones(views, np.bool_),
            disagreement_m_b=np.zeros(views), gravity_from="device", floor_z_world_m=None, floor_tilt_deg=None, cuts=(),
        )  # fmt: skip
        maps = DepthMaps(depth_m_bhw, np.where(depth_m_bhw > 0, 255, 0).astype(np.uint8), np.tile(K_33, (views, 1, 1)))
        return poses, maps, mesh_of(vertices, triangles)


def mesh_of(vertices, triangles) -> Mesh:
    vertices = np.asarray(vertices, np.float32).reshape(-1, 3)
    up = np.tile(np.float32([0, 0, 1]), (len(vertices), 1))
    return Mesh(
        vertices, np.asarray(triangles, np.int32).reshape(-1, 3), np.full((len(vertices), 3), 128, np.uint8), up, 0.02
    )


AROUND = np.arange(0, 2 * np.pi, np.pi / 4)
ROOM = [(0, 0), (4, 0), (4, 3), (0, 3)]
EYES = [(1.2, 1.0, 1.5), (2.8, 1.0, 1.5), (2.8, 2.0, 1.5), (1.2, 2.0, 1.5)]


def room(**how) -> World:
    return World().shell(ROOM, **how)


def corner_errors_m(found: Layout, truth) -> np.ndarray:
    """Of each true corner to the nearest that was found."""
    truth = np.asarray(truth, float)
    return np.linalg.norm(truth[:, None] - found.corners_world_m_n2[None], axis=2).min(axis=1)


def test_an_empty_room_is_exact_to_half_a_centimetre():
    found = layout(*room().seen(EYES, AROUND))
    assert found.is_closed and len(found.corners_world_m_n2) == 4 and not found.wall_is_guessed_w.any()
    assert corner_errors_m(found, ROOM).max() < 0.005
    assert area_m2(found.corners_world_m_n2) == pytest.approx(12.0, rel=0.003), "positive: counter-clockwise"
    assert found.ceiling_z_world_m - found.floor_z_world_m == pytest.approx(2.5, abs=0.005)
    assert found.opening_kind_k == () and found.warnings == ()
    assert found.ceiling_planes_l4[0] == pytest.approx([0, 0, 2.5, 12.0], abs=1.0)
    numbers = measure_layout(found)
    assert numbers["volume_m3"] == pytest.approx(30.0, rel=0.01)
    assert numbers["perimeter_m"] == pytest.approx(14.0, abs=0.02)


def test_the_same_scan_gives_the_same_layout():
    first, second = (layout(*room().seen(EYES, AROUND)) for _ in range(2))
    assert first.corners_world_m_n2.tobytes() == second.corners_world_m_n2.tobytes()


def test_an_oblique_wall_stays_oblique_and_the_others_are_snapped_and_said():
    footprint = [(0, 0), (4, 0), (3.2, 3), (0, 3)]
    found = layout(*World().shell(footprint).seen(EYES, AROUND))
    assert corner_errors_m(found, footprint).max() < 0.01
    assert "right angles" in found.snapped


def test_furniture_against_every_wall_moves_none():
    world = room()
    for low, high in (
        ((0, 0, 0), (4, 0.5, 0.9)), ((0, 2.4, 0), (2.5, 3, 2.0)), ((3.4, 0.6, 0), (4, 2.4, 1.2)), ((0, 0.6, 0), (0.4, 2.2, 1.4)),
    ):  # fmt: skip
        world.box(low, high)
    found = layout(*world.seen([(1.5, 1.2, 1.6), (2.8, 1.2, 1.6), (2.0, 1.9, 1.6)], AROUND))
    assert found.is_closed and len(found.corners_world_m_n2) == 4
    assert corner_errors_m(found, ROOM).max() < 0.02


@pytest.mark.parametrize("high_m", [2.0, 2.2])
def test_half_the_walls_hidden_behind_wardrobes_loses_none(high_m: float):
    # two of four walls stand behind wardrobes from end to end; only a strip above them shows
    world = room().box((0, 2.4, 0), (4, 3, high_m)).box((3.4, 0, 0), (4, 2.4, high_m))
    found = layout(*world.seen([(1.2, 0.8, 1.6), (2.4, 0.9, 1.6), (1.4, 1.8, 1.6)], AROUND))
    assert found.is_closed and len(found.corners_world_m_n2) == 4 and not found.wall_is_guessed_w.any()
    assert corner_errors_m(found, ROOM).max() < 0.02


def test_a_corner_seen_alone_gives_an_open_outline_and_says_so():
    world = World().shell([(0, 0), (8, 0), (8, 8), (0, 8)])
    found = layout(*world.seen([(1.5, 1.5, 1.5), (2.0, 1.6, 1.5)], [-2.4, -2.0, -2.8], far_m=3.5))
    assert not found.is_closed
    assert len(found.corners_world_m_n2) == len(found.wall_is_guessed_w) + 1, "an open chain has one corner more"
    assert corner_errors_m(found, [(0, 0)]).max() < 0.02
    assert any("only a part" in warning.lower() for warning in found.warnings)
    assert "area_m2" not in measure_layout(found)


def test_a_door_a_window_and_a_passage_are_found_where_they_are():
    world = World().rectangle((-1, -3, 0), (6, 0, 0), (0, 8, 0)).rectangle((0, 0, 2.5), (0, 3, 0), (4, 0, 0))
    # passage in wall 0 from 1 to 2 m, up to 2.1 m; behind it a corridor's wall 2 m off
    world.wall((0, 0), (1, 0)).wall((2, 0), (4, 0)).wall((1, 0), (2, 0), 2.1, 2.5).wall((-1, -2), (5, -2))
    # window in wall 1 from 0.8 to 2.0 m, sill 0.9, height 1.2: glass 10 cm behind, in a recess
    world.wall((4, 0), (4, 0.8)).wall((4, 2.0), (4, 3)).wall((4, 0.8), (4, 2.0), 0, 0.9).wall(
        (4, 0.8), (4, 2.0), 2.1, 2.5
    )
    world.wall((4.1, 0.8), (4.1, 2.0), 0.9, 2.1, has_depth=False)
    world.wall((4.07, 0.8), (4.07, 0.87), 0.9, 2.1).wall((4.07, 1.93), (4.07, 2.0), 0.9, 2.1)
    world.wall((4.07, 0.87), (4.07, 1.93), 0.9, 0.97).wall((4.07, 0.87), (4.07, 1.93), 2.03, 2.1)
    # door in wall 2, leaf 6 cm behind
    world.wall((4, 3), (3, 3)).wall((2.1, 3), (0, 3)).wall((3, 3), (2.1, 3), 2.0, 2.5).wall(
        (3, 3.06), (2.1, 3.06), 0, 2.0
    )
    world.wall((0, 3), (0, 0))
    found = layout(*world.seen(EYES, AROUND))
    assert corner_errors_m(found, ROOM).max() < 0.01 and len(found.corners_world_m_n2) == 4
    got = dict(zip(found.opening_kind_k, range(9), strict=False))
    assert sorted(found.opening_kind_k) == ["door", "passage", "window"]
    for kind, width, height, sill in (("passage", 1.0, 2.1, 0.0), ("window", 1.2, 1.2, 0.9), ("door", 0.9, 2.0, 0.0)):
        k = got[kind]
        assert found.opening_width_m_k[k] == pytest.approx(width, abs=0.1)
        assert found.opening_height_m_k[k] == pytest.approx(height, abs=0.1)
        assert found.opening_sill_m_k[k] == pytest.approx(sill, abs=0.1)


def test_a_mirror_does_not_make_the_room_larger():
    world = World().shell(ROOM, walls=[1, 2, 3])
    world.wall((0, 0), (1.5, 0)).wall((2.7, 0), (4, 0)).wall((1.5, 0), (2.7, 0), 0, 0.5).wall(
        (1.5, 0), (2.7, 0), 2.0, 2.5
    )
    # what is seen in the mirror: the room once more behind the wall
    world.shell([(0, -3), (4, -3), (4, -0.001), (0, -0.001)], walls=[0, 1, 3])
    found = layout(*world.seen(EYES, AROUND))
    assert found.is_closed and corner_errors_m(found, ROOM).max() < 0.02
    assert area_m2(found.corners_world_m_n2) == pytest.approx(12.0, rel=0.01)


def test_through_glass_what_is_behind_the_wall_is_not_the_room():
    """A glazed front of 2 m without a frame: the sensor sees through it into the next room, 3 m deep."""
    world = World().shell(ROOM, walls=[1, 2, 3])
    world.wall((0, 0), (1, 0)).wall((3, 0), (4, 0)).wall((1, 0), (3, 0), 2.1, 2.5)
    world.shell([(0, -3), (4, -3), (4, -0.1), (0, -0.1)], walls=[0, 1, 3])
    found = layout(*world.seen(EYES, AROUND))
    assert found.is_closed and corner_errors_m(found, ROOM).max() < 0.02
    assert area_m2(found.corners_world_m_n2) == pytest.approx(12.0, rel=0.01)
    assert found.opening_kind_k == ("passage",), "whether there is a pane in it, depth cannot tell"
    assert found.opening_width_m_k[0] == pytest.approx(2.0, abs=0.1)


def test_a_corridor_open_at_both_ends_has_its_two_walls_and_no_area():
    world = World().shell([(0, 0), (12, 0), (12, 1.4), (0, 1.4)], walls=[0, 2])
    found = layout(*world.seen([(x, 0.7, 1.5) for x in (5.0, 6.0, 7.0)], AROUND, far_m=4.0))
    assert not found.is_closed and any("Only a part of the room" in warning for warning in found.warnings)
    seen = np.flatnonzero(~found.wall_is_guessed_w)
    assert len(seen) == 2 and found.wall_is_guessed_w.sum() == 1, "one end is open, the other guessed"
    y = sorted(float(found.corners_world_m_n2[[i, i + 1], 1].mean()) for i in seen)
    assert y == pytest.approx([0, 1.4], abs=0.02)
    assert np.ptp(found.corners_world_m_n2[:, 0]) == pytest.approx(10.2, abs=0.3), "walls end where seeing ended"
    assert "area_m2" not in measure_layout(found)


def test_outdoors_there_is_no_ceiling_and_it_is_said():
    found = layout(*room(high=None).seen(EYES, AROUND))
    assert found.ceiling_z_world_m is None and any("ceiling" in warning for warning in found.warnings)
    assert corner_errors_m(found, ROOM).max() < 0.02
    assert not {"ceiling_height_m", "volume_m3"} & set(measure_layout(found))


def test_without_a_floor_the_walls_stay():
    found = layout(*room().seen(EYES, AROUND, pitches_rad=(0.35, 0.6)))
    assert found.floor_z_world_m is None and any("floor" in warning for warning in found.warnings)
    assert corner_errors_m(found, ROOM).max() < 0.03


def test_a_floor_alone_gives_its_height_only():
    world = World().rectangle((0, 0, 0.3), (6, 0, 0), (0, 6, 0))
    found = layout(*world.seen([(3, 3, 1.8), (2, 3, 1.8)], AROUND, pitches_rad=(-0.9, -0.6)))
    assert found.floor_z_world_m == pytest.approx(0.3, abs=0.005)
    assert len(found.corners_world_m_n2) == 0 and any("wall" in warning for warning in found.warnings)
    assert preview_layout(found).shape == (640, 640, 3)


def test_an_empty_mesh_is_refused_in_a_sentence():
    poses, depth, _ = room().seen(EYES[:1], AROUND[:1])
    with pytest.raises(ScanRejected) as refused:
        layout(poses, depth, mesh_of(np.zeros((0, 3)), np.zeros((0, 3))))
    assert str(refused.value) == (
        "layout: expected a surface of a room; got a mesh of 0 triangles and 0.00 m². Scan again, slowly, one to three "
        "metres from walls and furniture, with the depth sensor uncovered."
    )


def test_neither_floor_nor_ceiling_nor_wall_is_refused_in_a_sentence():
    world = (
        World().rectangle((0, 0, 0.7), (0.4, 0, 0.4), (0, 0.4, 0)).rectangle((1, 1, 0.7), (0.4, 0, 0.4), (0, 0.4, 0))
    )
    with pytest.raises(ScanRejected, match="layout: expected a floor, a ceiling or a wall; got 0.5 m² of surface"):
        layout(*world.seen([(0.7, 0.7, 2.0)], AROUND, pitches_rad=(-1.2, -0.8, -0.5)))


def test_of_two_storeys_the_one_with_most_views_is_drawn():
    world = room().shell([(0, 0), (5, 0), (5, 3), (0, 3)], low=2.8, high=5.3)
    below, above = world.seen(EYES, AROUND), world.seen([(2, 1.5, 4.3)], AROUND)
    poses = Poses(**{**vars(below[0]), "world_T_cam_b44": np.concatenate((below[0].world_T_cam_b44, above[0].world_T_cam_b44)),
                     "is_used_b": np.ones(len(below[0].is_used_b) + len(above[0].is_used_b), np.bool_)})  # fmt: skip
    depth = DepthMaps(*(np.concatenate((getattr(below[1], n), getattr(above[1], n))) for n in vars(below[1])))
    a, b = below[2], above[2]
    mesh = mesh_of(
        np.concatenate((a.vertices_world_m_v3, b.vertices_world_m_v3)),
        np.concatenate((a.triangles_f3, b.triangles_f3 + len(a.vertices_world_m_v3))),
    )
    found = layout(poses, depth, mesh)
    assert any("storeys" in warning for warning in found.warnings)
    assert found.floor_z_world_m == pytest.approx(0.0, abs=0.01)
    assert corner_errors_m(found, ROOM).max() < 0.02


def test_a_hall_of_30_m():
    footprint = [(0, 0), (30, 0), (30, 18), (0, 18)]
    eyes = [(x, y, 1.6) for x in (4, 11, 19, 26) for y in (4, 14)]
    found = layout(*World().shell(footprint, high=5.0).seen(eyes, AROUND, far_m=12.0))
    assert found.is_closed and corner_errors_m(found, footprint).max() < 0.05


def test_a_cupboard_of_half_a_metre():
    footprint = [(0, 0), (0.5, 0), (0.5, 0.6), (0, 0.6)]
    found = layout(*World().shell(footprint, high=2.0).seen([(0.25, 0.3, 1.2), (0.2, 0.25, 1.0)], AROUND))
    assert corner_errors_m(found, footprint).max() < 0.03


def test_gravity_5_degrees_off_is_seen_in_the_floor_and_lengths_are_right():
    angle = np.radians(5)
    R_33 = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    found = layout(*room().turned(R_33).seen(EYES, AROUND, R_33=R_33))
    assert any("5.0 degrees" in warning for warning in found.warnings)
    length = np.linalg.norm(found.corners_world_m_n2 - np.roll(found.corners_world_m_n2, 1, axis=0), axis=1)
    assert sorted(length) == pytest.approx([3, 3, 4, 4], abs=0.01)
    assert found.ceiling_z_world_m - found.floor_z_world_m == pytest.approx(2.5, abs=0.01)


def test_a_sloped_ceiling_is_reported_as_a_plane():
    world = World().rectangle((0, 0, 0), (4, 0, 0), (0, 3, 0))
    world.rectangle((0, 0, 2.0), (0, 3, 1.0), (4, 0, 0))
    for i in range(4):
        world.wall(ROOM[i], ROOM[(i + 1) % 4], 0, 2.0)
    world.wall((4, 3), (0, 3), 2.0, 3.0)
    found = layout(*world.seen(EYES, AROUND, pitches_rad=(0.0, -0.5, 0.35, 0.7)))
    assert corner_errors_m(found, ROOM).max() < 0.02
    sloped = found.ceiling_planes_l4[np.abs(found.ceiling_planes_l4[:, 1]) > 0.1]
    assert sloped[0, :3] == pytest.approx([0, 1 / 3, 2.0], abs=0.03)


def test_a_step_in_the_floor_is_a_second_level():
    world = room().box((2.5, 0, 0), (4, 3, 0.17))
    found = layout(*world.seen(EYES, AROUND))
    assert found.floor_levels_world_m_l == pytest.approx([0.0, 0.17], abs=0.01)
