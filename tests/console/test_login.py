"""Who gets in."""

from __future__ import annotations

import pytest

from tests.console.people import PASSWORD

pytestmark = pytest.mark.django_db


def test_health_needs_no_login_and_says_nothing_else(client):
    answer = client.get("/healthz")
    assert answer.status_code == 200 and answer.json() == {"status": "ok"}


def test_the_front_page_asks_for_a_login_and_opens_after_it(client, make_user):
    make_user("vera", "viewer")
    answer = client.get("/", follow=True)
    assert answer.redirect_chain[-1][0].startswith("/admin/login/")
    answer = client.post("/admin/login/?next=/admin/", {"username": "vera", "password": PASSWORD}, follow=True)
    assert answer.status_code == 200 and answer.request["PATH_INFO"] == "/admin/"
