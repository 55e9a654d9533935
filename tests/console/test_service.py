"""The release machine: what people decide, what it does to traffic, what is written down of it."""

from __future__ import annotations

import pytest

from geomagic_dagster.console import roles
from geomagic_dagster.console.registry import deciding, service
from geomagic_dagster.console.registry.models import AuditEntry, Incident, Release, RoutingSync
from geomagic_dagster.console.registry.sync import look, sync_releases, sync_routing
from geomagic_dagster.flighting import promote
from geomagic_dagster.releases import environments, routing_changes
from geomagic_dagster.releases.lifecycle import IllegalStep
from geomagic_dagster.releases.routing_table import RoutingRefused

pytestmark = pytest.mark.django_db


def table():
    from django.conf import settings

    return settings.PLACES.routing().read().table


def state(version: str) -> str:
    return Release.objects.get(version=version).state


def last() -> AuditEntry:
    return AuditEntry.objects.order_by("-id")[0]


def test_a_release_goes_all_the_way_and_each_step_is_written_down(approved, people):
    approved("1.0.0")
    assert state("1.0.0") == "approved"
    service.start_flight(people.rita, "1.0.0", "a tenth of the uploads", per_cent=10)
    assert state("1.0.0") == "flighted"
    assert [(each.release, each.per_cent) for each in table().flights] == [("1.0", 10)]
    service.start_flight(people.rita, "1.0.0", "a half", per_cent=50)
    assert [each.per_cent for each in table().flights] == [50]
    service.make_default(people.rita, "1.0.0", "no worse in 200 scans")
    assert (state("1.0.0"), table().default, table().flights) == ("default", "1.0", ())
    assert table().probation.release == "1.0"
    steps = AuditEntry.objects.filter(object="release 1.0.0").order_by("id").values_list("who", "role", "action")
    assert list(steps) == [
        ("Cy Cutter <cut@example.org>", "", "cut"),
        ("rita", "researcher", "stage"),
        ("rita", "researcher", "test_in_staging"),
        ("rita", "researcher", "propose"),
        ("eve", "engineer", "approve"),
        ("sam", "scientist", "approve"),
        ("rita", "researcher", "start_flight"),
        ("rita", "researcher", "start_flight"),
        ("rita", "researcher", "make_default"),
    ]
    entry = last()
    assert (entry.ip, entry.reason, entry.revision) == ("127.0.0.1", "no worse in 200 scans", table().revision)
    assert entry.before["default"] == "latest" and entry.after["default"] == "1.0"


def test_the_next_default_supersedes_and_a_rollback_brings_the_old_one_back_with_an_incident(approved, people):
    approved("1.0.0")
    service.make_default(people.rita, "1.0.0", "first")
    settle("1.0")
    approved("1.1.0")
    service.make_default(people.olga, "1.1.0", "better")
    assert (state("1.0.0"), state("1.1.0")) == ("superseded", "default")
    service.roll_back(people.sam, "walls are crooked")
    assert (state("1.0.0"), state("1.1.0"), table().default) == ("default", "superseded", "1.0")
    incident = Incident.objects.get()
    assert (incident.release.version, incident.opened_by, incident.words) == ("1.1.0", "sam", "walls are crooked")
    with pytest.raises(service.Refused, match=r"1\.1\.0: make_default expects no open incident; got “1\.1 was rolled"):
        service.make_default(people.rita, "1.1.0", "again")
    service.close_incident(people.eve, incident.pk, "the lens model was wrong, fixed by settings")
    service.make_default(people.rita, "1.1.0", "again")
    assert state("1.1.0") == "default"


def settle(line: str) -> None:
    """What the watcher does once the smoke scan has passed."""
    from django.conf import settings

    settings.PLACES.routing().change(promote.off_probation(line, failed=False), by="watcher", why="smoke scan passed")
    sync_routing()


def test_a_rollback_long_after_the_smoke_scan_goes_to_the_default_before(approved, people):
    for version in ("1.0.0", "1.1.0"):
        approved(version)
        service.make_default(people.rita, version, "go")
        settle(version[:3])
    service.roll_back(people.olga, "customers complain")
    assert (table().default, table().probation) == ("1.0", None)
    assert Incident.objects.get().title == "1.1 was rolled back to 1.0"


