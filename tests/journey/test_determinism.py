"""Same scan, same release, same bytes: in two installations, on one thread and on two, as ops and as assets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.scans.formats import canonical
from geomagic_dagster.scans.made_up import PHONE, make_room, scan_room

MATERIALIZE = """
import sys
from dagster import DagsterInstance
from geomagic_dagster.definitions import defs
with DagsterInstance.get() as instance:
    instance.add_dynamic_partitions("corpus", [sys.argv[1]])
    job = defs.resolve_implicit_global_asset_job_def()
    job.execute_in_process(instance=instance, partition_key=sys.argv[1])
"""


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.slow
def test_the_same_scan_gives_the_same_bytes_twice_on_one_thread_or_two_as_ops_or_as_assets(tmp_path):
    scan = scan_room(make_room(4), PHONE.but(frames=30)).scan
    canonical.write(scan, tmp_path / "corpus" / "room")

    def run(home: str, *command: str, **variables: str) -> dict[str, bytes]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("GEOMAGIC", "DAGSTER", "OPENBLAS"))}
        environment |= variables
        environment |= {"GEOMAGIC_HOME": str(tmp_path / home), "GEOMAGIC_CORPUS": str(tmp_path / "corpus")}
        environment |= {"DAGSTER_HOME": str(tmp_path / home / "dagster")}
        (tmp_path / home / "dagster").mkdir(parents=True)
        done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return bytes_below(tmp_path / home / "store" / "artefacts")

    as_ops = ("-m", "geomagic_dagster.cli", "run", str(tmp_path / "corpus" / "room"))
    two_threads = run("first", *as_ops, OMP_NUM_THREADS="2", NUMBA_NUM_THREADS="2")
    one_thread = run("second", *as_ops, OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
    as_assets = run("third", "-c", MATERIALIZE, "room")

    assert {name.split("/")[0] for name in two_threads} == {"scan", *(stage.name for stage in find_stages())}
    for other in (one_thread, as_assets):
        assert other.keys() == two_threads.keys(), "the identities agree"
        assert [name for name in other if other[name] != two_threads[name]] == []
