"""Every format gives the same scan of the same room, from a folder, a zip and a tar."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from geomagic_dagster.cv.types import Scan
from geomagic_dagster.scans.check import check_path
from geomagic_dagster.scans.files import ScanFiles
from geomagic_dagster.scans.reader import known_formats, read_all, read_scan

Layouts = Mapping[str, Callable[[Scan, Path], None]]
FORMATS = [each.NAME for each in known_formats()]
WITHOUT_DEPTH = {"colmap"}
VIDEO = {"stray_scanner"}
"""Colour is lossy there."""
FLOAT32 = {"scannet_sens"}
"""So are poses."""


def test_every_format_is_tried_here(layouts: Layouts) -> None:
    assert set(layouts) >= set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("packed", ["folder", "zip", "gztar"])
def test_the_scan_is_the_room_that_was_written(
    name: str, packed: str, layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    made = box_room()
    path = tmp_path / "Zimmer mit Äpfeln"
    layouts[name](made, path)
    if packed != "folder":
        path = Path(shutil.make_archive(str(tmp_path / "Zimmer 2"), packed, path.parent, path.name))
    scan = read_scan(path)
    assert scan.recording.rgb is not None
    assert scan.scan_T_cam_b44 is not None
    assert len(scan.recording) == len(made.recording)
    np.testing.assert_allclose(scan.scan_T_cam_b44, made.scan_T_cam_b44, atol=1e-6 if name in FLOAT32 else 1e-12)
    np.testing.assert_array_equal(scan.recording.K_rgb_b33, made.recording.K_rgb_b33)
    for i in (7, 0):
        rgb = scan.recording.rgb_hw3(i).astype(int)
        apart_b = [np.abs(rgb - made.recording.rgb_hw3(k)).mean() for k in range(len(made.recording))]
        assert np.argmin(apart_b) == i
        assert apart_b[i] < 15 if name in VIDEO else apart_b[i] == 0
    assert (np.diff(scan.recording.timestamp_s_b) > 0).all()
    if name in WITHOUT_DEPTH:
        assert scan.recording.depth is None
        assert not scan.is_metric
        return
    assert scan.is_metric
    np.testing.assert_array_equal(scan.recording.K_depth_b33, made.recording.K_depth_b33)
    unit_m = scan.recording.metres_per_depth_unit
    quantum_m = unit_m / 2 if name == "replica" else 0  # the only unit here that a millimetre is no multiple of
    for i in (0, 7):
        np.testing.assert_allclose(
            scan.recording.depth_m_hw(i), made.recording.depth_m_hw(i), rtol=1e-6, atol=quantum_m
        )
        confidence = scan.recording.depth_confidence_hw(i)
        assert confidence is None or (confidence == 1).all()


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in WITHOUT_DEPTH])
def test_a_good_scan_has_no_error_and_no_warning(
    name: str, layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    layouts[name](box_room(), tmp_path / "room")
    report = check_path(tmp_path / "room")
    assert [f for f in report.findings if f.severity != "note"] == []
    assert report.frames == 12
    assert report.rgb_wh == report.depth_wh == (64, 48)
    assert report.disagreement_m is not None
    assert 0 < report.disagreement_m < 0.03
    assert report.median_depth_m == pytest.approx(2.0, abs=1.0)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_recognised_as_itself_and_as_nothing_else(
    name: str, layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    layouts[name](box_room(2), tmp_path / "room")
    files = ScanFiles(tmp_path / "room")
    assert [each.NAME for each in known_formats() if each.recognises(files)] == [name]


def test_nothing_but_text_and_headers_is_read_at_first(
    layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    for name, write in layouts.items():
        write(box_room(), tmp_path / name)
        for image in (tmp_path / name).rglob("*.[jp][pn]g"):
            image.write_bytes(image.read_bytes()[:200].ljust(200))  # a header still, but no image
        assert len(read_scan(tmp_path / name).recording) == 12


def test_a_given_name_goes_before_the_files_own(
    layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    layouts["hololens"](box_room(), tmp_path / "room")
    assert read_scan(tmp_path / "room").name == "room"
    assert read_scan(tmp_path / "room", name="upload-17").name == "upload-17"


def test_every_image_can_be_named_by_its_file(layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path) -> None:
    for name, write in layouts.items():
        write(box_room(), tmp_path / name)
        reading = read_all(tmp_path / name)
        for kind, files in reading.image_names.items():
            assert len(files) == len(getattr(reading.scan.recording, kind))
            for i, file in enumerate(files):
                if file.endswith((".png", ".jpg")):
                    assert getattr(reading.scan.recording, kind).encoded(i) == (tmp_path / name / file).read_bytes()
