"""A release's way: every state by every step, the quorum, and any sequence of steps at all."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from geomagic_dagster.releases.lifecycle import (
    NEXT,
    ROLES,
    STEPS,
    Approval,
    IllegalStep,
    Standing,
    State,
    check_approver,
    legal_steps,
    missing_approvals,
)

S = State
TABLE = {  # state: {legal step: the state after it}; whatever is not here is illegal
    S.DRAFT: {"cut": S.CUT},
    S.CUT: {"stage": S.STAGED, "archive": S.ARCHIVED, "revoke": S.REVOKED},
    S.STAGED: {"test_in_staging": S.TESTED, "archive": S.ARCHIVED, "revoke": S.REVOKED},
    S.TESTED: {"test_in_staging": S.TESTED, "propose": S.PROPOSED, "archive": S.ARCHIVED, "revoke": S.REVOKED},
    S.PROPOSED: {"approve": S.APPROVED, "reject": S.TESTED, "revoke": S.REVOKED},
    S.APPROVED: {
        "reject": S.TESTED, "start_flight": S.FLIGHTED, "make_default": S.DEFAULT, "archive": S.ARCHIVED, "revoke": S.REVOKED,
    },
    S.FLIGHTED: {"start_flight": S.FLIGHTED, "end_flight": S.APPROVED, "make_default": S.DEFAULT},
    S.DEFAULT: {"roll_back": S.SUPERSEDED},
    S.SUPERSEDED: {"start_flight": S.FLIGHTED, "make_default": S.DEFAULT, "archive": S.ARCHIVED, "revoke": S.REVOKED},
    S.ARCHIVED: {"restore": S.CUT, "revoke": S.REVOKED},
    S.REVOKED: {},
}  # fmt: skip
IN = {
    **{state: Standing("1.1", kept=state) for state in (S.DRAFT, S.CUT, S.STAGED, S.TESTED, S.PROPOSED, S.APPROVED)},
    S.FLIGHTED: Standing("1.1", S.APPROVED, "flight"),
    S.DEFAULT: Standing("1.1", S.APPROVED, "default", was_default=True),
    S.SUPERSEDED: Standing("1.1", S.APPROVED, was_default=True),
    S.ARCHIVED: Standing("1.1", S.CUT, is_archived=True),
    S.REVOKED: Standing("1.1", S.CUT, is_revoked=True),
}


def test_the_table_has_every_state_and_every_step():
    assert set(TABLE) == set(IN) == set(NEXT) == set(State)
    assert {step for cells in TABLE.values() for step in cells} == set(STEPS)
    assert all(set(step.who) <= set(ROLES) and "viewer" not in step.who for step in STEPS.values())


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("state", State)
def test_every_cell(state, step):
    standing = IN[state]
    assert standing.state is state and standing.problem is None
    if step in TABLE[state]:
        assert standing.after(step).state is TABLE[state][step]
        assert step in legal_steps(standing)
        return
    with pytest.raises(IllegalStep) as refused:
        standing.after(step)
    assert step not in legal_steps(standing)
    words = str(refused.value)
    assert words.startswith(f"1.1: {step} expects a release that is ")
    assert all(source in words for source in STEPS[step].sources)
    suggestion = words.split("Next legal step: ")[1].rstrip(".")
    if state is S.REVOKED:
        assert suggestion == "none, cut a new release"
    else:
        assert suggestion.split(",")[0].split(" or ")[0] in TABLE[state], words


def test_an_illegal_jump_names_the_next_legal_step():
    with pytest.raises(IllegalStep) as refused:
        IN[S.CUT].after("make_default")
    assert str(refused.value) == (
        "1.1: make_default expects a release that is approved, flighted or superseded; it is cut. Next legal step: stage."
    )


def test_the_next_step_is_legal_and_comes_first():
    for state, standing in IN.items():
        assert set(NEXT[state]) <= set(TABLE[state])
        assert legal_steps(standing)[: len(NEXT[state])] == NEXT[state]


def test_an_approval_without_a_quorum_leaves_it_proposed():
    assert IN[S.PROPOSED].after("approve", is_quorum=False) == IN[S.PROPOSED]


def test_traffic_without_an_approval_is_a_problem_in_words_and_the_review_goes_on():
    hotfix = Standing("1.0.1", S.CUT, "default", was_default=True)
    assert hotfix.state is S.CUT
    assert hotfix.problem == (
        "1.0.1: expected traffic for approved releases only; it is cut and gets every upload (it is the default). "
        "Roll back or end the flight, or have it approved."
    )
    assert "archive" not in legal_steps(hotfix) and "revoke" not in legal_steps(hotfix)
    with pytest.raises(IllegalStep, match="it gets customers' scans. Next legal step: roll_back"):
        hotfix.after("revoke")
    assert hotfix.after("roll_back").traffic == "none", "it can always be taken away"
    assert hotfix.after("stage").after("test_in_staging").after("propose").after("approve").state is S.DEFAULT


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ([], ("one engineering approval", "one science approval")),
        ([("eve", "engineering")], ("one science approval",)),
        ([("sam", "science")], ("one engineering approval",)),
        ([("eve", "engineering"), ("eli", "engineering")], ("one science approval",)),
        ([("eve", "engineering"), ("sam", "science")], ()),
        ([("eve", "engineering"), ("eve", "science")], ("1 more",)),
    ],
)
def test_the_quorum(given, missing):
    assert missing_approvals(Approval(*each) for each in given) == missing


@pytest.mark.parametrize(
    ("names", "refused"),
    [
        (["eve", "eve@example.org", "Eve Engineer"], None),
        (["ada"], "you proposed it. Next legal step: science approval by another scientist."),
        (["ADA"], "you proposed it"),
        (["c", "cut@example.org"], "you cut it"),
        (["c", "", "Cy Cutter"], "you cut it"),
        (["sam"], "one approval a person; yours is there already"),
    ],
)
def test_nobody_approves_their_own_or_twice(names, refused):
    arguments = ("1.1", names, "science", "ada", "Cy Cutter <cut@example.org>", ["sam"])
    if refused is None:
        check_approver(*arguments)
    else:
        with pytest.raises(IllegalStep, match=refused):
            check_approver(*arguments)


@settings(max_examples=60, stateful_step_count=40, deadline=None)
class AnySteps(RuleBasedStateMachine):
    """Whatever is tried, in whatever order: what customers get was approved, and nothing comes back from revoked."""

    def __init__(self):
        super().__init__()
        self.standing = Standing("1.1", S.DRAFT)
        self.approvals = 0
        self.has_been = {S.DRAFT}

    @rule(step=st.sampled_from(sorted(STEPS)))
    def try_a_step(self, step):
        before = self.standing
        is_quorum = step == "approve" and self.approvals == 1
        try:
            self.standing = before.after(step, is_quorum=is_quorum)
        except IllegalStep as refused:
            words = str(refused)
        else:
            words = ""
        if words:
            assert step not in TABLE[before.state] and self.standing == before
            assert "Next legal step: " in words
            return
        assert step in TABLE[before.state]
        if step == "approve":
            self.approvals += 1
        elif step in ("propose", "reject"):
            self.approvals = 0
        self.has_been.add(self.standing.state)

    @invariant()
    def customers_get_only_what_was_tested_proposed_and_approved_by_two(self):
        if self.standing.traffic != "none":
            assert self.standing.state in (S.FLIGHTED, S.DEFAULT)
            assert {S.CUT, S.STAGED, S.TESTED, S.PROPOSED, S.APPROVED} <= self.has_been
            assert self.approvals >= 2

    @invariant()
    def revoked_stays_revoked_and_out_of_service_has_no_traffic(self):
        if S.REVOKED in self.has_been:
            assert self.standing.state is S.REVOKED
        if self.standing.is_revoked or self.standing.is_archived:
            assert self.standing.traffic == "none"

    @invariant()
    def its_problem_is_never_made_by_steps(self):
        assert self.standing.problem is None


TestAnySteps = AnySteps.TestCase
