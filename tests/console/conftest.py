"""Django for the tests of the console, and for them alone: nothing need be set to run the other tests."""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import django
import pytest

with patch.dict(os.environ, {"DJANGO_SETTINGS_MODULE": "tests.console.settings"}):  # not for what other tests start
    django.setup()

from django.apps import AppConfig
from django.contrib.auth.models import Group, User
from django.db.models.signals import post_migrate
from django.dispatch import receiver

from geomagic_dagster.console.registry import service
from geomagic_dagster.console.registry.audit import Actor
from geomagic_dagster.console.registry.models import Release
from geomagic_dagster.console.registry.sync import sync_releases
from geomagic_dagster.console.roles import KNOWN
from geomagic_dagster.releases import environments
from geomagic_dagster.releases.installed import FOLDER
from geomagic_dagster.releases.record import (
    HISTORY,
    MANIFEST,
    RELEASE,
    Change,
    read_release,
    record_folder,
    write_release,
)
from geomagic_dagster.releases.record import Release as Record
from geomagic_dagster.resources.places import Places
from tests.console.people import PASSWORD

CUT_AT = "2026-03-02T10:00:00+00:00"


@receiver(post_migrate)
def _every_role_is_there(sender: AppConfig, using: str, **_: object) -> None:
    """A test with transactions of its own empties the database behind it, of what migrations wrote as well; Django then
    sends this signal."""
    if sender.label == "auth":
        for role in KNOWN:
            Group.objects.using(using).get_or_create(name=role)


@pytest.fixture
def make_user(db):
    """Makes a user with these roles."""

    def make(name: str, *roles: str, **more) -> User:
        user = User.objects.create_user(name, password=PASSWORD, is_staff=True, **more)
        user.groups.set(Group.objects.filter(name__in=roles))
        return user

    return make


@pytest.fixture
def home(settings, tmp_path) -> Path:
    """An installation of its own: places, a routing table, a folder of cut releases."""
    settings.HOME = tmp_path / "home"
    settings.PLACES = Places.in_home(settings.HOME)
    settings.RELEASES = tmp_path / "releases"
    return settings.HOME


@pytest.fixture
def cut(db, home, settings):
    """Records a cut release as `geomagic release cut` would, and lets the console find it."""

    def cut(version: str = "1.1.0", who: str = "Cy Cutter <cut@example.org>", at: str = CUT_AT) -> Release:
        line = version.rpartition(".")[0]
        folder = settings.RELEASES / line
        if (folder / RELEASE).exists():
            former = folder / HISTORY / read_release(folder).version
            former.mkdir(parents=True)
            (folder / RELEASE).rename(former / RELEASE)
        folder.mkdir(parents=True, exist_ok=True)
        commit = hashlib.sha1(version.encode()).hexdigest()
        digest = hashlib.sha256(version.encode()).hexdigest()
        change = Change(commit, "2026-03-01T10:00:00+00:00", "Walls are straighter")
        record = Record(line, version, commit, "main", who, at, "3.11.7", files={MANIFEST: digest}, changes=(change,))
        write_release(record, folder)
        sync_releases(settings.RELEASES)
        return Release.objects.get(version=version)

    return cut


@pytest.fixture
def install(home, settings):
    """Pretends that a release's environment is there."""

    def install(release: Release, commit: str = "") -> None:
        record = read_release(record_folder(settings.RELEASES, release.version))
        line = environments.line_folder(home, release.line)
        said = line / f"env-{uuid.uuid4().hex[:6]}" / FOLDER
        said.mkdir(parents=True)
        (said / "environment-cp311-linux.json").write_text("{}")
        write_release(replace(record, commit=commit or record.commit), said)
        (line / environments.ENV).unlink(missing_ok=True)
        (line / environments.ENV).symlink_to(said.parent)

    return install


@pytest.fixture
def people(make_user):
    """One actor a role, and a second one of each side."""
    names = {"rita": "researcher", "eve": "engineer", "sam": "scientist", "olga": "operator", "vera": "viewer"}
    names |= {"eli": "engineer", "sue": "scientist"}
    return SimpleNamespace(**{name: Actor(make_user(name, role), "127.0.0.1") for name, role in names.items()})


@pytest.fixture
def approved(cut, install, people):
    """Takes a release all the way to approved."""

    def approve(version: str = "1.1.0") -> Release:
        release = cut(version)
        install(release)
        service.stage(people.rita, version, "try it")
        service.record_staging_test(people.rita, version, True, "2 smoke scans became packages")
        service.propose(people.rita, version, "straighter walls")
        service.approve(people.eve, version, "code is fine")
        return service.approve(people.sam, version, "numbers are better")

    return approve
