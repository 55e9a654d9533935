"""The reader finds out by itself what lies there, and says so when it cannot."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Scan
from geomagic_dagster.scans import formats
from geomagic_dagster.scans.reader import known_formats, read_all, read_scan

Layouts = Mapping[str, Callable[[Scan, Path], None]]


def test_a_format_is_registered_by_being_there() -> None:
    files = {path.stem for path in Path(formats.__path__[0]).glob("*.py")} - {"__init__"}
    assert {each.NAME for each in known_formats()} == files
    for each in known_formats():
        assert each.LOOKS_LIKE
        assert isinstance(each.NAMES_ITSELF, bool)
        assert inspect.signature(each.read).return_annotation == "Reading"


def test_what_is_no_scan_is_told_what_was_found_and_what_is_known(tmp_path: Path) -> None:
    for name in ("invoice.pdf", "cat.jpg", "notes 1.txt", "notes 2.txt"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ScanRejected) as refusal:
        read_scan(tmp_path)
    assert refusal.value.received == (
        "a folder of no known format, 4 in all: cat.jpg, invoice.pdf, notes 1.txt and 1 more"
    )
    for each in known_formats():
        assert f"{each.NAME}: {each.LOOKS_LIKE}" in refusal.value.do


def test_two_formats_at_once_are_both_named(layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path) -> None:
    layouts["nerfstudio"](box_room(2), tmp_path / "room")
    layouts["hololens"](box_room(2), tmp_path / "room")
    with pytest.raises(ScanRejected, match=r"several: hololens \(.*\); nerfstudio \(.*\)\. Upload the files of one"):
        read_scan(tmp_path / "room")


def test_a_format_that_names_itself_goes_before_others(
    layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    layouts["canonical"](box_room(2), tmp_path / "room")
    layouts["nerfstudio"](box_room(2), tmp_path / "room")
    assert read_scan(tmp_path / "room").source_format == "made by hand"


def test_reading_imports_nothing_that_is_slow() -> None:
    code = "import sys, geomagic_dagster.scans.check as c; print([m for m in sys.modules if m in %r])"
    slow = ("torch", "kornia", "cv2", "scipy", "numba", "rich", "skimage", "trimesh")
    out = subprocess.run([sys.executable, "-c", code % (slow,)], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


# --- real scans -----------------------------------------------------------------------------------


def test_hololens_office_kitchen(real_scans: Path) -> None:
    scan = read_scan(real_scans / "hololens_office_kitchen")
    assert (scan.source_format, len(scan.recording), scan.is_metric) == ("hololens", 125, True)
    assert scan.down_scan_3 == (0.0, 0.0, -1.0)
    assert scan.recording.depth_m_hw(60).shape == scan.recording.rgb_hw3(60).shape[:2] == (360, 540)
    # y up became z up: the walk is level, and the floor 1.53 m below the device's origin
    assert np.ptp(scan.scan_T_cam_b44[:, 2, 3]) < 0.5
    assert lowest_surface_m(scan) == pytest.approx(-1.53, abs=0.03)


def test_tum_fr3_cabinet(real_scans: Path) -> None:
    scan = read_scan(real_scans / "tum_fr3_cabinet")
    assert (scan.source_format, len(scan.recording), scan.is_metric) == ("tum_rgbd", 58, True)
    assert scan.down_scan_3 is None
    np.testing.assert_array_equal(scan.recording.K_rgb_b33[0], [[535.4, 0, 320.1], [0, 539.2, 247.6], [0, 0, 1]])
    assert lowest_surface_m(scan) == pytest.approx(0.0, abs=0.03)


def test_studio_bedroom_is_told_apart_as_not_metric(real_scans: Path) -> None:
    reading = read_all(real_scans / "studio_bedroom_rgb")
    scan = reading.scan
    assert (scan.source_format, len(scan.recording), scan.is_metric) == ("nerfstudio", 35, False)
    assert scan.recording.depth is None
    assert scan.down_scan_3 is None
    assert scan.recording.distortion_5[:2] == (-0.0006951346026472416, -0.0022074727073696896)
    assert list(reading.image_names["rgb"]) == sorted(reading.image_names["rgb"])


def lowest_surface_m(scan: Scan) -> float:
    """Height of the lowest level on which many points lie: the floor."""
    heights = []
    for i in range(0, len(scan.recording), 5):
        depth, K, pose = scan.recording.depth_m_hw(i), scan.recording.K_depth_b33[i], scan.scan_T_cam_b44[i]
        y, x = np.nonzero(depth)
        z = depth[y, x]
        points = np.stack([(x - K[0, 2]) / K[0, 0] * z, (y - K[1, 2]) / K[1, 1] * z, z])
        heights.append((pose[:3, :3] @ points + pose[:3, 3:])[2][::50])
    counts, edges = np.histogram(np.concatenate(heights), bins=np.arange(-3, 3, 0.02))
    lowest = int(np.flatnonzero(counts > 0.3 * counts.max())[0])
    peak = lowest + int(np.argmax(counts[lowest : lowest + 5]))
    return float(edges[peak] + 0.01)
