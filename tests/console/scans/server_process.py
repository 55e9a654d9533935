"""The console as it runs, with one token: `python -m tests.console.scans.server_process PORT`; GEOMAGIC_HOME is set."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(port: int) -> None:
    from geomagic_dagster.console.server import serve, set_up

    set_up()
    from django.contrib.auth.models import Group, User
    from django.db import connections

    from geomagic_dagster.console.scans import tokens

    secret = Path(os.environ["GEOMAGIC_HOME"], "secret")
    if not secret.exists():
        ada = User.objects.create_user(
            "ada", password=os.environ.get("CONSOLE_PASSWORD", "a long password 1"), is_staff=True
        )
        ada.groups.set(Group.objects.filter(name="operator"))
        secret.write_text(tokens.make(ada, "app", ["upload"])[1])
    connections.close_all()
    serve("127.0.0.1", port)


if __name__ == "__main__":
    main(int(sys.argv[1]))
