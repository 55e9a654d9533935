"""Django for the tests of the console, and for them alone: nothing need be set to run the other tests."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.console.settings")

import django

django.setup()

from django.contrib.auth.models import Group, User

from tests.console.people import PASSWORD


@pytest.fixture
def make_user(db):
    """Makes a user with these roles."""

    def make(name: str, *roles: str, **more) -> User:
        user = User.objects.create_user(name, password=PASSWORD, is_staff=True, **more)
        user.groups.set(Group.objects.filter(name__in=roles))
        assert user.groups.count() == len(roles)
        return user

    return make
