"""Odometry: upright to a fraction of a degree, the floor to a centimetre, jumps cut exactly where they are."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from geomagic_dagster.cv.camera import invert_pose
from geomagic_dagster.cv.frames import frames
from geomagic_dagster.cv.odometry import measure_odometry, odometry, preview_odometry
from geomagic_dagster.cv.stage import ScanRejected
from tests.cv.made_up_scans import clean, phone, with_poses


def run(scan):
    return odometry(scan, frames(scan))


def angle_deg(a_3, b_3) -> float:
    return float(np.degrees(np.arccos(np.clip(np.dot(a_3, b_3) / np.linalg.norm(a_3) / np.linalg.norm(b_3), -1, 1))))


def true_floor_z_in_scan(made) -> float:
    return float((made.truth.scan_T_world_44 @ [0, 0, made.truth.room.floor_z_m, 1])[2])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_floor_within_a_centimetre_of_the_truth_under_phone_noise(seed):
    made = phone(seed)
    found = run(made.scan)
    assert found.gravity_from == "device"
    assert found.is_used_b.all()
    assert abs(found.floor_z_world_m - true_floor_z_in_scan(made)) < 0.01
    assert 0.0 <= found.floor_tilt_deg < 0.5
    numbers = measure_odometry(found)
    assert 1.2 < numbers["camera_height_m"] < 1.8
    assert 0.001 < numbers["disagreement_median_m"] < 0.04


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_without_gravity_the_floor_makes_the_world_upright_within_half_a_degree(seed):
    made = phone(seed)
    tilted_T_scan = np.eye(4)
    tilted_T_scan[:3, :3] = cv2.Rodrigues(np.radians(25.0) * np.array([0.6, 0.8, 0.0]))[0]
    scan = replace(made.scan, scan_T_cam_b44=tilted_T_scan @ made.scan.scan_T_cam_b44, down_scan_3=None)
    found = run(scan)
    assert found.gravity_from == "floor"
    up_world_3 = found.world_T_scan_44[:3, :3] @ tilted_T_scan[:3, :3] @ [0, 0, 1.0]
    assert angle_deg(up_world_3, [0, 0, 1]) < 0.5


def test_a_phone_held_upright_without_gravity_is_not_taken_for_a_room_on_its_side():
    made = clean(2)
    quarter = np.eye(4)
    quarter[:3, :3] = cv2.Rodrigues(np.array([0, 0, np.pi / 2]))[0]
    turned = replace(
        made.scan.recording,
        rgb=None, K_rgb_b33=None, depth_confidence=None,
        depth=type(made.scan.recording.depth)(
            [cv2.imencode(".png", np.ascontiguousarray(np.rot90(d, 1)))[1].tobytes() for d in made.scan.recording.depth]
        ),
        K_depth_b33=np.array([_turned_K(K, made.scan.recording.depth[0].shape) for K in made.scan.recording.K_depth_b33]),
    )  # fmt: skip
    scan = replace(made.scan, recording=turned, scan_T_cam_b44=made.scan.scan_T_cam_b44 @ quarter, down_scan_3=None)
    found = run(scan)
    assert angle_deg(found.world_T_scan_44[:3, :3] @ [0, 0, 1.0], [0, 0, 1]) < 0.5


def _turned_K(K_33, shape_hw):
    """Intrinsics of the picture turned by a quarter against the clock: new x = old y, new y = width - 1 - old x."""
    width = shape_hw[1]
    return np.array([[K_33[1, 1], 0, K_33[1, 2]], [0, K_33[0, 0], width - 1 - K_33[0, 2]], [0, 0, 1]])


def test_a_relocalisation_jump_is_found_and_the_shorter_part_cut():
    scan = clean().scan
    pose_b44 = scan.scan_T_cam_b44.copy()
    pose_b44[28:, :3, 3] += [0.25, -0.2, 0.1]
    found = run(with_poses(scan, pose_b44))
    assert [frame for frame, _ in found.cuts] == list(range(28, 40))
    assert all(reason.startswith("jump: its depth lies") for _, reason in found.cuts)
    np.testing.assert_array_equal(found.is_used_b, np.arange(40) < 28)
    assert measure_odometry(found)["used_fraction"] == pytest.approx(0.7)


def test_one_wrong_pose_is_cut_alone():
    scan = clean().scan
    pose_b44 = scan.scan_T_cam_b44.copy()
    pose_b44[15, :3, 3] += [0.3, 0.3, 0.2]
    assert [frame for frame, _ in run(with_poses(scan, pose_b44)).cuts] == [15]


def test_a_walk_without_a_jump_is_left_whole_whatever_the_noise():
    for seed in (1, 2, 3):
        assert run(phone(seed).scan).cuts == ()


def test_text_file_rounding_of_rotations_is_removed():
    scan = clean().scan
    found = run(with_poses(scan, np.round(scan.scan_T_cam_b44, 3)))
    rotation = found.world_T_cam_b44[:, :3, :3]
    assert np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max() < 1e-12


def test_the_walk_is_drawn_with_its_start_green_and_its_end_red():
    picture = preview_odometry(run(clean().scan)).astype(int)
    assert picture.shape == (320, 320, 3)
    assert ((picture[..., 1] > 150) & (picture[..., 0] < 60)).any()
    assert ((picture[..., 0] > 180) & (picture[..., 1] < 60)).any()


def only_up(scan):
    """The same walk, but only what is above the camera was seen."""
    recording, depths = scan.recording, []
    for i in range(len(recording)):
        d = recording.depth[i].copy()
        v, u = np.mgrid[: d.shape[0], : d.shape[1]]
        K = recording.K_depth_b33[i]
        ray = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(d.shape)], -1)
        d[(ray @ scan.scan_T_cam_b44[i, :3, :3].T)[..., 2] < 0.05] = 0
        depths.append(cv2.imencode(".png", d)[1].tobytes())
    return replace(scan, recording=replace(recording, depth=type(recording.depth)(depths)))


def test_a_floor_that_nobody_saw_is_not_invented():
    found = run(only_up(clean().scan))
    assert found.floor_z_world_m is None
    assert found.floor_tilt_deg is None
    assert "floor_z_world_m" not in measure_odometry(found)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda s: replace(s, recording=replace(s.recording, depth=None)), "expected depth images in metres; got colour images only"),
        (lambda s: replace(s, recording=replace(s.recording, depth=None), is_metric=False), "no depth and no metric scale"),
        (lambda s: replace(s, scan_T_cam_b44=None), "got a scan without poses. Export the scan with its camera poses"),
        (lambda s: replace(s, is_metric=False), "units of unknown length"),
        (lambda s: with_poses(s, invert_pose(s.scan_T_cam_b44)), "Run `geomagic scan check`"),
        (lambda s: with_poses(s, s.scan_T_cam_b44 @ np.diag([1.0, -1, -1, 1])), "Run `geomagic scan check`"),
        (lambda s: replace(only_up(s), down_scan_3=None), "shows no floor. Walk once around with the phone tilted down"),
    ],
    ids=["no depth", "no depth no scale", "no poses", "no scale", "inverted", "OpenGL axes", "no gravity no floor"],
)  # fmt: skip
def test_what_cannot_be_placed_is_rejected_in_words(edit, words):
    scan = edit(clean().scan)
    kept = frames(scan)
    with pytest.raises(ScanRejected) as rejected:
        odometry(scan, kept)
    assert words in str(rejected.value)


def test_floors_of_the_real_scans_lie_where_they_were_measured(real_scans):
    from geomagic_dagster.scans.reader import read_scan

    kitchen = run(read_scan(real_scans / "hololens_office_kitchen"))
    assert kitchen.floor_z_world_m == pytest.approx(-1.53, abs=0.02), "z up here is the device's y"
    cabinet = run(read_scan(real_scans / "tum_fr3_cabinet"))
    assert cabinet.floor_z_world_m == pytest.approx(0.0, abs=0.01)
    assert cabinet.gravity_from == "floor"
