"""Who may do what: every action by every role, by HTTP through the real pages."""

from __future__ import annotations

import pytest

from geomagic_dagster.console import roles
from geomagic_dagster.console.registry import service
from geomagic_dagster.console.registry.actions import ACTIONS
from geomagic_dagster.console.registry.audit import Actor
from geomagic_dagster.console.registry.models import AuditEntry, Incident
from geomagic_dagster.releases.lifecycle import ROLES, STEPS

pytestmark = pytest.mark.django_db

R, E, S, OP, V = ROLES
MAY = {  # said here a second time, on purpose: a right that changes changes here too
    "stage": {R, E, S, OP},
    "test_in_staging": {R, E, S, OP},
    "propose": {R, E, S},
    "approve": {E, S},
    "reject": {E, S},
    "start_flight": {R, E, OP},
    "end_flight": {R, E, S, OP},
    "make_default": {R, E, OP},
    "roll_back": {R, E, S, OP},
    "archive": {E, OP},
    "restore": {E, OP},
    "revoke": {E, S, OP},
    "set_pin": {R, E, OP},
    "set_flag": {R, E, OP},
    "open_incident": {R, E, S, OP},
    "close_incident": {R, E, OP},
}
SAID = {
    "start_flight": {"per_cent": 10},
    "set_pin": {"scan": "kitchen", "line": "latest"},
    "set_flag": {"name": "new_plane_fit", "per_cent": 1},
    "open_incident": {"title": "slow"},
}


def test_the_table_has_every_action_of_the_pages_and_of_the_lifecycle():
    assert set(MAY) == set(ACTIONS)
    assert set(STEPS) - {"cut"} <= set(MAY), "a release is cut by `geomagic release cut`"
    assert all(set(who) <= set(roles.KNOWN) for who in roles.TABLE.values())
    assert all(V not in who for action, who in roles.TABLE.items() if action != "view"), "viewers change nothing"


@pytest.fixture
def ready(cut, install, people, approved, monkeypatch):
    """Brings the installation to where an action is legal; returns its target."""

    def ready(action: str) -> str:
        match action:
            case "stage":
                install(cut("1.1.0"))
            case "test_in_staging" | "propose":
                install(cut("1.1.0"))
                service.stage(people.rita, "1.1.0", "x")
                if action == "propose":
                    service.record_staging_test(people.rita, "1.1.0", True, "fine")
                else:
                    monkeypatch.setattr(
                        "geomagic_dagster.console.registry.staging.start_test",
                        lambda actor, version: service.record_staging_test(actor, version, True, "fine"),
                    )
            case "approve" | "reject":
                install(cut("1.1.0"))
                service.stage(people.rita, "1.1.0", "x")
                service.record_staging_test(people.rita, "1.1.0", True, "fine")
                service.propose(people.rita, "1.1.0", "x")
            case "restore":
                approved("1.1.0")
                service.archive(people.eve, "1.1.0", "x")
            case "end_flight":
                approved("1.1.0")
                return service.start_flight(people.rita, "1.1.0", "x", 10).flights[0].id
            case "roll_back":
                approved("1.1.0")
                service.make_default(people.rita, "1.1.0", "x")
            case "close_incident":
                return str(service.open_incident(people.rita, "slow", "x").pk)
            case _:
                approved("1.1.0")
        return "" if ACTIONS[action].target == "none" else "1.1.0"

    return ready


@pytest.mark.parametrize("role", [*ROLES, "superuser", "nobody"])
@pytest.mark.parametrize("action", ACTIONS)
def test_every_cell(client, make_user, ready, action, role):
    target = ready(action)
    user = make_user("mallory", *({role} & set(ROLES)), is_superuser=role == "superuser")
    client.force_login(user)
    before = AuditEntry.objects.count()
    page = f"/admin/do/{action}/" + (f"{target}/" if target else "")
    answer = client.post(page, {"reason": "a table says so", **SAID.get(action, {})})
    if role in MAY[action]:
        assert answer.status_code == 302, answer.content.decode()
        entry = AuditEntry.objects.order_by("-id")[0]
        assert (entry.who, entry.role, entry.action) == ("mallory", role, action)
        return
    assert AuditEntry.objects.count() == before
    if role == "nobody":  # not even in
        assert answer.status_code == 302 and answer.url.startswith("/admin/login/")
        return
    assert answer.status_code == 403
    assert (
        f"{action}: expected one of the roles {', '.join(roles.TABLE[action])}; mallory has" in answer.content.decode()
    )


@pytest.mark.parametrize("action", ACTIONS)
def test_the_function_behind_a_page_refuses_as_well(make_user, ready, action):
    target = ready(action)
    nobody = Actor(make_user("mallory", V))
    said = {"reason": "x", "per_cent": 1.0, "shadow": False, "on": False, "scans": "", "name": "f", "version": ""}
    with pytest.raises(roles.NotAllowed):
        ACTIONS[action].run(nobody, target, said | {"line": "", "scan": "a", "title": "a"})


def test_who_lost_a_role_may_do_nothing_with_it_from_the_next_request_on(client, make_user, ready):
    ready("stage")
    user = make_user("mallory", R)
    (researchers,) = user.groups.all()
    client.force_login(user)
    assert client.get("/admin/do/stage/1.1.0/").status_code == 200
    user.groups.clear()
    assert client.get("/admin/do/stage/1.1.0/").status_code == 302
    user.groups.add(researchers)
    assert client.get("/admin/do/stage/1.1.0/").status_code == 200
    user.is_active = False
    user.save()
    assert client.get("/admin/do/stage/1.1.0/").status_code == 302


def test_two_people_approve_and_nobody_their_own(client, cut, install, people):
    """As people do it: each logs in, and clicks."""
    install(cut("1.1.0"))

    def does(name: str, action: str, status: int = 302, **said) -> str:
        client.force_login(getattr(people, name).user)
        answer = client.post(f"/admin/do/{action}/1.1.0/", {"reason": f"{name} says so", **said})
        assert answer.status_code == status, answer.content.decode()
        return answer.content.decode()

    does("rita", "stage")
    service.record_staging_test(people.rita, "1.1.0", True, "fine")
    does("eve", "propose")
    assert "you proposed it. Next legal step: engineering approval by another engineer." in does("eve", "approve", 409)
    assert "it is proposed. Next legal step: approve." in does("rita", "make_default", 409)
    does("eli", "approve")
    assert "yours is there already" in does("eli", "approve", 409)
    does("sam", "approve")
    does("rita", "make_default")
    assert Incident.objects.count() == 0
