"""A brake that is put on holds back every call, wherever it is on its way, and lets all the others pass.

`step` walks calls into each line of the path before the brake comes, so that no gap between two stages is
taken on trust.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.brakes import Brakes, holds
from broker.errors import Failed, Refused
from broker.lever import Order
from broker.model import Brake, BrakeKind, Caller, CallRecord, CallState, Mark, Role
from broker.store.records import StoreError
from sandboxes.outcome import OutcomeKind, RawOutcome
from tests.broker.station import (
    AGENT,
    ALL,
    DRAFT,
    EVERY,
    OLGA,
    TENANT,
    TOOL,
    Station,
    answer,
    ask,
    at,
    reason_of,
)
from tests.broker.workshop import DESK, LOOKUP, Workshop
from toolcrib.handler.v1 import handler_pb2


@pytest.fixture
async def station() -> Station:
    return Station(await Workshop.open())


# --- what is new -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("order", EVERY, ids=lambda order: f"{order.kind}-{order.value}")
async def test_refuses_new_calls_until_it_is_lifted(station: Station, order: Order):
    assert await ask(station, station.shop.draft("k0")) == "OK"
    await station.pull(order)
    refused = await ask(station, station.shop.draft("k1"))
    await station.lift()
    assert refused == ("CALLER_BLOCKED" if order is AGENT else "BRAKE_SET")
    assert await ask(station, station.shop.draft("k1")) == "OK"


@pytest.mark.parametrize(
    "order",
    [
        replace(AGENT, value="refund-des"),
        replace(AGENT, tenant="rival"),
        replace(TENANT, tenant="rival"),
        replace(TOOL, value=LOOKUP),
    ],
)
async def test_holds_nothing_else_back(station: Station, order: Order):
    await station.pull(order)
    assert await ask(station, station.shop.draft()) == "OK"


async def test_blocks_no_person_of_an_agents_name():
    brake = Brake("b1", BrakeKind.AGENT, "shop", "olga", "r", "", datetime.now(UTC))
    assert not holds(brake, OLGA, "")
    assert holds(brake, replace(OLGA, role=Role.AGENT), "")


async def test_blocks_a_certificate_in_its_tenant_only():
    brakes = Brakes()
    brakes.put(Brake("b1", BrakeKind.CERTIFICATE, "shop", "ab" * 32, "r", "", datetime.now(UTC)))
    brakes.check_caller(replace(OLGA, tenant="rival", certificate="ab" * 32))
    brakes.check_caller(replace(OLGA, certificate="cd" * 32))
    with pytest.raises(Refused) as refusal:
        brakes.check_caller(replace(OLGA, certificate="ab" * 32))
    assert refusal.value.reason_name == "CALLER_BLOCKED"


async def test_gives_a_blocked_agent_no_earlier_answer(station: Station):
    await station.shop.path.answer(station.shop.draft())
    await station.pull(AGENT)
    assert await ask(station, station.shop.draft()) == "CALLER_BLOCKED"


async def test_gives_an_earlier_answer_of_a_tool_that_is_held_back(station: Station):
    await station.shop.path.answer(station.shop.draft())
    await station.pull(TOOL)
    assert (await station.shop.path.answer(station.shop.draft())).replayed


# --- what is on its way ----------------------------------------------------------------------------------
@pytest.mark.parametrize("order", EVERY, ids=lambda order: f"{order.kind}-{order.value}")
async def test_lets_no_call_through_wherever_it_is(station: Station, order: Order):
    shop, outcomes, steps = station.shop, [], 0
    while (begun := await station.pull_after(steps, order)) is not None:
        runs = shop.runs
        outcomes.append(await reason_of(begun[0]))
        assert shop.is_clean()
        assert shop.runs == runs  # nothing began behind the brake
        await station.lift()
        steps += 1
    assert steps > 10
    assert set(outcomes) <= {"CALLER_BLOCKED", "BRAKE_SET", "CALL_STOPPED", "IN_DOUBT"}


async def test_would_let_what_was_authorized_run_if_it_only_refused(
    station: Station, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(station.shop.path, "stop", lambda _brake: {})
    station.shop.vault.minting = station.go_on.wait
    task, _ = await station.begin(station.shop.draft(), at("mint"))
    await station.pull(TOOL)
    station.go_on.set()
    await asyncio.gather(task, return_exceptions=True)
    assert station.shop.runs == 1  # the control: behind the brake


async def test_tells_what_the_record_says_wherever_it_stops(station: Station):
    steps = 0
    while (begun := await station.pull_after(steps, TOOL)) is not None:
        told = await reason_of(begun[0])
        record = await station.shop.store.get_call("shop", begun[1].call_id)
        assert record is not None
        states = {"BRAKE_SET": "REFUSED", "IN_DOUBT": "IN_DOUBT"}
        assert record.state == states.get(told, "SUCCEEDED" if record.result is not None else "FAILED")
        await station.lift()
        steps += 1
    assert steps > 10


async def test_runs_again_what_was_stopped_before_it_ran(station: Station):
    station.shop.vault.minting = station.go_on.wait
    task, trail = await station.begin(station.shop.draft(), at("mint"))
    halt = await station.pull(AGENT)
    assert await reason_of(task) == "CALL_STOPPED"
    assert halt.call_ids == (trail.call_id,)
    assert [call.marks for call in await station.shop.calls()] == [(Mark.STOPPED,)]
    await station.lift()
    station.shop.vault.minting = None
    assert not (await station.shop.path.answer(station.shop.draft())).replayed
    assert station.shop.runs == 1


async def test_stops_a_read(station: Station):
    task, trail = await station.begin_slow(station.shop.lookup())
    halt = await station.pull(AGENT)
    assert await reason_of(task) == "CALL_STOPPED"
    (record,) = await station.shop.calls()
    assert (record.state, record.marks) == (CallState.FAILED, (Mark.STOPPED,))
    assert (halt.call_ids, halt.leases_ended, halt.leases_owed) == ((trail.call_id,), 1, 0)


async def test_leaves_a_write_that_it_stops_in_doubt(station: Station):
    task, _ = await station.begin_slow(station.shop.draft())
    await station.pull(AGENT)
    assert await reason_of(task) == "IN_DOUBT"
    (record,) = await station.shop.calls()
    assert (record.state, record.marks) == (CallState.IN_DOUBT, (Mark.STOPPED,))
    assert station.shop.is_clean()


async def test_stops_a_write_whose_client_hung_up(station: Station):
    task, _ = await station.begin_slow(station.shop.draft())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len((await station.pull(TENANT)).call_ids) == 1
    assert await station.shop.states() == [CallState.IN_DOUBT]


async def test_stops_who_waits_for_another_ones_key(station: Station):
    first, _ = await station.begin_slow(station.shop.draft())
    second, _ = await station.begin(station.shop.draft(), at("claim"))
    await station.pull(TOOL)
    assert (await reason_of(first), await reason_of(second)) == ("IN_DOUBT", "BRAKE_SET")
    assert station.shop.runs == 1


async def test_withholds_an_answer_that_is_durable_and_not_told_yet(station: Station):
    station.shop.vault.ending = station.go_on.wait
    task, _ = await station.begin(station.shop.draft(), lambda trail: trail.settled)
    pulling = asyncio.create_task(station.pull(AGENT))
    await asyncio.sleep(0.01)
    station.go_on.set()
    assert await reason_of(task) == "CALL_STOPPED"
    assert (await pulling).call_ids == ()  # it had ended
    assert await station.shop.states() == [CallState.SUCCEEDED]


async def test_stops_what_runs_again_when_it_is_set_again(station: Station):
    await station.pull(AGENT)
    station.lever.brakes.take(station.lever.brakes.in_force[0])  # as if it had slipped through
    task, _ = await station.begin_slow(station.shop.lookup())
    halt = await station.pull(AGENT)
    assert len(halt.call_ids) == 1
    assert await reason_of(task) == "CALL_STOPPED"
    assert len(await station.shop.store.brakes()) == 1


@pytest.mark.parametrize("kind", [LOOKUP, DRAFT])
async def test_tells_what_was_recorded_when_it_stops_the_very_end(
    station: Station, kind: str, monkeypatch: pytest.MonkeyPatch
):
    async def stall(_call: CallRecord) -> None:
        await station.go_on.wait()

    failure = handler_pb2.Failure(code="NO", message="sold", effect=handler_pb2.EFFECT_APPLIED)
    station.shop.tool = lambda _start: answer(RawOutcome(OutcomeKind.FAILURE, failure=failure))
    monkeypatch.setattr(station.shop.store, "amend", stall)
    request = station.shop.lookup() if kind == LOOKUP else station.shop.draft()
    task, trail = await station.begin(request, lambda trail: trail.failure is not None)
    pulling = asyncio.create_task(station.pull(AGENT))
    await asyncio.sleep(0.01)
    station.go_on.set()
    assert (await pulling).call_ids == (trail.call_id,)
    assert await reason_of(task) == "TOOL_FAILED"
    record = await station.shop.store.get_call("shop", trail.call_id)
    assert record is not None
    assert record.state == CallState.FAILED


async def test_records_a_refusal_whose_caller_hangs_up_or_is_stopped(
    station: Station, monkeypatch: pytest.MonkeyPatch
):
    refuse = station.shop.store.refuse

    async def stall(*arguments: Any) -> None:
        await station.go_on.wait()
        await refuse(*arguments)

    monkeypatch.setattr(station.shop.store, "refuse", stall)
    await station.pull(TOOL)
    hung_up, _ = await station.begin(station.shop.draft("k1"), at("authorize"))
    stopped, _ = await station.begin(station.shop.draft("k2"), at("authorize"))
    await asyncio.sleep(0.01)
    hung_up.cancel()
    pulling = asyncio.create_task(station.pull(AGENT))
    await asyncio.sleep(0.01)
    station.go_on.set()
    await asyncio.gather(hung_up, pulling, return_exceptions=True)
    assert await reason_of(stopped) in ("CALLER_BLOCKED", "BRAKE_SET")
    assert await station.shop.states() == [CallState.REFUSED] * 2


async def test_is_the_platforms_when_one_of_the_platform_sets_it_again(station: Station):
    (own,) = [(await station.pull(TENANT)).brake]
    pia = Caller("platform", "pia", Role.OPERATOR, "", "spiffe://x/tenant/platform/operator/pia")
    outside = (await station.lever.set(TENANT, pia)).brake
    assert (own.set_by, outside.set_by) == (OLGA.identity, pia.identity)
    assert station.lever.brakes.in_force == [outside] == list(await station.shop.store.brakes())
    again = (await station.pull(TENANT)).brake
    assert again == outside  # nobody inside takes it back


async def test_keeps_a_brake_that_is_set_while_the_one_before_is_lifted_twice(station: Station):
    first = (await station.pull(AGENT)).brake
    await station.lever.lift(first, "over", OLGA)
    second = (await station.pull(AGENT)).brake
    await station.lever.lift(first, "over, said another one", OLGA)
    assert station.lever.brakes.in_force == [second]
    assert await ask(station, station.shop.draft()) == "CALLER_BLOCKED"


# --- the order -------------------------------------------------------------------------------------------
async def test_stops_nothing_that_it_cannot_record(station: Station, monkeypatch: pytest.MonkeyPatch):
    async def fail(*_: object) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr(station.shop.store, "set_brake", fail)
    task, _ = await station.begin_slow(station.shop.draft())
    with pytest.raises(Failed, match="nothing was stopped") as failure:
        await station.pull(AGENT)
    assert failure.value.reason_name == "RECORD_UNAVAILABLE"
    assert not station.lever.brakes.in_force
    station.go_on.set()
    assert await task


async def test_lets_nobody_in_whose_release_it_cannot_record(
    station: Station, monkeypatch: pytest.MonkeyPatch
):
    async def fail(*_: object) -> None:
        raise StoreError("disk full")

    await station.pull(AGENT)
    monkeypatch.setattr(station.shop.store, "lift_brake", fail)
    with pytest.raises(StoreError):
        await station.lift()
    assert await ask(station, station.shop.draft()) == "CALLER_BLOCKED"


async def test_is_in_force_again_in_the_next_run(station: Station):
    await station.pull(AGENT)
    later = Brakes()
    await later.load(station.shop.store)
    with pytest.raises(Refused):
        later.check_caller(DESK)


async def test_records_who_set_and_who_lifted_it_and_why(station: Station):
    await station.pull(AGENT)
    await station.lift()
    payloads = [record.payload async for record in station.shop.store.audit_records()]
    told = [text for text in payloads if '"brake.set"' in text or '"brake.lifted"' in text]
    assert len(told) == 2
    assert "drill" in told[0]
    assert "over" in told[1]
    assert all(OLGA.identity in text for text in told)


@pytest.mark.parametrize(
    ("order", "fields"),
    [
        (replace(AGENT, value="No Agent"), ["value"]),
        (replace(AGENT, reason=" "), ["reason"]),
        (replace(AGENT, tenant="nobodys", reason="x" * 501), ["reason", "tenant"]),
        (replace(TOOL, value="shop.v1.Orders/Nothing"), ["value"]),
        (replace(TOOL, value="shop"), ["value"]),
        (Order(BrakeKind.CERTIFICATE, "shop", "AB" * 32, "r"), ["value"]),
        (replace(TENANT, value="shop"), ["value"]),
        (replace(ALL, tenant="shop"), ["tenant"]),
    ],
)
async def test_takes_no_order_that_would_hold_nothing_back(station: Station, order: Order, fields: list[str]):
    with pytest.raises(Refused) as refusal:
        await station.pull(order)
    assert [violation.field for violation in refusal.value.violations] == fields
    assert not station.lever.brakes.in_force
