"""Slices: a call is decided by few policies, and exactly as by all of them."""

from __future__ import annotations

from dataclasses import replace

import cedarpy
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.grants import GrantSet, Question
from broker.policy.slices import PolicySlices
from tests.broker.policy.conftest import DRAFT, LOOKUP, REFUND, Desk, write_forbid, write_permit

HAS, UNITS = "context.request has amount", "context.request.amount.minor_units"
ONE_TOOL = f'principal, action == Action::"{REFUND}", resource'
METHODS, AGENTS = (REFUND, DRAFT), ("desk", "other")


def ask(desk: Desk, amount: int) -> Question:
    return Question.of(desk.refund(amount))


def slice_ids(grants: GrantSet, method: str, agent: str) -> set[str]:
    return {p.id for p in PolicySlices(grants.policies, grants._schema).find(method, agent).policies}


def test_leaves_out_permits_of_other_tools_and_agents(desk: Desk) -> None:
    text = write_permit("mine") + write_permit("tool", method=LOOKUP) + write_permit("agent", agent="other")
    assert slice_ids(desk.compile(text), REFUND, "desk") == {"mine"}


def test_keeps_a_forbid_with_an_unbound_scope_in_every_slice(desk: Desk) -> None:
    grants = desk.compile(write_forbid("stop", "true") + write_permit("mine"))
    assert all("stop" in slice_ids(grants, method, agent) for method in METHODS for agent in AGENTS)


def test_keeps_a_forbid_of_another_agent(desk: Desk) -> None:
    text = write_forbid("stop", "true", 'principal == Agent::"other", action, resource')
    assert slice_ids(desk.compile(text), REFUND, "desk") == {"stop"}


def test_keeps_a_permit_whose_condition_names_the_agents(desk: Desk) -> None:
    text = write_permit("a", '[Agent::"desk"].contains(principal)').replace(
        'principal == Agent::"desk"', "principal"
    )
    assert slice_ids(desk.compile(text), REFUND, "desk") == {"a"}


def test_prepares_one_slice_for_all_agents_without_permits(desk: Desk) -> None:
    slices = PolicySlices(desk.compile(write_permit("mine")).policies, desk.compile("")._schema)
    assert slices.find(REFUND, "stranger-1") is slices.find(REFUND, "stranger-2")


POLICIES = st.builds(
    lambda kind, method, agent, units: (
        write_permit(
            "ID",
            f"context.request has amount && context.request.amount.minor_units < {units}",
            method=method,
            agent=agent,
        )
        if kind == "permit"
        else write_forbid(
            "ID",
            f"context.request has amount && context.request.amount.minor_units > {units}",
            {
                "any": "principal, action, resource",
                "tool": f'principal, action == Action::"{method}", resource',
            }[kind],
        )
    ),
    st.sampled_from(["permit", "permit", "any", "tool"]),
    st.sampled_from(METHODS),
    st.sampled_from(AGENTS),
    st.integers(0, 3000),
)


@given(st.lists(POLICIES, max_size=6), st.integers(0, 3000))
def test_decides_as_the_whole_set_does(desk: Desk, written: list[str], units: int) -> None:
    text = "".join(policy.replace('"ID"', f'"p{n}"') for n, policy in enumerate(written))
    grants, question = desk.compile(text), Question.of(desk.refund(units))
    request = {
        "principal": {"type": "Agent", "id": "desk"},
        "action": {"type": "Action", "id": REFUND},
        "resource": {"type": "Environment", "id": "dev"},
        "context": question.context(),
    }
    whole = cedarpy.is_authorized(request, cedarpy.PolicySet.from_str(text), [])
    part = PolicySlices(grants.policies, grants._schema).evaluate(question)
    ids = set(whole.diagnostics.id_annotations_by_reason.values())
    assert (part.allowed, {p.id for p in part.determining}) == (whole.allowed, ids)


def test_decides_alike_whatever_is_asked_where_only_the_scope_decides(desk: Desk) -> None:
    slices = desk.compile(write_permit("mine"))._slices
    questions = [ask(desk, amount) for amount in (100, 200)]
    assert slices.evaluate(questions[0]) is slices.evaluate(questions[1])


def test_asks_again_for_another_agent_or_environment(desk: Desk) -> None:
    slices = desk.compile(write_permit("mine"))._slices
    mine = ask(desk, 100)
    assert slices.evaluate(mine).allowed
    assert not slices.evaluate(replace(mine, agent="other")).allowed
    assert not slices.evaluate(replace(mine, environment="prod")).allowed


def test_asks_for_each_request_where_there_are_conditions(desk: Desk) -> None:
    slices = desk.compile(write_permit("mine", f"{HAS} && {UNITS} < 150"))._slices
    assert [slices.evaluate(ask(desk, amount)).allowed for amount in (100, 200, 100)] == [
        True,
        False,
        True,
    ]


def test_asks_for_each_request_where_a_forbid_has_conditions(desk: Desk) -> None:
    text = write_permit("mine") + write_forbid("much", f"{HAS} && {UNITS} > 150", ONE_TOOL)
    slices = desk.compile(text)._slices
    assert [slices.evaluate(ask(desk, amount)).allowed for amount in (100, 200)] == [True, False]


SCOPED = st.builds(
    lambda kind, method, agent, environment: (
        write_permit("ID", method=method, agent=agent)
        if kind == "permit"
        else f'@id("ID") forbid (principal == Agent::"{agent}", action == Action::"{method}", {environment});'
    ),
    st.sampled_from(["permit", "permit", "forbid"]),
    st.sampled_from(METHODS),
    st.sampled_from(AGENTS),
    st.sampled_from(["resource", 'resource == Environment::"dev"', 'resource == Environment::"prod"']),
)
ASKED = st.fixed_dictionaries(
    {
        "agent": st.sampled_from([*AGENTS, "stranger"]),
        "environment": st.sampled_from(["dev", "prod"]),
        "subject": st.text(max_size=5),
        "workflow": st.text(max_size=5),
        "tool_version": st.sampled_from(["1.0.0", "1.1.0"]),
        "untrusted": st.booleans(),
    }
)


@given(
    st.lists(st.one_of(SCOPED, SCOPED, POLICIES), max_size=4),
    st.lists(st.tuples(ASKED, st.integers(0, 3000)), min_size=1, max_size=8),
)
def test_says_the_same_however_often_it_was_asked_before(
    desk: Desk, written: list[str], asked: list[tuple[dict[str, str], int]]
) -> None:
    grants = desk.compile("".join(policy.replace('"ID"', f'"p{n}"') for n, policy in enumerate(written)))
    slices = grants._slices
    for changes, units in asked:
        question = replace(ask(desk, units), **changes)  # type: ignore[arg-type]
        fresh = PolicySlices(grants.policies, grants._schema).evaluate(question)
        assert slices.evaluate(question) == fresh
