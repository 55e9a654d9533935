"""Poses: the drift of a walk is gone, nothing that was right gets worse, what nobody can know stays with the device.

Errors are literal: in the first frame's world, nothing is laid over the truth first.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
from evo.core import metrics
from evo.core.trajectory import PosePath3D
from hypothesis import given, settings
from hypothesis import strategies as st

from geomagic_dagster.cv.camera import invert_pose
from geomagic_dagster.cv.containers import EncodedImages, encode_png
from geomagic_dagster.cv.frames import frames
from geomagic_dagster.cv.odometry import odometry
from geomagic_dagster.cv.poses import measure_poses, poses, preview_poses
from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.cv.surfels import surfels_of
from geomagic_dagster.cv.types import Frames, Poses, Recording
from geomagic_dagster.guardrails.execution import numbers_out_of_range
from geomagic_dagster.scans.made_up import PHONE_DRIFTING, MadeUpScan, make_room, scan_room
from tests.cv.made_up_scans import clean, phone, with_poses


@cache
def drifting(seed: int, count: int = 60, **options) -> MadeUpScan:
    return scan_room(make_room(seed), PHONE_DRIFTING.but(frames=count, size_wh=(256, 192), **options))


@cache
def refined(made: MadeUpScan) -> tuple[Frames, Poses, Poses]:
    """Frames, odometry, poses."""
    kept = frames(made.scan)
    before = odometry(made.scan, kept)
    return kept, before, poses(kept, before)


def camera_errors_m(made: MadeUpScan, kept: Frames, found: Poses) -> np.ndarray:
    """Of each used frame's position, by evo, without alignment."""
    true_T_world_44 = invert_pose(found.world_T_scan_44 @ made.truth.scan_T_world_44)
    used = found.used()
    true = PosePath3D(poses_se3=list(made.truth.world_T_cam_b44[kept.scan_frame_b[used]]))
    error = metrics.APE(metrics.PoseRelation.translation_part)
    error.process_data((true, PosePath3D(poses_se3=list(true_T_world_44 @ found.world_T_cam_b44[used]))))
    return error.error


def off_surface_m(made: MadeUpScan, kept: Frames, found: Poses) -> float:
    """Mean distance of what the depth shows, put where the poses say, from the true surfaces."""
    recording = kept.recording.select(np.array(found.used()))
    depth = (
        (recording.depth_m_hw(i), np.ones(recording.depth_m_hw(i).shape, np.float32)) for i in range(len(recording))
    )
    points, _, _ = surfels_of(depth, recording.K_depth_b33).in_world(found.world_T_cam_b44[found.is_used_b])
    return float(made.truth.surface_distance_m(made.truth.to_world(points[::29], found.world_T_scan_44)).mean())


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_one_per_cent_of_drift_is_gone(seed):
    made = drifting(seed)
    kept, before, after = refined(made)
    drifted_m, error_m = camera_errors_m(made, kept, before), camera_errors_m(made, kept, after)
    assert drifted_m.mean() > 0.03 and drifted_m.max() > 0.06, "else there is nothing to show"
    assert 0.001 < error_m.mean() < 0.012, "under a millimetre would be no phone's noise"
    assert error_m.max() < 0.03
    assert off_surface_m(made, kept, before) > 0.012
    assert 0.001 < off_surface_m(made, kept, after) < 0.007


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_its_numbers_say_so_and_lie_where_they_are_expected(seed):
    made = drifting(seed)
    _, before, after = refined(made)
    numbers = measure_poses(after)
    moved_m = np.linalg.norm((after.world_T_cam_b44 - before.world_T_cam_b44)[:, :3, 3], axis=1)
    assert numbers["correction_max_m"] == pytest.approx(moved_m.max())
    assert numbers["disagreement_after_m"] < 0.8 * numbers["disagreement_before_m"]
    assert 0.001 < numbers["disagreement_after_m"] < 0.006
    assert numbers["pairs"] > numbers["loop_closures"] > 20
    true_floor_z = float((made.truth.scan_T_world_44 @ [0, 0, made.truth.room.floor_z_m, 1])[2])
    assert numbers["floor_z_world_m"] == pytest.approx(true_floor_z, abs=0.015)
    assert numbers["floor_tilt_deg"] < 0.2
    stage = next(each for each in find_stages() if each.name == "poses")
    assert numbers_out_of_range(stage, numbers) == ()


