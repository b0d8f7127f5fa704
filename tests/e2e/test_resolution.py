"""A write whose outcome was lost is found out, sent again where that is safe, or handed to a person."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from broker.dev import DevOptions
from broker.model import CallRecord
from sandboxes.engine import Engine
from tests.e2e import grants
from tests.e2e.broker_process import BrokerProcess, start_broker
from tests.e2e.caller import Reply, ToolCaller, read_error
from tests.e2e.stack import MISCHIEF, Crib, CribThread
from tests.e2e.test_writes import effects
from tests.parts import without
from tests.parts.crib import CACHE_DIR, wait_until_clean
from toolcrib.v1 import operations_pb2, operations_pb2_grpc

BLIND = "mischief.v1.Mischief/Write"
PROBED = "mischief.v1.Mischief/WriteProbed"
DEDUPES = "mischief.v1.Mischief/WriteOnce"


def find(crib: Crib, call_id: str) -> CallRecord:
    record = crib.run(crib.stack.broker.store.get_call("shop", call_id))
    assert record is not None
    return record


def call_until_it_is_known(crib: Crib, method: str, how: str, key: str) -> list[Reply]:
    """Call, and ask again with the same key as an agent would, until the answer is final."""
    replies: list[Reply] = []
    with crib.caller() as agent:
        while not replies or (len(replies) < 20 and replies[-1].retry_after_seconds):
            replies.append(agent.call(method, {"how": how}, key=key))
            time.sleep(min(replies[-1].retry_after_seconds or 0, 0.5))
    return replies


# --- in doubt within one broker --------------------------------------------------------------------------
def test_replays_the_answer_that_the_probe_found(crib: Crib):
    crib.grant(grants.MISCHIEF)
    before, key = effects(crib), uuid.uuid4().hex
    first, *_, last = call_until_it_is_known(crib, PROBED, "crash_after", key)
    assert (first.reason, last.code, last.replayed) == ("IN_DOUBT", "OK", True)
    assert effects(crib) == before + 1
    assert find(crib, first.call_id).state == "SUCCEEDED"


def test_runs_again_what_the_probe_did_not_find(crib: Crib):
    crib.grant(grants.MISCHIEF)
    before, key = effects(crib), uuid.uuid4().hex
    first, *_, last = call_until_it_is_known(crib, PROBED, "crash_before", key)
    assert (first.reason, last.code, last.replayed) == ("IN_DOUBT", "OK", False)
    assert effects(crib) == before + 1
    assert [find(crib, reply.call_id).attempt for reply in (first, last)] == [1, 2]


@pytest.mark.parametrize("how", ["crash_before", "crash_after"])
def test_sends_again_what_the_target_dedupes(crib: Crib, how: str):
    crib.grant(grants.MISCHIEF)
    before, key = effects(crib), uuid.uuid4().hex
    first, *_, last = call_until_it_is_known(crib, DEDUPES, how, key)
    assert (first.reason, last.code, last.replayed) == ("IN_DOUBT", "OK", True)
    assert effects(crib) == before + 1


def test_gives_the_budget_back_of_what_did_not_happen(crib: Crib):
    crib.grant(grants.one_call_an_hour())
    *_, last = call_until_it_is_known(crib, PROBED, "crash_before", uuid.uuid4().hex)
    assert last.code == "OK"


def test_probes_as_a_call_of_its_own_that_leaves_nothing(crib: Crib):
    crib.grant(grants.MISCHIEF)
    call_until_it_is_known(crib, PROBED, "crash_after", uuid.uuid4().hex)
    probe = crib.run(crib.stack.broker.store.list_calls("shop", agent="toolcrib-resolver")).items[0]
    assert (probe.method, probe.state) == ("mischief.v1.Mischief/LookupEffect", "SUCCEEDED")
    assert wait_until_clean(crib) == {}


# --- a person says -----------------------------------------------------------------------------------------
def resolve(crib: Crib, call_id: str, role: str = "operator", **said: Any) -> Reply:
    with crib.profile("olga", role).connect() as channel:
        stub = operations_pb2_grpc.OperationsStub(channel)
        try:
            request = operations_pb2.ResolveCallRequest(call_id=call_id, **said)
            return Reply("OK", {"call": stub.ResolveCall(request).call})
        except grpc.RpcError as error:
            return read_error(error)


def leave_in_doubt(crib: Crib, key: str, how: str = "crash_after") -> str:
    *_, last = call_until_it_is_known(crib, BLIND, how, key)
    assert last.details["needs_human"] == "true"
    return last.call_id


def test_hands_what_can_neither_be_asked_nor_sent_again_to_a_person(crib: Crib):
    crib.grant(grants.MISCHIEF)
    before = effects(crib)
    call_id = leave_in_doubt(crib, uuid.uuid4().hex)
    assert find(crib, call_id).state == "NEEDS_HUMAN"
    assert effects(crib) == before + 1


def test_replays_the_answer_that_a_person_found(crib: Crib):
    crib.grant(grants.MISCHIEF)
    key = uuid.uuid4().hex
    call_id = leave_in_doubt(crib, key)
    said: dict[str, Any] = {
        "happened": True,
        "result_json": '{"effectNumber": "7"}',
        "reason": "seen in the table",
    }
    assert resolve(crib, call_id, **said).code == "OK"
    with crib.caller() as agent:
        reply = agent.call(BLIND, {"how": "crash_after"}, key=key)
    assert (reply.result, reply.replayed) == ({"effectNumber": "7"}, True)


def test_tells_that_it_happened_where_the_answer_is_not_known(crib: Crib):
    crib.grant(grants.MISCHIEF)
    key = uuid.uuid4().hex
    resolve(crib, leave_in_doubt(crib, key), happened=True, reason="the customer has it")
    with crib.caller() as agent:
        reply = agent.call(BLIND, {"how": "crash_after"}, key=key)
    assert (reply.reason, reply.details["effect"]) == ("RESULT_INVALID", "APPLIED")


def test_runs_again_what_a_person_did_not_find(crib: Crib):
    crib.grant(grants.MISCHIEF)
    before, key = effects(crib), uuid.uuid4().hex
    call_id = leave_in_doubt(crib, key, "crash_before")
    assert resolve(crib, call_id, happened=False, reason="not in the table").code == "OK"
    with crib.caller() as agent:
        reply = agent.call(BLIND, {"how": "crash_before"}, key=key)
    assert (reply.code, reply.replayed) == ("OK", False)
    assert effects(crib) == before + 1


def test_takes_no_decision_that_says_nothing(crib: Crib):
    crib.grant(grants.MISCHIEF)
    call_id = leave_in_doubt(crib, uuid.uuid4().hex)
    reply = resolve(crib, call_id, happened=False, result_json="{}", reason=" ")
    assert reply.reason == "REQUEST_INVALID"
    assert set(reply.violations) == {"reason", "result_json"}
    assert resolve(crib, call_id, happened=True, result_json='{"x": 1}', reason="r").violations
    assert resolve(crib, call_id, "reviewer", happened=True, reason="r").reason == "ROLE_REQUIRED"


def test_takes_no_decision_on_a_call_whose_outcome_is_known(crib: Crib):
    crib.grant(grants.MISCHIEF)
    with crib.caller() as agent:
        done = agent.call(BLIND, {"how": "fine"}, key=uuid.uuid4().hex)
    assert resolve(crib, done.call_id, happened=False, reason="r").violations["call_id"]
    assert resolve(crib, "c0", happened=False, reason="r").reason == "CALL_UNKNOWN"


# --- a broker that is killed, or stopped past its epoch ----------------------------------------------------
@pytest.fixture
def own_crib(tmp_path: Path, engine: Engine) -> Iterator[Crib]:
    """A Toolcrib whose own broker is down, so that others can run on its state."""
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    options = DevOptions(bundles=(MISCHIEF,), tenants=("shop",), engine_url=engine.base_url)
    with CribThread(tmp_path / "state", CACHE_DIR, options) as crib:
        crib.grant(grants.MISCHIEF)
        crib.run(crib.stack.broker.__aexit__(None, None, None))
        config = config_of(crib)
        config.write_text(config.read_text().replace("[state]\n", "[state]\nepoch_seconds = 1.0\n"))
        yield crib


def config_of(crib: Crib) -> Path:
    return crib.stack.state_dir / "toolcrib.toml"


def start_again(crib: Crib) -> None:
    """Start the stack's own broker on the state, as soon as the other's epoch has expired."""
    crib.run(crib.stack._start_broker(None))
    crib.rest()


def call_at(crib: Crib, other: BrokerProcess, key: str, how: str = "fine") -> tuple[ToolCaller, Any]:
    """Begin a probed write at another broker."""
    profile = replace(crib.profile("refund-desk"), address=other.address)
    caller = ToolCaller(profile, crib.contracts)
    return caller, caller.start(PROBED, {"how": how}, key=key, timeout=60)


@pytest.mark.parametrize(("stage", "replayed"), [("start", False), ("sanitize", True), ("settle", True)])
def test_finds_out_what_a_killed_broker_did(own_crib: Crib, stage: str, replayed: bool):
    key, before = uuid.uuid4().hex, effects(own_crib)
    with start_broker(config_of(own_crib), stage, signal.SIGKILL) as killed:
        caller, call = call_at(own_crib, killed, key)
        killed.wait_until_hit()
        assert caller.finish(PROBED, call).code == "UNAVAILABLE"
    start_again(own_crib)
    *_, last = call_until_it_is_known(own_crib, PROBED, "fine", key)
    assert (last.code, last.replayed) == ("OK", replayed)
    assert effects(own_crib) == before + 1
    assert wait_until_clean(own_crib) == {}


@pytest.mark.parametrize(("stage", "replayed"), [("start", False), ("sanitize", True)])
def test_lets_a_broker_that_was_taken_over_do_nothing_more(own_crib: Crib, stage: str, replayed: bool):
    key, before = uuid.uuid4().hex, effects(own_crib)
    with start_broker(config_of(own_crib), stage, signal.SIGSTOP) as stopped:
        caller, call = call_at(own_crib, stopped, key)
        stopped.wait_until_hit()
        start_again(own_crib)
        *_, last = call_until_it_is_known(own_crib, PROBED, "fine", key)
        stopped.wake()
        late, later = caller.finish(PROBED, call), caller.call(PROBED, {"how": "fine"}, key=key)
        assert (late.reason, later.reason) == ("STALE_EPOCH", "STALE_EPOCH")
        assert is_unhealthy(own_crib, stopped)
        stopped.end()
    assert (last.code, last.replayed) == ("OK", replayed)
    assert effects(own_crib) == before + 1
    assert wait_until_clean(own_crib) == {}


def is_unhealthy(crib: Crib, other: BrokerProcess) -> bool:
    with replace(crib.profile("refund-desk"), address=other.address).connect() as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    return bool(answer.status == health_pb2.HealthCheckResponse.NOT_SERVING)
