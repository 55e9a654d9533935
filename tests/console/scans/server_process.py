"""The console as it runs, with one token: `python -m tests.console.scans.server_process PORT`; GEOMAGIC_HOME is set.

CONSOLE_PASSWORD    of its one user
CONSOLE_PROCESSES   how many answer; with more than one, what is counted for a minute is counted for good, so that
                    no minute ends in the middle of a test
CONSOLE_IDLE        "1": it does nothing by itself, so that a test may stop a process at any moment
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

FOR_GOOD_S = 10**10


def main(port: int) -> None:
    from geomagic_dagster.console.server import serve, set_up

    set_up()
    from django.conf import settings
    from django.contrib.auth.models import Group, User
    from django.db import connections

    from geomagic_dagster.console.scans import rates, tokens, worker

    secret = Path(os.environ["GEOMAGIC_HOME"], "secret")
    if not secret.exists():
        ada = User.objects.create_user(
            "ada", password=os.environ.get("CONSOLE_PASSWORD", "a long password 1"), is_staff=True
        )
        ada.groups.set(Group.objects.filter(name="operator"))
        secret.write_text(tokens.make(ada, "app", ["upload"])[1])
    connections.close_all()
    processes = int(os.environ.get("CONSOLE_PROCESSES", "1"))
    if processes > 1:
        settings.SCAN_RATES = {name: (most, FOR_GOOD_S) for name, (most, _) in rates.RATES.items()}
    if os.environ.get("CONSOLE_IDLE") == "1":
        worker.THREADS.clear()
    serve("127.0.0.1", port, processes)


if __name__ == "__main__":
    main(int(sys.argv[1]))
