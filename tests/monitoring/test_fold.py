"""The pure state machine: however it is read and whenever it dies, every event counts once."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomagic_dagster.monitoring.counts import MAX_SERIES, METRICS, OTHER, Counts
from geomagic_dagster.monitoring.events import Event
from geomagic_dagster.monitoring.fold import SETTLE_S, LiveRun, fold, is_over
from geomagic_dagster.monitoring.state import State


def result(**metadata) -> dict:
    return {"message": "", "metadata": metadata}


def failed(*classes: str, **metadata) -> dict:
    return {"message": "", "metadata": metadata, "classes": ["Failure", *classes]}


def new_run(**more) -> LiveRun:
    return LiveRun(**{"job": "process_scan", "release": "1.0", "created_s": 1000.0} | more)


def numbered(*rows) -> list[Event]:
    """Events from (kind, step, seconds since the run was made, data)."""
    return [Event(i, kind, step, 1000.0 + at, data) for i, (kind, step, at, data) in enumerate(rows, start=1)]


def counted(events: list[Event], run: LiveRun | None = None) -> Counts:
    counts = Counts()
    fold(run or new_run(), events, counts, now_s=5000.0)
    return counts


def only(counts: Counts, name: str):
    [(labels, held)] = counts.values[name].items()
    return labels, held


FAILED = failed(failure_kind="passing", failure="timeout")
JOURNEY = numbered(
    ("PIPELINE_START", "", 3.0, {}),
    ("STEP_START", "depth", 4.0, {}),
    ("STEP_UP_FOR_RETRY", "depth", 9.0, failed("StageTimeout")),
    ("STEP_RESTARTED", "depth", 12.0, {}),
    ("STEP_OUTPUT", "depth", 15.0, result(seconds=3.0, deadline_s=12.0, peak_memory_mb=2.0, attempt=2.0, coverage=0.5, reused=False, out_of_range="depth: expected ...")),
    ("STEP_SUCCESS", "depth", 15.5, {}),
    ("STEP_START", "mesh", 16.0, {}),
    ("STEP_FAILURE", "mesh", 26.0, FAILED),
    ("PIPELINE_FAILURE", "", 27.0, {"failure_reason": "RunFailureReason.STEP_FAILURE"}),
)  # fmt: skip


def test_a_run_with_a_retry_and_a_failure_is_counted_as_what_it_was():
    counts = counted(JOURNEY, new_run(deadline_s=48.0))
    run = ("1.0", "process_scan")
    assert counts.values["geomagic_steps_total"] == {
        (*run, "depth", "success", "", ""): 1.0,
        (*run, "mesh", "failure", "passing", "timeout"): 1.0,
    }
    assert only(counts, "geomagic_step_retries_total") == ((*run, "depth", "passing", "timeout"), 1.0)
    assert counts.values["geomagic_step_timeouts_total"] == {(*run, "depth"): 1.0, (*run, "mesh"): 1.0}
    assert only(counts, "geomagic_runs_total") == ((*run, "failure", "passing", "timeout"), 1.0)
    assert only(counts, "geomagic_run_first_step_wait_seconds")[1][-2:] == [4.0, 4.0]
    assert only(counts, "geomagic_run_duration_seconds")[1][-1] == 24.0
    assert only(counts, "geomagic_scan_deadline_headroom_ratio")[1][-1] == 0.5
    durations = {labels[2:]: held[-1] for labels, held in counts.values["geomagic_step_duration_seconds"].items()}
    assert durations == {("depth", "retry"): 5.0, ("depth", "success"): 3.5, ("mesh", "failure"): 10.0}
    headroom = counts.values["geomagic_stage_deadline_headroom_ratio"]
    assert headroom[("1.0", "depth")][-2:] == [0.75, 0.75]
    assert sum(headroom[("1.0", "depth")][:-2]) == 2, "the attempt that passed its deadline had none left"
    assert headroom[("1.0", "mesh")][-1] == 0.0
    assert only(counts, "geomagic_stage_peak_memory_bytes")[1] == 2 * 2**20
    assert only(counts, "geomagic_stage_number_values") == (("1.0", "depth", "coverage"), [1, 0.5, 0.5])
    assert only(counts, "geomagic_stage_out_of_range_total")[1] == 1.0
    assert not counts.values["geomagic_exporter_unreadable_events_total"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (failed("ZeroDivisionError"), ("unknown", "unknown")),
        (failed(), ("unknown", "unknown")),
        ({}, ("unknown", "unknown")),
        (failed(failure_kind="bug"), ("bug", "unknown")),
        (failed("ScanRejected", "ImageUnreadable"), ("permanent", "rejected")),
        (failed("ChildProcessCrashException"), ("passing", "killed")),
    ],
)
def test_the_kind_of_a_failure_is_what_it_says_else_its_class_else_unknown(data, why):
    counts = counted(numbered(("STEP_FAILURE", "depth", 1.0, data)))
    assert only(counts, "geomagic_steps_total")[0][-2:] == why


@pytest.mark.parametrize(
    ("events", "labels"),
    [
        ([("PIPELINE_SUCCESS", "", 9.0, {})], ("success", "", "")),
        ([("PIPELINE_CANCELED", "", 9.0, {})], ("canceled", "", "")),
        ([("PIPELINE_FAILURE", "", 9.0, {})], ("failure", "unknown", "unknown")),
        (
            [("PIPELINE_FAILURE", "", 9.0, {"failure_reason": "RunFailureReason.START_TIMEOUT"})],
            ("failure", "unknown", "start_timeout"),
        ),
        (  # the monitor cancels, the run's process says so, and then the monitor calls it failed
            [
                ("PIPELINE_CANCELING", "", 8.0, {"message": "Canceling due to exceeding maximum runtime of 9 seconds."}),
                ("PIPELINE_CANCELED", "", 9.0, {}),
                ("PIPELINE_FAILURE", "", 9.5, {"message": "Exceeded maximum runtime of 9 seconds."}),
            ],
            ("failure", "passing", "timeout"),
        ),
    ],
)  # fmt: skip
def test_a_run_ends_once(events, labels):
    counts = counted(numbered(*events))
    assert only(counts, "geomagic_runs_total") == (("1.0", "process_scan", *labels), 1.0)
    assert len(counts.values["geomagic_run_timeouts_total"]) == ("timeout" in labels)


def test_assets_are_counted_by_their_release_and_their_numbers_once():
    numbers = result(coverage=0.5)
    events = numbered(
        ("STEP_START", "v1_0__depth", 1.0, {}),
        ("ASSET_MATERIALIZATION", "v1_0__depth", 2.0, numbers),
        ("STEP_OUTPUT", "v1_0__depth", 2.0, numbers),
        ("STEP_SUCCESS", "v1_0__depth", 2.0, {}),
    )
    counts = counted(events, new_run(job="assets", release="unknown"))
    assert only(counts, "geomagic_stage_number_values") == (("1.0", "depth", "coverage"), [1, 0.5, 0.5])
    assert only(counts, "geomagic_steps_total")[0][:3] == ("1.0", "assets", "depth")


def test_labels_hold_no_sentences_and_their_number_is_bounded():
    counts = counted(
        numbered(
            ("STEP_FAILURE", "depth", 1.0, failed(failure="Anna's room is dark")),
            ("STEP_OUTPUT", "depth", 1.0, result(**{f"n{i}": 1.0 for i in range(MAX_SERIES + 50)})),
            ("STEP_OUTPUT", "scan[Annas_room]", 1.0, result(seconds=1.0)),
        )
    )  # fmt: skip
    assert only(counts, "geomagic_steps_total")[0][-1] == OTHER
    assert ("1.0", OTHER) in counts.values["geomagic_stage_duration_seconds"]
    numbers = counts.values["geomagic_stage_number_values"]
    assert len(numbers) == MAX_SERIES
    assert "Anna" not in json.dumps(counts.to_json())


def test_releases_of_long_ago_make_room_for_new_ones_and_those_in_use_stay():
    counts = Counts()
    name = "geomagic_run_timeouts_total"
    for release in range(2 * MAX_SERIES):
        counts.apply([(name, (f"1.{release}", "process_scan"), 1.0), (name, ("1.0", "process_scan"), 1.0)])
        if release % 500 == 0:
            counts = Counts.from_json(json.loads(json.dumps(counts.to_json())))
    held = counts.values[name]
    assert len(held) == MAX_SERIES
    assert held[("1.0", "process_scan")] == 2 * MAX_SERIES + 1
    assert ("1.1", "process_scan") not in held
    assert held[(f"1.{2 * MAX_SERIES - 1}", "process_scan")] == 1


def test_what_is_no_number_does_not_poison_the_sums():
    counts = counted(
        numbered(*(("STEP_OUTPUT", "depth", 1.0, result(coverage=c)) for c in (float("nan"), float("inf"), 0.5)))
    )  # fmt: skip
    assert only(counts, "geomagic_stage_number_values")[1] == [1, 0.5, 0.5]


def test_an_event_of_another_shape_is_counted_as_unreadable_and_the_next_ones_are_read():
    counts = counted(numbered(("STEP_OUTPUT", "depth", 1.0, {}), *[(e.kind, e.step, e.time_s - 1000, e.data) for e in JOURNEY]))  # fmt: skip
    assert only(counts, "geomagic_exporter_unreadable_events_total")[1] == 1.0
    assert len(counts.values["geomagic_runs_total"]) == 1


def test_every_metric_is_named_as_prometheus_wants_it():
    for metric in METRICS.values():
        assert metric.name.startswith("geomagic_")
        assert metric.help.endswith(".")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert list(metric.buckets) == sorted(metric.buckets)
        assert not {"le", "quantile", "scan", "upload"} & set(metric.labels)


kinds = st.sampled_from(
    [
        ("STEP_START", {}),
        ("STEP_SUCCESS", {}),
        ("STEP_FAILURE", FAILED),
        ("STEP_UP_FOR_RETRY", failed()),
        ("STEP_OUTPUT", result(seconds=0.25, deadline_s=1.0, coverage=0.5)),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.tuples(kinds, st.sampled_from(["depth", "mesh"])), max_size=25))
def test_late_commits_crashes_and_any_way_to_read_count_every_event_once(seed, content):
    """A writer's events appear up to 30 s after their time, out of order; the exporter dies with whatever it holds."""
    events = [Event(i, kind, step, 1000.0 + 7.0 * i, said) for i, ((kind, said), step) in enumerate(content, start=1)]
    events.append(Event(len(events) + 1, "PIPELINE_SUCCESS", "", 1000.0 + 7.0 * (len(events) + 1), {}))
    chance = random.Random(seed)
    appears_s = {event.id: event.time_s + chance.uniform(0, 30) for event in events}
    on_disk, state, now_s = State(live={"run": new_run()}).dumps(), None, 990.0
    while now_s < events[-1].time_s + 5 * SETTLE_S:
        is_last = now_s > events[-1].time_s + 3 * SETTLE_S
        now_s += chance.uniform(0.5, 50)
        if state is None:  # it was killed, or it begins
            state = State.loads(on_disk)
        if run := state.live.get("run"):
            visible = [e for e in events if appears_s[e.id] <= now_s and e.id > run.read_to]
            fold(run, visible, state.counts, now_s)
            state.live = {} if is_over(run, now_s) else state.live
        if is_last or chance.random() < 0.7:
            on_disk = state.dumps()
        if not is_last and chance.random() < 0.4:
            state = None
    final = State.loads(on_disk)
    assert final.live == {}
    for name, expected in counted(events).values.items():
        if METRICS[name].kind == "counter":
            assert final.counts.values[name] == expected, name
    for name in ("geomagic_stage_duration_seconds", "geomagic_stage_number_values"):
        once = {labels: held[:-1] for labels, held in counted(events).values[name].items()}
        assert {labels: held[:-1] for labels, held in final.counts.values[name].items()} == once


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(METRICS)), st.sampled_from(["a", "b", "", "Ümläut", "x y"]), st.floats(0, 1e4)
        ),
        max_size=40,
    )
)
def test_numbers_survive_the_disk_unchanged(changes):
    counts = Counts()
    counts.apply((name, (label,) * len(METRICS[name].labels), value) for name, label, value in changes)
    again = Counts.from_json(json.loads(json.dumps(counts.to_json())))
    assert again.values == counts.values
    for metric in METRICS.values():
        if metric.kind == "histogram":
            for held in again.values[metric.name].values():
                assert all(isinstance(count, int) for count in held[:-2])


def test_a_metric_of_another_shape_begins_anew_and_the_others_go_on():
    counts = counted(JOURNEY)
    content = counts.to_json()
    content["geomagic_run_duration_seconds"]["shape"][2] = [1.0, 2.0]
    content["geomagic_gone_total"] = content["geomagic_runs_total"]
    again = Counts.from_json(content)
    assert again.values["geomagic_run_duration_seconds"] == {}
    assert again.values["geomagic_runs_total"] == counts.values["geomagic_runs_total"]
