"""Every action of the registry as a page has it: its form, and the function of service.py behind it.

Belongs here: which fields an action asks for, and how they become arguments. Does not belong here: what it does, who
may do it (service.py, roles.py), how the page looks (pages.py, templates/).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from django import forms
from django.conf import settings
from django.urls import reverse

from geomagic_dagster.console import roles
from geomagic_dagster.console.registry import service
from geomagic_dagster.console.registry.audit import Actor
from geomagic_dagster.console.registry.models import Release
from geomagic_dagster.jobs.inbox import scan_name
from geomagic_dagster.releases.lifecycle import NEXT, SIDES, STEPS, legal_steps
from geomagic_dagster.releases.routing import RoutingRefused, RoutingUnavailable

Target = Literal["release", "flight", "incident", "none"]


class ReasonForm(forms.Form):
    """What every action asks for."""

    reason = forms.CharField(
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 3, "autofocus": True}),
        help_text="Why, in a few words: it goes into the audit trail.",
    )

    def fit(self, user: Any) -> None:
        """Leaves out what this user need not say."""


class ApproveForm(ReasonForm):
    side = forms.ChoiceField(
        choices=[(side, side) for side in SIDES], help_text="You are a reviewer of both, and speak for one."
    )
    field_order = ["side", "reason"]

    def fit(self, user: Any) -> None:
        if not set(SIDES.values()) <= roles.roles_of(user):
            del self.fields["side"]


class RollBackForm(ReasonForm):
    """Remembers what was the default when the page was made: what its reader decided about."""

    meant = forms.CharField(required=False, max_length=20, widget=forms.HiddenInput)

    def fit(self, user: Any) -> None:
        with suppress(RoutingUnavailable, RoutingRefused):  # the page says so itself
            self.fields["meant"].initial = settings.PLACES.routing().read().table.default


class FlightForm(ReasonForm):
    per_cent = forms.FloatField(
        min_value=0,
        max_value=100,
        label="Per cent of the uploads",
        help_text="Which ones is decided by a hash of the scan: the same scan always goes the same way. A second "
        "flight takes its share of what the first one leaves.",
    )
    shadow = forms.BooleanField(required=False, help_text="It sees copies of them; customers get the default's result.")
    may_change = forms.CharField(
        required=False,
        label="Numbers that it is meant to change",
        help_text="Like layout.area_m2 or layout.*, with spaces between: they end no flight.",
    )
    field_order = ["per_cent", "shadow", "may_change", "reason"]


class PinForm(ReasonForm):
    scan = forms.CharField(max_length=200, help_text="Its name, as in the inbox; an ending like .zip does not matter.")
    line = forms.CharField(
        max_length=20, required=False, label="Release", help_text="Like 1.0; empty: where the others go."
    )
    field_order = ["scan", "line", "reason"]


class FlagForm(ReasonForm):
    name = forms.RegexField(r"^[a-z][a-z0-9_]*$", max_length=80, help_text="As the stage declares it.")
    on = forms.BooleanField(required=False, label="On for every scan")
    per_cent = forms.FloatField(min_value=0, max_value=100, required=False, label="On for this per cent of the scans")
    scans = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="Names of scans that it is on for, a line each.",
    )
    field_order = ["name", "on", "per_cent", "scans", "reason"]


class IncidentForm(ReasonForm):
    title = forms.CharField(max_length=200)
    version = forms.ChoiceField(
        required=False, label="Release", help_text="While the incident is open, it gets no new traffic."
    )
    field_order = ["title", "version", "reason"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        versions = Release.objects.values_list("version", "version")
        self.fields["version"].choices = [("", "none of them"), *versions]  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class Action:
    """One row of the table below."""

    label: str
    does: str
    target: Target
    run: Callable[[Actor, str, dict[str, Any]], Any]
    form: type[ReasonForm] = ReasonForm


def _of_a_release(name: str, run: Callable[[Actor, str, dict[str, Any]], Any], form: type[ReasonForm] = ReasonForm):
    return Action(STEPS[name].label, STEPS[name].does, "release", run, form)


def _test_in_staging(actor: Actor, version: str, said: dict[str, Any]) -> Any:
    """Takes minutes, so another process does it; the page says how it goes."""
    from geomagic_dagster.console.registry.staging import start_test

    return start_test(actor, version)


ACTIONS: dict[str, Action] = {
    "stage": _of_a_release("stage", lambda who, version, said: service.stage(who, version, said["reason"])),
    "test_in_staging": _of_a_release("test_in_staging", _test_in_staging),
    "propose": _of_a_release("propose", lambda who, version, said: service.propose(who, version, said["reason"])),
    "approve": _of_a_release(
        "approve",
        lambda who, version, said: service.approve(who, version, said["reason"], said.get("side") or None),
        ApproveForm,
    ),
    "reject": _of_a_release("reject", lambda who, version, said: service.reject(who, version, said["reason"])),
    "start_flight": _of_a_release(
        "start_flight",
        lambda who, version, said: service.start_flight(
            who, version, said["reason"], said["per_cent"], said["shadow"], tuple(said.get("may_change", "").split())
        ),
        FlightForm,
    ),
    "end_flight": Action(
        STEPS["end_flight"].label,
        STEPS["end_flight"].does,
        "flight",
        lambda who, flight, said: service.end_flight(who, flight, said["reason"]),
    ),
    "make_default": _of_a_release(
        "make_default", lambda who, version, said: service.make_default(who, version, said["reason"])
    ),
    "roll_back": Action(
        STEPS["roll_back"].label,
        STEPS["roll_back"].does,
        "none",
        lambda who, _, said: service.roll_back(who, said["reason"], said.get("meant") or None),
        RollBackForm,
    ),
    "archive": _of_a_release("archive", lambda who, version, said: service.archive(who, version, said["reason"])),
    "restore": _of_a_release("restore", lambda who, version, said: service.restore(who, version, said["reason"])),
    "revoke": _of_a_release("revoke", lambda who, version, said: service.revoke(who, version, said["reason"])),
    "set_pin": Action(
        "Pin a scan",
        "one scan always goes to one release",
        "none",
        lambda who, _, said: service.set_pin(
            who, scan_name(said["scan"].strip()), said["line"] or None, said["reason"]
        ),
        PinForm,
    ),
    "set_flag": Action(
        "Set a flag",
        "says for whom a feature is on",
        "none",
        lambda who, _, said: service.set_flag(
            who,
            said["name"],
            said["reason"],
            on=said["on"],
            per_cent=said["per_cent"] or 0.0,
            scans=tuple(filter(None, (scan_name(each.strip()) for each in said["scans"].splitlines()))),
        ),
        FlagForm,
    ),
    "open_incident": Action(
        "Open an incident",
        "something went wrong; its release gets no new traffic until it is closed",
        "none",
        lambda who, _, said: service.open_incident(who, said["title"], said["reason"], said["version"] or None),
        IncidentForm,
    ),
    "close_incident": Action(
        "Close the incident",
        "says what was found and what was done",
        "incident",
        lambda who, number, said: service.close_incident(who, int(number) if number.isdecimal() else 0, said["reason"]),
    ),
}


class Link(NamedTuple):
    """A step that somebody may take now."""

    name: str
    label: str
    url: str
    leads_on: bool


def links(user: Any, release: Release) -> list[Link]:
    """The steps that are legal now and that this user may take; those that lead on first."""
    ahead = [step for step in NEXT[release.state] if step not in ("roll_back", "end_flight")]
    targets = {"roll_back": (), "end_flight": (release.line,)}
    return [
        Link(name, STEPS[name].label, _url(name, *targets.get(name, (release.version,))), name in ahead)
        for name in legal_steps(release.standing)
        if name in ACTIONS and roles.allows(user, name)
    ]


def _url(name: str, *target: str) -> str:
    return reverse("admin:do_to", args=[name, *target]) if target else reverse("admin:do", args=[name])
