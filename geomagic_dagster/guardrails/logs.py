"""One line of logfmt for whatever any process says: ts= level= msg= run_id= scan= release= stage= attempt=

Belongs here: the format, the logger that Dagster's runs write to the console with, and what makes a process of ours
write all of its lines so, those of libraries included. Does not belong here: what is worth a line. Arrays, images
and what is inside of an upload never are; a test feeds marked data through and looks for it.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dagster import EventLogEntry, Field, InitLoggerContext, LoggerDefinition, logger
from logfmter import Logfmter

from geomagic_dagster.guardrails.tags import RELEASE_TAG, SCAN_TAG

FIELDS = ("run_id", "scan", "release", "stage", "attempt")
TAGS = {SCAN_TAG: "scan", RELEASE_TAG: "release"}
"""Tags of a run that are fields of its lines."""
LONGEST_CHARS = 4000
"""Of a message; longer ones are cut: nobody prints an array by accident."""

_here: dict[str, str] = {}


def run_fields(run_id: str, tags: Mapping[str, str], stage: str = "", attempt: int | None = None) -> dict[str, str]:
    """What every line of a step says of itself; what is not known is left out."""
    said = {"run_id": run_id, **{field: tags[tag] for tag, field in TAGS.items() if tag in tags}, "stage": stage}
    if attempt is not None:
        said["attempt"] = str(attempt)
    return {name: said[name] for name in FIELDS if said.get(name)}


@contextmanager
def lines_of(fields: Mapping[str, str]) -> Iterator[None]:
    """Lines that this process logs inside the block carry these fields."""
    before = dict(_here)
    _here.update(fields)
    try:
        yield
    finally:
        _here.clear()
        _here.update(before)


def log_everything_as_logfmt(fields: Mapping[str, str] | None = None, level: int = logging.INFO) -> None:
    """From now on this process writes every line, also those of libraries and warnings, to stderr as logfmt."""
    _here.update(fields or {})
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogfmtFormatter())
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level)
    logging.captureWarnings(True)


class LogfmtFormatter(Logfmter):
    """`ts` in UTC to the millisecond, `level` in small letters, the message, then the fields that are known."""

    def format(self, record: logging.LogRecord) -> str:
        meta: Mapping[str, Any] = getattr(record, "dagster_meta", None) or {}
        message = str(meta.get("orig_message") or record.getMessage())
        line: dict[str, Any] = {
            "ts": _utc(record.created),
            "level": record.levelname.lower(),
            "msg": _short(message),
            **_here,
        }
        if meta:
            stage = str(meta.get("step_key") or "")
            line |= run_fields(str(meta.get("run_id") or ""), meta.get("job_tags") or {}, stage)
        if record.name not in ("root", "dagster", "system") and not record.name.startswith("geomagic"):
            line["logger"] = record.name
        if error := _error_in(meta):
            line["error"] = error
        if record.exc_info and record.exc_info[0] is not None:
            line["exc"] = self.formatException(record.exc_info)  # type: ignore[arg-type]
        return self.format_params(line)


def event_line(entry: EventLogEntry, tags: Mapping[str, str]) -> str:
    """A line of Dagster's event log as the same line of logfmt that a process writes."""
    event = entry.dagster_event
    line: dict[str, Any] = {
        "ts": _utc(entry.timestamp),
        "level": logging.getLevelName(entry.level).lower(),
        "msg": _short(entry.user_message or (event.message if event is not None else "") or ""),
        **run_fields(entry.run_id, tags, entry.step_key or ""),
    }
    if event is not None:
        line["event"] = event.event_type_value.lower().replace("pipeline_", "run_")  # the old word for it
    if error := _error_in({"dagster_event": event}):
        line["error"] = error
    return LogfmtFormatter.format_params(line)


def _utc(seconds: float) -> str:
    """2026-01-31T12:00:00.123Z"""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


def _short(message: str) -> str:
    if len(message) <= LONGEST_CHARS:
        return message
    return f"{message[:LONGEST_CHARS]} ... ({len(message) - LONGEST_CHARS} more characters)"


def _error_in(meta: Mapping[str, Any]) -> str:
    """The sentence, else the traceback, of a failed step or run among Dagster's own events."""
    data = getattr(meta.get("dagster_event"), "event_specific_data", None)
    if (said := getattr(data, "user_failure_data", None)) and said.description:
        return str(said.description)
    error = getattr(data, "error", None)
    return str(error.to_string()) if error is not None and hasattr(error, "to_string") else ""


def make_logfmt_the_default() -> None:
    """Runs of this process write their lines as logfmt where their config names no logger.

    Dagster's own default can be chosen in a run's config only, which nobody fills in who clicks on "Materialize".
    """
    from dagster._core.execution import context_creation_job, host_mode

    for module in (context_creation_job, host_mode):
        if not hasattr(module, "default_system_loggers"):
            raise ImportError(
                f"{module.__name__}: expected default_system_loggers, as in Dagster 1.13; got a Dagster without it. "
                "Look up where its default console logger is chosen now."
            )
        vars(module)["default_system_loggers"] = lambda instance: [(logfmt_console(), {"log_level": "DEBUG"})]


def logfmt_console() -> LoggerDefinition:
    """Dagster's console logger, in logfmt."""

    @logger({"log_level": Field(str, default_value="INFO", description="Lines below it are left out.")})
    def console(context: InitLoggerContext) -> logging.Logger:
        made = logging.Logger("geomagic", logging.getLevelName(context.logger_config["log_level"].upper()))
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(LogfmtFormatter())
        made.addHandler(handler)
        return made

    return console
