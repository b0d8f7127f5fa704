"""What a tenant's grants say to a call: default deny, forbids win, and terms that cover the call."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.errors import Refused
from broker.model import BudgetLimit, Role
from broker.policy.grants import GrantSet, GrantsInvalid, compile_grants
from tests.broker.policy.conftest import ENVIRONMENTS, LOOKUP, NOW, REFUND, Desk, write_forbid, write_permit

SMALL = "context.request has amount && context.request.amount.minor_units <= 5000"
OVERFLOW = "context.request has amount && context.request.amount.minor_units * 9223372036854775807 > 0"
ASK = '@targets("orders-db") @ask("why")'


def refusal(grants: GrantSet, call: object) -> Refused:
    with pytest.raises(Refused) as caught:
        grants.authorize(call, NOW)  # type: ignore[arg-type]
    return caught.value


def test_allows_what_a_permit_allows(desk: Desk) -> None:
    annotations = '@targets("orders-db") @destinations("iban:DE1") @limit_calls("3/1h")'
    grant = desk.compile(write_permit("small", SMALL, annotations=annotations)).authorize(desk.refund(), NOW)
    assert (grant.grant_id, grant.ask, grant.targets) == ("small", "", {"orders-db"})
    assert (grant.destinations, grant.limits) == ({"iban:DE1"}, (BudgetLimit("calls", 3, 3600),))


@pytest.mark.parametrize("text", ["", "// nothing\n"])
def test_refuses_everything_when_nothing_is_granted(desk: Desk, text: str) -> None:
    assert refusal(desk.compile(text), desk.lookup()).reason_name == "NOT_GRANTED"


def test_refuses_everything_without_files(desk: Desk) -> None:
    grants = compile_grants({}, tuple(desk.version.contracts.values()), ENVIRONMENTS, "acme")
    assert (grants.digest, refusal(grants, desk.lookup()).reason_name) == ("", "NOT_GRANTED")


def test_refuses_another_agent(desk: Desk) -> None:
    error = refusal(desk.compile(write_permit("a", agent="other")), desk.refund())
    assert error.reason_name == "NOT_GRANTED"
    assert "other" not in error.message


def test_refuses_another_environment_and_says_which_is_granted(desk: Desk) -> None:
    error = refusal(desk.compile(write_permit("a", environment="prod")), desk.refund())
    assert '"a" is for environment "prod"' in error.message


def test_refuses_when_a_condition_is_not_met(desk: Desk) -> None:
    error = refusal(desk.compile(write_permit("a", SMALL)), desk.refund(5001))
    assert (error.reason_name, 'conditions of "a"' in error.message) == ("NOT_GRANTED", True)


def test_refuses_another_tool(desk: Desk) -> None:
    assert refusal(desk.compile(write_permit("a")), desk.lookup()).reason_name == "NOT_GRANTED"


def test_counts_an_expired_permit_as_absent(desk: Desk) -> None:
    annotations = f'@targets("orders-db") @expires("{NOW.isoformat()}")'
    grants = desk.compile(write_permit("a", annotations=annotations))
    assert grants.authorize(desk.refund(), NOW - timedelta(microseconds=1)).grant_id == "a"
    assert '"a" has expired' in refusal(grants, desk.refund()).message


def test_falls_back_to_another_permit_when_one_has_expired(desk: Desk) -> None:
    expired = write_permit("a", annotations='@targets("orders-db") @expires("2026-01-01T00:00:00Z")')
    assert (
        desk.compile(expired + write_permit("b", annotations=ASK)).authorize(desk.refund(), NOW).ask == "why"
    )


def test_prefers_a_permit_that_does_not_ask(desk: Desk) -> None:
    grants = desk.compile(write_permit("a-asks", annotations=ASK) + write_permit("b-plain", SMALL))
    assert grants.authorize(desk.refund(), NOW).grant_id == "b-plain"
    assert grants.authorize(desk.refund(5001), NOW).ask == "why"


def test_prefers_the_first_id_of_several(desk: Desk) -> None:
    grants = desk.compile(write_permit("b") + write_permit("a") + write_permit("c"))
    assert desk.explain(grants, desk.refund()).grant_ids == ("a", "b", "c")


def test_prefers_a_permit_that_trusts_the_destination(desk: Desk) -> None:
    trusting = write_permit("b", annotations='@targets("orders-db") @destinations("iban:DE12345")')
    grants = desk.compile(write_permit("a") + trusting)
    assert grants.authorize(desk.refund(account="iban:DE12345"), NOW).grant_id == "b"


def test_prefers_a_permit_that_names_the_targets(desk: Desk) -> None:
    grants = desk.compile(write_permit("a", annotations="") + write_permit("b", annotations=ASK))
    assert grants.authorize(desk.refund(), NOW).grant_id == "b"


def test_refuses_a_grant_that_does_not_name_a_target_of_the_tool(desk: Desk) -> None:
    error = refusal(desk.compile(write_permit("a", annotations='@targets("mail")')), desk.refund())
    assert error.reason_name == "NOT_GRANTED"
    assert 'grant "a" does not name target "orders-db"' in error.message


def test_refuses_another_currency_than_the_limited_one(desk: Desk) -> None:
    grants = desk.compile(write_permit("a", annotations='@targets("orders-db") @limit_amount("9 EUR/1d")'))
    assert "covers no other currency" in refusal(grants, desk.refund(currency="USD")).message


def test_lets_a_forbid_win(desk: Desk) -> None:
    error = refusal(desk.compile(write_permit("a") + write_forbid("stop", SMALL)), desk.refund())
    assert (error.reason_name, error.message) == ("NOT_GRANTED", 'forbidden by "stop"')
    assert error.details == {"policies": "stop"}


def test_lets_a_forbid_of_another_request_pass(desk: Desk) -> None:
    grants = desk.compile(write_permit("a") + write_forbid("stop", SMALL))
    assert grants.authorize(desk.refund(5001), NOW).grant_id == "a"


def test_lets_a_forbid_win_over_an_ask(desk: Desk) -> None:
    grants = desk.compile(write_permit("a", annotations=ASK) + write_forbid("stop", "true"))
    assert refusal(grants, desk.refund()).reason_name == "NOT_GRANTED"


@pytest.mark.parametrize("broken", [write_forbid("x", OVERFLOW), write_permit("x", OVERFLOW)])
def test_refuses_when_any_policy_cannot_be_evaluated(desk: Desk, broken: str) -> None:
    error = refusal(desk.compile(write_permit("a") + broken), desk.refund(1234567))
    assert (error.reason_name, error.details) == ("POLICY_FAILED", {"policies": "x"})


def test_does_not_tell_the_agent_the_values_that_failed(desk: Desk) -> None:
    grants = desk.compile(write_permit("a") + write_forbid("x", OVERFLOW))
    assert "1234567" not in refusal(grants, desk.refund(1234567)).message
    assert "1234567" in desk.explain(grants, desk.refund(1234567)).errors[0]


def test_refuses_a_request_that_the_engine_makes_no_decision_about(desk: Desk) -> None:
    grants = desk.compile(write_permit("a"))
    assert refusal(grants, desk.refund(environment="staging")).reason_name == "POLICY_FAILED"


def test_refuses_an_amount_below_zero_whatever_a_policy_says(desk: Desk) -> None:
    call = desk.refund()
    call.message.amount.minor_units = -1  # type: ignore[attr-defined]
    assert refusal(desk.compile(write_permit("a", SMALL)), call).reason_name == "POLICY_FAILED"


@pytest.mark.parametrize("change", [{"role": Role.REVIEWER}, {"tenant": "other"}])
def test_refuses_who_is_no_agent_of_the_tenant(desk: Desk, change: dict[str, object]) -> None:
    call = desk.refund()
    call = replace(call, caller=replace(call.caller, **change))  # type: ignore[arg-type]
    assert refusal(desk.compile(write_permit("a")), call).reason_name == "NOT_GRANTED"


def test_refuses_a_tool_that_the_grants_do_not_know(desk: Desk) -> None:
    known = [desk.version.contracts[LOOKUP]]
    grants = compile_grants({}, known, ENVIRONMENTS, "acme")
    assert "do not know this tool" in refusal(grants, desk.refund()).message


def test_sees_an_absent_message_as_absent(desk: Desk) -> None:
    call = desk.refund()
    call.message.ClearField("amount")
    assert refusal(desk.compile(write_permit("a", SMALL)), call).reason_name == "NOT_GRANTED"


def test_shows_subject_workflow_and_version_to_policies(desk: Desk) -> None:
    condition = 'context has subject && context.subject == "ada" && context.tool_version == "1.0.0"'
    condition += ' && context has workflow && context.workflow == "w1"'
    grants, call = desk.compile(write_permit("a", condition)), desk.refund(workflow="w1")
    assert refusal(grants, call).reason_name == "NOT_GRANTED"
    assert grants.authorize(replace(call, caller=replace(call.caller, subject="ada")), NOW).grant_id == "a"


def test_may_ask_whether_the_workflow_holds_strangers_words(desk: Desk) -> None:
    grants, call = desk.compile(write_permit("a", "!context.untrusted")), desk.refund()
    assert grants.authorize(call, NOW, untrusted=False).grant_id == "a"
    assert refusal(grants, call).reason_name == "NOT_GRANTED"  # where nobody said, it does


def test_knows_destinations_by_environment(desk: Desk) -> None:
    grants = desk.compile("", '[[destination]]\nvalue = "iban:DE1"\nenvironments = ["prod"]\n')
    known = ["iban:DE1" in grants.destinations(name) for name in ("dev", "prod", "other")]
    assert known == [False, True, False]


def test_explains_an_allowed_call(desk: Desk) -> None:
    found = desk.explain(desk.compile(write_permit("a")), desk.refund())
    assert (found.decision, found.grant_ids, found.errors) == ("allow", ("a",), ())


def test_explains_a_call_that_a_person_has_to_approve(desk: Desk) -> None:
    found = desk.explain(desk.compile(write_permit("a", annotations=ASK)), desk.refund())
    assert (found.decision, found.grant_ids, found.message) == ("ask", ("a",), "why")


def test_explains_that_an_unknown_destination_needs_a_person(desk: Desk) -> None:
    grants = desk.compile(write_permit("a"), '[[destination]]\nvalue = "iban:DE12345"\n')
    assert desk.explain(grants, desk.refund(account="iban:DE12345")).decision == "allow"
    found = desk.explain(grants, desk.refund(account="iban:XX99999"))
    assert (found.decision, found.unknown_destinations) == ("ask", ("payout_account",))


def test_explains_a_denied_call(desk: Desk) -> None:
    found = desk.explain(desk.compile(write_permit("a") + write_forbid("stop", "true")), desk.refund())
    assert (found.decision, found.grant_ids, found.errors, found.grant) == ("deny", ("stop",), (), None)


def test_lists_its_policies_by_id(desk: Desk) -> None:
    listed = desk.compile(write_forbid("b", "true") + write_permit("a", annotations=ASK)).policies
    assert [(p.id, p.effect, bool(p.terms.ask), p.file) for p in listed] == [
        ("a", "permit", True, "shop.cedar"),
        ("b", "forbid", False, "shop.cedar"),
    ]


def test_tells_every_violation_of_every_file_at_once(desk: Desk) -> None:
    files = {
        "a.cedar": write_permit("a", "context.request.oder_id == 1") + "permit (",
        "b.cedar": write_permit("a", annotations='@target("x")'),
        "c.txt": "",
        "destinations.toml": "x = 1",
    }
    with pytest.raises(GrantsInvalid) as caught:
        compile_grants(files, tuple(desk.version.contracts.values()), ENVIRONMENTS, "acme")
    assert {v.field.split(":")[0] for v in caught.value.violations} == set(files)
    assert len(caught.value.violations) == 6


def test_refuses_a_target_that_the_operator_does_not_have(desk: Desk) -> None:
    files, contracts = {"a.cedar": write_permit("a")}, tuple(desk.version.contracts.values())
    compile_grants(files, contracts, ENVIRONMENTS, "acme", known_targets={"orders-db": "postgresql"})
    with pytest.raises(GrantsInvalid, match='did you mean "order-db"'):
        compile_grants(files, contracts, ENVIRONMENTS, "acme", known_targets={"order-db": "postgresql"})


def test_refuses_rules_over_requests_of_a_database(desk: Desk) -> None:
    text = write_permit("a", annotations='@targets("orders-db") @egress("orders-db GET /a")')
    files, contracts = {"a.cedar": text}, tuple(desk.version.contracts.values())
    compile_grants(files, contracts, ENVIRONMENTS, "acme", known_targets={"orders-db": "http"})
    with pytest.raises(GrantsInvalid, match="orders-db.* is of kind postgresql"):
        compile_grants(files, contracts, ENVIRONMENTS, "acme", known_targets={"orders-db": "postgresql"})


def test_takes_a_grant_that_does_not_narrow_before_one_that_does(desk: Desk) -> None:
    narrow = write_permit("a", annotations='@targets("orders-db") @egress("orders-db GET /a")')
    assert desk.compile(narrow + write_permit("b")).authorize(desk.refund(), NOW).grant_id == "b"
    grant = desk.compile(narrow).authorize(desk.refund(), NOW)
    assert [rule.text for _, rule in grant.egress or ()] == ["GET /a"]


def test_covers_the_method_that_the_scope_lists(desk: Desk) -> None:
    text = write_permit("a").replace(
        f'action == Action::"{REFUND}"', f'action in [Action::"{REFUND}", Action::"{LOOKUP}"]'
    )
    grants = desk.compile(text)
    assert grants.authorize(desk.lookup(), NOW) == grants.authorize(desk.refund(), NOW)
