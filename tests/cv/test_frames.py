"""Which frames are kept, which are dropped, and that each dropped one has its reason."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from geomagic_dagster.cv.containers import EncodedImages, encode_png
from geomagic_dagster.cv.frames import FramesParams, frames, measure_frames, preview_frames
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Scan
from tests.cv.made_up_scans import clean, with_poses


def edited(scan: Scan, edits: dict) -> Scan:
    """The scan with some colour images changed by functions."""
    images = [encode_png(edits[i](image)) if i in edits else scan.recording.rgb.encoded(i) for i, image in enumerate(scan.recording.rgb)]  # fmt: skip
    return replace(scan, recording=replace(scan.recording, rgb=EncodedImages(images)))


def only(scan: Scan, indices) -> Scan:
    index_b = np.array(indices)
    return replace(scan, recording=scan.recording.select(index_b), scan_T_cam_b44=scan.scan_T_cam_b44[index_b])


def test_every_frame_of_a_clean_walk_is_kept():
    kept = frames(clean().scan)
    assert kept.dropped == ()
    np.testing.assert_array_equal(kept.scan_frame_b, np.arange(40))
    assert measure_frames(kept)["kept_fraction"] == 1.0


def test_exactly_the_blurred_and_the_black_frames_are_dropped_each_with_its_reason():
    def blur(image):
        return cv2.blur(image, (13, 13))

    kept = frames(edited(clean().scan, {7: blur, 20: blur, 30: np.zeros_like}))
    assert {i: reason.split(":")[0] for i, reason in kept.dropped} == {7: "blurred", 20: "blurred", 30: "too dark"}
    assert len(kept.recording) == 37
    assert set(kept.scan_frame_b) == set(range(40)) - {7, 20, 30}
    assert measure_frames(kept)["dropped_blurred"] == 2


def test_a_blurred_frame_stays_where_no_neighbour_sees_the_same():
    scan = clean().scan
    blurred = edited(scan, {7: lambda image: cv2.blur(image, (13, 13))})
    pose_b44 = scan.scan_T_cam_b44.copy()
    pose_b44[7, :3, 3] += [2.0, 0, 0]
    assert 7 in frames(with_poses(blurred, pose_b44)).scan_frame_b


def test_of_frames_from_one_place_the_sharpest_stays():
    scan = only(clean().scan, [0, 5, 5, 5, 10])
    softer = edited(
        scan,
        {1: lambda image: cv2.GaussianBlur(image, (3, 3), 0.6), 3: lambda image: cv2.GaussianBlur(image, (3, 3), 0.6)},
    )
    kept = frames(softer)
    np.testing.assert_array_equal(kept.scan_frame_b, [0, 2, 4])
    assert all(reason.startswith("redundant: the camera moved 0.0 cm") for _, reason in kept.dropped)


def test_a_long_walk_is_thinned_evenly_to_the_limit():
    kept = frames(clean().scan, FramesParams(max_frames=10))
    assert len(kept.recording) == 10
    assert (kept.scan_frame_b[0], kept.scan_frame_b[-1]) == (0, 39)
    assert set(np.diff(kept.scan_frame_b)) <= {4, 5}


def test_without_poses_or_colour_frames_are_kept_and_measured_as_far_as_possible():
    scan = clean().scan
    assert len(frames(replace(scan, scan_T_cam_b44=None)).recording) == 40
    blind = replace(scan, recording=replace(scan.recording, rgb=None, K_rgb_b33=None))
    kept = frames(blind)
    assert len(kept.recording) == 40
    assert preview_frames(kept) is None


def test_the_picture_shows_nine_frames():
    assert preview_frames(frames(clean().scan)).shape == (360, 480, 3)


@pytest.mark.parametrize(
    ("scan", "words"),
    [
        (lambda: only(clean().scan, [0]), "frames: expected a walk of at least 2 frames; got 1. Scan the room walking"),
        (lambda: only(clean().scan, [3, 3, 3]), "got 1 of 3 (redundant). Scan again with the light on, walking slowly"),
        (lambda: edited(clean().scan, dict.fromkeys(range(40), np.zeros_like)), "got 0 of 40 (too dark)"),
    ],
    ids=["one frame", "one view", "dark"],
)
def test_a_scan_without_two_usable_frames_is_rejected_in_words(scan, words):
    with pytest.raises(ScanRejected) as rejected:
        frames(scan())
    assert words in str(rejected.value)
