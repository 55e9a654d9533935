"""Fusion, extraction, cleaning and decimation against surfaces that are known exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geomagic_dagster.cv import mesh_surface
from geomagic_dagster.cv.containers import EncodedImages, encode_png
from geomagic_dagster.cv.mesh import MeshParams, fuse, measure_mesh, mesh
from geomagic_dagster.cv.mesh_surface import Surface, decimated, extract, finish, without_small_pieces
from geomagic_dagster.cv.stage import ScanRejected, use_compute_device
from geomagic_dagster.cv.tsdf import BLOCK, FULL_WEIGHT, MAX_FRAMES, QUANTA, BlockVolume
from geomagic_dagster.cv.types import DepthMaps, Frames, Mesh, Poses, Recording

F64 = NDArray[np.float64]
Scene = Callable[[F64, F64], F64]
"""Origins (3,) and directions (n, 3) to the factor t (n,) at which a ray meets the scene first; inf where never."""

VOXEL_M = 0.02
WIDTH, HEIGHT = 160, 120
K_33 = np.array([[130.0, 0, 79.5], [0, 130.0, 59.5], [0, 0, 1]])


@pytest.fixture(autouse=True)
def _on_the_cpu():
    use_compute_device("cpu")
    yield
    use_compute_device(None)


# --- a world that is known exactly ------------------------------------------------------------------------------


def sphere(centre_3: tuple[float, float, float], radius_m: float) -> Scene:
    def hit(origin_3: F64, direction_n3: F64) -> F64:
        offset_3 = origin_3 - np.array(centre_3)
        a = (direction_n3**2).sum(1)
        b = direction_n3 @ offset_3
        root = b**2 - a * (offset_3 @ offset_3 - radius_m**2)
        t = (-b - np.sqrt(np.maximum(root, 0))) / a
        return np.where((root >= 0) & (t > 0), t, np.inf)

    return hit


def plane(normal_3: F64, offset_m: float) -> Scene:
    def hit(origin_3: F64, direction_n3: F64) -> F64:
        with np.errstate(divide="ignore"):
            t = (offset_m - origin_3 @ normal_3) / (direction_n3 @ normal_3)
        return np.where(t > 0, t, np.inf)

    return hit


def box(low_3: F64, high_3: F64, *, from_inside: bool = False) -> Scene:
    def hit(origin_3: F64, direction_n3: F64) -> F64:
        with np.errstate(divide="ignore"):
            t0, t1 = (low_3 - origin_3) / direction_n3, (high_3 - origin_3) / direction_n3
        enter, leave = np.minimum(t0, t1).max(1), np.maximum(t0, t1).min(1)
        if from_inside:
            return leave
        return np.where((enter < leave) & (enter > 0), enter, np.inf)

    return hit


def together(*scenes: Scene) -> Scene:
    return lambda origin_3, direction_n3: np.min([scene(origin_3, direction_n3) for scene in scenes], axis=0)


def looking(from_3: tuple[float, ...] | F64, at_3: tuple[float, ...] | F64) -> F64:
    """world_T_cam (4, 4) of a camera, upright as far as it can be."""
    origin_3 = np.asarray(from_3, float)
    forward_3 = np.asarray(at_3, float) - origin_3
    forward_3 /= np.linalg.norm(forward_3)
    up_3 = np.array([0, 0, 1.0]) if abs(forward_3[2]) < 0.99 else np.array([0, 1.0, 0])
    right_3 = np.cross(forward_3, up_3)
    right_3 /= np.linalg.norm(right_3)
    world_T_cam_44 = np.eye(4)
    world_T_cam_44[:3] = np.stack([right_3, np.cross(forward_3, right_3), forward_3, origin_3], axis=1)
    return world_T_cam_44


def directions(count: int) -> F64:
    """Spread evenly over the sphere (n, 3): a Fibonacci lattice."""
    i = np.arange(count) + 0.5
    z, turn = 1 - 2 * i / count, np.pi * (1 + 5**0.5) * i
    return np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=-1)


def depth_seen(scene: Scene, world_T_cam_44: F64, far_m: float = 8.0) -> NDArray[np.float32]:
    x_hw, y_hw = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    ray_hw3 = np.stack([(x_hw - K_33[0, 2]) / K_33[0, 0], (y_hw - K_33[1, 2]) / K_33[1, 1], np.ones_like(x_hw)], -1)
    t = scene(world_T_cam_44[:3, 3], ray_hw3.reshape(-1, 3) @ world_T_cam_44[:3, :3].T)  # z is 1 along each ray
    return np.where(t < far_m, t, 0).reshape(HEIGHT, WIDTH).astype(np.float32)


Walk = tuple[Frames, Poses, DepthMaps]


def walk(
    depth_m_bhw: NDArray[np.float32] | list[NDArray[np.float32]],
    world_T_cam_b44: list[F64] | F64,
    rgb_b: list[NDArray[np.uint8]] | None = None,
    K_rgb_33: F64 = K_33,
) -> Walk:
    count = len(depth_m_bhw)
    depth_m_bhw = np.asarray(depth_m_bhw)
    recording = Recording(
        rgb=None if rgb_b is None else EncodedImages(encode_png(rgb_hw3) for rgb_hw3 in rgb_b),
        depth=None,
        depth_confidence=None,
        timestamp_s_b=np.arange(count) / 30,
        K_rgb_b33=None if rgb_b is None else np.repeat(K_rgb_33[None], count, 0),
        K_depth_b33=np.repeat(K_33[None], count, 0),
    )
    return (
        Frames(recording, np.arange(count), np.ones(count), np.ones(count), ()),
        Poses(
            world_T_cam_b44=np.asarray(world_T_cam_b44),
            world_T_scan_44=np.eye(4),
            is_used_b=np.ones(count, np.bool_),
            disagreement_m_b=np.zeros(count),
            gravity_from="device",
            floor_z_world_m=None,
            floor_tilt_deg=None,
            cuts=(),
        ),
        DepthMaps(depth_m_bhw, np.where(depth_m_bhw > 0, 255, 0).astype(np.uint8), np.repeat(K_33[None], count, 0)),
    )


def walk_through(scene: Scene, poses: list[F64], **images: object) -> Walk:
    return walk([depth_seen(scene, pose) for pose in poses], poses, **images)  # type: ignore[arg-type]


def around(centre_3: tuple[float, float, float], distance_m: float, count: int = 20) -> list[F64]:
    return [looking(np.array(centre_3) + distance_m * d, centre_3) for d in directions(count)]


def inside(size_m: float, count: int = 16) -> list[F64]:
    """A turn in the middle of a room with its floor at z = 0, looking level, up and down."""
    middle_3 = np.array([0.1, -0.1, 1.4])
    return [looking(middle_3, middle_3 + d) for d in directions(count)]


def room(size_m: float, height_m: float = 2.8) -> Scene:
    return box(np.array([-size_m / 2, -size_m / 2, 0]), np.array([size_m / 2, size_m / 2, height_m]), from_inside=True)


def room_distance_m(points_n3: F64, size_m: float, height_m: float = 2.8) -> F64:
    to_walls = np.abs(np.abs(points_n3[:, :2]) - size_m / 2)
    to_floor = np.abs(points_n3[:, 2:] - np.array([0, height_m]))
    return np.hstack([to_walls, to_floor]).min(1)


SPHERE = sphere((0.0, 0.0, 0.0), 0.5)  # its centre is a corner of eight chunks


@pytest.fixture(scope="module")
def sphere_walk() -> Walk:
    return walk_through(SPHERE, around((0, 0, 0), 1.5))


def same_mesh(a: Mesh, b: Mesh) -> bool:
    return all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes()
        for name in ("vertices_world_m_v3", "triangles_f3", "rgb_v3", "normals_world_v3")
    )


def centres_and_normals(result: Mesh) -> tuple[F64, F64]:
    a, b, c = (result.vertices_world_m_v3[result.triangles_f3[:, i]].astype(float) for i in range(3))
    cross = np.cross(b - a, c - a)
    return (a + b + c) / 3, cross / np.linalg.norm(cross, axis=1, keepdims=True)


# --- is the surface right? --------------------------------------------------------------------------------------


def test_a_sphere_is_closed_and_true_to_a_fraction_of_a_voxel(sphere_walk: Walk) -> None:
    result = mesh(*sphere_walk)
    error_m = np.abs(np.linalg.norm(result.vertices_world_m_v3, axis=1) - 0.5)
    assert 0 < error_m.mean() <= 0.25 * VOXEL_M
    assert error_m.max() <= 1.0 * VOXEL_M
    numbers = measure_mesh(result)
    edges = numbers["triangles"] * 3 / 2
    assert numbers["vertices"] - edges + numbers["triangles"] == 2  # Euler: one closed surface without handles
    assert (numbers["open_edges"], numbers["non_manifold_edges"], numbers["pieces"]) == (0, 0, 1)
    assert numbers["area_m2"] == pytest.approx(np.pi, rel=0.02)


def test_triangles_and_normals_look_towards_the_camera(sphere_walk: Walk) -> None:
    result = mesh(*sphere_walk)
    centre_f3, normal_f3 = centres_and_normals(result)
    assert ((centre_f3 * normal_f3).sum(1) > 0).all()
    outward_v3 = result.vertices_world_m_v3 / np.linalg.norm(result.vertices_world_m_v3, axis=1, keepdims=True)
    facing_v = (outward_v3 * result.normals_world_v3).sum(1)
    assert facing_v.min() > 0.85 and 0.99 < facing_v.mean() < 1
    np.testing.assert_allclose(np.linalg.norm(result.normals_world_v3, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("tilt", [0.0, 0.3, 1.0])
def test_a_plane_is_true_to_a_fraction_of_a_voxel(tilt: float) -> None:
    normal_3 = np.array([np.cos(tilt), np.sin(tilt) * 0.6, np.sin(tilt) * 0.8])
    poses = [looking(-1.5 * normal_3 + np.array([0, 0.1 * i, 0.05 * i]), (0.0, 0.0, 0.0)) for i in range(6)]
    result = mesh(*walk_through(plane(normal_3, 0.0), poses))
    error_m = np.abs(result.vertices_world_m_v3 @ normal_3)
    assert 0 < error_m.mean() <= 0.25 * VOXEL_M
    _, normal_f3 = centres_and_normals(result)
    assert (normal_f3 @ -normal_3 > 0.5).mean() > 0.999


def test_noise_averages_out() -> None:
    random = np.random.default_rng(7)
    pose = looking((-1.5, 0, 0), (0, 0, 0))
    clean = depth_seen(plane(np.array([1.0, 0, 0]), 0.0), pose)
    errors = []
    for count in (1, 64):
        noisy = [(clean + random.normal(0, 0.01, clean.shape)).astype(np.float32) for _ in range(count)]
        errors.append(np.abs(mesh(*walk(noisy, [pose] * count)).vertices_world_m_v3[:, 0]).mean())
    assert 0 < errors[1] < errors[0] / 3


def test_both_faces_of_a_thin_board_stay_apart() -> None:
    thickness_m = 0.05
    board = box(np.array([-0.4, -0.4, 0.5]), np.array([0.4, 0.4, 0.5 + thickness_m]))
    result = mesh(*walk_through(board, around((0, 0, 0.5), 1.2, 24)))
    points = result.vertices_world_m_v3[(np.abs(result.vertices_world_m_v3[:, :2]) < 0.3).all(1)]
    top = points[result.normals_world_v3[(np.abs(result.vertices_world_m_v3[:, :2]) < 0.3).all(1), 2] > 0.7, 2]
    bottom = points[result.normals_world_v3[(np.abs(result.vertices_world_m_v3[:, :2]) < 0.3).all(1), 2] < -0.7, 2]
    assert np.median(top) - np.median(bottom) == pytest.approx(thickness_m, abs=0.012)
    assert len(top) > 100 and len(bottom) > 100


def test_a_room_is_complete_inside_the_walls() -> None:
    result = mesh(*walk_through(room(3.0), inside(3.0, 40)))
    error_m = room_distance_m(result.vertices_world_m_v3.astype(float), 3.0)
    assert 0 < error_m.mean() <= 0.25 * VOXEL_M
    truth_m2 = 2 * 9 + 4 * 3 * 2.8
    assert 0.93 * truth_m2 <= measure_mesh(result)["area_m2"] <= 1.01 * truth_m2


# --- the same bytes, whatever the order, the threads, the kernel ------------------------------------------------


def test_frames_in_any_order_give_the_same_bytes(sphere_walk: Walk) -> None:
    frames, poses, depth = sphere_walk
    order = np.random.default_rng(3).permutation(len(frames.recording))
    shuffled = (
        replace(frames, recording=frames.recording.select(order)),
        replace(poses, world_T_cam_b44=poses.world_T_cam_b44[order]),
        DepthMaps(depth.depth_m_bhw[order], depth.confidence_255_bhw[order], depth.K_b33),
    )
    few = MeshParams(triangles=5_000)  # decimation included
    assert same_mesh(mesh(*sphere_walk, few), mesh(*shuffled, few))


def test_one_thread_and_two_give_the_same_bytes(sphere_walk: Walk) -> None:
    import numba

    threads = numba.get_num_threads()
    results = []
    try:
        for count in (1, min(2, numba.config.NUMBA_NUM_THREADS)):  # type: ignore[attr-defined]
            numba.set_num_threads(count)
            results.append(mesh(*sphere_walk))
    finally:
        numba.set_num_threads(threads)
    assert same_mesh(*results)


def sums(volume: BlockVolume) -> tuple[NDArray[np.int32], ...]:
    """Blocks in ascending order, and the integer sums of each."""
    coords_n3 = volume.coords_n3()
    slots = volume.find(coords_n3)
    colours = volume.rgb_weight_n4v.numpy()
    return coords_n3, volume.sdf_weight_n2v.numpy()[slots], colours[slots] if volume.has_colour else colours


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), has_colour=st.booleans(), far_m=st.floats(0.3, 12.0))
def test_torch_and_numba_add_up_the_same(seed: int, has_colour: bool, far_m: float) -> None:
    random = np.random.default_rng(seed)
    pose_b44 = [looking(random.uniform(-3, 3, 3), random.uniform(-3, 3, 3)) for _ in range(3)]
    depth_m_bhw = random.uniform(0.01, far_m, (3, 1, 1)) + random.normal(0, 0.05, (3, HEIGHT, WIDTH))
    depth_m_bhw *= random.random(depth_m_bhw.shape) > 0.2
    rgb_b = list(random.integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)) if has_colour else None
    frames, poses, depth = walk(np.maximum(depth_m_bhw, 0).astype(np.float32), pose_b44, rgb_b)
    trust = random.integers(0, 256, depth.depth_m_bhw.shape, dtype=np.uint8) * (depth.depth_m_bhw > 0)
    data = (frames, poses, replace(depth, confidence_255_bhw=trust.astype(np.uint8)))
    of_torch, of_numba = (sums(fuse(*data, MeshParams(kernel=kernel))) for kernel in ("torch", "numba"))
    assert len(of_torch[0]) > 0
    for mine, theirs in zip(of_torch, of_numba, strict=True):
        assert mine.tobytes() == theirs.tobytes()


def test_sums_of_many_frames_are_multiples_and_never_wrap(sphere_walk: Walk) -> None:
    frames, poses, depth = sphere_walk
    index = np.zeros(50, np.int64)
    one, many = (
        sums(
            fuse(
                replace(frames, recording=frames.recording.select(chosen), scan_frame_b=chosen),
                replace(poses, world_T_cam_b44=poses.world_T_cam_b44[chosen], is_used_b=np.ones(len(chosen), np.bool_)),
                DepthMaps(depth.depth_m_bhw[chosen], depth.confidence_255_bhw[chosen], depth.K_b33[chosen]),
            )
        )[1]
        for chosen in (index[:1], index)
    )
    assert (many == 50 * one).all()
    assert np.abs(one[:, 0]).max() <= FULL_WEIGHT * QUANTA
    assert one[:, 1].max() <= FULL_WEIGHT
    assert MAX_FRAMES >= 10_000
    assert np.iinfo(np.int32).max >= MAX_FRAMES * FULL_WEIGHT * QUANTA
    assert np.iinfo(np.int32).max >= MAX_FRAMES * FULL_WEIGHT * 255


# --- sparse, without seams --------------------------------------------------------------------------------------


def test_chunks_give_exactly_what_one_dense_volume_gives() -> None:
    import torch
    from scipy.spatial import KDTree
    from skimage.measure import marching_cubes

    random = np.random.default_rng(11)
    blocks = 2 * mesh_surface.CHUNK  # two chunks along each axis, the origin in the middle
    size = blocks * BLOCK
    axis = np.linspace(-3, 3, size)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    field = np.sin(2.1 * x) * np.cos(1.7 * y) + np.sin(2.3 * z) * np.cos(x) + 0.2 * random.standard_normal(x.shape)
    quantum = np.clip(np.rint(field * 400), -QUANTA + 1, QUANTA).astype(np.int32)
    weight = random.integers(1, 20, quantum.shape).astype(np.int32)
    weight[random.random(quantum.shape) < 0.001] = 0

    volume = BlockVolume(VOXEL_M, 4.0, False, torch.device("cpu"))
    coords_m3 = np.stack(np.unravel_index(np.arange(blocks**3), (blocks,) * 3), -1).astype(np.int32) - blocks // 2
    slots = volume.find_or_add(coords_m3, "test")
    by_block = (blocks, BLOCK) * 3
    for channel, dense in enumerate((quantum * weight, weight)):
        cells = dense.reshape(by_block).transpose(0, 2, 4, 1, 3, 5).reshape(-1, BLOCK**3)
        volume.sdf_weight_n2v[torch.from_numpy(slots), channel] = torch.from_numpy(cells)
    ours = extract(volume, seen_weight=1)

    sdf = (2 * quantum.astype(np.int64) * weight + 1) / (2 * QUANTA * np.maximum(weight, 1))
    sdf = (np.sign(sdf) * np.maximum(np.abs(sdf), 1 / QUANTA)).astype(np.float32)
    vertices, triangles, _, _ = marching_cubes(
        sdf, 0.0, mask=mesh_surface._cells_to_march(sdf, weight > 0), gradient_direction="descent"
    )
    assert len(triangles) > 50_000
    assert len(ours.triangles_f3) == len(triangles)
    assert len(ours.vertices_voxels_v3) == len(np.unique(triangles))
    from_ours_m, nearest = KDTree(vertices[np.unique(triangles)]).query(ours.vertices_voxels_v3 + size // 2)
    assert from_ours_m.max() < 1e-4
    assert len(np.unique(nearest)) == len(ours.vertices_voxels_v3)


def test_blocks_grow_with_the_surface_not_with_the_volume() -> None:
    counts = []
    for size_m in (2.0, 4.0):
        scene = box(np.full(3, -size_m / 2), np.full(3, size_m / 2), from_inside=True)
        data = walk_through(scene, [looking((0.03, 0.02, 0.01), d) for d in directions(30)])
        counts.append(len(fuse(*data, MeshParams(voxel_m=0.02))))
    assert 3.3 <= counts[1] / counts[0] <= 4.7  # 4 times the area, 8 times the volume


# --- colour -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 3])
def test_colours_lie_where_they_were_seen(scale: int) -> None:
    """Left red, right blue; the image may be larger than the depth map."""
    pose = looking((-1.5, 0, 0), (0, 0, 0))
    K_rgb_33 = K_33.copy()
    K_rgb_33[:2] *= scale
    K_rgb_33[:2, 2] += (scale - 1) / 2
    rgb_hw3 = np.zeros((HEIGHT * scale, WIDTH * scale, 3), np.uint8)
    rgb_hw3[:, : WIDTH * scale // 2] = (200, 10, 10)
    rgb_hw3[:, WIDTH * scale // 2 :] = (10, 10, 200)
    depth_hw = depth_seen(plane(np.array([1.0, 0, 0]), 0.0), pose)
    result = mesh(*walk([depth_hw] * 3, [pose] * 3, [rgb_hw3] * 3, K_rgb_33))
    y_m = result.vertices_world_m_v3[:, 1]  # the camera looks along x: left is +y
    left, right = result.rgb_v3[y_m > 1.5 * VOXEL_M].astype(int), result.rgb_v3[y_m < -1.5 * VOXEL_M].astype(int)
    assert len(left) > 100 and len(right) > 100
    assert np.abs(left - (200, 10, 10)).max() <= 1
    assert np.abs(right - (10, 10, 200)).max() <= 1


def test_the_background_does_not_colour_what_stands_before_it() -> None:
    scene = together(sphere((0, 0, 0), 0.3), plane(np.array([1.0, 0, 0]), 1.5))
    poses = [looking((-1.5, y, z), (0, 0, 0)) for y in (-0.3, 0.0, 0.3) for z in (-0.3, 0.0, 0.3)]
    depth_b = [depth_seen(scene, pose) for pose in poses]
    rgb_b = []
    for pose, depth_hw in zip(poses, depth_b, strict=True):
        is_sphere_hw = depth_hw == depth_seen(sphere((0, 0, 0), 0.3), pose)
        rgb_b.append(np.where(is_sphere_hw[..., None], (220, 30, 30), (30, 30, 220)).astype(np.uint8))
    result = mesh(*walk(depth_b, poses, rgb_b))
    on_sphere = np.linalg.norm(result.vertices_world_m_v3, axis=1) < 0.32
    assert on_sphere.sum() > 500
    assert (result.rgb_v3[on_sphere, 0] > 200).mean() > 0.97


def test_a_scan_without_colour_is_grey(sphere_walk: Walk) -> None:
    assert (mesh(*sphere_walk).rgb_v3 == 128).all()


# --- cleaning and decimation ------------------------------------------------------------------------------------


def test_floaters_are_removed_and_the_rest_is_kept() -> None:
    floater = sphere((0.0, 0.0, 1.0), 0.05)  # 0.03 m²
    poses = around((0, 0, 0), 1.8, 24)
    with_floater = walk_through(together(SPHERE, floater), poses)
    kept, cleaned = (mesh(*with_floater, MeshParams(min_piece_m2=m2)) for m2 in (0.0, 0.05))
    assert measure_mesh(kept)["pieces"] >= 2
    assert measure_mesh(cleaned)["pieces"] == 1
    assert measure_mesh(cleaned)["area_m2"] == pytest.approx(np.pi, rel=0.02)


def test_decimation_keeps_the_budget_and_the_surface() -> None:
    from scipy.spatial import KDTree

    data = walk_through(together(room(3.0), sphere((0.6, 0.6, 0.6), 0.4)), inside(3.0, 40))
    full = without_small_pieces(extract(fuse(*data), 4), 0.05)
    budget = 8_000
    assert len(full.triangles_f3) > 5 * budget
    small = decimated(full, budget)
    assert 0.95 * budget <= len(small.triangles_f3) <= budget

    full_mesh, small_mesh = finish(full), finish(small)
    centre_f3, normal_f3 = centres_and_normals(small_mesh)
    distance_m, nearest = KDTree(full_mesh.vertices_world_m_v3).query(centre_f3)
    assert distance_m.mean() < VOXEL_M  # to the nearest vertex, half a voxel away on average already
    assert ((normal_f3 * full_mesh.normals_world_v3[nearest]).sum(1) > 0).mean() > 0.995
    numbers, before = measure_mesh(small_mesh), measure_mesh(full_mesh)
    assert numbers["non_manifold_edges"] == 0
    assert numbers["area_m2"] == pytest.approx(before["area_m2"], rel=0.03)
    assert numbers["extent_max_m"] == pytest.approx(before["extent_max_m"], abs=VOXEL_M)
    on_wall = room_distance_m(small_mesh.vertices_world_m_v3.astype(float), 3.0) < 2 * VOXEL_M
    assert room_distance_m(small_mesh.vertices_world_m_v3[on_wall].astype(float), 3.0).mean() <= 0.25 * VOXEL_M


def test_every_vertex_is_used_and_every_triangle_has_area() -> None:
    result = mesh(*walk_through(room(3.0), inside(3.0, 40)), MeshParams(triangles=5_000))
    assert len(np.unique(result.triangles_f3)) == len(result.vertices_world_m_v3)
    a, b, c = (result.vertices_world_m_v3[result.triangles_f3[:, i]].astype(float) for i in range(3))
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).min() > 0
    assert np.isfinite(result.normals_world_v3).all()


def test_triangles_folded_onto_each_other_go() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1.0]]) / VOXEL_M
    triangles = np.array([[0, 1, 2], [1, 3, 2], [0, 1, 4], [1, 0, 4]])  # the last two back to back at one edge
    surface = Surface(vertices, np.zeros((5, 3), np.uint8), triangles, VOXEL_M)
    assert mesh_surface._without_folds(surface).triangles_f3.tolist() == [[0, 1, 2], [1, 3, 2]]


def test_of_three_triangles_at_an_edge_the_smallest_goes() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 0.1]]) / VOXEL_M
    triangles = np.array([[0, 1, 4], [0, 1, 2], [1, 0, 3]])
    surface = Surface(vertices, np.zeros((5, 3), np.uint8), triangles, VOXEL_M)
    assert mesh_surface._without_folds(surface).triangles_f3.tolist() == [[0, 1, 2], [1, 0, 3]]


# --- scans that can never become a mesh -------------------------------------------------------------------------


def empty() -> Walk:
    return walk([np.zeros((HEIGHT, WIDTH), np.float32)] * 2, [np.eye(4)] * 2)


def in_millimetres() -> Walk:
    return walk([np.full((HEIGHT, WIDTH), 2500, np.float32)] * 2, [np.eye(4)] * 2)


def too_far_to_trust() -> Walk:
    return walk([np.full((HEIGHT, WIDTH), 7.0, np.float32)], [np.eye(4)])


def in_micrometres_of_a_room() -> Walk:
    return walk([np.full((HEIGHT, WIDTH), 0.0025, np.float32)] * 2, [np.eye(4)] * 2)


def in_map_coordinates() -> Walk:
    pose = looking((0, 0, 0), (1, 0, 0))
    pose[:3, 3] = (500_000.0, 5_400_000.0, 300.0)
    return walk([np.full((HEIGHT, WIDTH), 2.0, np.float32)], [pose])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            empty,
            r"mesh: expected depth in at least one frame whose pose is used; got none in 2 used frames of 2\. Scan",
        ),
        (in_millimetres, r"mesh: frame 0: expected depth of a room in metres, at most 50; got 2500\.0\. .* unit"),
        (
            in_map_coordinates,
            r"mesh: frame 0: expected a surface that fits .*; got more, over 500\d\d\d x 5400\d\d\d x",
        ),
        (too_far_to_trust, r"mesh: expected a surface of at least 0\.05 m² .*; got none after 1 frames .* Walk slowly"),
        (in_micrometres_of_a_room, r"mesh: expected a surface of at least 0\.05 m²"),
    ],
)
def test_a_hopeless_scan_is_rejected_in_plain_words(data: Callable[[], Walk], words: str) -> None:
    with pytest.raises(ScanRejected, match=words):
        mesh(*data())


def test_too_large_a_place_is_rejected_before_memory_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomagic_dagster.cv.tsdf.MAX_BLOCKS", 500)
    words = (
        r"mesh: frame \d+: expected a surface that fits 500 blocks of 16 cm.*2\.0 cm.*; got more, over 4 x .* voxel_m"
    )
    with pytest.raises(ScanRejected, match=words):
        mesh(*walk_through(room(4.0), inside(4.0)))


def test_more_frames_than_the_sums_hold_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomagic_dagster.cv.mesh.MAX_FRAMES", 1)
    with pytest.raises(ScanRejected, match="expected at most 1 frames, which the integer sums are made for; got 2"):
        mesh(*empty())