def test_two_who_roll_back_at_once_roll_back_once(client, approved, people):
    """Each saw 1.1 as the default. The second of them, if only by a second, must not bring it back."""
    for version in ("1.0.0", "1.1.0"):
        approved(version)
        service.make_default(people.rita, version, "go")
        settle(version[:3])
    pages = {}
    for name in ("olga", "sam"):
        client.force_login(getattr(people, name).user)
        pages[name] = client.get("/admin/do/roll_back/").context["form"]["meant"].initial
    for name, status in (("olga", 302), ("sam", 409)):
        client.force_login(getattr(people, name).user)
        answer = client.post("/admin/do/roll_back/", {"reason": "customers complain", "meant": pages[name]})
        assert answer.status_code == status
    assert "expected 1.1 as the default; got 1.0. Somebody was quicker" in answer.content.decode()
    assert (table().default, table().taken_back) == ("1.0", ("1.1",))
    with pytest.raises(RoutingRefused, match="expected 1.1 as the default; got 1.0"):
        service.roll_back(people.sam, "customers complain", "1.1")


def test_rolling_back_never_brings_back_what_was_taken_back(approved, people):
    approved("1.1.0")
    service.make_default(people.rita, "1.1.0", "go")
    settle("1.1")
    service.roll_back(people.olga, "customers complain")
    assert table().default == "latest"
    with pytest.raises(RoutingRefused, match="is still live and was not taken back; got live: latest, 1.1; defaults"):
        service.roll_back(people.sam, "customers complain")
    assert table().default == "latest"


def test_a_rollback_without_a_default_before_is_refused_in_words(home, people):
    with pytest.raises(Exception, match="roll.?back"):
        service.roll_back(people.olga, "no")


def test_two_people_of_both_sides_have_to_approve(cut, install, people, make_user):
    release = cut("1.1.0", who="Eli Engineer <eli@example.org>")
    install(release)
    service.stage(people.rita, "1.1.0", "x")
    service.record_staging_test(people.rita, "1.1.0", True, "fine")
    service.propose(people.sue, "1.1.0", "x")
    people.eli.user.email = "ELI@example.org"
    people.eli.user.save()
    with pytest.raises(IllegalStep, match="you proposed it"):
        service.approve(people.sue, "1.1.0", "mine")
    with pytest.raises(IllegalStep, match="you cut it"):
        service.approve(people.eli, "1.1.0", "mine")
    with pytest.raises(roles.NotAllowed, match="expected one of the roles engineer, scientist; olga has operator"):
        service.approve(people.olga, "1.1.0", "x")
    with pytest.raises(roles.NotAllowed, match="expected the role scientist; eve has engineer"):
        service.approve(people.eve, "1.1.0", "x", side="science")
    service.approve(people.eve, "1.1.0", "code is fine")
    assert state("1.1.0") == "proposed"
    release = Release.objects.get(version="1.1.0")
    assert service.missing_approvals(release) == ("one science approval",)
    with pytest.raises(IllegalStep, match="yours is there already"):
        service.approve(people.eve, "1.1.0", "again")
    with pytest.raises(IllegalStep, match=r"it is proposed\. Next legal step: approve"):
        service.make_default(people.rita, "1.1.0", "impatient")
    service.approve(people.sam, "1.1.0", "numbers are better")
    assert state("1.1.0") == "approved"
    service.reject(people.sam, "1.1.0", "saw something")
    assert state("1.1.0") == "tested"
    service.propose(people.rita, "1.1.0", "explained")
    release.refresh_from_db()
    assert service.missing_approvals(release) == ("one engineering approval", "one science approval"), (
        "of a new proposal"
    )


