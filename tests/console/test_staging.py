"""Trying a release in staging: its own interpreter, a home of its own, what came out of it."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from geomagic_dagster.console import roles
from geomagic_dagster.console.registry import service, staging
from geomagic_dagster.console.registry.models import AuditEntry, Release, StagingTest
from geomagic_dagster.releases import environments
from geomagic_dagster.releases.lifecycle import IllegalStep

pytestmark = pytest.mark.django_db
REPOSITORY = Path(__file__).parents[2]
PACKAGE = {"mesh": {"triangles": 5000, "has_colour": True}, "frames": {"used": 12}, "units": "metres"}


@pytest.fixture
def staged(cut, install, people, home, monkeypatch):
    """A release in staging whose interpreter is this script."""
    monkeypatch.setattr(staging, "SMOKE", {"smoke-1": 1})
    monkeypatch.setattr(staging, "FRAMES", 14)

    def staged(script: str) -> Release:
        release = cut("1.1.0")
        install(release)
        python = environments.line_folder(home, "1.1") / "env" / "bin" / "python"
        python.parent.mkdir()
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        service.stage(people.rita, "1.1.0", "try it")
        return release

    return staged


@pytest.fixture
def a_scan(home):
    """The made-up room, so that no test has to make it."""
    folder = home / "staging" / "smoke" / "smoke-1"
    folder.mkdir(parents=True)
    (folder / "scan.json").write_text("{}")


MAKES_A_PACKAGE = (
    'mkdir -p "$GEOMAGIC_HOME/packages/smoke-1-1.1.0" && cd "$GEOMAGIC_HOME/packages/smoke-1-1.1.0" && '
    f"echo '{json.dumps(PACKAGE)}' > manifest.json && echo glTF > room.glb && echo '{{}}' > room.json && "
    'echo "$@" > ../said && env > ../environment'
)


def test_a_release_that_makes_packages_is_tested(staged, a_scan, people, home):
    staged(MAKES_A_PACKAGE)
    test = staging.test_in_staging(people.rita, "1.1.0")
    assert (test.passed, test.words) == (True, "1 smoke scans became packages")
    [scan] = test.numbers
    assert scan["numbers"] == {"mesh.triangles": 5000.0, "frames.used": 12.0}
    assert len(scan["sha256"]) == 64 and scan["seconds"] >= 0
    assert Release.objects.get().state == "tested"
    packages = home / "staging" / "packages"
    assert (packages / "said").read_text().split()[:3] == ["-m", "geomagic_dagster.cli", "run"]
    environment = dict(
        line.split("=", 1) for line in (packages / "environment").read_text().splitlines() if "=" in line
    )
    assert environment["GEOMAGIC_HOME"] == str(home / "staging"), "its own store, inbox and database"
    assert not {"DAGSTER_HOME", "DJANGO_SETTINGS_MODULE", "PYTHONPATH"} & environment.keys()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'room.glb: expected a floor; got none' >&2; exit 2", "smoke-1: geomagic run ended with 2: room.glb: expected a floor; got none"),
        ("exit 1", "smoke-1: geomagic run ended with 1: it said nothing"),
        ("exit 0", "smoke-1: no room.glb, room.json, manifest.json in "),
    ],
)  # fmt: skip
def test_one_that_does_not_stays_staged_and_says_why(staged, a_scan, people, script, words):
    staged(script)
    test = staging.test_in_staging(people.rita, "1.1.0")
    assert test.passed is False and test.words.startswith(words)
    assert Release.objects.get().state == "staged"
    entry = AuditEntry.objects.filter(action="test_in_staging").get()
    assert (entry.after, entry.who) == ("failed", "rita") and entry.reason == test.words


def test_one_that_hangs_fails_at_its_deadline(staged, a_scan, people, monkeypatch):
    monkeypatch.setattr(staging, "DEADLINE_S", 0.2)
    staged("exec sleep 60")
    test = staging.test_in_staging(people.rita, "1.1.0")
    assert test.words == "smoke-1: geomagic run ended with 124: did not end within 0.2 s"


def test_one_test_at_a_time_and_one_that_got_lost_is_said_to_be(staged, a_scan, people):
    release = staged(MAKES_A_PACKAGE)
    begun = staging.begin_test(people.rita, "1.1.0")
    with pytest.raises(service.Refused, match=r"1\.1\.0: expected one test in staging at a time; one runs since"):
        staging.begin_test(people.sam, "1.1.0")
    StagingTest.objects.update(started_at=timezone.now() - timedelta(hours=1))
    again = staging.begin_test(people.sam, "1.1.0")
    begun.refresh_from_db()
    assert (begun.passed, begun.words) == (False, "its process ended before it did")
    assert staging.run_begun(again.pk).passed and release.staging_tests.count() == 2


def test_who_may_and_when(staged, cut, people):
    cut("1.0.0")
    with pytest.raises(IllegalStep, match="it is cut. Next legal step: stage"):
        staging.begin_test(people.rita, "1.0.0")
    staged("exit 0")
    with pytest.raises(roles.NotAllowed):
        staging.begin_test(people.vera, "1.1.0")
    with pytest.raises(service.Refused, match=r"release 9\.9\.9: expected one that was cut; got none"):
        staging.begin_test(people.rita, "9.9.9")


def test_two_tests_that_make_the_room_at_once_both_go_on(staged, people, home, monkeypatch):
    """Of two releases: whoever is second uses the room that is there by then."""
    really, made = staging._geomagic, home / "staging" / "smoke" / "smoke-1"

    def geomagic(python: Path, *arguments: str, cwd: Path):
        if "make-up" not in arguments:
            return really(python, *arguments, cwd=cwd)
        for folder in (made, Path(arguments[2])):  # the other's, then ours
            folder.mkdir(parents=True)
            (folder / "scan.json").write_text("{}")
        return None

    monkeypatch.setattr(staging, "_geomagic", geomagic)
    staged(MAKES_A_PACKAGE)
    test = staging.test_in_staging(people.rita, "1.1.0")
    assert (test.passed, test.words) == (True, "1 smoke scans became packages")
    assert sorted(path.name for path in made.parent.iterdir()) == ["smoke-1", "smoke-1-1.1.0"], "nothing is left beside"


@pytest.mark.slow
def test_a_made_up_room_really_goes_through_this_code(staged, people):
    """As above, with nothing pretended but that this checkout is the release."""
    staged(f'PYTHONPATH="{REPOSITORY}" exec "{sys.executable}" "$@"')
    test = staging.test_in_staging(people.rita, "1.1.0")
    assert test.passed, test.words
    numbers = test.numbers[0]["numbers"]
    assert numbers["frames.used"] > 5 and numbers["mesh.triangles"] > 1000
