"""The routing table: what it says, who reads it years later, and two writers at once."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomagic_dagster.releases import routing
from geomagic_dagster.releases.routing import NEVER, RoutingRefused, RoutingStore, RoutingUnavailable
from geomagic_dagster.releases.routing_changes import (
    end_flight,
    end_probation,
    make_live,
    pin,
    roll_back,
    set_default,
    set_flag,
    start_flight,
    take_off,
    unpin,
)
from geomagic_dagster.releases.routing_table import bucket, parse

NAMES = [f"room-{number}" for number in range(200)]


@pytest.fixture
def store(tmp_path: Path) -> RoutingStore:
    return RoutingStore(str(tmp_path / "routing"), tmp_path / "last_good.json")


def fresh(store: RoutingStore) -> RoutingStore:
    """The same as another process sees it: nothing in memory."""
    routing._known.clear()
    return RoutingStore(store.url, store.last_good)


def with_releases(store: RoutingStore, *releases: str) -> RoutingStore:
    for release in releases:
        store.change(make_live(release), by="ada", why="installed")
    return store


def change(store: RoutingStore, edit, by="ada", why="a test"):
    return store.change(edit, by=by, why=why)


# --- where a scan goes ----------------------------------------------------------------------------


def test_without_any_table_everything_goes_to_latest_and_nothing_is_wrong(store):
    reading = store.read()
    assert reading.table == NEVER and reading.problem is None
    assert reading.table.choose("room").release == "latest"


def test_a_pin_goes_before_a_flight_and_a_flight_before_the_default(store):
    with_releases(store, "1.0", "1.1", "1.2")
    change(store, set_default("1.0"))
    change(store, start_flight("1.1", 100, flight_id="f-all"))
    table = change(store, pin("mine", "1.2"))
    assert table.choose("mine").release == "1.2" and table.choose("mine").flight is None
    assert table.choose("yours").release == "1.1" and table.choose("yours").flight == "f-all"
    change(store, unpin("mine"))
    assert change(store, end_flight("1.1")).choose("mine").release == "1.0"


def test_ten_per_cent_of_200_scans_within_the_binomials_99_per_cent_interval_and_sticky(store):
    from scipy.stats import binom

    with_releases(store, "1.1")
    table = change(store, start_flight("1.1", 10, flight_id="f-1"))
    flown = [name for name in NAMES if table.choose(name).release == "1.1"]
    low, high = binom.interval(0.99, len(NAMES), 0.10)
    assert low <= len(flown) <= high
    assert flown == [name for name in NAMES if fresh(store).read().table.choose(name).release == "1.1"]
    wider = change(store, start_flight("1.1", 25))
    assert {name for name in NAMES if wider.choose(name).release == "1.1"} > set(flown), (
        "a growing flight keeps its scans"
    )


def test_no_scan_leaves_a_flight_because_another_flight_ends(store):
    with_releases(store, "1.1", "1.2")
    change(store, start_flight("1.1", 30))
    both = change(store, start_flight("1.2", 30))
    alone = change(store, end_flight("1.1"))
    assert {n for n in NAMES if both.choose(n).release == "1.2"} <= {
        n for n in NAMES if alone.choose(n).release == "1.2"
    }


def test_a_shadow_sees_a_copy_and_the_customer_gets_the_default(store):
    with_releases(store, "1.1")
    table = change(store, start_flight("1.1", 100, shadow=True, flight_id="f-s"))
    route = table.choose("room")
    assert (route.release, route.flight, route.shadows, route.shadow_flights) == ("latest", None, ("1.1",), ("f-s",))
    assert change(store, pin("room", "1.1")).choose("room").shadows == (), "its own release is no shadow"


def test_flags_are_on_for_everybody_for_a_share_and_for_single_scans(store):
    change(store, set_flag("new_fit", scans=("room-1",)))
    table = change(store, set_flag("fast", per_cent=50))
    assert "new_fit" in table.choose("room-1").flags and "new_fit" not in table.choose("room-2").flags
    assert 70 < sum("fast" in table.choose(name).flags for name in NAMES) < 130
    assert all(change(store, set_flag("fast", on=True)).choose(name).flags[:1] == ("fast",) for name in NAMES)
    off = change(store, set_flag("fast", on=False))
    assert not any("fast" in off.choose(name).flags for name in NAMES), "off is off, also for the share it had"


def test_buckets_are_the_same_for_every_release_for_ever():
    assert bucket("f-1", "room-1") == pytest.approx(74.2055452, abs=1e-4)
    assert 0 <= bucket("f", "\udcff\ud800") < 100


# --- readers of another age -----------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
unknown = st.dictionaries(st.text(max_size=8).map(lambda name: f"new_{name}"), json_values, max_size=3)


@settings(max_examples=60, deadline=None)
@given(top=unknown, in_flight=unknown, in_flag=unknown, in_probation=unknown)
def test_a_reader_of_schema_1_reads_a_table_of_schema_3_and_keeps_what_it_does_not_know(
    tmp_path_factory, top, in_flight, in_flag, in_probation
):
    folder = tmp_path_factory.mktemp("newer")
    document = {
        "schema": 3,
        "revision": 7,
        "default": "1.1",
        "live": ["latest", "1.0", "1.1"],
        "flights": [{"id": "f-1", "release": "1.0", "per_cent": 100, **in_flight}],
        "flags": {"fast": {"on": True, **in_flag}},
        "probation": {"release": "1.1", "previous": "1.0", **in_probation},
        **top,
    }
    (folder / "routing").mkdir()
    (folder / "routing" / "000000007.json").write_text(json.dumps(document))
    store = RoutingStore(str(folder / "routing"), folder / "last_good.json")
    assert store.read().problem is None
    assert store.read().table.choose("room").release == "1.0" and store.read().table.choose("room").flags == ("fast",)
    change(store, pin("room", "1.0"))
    written = json.loads((folder / "routing" / "000000008.json").read_text())
    for name in ("revision", "written_at", "written_by", "why", "write_id", "pins"):
        written.pop(name)
    assert written == {name: value for name, value in document.items() if name != "revision"}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_whatever_lies_there_is_a_table_or_refused_in_words(content):
    refused, table = _parsed(content)
    assert table or ("place" in refused and "expected" in refused and "got" in refused)
    assert not table or table.choose("room").release in table.live


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(["default", "live", "flights", "pins", "flags", "probation", "revision", "schema"]),
    value=json_values,
)
def test_a_known_field_of_a_wrong_kind_is_refused_or_means_something(name, value):
    document = {"schema": 1, "revision": 1, "default": "latest", "live": ["latest"], name: value}
    refused, table = _parsed(json.dumps(document))
    assert table or "place, " in refused
    assert not table or table.choose("room").release in table.live


def _parsed(content):
    try:
        return "", parse(content, "place")
    except RoutingRefused as refused:
        return str(refused), None


# --- broken, missing, away ------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "{", '{"revision": 3}', '{"revision": 9, "default": "1.0", "live": ["1.0"]}'])
def test_a_broken_table_leaves_the_last_good_one_in_force_and_says_so(store, content, caplog):
    with_releases(store, "1.0")
    change(store, set_default("1.0"))
    (Path(store.url) / "000000003.json").write_text(content)
    for reader in (store, fresh(store)):
        reading = reader.read()
        assert reading.table.revision == 2 and reading.table.choose("room").release == "1.0"
        assert "000000003.json" in str(reading.problem) and "Revision 2 stays in force" in str(reading.problem)
    assert any(record.levelname == "ERROR" and "000000003.json" in record.message for record in caplog.records)
    mended = change(store, pin("room", "latest"))
    assert mended.revision == 4 and mended.default == "1.0" and fresh(store).read().problem is None


def test_a_missing_table_leaves_the_copy_on_this_machine_in_force(store):
    with_releases(store, "1.0", "1.1")
    for file in Path(store.url).glob("*.json"):
        file.unlink()
    for reader in (store, fresh(store)):
        reading = reader.read()
        assert reading.table.live == ("latest", "1.0", "1.1")
        assert "expected revision 2" in str(reading.problem) and "no table at all" in str(reading.problem)
    assert change(fresh(store), pin("room", "1.1")).revision == 3, "numbers are never given twice"


def test_a_table_that_was_changed_by_hand_into_rubbish_leaves_the_copy_in_force(store):
    with_releases(store, "1.0")
    (Path(store.url) / "000000001.json").write_text("rubbish")
    assert fresh(store).read().table.live == ("latest", "1.0")
    assert "expected JSON" in str(store.read().problem)


def test_a_store_that_is_away_leaves_the_copy_in_force_and_without_a_copy_nothing_is_routed(tmp_path):
    (tmp_path / "far").mkdir()
    store = RoutingStore(f"unreliable://{tmp_path}/far/routing", tmp_path / "last_good.json")
    with_releases(store, "1.0")
    (tmp_path / "far.away").touch()
    for reader in (store, fresh(store)):
        assert reader.read().table.live == ("latest", "1.0")
        assert "connection refused" in str(reader.read().problem)
    with pytest.raises(RoutingUnavailable, match="Nothing was changed"):
        change(store, pin("room", "1.0"))
    store.last_good.unlink()
    with pytest.raises(RoutingUnavailable, match="nothing is routed until it answers"):
        fresh(store).read()
    (tmp_path / "far.away").unlink()
    assert fresh(store).read().problem is None


def test_a_copy_of_another_place_or_a_broken_one_is_no_copy(store, tmp_path):
    with_releases(store, "1.0")
    other = RoutingStore(str(tmp_path / "other"), store.last_good)
    assert other.read().table == NEVER and other.read().problem is None
    store.last_good.write_text("{}")
    assert fresh(store).read().table.live == ("latest", "1.0")


def test_a_revision_behind_a_gap_is_found(store, monkeypatch):
    with_releases(store, "1.0")
    document = store.read().table.document | {"revision": 3, "default": "1.0"}
    (Path(store.url) / "000000003.json").write_text(json.dumps(document))
    assert store.read().table.revision == 1, "revision 2 is not there, and the place was listed just now"
    monkeypatch.setattr(routing, "LIST_AGAIN_S", -1.0)
    assert store.read().table.revision == 3


def test_reading_lists_the_place_once_and_then_asks_for_two_files(store, monkeypatch):
    with_releases(store, *[f"1.{number}" for number in range(30)])
    store = fresh(store)
    asked: list[str] = []
    list_files, get = store.fs.ls, store.fs.cat_file
    monkeypatch.setattr(store.fs, "ls", lambda *a, **k: asked.append("list") or list_files(*a, **k))
    monkeypatch.setattr(store.fs, "cat_file", lambda path, *a, **k: asked.append(path[-7:-5]) or get(path, *a, **k))
    store.read()
    assert asked == ["list", "30"]
    asked.clear()
    for _ in range(3):
        assert store.read().table.revision == 30
    assert asked == ["30", "31"] * 3


def test_the_history_tells_who_changed_what_and_why(store):
    change(store, make_live("1.0"), by="ada", why="installed")
    change(store, set_default("1.0"), by="bob", why="approved")
    assert [(table.revision, table.written_by, table.why) for table in store.history()] == [
        (1, "ada", "installed"),
        (2, "bob", "approved"),
    ]
    assert [table.revision for table in store.history(after=1)] == [2]


# --- changes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_default("9.9"), r"release 9.9: expected a live one \(latest, 1.0, 1.1\); got 9.9. Make it live first"),
        (set_default("latest"), "default latest: expected another release than now"),
        (start_flight("9.9", 5), "release 9.9: expected a live one"),
        (start_flight("1.0", 101), "expected a share from 0 to 100 per cent; got 101"),
        (start_flight("1.0", -1), "expected a share above 0 per cent; got -1"),
        (start_flight("1.0", float("nan")), "expected a number; got nan"),
        (start_flight("1.0", 60), "flights: expected at most 100 per cent in all; got 110"),
        (start_flight("latest", 5), "expected a release that is not the default; got latest"),
        (end_flight("f-9"), "expected the id or the release of a flight; got these: f-1 of 1.1"),
        (pin("room", "9.9"), "expected a live one"),
        (unpin("room"), "unpin room: expected a scan that is pinned; got none"),
        (set_flag("Fast!", on=True), "flag: expected a name like new_plane_fit; got 'Fast!'"),
        (set_flag("fast", per_cent=200), "flag fast: expected a share from 0 to 100"),
        (make_live("main"), "live: expected latest or a line like 1.0; got 'main'"),
        (take_off("latest"), "expected a release without traffic; got it is the default"),
        (take_off("1.1"), "expected a release without traffic; got flight f-1"),
        (roll_back(), "expected a default on probation; got default latest, not on it"),
        (lambda document: document.update(default="1.2"), "default: expected a live release"),
        (lambda document: document.update(default=None), "default: expected text; got None"),
        (lambda document: document["flights"].append({"id": "f-1", "release": "1.0", "per_cent": 1}), "an id of its own"),
        (lambda document: document.update(probation={"release": "1.0", "previous": "1.1"}), "expected the default, latest"),
    ],
)  # fmt: skip
def test_a_change_that_makes_no_sense_is_refused_in_words_and_nothing_is_written(store, edit, words):
    with_releases(store, "1.0", "1.1")
    change(store, start_flight("1.1", 50, flight_id="f-1"))
    with pytest.raises(RoutingRefused, match=words):
        change(store, edit)
    assert len(list(Path(store.url).iterdir())) == 3


def test_a_change_without_somebody_or_a_reason_is_refused(store):
    with pytest.raises(RoutingRefused, match=r"by: expected words; got nothing. Say who and why."):
        change(store, make_live("1.0"), by=" ")
    with pytest.raises(RoutingRefused, match="why: expected words"):
        change(store, make_live("1.0"), why="")


def test_a_decision_made_by_looking_at_an_older_revision_is_refused(store):
    with_releases(store, "1.0", "1.1")
    with pytest.raises(
        RoutingRefused, match="expected revision 1, which it was decided by; got revision 2, by ada: installed"
    ):
        store.change(set_default("1.0"), by="bob", why="seen", only_if=1)
    assert store.change(set_default("1.0"), by="bob", why="seen", only_if=2).revision == 3


def test_a_new_default_is_on_probation_until_it_passes_or_goes_back(store):
    with_releases(store, "1.0", "1.1")
    change(store, start_flight("1.0", 10))
    table = change(store, set_default("1.0", smoke_upload="smoke.zip"))
    assert table.probation and (table.probation.release, table.probation.previous) == ("1.0", "latest")
    assert table.probation.smoke_upload == "smoke.zip" and not table.flights, (
        "its flight has ended: it takes everything"
    )
    with pytest.raises(RoutingRefused, match="latest, which is on probation|1.0, which is on probation since"):
        change(store, set_default("1.1"))
    with pytest.raises(RoutingRefused, match="the default on probation goes back to it"):
        change(store, take_off("latest"))
    with pytest.raises(RoutingRefused, match="expected 1.1 on probation; got 1.0 on probation"):
        change(store, roll_back("1.1"))
    back = change(store, roll_back("1.0"))
    assert back.default == "latest" and back.probation is None
    change(store, set_default("1.0"))
    assert change(store, end_probation("1.0")).probation is None
    assert change(store, set_default("1.1")).default == "1.1"


# --- many at once ---------------------------------------------------------------------------------


def _pin_many(url: str, last_good: str, writer: int, count: int) -> None:
    store = RoutingStore(url, Path(last_good))
    for number in range(count):
        store.change(pin(f"{writer}-{number}", "latest"), by=f"writer {writer}", why=f"{number}")


def _read_until(url: str, last_good: str, stop, problems) -> None:
    store = RoutingStore(url, Path(last_good))
    last = 0
    while not stop.is_set():
        reading = store.read()
        if reading.problem or reading.table.revision < last:
            problems.put(reading.problem or f"{reading.table.revision} after {last}")
        last = reading.table.revision


@pytest.mark.parametrize("where", ["local", "elsewhere"])
def test_many_writers_at_once_each_write_a_whole_revision_to_what_they_had_read(tmp_path, where):
    context = multiprocessing.get_context("fork")
    writers, each = 6, 8
    url = str(tmp_path / "routing") if where == "local" else f"unreliable://{tmp_path}/routing"
    (tmp_path / "routing").mkdir()
    stop, problems = context.Event(), context.Queue()
    reader = context.Process(target=_read_until, args=(url, str(tmp_path / "reader.json"), stop, problems))
    running = [
        context.Process(target=_pin_many, args=(url, str(tmp_path / f"last_good-{w % 2}.json"), w, each))
        for w in range(writers)
    ]
    for process in (reader, *running):
        process.start()
    for process in running:
        process.join(60)
    stop.set()
    reader.join(60)
    assert [process.exitcode for process in (*running, reader)] == [0] * (writers + 1)
    assert problems.empty(), problems.get()
    tables = list(RoutingStore(url, tmp_path / "other.json").history())
    assert [table.revision for table in tables] == list(range(1, writers * each + 1))
    for before, after in zip([NEVER, *tables], tables, strict=False):
        writer, number = after.written_by.split()[1], after.why
        assert dict(after.pins) == {**before.pins, f"{writer}-{number}": "latest"}, (
            "one writer's change, to all before it"
        )
    assert [path.name for path in (tmp_path / "routing").iterdir() if not path.name.endswith(".json")] == []


def test_a_writer_whose_answer_got_lost_does_not_write_twice(store, monkeypatch):
    with_releases(store, "1.0")
    create = routing.create_whole

    def created_and_then_refused(path, content):  # a request that was sent again because its answer did not come
        create(path, content)
        raise FileExistsError(path)

    monkeypatch.setattr(routing, "create_whole", created_and_then_refused)
    assert change(store, start_flight("1.0", 10)).revision == 2
    assert len(list(store.history())) == 2


def test_a_store_that_cannot_create_only_where_there_is_none_is_refused(tmp_path, monkeypatch):
    from fsspec.spec import AbstractFileSystem

    from geomagic_dagster.drill.unreliable import UnreliableFileSystem

    monkeypatch.setattr(UnreliableFileSystem, "pipe_file", AbstractFileSystem.pipe_file)
    store = RoutingStore(f"unreliable://{tmp_path}/routing", tmp_path / "last_good.json")
    with pytest.raises(RoutingUnavailable, match="expected a store that creates a file only where there is none"):
        change(store, make_live("1.0"))


def test_an_object_store_is_asked_to_create_only_where_there_is_none(tmp_path, monkeypatch):
    """s3fs and its like bring `_pipe_file`; fsspec puts its own `pipe_file` around that."""
    from fsspec.asyn import AsyncFileSystem

    store = RoutingStore(str(tmp_path / "routing"), tmp_path / "last_good.json")
    asked = []

    class Objects(AsyncFileSystem):
        async def _pipe_file(self, path, data, chunksize=1, mode="overwrite", **options):
            asked.append((path, mode))

        async def _ls(self, path, detail=True, **options):
            return []

    store.fs, store._is_local = Objects(skip_instance_cache=True), False
    change(store, make_live("1.0"))
    assert asked == [(store._file(1), "create")]
