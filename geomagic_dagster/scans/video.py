"""A video as a sequence of pictures: frame i is exactly the i-th picture in it, decoded when asked for.

Belongs here: finding a frame, and giving it as a JPEG. Does not belong here: which frame of a scan it is (formats/).

Decoded by the FFmpeg that OpenCV brings (its LGPL build decodes HEVC and H.264). Frames asked for in order cost
one decoding each. Seeking by frame number is not exact where frames came at uneven times, as a phone's do. So a step
back seeks by time, and only takes the frame whose time was met before; where that fails, it starts anew.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.containers import encode_jpeg
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.scans.files import UPLOAD_AGAIN, ScanFiles

JPEG_QUALITY = 95
"""Of the frames that are handed on. The video lost more before; a PNG would be four times as large."""
KEPT_FRAMES = 8
"""Decoded pictures that wait for their turn: threads ask a little out of order. 66 MB at 1920x1440."""
SEEK_BACK_FRAMES = (8, 64)
"""A seek aims this many frames early, since it lands only near its aim."""


class Video:
    """A video of an upload. Any thread may ask for any frame; one decodes at a time.

    Raises: ScanRejected when it is no video that can be decoded.
    """

    def __init__(self, files: ScanFiles, name: str) -> None:
        self.name = name
        self._open = lambda: files.seekable(name)
        self._turn = _InTurn()
        self._pictures: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._times_ms: list[float] = []
        self._restart()
        import cv2

        self.frames = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        """As the file itself says."""
        self.size_wh = tuple(int(self._capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))

    def sources(self) -> list[Callable[[], bytes]]:
        """A JPEG of each frame: what `EncodedImages` takes."""
        return [lambda i=i: self.jpeg(i) for i in range(self.frames)]

    def jpeg(self, index: int) -> bytes:
        """Raises: ScanRejected where the video is cut short or damaged before this frame."""
        return encode_jpeg(self.rgb_hw3(index), JPEG_QUALITY)

    def rgb_hw3(self, index: int) -> NDArray[np.uint8]:
        """Picture of a frame. Raises: as `jpeg`."""
        with self._turn:
            if index not in self._pictures:
                self._decode(index)
            return self._pictures[index][..., ::-1]

    def _decode(self, index: int) -> None:
        if index <= self._current:
            self._step_back(index)
        while self._current < index:
            self._grab()
            if index - self._current < KEPT_FRAMES:
                self._keep()
        if index not in self._pictures:
            self._keep()

    def _grab(self) -> None:
        import cv2

        if not self._capture.grab():
            raise ScanRejected(
                f"{self.name} frame {self._current + 1}",
                expected=f"{self.frames} whole frames",
                received=f"a video that ends or is damaged after {self._current + 1}",
                do=UPLOAD_AGAIN,
            )
        self._current += 1
        if self._current == len(self._times_ms):
            self._times_ms.append(self._capture.get(cv2.CAP_PROP_POS_MSEC))

    def _keep(self) -> None:
        ok, picture = self._capture.retrieve()
        if not ok:
            raise ScanRejected(
                f"{self.name} frame {self._current}", expected="a picture", received="a damaged one", do=UPLOAD_AGAIN
            )
        self._pictures[self._current] = picture
        while len(self._pictures) > KEPT_FRAMES:
            self._pictures.popitem(last=False)

    def _step_back(self, index: int) -> None:
        """To a frame at or before `index`, which was met before."""
        import cv2

        number_of_time = {time: number for number, time in enumerate(self._times_ms)}
        for back in SEEK_BACK_FRAMES:
            if index <= back or len(number_of_time) < len(self._times_ms):  # near the start; or times that repeat
                break
            self._capture.set(cv2.CAP_PROP_POS_MSEC, self._times_ms[index - back])
            landed = None
            if self._capture.grab():
                landed = number_of_time.get(self._capture.get(cv2.CAP_PROP_POS_MSEC))
            if landed is not None and landed <= index:
                self._current = landed
                return
        self._restart()

    def _restart(self) -> None:
        import cv2

        stream = self._open()
        self._capture = _opened(stream)
        if not self._capture.isOpened():
            head = stream.seek(0) or stream.read(12)
            raise ScanRejected(
                self.name,
                expected="a whole video (HEVC or H.264 in MP4)",
                received=f"{stream.seek(0, io.SEEK_END)} bytes that begin with {head!r}, cut short or of another kind",
                do=UPLOAD_AGAIN,
            )
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # K is for the picture as the sensor has it
        self._current = -1


def write_video(path: Path, pictures_rgb: Iterable[NDArray[np.uint8]], frames_per_s: float) -> None:
    """MPEG-4 video of pictures of one even size: what every OpenCV can encode without codecs of other licences. Lossy.

    Raises: ScanRejected where a side is odd; OSError when it cannot be written.
    """
    import cv2

    writer = None
    for picture in pictures_rgb:
        height, width = picture.shape[:2]
        if writer is None:
            if width % 2 or height % 2:
                raise ScanRejected(
                    "colour",
                    expected="images of even width and height, as a video has to have",
                    received=f"{width}x{height}",
                    do="Convert to a format that keeps single images.",
                )
            fourcc = cv2.VideoWriter.fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(path), fourcc, frames_per_s, (width, height))
            if not writer.isOpened():
                raise OSError(f"{path}: expected to write an MPEG-4 video of {width}x{height}; OpenCV could not.")
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    if writer is not None:
        writer.release()


class _InTurn:
    """A lock that serves in order of arrival: under an unfair one, a thread that waited asks for a frame long past."""

    def __init__(self) -> None:
        self._changed, self._arrived, self._served = threading.Condition(), 0, 0

    def __enter__(self) -> None:
        with self._changed:
            mine, self._arrived = self._arrived, self._arrived + 1
            self._changed.wait_for(lambda: self._served == mine)

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._served += 1
            self._changed.notify_all()


def _opened(stream: io.BufferedReader) -> Any:
    """cv2.VideoCapture over a stream. What is no video is told by our sentence, not by lines of FFmpeg and OpenCV."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; OpenCV looks once
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(stream, cv2.CAP_FFMPEG, [])  # pyright: ignore[reportCallIssue, reportArgumentType]
    finally:
        cv2.utils.logging.setLogLevel(level)