def test_perfect_odometry_stays_within_a_millimetre():
    made = clean()
    _, before, after = refined(made)
    assert np.abs(after.world_T_cam_b44 - before.world_T_cam_b44)[:, :3, 3].max() < 0.001
    assert np.abs(after.world_T_cam_b44 - before.world_T_cam_b44)[:, :3, :3].max() < np.radians(0.02)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_good_odometry_is_not_worsened_beyond_its_own_noise(seed):
    made = phone(seed)
    kept, before, after = refined(made)
    was_m, is_m = camera_errors_m(made, kept, before), camera_errors_m(made, kept, after)
    assert is_m.mean() < max(was_m.mean(), 0.006) and is_m.max() < max(was_m.max(), 0.012)
    assert off_surface_m(made, kept, after) < off_surface_m(made, kept, before) + 0.0005


def test_the_first_frame_stays_where_the_device_had_it():
    _, before, after = refined(drifting(3))
    assert after.refinement.anchor == 0
    np.testing.assert_array_equal(after.world_T_cam_b44[0], before.world_T_cam_b44[0])
    np.testing.assert_array_equal(after.world_T_scan_44, before.world_T_scan_44)


def test_a_first_frame_that_is_off_moves_itself_and_not_the_room():
    made = clean()
    pose_b44 = made.scan.scan_T_cam_b44.copy()
    pose_b44[0, :3, 3] += [0.0, 0.0, -0.04]
    kept = frames(made.scan)
    after = poses(kept, odometry(with_poses(made.scan, pose_b44), kept))
    assert after.refinement.anchor == 1
    true_b44 = after.world_T_scan_44 @ made.scan.scan_T_cam_b44[kept.scan_frame_b]
    assert np.abs(after.world_T_cam_b44 - true_b44)[:, :3, 3].max() < 0.005


def test_frames_that_were_cut_stay_out():
    made = clean()
    pose_b44 = made.scan.scan_T_cam_b44.copy()
    pose_b44[15, :3, 3] += [0.3, 0.3, 0.2]
    kept = frames(made.scan)
    before = odometry(with_poses(made.scan, pose_b44), kept)
    after = poses(kept, before)
    assert after.cuts == before.cuts and not after.is_used_b[15]
    np.testing.assert_array_equal(after.world_T_cam_b44[15], before.world_T_cam_b44[15])
    assert np.isnan(after.disagreement_m_b[15])
    assert np.abs(after.world_T_cam_b44 - before.world_T_cam_b44)[:, :3, 3].max() < 0.001


# --- a wall that goes on and on: depth to a plane, seen while walking along it


WIDTH, HEIGHT, FOCAL = 160, 120, 130.0
RAY_HW3 = np.stack(
    [
        *((np.indices((HEIGHT, WIDTH))[::-1] - np.array([WIDTH - 1, HEIGHT - 1])[:, None, None] / 2) / FOCAL),
        np.ones((HEIGHT, WIDTH)),
    ],
    axis=-1,
)


def looking_along(yaw: float, eye_3) -> np.ndarray:
    forward = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    pose = np.eye(4)
    pose[:3, :4] = np.column_stack((right, [0.0, 0.0, -1.0], forward, eye_3))
    return pose


