"""What is special about each phone app's recordings: missing video, old exports, sizes of K, packed depth."""

from __future__ import annotations

import io
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomagic_dagster.cv.camera import scaled_intrinsics
from geomagic_dagster.cv.containers import encode_jpeg, encode_png
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Scan
from geomagic_dagster.scans.check import check_path
from geomagic_dagster.scans.formats import record3d
from geomagic_dagster.scans.reader import read_all, read_scan

DEPTH_K_33 = np.array([[52.0, 0, 31.5], [0, 52.0, 23.5], [0, 0, 1]])
ARKIT = ["polycam", "record3d", "scanner_3d_app", "stray_scanner"]


@pytest.mark.parametrize("name", [*ARKIT, "arkitscenes"])
def test_arkit_vouches_for_gravity_and_the_world_has_z_up(
    name: str, laid_out: Callable[[str], Path], box_room: Callable[..., Scan]
) -> None:
    scan = read_scan(laid_out(name))
    assert scan.down_scan_3 == (0.0, 0.0, -1.0)
    np.testing.assert_allclose(scan.scan_T_cam_b44[:, 2, 3], box_room().scan_T_cam_b44[:, 2, 3], atol=1e-9)
    assert "ARKit" in scan.device


@pytest.mark.parametrize("name", ["arkitscenes", "polycam", "record3d", "scanner_3d_app"])
def test_times_are_the_devices(name: str, laid_out: Callable[[str], Path], box_room: Callable[..., Scan]) -> None:
    times = read_scan(laid_out(name)).recording.timestamp_s_b
    np.testing.assert_allclose(times, box_room().recording.timestamp_s_b, rtol=0, atol=6e-4)


# --- Stray Scanner ----------------------------------------------------------------------------------


def without_video(path: Path) -> Path:
    (path / "rgb.mp4").unlink()
    K_33 = scaled_intrinsics(DEPTH_K_33, 1920 / 64, 1440 / 48)
    (path / "camera_matrix.csv").write_text("\n".join(", ".join(map(repr, each)) for each in K_33.tolist()))
    return path


def test_stray_scanner_without_its_video_has_no_colour_and_K_is_for_1920_by_1440(
    laid_out: Callable[[str], Path], box_room: Callable[..., Scan]
) -> None:
    path = without_video(laid_out("stray_scanner"))
    recording = read_scan(path).recording
    assert recording.rgb is None and recording.K_rgb_b33 is None
    np.testing.assert_allclose(recording.K_depth_b33[3], DEPTH_K_33, atol=1e-12)
    report = check_path(path)
    assert report.errors == ()
    (warning,) = (finding for finding in report.findings if finding.severity == "warning")
    assert (warning.place, warning.received) == ("colour", "none; the room will be grey")
    assert report.disagreement_m < 0.03


def test_stray_scanner_old_exports_have_seven_columns_and_npy(
    laid_out: Callable[[str], Path], box_room: Callable[..., Scan]
) -> None:
    path, made = laid_out("stray_scanner"), box_room()
    lines = (path / "odometry.csv").read_text().splitlines()
    (path / "odometry.csv").write_text("\n".join(",".join(line.split(", ")[2:]) for line in lines[1:]))
    for i in range(12):
        (path / f"depth/{i:06d}.png").unlink()
        np.save(path / f"depth/{i:06d}.npy", made.recording.depth[i])
    reading = read_all(path)
    np.testing.assert_allclose(reading.scan.scan_T_cam_b44, made.scan_T_cam_b44, atol=1e-12)
    np.testing.assert_array_equal(reading.scan.recording.depth[7], made.recording.depth[7])
    assert reading.scan.recording.depth.encoded(7).startswith(b"\x89PNG")
    assert np.ptp(reading.scan.recording.timestamp_s_b) == 11
    assert [f.received for f in reading.remarks] == ["none; taken as 1 s apart"]
    assert check_path(path).errors == ()


def test_stray_scanner_frames_that_lost_tracking_keep_their_pictures(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("stray_scanner")
    lines = (path / "odometry.csv").read_text().splitlines()
    lines[4] = ", ".join([*lines[4].split(", ")[:2], *["nan"] * 7])
    before = read_scan(path).recording.rgb.encoded(5)
    (path / "odometry.csv").write_text("\n".join(lines))
    reading = read_all(path)
    assert reading.image_names["rgb"][3:5] == ["rgb.mp4 frame 4", "rgb.mp4 frame 5"]
    assert reading.scan.recording.rgb.encoded(4) == before
    assert reading.image_names["depth"][3] == "depth/000004.png"


def test_stray_scanner_goes_without_confidence_when_some_is_missing(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("stray_scanner")
    (path / "confidence/000004.png").unlink()
    reading = read_all(path)
    assert reading.scan.recording.depth_confidence is None
    assert [f.received for f in reading.remarks] == ["none for 1 of 12 frames; all left out"]
    shutil.rmtree(path / "confidence")
    assert read_all(path).remarks == ()


# --- Record3D ---------------------------------------------------------------------------------------


def metadata(path: Path, change: Callable[[dict], object]) -> Path:
    content = json.loads((path / "metadata").read_text())
    change(content)
    (path / "metadata").write_text(json.dumps(content))
    return path


def test_record3d_is_read_as_the_r3d_file_that_the_app_gives(laid_out: Callable[[str], Path], tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "kitchen"), "zip", laid_out("record3d")))
    scan = read_scan(archive.rename(tmp_path / "kitchen.r3d"))
    assert (scan.name, scan.source_format, len(scan.recording)) == ("kitchen", "record3d", 12)


