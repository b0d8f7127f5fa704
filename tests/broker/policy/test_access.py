"""Who may call what, as rows: each agent and tool that a policy names, with its uses; what nobody uses."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.model import BudgetLimit, GrantUse
from broker.policy.access import (
    Access,
    describe_limit,
    list_access,
    list_unused,
    select_agent,
    select_tool,
)
from tests.broker.policy.conftest import LOOKUP, NOW, REFUND, Desk, write_forbid, write_permit

USE = GrantUse("refund", "dev", "desk", REFUND, 3, NOW)


def read(desk: Desk, text: str, *uses: GrantUse) -> list[Access]:
    return list_access(desk.compile(text).policies, uses, NOW)


def test_gives_a_row_to_each_agent_that_a_condition_names(desk: Desk):
    scope = f'principal is Agent, action == Action::"{REFUND}", resource == Environment::"dev"'
    either = '[Agent::"a", Agent::"b"].contains(principal)'
    rows = read(desk, f'@id("two") permit ({scope}) when {{ {either} && context.request has amount }};')
    assert [(row.agent, row.tool) for row in rows] == [("a", REFUND), ("b", REFUND)]


def test_takes_the_names_that_all_conditions_allow(desk: Desk):
    scope = f'principal is Agent, action == Action::"{REFUND}", resource == Environment::"dev"'
    first = 'principal == Agent::"a" || principal == Agent::"b"'
    text = f'@id("one") permit ({scope}) when {{ {first} }} when {{ principal in [Agent::"b", Agent::"c"] }};'
    assert [row.agent for row in read(desk, text)] == ["b"]


def test_leaves_out_no_agent_where_only_one_side_of_an_or_names_some(desk: Desk):
    forbid = write_forbid("open", 'principal == Agent::"a" || context has subject')
    assert [(row.agent, row.tool) for row in read(desk, forbid)] == [("*", "*")]


def test_lists_a_forbid_that_covers_everything_under_every_agent_and_tool(desk: Desk):
    rows = read(desk, write_permit("refund") + write_forbid("never", "context has subject"))
    for found in (select_agent(rows, "desk"), select_tool(rows, REFUND)):
        assert [row.decision for row in found] == ["forbid", "allow"]


def test_shows_who_used_a_policy_that_names_no_agent(desk: Desk):
    other = replace(USE, grant_id="never", agent="kiosk", calls=2)
    rows = read(desk, write_forbid("never", "context has subject"), other)
    assert [(row.agent, row.use.calls) for row in rows] == [("*", 2), ("kiosk", 2)]


def test_adds_the_uses_of_all_environments(desk: Desk):
    later = replace(USE, environment="prod", calls=4, last=NOW + timedelta(hours=1))
    (row,) = read(desk, write_permit("refund"), USE, later)
    assert (row.use.calls, row.use.last) == (7, later.last)


@pytest.mark.parametrize("foreign", [{"agent": "kiosk"}, {"method": LOOKUP}, {"grant_id": "other"}])
def test_counts_no_use_of_another(desk: Desk, foreign: dict[str, Any]):
    (row,) = read(desk, write_permit("refund"), replace(USE, **foreign))
    assert (row.use.calls, row.use.last) == (0, None)


def test_lists_no_permit_that_has_expired(desk: Desk):
    expired = write_permit("old", annotations=f'@targets("orders-db") @expires("{NOW.isoformat()}")')
    assert read(desk, expired) == []


def test_says_that_a_person_has_to_approve(desk: Desk):
    (row,) = read(desk, write_permit("refund", annotations='@targets("orders-db") @ask("money")'))
    assert row.decision == "ask"


def test_shows_conditions_as_they_stand(desk: Desk):
    when = 'when {\n  context.request has payout_account && // ")" when\n  true };'
    text = write_permit("refund").replace(");\n", f")\n// why\n{when}\nunless {{ context has subject }};\n")
    (row,) = read(desk, text.replace("true };", "true }"))
    assert row.policy.conditions.startswith(when.removesuffix(";"))
    assert row.policy.conditions.endswith("unless { context has subject }")


def test_shows_no_condition_where_there_is_none(desk: Desk):
    (row,) = read(desk, write_permit("when-unless", annotations='@targets("orders-db") @ask("when (x)")'))
    assert row.policy.conditions == ""


def unused(desk: Desk, *uses: GrantUse, age_days: int = 40, text: str = "") -> list[str]:
    policies = desk.compile(text or write_permit("refund")).policies
    applied = {policy.id: NOW - timedelta(days=age_days) for policy in policies}
    return [row.policy.id for row in list_unused(policies, uses, applied, NOW - timedelta(days=30))]


def test_names_a_grant_that_nobody_used(desk: Desk):
    assert unused(desk) == ["refund"]
    assert unused(desk, replace(USE, last=NOW - timedelta(days=31))) == ["refund"]


def test_names_no_grant_that_was_used_in_time(desk: Desk):
    assert unused(desk, replace(USE, last=NOW - timedelta(days=29))) == []


def test_names_no_grant_that_is_too_young_to_tell(desk: Desk):
    assert unused(desk, age_days=29) == []


def test_names_a_grant_of_unknown_age(desk: Desk):
    policies = desk.compile(write_permit("refund")).policies
    assert len(list_unused(policies, (), {}, NOW)) == 1


def test_calls_no_forbid_unused(desk: Desk):
    assert unused(desk, text=write_forbid("never", "context has subject")) == []


def test_says_limits_in_words():
    assert describe_limit(BudgetLimit("calls", 100, 86_400)) == "100 calls in 86400 s"
    assert describe_limit(BudgetLimit("minor:EUR", 5, 60)) == "5 minor units of EUR in 60 s"
