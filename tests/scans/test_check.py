"""The check measures what is there, names what is wrong, and stays quiet about what is right."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rich.console import Console

from geomagic_dagster.cv.camera import invert_pose, scaled_intrinsics
from geomagic_dagster.cv.containers import EncodedImages, encode_png
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Scan
from geomagic_dagster.scans.check import Finding, ScanReport, check_path, check_scan, raise_errors, render
from geomagic_dagster.scans.formats import ZUP_R_YDOWN_33, ZUP_R_YUP_33
from geomagic_dagster.scans.reader import read_scan

Layouts = Mapping[str, Callable[[Scan, Path], None]]
OPENGL = np.diag([1.0, -1, -1, 1])


def worded(report: ScanReport) -> str:
    return "\n".join(f"{f.severity} {f.place}: {f.expected}; {f.received}; {f.do}" for f in report.findings)


def only_error(report: ScanReport) -> Finding:
    assert len(report.errors) == 1, worded(report)
    return report.errors[0]


def with_poses(scan: Scan, pose_b44: np.ndarray) -> Scan:
    return replace(scan, scan_T_cam_b44=pose_b44)


def in_millimetres(pose_b44: np.ndarray) -> np.ndarray:
    scaled = pose_b44.copy()
    scaled[:, :3, 3] *= 1000
    return scaled


WRONG_CONVENTIONS = [
    pytest.param(
        invert_pose,
        "world-to-camera (inverted), OpenCV camera axes, metres",
        "invert each pose matrix",
        id="inverted",
    ),
    pytest.param(
        lambda pose: pose @ OPENGL,
        "camera-to-world, OpenGL camera axes, metres",
        "negate the second and third column",
        id="OpenGL",
    ),
    pytest.param(
        lambda pose: invert_pose(pose @ OPENGL),
        "world-to-camera (inverted), OpenGL camera axes, metres",
        "invert each pose matrix",
        id="inverted OpenGL",
    ),
    pytest.param(
        in_millimetres,
        "camera-to-world, OpenCV camera axes, millimetres",
        "divide the translations by 1000",
        id="millimetres",
    ),
    pytest.param(
        lambda pose: in_millimetres(invert_pose(pose)),
        "world-to-camera (inverted), OpenCV camera axes, millimetres",
        "divide the translations by 1000",
        id="inverted millimetres",
    ),
]
wrong_conventions = pytest.mark.parametrize(("spoil", "name", "mend"), WRONG_CONVENTIONS)


# --- real scans -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hololens_office_kitchen", "tum_fr3_cabinet"])
def test_a_real_scan_passes(name: str, real_scans: Path) -> None:
    report = check_path(real_scans / name)
    assert report.errors == (), worded(report)
    assert report.disagreement_m is not None
    assert 0.001 < report.disagreement_m < 0.02
    assert report.median_depth_m is not None
    assert 1 < report.median_depth_m < 5
    raise_errors(report)


@wrong_conventions
@pytest.mark.parametrize("scan_name", ["hololens_office_kitchen", "tum_fr3_cabinet"])
def test_a_wrong_convention_of_a_real_scan_is_named(
    scan_name: str, spoil: Callable, name: str, mend: str, real_scans: Path
) -> None:
    whole = read_scan(real_scans / scan_name)
    some = np.arange(0, 40)
    scan = replace(whole, recording=whole.recording.select(some), scan_T_cam_b44=whole.scan_T_cam_b44[some])
    error = only_error(check_scan(with_poses(scan, spoil(scan.scan_T_cam_b44))))
    assert error.place == "poses"
    assert f"taken as {name} they are" in error.received
    assert f"The poses are {name}." in error.do
    assert mend in error.do
    given, fitting = re.search(
        r"^(?:(\d+)\.\d cm apart|frames that do not meet); .* (\d+\.\d) cm apart$", error.received
    ).groups()
    assert float(fitting) < 3
    assert given is None or float(given) > 15


def test_a_real_scan_without_depth_and_scale_cannot_be_processed(real_scans: Path) -> None:
    report = check_path(real_scans / "studio_bedroom_rgb")
    error = only_error(report)
    assert error.expected == "depth images and a metric scale"
    assert error.received == "colour images only, in a scale that nobody knows"
    assert (report.frames, report.rgb_wh, report.depth_wh, report.is_metric) == (35, (1920, 1080), None, False)
    with pytest.raises(ScanRejected, match="expected depth images and a metric scale"):
        raise_errors(report)


# --- conventions of the made scan -----------------------------------------------------------------


@wrong_conventions
@pytest.mark.parametrize("layout", ["hololens", "seven_scenes", "nerfstudio"])
def test_a_wrong_convention_in_the_file_is_named_as_the_file_has_it(
    layout: str, spoil: Callable, name: str, mend: str, layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    """Readers turn worlds and flip cameras; the name still has to be that of the file's own matrices."""
    scan, path = box_room(), tmp_path / "room"
    to_file_44 = np.eye(4)
    to_file_44[:3, :3] = {"hololens": ZUP_R_YUP_33.T, "seven_scenes": ZUP_R_YDOWN_33.T, "nerfstudio": np.eye(3)}[layout]
    in_file_b44 = spoil(to_file_44 @ scan.scan_T_cam_b44)
    written_b44 = to_file_44.T @ in_file_b44 @ (OPENGL if layout == "nerfstudio" else np.eye(4))
    layouts[layout](with_poses(scan, written_b44), path)
    report = check_path(path)
    if layout == "nerfstudio" and name == "camera-to-world, OpenGL camera axes, metres":
        assert report.errors == ()  # there it is the convention
    else:
        assert f"The poses are {name}." in only_error(report).do, worded(report)


