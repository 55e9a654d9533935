"""A token opens no more than its owner may do: every role by every call, as a table."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User

from geomagic_dagster.console import people, roles
from geomagic_dagster.console.scans import tokens, uploads
from geomagic_dagster.console.scans.models import Scan, Token
from tests.console.scans.conftest import TUS, Api

pytestmark = pytest.mark.django_db

SENDS = {"researcher", "operator", "sender"}
READS = {*roles.ROLES, "sender"}
MAY = {  # said here a second time, on purpose
    "create": SENDS,
    "offset": SENDS,
    "send": SENDS,
    "cancel": SENDS,
    "list": READS,
    "ask": READS,
}


def call(api: Api, what: str, url: str) -> int:
    match what:
        case "create":
            return api.create(b"12345").status_code
        case "offset":
            return api.call("HEAD", url, **TUS).status_code
        case "send":
            return api.patch(url, b"12").status_code
        case "cancel":
            return api.call("DELETE", url).status_code
        case "list":
            return api.call("GET", "/api/scans").status_code
    return api.call("GET", url).status_code


@pytest.mark.parametrize("role", [*roles.KNOWN, "nobody"])
@pytest.mark.parametrize("what", MAY)
def test_every_cell(make_user, home, instance, what, role):
    owner = make_user("mallory", *({role} & set(roles.KNOWN)), is_superuser=role == "nobody")
    token, secret = tokens.make(owner, "app", ["upload", "read"])
    scan, _ = uploads.create(owner, token, "room.zip", 5)
    status = call(Api(secret), what, f"/api/scans/{scan.pk}")
    assert (status == 403) == (role not in MAY[what]), status
    assert status in (200, 201, 204, 403)


def test_who_loses_a_role_takes_it_from_their_tokens(ada, api, home, instance):
    url = api.created(b"12345")
    ada.groups.clear()
    answer = api.patch(url, b"12345")
    assert answer.status_code == 403
    assert answer.json()["error"] == (
        "token: expected one whose owner has one of the roles researcher, operator, sender; got one whose owner has no "
        "role. Ask an operator for another, or for the role."
    )
    assert uploads.received(Scan.objects.get()) == 0


def test_everybodys_scans_are_for_tokens_of_those_who_may_see_and_cancel_them(api, make_user, home, instance):
    url = api.created(b"12345")
    secrets = {
        role: Api(tokens.make(make_user(f"all-{role}", role), "all", ["admin"])[1])
        for role in ("sender", "viewer", "researcher")
    }
    assert secrets["sender"].call("GET", url).status_code == 404, "as if there were none"
    assert secrets["sender"].call("GET", "/api/scans").json()["scans"] == []
    assert secrets["viewer"].call("GET", url).status_code == 200
    assert secrets["viewer"].call("DELETE", url).status_code == 403
    assert secrets["researcher"].call("DELETE", url).status_code == 204


def test_an_operator_makes_no_token_that_its_owner_could_not_use(client, make_user):
    client.force_login(make_user("otto", "operator"))
    vera, acme = make_user("vera", "viewer"), make_user("acme", "sender")
    for owner, scope, status in ((vera, "upload", 0), (acme, "admin", 0), (vera, "read", 1), (acme, "upload", 2)):
        said = {"name": "app", "owner": owner.pk, "scopes": [scope], "days": 30}
        answer = client.post("/admin/scans/token/add/", said)
        assert answer.status_code == 200 and Token.objects.count() == status
        if not status:
            assert f"{scope}: expected an owner with one of the roles" in answer.content.decode()


def test_a_sender_sees_no_page(client, make_user, home, instance):
    """Its own scans by its tokens are all that it has."""
    scan = Scan.objects.create(name="somebody's")
    client.force_login(make_user("acme", "sender"))
    for page in ("/admin/", f"/admin/scans/scan/{scan.pk}/change/", "/admin/do/roll_back/", "/admin/traffic/"):
        answer = client.get(page)
        assert answer.status_code == 302 and answer.url.startswith("/admin/login/"), page
    assert client.get(f"/scans/{scan.pk}/status").status_code == 404
    assert client.get("/session").status_code == 401, "nor Dagster's, the rooms', the metrics' behind the gate"


def test_an_apps_account_has_no_password():
    user = people.make_user("acme", None, ["sender"])
    assert not User.objects.get(pk=user.pk).has_usable_password()
    assert not user.check_password("") and json.dumps(sorted(roles.roles_of(user))) == '["sender"]'
