"""The console's process: its database brought up to date, then gunicorn.

Belongs here: starting. Does not belong here: settings (settings.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import django
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from geomagic_dagster.guardrails.logs import LogfmtFormatter

THREADS = 16
"""Of each process; a slow upload holds one, and few may (scans/uploads.py)."""


def set_up() -> None:
    """Makes Django ready in this process, and its database one of this version."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "geomagic_dagster.console.settings")
    django.setup()
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connections

    _close_to_others(settings.DATABASES["default"])
    call_command("migrate", interactive=False, verbosity=0)
    connections.close_all()  # no process that is forked from here shares one


def _close_to_others(database: dict[str, Any]) -> None:
    """A database that is a file of ours only its owner may read: sessions and hashes of passwords are in it. What
    SQLite puts beside it has the same mode."""
    if "sqlite3" in database["ENGINE"] and database["NAME"] != ":memory:":
        place = Path(database["NAME"])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        place.chmod(0o600)


class _Lines(Logger):
    """gunicorn's own lines, as all others of the console are."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(LogfmtFormatter())


class _Server(BaseApplication):
    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self.options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        from geomagic_dagster.console.wsgi import application

        return application


def _work(worker: Any) -> None:
    """In each process that answers, once it is there: what the console does by itself, one of them at a time."""
    from geomagic_dagster.console.scans.worker import start

    start()


def serve(host: str, port: int, processes: int = 1) -> None:
    """Until SIGTERM or SIGINT.

    Args:
        processes: that answer. Limits hold over all of them together. One is enough for some people and a few uploads
            at a time, and SQLite has one writer anyway; each further one takes memory of its own.
    """
    set_up()
    _Server(
        {
            "bind": f"{host}:{port}",
            "workers": processes,
            "threads": THREADS,
            "worker_class": "geomagic_dagster.console.connections.Worker",
            "timeout": 120,
            "graceful_timeout": 8,
            "accesslog": None,
            "loglevel": "warning",
            "logger_class": _Lines,
            "post_worker_init": _work,
        }
    ).run()
