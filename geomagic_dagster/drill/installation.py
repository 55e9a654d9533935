"""The installation of a drill: what `geomagic ui` starts, with the code location of a drill.

    python -m geomagic_dagster.drill.installation WEB_PORT ROOMS_PORT INTAKE_PORT METRICS_PORT

Belongs here: the command line of that one process. Does not belong here: anything that judges it (drill.py).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from dagster import DagsterInstance


def main() -> None:
    from geomagic_dagster.jobs.local_run import dagster_home
    from geomagic_dagster.launching.serve import Ports, serve

    home = Path(os.environ["GEOMAGIC_HOME"])
    os.environ["DAGSTER_HOME"] = str(dagster_home(home))
    Path(os.environ["GEOMAGIC_INBOX"]).mkdir(parents=True, exist_ok=True)
    workspace = home / "workspace.yaml"
    workspace.write_text(
        "load_from:\n  - python_module:\n      module_name: geomagic_dagster.drill.location\n"
        "      location_name: latest\n"
    )
    ports = Ports(*(int(port) for port in sys.argv[1:5]))
    with DagsterInstance.get():
        (home / "ports.json").write_text(json.dumps({"web": ports.web, "intake": ports.intake}))
    serve(workspace, Path(os.environ["DAGSTER_HOME"]), "127.0.0.1", ports)


if __name__ == "__main__":
    main()