def walk_past(planes, true_b44, believed_b44) -> tuple[Frames, Poses]:
    """What a camera sees of planes (normal, offset with normal . point = offset) that bound a convex room."""
    rng = np.random.default_rng(7)
    images = []
    for pose in true_b44:
        ray = RAY_HW3 @ pose[:3, :3].T
        depth = np.full((HEIGHT, WIDTH), np.inf)
        for normal, offset in planes:
            with np.errstate(divide="ignore"):
                z = (offset - np.dot(normal, pose[:3, 3])) / (ray @ np.asarray(normal, float))
            depth = np.where((z > 0) & (z < depth), z, depth)
        depth *= 1 + 0.004 * rng.standard_normal(depth.shape)
        images.append(encode_png(np.where(depth < 6, np.rint(1000 * np.minimum(depth, 60)), 0).astype(np.uint16)))
    b = len(images)
    K = np.array([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1]])
    recording = Recording(None, EncodedImages(images), None, np.arange(b) / 5.0, None, np.tile(K, (b, 1, 1)))
    kept = Frames(recording, np.arange(b), np.ones(b), np.ones(b), ())
    return kept, Poses(believed_b44, np.eye(4), np.ones(b, bool), np.zeros(b), "device", None, None, ())


def test_along_a_single_wall_the_device_is_believed_and_across_it_the_wall():
    steps = np.arange(30)
    true_b44 = np.array([looking_along(np.pi / 2, (0.1 * i, 0.0, 1.4)) for i in steps])
    drift_b3 = steps[:, None] * np.array([0.001, 0.001, 0.0])
    believed_b44 = true_b44.copy()
    believed_b44[:, :3, 3] += drift_b3
    after = poses(*walk_past([((0, 1, 0), 2.0)], true_b44, believed_b44))
    moved_m_b3 = after.world_T_cam_b44[:, :3, 3] - believed_b44[:, :3, 3]
    assert np.abs(moved_m_b3[:, [0, 2]]).max() < 0.005, "nothing tells where along the wall"
    assert np.abs(moved_m_b3[:, 1] + drift_b3[:, 1]).max() < 0.008 < 0.5 * drift_b3[:, 1].max()
    assert after.floor_z_world_m is None


def test_a_corridor_open_at_both_ends_does_not_slip_along_itself():
    steps = np.arange(40)
    out = np.abs(steps - 20) * 0.1  # there and back, looking along it
    true_b44 = np.array([looking_along(0.05 * np.sin(i), (x, 0.0, 1.4)) for i, x in zip(steps, out, strict=True)])
    drift_b3 = steps[:, None] * np.array([0.001, 0.0015, 0.0])
    believed_b44 = true_b44.copy()
    believed_b44[:, :3, 3] += drift_b3
    shell = [((0, 1, 0), 0.9), ((0, -1, 0), 0.9), ((0, 0, 1), 2.5), ((0, 0, -1), 0.0)]
    after = poses(*walk_past(shell, true_b44, believed_b44))
    moved_m_b3 = after.world_T_cam_b44[:, :3, 3] - believed_b44[:, :3, 3]
    assert np.abs(moved_m_b3[:, 0]).max() < 0.01, "the device drifts along it, and nothing can tell"
    assert np.abs(moved_m_b3[:, 1] + drift_b3[:, 1]).max() < 0.01 < 0.25 * drift_b3[:, 1].max()
    assert after.floor_z_world_m == pytest.approx(0.0, abs=0.01)


def test_a_single_used_frame_stays_and_the_numbers_say_that_nothing_was_held_against_it():
    kept, before, _ = refined(clean())
    alone = replace(before, is_used_b=np.arange(len(before.is_used_b)) == 5)
    after = poses(kept, alone)
    np.testing.assert_array_equal(after.world_T_cam_b44, before.world_T_cam_b44)
    numbers = measure_poses(after)
    assert (numbers["pairs"], numbers["loop_closures"], numbers["correction_max_m"]) == (0, 0, 0)
    assert "disagreement_after_m" not in numbers