def test_opencv_axes_in_a_transforms_json_are_named(
    layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    scan = box_room()
    layouts["nerfstudio"](with_poses(scan, scan.scan_T_cam_b44 @ OPENGL), tmp_path / "room")
    error = only_error(check_path(tmp_path / "room"))
    assert error.expected.endswith("with poses camera-to-world, OpenGL camera axes, metres")
    assert "The poses are camera-to-world, OpenCV camera axes, metres." in error.do


@pytest.mark.parametrize("factor", [5.0, 0.2, 4.0])
def test_depth_of_another_unit_than_the_poses_is_named_by_its_factor(
    factor: float, box_room: Callable[..., Scan]
) -> None:
    scan = box_room()
    mistaken = replace(scan, recording=replace(scan.recording, metres_per_depth_unit=0.001 * factor))
    report = check_scan(mistaken)
    assert f"{1 / factor:g}" in only_error(report).received + only_error(report).do, worded(report)


def test_poses_that_fit_under_no_convention_are_told_with_their_figure(box_room: Callable[..., Scan]) -> None:
    scan = box_room()
    jumps = np.random.default_rng(0).normal(0, 0.6, (12, 3))
    pose_b44 = scan.scan_T_cam_b44.copy()
    pose_b44[:, :3, 3] += jumps
    error = only_error(check_scan(with_poses(scan, pose_b44)))
    assert "no other known convention of poses fits" in error.received
    assert " cm apart (" in error.received


def test_a_small_drift_is_no_error_and_a_larger_one_a_warning(box_room: Callable[..., Scan]) -> None:
    scan = box_room()
    noise = np.random.default_rng(1).normal(0, 1, (12, 3))
    worst = []
    for size_m in (0.0, 0.01, 0.12):
        pose_b44 = scan.scan_T_cam_b44.copy()
        pose_b44[:, :3, 3] += size_m * noise
        worst.append([f.severity for f in check_scan(with_poses(scan, pose_b44)).findings])
    assert worst == [[], [], ["warning"]]


def test_few_frames_that_overlap_and_agree_are_a_warning(
    box_room: Callable[..., Scan], see: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> None:
    scan = box_room(8)
    pose_b44 = scan.scan_T_cam_b44.copy()
    half_turn = np.diag([-1.0, 1, -1, 1])
    away = [2, 4, 6]  # frames that look away from what the others see: most neighbours do not overlap
    pose_b44[away] = pose_b44[away] @ half_turn
    views = [encode_png(see(pose)[1]) for pose in pose_b44]
    recording = replace(scan.recording, depth=EncodedImages(views))
    report = check_scan(replace(scan, recording=recording, scan_T_cam_b44=pose_b44))
    assert [f.severity for f in report.findings] == ["warning"], worded(report)
    assert "frames without overlap (6 of 7 pairs)" in report.findings[0].received


# --- numbers --------------------------------------------------------------------------------------


def test_the_report_measures_the_walk_and_the_depth(box_room: Callable[..., Scan]) -> None:
    scan = box_room()
    report = check_scan(scan)
    way_b3 = scan.scan_T_cam_b44[:, :3, 3]
    depth = np.stack([scan.recording.depth_m_hw(i) for i in range(12)])
    assert report.frames == 12
    assert report.duration_s == pytest.approx(1.1)
    assert report.path_m == pytest.approx(np.linalg.norm(np.diff(way_b3, axis=0), axis=1).sum())
    assert report.extent_m_3 == pytest.approx(np.ptp(way_b3, axis=0))
    assert report.median_depth_m == pytest.approx(np.median(depth), rel=0.1)
    assert report.depth_coverage == 1.0
    assert (report.device, report.consent, report.has_gravity) == ("a ruler", "research", True)
    assert report.findings == ()


@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0, 3.0, 7.5])
@pytest.mark.parametrize("kind", ["rgb", "depth"])
def test_K_of_another_resolution_is_named_with_its_factor(
    kind: str, factor: float, box_room: Callable[..., Scan]
) -> None:
    scan = box_room(3)
    wrong = scaled_intrinsics(scan.recording.K_rgb_b33, factor, factor)
    report = check_scan(replace(scan, recording=replace(scan.recording, **{f"K_{kind}_b33": wrong})))
    error = only_error(report)
    assert error.place == f"K of the {'colour' if kind == 'rgb' else 'depth'} images"
    assert error.expected == "one for 64x48"
    assert error.received == f"one for {factor:.3g} times that, about {64 * factor:.0f}x{48 * factor:.0f}"
    assert f"by {1 / factor:.4g}" in error.do


