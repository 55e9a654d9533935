"""The made-up room: its rooms are possible, its truth is exact, its options do what they say."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.ndimage import minimum_filter
from scipy.spatial import cKDTree

from geomagic_dagster.cv.camera import invert_pose
from geomagic_dagster.scans.made_up import CLEAN, PHONE, Furniture, MadeUpRoom, MadeUpScan, make_room, scan_room
from geomagic_dagster.scans.made_up.ray_kernels import BOX, GLASS
from geomagic_dagster.scans.made_up.truth import Truth, cast
from geomagic_dagster.scans.made_up.walk import rotation_about

SHAPES = ("rectangular", "l_shaped", "oblique")
ROOMS = [(shape, seed) for shape in SHAPES for seed in range(10)]
SMALL = CLEAN.but(frames=12, size_wh=(80, 60))


@cache
def room_of(shape: str, seed: int) -> MadeUpRoom:
    return make_room(seed, shape)  # type: ignore[arg-type]


@cache
def clean_scan(shape: str = "l_shaped", seed: int = 3) -> MadeUpScan:
    return scan_room(room_of(shape, seed), CLEAN.but(frames=24, size_wh=(160, 120)))


# --- independent references: other formulas than the kernels' ------------------------------------------


def wound_inside(points_n2: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Inside by winding angle."""
    a = polygon[None] - points_n2[:, None]
    b = np.roll(a, -1, axis=1)
    angle = np.arctan2(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0], (a * b).sum(-1)).sum(1)
    return np.abs(angle) > np.pi


def frame_of(piece: Furniture) -> np.ndarray:
    """world_T_box (4, 4), origin in the box's centre."""
    T = np.eye(4)
    T[:3, :3] = rotation_about(np.array([0.0, 0.0, 1.0]), piece.yaw_rad)
    T[:3, 3] = piece.centre_world_m_3
    return T


def filled(piece: Furniture) -> np.ndarray:
    """Points throughout a piece's box, (n, 3) world."""
    grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 9)] * 3), -1).reshape(-1, 3) * piece.size_m_3
    T = frame_of(piece)
    return grid @ T[:3, :3].T + T[:3, 3]


def is_in_box(points_n3: np.ndarray, piece: Furniture, slack_m: float) -> np.ndarray:
    T = invert_pose(frame_of(piece))
    local = points_n3 @ T[:3, :3].T + T[:3, 3]
    return (np.abs(local) < 0.5 * np.array(piece.size_m_3) + slack_m).all(1)


def numpy_cast(truth: Truth, origin: np.ndarray, directions_n3: np.ndarray) -> np.ndarray:
    """First hit of each ray as multiple of its direction; 0 where that is glass. Face by face."""
    s = truth.scene
    best, glass = np.full(len(directions_n3), np.inf), np.zeros(len(directions_n3), bool)

    def keep(t: np.ndarray, valid: np.ndarray, is_glass: bool = False) -> None:
        nearer = valid & (t > 1e-12) & (t < best - 1e-9)
        best[nearer], glass[nearer] = t[nearer], is_glass

    with np.errstate(divide="ignore", invalid="ignore"):
        corners = truth.room.footprint_world_m_n2
        for z in (s.floor_z, s.ceiling_z):
            t = (z - origin[2]) / directions_n3[:, 2]
            hit = origin[:2] + t[:, None] * directions_n3[:, :2]
            keep(t, np.isfinite(t) & wound_inside(np.nan_to_num(hit, posinf=1e9, neginf=-1e9), corners))
        for i, (a, b) in enumerate(zip(corners, np.roll(corners, -1, 0), strict=True)):
            # solve origin + t d = a + w (b - a) in the plane
            e = b - a
            det = directions_n3[:, 1] * e[0] - directions_n3[:, 0] * e[1]
            r = a - origin[:2]
            t = (r[1] * e[0] - r[0] * e[1]) / det
            w = (r[1] * directions_n3[:, 0] - r[0] * directions_n3[:, 1]) / det
            z = origin[2] + t * directions_n3[:, 2]
            valid = (w >= 0) & (w <= 1) & (z >= s.floor_z) & (z <= s.ceiling_z)
            for o in truth.room.openings:
                if o.wall == i:
                    u = w * np.hypot(*e)
                    valid &= ~(
                        (u > o.along_m) & (u < o.along_m + o.width_m) & (z > o.sill_m) & (z < o.sill_m + o.height_m)
                    )
            keep(t, valid)
        for p in range(len(s.solid_shape_p)):
            cos, sin = s.solid_cos_sin_p2[p]
            to_local = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1.0]])
            o, d, half = to_local @ (origin - s.solid_centre_p3[p]), directions_n3 @ to_local.T, s.solid_half_p3[p]
            is_glass = bool(s.pattern_m[s.solid_material_p[p]] == GLASS)
            is_box = s.solid_shape_p[p] == BOX
            for axis in (0, 1, 2) if is_box else (2,):
                for side in (-half[axis], half[axis]):
                    t = (side - o[axis]) / d[:, axis]
                    hit = o + t[:, None] * d
                    others = [j for j in range(3) if j != axis]
                    if is_box:
                        on_face = (np.abs(hit[:, others]) <= half[others]).all(1)
                    else:
                        on_face = np.hypot(hit[:, 0], hit[:, 1]) <= half[0]
                    keep(t, on_face, is_glass)
            if not is_box:
                # nearest approach to the axis, then half the chord
                across = np.hypot(d[:, 0], d[:, 1])
                t_mid = -(o[0] * d[:, 0] + o[1] * d[:, 1]) / across**2
                gap = np.abs(o[0] * d[:, 1] - o[1] * d[:, 0]) / across
                t = t_mid - np.sqrt(half[0] ** 2 - gap**2) / across
                keep(t, np.abs(o[2] + t * d[:, 2]) <= half[2], is_glass)
    return np.where(glass, 0.0, best)


