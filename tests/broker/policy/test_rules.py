"""What the engine accepts and a reviewer would not mean: each rule refuses it and says what to write."""

from __future__ import annotations

import cedarpy
import pytest

from broker.policy.grants import GrantsInvalid
from tests.broker.policy.conftest import LOOKUP, REFUND, Desk, write_forbid, write_permit

WHO, WHAT, WHERE = (
    'principal == Agent::"desk"',
    f'action == Action::"{REFUND}"',
    'resource == Environment::"dev"',
)


def wrong(desk: Desk, text: str) -> str:
    return " | ".join(desk.find_wrong(text).values())


def permit(scope: str, when: str = "") -> str:
    return f'@id("a") @targets("orders-db") permit ({scope})' + (f" when {{ {when} }};" if when else ";")


@pytest.mark.parametrize(
    ("scope", "text"),
    [
        (f"principal, {WHAT}, {WHERE}", "every agent"),
        (f"principal is Agent, {WHAT}, {WHERE}", "every agent"),
        (f"{WHO}, action, {WHERE}", "every tool"),
        (f"{WHO}, action in [], {WHERE}", "no tool"),
        (f"{WHO}, {WHAT}, resource", "every environment"),
        (f"{WHO}, {WHAT}, resource is Environment", "every environment"),
    ],
)
def test_refuses_a_permit_that_is_too_broad(desk: Desk, scope: str, text: str) -> None:
    assert text in wrong(desk, permit(scope))


def test_tells_all_that_a_permit_leaves_open_at_once(desk: Desk) -> None:
    with pytest.raises(GrantsInvalid) as caught:
        desk.compile(permit("principal, action, resource"))
    assert len(caught.value.violations) == 3


@pytest.mark.parametrize(
    "condition",
    [
        'principal == Agent::"a"',
        'Agent::"a" == principal || principal == Agent::"b"',
        'principal in [Agent::"a", Agent::"b"]',
        '[Agent::"a", Agent::"b"].contains(principal) && true',
    ],
)
def test_accepts_a_permit_whose_condition_names_its_agents(desk: Desk, condition: str) -> None:
    desk.compile(permit(f"principal is Agent, {WHAT}, {WHERE}", condition))


@pytest.mark.parametrize(
    "condition",
    [
        "true",
        'principal == Agent::"a" || true',
        'principal != Agent::"a"',
        "principal == principal",
        '!(principal == Agent::"a")',
        'if principal == Agent::"a" then true else true',
    ],
)
def test_refuses_a_condition_that_leaves_the_agent_open(desk: Desk, condition: str) -> None:
    assert "every agent" in wrong(desk, permit(f"principal is Agent, {WHAT}, {WHERE}", condition))


def test_does_not_take_an_unless_for_a_bound(desk: Desk) -> None:
    text = permit(f"principal, {WHAT}, {WHERE}").replace(";", ' unless { principal == Agent::"a" };')
    assert "every agent" in wrong(desk, text)


def test_accepts_a_forbid_over_everything(desk: Desk) -> None:
    desk.compile('@id("a") forbid (principal, action, resource);')


@pytest.mark.parametrize(
    ("name", "meant"),
    [("shop.v1.Orders/IssueRefnd", REFUND), ("IssueRefund", REFUND), ("lookuporder", LOOKUP)],
)
def test_names_the_nearest_tool(desk: Desk, name: str, meant: str) -> None:
    assert f'no tool "{name}"; did you mean "{meant}"?' in wrong(desk, write_permit("a", method=name))


def test_names_the_nearest_environment(desk: Desk) -> None:
    assert 'no environment "prd"; did you mean "prod"?' in wrong(desk, write_permit("a", environment="prd"))


def test_names_the_nearest_type(desk: Desk) -> None:
    assert 'did you mean "Agent"?' in wrong(desk, permit(f'principal == Agnt::"desk", {WHAT}, {WHERE}'))


def test_finds_unknown_names_in_conditions_too(desk: Desk) -> None:
    assert 'no tool "x"' in wrong(desk, write_forbid("a", 'action == Action::"x"'))


@pytest.mark.parametrize(
    "condition",
    [
        "context.request has amuont",
        "context.request has amount.minor_unit",
        "context has amount",
        "principal has name",
        'principal.hasTag("x")',
        'principal == Environment::"dev"',
        'resource in [Agent::"dev"]',
        '[Agent::"a"].contains(resource)',
        'principal == action || action == Agent::"a"',
    ],
)
def test_refuses_a_forbid_that_would_never_hold(desk: Desk, condition: str) -> None:
    text = write_forbid("a", condition)
    assert wrong(desk, text)


def test_engine_alone_accepts_a_forbid_behind_a_typo(desk: Desk) -> None:
    schema = desk.compile("")._schema.handle
    result = cedarpy.validate_policies(write_forbid("a", "context.request has amuont"), schema)
    assert result.validation_passed


def test_names_the_nearest_field_after_has(desk: Desk) -> None:
    assert 'did you mean "amount"?' in wrong(desk, write_forbid("a", "context.request has amuont"))


def test_accepts_has_with_a_field_that_some_tool_has(desk: Desk) -> None:
    desk.compile(
        write_forbid("a", 'context.request has payout_account && context.request.payout_account == "x"')
    )


def test_refuses_a_limit_on_amounts_where_there_are_none(desk: Desk) -> None:
    text = write_permit("a", annotations='@targets("orders-db") @limit_amount("1 EUR/1d")', method=LOOKUP)
    assert "limits nothing" in wrong(desk, text)
