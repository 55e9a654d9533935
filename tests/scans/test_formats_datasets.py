"""What is special about each data set's layout: pairing by time, upright images, cut recordings, cameras of others."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geomagic_dagster.cv.containers import encode_jpeg, encode_png
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Scan
from geomagic_dagster.scans.check import check_path
from geomagic_dagster.scans.reader import read_all, read_scan

K_33 = np.array([[52.0, 0, 31.5], [0, 52.0, 23.5], [0, 0, 1]])


def points_m(scan: Scan, i: int) -> np.ndarray:
    """(n, 3) of a frame's depth, in the scan's world."""
    depth, K, pose = scan.recording.depth_m_hw(i), scan.recording.K_depth_b33[i], scan.scan_T_cam_b44[i]
    y, x = np.nonzero(depth)
    z = depth[y, x]
    points = np.stack([(x - K[0, 2]) / K[0, 0] * z, (y - K[1, 2]) / K[1, 1] * z, z])
    return (pose[:3, :3] @ points + pose[:3, 3:]).T


# --- ARKitScenes ------------------------------------------------------------------------------------


def sky(path: Path, direction: str) -> Path:
    (path / "metadata.csv").write_text(
        f"video_id,visit_id,fold,sky_direction\n40000000,1,Training,Down\n41069021,2,Training,{direction}\n"
    )
    return path


@pytest.mark.parametrize(("direction", "turns"), [("Up", 0), ("Left", 3), ("Right", 1), ("Down", 2)])
def test_arkitscenes_turns_images_upright_and_K_and_poses_with_them(
    direction: str, turns: int, laid_out: Callable[[str], Path], box_room: Callable[..., Scan]
) -> None:
    path, made = sky(laid_out("arkitscenes"), direction), box_room()
    scan = read_scan(path)
    for i in (0, 5):
        np.testing.assert_array_equal(scan.recording.rgb[i], np.rot90(made.recording.rgb[i], turns))
        np.testing.assert_array_equal(scan.recording.depth[i], np.rot90(made.recording.depth[i], turns))
        seen, true = points_m(scan, i), points_m(made, i)
        np.testing.assert_allclose(seen[np.lexsort(seen.T)], true[np.lexsort(true.T)], atol=1e-6)
    assert np.linalg.det(scan.scan_T_cam_b44[:, :3, :3]) == pytest.approx(1)
    assert check_path(path).errors == ()


def test_arkitscenes_the_sky_is_up_after_turning(
    laid_out: Callable[[str], Path], box_room: Callable[..., Scan]
) -> None:
    """An iPad held so that the sky is at the left of its image: turned, the images' y points down."""
    made, path = box_room(), laid_out("arkitscenes")
    upright = read_scan(path).scan_T_cam_b44[:, :3, 1] @ np.array([0, 0, -1.0])
    assert (upright > 0.9).all(), "the box room is seen upright"
    for folder in ("lowres_wide", "lowres_depth", "confidence"):  # the sensor turned a quarter clockwise
        for i, file in enumerate(sorted((path / folder).iterdir())):
            kind = {"lowres_wide": "rgb", "lowres_depth": "depth", "confidence": "depth_confidence"}[folder]
            file.write_bytes(encode_png(np.ascontiguousarray(np.rot90(getattr(made.recording, kind)[i], 1))))
    from scipy.spatial.transform import Rotation

    lines = []
    for time, pose in zip(made.recording.timestamp_s_b, made.scan_T_cam_b44, strict=True):
        turned = pose.copy()  # rows of the turned image run along the old columns from the right
        turned[:3, :3] = pose[:3, :3] @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
        cam_T_world = np.linalg.inv(turned)
        values = (time, *Rotation.from_matrix(cam_T_world[:3, :3]).as_rotvec(), *cam_T_world[:3, 3])
        lines.append(" ".join(repr(float(value)) for value in values))
    (path / "lowres_wide.traj").write_text("\n".join(lines))
    for file in (path / "lowres_wide_intrinsics").iterdir():
        file.write_text("48 64 52 52 23.5 31.5")
    scan = read_scan(sky(path, "Left"))
    np.testing.assert_allclose(scan.scan_T_cam_b44, made.scan_T_cam_b44, atol=1e-9)
    np.testing.assert_allclose(scan.recording.K_rgb_b33, made.recording.K_rgb_b33)
    np.testing.assert_array_equal(scan.recording.rgb[3], made.recording.rgb[3])


def test_arkitscenes_without_metadata_leaves_the_images_and_says_so(laid_out: Callable[[str], Path]) -> None:
    reading = read_all(laid_out("arkitscenes"))
    assert [(f.severity, f.place) for f in reading.remarks] == [("note", "metadata.csv")]


