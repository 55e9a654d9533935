"""The audit trail is only ever added to: not by code, not by pages, not by SQL."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connection, transaction
from django.urls import reverse

from geomagic_dagster.console.registry.audit import record
from geomagic_dagster.console.registry.models import AppendOnly, AuditEntry
from tests.console.people import PASSWORD

pytestmark = pytest.mark.django_db


@pytest.fixture
def entry(people) -> AuditEntry:
    return record(people.rita, "stage", "release 1.1.0", before="cut", after="staged", reason="try")


@pytest.mark.parametrize(
    "attempt",
    [
        lambda entry: entry.save(),
        lambda entry: entry.delete(),
        lambda entry: AuditEntry.objects.update(who="mallory"),
        lambda entry: AuditEntry.objects.all().delete(),
        lambda entry: AuditEntry.objects.bulk_update([entry], ["who"]),
    ],
)
def test_code_cannot_change_it(entry, attempt):
    with pytest.raises(AppendOnly, match="audit trail: expected entries to be added only; got an attempt to"):
        attempt(entry)
    assert AuditEntry.objects.get().who == "rita"


@pytest.mark.parametrize(
    "statement", ["UPDATE registry_auditentry SET who = 'mallory'", "DELETE FROM registry_auditentry"]
)
def test_sql_cannot_change_it(entry, statement):
    with pytest.raises(DatabaseError, match="audit trail: entries are only added"), transaction.atomic():
        connection.cursor().execute(statement)
    assert AuditEntry.objects.get().who == "rita"


def test_not_even_a_superuser_changes_it_in_the_admin(entry, client, make_user):
    client.force_login(make_user("root", "operator", is_superuser=True))
    for page in ("change", "delete"):
        answer = client.post(
            reverse(f"admin:registry_auditentry_{page}", args=[entry.pk]), {"who": "mallory", "post": "yes"}
        )
        assert answer.status_code == 403
    assert client.post(reverse("admin:registry_auditentry_add"), {"who": "mallory"}).status_code == 403
    answer = client.post(
        reverse("admin:registry_auditentry_changelist"),
        {"action": "delete_selected", "_selected_action": [entry.pk], "post": "yes"},
    )
    assert AuditEntry.objects.get().who == "rita", answer.status_code


def test_it_is_searched_and_paged(people, client):
    for n in range(60):
        record(people.rita, "set_flag", f"flag number_{n}", reason="try")
    client.force_login(people.vera.user)
    page = reverse("admin:registry_auditentry_changelist")
    assert "flag number_0" not in client.get(page).content.decode(), "the newest first"
    assert "flag number_0" in client.get(page, {"p": 2}).content.decode()
    found = client.get(page, {"q": "number_17"}).content.decode()
    assert "flag number_17" in found and "flag number_18" not in found


def test_what_people_write_is_shown_and_never_run(client, people):
    record(people.rita, "set_flag", "<script>alert(1)</script>", reason="{{ 7|add:7 }} <img src=x onerror=alert(1)>")
    client.force_login(people.vera.user)
    for page in (reverse("admin:registry_auditentry_changelist"), reverse("admin:index")):
        shown = client.get(page).content.decode()
        assert "<script>alert" not in shown and "<img src=x" not in shown
        assert "&lt;script&gt;alert(1)" in shown and "{{ 7|add:7 }}" in shown


def test_users_are_made_changed_and_written_down_but_never_deleted(client, make_user):
    root = make_user("root", "operator", is_superuser=True)
    client.force_login(root)
    said = {
        "username": "nina",
        "usable_password": "true",
        "password1": "a long password 9",
        "password2": "a long password 9",
    }
    assert client.post(reverse("admin:auth_user_add"), said).status_code == 302
    entry = AuditEntry.objects.get(action="add_user")
    assert (entry.who, entry.object) == ("root", "user nina")
    assert client.post(reverse("admin:auth_user_delete", args=[root.pk]), {"post": "yes"}).status_code == 403
    assert client.get(reverse("admin:auth_group_add")).status_code == 403, "roles are fixed"
    client.force_login(make_user("olga", "operator"))
    assert client.get(reverse("admin:auth_user_add")).status_code == 403


def test_who_gives_themselves_a_new_password_is_written_down(client, people):
    client.force_login(people.rita.user)
    said = {"old_password": PASSWORD, "new_password1": "another long one 2", "new_password2": "another long one 3"}
    assert client.post("/admin/password_change/", said).status_code == 200
    assert not AuditEntry.objects.exists(), "it was refused"
    said["new_password2"] = said["new_password1"]
    assert client.post("/admin/password_change/", said).status_code == 302
    entry = AuditEntry.objects.get()
    assert (entry.who, entry.action, entry.object, entry.after) == ("rita", "change_user", "user rita", "new password")
