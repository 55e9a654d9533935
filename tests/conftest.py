"""What all tests share. Real scans are data beside the repository; they are never committed."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# What the person who starts the tests has set for an installation, or git for a hook, is not for the tests.
NOT_FOR_TESTS = ("GEOMAGIC_", "DAGSTER_", "DJANGO_", "DATABASE_URL", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE",
                 "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_AUTHOR_", "GIT_COMMITTER_")  # fmt: skip
SAID_TO_TESTS = ("GEOMAGIC_SCANS", "GEOMAGIC_ROOMS", "GEOMAGIC_SCREENSHOTS", "GEOMAGIC_TEST_")
# As definitions.py has them; read when numpy and torch are imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from tests.order import LONGEST_FIRST

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REPOSITORY = Path(__file__).parents[1]
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_PATIENCE_MS = 180_000.0
"""How long a page may take for anything; say so to each context, too: context.set_default_timeout."""
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",  # it needs rights that a CI container has not; nothing but our own pages is opened
    "--use-angle=swiftshader",  # WebGL on machines without a graphics card
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


# The same examples in every run, and no example is a failure because the machine was busy. Other examples, to look for
# what these do not find: pytest --hypothesis-profile exploring
_patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
hypothesis_settings.register_profile("repeatable", derandomize=True, **_patient)
hypothesis_settings.register_profile("exploring", derandomize=False, **_patient)
hypothesis_settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """In a process of pytest alone: what tests start may import this file, too, and needs what it was told."""
    for name in [name for name in os.environ if name.startswith(NOT_FOR_TESTS) and not name.startswith(SAID_TO_TESTS)]:
        del os.environ[name]


@event.listens_for(Engine, "connect")
def _wait_for_no_disk(connection: object, record: object) -> None:
    """A database of a test need not outlive the machine's power; what is killed in a test loses nothing by this.

    launching/storage.py sets its connections up after this, as it does everywhere.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long begin first, so that no process is left alone with one at the end (see Makefile).

    What is slow gets an hour until it counts as hanging: many may share the machine.
    """
    place = {file: number for number, file in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.nodeid.split("::")[0], len(place)))
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(autouse=True, scope="module")
def _databases_as_dagster_opens_them() -> Iterator[None]:
    """launching/storage.py sets up all databases of its process, as long as that lives; tests of others share it."""
    yield
    storage = sys.modules.get("geomagic_dagster.launching.storage")
    if storage is not None and event.contains(Engine, "connect", storage._set_up):
        event.remove(Engine, "connect", storage._set_up)
        event.remove(Pool, "checkin", storage._tell_watchers)
        while storage._kept:
            storage._kept.popitem()[1].close()


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A process that ignores a signal hands that on to all it starts: no test leaves others that cannot be ended."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def workspace_of_latest(folder: Path) -> Path:
    """The project's workspace without its releases, which need not be installed where tests run."""
    import yaml

    entries = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())["load_from"]
    path = folder / "workspace.yaml"
    path.write_text(yaml.safe_dump({"load_from": entries[:1]}))
    return path


@pytest.fixture(scope="session")
def real_scans() -> Path:
    """The folder of real room scans: $GEOMAGIC_SCANS, else ../shared/scans beside the repository."""
    folder = Path(os.environ.get("GEOMAGIC_SCANS", REPOSITORY.parent / "shared" / "scans"))
    if not folder.is_dir():
        pytest.skip(f"no real scans at {folder}; point GEOMAGIC_SCANS at a folder that holds them")
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real browser of this machine, patient where it is busy."""
    from playwright.sync_api import expect, sync_playwright

    program = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(CHROMIUMS)} is on this machine; on Debian: make setup-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=list(CHROMIUM_ARGUMENTS), timeout=BROWSER_PATIENCE_MS
        )
        expect.set_options(timeout=BROWSER_PATIENCE_MS)  # of every test alike, whichever came before it
        yield browser
        browser.close()