def rays(truth: Truth, frame: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, columns, world directions of depth 1) of some pixels."""
    rng = np.random.default_rng(frame)
    row, column = rng.integers(truth.depth_size_wh[1], size=count), rng.integers(truth.depth_size_wh[0], size=count)
    pixels = np.stack((column, row, np.ones(count)), 1)
    return row, column, pixels @ np.linalg.inv(truth.K_depth_33).T @ truth.world_T_cam_b44[frame, :3, :3].T


# --- rooms ----------------------------------------------------------------------------------------------


def assert_possible(room: MadeUpRoom) -> None:
    for i, piece in enumerate(room.furniture):
        points = filled(piece)
        assert wound_inside(points[:, :2], room.footprint_world_m_n2).all(), f"{piece.kind} reaches through a wall"
        assert points[:, 2].min() > room.floor_z_m - 1e-9
        assert points[:, 2].max() < room.ceiling_z_m
        for other in room.furniture[:i]:
            assert not is_in_box(points, other, -1e-6).any(), f"{piece.kind} in {other.kind}"
            assert not is_in_box(filled(other), piece, -1e-6).any(), f"{other.kind} in {piece.kind}"
        if piece.parent is not None:
            host = room.furniture[piece.parent]
            assert piece.bottom_z_m == pytest.approx(host.top_z_m)
            assert is_in_box(points * (1, 1, 0) + (0, 0, host.top_z_m), host, 1e-6).all(), "stands over the edge"
        for part in piece.parts:
            reach = np.abs(np.array(part.centre_3) - (0, 0, 0.5 * piece.size_m_3[2])) + 0.5 * np.array(part.size_3)
            assert (reach <= 0.5 * np.array(piece.size_m_3) + 1e-9).all(), f"{piece.kind}: a part sticks out"
    door, window = room.openings
    assert (door.kind, window.kind) == ("door", "window")
    assert door.wall != window.wall
    wall = room.walls[door.wall]
    before = np.array(
        [
            [*wall.place(door.along_m + s * door.width_m, inward), z]
            for s in np.linspace(0, 1, 9)
            for inward in np.linspace(0.01, 0.99, 12)
            for z in (0.01, 0.3, 0.8, 1.5)
        ]
    )
    for piece in room.furniture:
        assert not is_in_box(before, piece, 0.0).any(), f"{piece.kind} blocks the door"
    for each in (door, window):
        assert 0 < each.along_m < each.along_m + each.width_m < room.walls[each.wall].length_m
        assert each.sill_m + each.height_m < room.ceiling_z_m


@pytest.mark.parametrize(("shape", "seed"), ROOMS)
def test_furniture_stands_in_the_room_apart_and_leaves_the_door_free(shape, seed):
    room = room_of(shape, seed)
    assert_possible(room)
    assert len({piece.kind for piece in room.furniture}) >= 6


@given(seed=st.integers(0, 2**31), shape=st.sampled_from(SHAPES))
@settings(max_examples=15, deadline=None)
def test_any_seed_gives_a_possible_room(seed, shape):
    assert_possible(make_room(seed, shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_footprint_is_what_its_shape_says(shape):
    for seed in range(10):
        room = room_of(shape, seed)
        polygon = room.footprint_world_m_n2
        low, high = polygon.min(0), polygon.max(0)
        grid = np.stack(np.meshgrid(*(np.arange(a + 0.01, b, 0.02) for a, b in zip(low, high, strict=True))), -1)
        counted = wound_inside(grid.reshape(-1, 2), polygon).sum() * 0.02**2
        assert room.floor_area_m2 == pytest.approx(counted, rel=0.02)  # positive: counter-clockwise
        assert 10 < room.floor_area_m2 < 32
        edges = np.roll(polygon, -1, 0) - polygon
        turns = [np.degrees(np.arctan2(*np.array([a[0] * b[1] - a[1] * b[0], a @ b])))
                 for a, b in zip(edges, np.roll(edges, -1, 0), strict=True)]  # fmt: skip
        square = [abs(abs(turn) - 90) < 1e-6 for turn in turns]
        assert all(square) == (shape != "oblique")
        assert (len(polygon) == 6 and sum(turn < 0 for turn in turns) == 1) == (shape == "l_shaped")


def test_without_furniture_the_shell_is_the_same():
    full, empty = make_room(5, "oblique"), make_room(5, "oblique", furniture=False)
    assert empty.furniture == ()
    assert len(full.furniture) > 5
    for part in ("walls", "openings", "decals", "light", "fixtures"):
        assert getattr(full, part) == getattr(empty, part)


def test_an_unknown_shape_is_named():
    with pytest.raises(ValueError, match=r"expected a shape of rectangular, l_shaped, oblique or None; got 'round'"):
        make_room(0, "round")  # type: ignore[arg-type]


# --- truth ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_depth_is_that_of_an_independent_ray_cast(shape):
    for seed in (3, 4):
        truth = clean_scan(shape, seed).truth
        for frame in range(0, 24, 3):
            row, column, directions = rays(truth, frame, 250)
            expected = numpy_cast(truth, truth.world_T_cam_b44[frame, :3, 3], directions)
            np.testing.assert_allclose(truth.depth_m_hw(frame)[row, column], expected, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_unprojected_true_depth_lies_on_the_true_surface(shape):
    truth = clean_scan(shape).truth
    for frame in range(0, 24, 4):
        row, column, directions = rays(truth, frame, 500)
        depth = truth.depth_m_hw(frame)[row, column]
        points = truth.world_T_cam_b44[frame, :3, 3] + depth[:, None] * directions
        assert truth.surface_distance_m(points[depth > 0]).max() < 1e-4


def test_surface_distance_is_that_to_the_nearest_of_many_points_on_the_surface():
    truth = clean_scan().truth
    cloud = truth.sample_surface(150_000, seen_only=False)
    assert truth.surface_distance_m(cloud).max() < 1e-9
    room = truth.room
    rng = np.random.default_rng(0)
    low, high = room.footprint_world_m_n2.min(0), room.footprint_world_m_n2.max(0)
    points = rng.uniform([*low, 0.05], [*high, room.ceiling_z_m - 0.05], (3000, 3))
    inside = wound_inside(points[:, :2], room.footprint_world_m_n2)
    free = inside & ~np.any([is_in_box(points, piece, 0.0) for piece in room.furniture], axis=0)
    exact, (nearest, _) = truth.surface_distance_m(points[free]), cKDTree(cloud).query(points[free])
    assert (exact <= nearest + 1e-9).all()
    assert np.quantile(nearest - exact, 0.99) < 0.02


def test_sampled_surface_was_seen():
    truth = clean_scan().truth
    points = truth.sample_surface(4000)
    assert points.shape == (4000, 3)
    assert truth.surface_distance_m(points).max() < 1e-9
    seen = np.zeros(len(points), bool)
    for frame, cam_T_world in enumerate(invert_pose(truth.world_T_cam_b44)):
        local = points @ cam_T_world[:3, :3].T + cam_T_world[:3, 3]
        pixel = local @ truth.K_depth_33.T
        column, row = np.rint(pixel[:, :2] / pixel[:, 2:]).astype(int).T
        in_view = (local[:, 2] > 0.2) & (column >= 0) & (row >= 0) & (column < 160) & (row < 120)
        depth = truth.depth_m_hw(frame)
        seen[in_view] |= np.abs(depth[row[in_view], column[in_view]] - local[in_view, 2]) < 0.05 * local[in_view, 2]
    assert seen.mean() > 0.99
    all_points = truth.sample_surface(4000, seen_only=False)
    # what nobody saw is there too: under the furniture, behind it
    unseen = truth.surface_distance_m(all_points) < 1e-9
    assert unseen.all()
    assert cKDTree(points).query(all_points)[0].max() > 0.3


def test_a_walk_that_sees_nothing_near_enough_says_so():
    with pytest.raises(ValueError, match=r"expected 100 points that 1 of 24 frames see; found 0\. Take more frames"):
        clean_scan().truth.sample_surface(100, range_m=(0.01, 0.02))


def test_taking_the_furniture_away_brings_nothing_nearer():
    truth = clean_scan().truth
    taken_away = 0
    for frame in range(24):
        full, empty = truth.depth_m_hw(frame), truth.depth_without_furniture_m_hw(frame)
        piece = truth.furniture_hw(frame)
        through_window = empty == 0
        assert (empty >= full)[~through_window].all()
        np.testing.assert_array_equal((empty != full) & ~through_window, (piece >= 0) & ~through_window)
        taken_away += ((piece >= 0) & (empty > full + 0.05)).sum()
    assert taken_away / (24 * 160 * 120) > 0.05
    frame = max(range(24), key=lambda i: (truth.furniture_hw(i) >= 0).mean())
    changed = (truth.rgb_hw3(frame) != truth.rgb_without_furniture_hw3(frame)).any(-1)
    assert changed[truth.furniture_hw(frame) >= 0].mean() > 0.9


def test_the_window_gives_no_depth_and_the_shut_door_does():
    room = room_of("rectangular", 1)
    truth = scan_room(room, SMALL).truth
    door, window = (room.opening_corners_world_m_43(each).mean(0) for each in room.openings)
    quarter = window + 0.25 * (room.opening_corners_world_m_43(room.openings[1])[2] - window)  # beside the frame's bars
    eye = np.array([*room.light.lamp_world_m_3[:2], 1.5])
    assert numpy_cast(truth, eye, (quarter - eye)[None])[0] == 0
    view = np.eye(4)
    view[:3, 3] = eye
    for target, has_depth in ((quarter, False), (door, True)):
        z = (target - eye) / np.linalg.norm(target - eye)
        x = np.cross(z, [0, 0, 1.0]) / np.linalg.norm(np.cross(z, [0, 0, 1.0]))
        view[:3, :3] = np.stack((x, np.cross(z, x), z), 1)
        view_K = np.array([[100, 0, 40], [0, 100, 30], [0, 0, 1.0]])
        middle = cast(truth.scene_without_furniture, view, view_K, (81, 61)).depth_m_hw[30, 40]
        assert (middle > 0) == has_depth
        if has_depth:  # its leaf stands 5 cm behind the wall's plane
            assert 0 < middle - np.linalg.norm(target - eye) < 0.3


@pytest.mark.parametrize(("shape", "seed"), ROOMS)
def test_the_walk_sees_every_wall_and_hits_nothing(shape, seed):
    truth = scan_room(room_of(shape, seed), CLEAN.but(frames=60, size_wh=(24, 18))).truth
    seen = set()
    for pose in truth.world_T_cam_b44:
        seen |= set(np.unique(cast(truth.scene, pose, truth.K_depth_33, (24, 18)).surface_hw))
    walls = len(truth.room.walls)
    assert set(range(walls + 2)) <= seen, "a wall, the floor or the ceiling was never looked at"
    eyes = truth.world_T_cam_b44[:, :3, 3]
    assert truth.surface_distance_m(eyes).min() > 0.1
    assert eyes[:, 2].min() > 1.38
    assert eyes[:, 2].max() < 1.62
    pitch = np.degrees(np.arcsin(truth.world_T_cam_b44[:, 2, 2]))
    assert pitch.min() < -30
    assert pitch.max() > 8


def test_the_walk_is_smooth_and_its_poses_are_rotations():
    truth = scan_room(room_of("l_shaped", 2), CLEAN.but(size_wh=(8, 6))).truth
    T = truth.world_T_cam_b44
    np.testing.assert_allclose((T[:, :3, :3] @ np.swapaxes(T[:, :3, :3], 1, 2)) - np.eye(3), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(T[:, :3, :3]), 1.0)
    assert np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1).max() < 0.25
    relative = np.swapaxes(T[:-1, :3, :3], 1, 2) @ T[1:, :3, :3]
    assert np.degrees(np.arccos((np.trace(relative, axis1=1, axis2=2) - 1) / 2)).max() < 15


# --- the scan -----------------------------------------------------------------------------------------------


def test_the_scan_keeps_the_contract():
    made_up = scan_room(room_of("oblique", 6), PHONE.but(frames=10, size_wh=(160, 120), depth_size_wh=(64, 48)))
    scan, recording = made_up.scan, made_up.scan.recording
    assert (scan.source_format, scan.device, scan.consent, scan.is_metric) == ("made-up", "made-up", "research", True)
    assert scan.down_scan_3 == pytest.approx((0, 0, -1))
    assert recording.rgb is not None
    assert recording.depth is not None
    assert recording.depth_confidence is not None
    assert scan.scan_T_cam_b44 is not None
    lengths = {len(recording), len(recording.rgb), len(recording.depth), len(recording.depth_confidence)}
    assert lengths | {len(scan.scan_T_cam_b44)} == {10}
    assert np.diff(recording.timestamp_s_b) == pytest.approx(0.2)
    assert np.isfinite(scan.scan_T_cam_b44).all()
    assert recording.rgb_hw3(3).shape == (120, 160, 3)
    assert recording.rgb_hw3(3).dtype == np.uint8
    assert recording.depth[3].dtype == np.uint16
    assert recording.depth_m_hw(3).shape == (48, 64)
    confidence = recording.depth_confidence[3]
    np.testing.assert_array_equal(confidence == 0, recording.depth[3] == 0)
    assert set(np.unique(confidence)) <= {0, 1, 2}
    # the same view at another resolution: the image's edges are at the same angles
    K_rgb, K_depth = recording.K_rgb_b33[0], recording.K_depth_b33[0]
    assert (-0.5 - K_rgb[0, 2]) / K_rgb[0, 0] == pytest.approx((-0.5 - K_depth[0, 2]) / K_depth[0, 0])
    assert np.degrees(2 * np.arctan(80 / K_rgb[0, 0])) == pytest.approx(62)


def test_a_clean_scan_is_exact_but_for_the_millimetre():
    scan, truth = clean_scan().scan, clean_scan().truth
    np.testing.assert_allclose(truth.world_T_scan_44 @ scan.scan_T_cam_b44, truth.world_T_cam_b44, atol=1e-12)
    for frame in (0, 9, 23):
        np.testing.assert_allclose(scan.recording.depth_m_hw(frame), truth.depth_m_hw(frame), atol=5.1e-4)


def test_the_device_starts_at_its_first_camera_with_any_heading():
    scans = [scan_room(room_of("rectangular", seed), SMALL) for seed in (1, 2)]
    for each in scans:
        np.testing.assert_allclose(each.scan.scan_T_cam_b44[0, :3, 3], 0, atol=1e-12)
        assert abs(each.truth.scan_T_world_44[2, 3]) > 1.3  # so the floor is not at 0
    assert np.abs(scans[0].truth.scan_T_world_44[:2, :2] - scans[1].truth.scan_T_world_44[:2, :2]).max() > 0.05
    turned = scan_room(room_of("rectangular", 1), SMALL.but(device_yaw_deg=30.0)).truth.scan_T_world_44
    assert np.degrees(np.arctan2(turned[1, 0], turned[0, 0])) == pytest.approx(30)


def test_to_world_undoes_what_the_pipeline_turned():
    truth = clean_scan().truth
    points = truth.sample_surface(50)
    in_scan = points @ truth.scan_T_world_44[:3, :3].T + truth.scan_T_world_44[:3, 3]
    np.testing.assert_allclose(truth.to_world(in_scan), points, atol=1e-12)
    pipeline = np.eye(4)
    pipeline[:3, :3] = rotation_about(np.array([0.6, 0.8, 0.0]), 0.1)
    np.testing.assert_allclose(truth.to_world(in_scan @ pipeline[:3, :3].T, pipeline), points, atol=1e-12)


def test_the_same_seed_gives_the_same_bytes_on_any_number_of_threads(monkeypatch):
    import numba

    options = PHONE.but(frames=8, size_wh=(80, 60), blur=0.3, seed=5)

    def all_bytes(options):
        scan = scan_room(make_room(9), options).scan
        columns = (scan.recording.rgb, scan.recording.depth, scan.recording.depth_confidence)
        images = [each.encoded(i) for each in columns for i in range(8)]
        return b"".join(images) + scan.scan_T_cam_b44.tobytes()

    first = all_bytes(options)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 1)
    assert all_bytes(options) == first
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 7)
    assert all_bytes(options) == first
    assert all_bytes(options.but(seed=6)) != first


# --- options ------------------------------------------------------------------------------------------------


def test_depth_noise_has_the_sigma_that_was_asked_for_and_is_partly_smooth():
    made_up = scan_room(room_of("rectangular", 3), CLEAN.but(frames=8, size_wh=(160, 120), depth_noise=0.004))
    noise, right = [], []
    for frame in range(8):
        true = made_up.truth.depth_m_hw(frame)
        relative = np.where(true > 0, made_up.scan.recording.depth_m_hw(frame) / np.maximum(true, 0.1) - 1, np.nan)
        noise.append(relative[:, :-1].ravel())
        right.append(relative[:, 1:].ravel())
    a, b = np.concatenate(noise), np.concatenate(right)
    known = np.isfinite(a) & np.isfinite(b)
    assert 0.0038 < a[known].std() < 0.0042
    assert abs(a[known].mean()) < 0.0003
    assert 0.28 < np.corrcoef(a[known], b[known])[0, 1] < 0.42  # 0.6^2 of the variance is smooth


def test_holes_are_where_surfaces_are_glancing_dark_or_far():
    room = room_of("l_shaped", 3)
    holes, expected, safe = [], [], []
    made_up = scan_room(room, CLEAN.but(frames=16, size_wh=(160, 120), holes=0.8))
    for frame in range(16):
        met = cast(made_up.truth.scene, made_up.truth.world_T_cam_b44[frame], made_up.truth.K_depth_33, (160, 120))
        missing = made_up.scan.recording.depth_m_hw(frame) == 0
        visible = met.depth_m_hw > 0
        holes.append(missing[visible])
        expected.append(((met.cosine_hw < 0.17) | (met.depth_m_hw > 5))[visible])
        bright = minimum_filter(made_up.truth.rgb_hw3(frame).min(-1), 3) > 90  # away from the edges of dark things
        safe.append(((met.cosine_hw > 0.27) & (met.depth_m_hw < 5) & bright)[visible])
    holes, expected, safe = (np.concatenate(each) for each in (holes, expected, safe))
    assert 0.7 < holes[expected].mean() < 0.9
    assert holes[safe].mean() < 1e-4  # rims of dark things, narrower than a pixel
    assert 0.005 < holes.mean() < 0.25
    nothing_missing = scan_room(room, CLEAN.but(frames=4, size_wh=(160, 120)))
    for frame in range(4):
        true = nothing_missing.truth.depth_m_hw(frame)
        np.testing.assert_array_equal(nothing_missing.scan.recording.depth_m_hw(frame) == 0, true == 0)


def test_flying_pixels_float_between_surfaces_at_edges_only():
    made_up = scan_room(room_of("l_shaped", 3), CLEAN.but(frames=8, size_wh=(160, 120), flying_pixels=0.5))
    share = []
    for frame in range(8):
        true, measured = made_up.truth.depth_m_hw(frame), made_up.scan.recording.depth_m_hw(frame)
        flies = np.abs(measured - true) > 0.001
        share.append(flies.mean())
        assert (made_up.scan.recording.depth_confidence[frame][flies] == 1).all()
        rows, columns = np.nonzero(flies)
        for row, column in zip(rows[:50], columns[:50], strict=True):
            around = true[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            assert around.min() < measured[row, column] < around.max()
    assert 0.002 < np.mean(share) < 0.1


def position_error_m(made_up: MadeUpScan) -> np.ndarray:
    believed = made_up.truth.world_T_scan_44 @ made_up.scan.scan_T_cam_b44
    return np.linalg.norm(believed[:, :3, 3] - made_up.truth.world_T_cam_b44[:, :3, 3], axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_drift_ends_at_its_fraction_of_the_path_and_grows_smoothly(seed):
    made_up = scan_room(room_of("rectangular", seed), CLEAN.but(frames=80, size_wh=(8, 6), pose_drift=0.01))
    steps = np.linalg.norm(np.diff(made_up.truth.world_T_cam_b44[:, :3, 3], axis=0), axis=1)
    error = position_error_m(made_up)
    assert error[0] < 1e-12
    assert error[-1] == pytest.approx(0.01 * steps.sum(), rel=1e-6)
    assert error.max() < 3 * error[-1]
    assert np.abs(np.diff(error)).max() < 0.05 * steps.max()
    relative = made_up.truth.world_T_scan_44[:3, :3] @ made_up.scan.scan_T_cam_b44[-1, :3, :3]
    turn = relative @ made_up.truth.world_T_cam_b44[-1, :3, :3].T
    angle = np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))
    assert angle == pytest.approx(0.1 * error[-1], rel=1e-3)


def test_pose_noise_and_jump_have_the_size_that_was_asked_for():
    noisy = scan_room(room_of("rectangular", 1), CLEAN.but(frames=150, size_wh=(8, 6), pose_noise_m=0.002))
    assert 0.0018 < np.sqrt((position_error_m(noisy) ** 2).mean() / 3) < 0.0022
    jumped = position_error_m(scan_room(room_of("rectangular", 1), SMALL.but(jump=(5, 0.25))))
    np.testing.assert_allclose(jumped[:5], 0, atol=1e-12)
    np.testing.assert_allclose(jumped[5:], 0.25, atol=1e-12)
    with pytest.raises(ValidationError, match="expected a frame from 1 to 11; got 12"):
        SMALL.but(jump=(12, 0.25))


def angle_deg(a, b) -> float:
    return float(np.degrees(np.arccos(np.clip(np.dot(a, b), -1, 1))))


def test_gravity_may_be_wrong_and_the_device_world_may_lean():
    room, up_world = room_of("rectangular", 1), np.array([0.0, 0.0, 1.0])
    for error_deg, tilt_deg in ((0, 0), (3, 0), (0, 20), (3, 20)):
        made_up = scan_room(room, SMALL.but(gravity_error_deg=error_deg, world_tilt_deg=tilt_deg, frames=2))
        true_down = made_up.truth.scan_T_world_44[:3, :3] @ -up_world
        assert angle_deg(made_up.scan.down_scan_3, true_down) == pytest.approx(error_deg, abs=1e-4)
        assert angle_deg(made_up.scan.down_scan_3, -up_world) == pytest.approx(tilt_deg, abs=1e-4)
    assert scan_room(room, SMALL.but(gravity_known=False, frames=2)).scan.down_scan_3 is None


def test_blur_takes_sharpness_from_as_many_frames_as_asked_and_exposure_changes_brightness():
    import cv2

    room = room_of("l_shaped", 3)
    options = CLEAN.but(frames=20, size_wh=(160, 120))
    sharp, blurred = scan_room(room, options), scan_room(room, options.but(blur=0.25))
    assert blurred.truth.is_blurred_b.sum() == 5

    def detail(made_up, i):
        return cv2.Laplacian(made_up.scan.recording.rgb_hw3(i).astype(np.float32).mean(-1), cv2.CV_32F).std()

    for i in range(20):
        ratio = detail(blurred, i) / detail(sharp, i)
        assert ratio < 0.7 if blurred.truth.is_blurred_b[i] else ratio == 1
    wandering = scan_room(room, options.but(exposure_stops=0.5))
    change = [wandering.scan.recording.rgb_hw3(i).mean() / sharp.scan.recording.rgb_hw3(i).mean() for i in range(20)]
    assert 0.7 < min(change) < 0.95
    assert 1.05 < max(change) < 1.4


def test_pictures_are_neither_black_nor_burnt_and_have_texture():
    import cv2

    for shape in SHAPES:
        means = [clean_scan(shape).scan.recording.rgb_hw3(i) for i in range(0, 24, 3)]
        brightness = np.array([image.mean() for image in means])
        assert 60 < brightness.mean() < 200
        assert np.mean([(image > 250).mean() for image in means]) < 0.2
        detector = cv2.FastFeatureDetector.create(10)
        assert np.median([len(detector.detect(image)) for image in means]) > 30


def test_an_unknown_option_is_refused():
    with pytest.raises(ValidationError, match="deph_noise"):
        CLEAN.but(deph_noise=0.1)