def test_somebody_of_both_sides_chooses_one_and_is_one_person(cut, install, people, make_user):
    from geomagic_dagster.console.registry.audit import Actor

    both = Actor(make_user("bo", "engineer", "scientist"))
    install(cut("1.1.0"))
    service.stage(people.rita, "1.1.0", "x")
    service.record_staging_test(people.rita, "1.1.0", True, "fine")
    service.propose(people.rita, "1.1.0", "x")
    with pytest.raises(
        service.Refused, match="expected one side; bo may speak for engineering and science. Choose one"
    ):
        service.approve(both, "1.1.0", "x")
    service.approve(both, "1.1.0", "x", side="science")
    with pytest.raises(IllegalStep, match="one approval a person"):
        service.approve(both, "1.1.0", "x", side="engineering")
    assert state("1.1.0") == "proposed"


def test_every_action_wants_a_reason(cut, people):
    cut("1.1.0")
    with pytest.raises(service.Refused, match="stage: expected a reason; got none. Say in a few words why"):
        service.stage(people.rita, "1.1.0", "  ")
    assert AuditEntry.objects.count() == 1, "but the cut"


def test_what_is_not_installed_cannot_be_staged(cut, install, people):
    release = cut("1.1.0")
    with pytest.raises(service.Refused, match=r"got none\. Install it: geomagic release install 1\.1\.0"):
        service.stage(people.rita, "1.1.0", "x")
    install(release, commit="f" * 40)
    with pytest.raises(
        service.Refused, match=r"expected 1\.1\.0 from commit .{12}; got 1\.1\.0 from commit ffffffffffff"
    ):
        service.stage(people.rita, "1.1.0", "x")


def test_what_is_not_installed_gets_no_traffic(approved, people, home):
    approved("1.0.0")
    (environments.line_folder(home, "1.0") / environments.ENV).unlink()
    for attempt in (
        lambda: service.start_flight(people.rita, "1.0.0", "x", 1),
        lambda: service.make_default(people.rita, "1.0.0", "x"),
    ):
        with pytest.raises(service.Refused, match="Install it: geomagic release install 1.0.0"):
            attempt()
    assert table().revision == 0


def test_a_test_that_fails_leaves_it_staged_also_after_one_that_passed(cut, install, people):
    install(cut("1.1.0"))
    service.stage(people.rita, "1.1.0", "x")
    service.record_staging_test(people.rita, "1.1.0", False, "smoke-1: no package")
    assert state("1.1.0") == "staged"
    service.record_staging_test(people.rita, "1.1.0", True, "fine")
    assert state("1.1.0") == "tested"
    service.record_staging_test(people.rita, "1.1.0", False, "smoke-1: no package")
    assert state("1.1.0") == "staged"
    assert last().after == "failed"


def test_out_of_service(approved, people):
    approved("1.0.0")
    service.make_default(people.rita, "1.0.0", "x")
    settle("1.0")
    with pytest.raises(IllegalStep, match="Next legal step: roll_back"):
        service.archive(people.eve, "1.0.0", "x")
    approved("1.1.0")
    service.make_default(people.rita, "1.1.0", "x")
    settle("1.1")
    service.archive(people.eve, "1.0.0", "nobody needs it")
    assert state("1.0.0") == "archived" and "1.0" not in table().live
    service.restore(people.eve, "1.0.0", "somebody does")
    assert state("1.0.0") == "superseded"
    service.revoke(people.sam, "1.0.0", "a wrong scale")
    with pytest.raises(IllegalStep, match="it is revoked. Next legal step: none, cut a new release"):
        service.make_default(people.rita, "1.0.0", "x")


def test_flags_and_pins(approved, people):
    approved("1.0.0")
    service.start_flight(people.rita, "1.0.0", "x", per_cent=1, shadow=True)
    service.set_flag(people.rita, "new_plane_fit", "try it", per_cent=5, scans=("kitchen",))
    assert last().after["flags"] == {"new_plane_fit": "on for 5 % of the scans and on for kitchen"}
    service.set_flag(people.olga, "new_plane_fit", "off again")
    assert last().after["flags"] == {"new_plane_fit": "off"} and last().object == "flag new_plane_fit"
    service.set_pin(people.olga, "kitchen", "1.0", "their invoice says 1.0")
    assert table().pins == {"kitchen": "1.0"}
    service.set_pin(people.olga, "kitchen", None, "paid")
    assert table().pins == {}


