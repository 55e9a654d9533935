from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
import time
import tracemalloc
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geomagic_dagster.cv.containers import EncodedImages, Files, scratch_array
from geomagic_dagster.cv.stage import StageError
from geomagic_dagster.guardrails.failures import Broken, Unavailable
from geomagic_dagster.resources.store import (
    Artefact,
    ArtefactCorrupt,
    ArtefactDiffers,
    ArtefactMissing,
    ArtefactStore,
)

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, eq=False)
class Inner:
    array: Any
    anything: Any = None


@dataclass(frozen=True, eq=False)
class Outer:
    inner: Inner
    images: EncodedImages
    files: Files
    plain: Any = None


def artefact(value: Any, identity: str = "a1", stage: str = "depth") -> Artefact:
    return Artefact(stage=stage, identity=identity, get=lambda: value, code_version="1-x", numbers={"n": 1.5})


def outer(seed: int = 0, big: int = 10) -> Outer:
    rng = np.random.default_rng(seed)
    return Outer(
        inner=Inner(rng.normal(size=(big, 7)), {"a": (1, 2.5, None), 3: [True, "ü"]}),
        images=EncodedImages([rng.bytes(n) for n in (5, 0, 300)]),
        files=Files({"room.glb": rng.bytes(100), "empty": b""}),
        plain=(float("nan"), float("inf"), -0.0),
    )


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path) -> ArtefactStore:
    url = str(tmp_path / "store") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    return ArtefactStore(url, tmp_path / "cache", (__name__,))


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, EncodedImages):
        assert [a.encoded(i) for i in range(len(a))] == [b.encoded(i) for i in range(len(b))]
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for each, other in zip(a, b, strict=True):
            assert_same(each, other)
    elif isinstance(a, (dict, Files)):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, float):
        assert np.array(a).tobytes() == np.array(b).tobytes() or (np.isnan(a) and np.isnan(b))
    else:
        assert a == b


def test_what_is_saved_comes_back(store):
    value = outer()
    assert not store.saved("depth", "a1")
    store.save(artefact(value))
    assert store.saved("depth", "a1")
    assert_same(store.load("depth", "a1"), value)
    found = store.find("depth", "a1")
    assert (found.code_version, found.numbers, found.is_saved) == ("1-x", {"n": 1.5}, True)
    assert_same(found.value, value)


def test_another_machine_reads_a_remote_store_through_its_own_cache(tmp_path):
    url = f"memory://{uuid.uuid4().hex}"
    ArtefactStore(url, tmp_path / "cache1", (__name__,)).save(artefact(outer()))
    other = ArtefactStore(url, tmp_path / "cache2", (__name__,))
    assert_same(other.load("depth", "a1"), outer())
    damaged = next((tmp_path / "cache2").rglob("*.images"))
    damaged.write_bytes(b"x")
    assert_same(other.load("depth", "a1"), outer())  # the copy is made anew, the artefact itself is whole


def test_the_same_result_gives_the_same_bytes_everywhere(tmp_path):
    for name in ("one", "two"):
        ArtefactStore(str(tmp_path / name), tmp_path / "cache", (__name__,)).save(artefact(outer()))
    assert all_bytes(tmp_path / "one") == all_bytes(tmp_path / "two")


def test_saved_twice_keeps_the_first_and_refuses_other_bytes(store):
    store.save(artefact(outer()))
    store.save(artefact(outer()))
    with pytest.raises(
        ArtefactDiffers, match=r"depth/a1.*got others in depth\.files|depth/a1.*room\.glb.*different bytes"
    ):
        store.save(artefact(outer(seed=1)))
    with pytest.raises(ArtefactDiffers, match=r"artefact\.json"):
        store.save(artefact(dataclasses.replace(outer(), plain=(1.0, 2.0, 3.0))))
    assert_same(store.load("depth", "a1"), outer())


def test_large_arrays_are_mapped_and_may_be_scribbled_on_without_changing_the_artefact(store):
    value = np.arange(400_000.0).reshape(1000, 400)
    store.save(artefact(Inner(value)))
    loaded = store.load("depth", "a1").array
    assert isinstance(loaded, np.memmap)
    loaded[:] = -1
    np.testing.assert_array_equal(store.load("depth", "a1").array, value)


