"""The shared mathematics against itself and against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geomagic_dagster.cv.camera import invert_pose, project, rotation_between, scaled_intrinsics, transform, unproject

K_33 = np.array([[210.0, 0, 127.5], [0, 205.0, 95.5], [0, 0, 1]])
directions = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 1e-3).map(np.array)


def random_pose(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(rng.normal(size=3))[0]
    pose[:3, 3] = rng.normal(size=3)
    return pose


def test_projecting_what_was_unprojected_gives_the_pixel_back():
    depth_m_bhw = torch.rand(2, 12, 16, dtype=torch.float64) * 5 + 0.2
    points = unproject(depth_m_bhw, torch.tensor(np.stack([K_33, K_33 * 1.5])))
    pixels, z = project(points[0], torch.tensor(K_33))
    assert torch.allclose(z, depth_m_bhw[0])
    assert torch.allclose(pixels[3, 7], torch.tensor([7.0, 3.0], dtype=torch.float64), atol=1e-9)


def test_projection_agrees_with_opencv():
    points = np.random.default_rng(0).normal(size=(50, 3)) + [0, 0, 5]
    pixels, _ = project(torch.tensor(points), torch.tensor(K_33))
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K_33, None)[0][:, 0]
    np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-9)


def test_a_point_behind_the_camera_has_negative_depth_and_no_nan():
    pixels, z = project(torch.tensor([[0.1, 0.1, -1.0], [0.0, 0.0, 0.0]]), torch.tensor(K_33).float())
    assert z[0] < 0
    assert torch.isfinite(pixels).all()


@given(st.integers(0, 2**32 - 1))
def test_inverting_a_pose_undoes_it(seed):
    pose = random_pose(seed)
    np.testing.assert_allclose(invert_pose(pose) @ pose, np.eye(4), atol=1e-12)
    point = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    there = transform(torch.tensor(pose), point)
    assert torch.allclose(transform(torch.tensor(invert_pose(pose)), there), point)


@given(directions, directions)
def test_the_rotation_between_two_directions_is_a_rotation_and_takes_one_to_the_other(a, b):
    rotation = rotation_between(a, b)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    np.testing.assert_allclose(rotation @ (a / np.linalg.norm(a)), b / np.linalg.norm(b), atol=1e-6)


def test_scaled_intrinsics_keep_the_ray_through_the_same_point_of_the_picture():
    half = scaled_intrinsics(K_33, 0.5, 0.5)
    # The block of pixels (10, 11) x (20, 21) becomes pixel (5, 10): its middle is (10.5, 20.5).
    ray_full = np.linalg.solve(K_33, [10.5, 20.5, 1])
    np.testing.assert_allclose(np.linalg.solve(half, [5.0, 10.0, 1]), ray_full, atol=1e-12)
