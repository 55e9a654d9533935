"""Every line of every process is logfmt, says what it is about, and nothing that is nobody's business."""

from __future__ import annotations

import logging
import re
import warnings

import pytest
from dagster import DagsterInstance
from hypothesis import given
from hypothesis import strategies as st

from geomagic_dagster.guardrails.logs import (
    LONGEST_CHARS,
    LogfmtFormatter,
    lines_of,
    log_everything_as_logfmt,
    run_fields,
)
from geomagic_dagster.jobs.run_log import lines_of_scan
from tests.toy_stages.installation import Toys
from tests.toy_stages.scans import toy_scan, write_toy_scan

PAIR = re.compile(r'([A-Za-z_][\w.]*)=("(?:[^"\\]|\\.)*"|[^ "=]*)(?: |$)')


def parsed(line: str) -> dict[str, str]:
    """A line of logfmt as a reader of it sees it; fails where it is none."""
    pairs, at = {}, 0
    while at < len(line):
        match = PAIR.match(line, at)
        assert match, f"not logfmt from {line[at : at + 60]!r} on: {line!r}"
        pairs[match[1]] = match[2][1:-1].replace('\\"', '"') if match[2].startswith('"') else match[2]
        at = match.end()
    return pairs


def a_line(message: str, *args, level: int = logging.INFO, **extra) -> dict[str, str]:
    record = logging.LogRecord("numba.core", level, "x.py", 1, message, args, None)
    return parsed(LogfmtFormatter().format(record))


def test_the_order_is_ts_level_msg_and_then_what_it_is_about():
    with lines_of(run_fields("r1", {"geomagic/scan": "Küche", "geomagic/release": "1.0"}, "mesh", 2)):
        line = a_line("fused %d of 7", 3, level=logging.WARNING)
    assert list(line) == ["ts", "level", "msg", "run_id", "scan", "release", "stage", "attempt", "logger"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
    assert line == {
        "level": "warning",
        "msg": "fused 3 of 7",
        "run_id": "r1",
        "scan": "Küche",
        "release": "1.0",
        "stage": "mesh",
        "attempt": "2",
        "logger": "numba.core",
    }
    assert "run_id" not in a_line("later")


@given(st.text(max_size=200))
def test_any_message_stays_one_line(message):
    record = logging.LogRecord("geomagic", logging.INFO, "x.py", 1, "%s", (message,), None)
    line = LogfmtFormatter().format(record)
    assert "\n" not in line
    assert "\r" not in line
    assert parsed(line)["level"] == "info"


def test_a_message_as_long_as_an_array_is_cut():
    line = a_line("x" * 100_000)
    assert len(line["msg"]) < LONGEST_CHARS + 50
    assert line["msg"].endswith(f"({100_000 - LONGEST_CHARS} more characters)")


def test_tracebacks_are_part_of_the_line():
    try:
        raise ValueError("boo")
    except ValueError as error:
        record = logging.LogRecord("geomagic", logging.ERROR, "x.py", 1, "oh", (), (type(error), error, None))
    assert "ValueError: boo" in parsed(LogfmtFormatter().format(record))["exc"]


def test_lines_of_libraries_and_warnings_are_logfmt_too(capsys, monkeypatch):
    before = logging.root.handlers[:], logging.root.level
    try:
        log_everything_as_logfmt()
        logging.getLogger("numba.core").warning("slow")
        logging.getLogger("numba.core").debug("chatter")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    finally:
        logging.root.handlers[:], level = before[0], before[1]
        logging.root.setLevel(level)
        logging.captureWarnings(False)
    said = [parsed(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["logger"] for line in said] == ["numba.core", "py.warnings"]
    assert "DeprecationWarning: old" in said[1]["msg"]


@pytest.fixture
def marked(tmp_path, monkeypatch):
    """A run over an upload that holds a mark wherever a person could have left a trace of theirs."""
    monkeypatch.setattr("geomagic_dagster.guardrails.retries.FIRST_DELAY_S", 0.0)
    toys = Toys(tmp_path / "home")
    upload = write_toy_scan(toys.inbox / "toy")
    record = (upload / "scan.json").read_text()
    assert '"device": "toy"' in record
    (upload / "scan.json").write_text(record.replace('"device": "toy"', '"device": "MARK-phone of Anna"'))
    (upload / "MARK-diary.txt").write_text("MARK dear diary")
    assert toy_scan().device == "toy"
    return toys, upload


def test_a_run_writes_only_logfmt_and_nothing_of_what_is_in_the_upload(marked, capfd):
    toys, upload = marked
    with DagsterInstance.ephemeral() as instance:
        result = toys.process(
            upload,
            instance,
            mood={"slow_s": 2.5},
            tags={"geomagic/scan": "toy", "geomagic/release": "latest"},
        )
        assert result.success
        said = capfd.readouterr().err
        events = list(lines_of_scan(instance, "toy", follow=True))
    lines = [parsed(line) for line in said.splitlines()]
    assert len(lines) > 10
    for line in lines:
        assert list(line)[:4] == ["ts", "level", "msg", "run_id"], line
        assert (line["run_id"], line["scan"], line["release"]) == (result.run_id, "toy", "latest")
    assert {line.get("stage") for line in lines} >= {"scan", "shades", "mood", "package", "publish"}
    assert all(parsed(line)["run_id"] == result.run_id for line in events)
    assert {parsed(line).get("event") for line in events} >= {"run_success", "step_output", "engine_event"}
    for text in (said, *events):
        assert "MARK" not in text
        assert "base64" not in text


def test_a_failed_step_says_its_sentence_in_its_line(marked, capfd):
    toys, upload = marked
    with DagsterInstance.ephemeral() as instance:
        result = toys.process(upload, instance, mood={"rejects": True}, tags={"geomagic/scan": "toy"})
        [line] = [line for line in lines_of_scan(instance, "toy", follow=False) if "event=step_failure" in line]
        assert not result.success
    assert parsed(line)["error"].startswith("mood: expected a merry room; got a sad one. Scan another room.")
    failed = [line for line in capfd.readouterr().err.splitlines() if "STEP_FAILURE" in line or "failed" in line]
    assert any("expected a merry room" in line for line in failed)
