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
statements = ["UPDATE registry_auditentry SET who = 'mallory'", "DELETE FROM registry_auditentry"]
if connection.vendor == "postgresql":
    statements.append("TRUNCATE registry_auditentry")
for statement in statements:
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    except DatabaseError as error:
        assert "entries are only added" in str(error)
    else:
        raise AssertionError(statement)
print(connection.vendor, AuditEntry.objects.exclude(action="cut").count())  # releases of this checkout have their own
"""


def run_script(home: Path, vendor: str, script: str, request) -> subprocess.CompletedProcess[str]:
    environment = {n: value for n, value in os.environ.items() if not n.startswith(("GEOMAGIC_", "DJANGO_"))}
    environment["GEOMAGIC_HOME"] = str(home / "home")
    if vendor == "postgresql":
        port = request.getfixturevalue("postgres_port")
        environment["DATABASE_URL"] = f"postgres://postgres@127.0.0.1:{port}/{new_database(port)}"
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("vendor", ["sqlite", "postgresql"])
def test_many_people_at_once_and_an_audit_trail_that_stays(tmp_path, vendor, request):
    done = run_script(tmp_path, vendor, SCRIPT, request)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [vendor, "24"]
    if vendor == "postgresql":
        assert not (tmp_path / "home" / "console.sqlite3").exists()


COUNTING = """
from multiprocessing import get_context
def ask(n):
    from geomagic_dagster.console.scans.rates import count
    from geomagic_dagster.console.scans.refusals import Refused
    allowed = 0
    for _ in range(40):
        try:
            count("probe", "ada with a space\\n and a name that is long " + 300 * "x")
            allowed += 1
        except Refused:
            pass
    return allowed

if __name__ == "__main__":
    from geomagic_dagster.console.server import set_up
    set_up()
    from django.conf import settings
    from django.db import connection, connections
    from geomagic_dagster.console.scans.models import Asked
    settings.SCAN_RATES = {"probe": (100, 10**10), "over": (1, 1)}
    connections.close_all()
    with get_context("fork").Pool(4) as pool:
        assert sum(pool.map(ask, range(4))) == 100
    (row,) = Asked.objects.all()
    assert row.number == 160
    Asked.objects.update(until_s=1)
    from geomagic_dagster.console.scans.rates import count
    count("over", "ada")
    assert Asked.objects.count() == 1, "what is over goes"
    print(connection.vendor)
"""
FORWARD = """
from geomagic_dagster.console.server import set_up
import os, django
os.environ["DJANGO_SETTINGS_MODULE"] = "geomagic_dagster.console.settings"
django.setup()
from django.core.management import call_command
from django.db import connection
call_command("migrate", verbosity=0)
call_command("migrate", "scans", "0001", verbosity=0)  # as the first release of the console left it
with connection.cursor() as cursor:
    cursor.execute(
        "INSERT INTO scans_scan (id, name, origin, state, reason, is_cancelling, upload, upload_key, sha256, asked, "
        "webhook_url, created_at, run_id, release, version, flight, package) VALUES "
        "('a0000000000000000000000000000001', 'cellar', 'inbox', 'rejected', 'no floor', %s, 'cellar.zip', 'k', '', '', '', "
        "'2026-01-01 10:00:00+00:00', 'r-1', '1.0', '', '', '')", [False])
    cursor.execute(
        "INSERT INTO scans_run (run_id, scan_id, release, version, flight, is_shadow, is_taken_back, status, attempt, "
        "created_at, reason) VALUES ('r-1', 'a0000000000000000000000000000001', '1.0', '', '', %s, %s, 'FAILURE', 1, "
        "'2026-01-01 10:00:00+00:00', 'no floor')", [False, False])
set_up()
from geomagic_dagster.console.scans.models import Asked, Run, Scan
scan, run = Scan.objects.get(), Run.objects.get()
assert (scan.name, scan.state, scan.reason, scan.reopened_at) == ("cellar", "rejected", "no floor", None)
assert (run.scan, run.taken_up_again) == (scan, None)
assert Asked.objects.count() == 0
from geomagic_dagster.console.registry import flights
from geomagic_dagster.console.registry.models import AuditEntry
for revision, flight in ((1, "f-1"), (2, "f-12")):
    words = {"flights": ["f-1: x"], "words": [f"flight {flight}: 10 % to 1.2"]}
    AuditEntry.objects.create(who="ada", action="start_flight", object="release 1.2", after=words, revision=revision)
(entry,) = flights.story("f-1").entries
assert entry.revision == 1 and flights.story("f-2") is None
call_command("makemigrations", check=True, dry_run=True, verbosity=0)
print(connection.vendor)
"""


@pytest.mark.slow
@pytest.mark.parametrize("vendor", ["sqlite", "postgresql"])
@pytest.mark.parametrize("script", [COUNTING, FORWARD], ids=["counts of four processes", "from the first tables"])
def test_limits_and_tables(tmp_path, vendor, script, request):
    done = run_script(tmp_path, vendor, script, request)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [vendor]