@pytest.mark.parametrize(
    "array",
    [np.array(3.5), np.zeros((0, 4), np.uint8), np.asfortranarray(np.arange(12.0).reshape(3, 4)), np.arange(9)[::-2]],
    ids=["no axis", "empty", "columns first", "strided"],
)
def test_odd_arrays_come_back(store, array):
    store.save(artefact(Inner(array)))
    assert_same(store.load("depth", "a1").array, array)


def test_huge_arrays_are_streamed(tmp_path):
    store = ArtefactStore(str(tmp_path / "store"), tmp_path, (__name__,))
    frames = scratch_array((300, 256, 512), np.float32)  # 157 MB
    frames[::50] = 1.0
    tracemalloc.start()
    try:
        store.save(artefact(Inner(frames)))
        loaded = store.load("depth", "a1").array
        assert loaded[50, 3, 3] == 1.0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6


def test_images_are_streamed_and_read_one_at_a_time(tmp_path):
    store = ArtefactStore(str(tmp_path / "store"), tmp_path, (__name__,))
    images = EncodedImages([lambda i=i: bytes([i]) * 1_000_000 for i in range(100)])
    tracemalloc.start()
    try:
        store.save(artefact(images))
        assert store.load("depth", "a1").encoded(7) == b"\7" * 1_000_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize(
    "damage", ["a changed byte", "cut short", "a missing file", "a changed record", "a cut record"]
)
def test_damage_is_noticed_set_aside_and_mended(store, tmp_path, damage):
    store.save(artefact(outer()))
    root = store._remote("artefacts", "depth", "a1")
    name = "artefact.json" if "record" in damage else "depth.images.images"
    content = store.fs.cat_file(f"{root}/{name}")
    if damage == "a missing file":
        store.fs.rm_file(f"{root}/{name}")
    elif "cut" in damage:
        store.fs.pipe_file(f"{root}/{name}", content[:-10])
    else:
        at = content.index(b"1-x") if "record" in damage else 7
        store.fs.pipe_file(f"{root}/{name}", content[:at] + b"2" + content[at + 1 :])
    fresh = ArtefactStore(store.url, tmp_path / "another cache", (__name__,))
    with pytest.raises(ArtefactCorrupt, match="depth/a1"):
        fresh.load("depth", "a1")
    aside = fresh.set_aside("depth", "a1")
    assert "/corrupt/depth/a1-" in aside
    assert not fresh.saved("depth", "a1")
    fresh.save(artefact(outer()))
    assert_same(fresh.load("depth", "a1"), outer())


def test_a_missing_artefact_says_which_step_to_run(store):
    with pytest.raises(
        ArtefactMissing, match=r"depth/zz: expected it in .*; got nothing there\. Run the step depth again"
    ):
        store.load("depth", "zz")


