"""The canonical layout keeps everything exactly, and is written whole or not at all."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from geomagic_dagster.cv.containers import EncodedImages, decode_image, encode_jpeg
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans.formats import canonical
from geomagic_dagster.scans.reader import read_scan


def assert_same(left: object, right: object, place: str = "scan") -> None:
    """Every field of a noun, to the last bit; images by their bytes."""
    assert type(left) is type(right), place
    if isinstance(left, Scan | Recording):
        for field in fields(left):
            assert_same(getattr(left, field.name), getattr(right, field.name), f"{place}.{field.name}")
    elif isinstance(left, EncodedImages):
        assert isinstance(right, EncodedImages)
        assert [left.encoded(i) for i in range(len(left))] == [right.encoded(i) for i in range(len(right))], place
    elif isinstance(left, np.ndarray):
        np.testing.assert_array_equal(left, right, place)
    else:
        assert left == right, place


def test_what_is_written_is_read_to_the_last_bit(box_room: Callable[..., Scan], tmp_path: Path) -> None:
    scan = replace(
        box_room(), name="Küche, 2. Stock", device="Größe 3 \U0001f4f1", down_scan_3=(0.1, 0.2, -0.974679434480896)
    )
    recording = replace(scan.recording, distortion_5=(0.1, -0.2, 1e-17, 1 / 3, 0.0), invalid_depth_units=(0, 65535))
    scan = replace(scan, recording=recording)
    canonical.write(scan, tmp_path / "a b" / "room")
    assert_same(read_scan(tmp_path / "a b" / "room"), scan)


@settings(max_examples=40, deadline=None)
@given(
    pose=arrays.arrays(np.float64, (2, 4, 4), elements=st.floats(allow_nan=False, allow_infinity=False)),
    times=arrays.arrays(np.float64, (2,), elements=st.floats(allow_nan=False, allow_infinity=False)),
)
def test_any_number_comes_back_exactly(
    pose: np.ndarray, times: np.ndarray, box_room: Callable[..., Scan], tmp_path_factory: pytest.TempPathFactory
) -> None:
    scan = box_room(2)
    scan = replace(scan, scan_T_cam_b44=pose, recording=replace(scan.recording, timestamp_s_b=times))
    folder = tmp_path_factory.mktemp("exact") / "room"
    canonical.write(scan, folder)
    assert_same(read_scan(folder), scan)


def test_a_scan_of_colour_alone_and_without_poses_round_trips(box_room: Callable[..., Scan], tmp_path: Path) -> None:
    scan = box_room(2)
    recording = replace(scan.recording, depth=None, depth_confidence=None, K_depth_b33=None)
    scan = replace(scan, recording=recording, scan_T_cam_b44=None, is_metric=False, down_scan_3=None, consent="unknown")
    canonical.write(scan, tmp_path / "room")
    assert sorted(p.name for p in (tmp_path / "room").iterdir()) == ["color", "scan.json"]
    assert_same(read_scan(tmp_path / "room"), scan)


def test_depth_of_another_encoding_is_stored_as_16_bit_png(box_room: Callable[..., Scan], tmp_path: Path) -> None:
    scan = box_room(2)
    grey = np.arange(64 * 48, dtype=np.uint32).reshape(48, 64).astype(np.uint8)
    jpegs = EncodedImages([encode_jpeg(np.repeat(grey[..., None], 3, axis=2))] * 2)
    confidence_as_jpeg = replace(scan.recording, depth_confidence=None, depth=None, rgb=jpegs)
    canonical.write(replace(scan, recording=confidence_as_jpeg), tmp_path / "jpeg")
    assert (tmp_path / "jpeg" / "color" / "000000.jpg").read_bytes() == jpegs.encoded(0)
    import cv2

    tiff = cv2.imencode(".tiff", scan.recording.depth[0])[1].tobytes()
    canonical.write(
        replace(scan, recording=replace(scan.recording, depth=EncodedImages([tiff] * 2))), tmp_path / "tiff"
    )
    stored = (tmp_path / "tiff" / "depth" / "000000.png").read_bytes()
    assert stored[:4] == b"\x89PNG"
    np.testing.assert_array_equal(decode_image(stored), scan.recording.depth[0])


def test_writing_is_whole_or_not_at_all(box_room: Callable[..., Scan], tmp_path: Path, monkeypatch) -> None:
    scan = box_room(3)

    def full_disk() -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    broken = EncodedImages([scan.recording.rgb.encoded(0), full_disk, full_disk])
    with pytest.raises(OSError, match="No space left"):
        canonical.write(replace(scan, recording=replace(scan.recording, rgb=broken)), tmp_path / "room")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(box_room: Callable[..., Scan], tmp_path: Path) -> None:
    canonical.write(box_room(2), tmp_path / "room")
    with pytest.raises(FileExistsError, match=r"room: expected a folder that is not there yet\. Choose another"):
        canonical.write(box_room(2), tmp_path / "room")


def changed(folder: Path, change: Callable[[dict], object]) -> Path:
    manifest = json.loads((folder / "scan.json").read_text())
    change(manifest)
    (folder / "scan.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda m: m.update(schema_version=2), r"scan\.json: schema_version", id="a later version"),
        pytest.param(lambda m: m.update(colour="blue"), r"scan\.json: colour", id="an unknown field"),
        pytest.param(lambda m: m.update(consent="all"), r"scan\.json: consent", id="an unknown consent"),
        pytest.param(lambda m: m.update(frames=[]), r"scan\.json: frames", id="no frames"),
        pytest.param(lambda m: m.pop("is_metric"), r"scan\.json: is_metric", id="no scale"),
        pytest.param(
            lambda m: m["frames"][1].update(K_rgb_33=[[1, 0], [0, 1]]), r"frames\.1\.K_rgb_33", id="K of another shape"
        ),
        pytest.param(lambda m: m["frames"][1].update(rgb=None), r"frames\.1\.rgb", id="one frame without colour"),
        pytest.param(
            lambda m: [frame.update(K_depth_33=None) for frame in m["frames"]],
            r"frames\.0\.K_depth_33",
            id="no K of depth",
        ),
        pytest.param(
            lambda m: m["frames"][1].update(rgb="color/9.jpg"),
            r"the file color/9\.jpg",
            id="an image that is not there",
        ),
    ],
)
def test_a_manifest_that_breaks_the_layout_is_refused_by_its_field(
    change: Callable[[dict], object], words: str, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    canonical.write(box_room(2), tmp_path / "room")
    with pytest.raises(ScanRejected, match=words):
        read_scan(changed(tmp_path / "room", change))


def test_frames_that_lost_tracking_are_left_out(box_room: Callable[..., Scan], tmp_path: Path) -> None:
    made = box_room(5)
    canonical.write(made, tmp_path / "room")
    read = read_scan(changed(tmp_path / "room", lambda m: m["frames"][2].update(scan_T_cam_44=None)))
    kept = np.array([0, 1, 3, 4])
    assert_same(read, replace(made, recording=made.recording.select(kept), scan_T_cam_b44=made.scan_T_cam_b44[kept]))


def test_the_docstring_describes_every_field() -> None:
    described = canonical.__doc__ or ""
    for model in (canonical._Manifest, canonical._Frame):
        for field in model.model_fields:
            assert field in described, f"{field} is missing in the description of the layout"
