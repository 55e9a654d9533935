"""Every format gives the same scan of the same room, from a folder, a zip and a tar."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from geomagic_dagster.cv.types import Scan
from geomagic_dagster.scans.check import check_path
from geomagic_dagster.scans.reader import known_formats, read_all, read_scan

Layouts = Mapping[str, Callable[[Scan, Path], None]]
FORMATS = [each.NAME for each in known_formats()]


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
    assert scan.recording.depth is not None
    assert scan.recording.rgb is not None
    assert scan.scan_T_cam_b44 is not None
    assert scan.is_metric
    assert len(scan.recording) == len(made.recording)
    np.testing.assert_allclose(scan.scan_T_cam_b44, made.scan_T_cam_b44, atol=1e-12)
    np.testing.assert_array_equal(scan.recording.K_rgb_b33, made.recording.K_rgb_b33)
    np.testing.assert_array_equal(scan.recording.K_depth_b33, made.recording.K_depth_b33)
    for i in (0, 7):
        np.testing.assert_allclose(scan.recording.depth_m_hw(i), made.recording.depth_m_hw(i), rtol=1e-6)
        np.testing.assert_array_equal(scan.recording.rgb_hw3(i), made.recording.rgb_hw3(i))
    assert (np.diff(scan.recording.timestamp_s_b) > 0).all()


@pytest.mark.parametrize("name", FORMATS)
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
        for kind in ("rgb", "depth"):
            for i, file in enumerate(reading.image_names[kind]):
                assert getattr(reading.scan.recording, kind).encoded(i) == (tmp_path / name / file).read_bytes()
