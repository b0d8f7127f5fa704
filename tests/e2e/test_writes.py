"""A write that was accepted takes effect once, and its answer waits for whoever asks with its key."""

from __future__ import annotations

import time
import uuid

from tests.e2e import grants
from tests.e2e.stack import Crib
from tests.e2e.test_reasons import register_newer
from tests.e2e.waiting import wait_for_container
from toolcrib.v1 import registry_pb2, registry_pb2_grpc

WRITE = "mischief.v1.Mischief/Write"
REFUND = "shop.v1.Orders/IssueRefund"


def effects(crib: Crib) -> int:
    return int(crib.stack.postgres.query("SELECT count(*) FROM effects")[0][0])


def test_replays_after_grant_and_alias_are_gone(crib: Crib):
    crib.grant(grants.REFUND)
    key = uuid.uuid4().hex
    request = {"order_id": "A-1042", "amount": {"minor_units": 500, "currency": "EUR"}}
    with crib.caller() as agent:
        first = agent.call(REFUND, request, key=key)
        crib.grant("")
        register_newer(crib)
        move_alias(crib, "1.1.0")
        try:
            second = agent.call(REFUND, request, key=key)
        finally:
            move_alias(crib, "1.0.0")
    assert first.code == second.code == "OK"
    assert second.replayed
    assert second.result == first.result
    assert second.trailers["toolcrib-first-call-time"]


def move_alias(crib: Crib, version: str) -> None:
    with crib.profile("rob", "reviewer").connect() as channel:
        request = registry_pb2.MoveAliasRequest(bundle="shop", alias="stable", version=version)
        registry_pb2_grpc.RegistryStub(channel).MoveAlias(request)


def test_ends_the_write_of_a_client_that_hangs_up(crib: Crib):
    crib.grant(grants.MISCHIEF)
    before, key = effects(crib), uuid.uuid4().hex
    with crib.caller() as agent:
        future = agent.start(WRITE, {"how": "sleep_first", "seconds": 1}, key=key)
        wait_for_container(crib)
        future.cancel()
    with crib.caller() as agent:
        reply = agent.call(WRITE, {"how": "sleep_first", "seconds": 1}, key=key)
    assert reply.replayed
    assert int(reply.result["effectNumber"]) > 0
    assert effects(crib) == before + 1


def test_stops_the_read_of_a_client_that_hangs_up(crib: Crib):
    crib.grant(grants.MISCHIEF)
    with crib.caller() as agent:
        future = agent.start("mischief.v1.Mischief/Read", {"how": "sleep", "seconds": 9})
        wait_for_container(crib)
        future.cancel()
        deadline = time.monotonic() + 5  # a warm one may be in the making just now
        while (left := crib.run(crib.stack.broker.fleet.leftovers())) and time.monotonic() < deadline:
            time.sleep(0.1)
    assert left == []


def test_stays_in_doubt_and_never_runs_again(crib: Crib):
    crib.grant(grants.MISCHIEF)
    before, key = effects(crib), uuid.uuid4().hex
    with crib.caller() as agent:
        replies = [agent.call(WRITE, {"how": "crash_after"}, key=key) for _ in range(2)]
    assert [reply.reason for reply in replies] == ["IN_DOUBT", "IN_DOUBT"]
    assert effects(crib) == before + 1


def test_gives_the_same_definite_error_again(crib: Crib):
    crib.grant(grants.MISCHIEF)
    key = uuid.uuid4().hex
    with crib.caller() as agent:
        replies = [agent.call(WRITE, {"how": "fail"}, key=key) for _ in range(2)]
    assert [reply.reason for reply in replies] == ["TOOL_FAILED", "TOOL_FAILED"]
    assert [reply.replayed for reply in replies] == [False, True]
    assert replies[0].details["effect"] == "NONE"


def test_runs_a_refused_key_when_it_is_granted_later(crib: Crib):
    key = uuid.uuid4().hex
    with crib.caller() as agent:
        refused = agent.call(WRITE, {"how": "fine"}, key=key)
        crib.grant(grants.MISCHIEF)
        granted = agent.call(WRITE, {"how": "fine"}, key=key)
    assert refused.reason == "NOT_GRANTED"
    assert granted.code == "OK"
    assert not granted.replayed


def test_gives_key_and_budget_back_when_vault_gives_nothing(crib: Crib):
    crib.grant(grants.one_call_an_hour())
    key = uuid.uuid4().hex
    with crib.caller() as agent:
        crib.stack.vault.seal()
        unavailable = agent.call(WRITE, {"how": "fine"}, key=key)
        crib.stack.vault.unseal()
        reply = agent.call(WRITE, {"how": "fine"}, key=key)
    assert unavailable.reason == "CREDENTIALS_UNAVAILABLE"
    assert reply.code == "OK"


def test_tells_zero_from_nothing_under_one_key(crib: Crib):
    crib.grant(grants.MISCHIEF)
    key = uuid.uuid4().hex
    with crib.caller() as agent:
        agent.call(WRITE, {"how": "fine"}, key=key)
        reply = agent.call(WRITE, {"how": "fine", "mark": 0}, key=key)
    assert reply.reason == "KEY_REUSED"


def test_replays_the_same_request_in_another_encoding(crib: Crib):
    crib.grant(grants.MISCHIEF)
    key = uuid.uuid4().hex
    with crib.caller() as agent:
        raw = agent.encode(WRITE, {"how": "fine", "mark": 7})
        first = agent.call(WRITE, raw, key=key)
        doubled = agent.call(WRITE, b"\x18\x09" + raw, key=key)  # field 3 twice: the last one counts
    assert first.code == "OK"
    assert doubled.replayed
