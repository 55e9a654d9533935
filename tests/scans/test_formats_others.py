"""What is special about each format: pairing, gravity, cameras, lost frames, scale."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from geomagic_dagster.cv.containers import encode_png
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Scan
from geomagic_dagster.scans.formats import tum_rgbd
from geomagic_dagster.scans.reader import read_all, read_scan

Layouts = Mapping[str, Callable[[Scan, Path], None]]


def rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


# --- TUM RGB-D -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "comment", "camera"),
    [
        ("rgbd_dataset_freiburg1_desk", "", "1"),
        ("tum_fr2_xyz", "", "2"),
        ("anything", "# file: 'rgbd_dataset_freiburg3_cabinet.bag'", "3"),
    ],
)
def test_tum_knows_its_three_cameras_by_name(
    folder: str, comment: str, camera: str, laid_out: Callable[[str], Path]
) -> None:
    path = laid_out("tum_rgbd")
    path = path.rename(path.with_name(folder))
    (path / "K.txt").unlink()
    rewrite(path / "rgb.txt", lambda lines: [comment or "#", *lines])
    scan = read_scan(path)
    fx, fy, cx, cy = tum_rgbd.CAMERAS[camera].fx_fy_cx_cy
    np.testing.assert_array_equal(scan.recording.K_rgb_b33[0], [[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    assert scan.recording.distortion_5 == tum_rgbd.CAMERAS[camera].distortion_5
    assert camera in scan.device


@pytest.mark.parametrize("folder", ["my own kinect", "fr1 and fr2", "fr12", "frame3"])
def test_tum_guesses_no_camera(folder: str, laid_out: Callable[[str], Path]) -> None:
    path = laid_out("tum_rgbd")
    path = path.rename(path.with_name(folder))
    (path / "K.txt").unlink()
    with pytest.raises(ScanRejected, match=r"freiburg1, freiburg2 or freiburg3 .*K\.txt.* Put the camera's 3x3 matrix"):
        read_scan(path)


def test_tum_leaves_out_and_names_what_does_not_pair(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("tum_rgbd")
    rewrite(path / "rgb.txt", lambda lines: [line for line in lines if not line.endswith("rgb/3.jpg")])
    rewrite(path / "depth.txt", lambda lines: [line for line in lines if not line.endswith(("/5.png", "/6.png"))])
    rewrite(path / "groundtruth.txt", lambda lines: lines[:-1])
    reading = read_all(path)
    assert reading.image_names["rgb"] == [f"rgb/{i}.jpg" for i in (0, 1, 2, 4, 7, 8, 9, 10)]
    assert reading.image_names["depth"] == [f"depth/{i}.png" for i in (0, 1, 2, 4, 7, 8, 9, 10)]
    told = [(f.severity, f.place, f.received) for f in reading.remarks]
    assert told == [
        ("warning", "rgb.txt", "2 of 11 colour images without depth, left out: rgb/5.jpg, rgb/6.jpg"),
        ("warning", "depth.txt", "1 of 10 depth images without colour, left out: depth/3.png"),
        (
            "warning", "groundtruth.txt",
            "1 of 9 without a finite pose (tracking lost), left out: depth/11.png",
        ),
    ]  # fmt: skip


def test_tum_pairs_by_nearest_time_each_image_once() -> None:
    depth_s, rgb_s = np.array([0.0, 0.033, 0.066, 0.5]), np.array([0.001, 0.030, 0.034, 0.067, 0.6])
    assert tum_rgbd._mutually_nearest(depth_s, rgb_s).tolist() == [0, 2, 3, -1]
    backwards = tum_rgbd._mutually_nearest(depth_s[::-1], rgb_s)
    assert backwards.tolist() == [-1, 3, 2, 0]


def test_tum_without_poses_is_a_scan_without_poses(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("tum_rgbd")
    (path / "groundtruth.txt").unlink()
    assert read_scan(path).scan_T_cam_b44 is None


def test_tum_does_not_vouch_for_gravity(laid_out: Callable[[str], Path]) -> None:
    assert read_scan(laid_out("tum_rgbd")).down_scan_3 is None


def test_tum_refuses_a_quaternion_of_another_length(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("tum_rgbd")
    rewrite(path / "groundtruth.txt", lambda lines: [*lines[:3], lines[3].rsplit(" ", 1)[0] + " 7", *lines[4:]])
    with pytest.raises(ScanRejected, match=r"groundtruth\.txt line 4: expected a unit quaternion"):
        read_scan(path)


# --- 7-Scenes -------------------------------------------------------------------------------------


def test_seven_scenes_has_gravity_only_from_its_file(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("seven_scenes")
    down = read_scan(path).down_scan_3
    np.testing.assert_allclose(down, np.array([0, 0.2, -0.98]) / np.hypot(0.2, 0.98), atol=1e-12)
    (path / "gravity-direction.txt").unlink()
    assert read_scan(path).down_scan_3 is None


def test_seven_scenes_takes_its_own_camera_when_none_is_given_and_says_so(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("seven_scenes")
    (path / "camera-intrinsics.txt").unlink()
    reading = read_all(path)
    np.testing.assert_array_equal(reading.scan.recording.K_depth_b33[3], [[585, 0, 320], [0, 585, 240], [0, 0, 1]])
    assert "585 585 320 240" in reading.remarks[0].received


def test_seven_scenes_reads_65535_as_no_depth(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("seven_scenes")
    depth = np.full((48, 64), 2000, np.uint16)
    depth[0, 0], depth[0, 1] = 65535, 0
    (path / "frame-000000.depth.png").write_bytes(encode_png(depth))
    assert read_scan(path).recording.depth_m_hw(0)[0, :3].tolist() == [0, 0, 2]


def test_seven_scenes_finds_one_walk_in_a_folder_and_refuses_two(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("seven_scenes")
    scene = path.parent / "chess"
    scene.mkdir()
    path.rename(scene / "seq-01")
    (scene / "seq-01" / "gravity-direction.txt").rename(scene / "gravity-direction.txt")
    assert len(read_scan(scene).recording) == 12
    assert read_scan(scene).down_scan_3 is not None
    (scene / "seq-02").mkdir()
    (scene / "seq-02" / "frame-000000.color.png").write_bytes(b"")
    with pytest.raises(ScanRejected, match=r"one walk; got 2: seq-01, seq-02\. Give the folder of one"):
        read_scan(scene)


def test_seven_scenes_leaves_out_lost_and_partial_frames(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("seven_scenes")
    (path / "frame-000002.pose.txt").write_text("-inf " * 16)
    (path / "frame-000004.depth.png").unlink()
    (path / "frame-000006.color.jpg").unlink()
    reading = read_all(path)
    assert np.rint(reading.scan.recording.timestamp_s_b * 30).tolist() == [0, 1, 3, 5, 7, 8, 9, 10, 11]
    told = " ".join(finding.received for finding in reading.remarks)
    for name in ("frame-000002.pose.txt", "frame-000004.color.jpg", "frame-000006.depth.png"):
        assert name in told


# --- HoloLens -------------------------------------------------------------------------------------


def test_hololens_vouches_for_gravity(laid_out: Callable[[str], Path]) -> None:
    assert read_scan(laid_out("hololens")).down_scan_3 == (0.0, 0.0, -1.0)


def test_hololens_needs_a_pose_for_each_image(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("hololens")
    rewrite(path / "poses.txt", lambda lines: lines[:-1])
    with pytest.raises(ScanRejected, match=r"poses\.txt: expected a line for each of the 12 images; got 11 lines"):
        read_scan(path)


def test_hololens_keeps_poses_with_their_images_when_some_are_left_out(
    laid_out: Callable[[str], Path], box_room: Callable[..., Scan]
) -> None:
    path = laid_out("hololens")
    rewrite(path / "poses.txt", lambda lines: [" ".join(["-inf"] * 16) if i == 4 else x for i, x in enumerate(lines)])
    (path / "depth" / "00006.png").unlink()
    (path / "depth" / "99999.png").write_bytes(b"")
    reading = read_all(path)
    kept = [0, 1, 3, 5, 6, 7, 8, 9, 10, 11]
    np.testing.assert_allclose(reading.scan.scan_T_cam_b44, box_room().scan_T_cam_b44[kept], atol=1e-12)
    assert reading.image_names["rgb"] == [f"images/{3 * i:05d}.jpg" for i in kept]
    told = " ".join(finding.received for finding in reading.remarks)
    for name in ("images/00012.jpg", "images/00006.jpg", "depth/99999.png"):
        assert name in told


def test_hololens_scales_K_to_smaller_depth(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("hololens")
    for image in (path / "depth").iterdir():
        image.write_bytes(encode_png(np.full((24, 32), 2000, np.uint16)))
    np.testing.assert_allclose(read_scan(path).recording.K_depth_b33[0], [[26, 0, 15.5], [0, 26, 11.5], [0, 0, 1]])


# --- nerfstudio -----------------------------------------------------------------------------------


def transforms(path: Path, change: Callable[[dict], object]) -> Path:
    content = json.loads((path / "transforms.json").read_text())
    change(content)
    (path / "transforms.json").write_text(json.dumps(content))
    return path


def test_nerfstudio_without_depth_is_not_metric(laid_out: Callable[[str], Path]) -> None:
    path = transforms(laid_out("nerfstudio"), lambda t: [frame.pop("depth_file_path") for frame in t["frames"]])
    scan = read_scan(path)
    assert not scan.is_metric
    assert scan.recording.depth is None
    assert scan.down_scan_3 is None


def test_nerfstudio_takes_intrinsics_per_frame_and_from_the_angle(laid_out: Callable[[str], Path]) -> None:
    def change(content: dict) -> None:
        for key in ("fl_x", "fl_y", "cx", "cy"):
            content.pop(key)
        content["camera_angle_x"] = 2 * np.arctan(32 / 52)
        content["frames"][0].update(fl_x=60.0, fl_y=61.0, cx=30.0, cy=20.0)  # the last by name

    K_b33 = read_scan(transforms(laid_out("nerfstudio"), change)).recording.K_rgb_b33
    np.testing.assert_allclose(K_b33[0], [[52, 0, 31.5], [0, 52, 23.5], [0, 0, 1]])
    np.testing.assert_allclose(K_b33[-1], [[60, 0, 29.5], [0, 61, 19.5], [0, 0, 1]])


def test_nerfstudio_names_without_ending_unit_of_depth_and_lens(laid_out: Callable[[str], Path]) -> None:
    def change(content: dict) -> None:
        for frame in content["frames"]:
            frame["file_path"] = frame["file_path"].removesuffix(".jpg")
            frame["transform_matrix"] = frame["transform_matrix"][:3]
        content.update(depth_unit_scale_factor=0.00025, k1=0.1, k2=0.2, p1=0.3, p2=0.4, camera_model="OPENCV")

    recording = read_scan(transforms(laid_out("nerfstudio"), change)).recording
    assert recording.metres_per_depth_unit == 0.00025
    assert recording.distortion_5 == (0.1, 0.2, 0.3, 0.4, 0.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda t: t.update(camera_model="OPENCV_FISHEYE"), "expected a pinhole camera", id="fisheye"),
        pytest.param(lambda t: t["frames"][0].update(k1=0.3), "expected one lens", id="two lenses"),
        pytest.param(lambda t: t.update(frames=[]), "expected a list of frames", id="no frames"),
        pytest.param(lambda t: t.pop("fl_x"), "expected fl_x or camera_angle_x", id="no focal length"),
        pytest.param(
            lambda t: t["frames"][2].update(transform_matrix=[[1, 2], [3]]),
            r"frames\[2\]\.transform_matrix",
            id="no matrix",
        ),
        pytest.param(
            lambda t: t["frames"][2].update(transform_matrix="x" * 4), r"frames\[2\]\.transform_matrix", id="a word"
        ),
        pytest.param(lambda t: t.update(fl_x="wide"), r"fl_x: expected 1 numbers", id="a word for a number"),
        pytest.param(lambda t: t["frames"][1].update(file_path="../secret.jpg"), "the file ../secret", id="a way out"),
    ],
)
def test_nerfstudio_refuses_what_it_cannot_take(
    change: Callable[[dict], object], words: str, laid_out: Callable[[str], Path]
) -> None:
    with pytest.raises(ScanRejected, match=words):
        read_scan(transforms(laid_out("nerfstudio"), change))
