"""Cleaned depth against the exact truth of made-up rooms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from geomagic_dagster.cv.camera import transform, unproject
from geomagic_dagster.cv.containers import EncodedImages, encode_png
from geomagic_dagster.cv.depth import DepthParams, depth, measure_depth, preview_depth
from geomagic_dagster.cv.stage import ScanRejected
from tests.cv.made_up_scans import framed_and_posed, phone


def distances_m(made, kept, depth_m_bhw, frames_b) -> np.ndarray:
    """Distance of every depth pixel to the true surface, along with nothing of the pose's error."""
    import torch

    found = []
    for b in frames_b:
        depth_m = torch.from_numpy(np.array(depth_m_bhw[b])).double()[None]
        points = unproject(depth_m, torch.from_numpy(kept.recording.K_depth_b33[b : b + 1]))[0][depth_m[0] > 0]
        pose = torch.from_numpy(made.truth.world_T_cam_b44[kept.scan_frame_b[b]])
        found.append(made.truth.surface_distance_m(transform(pose, points).numpy()))
    return np.concatenate(found)


def test_perfect_depth_passes_unchanged_but_for_grazing_rims():
    kept, posed = framed_and_posed("clean")
    cleaned = depth(kept, posed)
    raw = np.stack([kept.recording.depth_m_hw(i) for i in range(len(kept.recording))])
    there = cleaned.depth_m_bhw > 0
    np.testing.assert_array_equal(cleaned.depth_m_bhw[there], raw[there])
    assert 0.97 < there.sum() / (raw > 0).sum() <= 1.0


def test_phone_depth_loses_its_flying_pixels_and_little_else():
    made = phone()
    kept, posed = framed_and_posed("phone")
    cleaned = depth(kept, posed)
    raw = np.stack([kept.recording.depth_m_hw(i) for i in range(len(kept.recording))])
    picks = range(0, len(raw), 6)
    before_m, after_m = distances_m(made, kept, raw, picks), distances_m(made, kept, cleaned.depth_m_bhw, picks)
    off_before, off_after = (before_m > 0.1).sum(), (after_m > 0.1).sum()
    assert off_before > 100, "the made-up phone has flying pixels"
    assert off_after < 0.3 * off_before
    assert 0.9 < len(after_m) / len(before_m) <= 1.0
    assert 0.0 < after_m.mean() < before_m.mean()


def test_what_others_look_through_is_removed():
    kept, posed = framed_and_posed("clean")
    b, images = 20, [kept.recording.depth.encoded(i) for i in range(len(kept.recording))]
    ghost = kept.recording.depth[b].copy()
    ghost[50:70, 70:90] = (0.7 * ghost[50:70, 70:90]).astype(ghost.dtype)  # something hangs there, in one frame only
    images[b] = encode_png(ghost)
    haunted = replace(kept, recording=replace(kept.recording, depth=EncodedImages(images)))
    assert (depth(kept, posed).depth_m_bhw[b, 52:68, 72:88] > 0).mean() > 0.9
    assert (depth(haunted, posed).depth_m_bhw[b, 52:68, 72:88] > 0).mean() < 0.1


def test_what_others_confirm_is_trusted_more():
    kept, posed = framed_and_posed("clean")
    compared, alone = depth(kept, posed), depth(kept, posed, DepthParams(neighbours=0))
    share = compared.confidence_255_bhw[20] / np.maximum(1, alone.confidence_255_bhw[20])
    there = compared.depth_m_bhw[20] > 0
    assert np.isclose(share[there].max(), 1.0, atol=0.02)
    assert np.isclose(share[there].min(), 0.4, atol=0.02)
    assert 0.6 < share[there].mean() < 1.0


def test_confidence_is_zero_exactly_where_there_is_no_depth():
    cleaned = depth(*framed_and_posed("phone"))
    np.testing.assert_array_equal(cleaned.confidence_255_bhw > 0, cleaned.depth_m_bhw > 0)
    numbers = measure_depth(cleaned)
    assert 0.3 < numbers["coverage"] < 1.0
    assert 0.2 < numbers["confidence_mean"] < 1.0
    assert 0.5 < numbers["depth_median_m"] < 5.0
    assert preview_depth(cleaned).shape == (320, 639, 3)


def test_cut_frames_have_no_depth_and_nothing_beyond_the_limits_is_kept():
    kept, posed = framed_and_posed("clean")
    is_used_b = posed.is_used_b.copy()
    is_used_b[3] = False
    cleaned = depth(kept, replace(posed, is_used_b=is_used_b), DepthParams(near_m=0.5, far_m=2.0))
    assert not cleaned.depth_m_bhw[3].any()
    valid = cleaned.depth_m_bhw[cleaned.depth_m_bhw > 0]
    assert 0.5 <= valid.min() <= valid.max() <= 2.0


def test_no_usable_depth_is_rejected_in_words():
    with pytest.raises(
        ScanRejected, match="expected surfaces between 0.1 and 0.2 m away; got no usable depth in any frame"
    ):
        depth(*framed_and_posed("clean"), DepthParams(far_m=0.2))