def test_views_that_never_overlap_stay_where_they_are():
    poses_b44 = np.array([looking_along(yaw, (0.0, 0.0, 1.4)) for yaw in (0.0, np.pi / 2, np.pi)])
    shell = [((1, 0, 0), 2.0), ((0, 1, 0), 2.0), ((-1, 0, 0), 2.0)]
    after = poses(*walk_past(shell, poses_b44, poses_b44.copy()))
    np.testing.assert_array_equal(after.world_T_cam_b44, poses_b44)
    assert measure_poses(after)["pairs"] == 0


def test_frames_without_any_depth_are_carried_by_their_neighbours():
    made = drifting(3)
    kept, before, whole = refined(made)
    depths = [kept.recording.depth.encoded(i) for i in range(len(kept.recording))]
    for i in (20, 21):
        depths[i] = encode_png(np.zeros_like(kept.recording.depth[i]))
    after = poses(replace(kept, recording=replace(kept.recording, depth=EncodedImages(depths))), before)
    assert np.abs(after.world_T_cam_b44 - whole.world_T_cam_b44)[:, :3, 3].max() < 0.01
    assert np.isnan(after.disagreement_m_b[[20, 21]]).all()


@settings(max_examples=6, deadline=None)
@given(
    yaw=st.floats(-np.pi, np.pi), tilt=st.floats(-0.5, 0.5), about=st.floats(0, np.pi),
    shift=st.tuples(*3 * [st.floats(-20, 20)]),
)  # fmt: skip
def test_turning_and_shifting_the_devices_world_changes_nothing_else(yaw, tilt, about, shift):
    made = drifting(3)
    kept, _, straight = refined(made)
    other_T_scan = np.eye(4)
    other_T_scan[:3, :3] = cv2.Rodrigues(tilt * np.array([np.cos(about), np.sin(about), 0.0]))[0]
    other_T_scan[:3, :3] @= cv2.Rodrigues(np.array([0.0, 0.0, yaw]))[0]
    other_T_scan[:3, 3] = shift
    down = tuple(float(x) for x in other_T_scan[:3, :3] @ made.scan.down_scan_3)
    scan = replace(with_poses(made.scan, other_T_scan @ made.scan.scan_T_cam_b44), down_scan_3=down)
    turned = poses(kept, odometry(scan, kept))
    first_T_cam = invert_pose(straight.world_T_cam_b44[0]) @ straight.world_T_cam_b44
    np.testing.assert_allclose(invert_pose(turned.world_T_cam_b44[0]) @ turned.world_T_cam_b44, first_T_cam, atol=5e-4)


def test_the_same_bytes_on_one_thread_and_on_two():
    import numba

    kept, before, _ = refined(drifting(3))
    found = []
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(threads)
        after = poses(kept, before)
        found.append(after.world_T_cam_b44.tobytes() + after.disagreement_m_b.tobytes())
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert found[0] == found[1]


def test_the_walk_before_is_drawn_in_blue_under_the_walk_after():
    picture = preview_poses(refined(drifting(4))[2]).astype(int)
    assert picture.shape == (320, 320, 3)
    is_blue = (picture[..., 2] > 180) & (picture[..., 0] < 160)
    is_green, is_red = ((picture[..., i] > 140) & (picture[..., 1 - i] < 80) for i in (1, 0))
    assert is_blue.sum() > 50 and is_green.any() and is_red.any()


def test_the_real_scans_agree_better_and_move_by_centimetres(real_scans):
    from geomagic_dagster.scans.reader import read_scan

    for name, floor_z, closer, farthest_m in (
        ("hololens_office_kitchen", -1.53, 0.9, 0.06),
        ("tum_fr3_cabinet", 0.0, 0.95, 0.05),
    ):
        scan = read_scan(real_scans / name)
        kept = frames(scan)
        numbers = measure_poses(poses(kept, odometry(scan, kept)))
        assert numbers["disagreement_after_m"] < closer * numbers["disagreement_before_m"], name
        assert 0.005 < numbers["correction_max_m"] < farthest_m, name
        assert numbers["floor_z_world_m"] == pytest.approx(floor_z, abs=0.015), name
