"""Two who do the same at the same moment: it is done once, whoever was first. On a database as it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPT = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from geomagic_dagster.console.server import set_up
set_up()
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connections
from geomagic_dagster.console import people
from geomagic_dagster.console.registry import deciding, service, staging
from geomagic_dagster.console.registry.audit import Actor
from geomagic_dagster.console.registry.models import Approval, AuditEntry, Release
from geomagic_dagster.console.registry.sync import sync_releases
from geomagic_dagster.console.scans import actions, tokens, uploads
from geomagic_dagster.console.scans.models import Scan
from geomagic_dagster.console.scans.refusals import Refused

N = 8

def at_once(do):
    together = Barrier(N)
    def one(number):
        together.wait()
        try:
            do(number)
            return "done"
        except (Refused, *service.REFUSALS) as refused:
            return str(refused)
        finally:
            connections.close_all()
    with ThreadPoolExecutor(N) as pool:
        return list(pool.map(one, range(N)))

people.make_user("eve", "a long password 1", ["engineer"])
ada = people.make_user("ada", "a long password 1", ["operator"])
token, _ = tokens.make(ada, "app", ["upload"])

# one person approves from many windows
sync_releases(settings.RELEASES)
Release.objects.filter(version="1.0.0").update(kept="proposed", proposal=1, proposed_by="rita")
said = at_once(lambda n: service.approve(Actor(User.objects.get(username="eve")), "1.0.0", "fine"))
assert said.count("done") == 1 and sum("yours is there already" in each for each in said) == N - 1, said
assert Approval.objects.count() == 1 and AuditEntry.objects.filter(action="approve").count() == 1
assert Release.objects.get(version="1.0.0").kept == "proposed"

# a test in staging that two people begin
deciding.check_environment = lambda release: None
Release.objects.filter(version="1.0.0").update(kept="staged")
said = at_once(lambda n: staging.begin_test(Actor(User.objects.get(username="eve")), "1.0.0"))
assert said.count("done") == 1 and sum("one runs since" in each for each in said) == N - 1, said

# a creation that is sent again before the first was answered
said = at_once(lambda n: uploads.create(ada, token, "room.zip", 100, key="once"))
assert said == ["done"] * N and Scan.objects.count() == 1, said

# more uploads than one may have open
said = at_once(lambda n: uploads.create(ada, token, f"room-{n}.zip", 100))
allowed = uploads.limits().open_uploads - 1
assert said.count("done") == allowed and sum("open uploads: expected at most" in each for each in said) == N - allowed

# cancelled by many at once, while its last byte comes
scan = Scan.objects.get(idempotency_key="once")
uploads.part_of(scan).write_bytes(b"PK\\5\\6" + bytes(96))
said = at_once(lambda n: actions.cancel_as_sender(scan, Actor(ada)) if n % 2 else uploads.hand_over(scan))
scan.refresh_from_db()
left = [path.name for path in uploads.folder().rglob(f"*{scan.pk.hex[:12]}*")]
assert scan.state in ("cancelled", "received", "rejected"), scan.state
assert scan.state == "received" or left == [], (scan.state, left)
print("all once")
"""


@pytest.mark.slow
def test_what_two_do_at_once_is_done_once(tmp_path):
    environment = {
        n: value for n, value in os.environ.items() if not n.startswith(("GEOMAGIC_", "DJANGO_", "DAGSTER_"))
    }
    environment["GEOMAGIC_HOME"] = str(tmp_path / "home")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split("\n")[-2] == "all once"
