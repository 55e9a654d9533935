"""Frame i of a video is its i-th picture: in order, in any order, from many threads, out of any packing."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from geomagic_dagster.cv.containers import decode_image
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.scans.files import ScanFiles
from geomagic_dagster.scans.video import KEPT_FRAMES, Video, write_video

HEVC = Path(__file__).with_name("hevc_uneven_times.mp4")
"""40 frames of HEVC with B frames, key frames every 12, the times uneven as a phone's; each bears its number."""


def number_in(rgb_hw3: np.ndarray) -> int:
    """Six squares, black for 0 and white for 1."""
    return sum((int(rgb_hw3[16, 10 + 15 * bit].mean()) > 128) << bit for bit in range(6))


def numbered_picture(number: int) -> np.ndarray:
    picture = np.full((72, 96, 3), 60, np.uint8)
    for bit in range(6):
        picture[8:24, 4 + 15 * bit : 16 + 15 * bit] = 255 * (number >> bit & 1)
    return picture


@pytest.fixture(params=["folder", "zip", "tar", "gztar"])
def video(request: pytest.FixtureRequest, tmp_path: Path) -> Video:
    folder = tmp_path / "walk"
    folder.mkdir()
    shutil.copy(HEVC, folder / "rgb.mp4")
    (folder / "notes.txt").write_text("x")
    if request.param != "folder":
        folder = Path(shutil.make_archive(str(tmp_path / "packed"), request.param, folder))
    return Video(ScanFiles(folder), "rgb.mp4")


def opened(path: Path) -> Video:
    return Video(ScanFiles(path.parent), path.name)


def test_a_phones_hevc_is_decoded_in_order_at_one_decoding_a_frame(video: Video, monkeypatch) -> None:
    grabbed: list[int] = []
    grab = Video._grab
    monkeypatch.setattr(Video, "_grab", lambda self: grabbed.append(self._current + 1) or grab(self))
    assert (video.frames, video.size_wh) == (40, (96, 72))
    assert [number_in(video.rgb_hw3(i)) for i in range(40)] == list(range(40))
    assert grabbed == list(range(40))
    assert len(video._pictures) <= KEPT_FRAMES


def test_any_frame_is_the_right_one_though_times_are_uneven(video: Video) -> None:
    for seed in range(3):
        for i in np.random.default_rng(seed).permutation(40).tolist():
            assert number_in(video.rgb_hw3(i)) == i


def test_a_step_back_does_not_start_anew_where_the_frame_was_met(video: Video, monkeypatch) -> None:
    video.rgb_hw3(39)
    restarts: list[int] = []
    restart = Video._restart
    monkeypatch.setattr(Video, "_restart", lambda self: restarts.append(1) or restart(self))
    assert [number_in(video.rgb_hw3(i)) for i in range(38, 8, -1)] == list(range(38, 8, -1))
    assert restarts == []
    assert number_in(video.rgb_hw3(0)) == 0
    assert restarts == [1]


def test_many_threads_get_the_right_frames_and_go_through_it_once(video: Video, monkeypatch) -> None:
    restarts: list[int] = []
    restart = Video._restart
    monkeypatch.setattr(Video, "_restart", lambda self: restarts.append(1) or restart(self))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert [number_in(decode_image(each)) for each in pool.map(video.jpeg, range(40))] == list(range(40))
    finally:
        sys.setswitchinterval(interval)
    assert restarts == []


def test_the_same_frame_gives_the_same_bytes(video: Video) -> None:
    first = video.jpeg(20)
    video.jpeg(3)
    assert video.jpeg(20) == first


def test_what_is_written_is_read_frame_by_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", (numbered_picture(i) for i in range(30)), 29.97)
    video = opened(tmp_path / "a.mp4")
    assert (video.frames, video.size_wh) == (30, (96, 72))
    assert [number_in(video.rgb_hw3(i)) for i in (29, 0, 17, 16, 5, 28)] == [29, 0, 17, 16, 5, 28]
    assert np.abs(video.rgb_hw3(7).astype(int) - numbered_picture(7)).mean() < 6


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"hello world", HEVC.read_bytes()[:100]])
def test_what_is_no_video_is_refused(content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rgb.mp4").write_bytes(content)
    with pytest.raises(ScanRejected, match=rf"^rgb\.mp4: expected a whole video.*got {len(content)} bytes that begin"):
        opened(tmp_path / "rgb.mp4")
    assert capfd.readouterr().err == "", "one sentence is enough"


def test_a_video_cut_at_its_end_gives_its_frames_and_names_where_it_ends(tmp_path: Path) -> None:
    (tmp_path / "rgb.mp4").write_bytes(HEVC.read_bytes()[:-400])
    video = opened(tmp_path / "rgb.mp4")
    assert video.frames == 40
    assert number_in(video.rgb_hw3(10)) == 10
    with pytest.raises(ScanRejected, match=r"^rgb\.mp4 frame \d\d: expected 40 whole frames; got a video that ends"):
        [video.jpeg(i) for i in range(40)]
    assert number_in(video.rgb_hw3(2)) == 2, "what came before is still there"
