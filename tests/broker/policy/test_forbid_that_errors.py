"""Attack: a forbid whose condition cannot be evaluated. The engine skips it and allows; the grants do not."""

from __future__ import annotations

import cedarpy

from broker.policy.grants import Question
from broker.policy.slices import PolicySlices
from tests.broker.policy.conftest import REFUND, Desk, write_forbid, write_permit

TEXT = write_permit("a") + write_forbid(
    "stop", "context.request has amount && context.request.amount.minor_units * 9223372036854775807 > 0"
)


def test_bare_engine_allows_what_the_forbid_should_stop(desk: Desk) -> None:
    request = {
        "principal": {"type": "Agent", "id": "desk"},
        "action": {"type": "Action", "id": REFUND},
        "resource": {"type": "Environment", "id": "dev"},
        "context": Question.of(desk.refund()).context(),
    }
    assert cedarpy.is_authorized(request, cedarpy.PolicySet.from_str(TEXT), []).allowed


def test_grants_refuse_it(desk: Desk) -> None:
    found = desk.explain(desk.compile(TEXT), desk.refund())
    assert (found.decision, found.grant_ids, len(found.errors)) == ("deny", ("stop",), 1)


def test_engine_error_names_the_policy_by_its_id(desk: Desk) -> None:
    grants = desk.compile(TEXT)
    slices = PolicySlices(grants.policies, grants._schema)
    assert '"stop"' in slices.evaluate(Question.of(desk.refund())).errors[0]
