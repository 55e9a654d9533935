"""Trying a release in staging: a home of its own (store, inbox, database), the release's own interpreter.

Belongs here: which scans, running them, reading what came out. Does not belong here: what the outcome means for the
release (service.py), building its environment (releases/).

    $GEOMAGIC_HOME/staging/            a home like any other: GEOMAGIC_HOME=... geomagic ui starts it
        smoke/<scan>/                  the made-up rooms, made once by this checkout
        packages/<scan>-<version>/     what the release made of them
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from geomagic_dagster.console import roles
from geomagic_dagster.console.registry import deciding, service
from geomagic_dagster.console.registry.audit import Actor
from geomagic_dagster.console.registry.models import Release, StagingTest
from geomagic_dagster.console.registry.sync import lock
from geomagic_dagster.jobs.inbox import move_to_free
from geomagic_dagster.releases import environments

SMOKE = {"smoke-1": 1, "smoke-2": 2}
"""Made-up rooms by name, with their seeds."""
FRAMES = 40
DEADLINE_S = 900.0
"""For one scan; a release that takes longer has not passed."""
PACKAGE_FILES = ("room.glb", "room.json", "manifest.json")
OURS = ("GEOMAGIC_", "DAGSTER_", "DJANGO_")


def staging_home() -> Path:
    """Staging's home, made where there is none. It has the environments of the real one."""
    home = settings.HOME / "staging"
    home.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (home / environments.RELEASES).symlink_to(settings.HOME / environments.RELEASES)
    return home


def interpreter(release: Release) -> Path:
    """Python of the release's own environment. Raises: Refused."""
    return deciding.check_environment(release).python


def start_test(actor: Actor, version: str) -> StagingTest:
    """Begins a test, and leaves it to another process: it takes minutes. Raises: REFUSALS."""
    test = begin_test(actor, version)
    home = staging_home()
    with open(home / f"test-{test.pk}.log", "wb") as log:
        subprocess.Popen(
            (sys.executable, "-m", "geomagic_dagster.cli", "console", "run-staging-test", str(test.pk)),
            env=os.environ | {"GEOMAGIC_HOME": str(settings.HOME)},
            cwd=settings.REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return test


def run_begun(number: int) -> StagingTest:
    """In the other process: the test of this number, by whoever began it."""
    test = StagingTest.objects.select_related("release").get(pk=number)
    return run_test(test, Actor(User.objects.get(username=test.by)))


def test_in_staging(actor: Actor, version: str) -> StagingTest:
    """Runs the smoke scans through a release and records what came out; minutes."""
    return run_test(begin_test(actor, version), actor)


def begin_test(actor: Actor, version: str) -> StagingTest:
    """Whether it may be tested now; the test that `run_test` then runs. Raises: REFUSALS."""
    roles.require(actor.user, "test_in_staging")
    with transaction.atomic():
        lock()  # two who begin one at the same moment would remove each other's packages
        return _begun(actor, version)


def _begun(actor: Actor, version: str) -> StagingTest:
    release = Release.objects.filter(version=version).first()
    if release is None:
        raise deciding.Refused(f"release {version}: expected one that was cut; got none. Cut it, or choose another.")
    release.standing.check("test_in_staging")
    deciding.check_environment(release)
    for lost in release.staging_tests.filter(passed=None):
        if timezone.now() - lost.started_at < timedelta(seconds=len(SMOKE) * DEADLINE_S):
            raise deciding.Refused(
                f"{version}: expected one test in staging at a time; one runs since {lost.started_at:%H:%M:%S}. "
                "Wait for it."
            )
        lost.passed, lost.words, lost.ended_at = False, "its process ended before it did", timezone.now()
        lost.save()
    return StagingTest.objects.create(release=release, by=actor.name)


def run_test(test: StagingTest, actor: Actor) -> StagingTest:
    """Runs a test that was begun, and records its outcome, also where it could not be run at all."""
    try:
        test.numbers = [_run_scan(test.release, name, seed) for name, seed in SMOKE.items()]
        bad = [f"{each['scan']}: {each['words']}" for each in test.numbers if not each["passed"]]
        test.passed = not bad
        test.words = "; ".join(bad) or f"{len(SMOKE)} smoke scans became packages"
    except OSError as error:
        test.passed, test.words = False, f"could not run: {error}"
    test.ended_at = timezone.now()
    test.save()
    service.record_staging_test(actor, test.release.version, bool(test.passed), test.words)
    return test


def _run_scan(release: Release, name: str, seed: int) -> dict[str, Any]:
    """One smoke scan through `geomagic run` of the release; what came out, and its numbers."""
    home = staging_home()
    scan = (
        home / "smoke" / f"{name}-{release.version}"
    )  # a name of its own: packages of two releases stand side by side
    if not scan.exists():
        made = home / "smoke" / name
        if not made.exists():
            beside = made.with_name(f".{name}-{uuid.uuid4().hex}")
            make_up = ("scan", "make-up", str(beside), "--seed", str(seed), "--frames", str(FRAMES))
            _geomagic(Path(sys.executable), *make_up, cwd=settings.REPOSITORY)
            if not move_to_free(beside, made):  # the test of another release made it meanwhile
                shutil.rmtree(beside)
        shutil.copytree(made, scan, copy_function=os.link)
    package = home / "packages" / scan.name
    shutil.rmtree(package, ignore_errors=True)  # of an earlier test
    began_s = time.monotonic()
    done = _geomagic(interpreter(release), "run", str(scan), cwd=home)
    missing = [file for file in PACKAGE_FILES if not (package / file).is_file()]
    words = "a package" if not missing else f"no {', '.join(missing)} in {package}"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        words = f"geomagic run ended with {done.returncode}: {lines[-1][:500]}"
    passed = not done.returncode and not missing
    return {
        "scan": name,
        "passed": passed,
        "words": words,
        "seconds": round(time.monotonic() - began_s, 2),
        "numbers": numbers_of(json.loads((package / "manifest.json").read_bytes())) if passed else {},
        "sha256": hashlib.sha256((package / "room.glb").read_bytes()).hexdigest() if passed else "",
    }


def numbers_of(manifest: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers of a package's manifest.json, by "part.name"."""
    found = {}
    for part, content in manifest.items():
        if isinstance(content, dict):
            for name, value in content.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    found[f"{part}.{name}"] = float(value)
    return found


def _geomagic(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`geomagic ...` of another environment, in staging's home and with nothing of ours around it."""
    home = staging_home()
    ours = environments.own_environment(os.environ).items()
    environment = {name: value for name, value in ours if not name.startswith(OURS)}
    weights = str(settings.PLACES.weights().here)  # files by their digest: staging's are production's
    environment |= {"GEOMAGIC_HOME": str(home), "GEOMAGIC_WEIGHTS": weights, "COLUMNS": "200"}
    command = (str(python), "-m", "geomagic_dagster.cli", *arguments)
    try:
        return subprocess.run(
            command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"did not end within {DEADLINE_S:g} s")