def test_record3d_takes_intrinsics_per_frame_and_K_column_after_column(laid_out: Callable[[str], Path]) -> None:
    coefficients = [[50.0 + i, 51.0 + i, 30.0, 20.0] for i in range(12)]
    path = metadata(laid_out("record3d"), lambda m: m.update(perFrameIntrinsicCoeffs=coefficients))
    K_b33 = read_scan(path).recording.K_rgb_b33
    np.testing.assert_array_equal(K_b33[4], [[54, 0, 30], [0, 55, 20], [0, 0, 1]])
    metadata(path, lambda m: m.update(perFrameIntrinsicCoeffs=None, K=[50, 0, 0, 0, 51, 0, 30, 20, 1]))
    np.testing.assert_array_equal(read_scan(path).recording.K_depth_b33[0], [[50, 0, 30], [0, 51, 20], [0, 0, 1]])


@pytest.mark.parametrize(("width", "height"), [(192, 256), (256, 192), (480, 640)])
def test_record3d_old_files_tell_the_size_of_depth_by_its_length(
    width: int, height: int, laid_out: Callable[[str], Path]
) -> None:
    import lzfse

    path = laid_out("record3d")
    depth = np.full((height, width), 2.5, "<f4")
    depth[0, :6] = [0, np.nan, np.inf, -1, 70, 1.2344]
    for i in range(12):
        (path / f"rgbd/{i}.depth").write_bytes(lzfse.compress(depth.tobytes()))
        (path / f"rgbd/{i}.conf").write_bytes(lzfse.compress(np.full(depth.shape, 1, np.uint8).tobytes()))
        (path / f"rgbd/{i}.jpg").write_bytes(encode_jpeg(np.zeros((4 * height, 4 * width, 3), np.uint8)))

    def older(said: dict) -> None:
        del said["dw"], said["dh"], said["frameTimestamps"]
        said.update(w=2 * width, h=2 * height, K=[300, 0, 0, 0, 300, 0, width - 0.5, height - 0.5, 1])

    recording = read_scan(metadata(path, older)).recording
    assert recording.depth[3].shape == recording.depth_confidence[3].shape == (height, width)
    assert recording.depth[3][0, :7].tolist() == [0, 0, 0, 0, 0, 1234, 2500]
    assert (recording.depth_confidence_hw(3) == 0.5).all()
    np.testing.assert_allclose(recording.K_depth_b33[0, :2, 2], [(width - 1) / 2, (height - 1) / 2])
    np.testing.assert_allclose(recording.K_rgb_b33[0, 0, 0], 600)
    np.testing.assert_allclose(recording.timestamp_s_b, np.arange(12) / 10)


def test_record3d_leaves_out_and_names_frames_with_missing_members(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("record3d")
    (path / "rgbd/4.depth").unlink()
    (path / "rgbd/6.jpg").unlink()
    reading = read_all(path)
    assert reading.image_names["rgb"] == [f"rgbd/{i}.jpg" for i in range(12) if i not in (4, 6)]
    told = " ".join(finding.received for finding in reading.remarks)
    assert "rgbd/4.jpg" in told and "rgbd/6.depth" in told
    for name in (path / "rgbd").glob("*.conf"):
        name.unlink()
    assert read_scan(path).recording.depth_confidence is None


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(0, 255), min_size=64, max_size=3000), times=st.integers(1, 30), at=st.data())
def test_record3d_never_unpacks_more_than_it_should(
    values: list[int], times: int, at: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import lzfse

    from geomagic_dagster.scans.files import ScanFiles

    raw = bytes(values) * times
    packed = bytearray(lzfse.compress(raw))
    folder = tmp_path_factory.mktemp("packed")
    (folder / "x").write_bytes(packed)
    files = ScanFiles(folder)
    assert record3d._unpacked(files, "x", np.uint8, len(raw)).tobytes() == raw
    packed[at.draw(st.integers(0, len(packed) - 1))] ^= at.draw(st.integers(1, 255))
    (folder / "x").write_bytes(packed)
    try:
        assert len(record3d._unpacked(files, "x", np.uint8, len(raw))) == len(raw)
    except ScanRejected as rejected:
        assert rejected.place == "x"  # noqa: PT017


def test_record3d_stops_at_the_size_that_it_should_have(tmp_path: Path) -> None:
    import lzfse

    from geomagic_dagster.scans.files import ScanFiles

    packed = bytearray(lzfse.compress(bytes(2**23)))
    packed[4:8] = struct.pack("<I", 16)  # of 8 MB
    (tmp_path / "x").write_bytes(packed)
    for claimed in (16, 2**20):
        with pytest.raises(ScanRejected, match=rf"x: expected {claimed} bytes when unpacked; got more than {claimed}"):
            record3d._unpacked(ScanFiles(tmp_path), "x", np.uint8, claimed)


# --- Polycam ----------------------------------------------------------------------------------------


def test_polycam_prefers_the_corrected_cameras_and_says_when_there_are_none(
    laid_out: Callable[[str], Path], box_room: Callable[..., Scan]
) -> None:
    path = laid_out("polycam")
    for file in (path / "keyframes/cameras").iterdir():  # as tracked, before the correction: somewhere else
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content | {"t_03": content["t_03"] + 1}))
    reading = read_all(path)
    assert reading.image_names["rgb"][0].startswith("keyframes/corrected_images/")
    assert reading.remarks == ()
    shutil.rmtree(path / "keyframes/corrected_cameras")
    reading = read_all(path)
    assert reading.image_names["rgb"][0].startswith("keyframes/images/")
    np.testing.assert_allclose(reading.scan.scan_T_cam_b44[:, 0, 3], box_room().scan_T_cam_b44[:, 0, 3] + 1, atol=1e-9)
    assert [f.received for f in reading.remarks] == ["none; taken as ARKit tracked them"]


