"""Files of trained weights: added, found, fetched, verified; by several at once, and from a store that is away."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import stat
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomagic_dagster.guardrails.failures import Unavailable, sort_failure
from geomagic_dagster.resources import weights as module
from geomagic_dagster.resources.weights import WeightsCorrupt, WeightsMissing, WeightStore
from tests.conftest import REPOSITORY

NOBODYS = "sha256:" + 64 * "a"


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path) -> WeightStore:
    url = str(tmp_path / "store" / "weights") if request.param == "local" else f"memory://{uuid.uuid4().hex}/weights"
    return WeightStore(url, tmp_path / "cache" / "weights")


@pytest.fixture
def net(tmp_path) -> Path:
    path = tmp_path / "net.pt"
    path.write_bytes(os.urandom(5_000))
    return path


def another_machine(store: WeightStore, tmp_path: Path) -> WeightStore:
    return WeightStore(store.url, tmp_path / uuid.uuid4().hex)


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    module._verified.clear()  # as in another process


def change_in_the_store(store: WeightStore, digest: str) -> None:
    if store.is_local:
        change_a_byte(store.here / digest[7:])
    else:
        store.fs.pipe_file(store._remote(digest), b"other bytes")


# --- adding and finding ---------------------------------------------------------------------------


def test_what_is_added_is_found_by_its_digest_on_any_machine_and_is_read_only(store, net, tmp_path):
    digest = store.add(net)
    assert digest == "sha256:" + hashlib.sha256(net.read_bytes()).hexdigest()
    for each in (store, another_machine(store, tmp_path)):
        assert each.path(digest).read_bytes() == net.read_bytes()
        assert stat.S_IMODE(each.path(digest).stat().st_mode) == 0o444
        assert each.is_here(digest)
        each.check(digest)
    assert store.sizes() == {digest: 5_000}
    assert net.stat().st_mode & 0o200, "the file that was added stays as it was"


def test_the_same_bytes_are_one_file_whatever_they_are_called(store, net, tmp_path):
    twin = tmp_path / "twin.pt"
    twin.write_bytes(net.read_bytes())
    assert store.add(net) == store.add(twin) == store.add(net)
    assert len(store.sizes()) == 1


@settings(max_examples=25, deadline=None)
@given(content=st.binary(max_size=100), chunk=st.integers(1, 9))
def test_every_content_comes_back(tmp_path_factory, content, chunk):
    folder = tmp_path_factory.mktemp("any")
    (folder / "file").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_BYTES", chunk)
        store = WeightStore(f"memory://{uuid.uuid4().hex}", folder / "cache")
        digest = store.add(folder / "file")
        assert another_machine(store, folder).path(digest).read_bytes() == content


def test_nothing_is_there_before_anything_was_added(store):
    assert store.sizes() == {}
    assert not store.is_here(NOBODYS)


def test_what_lies_there_beside_them_is_not_listed(store, net):
    digest = store.add(net)
    store.fs.pipe_file(f"{store._root}/README", b"")
    store.fs.pipe_file(f"{store._root}/.{uuid.uuid4().hex}.partial", b"half a file")
    assert list(store.sizes()) == [digest]


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../etc/passwd", "sha256:" + 64 * "g", "md5:" + 64 * "a"])
def test_what_is_no_digest_leads_nowhere(store, digest):
    with pytest.raises(ValueError, match="expected sha256: and 64 hexadecimal digits"):
        store.path(digest)


# --- what is wrong --------------------------------------------------------------------------------


def test_a_missing_file_is_permanent_and_names_the_next_command(store):
    with pytest.raises(WeightsMissing) as caught:
        store.path(NOBODYS, "stage guess, weights net")
    known = sort_failure(caught.value, "guess")
    assert (known.kind, known.failure) == ("permanent", "missing")
    assert known.sentence == (
        f"stage guess, weights net: expected {NOBODYS} in {store.url}; got no such file. "
        "Put it there on a machine that has it: geomagic weights add FILE."
    )
    with pytest.raises(WeightsMissing, match="got no such file"):
        store.check(NOBODYS)


def test_all_that_is_missing_is_named_at_once(store, net):
    digest, other = store.add(net), "sha256:" + 64 * "b"
    with pytest.raises(WeightsMissing, match=r"stage a, weights net: .*stage b, weights net: ") as caught:
        store.fetch({NOBODYS: "stage a, weights net", digest: "stage c, weights net", other: "stage b, weights net"})
    assert "stage c" not in str(caught.value)
    store.fetch({digest: "stage c, weights net"})


def test_a_changed_byte_in_the_store_is_corrupt_and_adding_the_file_again_mends_it(store, net, tmp_path):
    digest = store.add(net)
    change_in_the_store(store, digest)
    machine = another_machine(store, tmp_path)
    with pytest.raises(WeightsCorrupt) as caught:
        machine.path(digest, "stage guess, weights net")
    known = sort_failure(caught.value, "guess")
    assert (known.kind, known.failure) == ("permanent", "corrupt")
    assert known.sentence.startswith(f"stage guess, weights net ({digest[:19]}... in {store.url}): expected the bytes")
    assert known.sentence.endswith("Put the right file in its place: geomagic weights add FILE.")
    with pytest.raises(WeightsCorrupt, match="expected the bytes that the digest names"):
        machine.check(digest)
    assert store.is_local or not any(machine.here.iterdir()), "nothing wrong is kept"
    assert store.add(net) == digest
    assert machine.path(digest).read_bytes() == net.read_bytes()
    machine.check(digest)


def test_a_changed_copy_of_this_machine_is_fetched_again(net, tmp_path):
    store = WeightStore(f"memory://{uuid.uuid4().hex}", tmp_path / "cache")
    copy = store.path(store.add(net))
    change_a_byte(copy)
    with pytest.raises(WeightsCorrupt, match=r"only this machine's copy: rm -f '.*', and it is fetched again"):
        store.check("sha256:" + copy.name)
    assert store.path("sha256:" + copy.name).read_bytes() == net.read_bytes()


def test_a_file_is_read_once_by_a_process_and_again_when_it_changed(store, net, monkeypatch):
    path = store.path(store.add(net))
    module._verified.clear()
    read: list[Path] = []
    monkeypatch.setattr(module, "_sha256_of", lambda path: read.append(path) or path.name)
    store.path("sha256:" + path.name)
    store.path("sha256:" + path.name)
    assert read == [path]
    os.utime(path, ns=(1, 1))
    store.path("sha256:" + path.name)
    assert read == [path, path]


def test_a_store_that_is_away_passes_and_what_is_here_is_used_without_it(net, tmp_path):
    folder = tmp_path / "far"
    store = WeightStore(f"unreliable://{folder}/weights", tmp_path / "cache")
    digest = store.add(net)
    machine = WeightStore(store.url, tmp_path / "other")
    away = Path(f"{folder}.away")
    away.touch()
    for ask in (
        lambda: machine.path(digest),
        lambda: machine.fetch({digest: "x"}),
        machine.sizes,
        lambda: store.check(digest),
    ):
        with pytest.raises(Unavailable, match="expected .*; got ConnectionError: .*connection refused") as caught:
            ask()
        assert sort_failure(caught.value, "x").kind == "passing"
    assert store.path(digest).read_bytes() == net.read_bytes()
    away.unlink()
    assert machine.path(digest).read_bytes() == net.read_bytes()


def test_a_connection_that_ends_in_the_middle_leaves_nothing(net, tmp_path, monkeypatch):
    store = WeightStore(f"memory://{uuid.uuid4().hex}", tmp_path / "cache")
    digest = store.add(net)
    machine = another_machine(store, tmp_path)

    class Cut:
        def __init__(self, source):
            self.source, self.reads = source, 0

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.source.close()

        def read(self, size):
            self.reads += 1
            if self.reads > 1:
                raise ConnectionResetError("the line went dead")
            return self.source.read(10)

    opened = store.fs.open
    monkeypatch.setattr(type(store.fs), "open", lambda self, path, mode: Cut(opened(path, mode)))
    with pytest.raises(Unavailable, match="the line went dead"):
        machine.path(digest)
    assert not machine.here.exists() or not any(machine.here.iterdir())
    monkeypatch.undo()
    assert machine.path(digest).read_bytes() == net.read_bytes()


# --- several at once ------------------------------------------------------------------------------


def fetch_slowly(url: str, cache: Path, digest: str, at_once, answers) -> None:
    store = WeightStore(url, cache)
    module.CHUNK_BYTES = 100
    at_once.wait(200)
    answers.put(hashlib.sha256(store.path(digest).read_bytes()).hexdigest())


def test_processes_that_fetch_at_once_all_get_it_whole(net, tmp_path):
    """From a store elsewhere into one cache."""
    store = WeightStore(f"unreliable://{tmp_path}/far/weights", tmp_path / "first")
    digest = store.add(net)
    context = multiprocessing.get_context("spawn")
    at_once, answers = context.Barrier(2), context.Queue()
    arguments = (store.url, tmp_path / "cache", digest, at_once, answers)
    workers = [context.Process(target=fetch_slowly, args=arguments) for _ in range(2)]
    for each in workers:
        each.start()
    assert [answers.get(timeout=250) for _ in workers] == [digest[7:]] * 2
    for each in workers:
        each.join(60)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [digest[7:]]


KILLED = """
import os, signal, sys
from pathlib import Path
from geomagic_dagster.resources import weights
def cut(self, source, digest, of):
    yield source.read(100)
    os.kill(os.getpid(), signal.SIGKILL)
weights.WeightStore._as_digest = cut
weights.WeightStore(sys.argv[1], Path(sys.argv[2])).path(sys.argv[3])
"""


def test_one_that_is_killed_in_the_middle_leaves_nothing_that_looks_whole(net, tmp_path):
    store = WeightStore(f"unreliable://{tmp_path}/far/weights", tmp_path / "first")
    digest, cache = store.add(net), tmp_path / "cache"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", KILLED, store.url, str(cache), digest], env=environment, check=False)
    assert done.returncode == -9
    [left] = cache.iterdir()
    assert left.name.endswith(".partial")
    a_day_ago = time.time() - module.PARTIAL_LIVES_S - 60
    os.utime(left, (a_day_ago, a_day_ago))
    assert WeightStore(store.url, cache).path(digest).read_bytes() == net.read_bytes()
    assert [path.name for path in cache.iterdir()] == [digest[7:]], "and a day later it is swept away"