def test_K_of_the_turned_image_is_told(box_room: Callable[..., Scan]) -> None:
    scan = box_room(3)
    K_b33 = np.repeat([[[52.0, 0, 23.5], [0, 52.0, 31.5], [0, 0, 1]]], 3, axis=0)
    error = only_error(check_scan(replace(scan, recording=replace(scan.recording, K_rgb_b33=K_b33))))
    assert error.received == "one for 48x64 (cx and cy exchanged)"


@pytest.mark.parametrize(
    ("K", "words"),
    [
        ([[52, 0, 31.5], [0, -52, 23.5], [0, 0, 1]], "fx and fy above 0"),
        ([[np.nan, 0, 31.5], [0, 52, 23.5], [0, 0, 1]], "nan"),
        ([[52, 0, 0], [0, 52, 0], [31.5, 23.5, 1]], "[31.5, 23.5, 1.0]"),
        ([[5000, 0, 31.5], [0, 5000, 23.5], [0, 0, 1]], "0.7 x 0.6 degrees"),
        ([[52, 0, 80.0], [0, 52, 23.5], [0, 0, 1]], "(80.0, 23.5)"),
    ],
)
def test_K_that_no_camera_has_is_told(K: list, words: str, box_room: Callable[..., Scan]) -> None:
    scan = box_room(3)
    K_b33 = np.repeat(np.array([K], np.float64), 3, axis=0)
    report = check_scan(replace(scan, recording=replace(scan.recording, K_depth_b33=K_b33)))
    assert words in worded(report)
    assert only_error(report).place == "K of the depth images"


def test_gravity_that_turns_most_images_upside_down_is_told(box_room: Callable[..., Scan]) -> None:
    report = check_scan(replace(box_room(), down_scan_3=(0.0, 0.0, 1.0)))
    assert [f.place for f in report.findings] == ["gravity"]
    assert "most of them upside down" in report.findings[0].received
    report = check_scan(replace(box_room(), down_scan_3=(0.0, 0.0, -2.0)))
    assert only_error(report).expected == "a direction of length 1"


def test_a_phone_that_stands_upright_is_not_upside_down(box_room: Callable[..., Scan]) -> None:
    scan = box_room(6)
    quarter = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    report = check_scan(with_poses(scan, scan.scan_T_cam_b44 @ quarter))
    assert not [f for f in report.findings if f.place == "gravity"]


