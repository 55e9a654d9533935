"""A scan written as another format and read again is the same scan, as far as the format can hold it; the rest is said."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from geomagic_dagster.cv.camera import scaled_intrinsics
from geomagic_dagster.cv.containers import EncodedImages, encode_jpeg, encode_png
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Scan
from geomagic_dagster.scans.convert import convert, writers
from geomagic_dagster.scans.files import ScanFiles
from geomagic_dagster.scans.made_up import PHONE, make_room, scan_room
from geomagic_dagster.scans.reader import known_formats, read_all, read_scan

Layouts = Mapping[str, Callable[[Scan, Path], None]]
WRITTEN = sorted(writers())
WITH_TIMES = {"canonical", "tum_rgbd", "stray_scanner"}
WITH_DEPTH = set(WRITTEN) - {"colmap"}
QUANTUM_M = {"tum_rgbd": 1 / 5000, "replica": 1 / 6553.5}
TWO_SIZES = {"canonical", "nerfstudio", "scannet", "stray_scanner"}
LOSSY_COLOUR = {"stray_scanner"}
HOLD_A_LENS = {"canonical", "colmap", "nerfstudio"}


@pytest.fixture(scope="module")
def phone_scan() -> Scan:
    """A furnished made-up room as a phone records it: noise, holes, odd poses; depth as large as colour."""
    made = scan_room(make_room(4), PHONE.but(frames=6, size_wh=(96, 72))).scan
    times = 1732.5 + np.cumsum([0.0, 0.1, 1 / 3, 0.05, 0.2, 0.1])
    return replace(made, recording=replace(made.recording, timestamp_s_b=times))


def with_recording(scan: Scan, **changed: object) -> Scan:
    return replace(scan, recording=replace(scan.recording, **changed))


def assert_held(read: Scan, scan: Scan, name: str) -> None:
    """Everything that the format has a place for."""
    recording, true = read.recording, scan.recording
    assert len(recording) == len(true)
    np.testing.assert_allclose(read.scan_T_cam_b44, scan.scan_T_cam_b44, rtol=0, atol=1e-6)
    np.testing.assert_allclose(recording.K_rgb_b33, true.K_rgb_b33, rtol=1e-14, atol=0)
    if name in WITH_TIMES:
        np.testing.assert_array_equal(recording.timestamp_s_b, true.timestamp_s_b)
    assert (np.diff(recording.timestamp_s_b) > 0).all()
    for i in range(len(true)):
        rgb = recording.rgb[i].astype(int)
        apart_b = [np.abs(rgb - true.rgb[k]).mean() for k in range(len(true))]
        assert apart_b[i] < 15 if name in LOSSY_COLOUR else apart_b[i] == 0
        assert np.argmin(apart_b) == i
    assert read.is_metric == (name in WITH_DEPTH)
    if name not in WITH_DEPTH:
        assert recording.depth is None
        return
    np.testing.assert_allclose(recording.K_depth_b33, true.K_depth_b33, rtol=1e-14, atol=0)
    for i in range(len(true)):
        depth_m, true_m = recording.depth_m_hw(i), true.depth_m_hw(i)
        quantum_m = QUANTUM_M.get(name, 0.001)
        is_near = true_m < 65535 * quantum_m
        np.testing.assert_allclose(
            depth_m[is_near], true_m[is_near], rtol=1e-6, atol=quantum_m / 2 * (name == "replica")
        )
        np.testing.assert_array_equal(depth_m == 0, (true_m == 0) | ~is_near)
    assert recording.metres_per_depth_unit == QUANTUM_M.get(name, 0.001)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_made_up_room_comes_back(name: str, phone_scan: Scan, tmp_path: Path) -> None:
    remarks = writers()[name](phone_scan, tmp_path / "out")
    assert_held(read_scan(tmp_path / "out"), phone_scan, name)
    assert ScanFiles(tmp_path / "out").names()
    assert (remarks == []) == (name == "canonical")
    for remark in remarks:
        assert remark.endswith(".")
        assert "\n" not in remark


@pytest.mark.parametrize("source", sorted(each.NAME for each in known_formats()))
@pytest.mark.parametrize("name", WRITTEN)
def test_every_format_converts_to_every_other(
    name: str, source: str, layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    layouts[source](box_room(4), tmp_path / "in")
    if source == "colmap" and name not in ("canonical", "colmap", "nerfstudio"):
        with pytest.raises(ScanRejected, match=rf"as {name} has to have; got .* Convert to canonical"):
            convert(tmp_path / "in", tmp_path / "out", name)
        return
    convert(tmp_path / "in", tmp_path / "out", name)
    read, given = read_scan(tmp_path / "out"), read_scan(tmp_path / "in")
    if name == "canonical":
        assert read.source_format == given.source_format
    poses, true = read.scan_T_cam_b44, given.scan_T_cam_b44
    if (source, name) == ("seven_scenes", "stray_scanner"):  # gravity is tilted in the one, and along -z in the other
        poses, true = (np.linalg.inv(each[0]) @ each for each in (poses, true))
    np.testing.assert_allclose(poses, true, rtol=0, atol=1e-6)
    np.testing.assert_allclose(read.recording.K_rgb_b33, given.recording.K_rgb_b33, rtol=1e-14)
    if name in WITH_DEPTH and source != "colmap":
        quantum_m = max(read.recording.metres_per_depth_unit, given.recording.metres_per_depth_unit)
        np.testing.assert_allclose(
            read.recording.depth_m_hw(2), given.recording.depth_m_hw(2), atol=quantum_m / 2 + 1e-6
        )


@pytest.mark.parametrize("name", sorted(TWO_SIZES))
def test_depth_of_another_size_than_colour_is_held(name: str, tmp_path: Path) -> None:
    made = scan_room(make_room(5), PHONE.but(frames=3, size_wh=(128, 96), depth_size_wh=(64, 48))).scan
    writers()[name](made, tmp_path / "out")
    read = read_scan(tmp_path / "out")
    np.testing.assert_allclose(read.recording.K_depth_b33, made.recording.K_depth_b33, rtol=1e-12)
    np.testing.assert_allclose(read.recording.depth_m_hw(1), made.recording.depth_m_hw(1), rtol=1e-6)


@pytest.mark.parametrize("name", sorted(WITH_DEPTH - TWO_SIZES))
def test_depth_of_another_size_than_colour_is_refused_where_it_cannot_be_held(name: str, tmp_path: Path) -> None:
    made = scan_room(make_room(5), PHONE.but(frames=2, size_wh=(128, 96), depth_size_wh=(64, 48))).scan
    with pytest.raises(
        ScanRejected, match=rf"size of colour \(128x96\), as {name} has to have; got 64x48\. Convert to"
    ):
        writers()[name](made, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(WITH_DEPTH - {"canonical", "scannet"}))
def test_another_K_of_depth_is_refused_where_there_is_only_one(
    name: str, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    scan = box_room(2)
    K_depth_b33 = scan.recording.K_depth_b33 + np.array([[0, 0, 3.0], [0, 0, 0], [0, 0, 0]])
    with pytest.raises(ScanRejected, match=r"K of the depth images: .* got one that is 3\.00 pixels off"):
        writers()[name](with_recording(scan, K_depth_b33=K_depth_b33), tmp_path / "out")


@pytest.mark.parametrize("name", WRITTEN)
def test_K_that_changes_from_frame_to_frame_is_held_or_said(
    name: str, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    scan = box_room(3)
    K_b33 = scaled_intrinsics(scan.recording.K_rgb_b33, 1.0, 1.0)
    K_b33[2, 0, 0] += 0.4
    scan = with_recording(scan, K_rgb_b33=K_b33, K_depth_b33=K_b33)
    remarks = " ".join(writers()[name](scan, tmp_path / "out"))
    read = read_scan(tmp_path / "out").recording.K_rgb_b33
    if name in ("canonical", "nerfstudio", "colmap"):
        np.testing.assert_allclose(read, K_b33, rtol=1e-14)
        assert "K differs" not in remarks
    else:
        np.testing.assert_allclose(read, np.repeat(K_b33[:1], 3, axis=0), rtol=1e-14)
        assert "K differs from frame to frame; the median is written, up to 0.40 pixels off." in remarks


@pytest.mark.parametrize("name", WRITTEN)
def test_lens_distortion_is_held_or_taken_out(name: str, box_room: Callable[..., Scan], tmp_path: Path) -> None:
    scan = with_recording(box_room(2), distortion_5=(0.2, -0.1, 0.001, 0.002, 0.03))
    remarks = " ".join(writers()[name](scan, tmp_path / "out"))
    recording = read_scan(tmp_path / "out").recording
    if name in HOLD_A_LENS:
        assert recording.distortion_5 == scan.recording.distortion_5
        assert recording.rgb.encoded(1) == scan.recording.rgb.encoded(1)
    else:
        assert not any(recording.distortion_5)
        assert "The lens distortion is taken out of the images" in remarks
        assert np.abs(recording.rgb_hw3(0).astype(int) - scan.recording.rgb_hw3(0)).mean() < 15
        np.testing.assert_allclose(recording.depth_m_hw(1), scan.recording.depth_m_hw(1), atol=0.0005)


@pytest.mark.parametrize(
    ("name", "furthest_m"), [("tum_rgbd", 13.107), ("replica", 10.0), ("seven_scenes", 65.534), ("scannet", 65.535)]
)
def test_depth_beyond_the_format_becomes_none_and_is_counted(
    name: str, furthest_m: float, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    scan = box_room(2)
    far = scan.recording.depth[0].copy()
    far[5, 3:10] = 16000  # of 4 mm: 64 m
    far[6, 3:6] = 20000  # 80 m
    depth = EncodedImages([encode_png(far), scan.recording.depth.encoded(1)])
    scan = with_recording(scan, depth=depth, metres_per_depth_unit=0.004)
    remarks = " ".join(writers()[name](scan, tmp_path / "out"))
    read = read_scan(tmp_path / "out").recording.depth_m_hw(0)
    true = scan.recording.depth_m_hw(0)
    np.testing.assert_array_equal(read == 0, true > furthest_m + 1e-3)
    assert (
        f"{(true > furthest_m + 1e-3).sum() + (scan.recording.depth_m_hw(1) > furthest_m + 1e-3).sum()} pixels"
        in remarks
    )


def test_a_finer_depth_is_rounded_and_that_is_said(box_room: Callable[..., Scan], tmp_path: Path) -> None:
    scan = with_recording(box_room(2), metres_per_depth_unit=1 / 5000)
    remarks = writers()["scannet"](scan, tmp_path / "out")
    assert "Depth is rounded from units of 0.2 mm to 1 mm." in remarks
    np.testing.assert_allclose(
        read_scan(tmp_path / "out").recording.depth_m_hw(0), scan.recording.depth_m_hw(0), atol=0.0005001
    )
    assert not any("rounded" in each for each in writers()["tum_rgbd"](box_room(2), tmp_path / "exact"))


def test_what_a_format_has_no_place_for_is_named(box_room: Callable[..., Scan], tmp_path: Path) -> None:
    remarks = writers()["replica"](box_room(2), tmp_path / "out")
    assert remarks[0] == (
        "replica has no place for: times of the frames, confidence of depth, direction of gravity, device (a ruler), "
        "consent (research). Left out."
    )


@pytest.mark.parametrize("name", ["scannet", "replica"])
def test_colour_is_encoded_anew_only_where_the_layout_asks_for_it(
    name: str, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    scan = box_room(2)
    as_png = with_recording(scan, rgb=EncodedImages(encode_png(picture) for picture in scan.recording.rgb))
    assert "2 colour images are encoded anew as JPG." in writers()[name](as_png, tmp_path / "png")
    writers()[name](scan, tmp_path / "jpg")
    assert read_scan(tmp_path / "jpg").recording.rgb.encoded(1) == scan.recording.rgb.encoded(1)


def test_stray_scanner_keeps_gravity_upright(box_room: Callable[..., Scan], tmp_path: Path) -> None:
    tilted = replace(box_room(3), down_scan_3=(0.0, 0.6, -0.8))
    assert any("turned so that gravity" in each for each in writers()["stray_scanner"](tilted, tmp_path / "out"))
    read = read_scan(tmp_path / "out")
    before = tilted.scan_T_cam_b44[:, :3, :3].transpose(0, 2, 1) @ np.array(tilted.down_scan_3)
    after = read.scan_T_cam_b44[:, :3, :3].transpose(0, 2, 1) @ np.array(read.down_scan_3)
    np.testing.assert_allclose(after, before, atol=1e-9)  # as each camera feels it
    unknown = replace(tilted, down_scan_3=None)
    assert any("Nobody vouches for gravity" in each for each in writers()["stray_scanner"](unknown, tmp_path / "u"))


def test_stray_scanner_rounds_other_confidences(box_room: Callable[..., Scan], tmp_path: Path) -> None:
    scan = box_room(2)
    level = np.linspace(0, 255, 64 * 48).reshape(48, 64).astype(np.uint8)
    scan = with_recording(scan, depth_confidence=EncodedImages([encode_png(level)] * 2), depth_confidence_max=255)
    assert "Confidence is rounded to 0, 1 or 2." in writers()["stray_scanner"](scan, tmp_path / "out")
    read = read_scan(tmp_path / "out").recording.depth_confidence_hw(1)
    assert set(np.unique(read)) == {0.0, 0.5, 1.0}
    assert np.abs(read - level / 255).max() <= 0.2501


LACKS = {
    "colour": lambda scan: with_recording(scan, rgb=None, K_rgb_b33=None),
    "depth": lambda scan: with_recording(scan, depth=None, K_depth_b33=None, depth_confidence=None),
    "poses": lambda scan: replace(scan, scan_T_cam_b44=None),
    "metres": lambda scan: replace(scan, is_metric=False),
}
CAN_DO_WITHOUT = {
    "colour": {"canonical", "stray_scanner"},
    "depth": {"canonical", "colmap", "nerfstudio", "seven_scenes"},
    "poses": {"canonical", "seven_scenes", "tum_rgbd"},
    "metres": {"canonical", "colmap"},
}


@pytest.mark.parametrize("lacks", LACKS)
@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_format_cannot_do_without_is_asked_for(
    name: str, lacks: str, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    scan = LACKS[lacks](box_room(2))
    if name in CAN_DO_WITHOUT[lacks]:
        writers()[name](scan, tmp_path / "out")
        read = read_scan(tmp_path / "out")
        assert (read.recording.rgb is None) == (lacks == "colour")
        assert (read.recording.depth is None) == (lacks == "depth" or name == "colmap")
        assert (read.scan_T_cam_b44 is None) == (lacks == "poses")
        return
    with pytest.raises(ScanRejected, match=rf"^{lacks}: expected {lacks}, as {name} has to have; got a scan"):
        writers()[name](scan, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITTEN)
def test_writing_is_whole_or_not_at_all(name: str, box_room: Callable[..., Scan], tmp_path: Path) -> None:
    def full_disk() -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    scan = box_room(3)
    broken = with_recording(scan, rgb=EncodedImages([scan.recording.rgb.encoded(0), full_disk, full_disk]))
    with pytest.raises(OSError, match="No space left"):
        writers()[name](broken, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match=r"expected a folder that is not there yet\. Choose another"):
        writers()[name](scan, tmp_path / "out")


def test_the_same_scan_gives_the_same_bytes(phone_scan: Scan, tmp_path: Path) -> None:
    for name in WRITTEN:
        for copy in ("a", "b"):
            writers()[name](phone_scan, tmp_path / name / copy)
        assert len({ScanFiles(tmp_path / name / copy).digest() for copy in ("a", "b")}) == 1, name


def test_an_odd_size_cannot_be_a_video(box_room: Callable[..., Scan], tmp_path: Path) -> None:
    odd = EncodedImages([encode_jpeg(np.zeros((48, 63, 3), np.uint8))] * 2)
    scan = with_recording(box_room(2), rgb=odd)
    K_b33 = scaled_intrinsics(scan.recording.K_depth_b33, 63 / 64, 1.0)
    with pytest.raises(ScanRejected, match=r"even width and height.*got 63x48"):
        writers()["stray_scanner"](with_recording(scan, K_rgb_b33=K_b33), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_frames_that_the_reader_left_out_are_said(
    layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    layouts["scannet"](box_room(), tmp_path / "in")
    (tmp_path / "in/pose/3.txt").write_text("-inf " * 16)
    remarks = convert(tmp_path / "in", tmp_path / "out", "redwood")
    assert "poses: 1 of 12 without a finite pose (tracking lost), left out: pose/3.txt." in remarks
    assert len(read_scan(tmp_path / "out").recording) == 11


# --- on the command line ----------------------------------------------------------------------------


def run(*arguments: object) -> tuple[int, str, str]:
    from geomagic_dagster.cli import app

    result = CliRunner().invoke(app, ["scan", "convert", *map(str, arguments)])
    return result.exit_code, result.stdout.strip(), result.stderr.strip()


def test_the_command_converts_and_says_what_was_lost(laid_out: Callable[[str], Path], tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "room"), "zip", laid_out("polycam"))
    code, out, err = run(archive, tmp_path / "out", "--to", "tum")
    assert (code, out) == (0, str(tmp_path / "out"))
    assert (
        err == "tum_rgbd has no place for: confidence of depth, direction of gravity, device (ARKit device). Left out."
    )
    assert read_all(tmp_path / "out").scan.source_format == "tum_rgbd"


@pytest.mark.parametrize("to", ["usd", "s", ""])
def test_the_command_lists_what_can_be_written(to: str, laid_out: Callable[[str], Path], tmp_path: Path) -> None:
    code, out, err = run(laid_out("polycam"), tmp_path / "out", "--to", to)
    assert (code, out) == (2, "")
    assert err == (
        "the format to convert to: expected one of canonical, colmap, nerfstudio, redwood, replica, scannet, "
        f"seven_scenes, stray_scanner, tum_rgbd; got {to or 'none'}. Choose one of these."
    )


def test_the_command_refuses_to_overwrite(laid_out: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    code, _, err = run(laid_out("polycam"), tmp_path / "out", "--to", "tum_rgbd")
    assert code == 2
    assert "expected a folder that is not there yet" in err
