"""Dagster's SQLite storage without its waits: a run writes about a hundred events, one transaction each.

Belongs here: how a connection to these databases is set up. Does not belong here: what is in them.

Dagster opens and closes a connection for every event. Each transaction then waits for the disk twice, and closing the
only connection folds the journal back into the database, which waits again: some 30 ms an event where other work
keeps the disk busy, and nearly a second for the first event of a run, whose database is new. Here every connection
journals ahead from its first statement (as Dagster's databases do anyway) and syncs when the journal is folded, not
with every transaction, and one idle connection stays open for each database that is in use. When a process dies
nothing is lost. When the power fails, the last events may be, and never the database: their run is found dead and
started again, as it would be anyway.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from dagster._core.storage.sqlite_storage import DagsterSqliteStorage, SqliteStorageConfig
from dagster._serdes import ConfigurableClassData
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from geomagic_dagster.guardrails.locks import held

MAX_KEPT = 16
"""Databases with an idle connection; one for each recent run, and three more."""


class QuickSqliteStorage(DagsterSqliteStorage):
    """DagsterSqliteStorage whose connections are set up as above; configured in dagster.yaml."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: SqliteStorageConfig
    ) -> QuickSqliteStorage:
        if not event.contains(Engine, "connect", _set_up):
            event.listen(Engine, "connect", _set_up)
            event.listen(Pool, "checkin", _tell_watchers)
        # whoever opens the databases first makes them; Dagster fails where two processes do so at once
        with held(Path(config_value["base_dir"]) / "storage.lock"):
            return cls.from_local(inst_data=inst_data, **config_value)


_kept: OrderedDict[str, sqlite3.Connection] = OrderedDict()
_lock = threading.Lock()
_of_parents: list[Any] = []
"""A forked process must neither use nor close its parent's connections: they are kept, and nothing else."""


def _set_up(connection: Any, record: Any) -> None:
    if not isinstance(connection, sqlite3.Connection):
        return
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    if not path:  # in memory
        return
    record.info["path"] = path
    with _lock:
        if path in _kept:
            _kept.move_to_end(path)
            return
        idle = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        idle.execute("SELECT count(*) FROM sqlite_master").fetchone()  # takes part in the journal from now on
        _kept[path] = idle
        evicted = _kept.popitem(last=False)[1] if len(_kept) > MAX_KEPT else None
    if evicted is not None:
        evicted.close()


def _tell_watchers(connection: Any, record: Any) -> None:
    """The page of a run follows the time of change of its database, which a journal that is not folded leaves alone."""
    if isinstance(connection, sqlite3.Connection) and connection.total_changes and "path" in record.info:
        with contextlib.suppress(FileNotFoundError):
            os.utime(record.info["path"])


def _forget_parents() -> None:
    global _lock, _kept
    _of_parents.append(_kept)
    _kept, _lock = OrderedDict(), threading.Lock()


os.register_at_fork(after_in_child=_forget_parents)