# --- pose matrices --------------------------------------------------------------------------------

rotation_vectors = arrays.arrays(np.float64, (3,), elements=st.floats(-3, 3))
positions = arrays.arrays(np.float64, (3,), elements=st.floats(-50, 50))


def rigid(rotation_vector: np.ndarray, position: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(rotation_vector).as_matrix()
    pose[:3, 3] = position
    return pose


def pose_errors(scan: Scan, pose_44: np.ndarray) -> list[Finding]:
    pose_b44 = scan.scan_T_cam_b44.copy()
    pose_b44[1] = pose_44
    return [f for f in check_scan(with_poses(scan, pose_b44)).errors if f.place.startswith("pose of frame 1")]


@settings(max_examples=40, deadline=None)
@given(rotation_vector=rotation_vectors, position=positions, rounding=st.floats(-1e-4, 1e-4))
def test_no_rigid_motion_is_called_a_non_rotation(
    rotation_vector: np.ndarray, position: np.ndarray, rounding: float, box_room: Callable[..., Scan]
) -> None:
    pose = rigid(rotation_vector, position)
    pose[:3, :3] += rounding  # text of four digits
    assert pose_errors(box_room(2), pose) == []


@settings(max_examples=60, deadline=None)
@given(
    rotation_vector=rotation_vectors,
    position=positions,
    how=st.sampled_from(["mirror", "scale", "shear", "nan", "inf", "last row", "transpose", "zero", "huge"]),
    at=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_every_non_rotation_is_called_one(
    rotation_vector: np.ndarray, position: np.ndarray, how: str, at: tuple[int, int], box_room: Callable[..., Scan]
) -> None:
    pose = rigid(rotation_vector, position + 60)
    match how:
        case "mirror":
            pose[:3, at[0]] *= -1
        case "scale":
            pose[:3, :3] *= 1.02
        case "shear":
            pose[:3, at[0]] += 0.1 * pose[:3, (at[0] + 1) % 3]
        case "nan" | "inf":
            pose[at] = float(how)
        case "last row":
            pose[3, at[0]] = 0.01
        case "transpose":
            pose = pose.T.copy()
        case "zero":
            pose[:3, :3] = 0
        case "huge":
            pose[at] = 1e300
    (error,) = pose_errors(box_room(2), pose)
    assert error.received
    assert error.do


def test_poses_stored_by_columns_are_named(box_room: Callable[..., Scan]) -> None:
    scan = box_room(3)
    error = only_error(check_scan(with_poses(scan, np.swapaxes(scan.scan_T_cam_b44, 1, 2).copy())))
    assert "transposed (column-major); 3 of 3 poses" in error.received


# --- the screen -----------------------------------------------------------------------------------


def shown(report: ScanReport) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(render(report))
    return console.file.getvalue()


def test_the_screen_says_what_was_found_and_what_to_do(box_room: Callable[..., Scan]) -> None:
    good = shown(check_scan(box_room()))
    for words in ("made by hand, 12 frames", "colour 64x48, depth 64x48", "median", "This scan can be processed."):
        assert words in good
    empty = EncodedImages([encode_png(np.zeros((48, 64), np.uint16))] * 12)
    bad = box_room()
    bad = shown(check_scan(replace(bad, recording=replace(bad.recording, depth=empty))))
    assert "error  depth values" in bad
    assert "This scan cannot be processed: 1 error." in bad
    assert len(bad.splitlines()) < 24


def test_the_screen_takes_brackets_in_names_as_they_are() -> None:
    report = ScanReport("[bold]a[/bold]", (Finding("error", "[red]x", "[a]", "[/b]", "[c]"),))
    for words in ("[bold]a[/bold]", "[red]x", "[a]", "[/b]", "[c]"):
        assert words in shown(report)


def test_a_rejection_counts_the_other_errors() -> None:
    errors = tuple(Finding("error", place, "e", "r", "Do it.") for place in ("one", "two", "three"))
    with pytest.raises(ScanRejected, match=r"one: expected e; got r\. Do it\. \(And 2 more: two; three\.\)"):
        raise_errors(ScanReport("scan", errors))
    raise_errors(ScanReport("scan", (Finding("warning", "w", "e", "r", "d"),)))