# --- the table's history is the truth ---------------------------------------------------------------


def test_what_others_wrote_to_the_table_is_in_the_audit_trail_too(approved, people, settings):
    approved("1.0.0")
    store = settings.PLACES.routing()
    store.change(routing_changes.make_live("1.0"), by="ada", why="by hand")
    store.change(routing_changes.start_flight("1.0", 10), by="ada", why="by hand")
    assert look().problems == ()
    assert (last().who, last().role, last().action, last().object) == ("ada", "", "start_flight", "release 1.0")
    assert last().reason == "by hand" and state("1.0.0") == "flighted"
    store.change(routing_changes.end_flight("1.0"), by="watcher", why="more failures than the default")
    sync_routing()
    assert state("1.0.0") == "approved"
    incident = Incident.objects.get()
    assert (incident.title, incident.opened_by) == ("The flight of 1.0 was ended by the watcher", "watcher")
    entries = AuditEntry.objects.count()
    RoutingSync.objects.update(revision=0)
    sync_routing()
    assert (AuditEntry.objects.count(), Incident.objects.count()) == (entries, 1), "nothing twice"


def test_a_crash_between_the_table_and_the_audit_entry_is_made_up_for(approved, people, monkeypatch):
    approved("1.0.0")
    before = AuditEntry.objects.count()

    def crash(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(deciding, "record", crash)
        with pytest.raises(KeyboardInterrupt):
            service.make_default(people.rita, "1.0.0", "go")
    assert table().default == "1.0", "it is in force"
    assert AuditEntry.objects.count() == before
    sync_routing()
    assert AuditEntry.objects.count() == before + 1
    assert (last().who, last().action, last().reason, last().revision) == ("rita", "make_default", "go", 1)
    assert state("1.0.0") == "default"


def test_a_change_that_the_table_refuses_leaves_nothing_behind(approved, people):
    approved("1.0.0")
    before = AuditEntry.objects.count()
    with pytest.raises(service.RoutingRefused, match="expected a share above 0 per cent; got 0"):
        service.start_flight(people.rita, "1.0.0", "x", per_cent=0)
    assert (AuditEntry.objects.count(), table().revision, state("1.0.0")) == (before, 0, "approved")


def test_a_hotfix_takes_the_place_of_the_version_before_and_traffic_without_approval_is_a_problem(
    approved, cut, people, settings
):
    approved("1.0.0")
    service.make_default(people.rita, "1.0.0", "x")
    cut("1.0.1", at="2026-04-01T10:00:00+00:00")
    sync_releases(settings.RELEASES)
    RoutingSync.objects.update(revision=0)
    sync_routing()
    old, new = Release.objects.get(version="1.0.0"), Release.objects.get(version="1.0.1")
    assert (old.is_current, old.state, new.is_current, new.state) == (False, "superseded", True, "cut")
    assert "1.0.1: expected traffic for approved releases only; it is cut and gets every upload" in new.standing.problem


def test_a_record_that_was_edited_after_it_was_found_is_said_and_not_followed(cut, settings):
    release = cut("1.1.0")
    path = settings.RELEASES / "1.1" / "release.toml"
    path.write_text(path.read_text().replace(release.manifest_sha256, "f" * 64))
    [problem] = look().problems
    assert f"and manifest {release.manifest_sha256[:12]}; got commit {release.commit[:12]} and manifest ffff" in problem
    assert Release.objects.get().manifest_sha256 == release.manifest_sha256


def test_a_broken_record_is_skipped_and_said(cut, settings):
    cut("1.1.0")
    (settings.RELEASES / "1.2").mkdir()
    (settings.RELEASES / "1.2" / "release.toml").write_text("line = ")
    [problem] = look().problems
    assert "1.2/release.toml: expected the record of a release, as it was cut; got" in problem
    assert problem.endswith("Restore it from git.") and Release.objects.get().version == "1.1.0"
