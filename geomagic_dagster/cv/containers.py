"""How large data is held: compressed images, files, arrays on disk. The artefact store keeps exactly these.

Belongs here: containers that say nothing about what is in them. Does not belong here: the nouns
(types.py), and where anything is stored.

A noun is a frozen dataclass whose fields are: a numpy array, `EncodedImages`, `Files`, another such
dataclass, None, or plain JSON values (bool, int, float, str, and lists, tuples or dicts of these).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

Source = bytes | Callable[[], bytes]


class ImageUnreadable(ValueError):
    """An image's bytes could not be decoded; `index` says which one of its sequence."""

    def __init__(self, index: int, received: str) -> None:
        self.index, self.received = index, received
        super().__init__(f"image {index}: expected a PNG or JPEG; got {received}")


class EncodedImages(Sequence[NDArray[Any]]):
    """Images in their compressed bytes (PNG, JPEG), as they came; each is decoded when asked for.

    `images[i]` is `(h, w, 3) uint8` in red, green, blue order, or `(h, w)` of one channel in the
    file's own type (depth: uint16). Sources are bytes, or functions that read them late.
    """

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = list(sources)

    def __len__(self) -> int:
        return len(self._sources)

    def encoded(self, index: int) -> bytes:
        source = self._sources[index]
        return source if isinstance(source, bytes) else source()

    @overload
    def __getitem__(self, index: int) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> EncodedImages: ...
    def __getitem__(self, index: int | slice) -> NDArray[Any] | EncodedImages:
        if isinstance(index, slice):
            return EncodedImages(self._sources[index])
        return decode_image(self.encoded(index), index)

    def select(self, indices: Iterable[int]) -> EncodedImages:
        return EncodedImages(self._sources[int(i)] for i in indices)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))


def decode_image(encoded: bytes, index: int = 0) -> NDArray[Any]:
    """(h, w, 3) uint8 in red, green, blue order, or (h, w) of one channel in its own type.

    Raises: ImageUnreadable, saying what the bytes are instead.
    """
    import cv2

    if not encoded:
        raise ImageUnreadable(index, "an empty file")
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ImageUnreadable(
            index, f"{len(encoded)} bytes beginning with {encoded[:8]!r}, cut short or of another kind"
        )
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return image


def encode_png(image: NDArray[Any]) -> bytes:
    """PNG of an (h, w, 3) uint8 picture in red, green, blue order, or of an (h, w) uint8 or uint16 map."""
    import cv2

    ok, encoded = cv2.imencode(".png", image if image.ndim == 2 else image[..., ::-1])
    if not ok:
        raise ValueError(
            f"encode_png: expected (h, w) or (h, w, 3) of uint8 or uint16; got {image.shape} {image.dtype}"
        )
    return encoded.tobytes()


def encode_jpeg(rgb_hw3: NDArray[np.uint8], quality: int = 92) -> bytes:
    import cv2

    ok, encoded = cv2.imencode(".jpg", rgb_hw3[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError(f"encode_jpeg: expected (h, w, 3) uint8; got {rgb_hw3.shape} {rgb_hw3.dtype}")
    return encoded.tobytes()


class Files(Mapping[str, bytes]):
    """Finished files by name ("room.glb"); each is read when asked for."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        for name in sources:
            if Path(name).name != name or name in ("", ".", ".."):
                raise ValueError(f"Files: expected a plain file name; got {name!r}")
        self._sources = dict(sorted(sources.items()))

    def __getitem__(self, name: str) -> bytes:
        source = self._sources[name]
        return source if isinstance(source, bytes) else source()

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def scratch_array(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array of zeros that lives in a temporary file: a thousand frames never sit in memory whole.

    The file has no name and is gone with the array. Fill it frame by frame.
    """
    if 0 in shape:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(prefix="geomagic-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
