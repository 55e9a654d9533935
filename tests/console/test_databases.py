"""The console on SQLite and on Postgres: its tables, many people at once, an audit trail that SQL cannot change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.monitoring.conftest import new_database, postgres_port  # noqa: F401  a fixture

REPOSITORY = Path(__file__).parents[2]
SCRIPT = """
from concurrent.futures import ThreadPoolExecutor
from geomagic_dagster.console.server import set_up
set_up()
from django.conf import settings
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, connections, transaction
from geomagic_dagster.console import people
from geomagic_dagster.console.registry import service
from geomagic_dagster.console.registry.audit import Actor
from geomagic_dagster.console.registry.models import AuditEntry, RoutingSync

for n in range(4):
    people.make_user(f"user{n}", "a long password 1", ["operator"])

def five_flags(n):
    actor = Actor(User.objects.get(username=f"user{n}"))
    for each in range(5):
        service.set_flag(actor, f"flag_{n}_{each}", "at once", per_cent=each)
    connections.close_all()

with ThreadPoolExecutor(4) as pool:
    list(pool.map(five_flags, range(4)))
table = settings.PLACES.routing().read().table
assert table.revision == 20 and len(table.flags) == 20, table
entries = AuditEntry.objects.filter(action="set_flag")
assert sorted(entries.values_list("revision", flat=True)) == list(range(1, 21)), "one entry a revision"
assert all(entry.role == "operator" for entry in entries), "written by who did it, not made up for afterwards"
assert RoutingSync.objects.get().revision == 20
for statement in ("UPDATE registry_auditentry SET who = 'mallory'", "DELETE FROM registry_auditentry"):
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    except DatabaseError as error:
        assert "entries are only added" in str(error)
    else:
        raise AssertionError(statement)
print(connection.vendor, AuditEntry.objects.exclude(action="cut").count())  # releases of this checkout have their own
"""


@pytest.mark.slow
@pytest.mark.parametrize("vendor", ["sqlite", "postgresql"])
def test_many_people_at_once_and_an_audit_trail_that_stays(tmp_path, vendor, request):
    environment = {n: value for n, value in os.environ.items() if not n.startswith(("GEOMAGIC_", "DJANGO_"))}
    environment["GEOMAGIC_HOME"] = str(tmp_path / "home")
    if vendor == "postgresql":
        port = request.getfixturevalue("postgres_port")
        environment["DATABASE_URL"] = f"postgres://postgres@127.0.0.1:{port}/{new_database(port)}"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [vendor, "24"]
    if vendor == "postgresql":
        assert not (tmp_path / "home" / "console.sqlite3").exists()
