"""Large data: lazily, compressed, on disk."""

from __future__ import annotations

import numpy as np
import pytest

from geomagic_dagster.cv.containers import (
    EncodedImages,
    Files,
    ImageUnreadable,
    encode_jpeg,
    encode_png,
    scratch_array,
)


def test_png_keeps_every_value_of_colour_and_of_16_bit_depth():
    rng = np.random.default_rng(0)
    colour, depth = rng.integers(0, 256, (8, 9, 3), np.uint8), rng.integers(0, 65536, (8, 9), np.uint16)
    images = EncodedImages([encode_png(colour), lambda: encode_png(depth)])
    np.testing.assert_array_equal(images[0], colour)
    np.testing.assert_array_equal(images[1], depth)
    assert images[1].dtype == np.uint16


def test_jpeg_keeps_the_order_of_the_colours():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    assert np.abs(EncodedImages([encode_jpeg(red)])[0].astype(int) - red).max() < 12


def test_images_are_read_only_when_asked_for_and_selecting_reads_none():
    reads = []
    images = EncodedImages([lambda i=i: reads.append(i) or encode_png(np.full((2, 2), i, np.uint8)) for i in range(5)])
    chosen = images.select([4, 2])
    assert (len(chosen), reads) == (2, [])
    assert chosen[0][0, 0] == 4
    assert reads == [4]
    assert [image[0, 0] for image in images[1:3]] == [1, 2]


@pytest.mark.parametrize(
    ("encoded", "words"), [(b"", "an empty file"), (b"GIF89a....", "10 bytes beginning with b'GIF89a..'")]
)
def test_what_is_no_image_says_which_one_and_what_it_is_instead(encoded, words):
    with pytest.raises(ImageUnreadable, match="image 1: expected a PNG or JPEG") as refused:
        EncodedImages([b"x", encoded])[1]
    assert words in str(refused.value)


def test_files_take_only_plain_names():
    assert list(Files({"b.txt": b"1", "a.txt": lambda: b"2"})) == ["a.txt", "b.txt"]
    assert Files({"a.txt": lambda: b"2"})["a.txt"] == b"2"
    for name in ("../a", "/a", "a/b", "", ".."):
        with pytest.raises(ValueError, match="plain file name"):
            Files({name: b""})


def test_a_scratch_array_is_zero_writable_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    array = scratch_array((3, 4), np.float32)
    assert isinstance(array, np.memmap)
    assert not array.any()
    array[1] = 2.0
    assert array.sum() == 8.0
    assert list(tmp_path.iterdir()) == []
    assert scratch_array((0, 4), np.uint8).shape == (0, 4)