def test_only_nouns_of_known_packages_are_made(tmp_path):
    ArtefactStore(str(tmp_path), tmp_path, (__name__,)).save(artefact(Inner(np.zeros(2))))
    with pytest.raises(ValueError, match=r"expected a noun of geomagic_dagster\.cv"):
        ArtefactStore(str(tmp_path), tmp_path).load("depth", "a1")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Inner(object()), r"depth\.array: expected a numpy array.*got builtins\.object"),
        (Inner(np.array([None])), r"depth\.array: expected an array of numbers; got dtype object"),
        (Inner({1, 2}), r"depth\.array: .*got builtins\.set"),
        (Files({"artefact.json": b""}), r"expected no file called artefact\.json"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_the_name_of_its_field(store, value, words):
    with pytest.raises((StageError, Broken), match=words):
        store.save(artefact(value))
    assert not store.saved("depth", "a1")


def test_pointers_are_followed_and_replaced(store):
    one, two = (store.save(artefact(outer(), identity)) for identity in ("a1", "a2"))
    name = ("assets", "latest", "depth", "Büro / 2. Stock")
    assert store.pointed(name) is None
    store.point(name, one)
    store.point(name, two)
    assert store.pointed(name).identity == "a2"
    assert store.pointed(("assets", "latest", "depth", "other")) is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, r"expected room to write it; got a full disk\. Free some space there, or point GEOMAGIC_HOME"),
        (errno.EROFS, r"expected room to write it; got Read-only file system .*Give this user the right to write"),
    ],
)
def test_a_full_or_read_only_disk_is_said_in_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, code, words):
    store = ArtefactStore(str(tmp_path / "store"), tmp_path, (__name__,))

    def fails(descriptor: int) -> None:
        raise OSError(code, os.strerror(code), "somewhere")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(Unavailable, match=rf"artefact depth/a1 in .*store: {words}"):
        store.save(artefact(outer()))
    assert not store.saved("depth", "a1")
    assert all_bytes(tmp_path / "store") == {}


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere; the words are tested above")
def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    (tmp_path / "store").mkdir(mode=0o500)
    with pytest.raises(Unavailable, match="Permission denied"):
        ArtefactStore(str(tmp_path / "store"), tmp_path, (__name__,)).save(artefact(outer()))


def test_a_process_killed_while_it_saves_leaves_nothing_that_counts(tmp_path):
    program = f"""
import time, numpy as np
from pathlib import Path
from geomagic_dagster.cv.containers import EncodedImages
from geomagic_dagster.resources.store import Artefact, ArtefactStore
def slow():
    print("half-way", flush=True)
    time.sleep(60)
images = EncodedImages([b"first", slow])
ArtefactStore({str(tmp_path)!r}, Path({str(tmp_path)!r})).save(Artefact("depth", "a1", get=lambda: images))
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"half-way\n"
    process.kill()
    process.wait()
    store = ArtefactStore(str(tmp_path), tmp_path, (__name__,))
    left = next((tmp_path / "partial").iterdir())
    assert not store.saved("depth", "a1")
    store.save(artefact(outer()))
    assert_same(store.load("depth", "a1"), outer())
    assert left.exists()  # it could belong to a process that still writes ...
    os.utime(left, (time.time() - 2 * 24 * 3600,) * 2)
    store.save(artefact(outer(), "a2"))
    assert not left.exists()  # ... but not for days


def test_the_record_tells_a_person_what_it_is(tmp_path):
    store = ArtefactStore(str(tmp_path), tmp_path, (__name__,))
    store.save(dataclasses.replace(artefact(Inner(np.zeros(2))), settings={"far_m": 8.0}, inputs={"frames": "f0"}))
    record = json.loads((tmp_path / "artefacts" / "depth" / "a1" / "artefact.json").read_text())
    assert record["stage"] == "depth"
    assert record["settings"] == {"far_m": 8.0}
    assert record["inputs"] == {"frames": "f0"}
    assert record["value"]["noun"].endswith(":Inner")
    assert record["files"]["depth.array.npy"]["size"] == 128 + 16


# --- any result that the contract allows ------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=8,
)
arrays = hnp.arrays(
    dtype=st.sampled_from([np.float64, np.float32, np.uint16, np.uint8, np.int32, np.bool_, np.dtype(">u2")]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
images = st.lists(st.binary(max_size=20), max_size=4).map(EncodedImages)
file_sets = st.dictionaries(
    st.text("abcxyz._-äß ", min_size=1, max_size=8).filter(lambda name: name not in (".", "..")),
    st.binary(max_size=9),
    max_size=3,
).map(Files)
leaves = arrays | images | plain
nouns = st.builds(Inner, array=leaves, anything=st.builds(Inner, array=leaves, anything=leaves) | leaves)
results = st.builds(Outer, inner=nouns, images=images, files=file_sets, plain=plain)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=results)
def test_any_result_comes_back_from_anywhere(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("any")
    for url in (str(folder / "store"), f"memory://{uuid.uuid4().hex}"):
        store = ArtefactStore(url, folder / "cache", (__name__,))
        store.save(artefact(value))
        store.save(artefact(value))
        assert_same(store.load("depth", "a1"), value)
