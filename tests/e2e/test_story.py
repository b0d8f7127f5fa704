"""The refund desk: an agent asks, a real tool runs with a login of its own, and nothing is left over."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e import grants
from tests.e2e.stack import Crib
from toolcrib.v1 import broker_pb2, broker_pb2_grpc, workflows_pb2, workflows_pb2_grpc

LOOKUP = "shop.v1.Orders/LookupOrder"
DRAFT = "shop.v1.Orders/CreateRefundDraft"
REFUND = "shop.v1.Orders/IssueRefund"
ORDER = {"order_id": "A-1042"}


def euros(minor_units: int) -> dict[str, object]:
    return {"minor_units": minor_units, "currency": "EUR"}


def new_key() -> str:
    return uuid.uuid4().hex


def rows(crib: Crib, table: str) -> int:
    return int(crib.stack.postgres.query(f"SELECT count(*) FROM {table}")[0][0])


def get_call(crib: Crib, call_id: str) -> broker_pb2.Call:
    with crib.profile("olga", "operator").connect() as channel:
        stub = broker_pb2_grpc.BrokerStub(channel)
        return stub.GetCall(broker_pb2.GetCallRequest(call_id=call_id)).call


def test_looks_an_order_up_with_a_login_of_its_own(crib: Crib):
    crib.grant(grants.READ)
    with crib.caller() as agent:
        reply = agent.call(LOOKUP, ORDER)
    call = get_call(crib, reply.call_id)
    assert reply.result["order"]["orderId"] == "A-1042"
    assert call.leases[0].username.startswith("v-")
    assert call.leases[0].HasField("confirmed_dead")
    assert call.sandboxes[0].HasField("gone")
    assert [stage.stage for stage in call.stages][-3:] == ["sanitize", "settle", "end"]


def test_drafts_once_however_often_it_is_asked(crib: Crib):
    crib.grant(grants.DRAFT)
    before, key = rows(crib, "refund_drafts"), new_key()
    request = {**ORDER, "amount": euros(1500), "comment": "arrived broken"}
    with crib.caller() as agent:
        replies = [agent.call(DRAFT, request, key=key) for _ in range(3)]
    assert rows(crib, "refund_drafts") == before + 1
    assert replies[0].result == replies[1].result == replies[2].result
    assert [reply.replayed for reply in replies] == [False, True, True]
    assert len({reply.call_id for reply in replies}) == 1


def test_runs_once_when_asked_by_many_at_the_same_time(crib: Crib):
    crib.grant(grants.DRAFT)
    before, key = rows(crib, "refund_drafts"), new_key()
    request = {**ORDER, "amount": euros(100), "comment": "together"}
    with crib.caller() as agent, ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: agent.call(DRAFT, request, key=key), range(8)))
    assert rows(crib, "refund_drafts") == before + 1
    assert sorted(reply.replayed for reply in replies) == [False] + [True] * 7


def test_refuses_a_key_that_was_used_for_another_amount(crib: Crib):
    crib.grant(grants.DRAFT)
    key = new_key()
    with crib.caller() as agent:
        agent.call(DRAFT, {**ORDER, "amount": euros(100), "comment": "one"}, key=key)
        reply = agent.call(DRAFT, {**ORDER, "amount": euros(200), "comment": "one"}, key=key)
    assert (reply.code, reply.reason) == ("FAILED_PRECONDITION", "KEY_REUSED")


def test_the_same_key_in_another_environment_is_another_call(crib: Crib):
    staging = grants.DRAFT.replace('"draft"', '"draft-staging"').replace('"dev"', '"staging"')
    crib.grant(grants.DRAFT + staging)
    before, key = rows(crib, "refund_drafts"), new_key()
    request = {**ORDER, "amount": euros(100), "comment": "one"}
    with crib.caller() as agent:
        first = agent.call(DRAFT, request, key=key)
        second = agent.call(DRAFT, request, key=key, environment="staging")
    assert first.call_id != second.call_id
    assert rows(crib, "refund_drafts") == before + 2


def test_refunds_only_within_its_grant(crib: Crib):
    request = {"order_id": "A-1042", "amount": euros(1000)}
    before = rows(crib, "refunds")
    with crib.caller() as agent:
        ungranted = agent.call(REFUND, request, key=new_key())
        crib.grant(grants.REFUND)
        granted = agent.call(REFUND, request, key=new_key())
        large = agent.call(REFUND, {**request, "amount": euros(5001)}, key=new_key())
    assert (ungranted.code, ungranted.reason) == ("PERMISSION_DENIED", "NOT_GRANTED")
    assert granted.code == "OK"
    assert large.reason == "APPROVAL_REQUIRED"
    assert rows(crib, "refunds") == before + 1


def test_mints_nothing_when_refused(crib: Crib):
    with crib.caller() as agent:
        reply = agent.call(LOOKUP, ORDER)
    call = get_call(crib, reply.call_id)
    assert broker_pb2.CallState.Name(call.state) == "REFUSED"
    assert not call.leases
    assert not call.sandboxes


def test_names_every_violation_at_once_by_field(crib: Crib):
    request = {"order_id": "x", "amount": {"minor_units": -1, "currency": "euro"}, "comment": ""}
    with crib.caller() as agent:
        reply = agent.call(DRAFT, request, key=new_key())
    assert reply.code == "INVALID_ARGUMENT"
    assert {"order_id", "amount.minor_units", "amount.currency", "comment"} == set(reply.violations)


def test_asks_a_person_about_an_unknown_destination(crib: Crib):
    crib.grant(grants.REFUND)
    request = {"order_id": "A-1042", "amount": euros(100), "payout_account": "iban:DE00EVIL"}
    with crib.profile("front-office", "orchestrator").connect() as channel:
        stub = workflows_pb2_grpc.WorkflowsStub(channel)
        handle = stub.OpenWorkflow(workflows_pb2.OpenWorkflowRequest(agent="refund-desk")).handle
    with crib.caller() as agent:  # which has read nothing in this workflow
        reply = agent.call(REFUND, request, key=new_key(), workflow=handle)
    assert reply.reason == "APPROVAL_REQUIRED"
    assert "payout_account" in reply.violations
    assert "EVIL" not in reply.message


def test_refuses_it_once_the_agent_has_read_a_customers_note(crib: Crib):
    crib.grant(grants.READ + grants.REFUND)
    request = {"order_id": "A-1042", "amount": euros(100), "payout_account": "iban:DE00EVIL"}
    with crib.caller() as agent:
        assert "untrusted" in agent.call(LOOKUP, ORDER).trailers["toolcrib-labels"]
        reply = agent.call(REFUND, request, key=new_key())
    assert (reply.code, reply.reason) == ("PERMISSION_DENIED", "DESTINATION_UNTRUSTED")
    assert "payout_account" in reply.violations
    assert "EVIL" not in reply.message


def test_lets_a_known_destination_pass(crib: Crib):
    registry = '[[destination]]\nvalue = "iban:DE89370400440532013000"\nnote = "customer A-1042"\n'
    crib.grant(grants.REFUND, destinations=registry)
    request = {"order_id": "A-1042", "amount": euros(100), "payout_account": "iban:DE89370400440532013000"}
    with crib.caller() as agent:
        assert agent.call(REFUND, request, key=new_key()).code == "OK"


@pytest.mark.parametrize(
    ("agent", "tenant", "reason"),
    [
        ("somebody-else", "shop", "NOT_GRANTED"),
        ("refund-desk", "rival", "NOT_GRANTED"),
        ("refund-desk", "stranger", "IDENTITY_UNKNOWN"),
    ],
)
def test_refuses_another_agent_and_another_tenant(crib: Crib, agent: str, tenant: str, reason: str):
    crib.grant(grants.READ)
    with crib.caller(agent, tenant=tenant) as caller:
        assert caller.call(LOOKUP, ORDER).reason == reason


def test_answers_the_same_as_json(crib: Crib):
    crib.grant(grants.READ)
    with crib.profile("refund-desk").connect() as channel:
        stub = broker_pb2_grpc.BrokerStub(channel)
        request = broker_pb2.InvokeRequest(tool=LOOKUP, arguments_json='{"orderId": "A-1042"}')
        response = stub.Invoke(request, timeout=20)
    assert '"A-1042"' in response.result_json
    assert response.labels == [f"tool:{LOOKUP}@1.0.0", "untrusted"]


def test_shows_an_agent_its_own_calls_only(crib: Crib):
    crib.grant(grants.READ)
    with crib.caller() as agent:
        mine = agent.call(LOOKUP, ORDER).call_id
    with crib.profile("somebody-else").connect() as channel:
        calls = broker_pb2_grpc.BrokerStub(channel).ListCalls(broker_pb2.ListCallsRequest()).calls
    assert mine not in {call.call_id for call in calls}


def test_keeps_the_tools_log_for_people_without_secrets(crib: Crib):
    crib.grant(grants.MISCHIEF)
    with crib.caller() as agent:
        reply = agent.call("mischief.v1.Mischief/Read", {"how": "log"})
    log = get_call(crib, reply.call_id).tool_log
    assert "to stdout" in log
    assert "\x1b" not in log
    assert "[redacted]" in log


def test_takes_login_and_password_out_of_a_tools_error(crib: Crib):
    crib.grant(grants.MISCHIEF)
    with crib.caller() as agent:
        reply = agent.call("mischief.v1.Mischief/Read", {"how": "fail_with_secret"})
    assert "v-" not in reply.message
    assert reply.message.count("[redacted]") == 2
