"""A release's way from draft to default and out of service: states, legal steps, who, quorum. Pure.

Belongs here: the rules, and the words in which they refuse. Does not belong here: where a release stands (the
console keeps what people decided, the routing table what gets traffic), how a step is done.

    draft -> cut -> staged -> tested -> proposed -> approved -> flighted -> default -> superseded -> archived
                                                       '----------------------^
Whatever has no traffic can be archived (and restored) or revoked (for good).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, NamedTuple

RESEARCHER, ENGINEER, SCIENTIST, OPERATOR, VIEWER = ROLES = (
    "researcher",
    "engineer",
    "scientist",
    "operator",
    "viewer",
)
"""Researchers change stages and release them; engineers and scientists review them, each for their side; operators look
after customers' scans and the installation; viewers see everything and change nothing."""
DOERS = (RESEARCHER, ENGINEER, SCIENTIST, OPERATOR)
MAKERS = (RESEARCHER, ENGINEER, OPERATOR)
APPROVALS = 2
"""At least so many people, and among them one of each side."""
SIDES = {"engineering": ENGINEER, "science": SCIENTIST}
"""What an approval speaks for, and the role that may give it."""


class State(StrEnum):
    """Where a release stands; in this order on its way."""

    DRAFT = "draft"
    CUT = "cut"
    STAGED = "staged"
    TESTED = "tested"
    PROPOSED = "proposed"
    APPROVED = "approved"
    FLIGHTED = "flighted"
    DEFAULT = "default"
    SUPERSEDED = "superseded"
    ARCHIVED = "archived"
    REVOKED = "revoked"


S = State
KEPT = (S.DRAFT, S.CUT, S.STAGED, S.TESTED, S.PROPOSED, S.APPROVED)
"""What people decide. The states after them follow from the traffic, or lie over them."""
Traffic = Literal["none", "flight", "default"]


class Step(NamedTuple):
    """One legal step: from which states, by whom, and what it does, in words."""

    name: str
    label: str
    sources: tuple[State, ...]
    who: tuple[str, ...]
    does: str


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step("cut", "Cut", (S.DRAFT,), MAKERS, "locks code, manifest and dependencies"),
        Step("stage", "Put in staging", (S.CUT,), DOERS, "installs it beside the others, in staging alone"),
        Step("test_in_staging", "Test in staging", (S.STAGED, S.TESTED), DOERS, "runs the smoke scans in staging"),
        Step("propose", "Propose", (S.TESTED,), (RESEARCHER, *SIDES.values()), "asks the reviewers"),
        Step("approve", "Approve", (S.PROPOSED,), tuple(SIDES.values()), "counts towards the quorum"),
        Step("reject", "Reject", (S.PROPOSED, S.APPROVED), tuple(SIDES.values()), "takes the proposal back"),
        Step(
            "start_flight",
            "Flight",
            (S.APPROVED, S.FLIGHTED, S.SUPERSEDED),
            MAKERS,
            "sends it a part of the uploads, or another part",
        ),
        Step("end_flight", "End its flight", (S.FLIGHTED,), DOERS, "its part of the uploads goes to the default"),
        Step(
            "make_default",
            "Make default",
            (S.APPROVED, S.FLIGHTED, S.SUPERSEDED),
            MAKERS,
            "sends it every upload that is not pinned or flighted",
        ),
        Step("roll_back", "Roll back", (S.DEFAULT,), DOERS, "makes the default before it the default again"),
        Step(
            "archive",
            "Archive",
            (S.CUT, S.STAGED, S.TESTED, S.APPROVED, S.SUPERSEDED),
            (ENGINEER, OPERATOR),
            "takes it out of service; it can come back",
        ),
        Step("restore", "Restore", (S.ARCHIVED,), (ENGINEER, OPERATOR), "brings it back as it was"),
        Step(
            "revoke",
            "Revoke",
            (S.CUT, S.STAGED, S.TESTED, S.PROPOSED, S.APPROVED, S.SUPERSEDED, S.ARCHIVED),
            (*SIDES.values(), OPERATOR),
            "takes it out of service for good",
        ),
    )
}
NEXT: dict[State, tuple[str, ...]] = {
    S.DRAFT: ("cut",),
    S.CUT: ("stage",),
    S.STAGED: ("test_in_staging",),
    S.TESTED: ("propose",),
    S.PROPOSED: ("approve",),
    S.APPROVED: ("start_flight", "make_default"),
    S.FLIGHTED: ("make_default", "end_flight"),
    S.DEFAULT: ("roll_back",),
    S.SUPERSEDED: ("make_default", "start_flight", "archive"),
    S.ARCHIVED: ("restore",),
    S.REVOKED: (),
}
"""The steps that lead on, the usual one first."""


class IllegalStep(ValueError):
    """A step that is not legal where the release stands; the words name the one that is."""


