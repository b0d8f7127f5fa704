"""What a client sends again, with which key, and until when."""

from __future__ import annotations

import random
import time
from typing import Any

import grpc
import pytest

from tests.proto.scripted_broker import (
    READ,
    WRITE,
    Face,
    ScriptedBroker,
    end,
    fail,
    hang,
    plain_client,
    refuse,
)
from toolcrib.client import Failed, Refused, Unreachable, rule_of
from toolcrib.client.attempts import MAX_RUNS, Attempts
from toolcrib.client.rules import RULES, Again
from toolcrib.v1.reasons_pb2 import Reason

BY_RULE = {again: sorted(name for name, rule in RULES.items() if rule.again is again) for again in Again}


def step_for(reason: str) -> Any:
    return (refuse if rule_of(reason).family is Refused else fail)(reason)


def keys(broker: ScriptedBroker) -> list[str]:
    return [request.idempotency_key for request in broker.seen]


def test_the_table_has_every_reason_and_no_other():
    assert set(RULES) == {name.removeprefix("REASON_") for name, _ in Reason.items()}


def test_every_reason_says_what_to_do_next():
    assert all(rule.advice.endswith(".") for rule in RULES.values())


def test_a_reason_of_a_newer_broker_is_a_failure_that_is_not_sent_again():
    assert (rule_of("NEW_REASON").family, rule_of("NEW_REASON").again) == (Failed, Again.NEVER)


@pytest.mark.parametrize("reason", [*BY_RULE[Again.ALWAYS], *BY_RULE[Again.SAME_KEY], *BY_RULE[Again.READS]])
async def test_sends_a_write_again_with_its_key(client: Face, broker: ScriptedBroker, reason: str):
    broker.steps = [step_for(reason)]
    answer = await client.invoke(WRITE, {})
    assert keys(broker) == [answer.key] * 2


@pytest.mark.parametrize("reason", BY_RULE[Again.NEVER])
async def test_does_not_send_what_would_end_the_same(client: Face, broker: ScriptedBroker, reason: str):
    broker.steps = [step_for(reason)]
    with pytest.raises(rule_of(reason).family) as error:
        await client.invoke(WRITE, {})
    assert (error.value.reason, error.value.key) == (reason, keys(broker)[0])
    assert len(broker.seen) == 1


@pytest.mark.parametrize("code", ["UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"])
async def test_sends_again_where_no_broker_answered(client: Face, broker: ScriptedBroker, code: str):
    broker.steps = [end(grpc.StatusCode[code])]
    answer = await client.invoke(WRITE, {})
    assert keys(broker) == [answer.key] * 2


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED"])
async def test_never_sends_a_write_without_a_key_again(client: Face, broker: ScriptedBroker, code: str):
    broker.steps = [end(grpc.StatusCode[code])]
    with pytest.raises(Unreachable):
        await client.invoke(WRITE, {}, key="")
    assert keys(broker) == [""]


@pytest.mark.parametrize("code", ["UNIMPLEMENTED", "INTERNAL", "UNKNOWN", "PERMISSION_DENIED"])
async def test_does_not_send_again_what_another_server_refused(
    client: Face, broker: ScriptedBroker, code: str
):
    broker.steps = [end(grpc.StatusCode[code])]
    with pytest.raises(Unreachable) as error:
        await client.invoke(WRITE, {})
    assert (error.value.reason, len(broker.seen)) == (code, 1)


async def test_does_not_ask_again_when_only_a_person_can_tell(client: Face, broker: ScriptedBroker):
    broker.steps = [fail("IN_DOUBT", after=None, needs_human="true")]
    with pytest.raises(Failed) as error:
        await client.invoke(WRITE, {})
    assert error.value.may_have_happened
    assert len(broker.seen) == 1


async def test_repeats_a_reads_failure_as_often_as_a_tool_may_run(client: Face, broker: ScriptedBroker):
    await client.list_tools()
    broker.steps = [fail("TOOL_FAILED", effect="NONE") for _ in range(MAX_RUNS + 1)]
    with pytest.raises(Failed):
        await client.invoke(READ, {})
    assert len(broker.seen) == MAX_RUNS


async def test_does_not_repeat_a_tools_failure_that_is_kept_under_the_key(
    client: Face, broker: ScriptedBroker
):
    broker.steps = [fail("TOOL_FAILED", effect="NONE")]
    with pytest.raises(Failed) as error:
        await client.invoke(WRITE, {})
    assert not error.value.may_have_happened
    assert len(broker.seen) == 1


async def test_gives_up_when_the_wait_would_outlast_the_call(client: Face, broker: ScriptedBroker):
    broker.steps = [refuse("TOO_MANY_CALLS", after=600.0)]
    with pytest.raises(Refused) as error:
        await client.invoke(WRITE, {}, timeout=30)
    assert error.value.retry_after_seconds == 600.0
    assert len(broker.seen) == 1


async def test_tells_the_broker_how_long_it_waits(client: Face, broker: ScriptedBroker):
    await client.invoke(WRITE, {}, timeout=30)
    assert 0 < broker.seconds[0] < 40  # gRPC rounds it up on the way


def test_gives_each_try_what_is_left_of_the_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "monotonic", iter([100.0, 100.0, 107.0, 131.0]).__next__)
    attempts = Attempts.begin("k", 30.0, is_read=False, longest_seconds=25.0)
    assert [attempts.seconds for _ in range(3)] == [25.0, 23.0, 0.001]


async def test_asks_again_when_a_try_takes_longer_than_it_may(kind: str, broker: ScriptedBroker):
    face = Face(plain_client(kind, broker.address, attempt_timeout=0.3))
    broker.steps = [hang]
    answer = await face.invoke(WRITE, {}, timeout=20)
    await face.close()
    assert len(keys(broker)) > 1
    assert set(keys(broker)) == {answer.key}


async def test_says_that_a_write_may_have_happened_when_a_later_try_is_refused(
    client: Face, broker: ScriptedBroker
):
    """The first try may have begun the write; the refusal of the second is about the second alone."""
    broker.steps = [end(grpc.StatusCode.UNAVAILABLE), refuse("BRAKE_SET", after=None)]
    with pytest.raises(Refused) as error:
        await client.invoke(WRITE, {})
    assert error.value.may_have_happened
    broker.steps = [refuse("BRAKE_SET", after=None)]
    with pytest.raises(Refused) as control:
        await client.invoke(WRITE, {})
    assert not control.value.may_have_happened


async def test_knows_that_nothing_happened_when_the_tool_says_so_in_the_end(
    client: Face, broker: ScriptedBroker
):
    broker.steps = [end(grpc.StatusCode.UNAVAILABLE), fail("TOOL_FAILED", after=None, effect="NONE")]
    with pytest.raises(Failed) as error:
        await client.invoke(WRITE, {})
    assert not error.value.may_have_happened


def test_waits_at_least_as_long_as_it_is_told_and_not_all_the_same():
    error = Refused("DRAINING", "", retry_after_seconds=2.0)
    waits = [_attempts().wait_after(error) for _ in range(200)]
    assert all(wait is not None and 2.0 <= wait <= 4.0 for wait in waits)
    assert len(set(waits)) > 100


def test_waits_longer_each_time_up_to_a_ceiling(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    attempts = _attempts()
    waits = [attempts.wait_after(Unreachable("UNAVAILABLE", "")) or 0.0 for _ in range(50)]
    assert waits == sorted(waits)
    assert waits[-1] == 5.0


def _attempts() -> Attempts:
    return Attempts("k", time.monotonic() + 1e6, is_read=False)