def test_polycam_scales_K_to_smaller_depth_and_takes_the_size_from_the_image_where_none_is_said(
    laid_out: Callable[[str], Path],
) -> None:
    path = laid_out("polycam")
    for file in (path / "keyframes/depth").iterdir():
        file.write_bytes(encode_png(np.full((24, 32), 2000, np.uint16)))
    for file in (path / "keyframes/corrected_cameras").iterdir():
        content = json.loads(file.read_text())
        del content["width"], content["height"]
        file.write_text(json.dumps(content))
    recording = read_scan(path).recording
    np.testing.assert_allclose(recording.K_rgb_b33[3], DEPTH_K_33)
    np.testing.assert_allclose(recording.K_depth_b33[3], [[26, 0, 15.5], [0, 26, 11.5], [0, 0, 1]])


def test_polycam_confidence_has_255_for_full_trust(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("polycam")
    first = min((path / "keyframes/confidence").iterdir())
    level = np.full((48, 64), 127, np.uint8)
    level[0, 0], level[0, 1] = 0, 255
    first.write_bytes(encode_png(level))
    assert read_scan(path).recording.depth_confidence_hw(0)[0, :3] == pytest.approx([0, 1, 0.5], abs=0.01)


def test_polycam_without_lidar_is_a_scan_without_depth(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("polycam")
    shutil.rmtree(path / "keyframes/depth")
    recording = read_scan(path).recording
    assert recording.depth is None and recording.depth_confidence is None
    assert "depth images" in check_path(path).errors[0].expected


def test_polycam_may_be_packed_from_inside_its_folder(laid_out: Callable[[str], Path]) -> None:
    assert len(read_scan(laid_out("polycam") / "keyframes").recording) == 12


# --- 3D Scanner App ---------------------------------------------------------------------------------


def test_scanner_3d_app_takes_the_frames_that_have_colour_and_does_not_warn(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("scanner_3d_app")
    for i in range(12):
        if i % 3:
            (path / f"frame_{i:05d}.jpg").unlink()
    reading = read_all(path)
    assert reading.image_names["depth"] == [f"depth_{i:05d}.png" for i in (0, 3, 6, 9)]
    assert {finding.severity for finding in reading.remarks} == {"note"}
    assert "8 of 12 files of depth without the rest" in " ".join(finding.received for finding in reading.remarks)


def test_scanner_3d_app_without_any_colour_is_read_by_its_depth(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("scanner_3d_app")
    for file in path.glob("*.jpg"):
        file.unlink()
    K_33 = scaled_intrinsics(DEPTH_K_33, 1920 / 64, 1440 / 48)
    for file in path.glob("frame_*.json"):
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content | {"intrinsics": K_33.ravel().tolist()}))
    recording = read_scan(path).recording
    assert recording.rgb is None
    assert len(recording) == 12
    np.testing.assert_allclose(recording.K_depth_b33[0], DEPTH_K_33, atol=1e-12)


def test_an_old_npy_is_never_unpickled(laid_out: Callable[[str], Path]) -> None:
    path = laid_out("stray_scanner")
    (path / "depth/000000.png").unlink()
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], object), allow_pickle=True)
    (path / "depth/000000.npy").write_bytes(pickled.getvalue())
    with pytest.raises(ScanRejected, match=r"^depth/000000\.npy: expected a numpy array"):
        read_scan(path)