def test_arkitscenes_takes_poses_within_5_ms_and_intrinsics_within_1_ms(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("arkitscenes")
    lines = (path / "lowres_wide.traj").read_text().splitlines()
    times = [line.partition(" ") for line in lines]
    lines[2] = f"{float(times[2][0]) + 0.004} {times[2][2]}"  # 7 ms off
    (path / "lowres_wide.traj").write_text("\n".join(lines))
    pincams = sorted((path / "lowres_wide_intrinsics").iterdir())
    pincams[6].rename(pincams[6].with_name("41069021_333333.934.pincam"))  # 1 ms off
    pincams[8].rename(pincams[8].with_name("41069021_333334.136.pincam"))  # 3 ms off
    reading = read_all(path)
    assert len(reading.scan.recording) == 10
    told = " ".join(f.received for f in reading.remarks if f.severity == "warning")
    assert "lowres_wide/41069021_333333.533.png" in told
    assert "lowres_wide/41069021_333334.133.png" in told


def test_arkitscenes_may_lie_beside_its_annotations(laid_out: Callable[[str], Path], tmp_path: Path) -> None:
    walk = tmp_path / "41069021"
    walk.mkdir()
    laid_out("arkitscenes").rename(walk / "41069021_frames")
    (walk / "41069021_3dod_annotation.json").write_text("{}")
    reading = read_all(sky(walk, "Up"))
    assert len(reading.scan.recording) == 12
    assert reading.remarks == ()


# --- ScanNet ----------------------------------------------------------------------------------------


def test_scannet_is_read_as_its_cpp_exporter_names_it(
    laid_out: Callable[[str], Path], box_room: Callable[..., Scan]
) -> None:
    path, made = laid_out("scannet"), box_room()
    for i in range(12):
        (path / f"color/{i}.jpg").rename(path / f"frame-{i:06d}.color.jpg")
        (path / f"pose/{i}.txt").rename(path / f"frame-{i:06d}.pose.txt")
        pgm = b"P5\n64 48\n65535\n" + (2 * made.recording.depth[i]).astype(">u2").tobytes()
        (path / f"frame-{i:06d}.depth.pgm").write_bytes(pgm)
    for folder in ("color", "depth", "pose", "intrinsic"):
        shutil.rmtree(path / folder)
    rows = "52 0 31.5 0 0 52 23.5 0 0 0 1 0 0 0 0 1"
    (path / "_info.txt").write_text(
        f"m_versionNumber = 4\nm_sensorName = StructureSensor\nm_depthShift = 2000\n"
        f"m_calibrationColorIntrinsic = {rows} \nm_calibrationDepthIntrinsic = {rows} \n"
    )
    scan = read_scan(path)
    assert scan.source_format == "scannet"
    np.testing.assert_array_equal(scan.recording.depth[5], 2 * made.recording.depth[5])
    np.testing.assert_allclose(scan.recording.depth_m_hw(5), made.recording.depth_m_hw(5), rtol=1e-6)
    np.testing.assert_array_equal(scan.recording.K_depth_b33[0], K_33)
    np.testing.assert_allclose(scan.scan_T_cam_b44, made.scan_T_cam_b44, atol=1e-12)
    assert check_path(path).errors == ()


def test_scannet_skips_and_names_frames_that_lost_tracking(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("scannet")
    (path / "pose/10.txt").write_text("-inf -inf -inf -inf\n" * 4)
    reading = read_all(path)
    assert reading.image_names["rgb"] == [f"color/{i}.jpg" for i in range(12) if i != 10], (
        "in order of numbers, not names"
    )
    assert "pose/10.txt" in " ".join(f.received for f in reading.remarks)
    assert reading.scan.down_scan_3 is None


def test_scannet_depth_has_a_K_of_its_own(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("scannet")
    (path / "intrinsic/intrinsic_depth.txt").write_text("26 0 15.5\n0 26 11.5\n0 0 1\n")
    recording = read_scan(path).recording
    np.testing.assert_array_equal(recording.K_rgb_b33[0], K_33)
    np.testing.assert_array_equal(recording.K_depth_b33[0], [[26, 0, 15.5], [0, 26, 11.5], [0, 0, 1]])


# --- .sens ------------------------------------------------------------------------------------------


def test_a_sens_file_is_a_scan_by_itself(laid_out: Callable[[str], Path], box_room: Callable[..., Scan]) -> None:
    scan = read_scan(laid_out("scannet_sens") / "scene0000_00.sens")
    assert (scan.name, scan.source_format, len(scan.recording)) == ("scene0000_00", "scannet_sens", 12)
    np.testing.assert_allclose(scan.recording.timestamp_s_b, box_room().recording.timestamp_s_b, atol=1e-6)
    assert check_path(laid_out("scannet_sens") / "scene0000_00.sens").errors == ()


def test_sens_reads_raw_depth_another_shift_and_times_of_zero(
    laid_out: Callable[[str], Path], box_room: Callable[..., Scan]
) -> None:
    path, made = laid_out("scannet_sens") / "scene0000_00.sens", box_room()
    content = bytearray(path.read_bytes())[: 12 + 15 + 292]
    content[283 + 4 : 283 + 8] = struct.pack("<i", 0)
    content[283 + 24 : 283 + 36] = struct.pack("<fQ", 2000.0, 3)
    poses = made.scan_T_cam_b44.astype("<f4")
    poses[1] = -np.inf
    for i in range(3):
        rgb, depth = made.recording.rgb.encoded(i), (2 * made.recording.depth[i]).tobytes()
        content += poses[i].tobytes() + struct.pack("<4Q", 0, 0, len(rgb), len(depth)) + rgb + depth
    path.write_bytes(content)
    reading = read_all(path)
    assert len(reading.scan.recording) == 2
    np.testing.assert_allclose(reading.scan.recording.depth_m_hw(1), made.recording.depth_m_hw(2), rtol=1e-6)
    assert reading.scan.recording.rgb.encoded(1) == made.recording.rgb.encoded(2)
    assert reading.scan.recording.timestamp_s_b.tolist() == [0, 2]
    assert "frame 1" in reading.remarks[0].received


# --- COLMAP -----------------------------------------------------------------------------------------


def as_binary(path: Path) -> Path:
    """The same model as COLMAP itself writes it."""
    lines = (path / "sparse/0/images.txt").read_text().splitlines()[1:]
    content = struct.pack("<Q", len(lines) // 2)
    for view, points in zip(lines[::2], lines[1::2], strict=True):
        number, *pose, camera, name = view.split()
        triples = points.split()
        content += struct.pack("<i7di", int(number), *map(float, pose), int(camera)) + name.encode() + b"\0"
        content += struct.pack("<Q", len(triples) // 3)
        for x, y, point in zip(triples[::3], triples[1::3], triples[2::3], strict=True):
            content += struct.pack("<ddq", float(x), float(y), int(point))
    (path / "sparse/0/images.bin").write_bytes(content)
    (path / "sparse/0/cameras.bin").write_bytes(
        struct.pack("<QiiQQ8d", 1, 1, 4, 64, 48, 52, 52, 32, 24, 0.1, 0.2, 0.3, 0.4)
    )
    for name in ("cameras", "images", "points3D"):
        (path / f"sparse/0/{name}.txt").unlink()
    return path


def test_colmap_binary_is_the_same_model(laid_out: Callable[[str], Path], box_room: Callable[..., Scan]) -> None:
    path = laid_out("colmap")
    text, binary = read_scan(path), read_scan(as_binary(path))
    np.testing.assert_array_equal(text.scan_T_cam_b44, binary.scan_T_cam_b44)
    np.testing.assert_array_equal(text.recording.K_rgb_b33, binary.recording.K_rgb_b33)
    assert binary.recording.distortion_5 == (0.1, 0.2, 0.3, 0.4, 0.0)
    np.testing.assert_allclose(binary.scan_T_cam_b44, box_room().scan_T_cam_b44, atol=1e-12)


def test_colmap_is_not_metric_and_the_check_says_so(laid_out: Callable[[str], Path]) -> None:
    (error,) = check_path(laid_out("colmap")).errors
    assert error.received == "colour images only, in a scale that nobody knows"


@pytest.mark.parametrize(
    ("model", "parameters", "fx_fy_cx_cy", "lens"),
    [
        ("SIMPLE_PINHOLE", "50 32 24", (50, 50, 32, 24), (0, 0, 0, 0, 0)),
        ("SIMPLE_RADIAL", "50 32 24 0.1", (50, 50, 32, 24), (0.1, 0, 0, 0, 0)),
        ("RADIAL", "50 32 24 0.1 0.2", (50, 50, 32, 24), (0.1, 0.2, 0, 0, 0)),
        ("OPENCV", "50 51 32 24 1 2 3 4", (50, 51, 32, 24), (1, 2, 3, 4, 0)),
        ("FULL_OPENCV", "50 51 32 24 1 2 3 4 5 0 0 0", (50, 51, 32, 24), (1, 2, 3, 4, 5)),
    ],
)
def test_colmap_knows_its_pinhole_cameras(
    model: str, parameters: str, fx_fy_cx_cy: tuple, lens: tuple, laid_out: Callable[[str], Path]
) -> None:
    path = laid_out("colmap")
    (path / "sparse/0/cameras.txt").write_text(f"1 {model} 64 48 {parameters}\n")
    recording = read_scan(path).recording
    fx, fy, cx, cy = fx_fy_cx_cy
    np.testing.assert_array_equal(recording.K_rgb_b33[0], [[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    assert recording.distortion_5 == lens


def test_colmap_finds_its_images_where_they_lie(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("colmap")
    (path / "images").rename(path / "frames")
    (path / "sparse/0/images.txt").rename(path / "sparse/images.txt")
    (path / "sparse/0/cameras.txt").rename(path / "sparse/cameras.txt")
    assert read_all(path).image_names["rgb"][3] == "frames/0003.jpg"


def test_colmap_inside_a_nerfstudio_scan_is_no_second_format(
    laid_out: Callable[[str], Path], layouts, box_room
) -> None:
    path = laid_out("nerfstudio")
    layouts["colmap"](box_room(), path / "colmap")
    assert read_scan(path).source_format == "nerfstudio"


# --- Replica ----------------------------------------------------------------------------------------


def test_replica_takes_its_own_camera_where_none_is_given_and_says_so(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("replica")
    (path / "cam_params.json").unlink()
    with pytest.raises(ScanRejected, match=r"cam_params\.json: expected the camera's fx fy cx cy for images of 64x48"):
        read_scan(path)
    for file in (path / "results").glob("*.jpg"):
        file.write_bytes(encode_jpeg(np.zeros((680, 1200, 3), np.uint8)))
    reading = read_all(path)
    np.testing.assert_array_equal(reading.scan.recording.K_rgb_b33[0], [[600, 0, 599.5], [0, 600, 339.5], [0, 0, 1]])
    assert reading.scan.recording.metres_per_depth_unit == 1 / 6553.5
    assert "600 600 599.5 339.5" in reading.remarks[0].received


def test_replica_names_images_without_a_pose(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("replica")
    (path / "traj.txt").write_text("\n".join((path / "traj.txt").read_text().splitlines()[:10]))
    reading = read_all(path)
    assert len(reading.scan.recording) == 10
    assert "results/frame000010.jpg, results/frame000011.jpg" in reading.remarks[0].received


# --- Redwood ----------------------------------------------------------------------------------------


def test_redwood_takes_the_log_by_its_numbers_and_images_by_theirs(
    laid_out: Callable[[str], Path], box_room: Callable[..., Scan]
) -> None:
    path, made = laid_out("redwood"), box_room()
    for folder in ("color", "depth"):
        for file in (path / folder).iterdir():
            file.rename(file.with_stem(str(int(file.stem))))  # 1, 2, ... 12 without zeros
    lines = (path / "trajectory.log").read_text().splitlines()
    blocks = [lines[at : at + 5] for at in range(0, 60, 5)]
    order = [3, 0, 7, 11]
    (path / "trajectory.log").write_text("\n".join(line for i in order for line in blocks[i]))
    reading = read_all(path)
    assert reading.image_names["depth"] == ["depth/1.png", "depth/4.png", "depth/8.png", "depth/12.png"]
    np.testing.assert_allclose(reading.scan.scan_T_cam_b44, made.scan_T_cam_b44[sorted(order)], atol=1e-12)
    assert reading.scan.down_scan_3 is None


def test_redwood_takes_primesense_where_no_camera_is_given_and_says_so(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("redwood")
    (path / "intrinsic.json").unlink()
    with pytest.raises(ScanRejected, match=r"intrinsic\.json: expected the camera's K for images of 64x48; got none"):
        read_scan(path)
    for file in (path / "color").iterdir():
        file.write_bytes(encode_jpeg(np.zeros((480, 640, 3), np.uint8)))
    np.testing.assert_array_equal(read_scan(path).recording.K_rgb_b33[0, :2, 2], [319.5, 239.5])


def test_open3d_reads_the_trajectory_and_the_camera_as_written(box_room: Callable[..., Scan], tmp_path: Path) -> None:
    """Column after column, as Open3D's own PinholeCameraIntrinsic has it."""
    from geomagic_dagster.scans.formats import redwood

    redwood.write(box_room(2), tmp_path / "out")
    camera = json.loads((tmp_path / "out/intrinsic.json").read_text())
    assert camera == {"width": 64, "height": 48, "intrinsic_matrix": [52.0, 0, 0, 0, 52.0, 0, 31.5, 23.5, 1.0]}
    lines = (tmp_path / "out/trajectory.log").read_text().splitlines()
    assert (lines[0], lines[5], len(lines)) == ("0 0 1", "1 1 2", 10)