@dataclass(frozen=True)
class Standing:
    """Everything that a release's state follows from."""

    name: str
    """For the words: its version."""
    kept: State = S.CUT
    traffic: Traffic = "none"
    was_default: bool = False
    is_archived: bool = False
    is_revoked: bool = False

    @property
    def state(self) -> State:
        """One word for it. Traffic counts only for what is approved: see `problem`."""
        if self.is_revoked:
            return S.REVOKED
        if self.is_archived:
            return S.ARCHIVED
        if self.kept is not S.APPROVED:
            return self.kept
        if self.traffic != "none":
            return S.DEFAULT if self.traffic == "default" else S.FLIGHTED
        return S.SUPERSEDED if self.was_default else S.APPROVED

    @property
    def problem(self) -> str | None:
        """What is wrong with it: traffic that nobody approved. It cannot be reached by steps, but by a hotfix that
        is installed in the place of the version before, or by a table written by hand."""
        if self.traffic == "none" or self.state in (S.DEFAULT, S.FLIGHTED):
            return None
        gets = "every upload (it is the default)" if self.traffic == "default" else "a flight's uploads"
        return (
            f"{self.name}: expected traffic for approved releases only; it is {self.state} and gets {gets}. "
            "Roll back or end the flight, or have it approved."
        )

    def check(self, step: str) -> None:
        """Raises IllegalStep, with the next legal step, where this one is not legal."""
        has_traffic = self.traffic != "none"
        if (step, self.traffic) in (("roll_back", "default"), ("end_flight", "flight")):
            return  # also where nobody approved the traffic: it can always be taken away
        if self.state in STEPS[step].sources and not (has_traffic and step in ("archive", "revoke")):
            return
        if has_traffic and step in ("archive", "revoke"):
            words = "it gets customers' scans"
            legal = "roll_back, or make another one the default" if self.traffic == "default" else "end_flight"
        else:
            words = f"it is {self.state}"
            legal = " or ".join(NEXT[self.state]) or "none, cut a new release"
        expected = _listed(STEPS[step].sources)
        raise IllegalStep(
            f"{self.name}: {step} expects a release that is {expected}; {words}. Next legal step: {legal}."
        )

    def after(self, step: str, is_quorum: bool = True) -> Standing:
        """Where it stands after a step. An approval without a quorum leaves it where it is."""
        self.check(step)
        match step:
            case "cut":
                return replace(self, kept=S.CUT)
            case "stage":
                return replace(self, kept=S.STAGED)
            case "test_in_staging" | "reject":
                return replace(self, kept=S.TESTED)
            case "propose":
                return replace(self, kept=S.PROPOSED)
            case "approve":
                return replace(self, kept=S.APPROVED) if is_quorum else self
            case "start_flight":
                return replace(self, traffic="flight")
            case "end_flight" | "roll_back":
                return replace(self, traffic="none")
            case "make_default":
                return replace(self, traffic="default", was_default=True)
            case "archive":
                return replace(self, is_archived=True)
            case "restore":
                return replace(self, is_archived=False)
            case "revoke":
                return replace(self, is_revoked=True)
        raise KeyError(step)


def legal_steps(standing: Standing) -> tuple[str, ...]:
    """All steps that are legal now, those that lead on first."""

    def is_legal(step: str) -> bool:
        try:
            standing.check(step)
        except IllegalStep:
            return False
        return True

    legal = [step for step in STEPS if is_legal(step)]
    ahead = NEXT[standing.state]
    return tuple(sorted(legal, key=lambda step: ahead.index(step) if step in ahead else len(ahead)))


# --- the quorum ------------------------------------------------------------------------------------


class Approval(NamedTuple):
    who: str
    side: str


def missing_approvals(approvals: Iterable[Approval]) -> tuple[str, ...]:
    """What a proposal still lacks, in words; nothing once the quorum is there."""
    given = list(approvals)
    sides = {approval.side for approval in given}
    missing = [f"one {side} approval" for side in SIDES if side not in sides]
    people = len({approval.who for approval in given})
    if (more := APPROVALS - people - len(missing)) > 0:
        missing.append(f"{more} more")
    return tuple(missing)


def check_approver(name: str, who: Iterable[str], side: str, proposed_by: str, cut_by: str, before: Iterable[str]):
    """Raises IllegalStep where this person may not approve it: nobody approves their own, or twice.

    `who` are all the names that this person goes by (login, e-mail address, full name): whoever cut it is known by
    what git knew them by.
    """
    names = {each.casefold() for each in who if each}
    for what, person in (("proposed", proposed_by), ("cut", cut_by)):
        if names & _names_in(person):
            raise IllegalStep(
                f"{name}: expected an approval by somebody else; you {what} it. "
                f"Next legal step: {side} approval by another {SIDES[side]}."
            )
    if names & {each.casefold() for each in before}:
        raise IllegalStep(
            f"{name}: expected one approval a person; yours is there already. "
            "Next legal step: approval by somebody of the other side."
        )


def _names_in(person: str) -> set[str]:
    """`Ada Lovelace <ada@example.org>` as each of the names in it."""
    full, _, address = person.partition("<")
    return {each.strip().casefold() for each in (person, full, address.rstrip("> "))} - {""}


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else str(last)
