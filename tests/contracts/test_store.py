"""The store's contract: calls, leases, epochs and the audit that comes with them, on memory and on SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.model import CallState, SandboxRecord, StageTime
from broker.store.protocol import Store
from broker.store.records import AliasStep, GrantFiles, StaleEpoch, StoreError
from tests.contracts.stores import (
    START,
    StorePlace,
    event_of,
    make_brake,
    make_call,
    make_event,
    make_lease,
    make_version,
    read_audit,
    reserve,
    run,
    scope_of,
    succeed,
)
from toolcrib.v1.reasons_pb2 import Reason

LATER = START + timedelta(seconds=1)


# --- from reservation to end -----------------------------------------------------------------------------
async def test_reads_back_what_was_reserved(store: Store) -> None:
    call = await reserve(store, make_call(key="k"))
    assert await store.get_call("acme", call.call_id) == call


async def test_reads_back_what_was_dispatched_with_its_leases(store: Store) -> None:
    call = await run(store, make_call(), make_lease("l1"), make_lease("l2"))
    assert await store.get_call("acme", call.call_id) == call


async def test_reads_back_everything_of_an_ended_call(store: Store) -> None:
    ended = replace(
        await run(store, make_call(), make_lease("l1")),
        state=CallState.FAILED,
        ended=LATER,
        reason=Reason.REASON_TOOL_FAILED,
        message="no such order",
        failure={"tool_code": "ORDER_UNKNOWN"},
        labels=("tool:x",),
        stages=(StageTime("run", 12, 34),),
        sandboxes=(SandboxRecord("id", "sha256:1", START, LATER), SandboxRecord("id2", "sha256:1", START)),
        tool_log="a\nb\x00c",
    )
    await store.complete(ended, event_of(ended))
    assert await store.get_call("acme", ended.call_id) == ended


async def test_keeps_the_bytes_of_a_result(store: Store) -> None:
    ended = replace(await run(store, make_call()), state=CallState.SUCCEEDED, result=b"\x00\xff\x0a")
    await store.complete(ended, event_of(ended))
    found = await store.get_call("acme", ended.call_id)
    assert found is not None
    assert found.result == b"\x00\xff\x0a"


async def test_tells_an_empty_result_from_none(store: Store) -> None:
    ended = replace(await run(store, make_call()), state=CallState.SUCCEEDED, result=b"")
    await store.complete(ended, event_of(ended))
    found = await store.get_call("acme", ended.call_id)
    assert found is not None
    assert found.result == b""


async def test_records_a_refused_call_without_an_effect(store: Store) -> None:
    call = make_call(state=CallState.REFUSED, effect=None, reason=Reason.REASON_NOT_GRANTED)
    await store.refuse(call, event_of(call))
    assert await store.get_call("acme", call.call_id) == call


@pytest.mark.parametrize("state", [CallState.RESERVED, CallState.SUCCEEDED, CallState.IN_DOUBT])
async def test_refuses_to_record_another_state_as_a_refusal(store: Store, state: CallState) -> None:
    call = make_call(state=state)
    with pytest.raises(StoreError, match="REFUSED"):
        await store.refuse(call, event_of(call))


async def test_writes_its_own_epoch_whatever_the_record_says(store: Store) -> None:
    call = await reserve(store, make_call(epoch=99))
    found = await store.get_call("acme", call.call_id)
    assert found is not None
    assert found.epoch == store.epoch.number


async def test_refuses_a_call_id_that_is_there(store: Store) -> None:
    call = await reserve(store, make_call())
    with pytest.raises(StoreError):
        await store.reserve(make_call(call.call_id, agent="other"), None, (), event_of(call))
    assert await store.get_call("acme", call.call_id) == call


async def test_dispatches_only_what_is_reserved(store: Store) -> None:
    call = await run(store, make_call())
    with pytest.raises(StoreError, match="DISPATCHED"):
        await store.dispatch(call.call_id, [])
    with pytest.raises(StoreError, match="no such call"):
        await store.dispatch("c404", [])


@pytest.mark.parametrize("state", [CallState.SUCCEEDED, CallState.FAILED, CallState.IN_DOUBT])
async def test_completes_only_what_is_dispatched(store: Store, state: CallState) -> None:
    call = await reserve(store, make_call())
    with pytest.raises(StoreError, match="RESERVED"):
        await store.complete(replace(call, state=state), event_of(call))
    assert await store.get_call("acme", call.call_id) == call


async def test_does_not_complete_twice(store: Store) -> None:
    ended = await succeed(store, make_call())
    with pytest.raises(StoreError, match="SUCCEEDED"):
        await store.complete(replace(ended, state=CallState.IN_DOUBT), event_of(ended))
    assert await store.get_call("acme", ended.call_id) == ended


@pytest.mark.parametrize("state", [CallState.RESERVED, CallState.DISPATCHED, CallState.REFUSED])
async def test_completes_only_with_an_end(store: Store, state: CallState) -> None:
    call = await run(store, make_call())
    with pytest.raises(StoreError, match="no end"):
        await store.complete(replace(call, state=state), event_of(call))


async def test_does_not_let_an_end_rewrite_who_asked_what(store: Store) -> None:
    call = await run(store, make_call(key="k"))
    forged = replace(call, state=CallState.FAILED, agent="other", method="m", key="j", fingerprint="f2")
    await store.complete(forged, event_of(call))
    assert await store.get_call("acme", call.call_id) == replace(call, state=CallState.FAILED)


async def test_changes_nothing_when_the_audit_cannot_be_written(store: Store) -> None:
    call = await run(store, make_call())
    unwritable = replace(event_of(call), details={"set": {1, 2}})
    with pytest.raises(ValueError, match="audit event"):
        await store.complete(replace(call, state=CallState.FAILED), unwritable)
    assert await store.get_call("acme", call.call_id) == call


# --- amend -----------------------------------------------------------------------------------------------
async def test_amends_what_was_known_only_after_the_end(store: Store) -> None:
    ended = await succeed(store, make_call())
    sandboxes = (SandboxRecord("id", "sha256:1", START, LATER),)
    more = replace(ended, stages=(StageTime("end", 1, 2),), sandboxes=sandboxes, tool_log="log")
    await store.amend(replace(more, result=b"forged", state=CallState.FAILED, message="forged"))
    assert await store.get_call("acme", ended.call_id) == more


async def test_amends_only_what_has_ended(store: Store) -> None:
    call = await run(store, make_call())
    with pytest.raises(StoreError, match="DISPATCHED"):
        await store.amend(call)


# --- epochs ----------------------------------------------------------------------------------------------
async def test_keeps_the_installation_and_counts_the_epoch(place: StorePlace) -> None:
    first, second = place.open(), place.open()
    assert second.epoch.installation == first.epoch.installation
    assert second.epoch.number == first.epoch.number + 1


async def test_reads_after_a_restart_what_was_there_before(place: StorePlace) -> None:
    ended = await succeed(place.open(), make_call(key="k"))
    again = place.open()
    assert await again.get_call("acme", ended.call_id) == ended
    assert (await again.claim(scope_of(ended), "f1", "c2")).earlier == ended


CLAIMED = scope_of(make_call(key="claimed"))
CHANGES: dict[str, Callable[[Store], Awaitable[object]]] = {
    "reserve": lambda store: store.reserve(make_call(), None, (), make_event()),
    "dispatch": lambda store: store.dispatch("c1", []),
    "complete": lambda store: store.complete(make_call("c1", state=CallState.FAILED), make_event()),
    "give_back": lambda store: store.give_back(make_call("c1", state=CallState.FAILED), make_event()),
    "refuse": lambda store: store.refuse(make_call(state=CallState.REFUSED), make_event()),
    "lease_ended": lambda store: store.lease_ended("l1", START),
    "amend": lambda store: store.amend(make_call("c1")),
    "adopt": lambda store: store.adopt(make_call("c1", state=CallState.FAILED), make_event()),
    "put_version": lambda store: store.put_version(make_version(), make_event()),
    "review_version": lambda store: store.review_version(make_version(), make_event()),
    "move_alias": lambda store: store.move_alias("acme", "shop", "stable", "1.0.0", make_event()),
    "step_back": lambda store: store.step_back(
        AliasStep("acme", "shop", "stable", left="1.1.0", reached="1.0.0"), make_event()
    ),
    "apply_grants": lambda store: store.apply_grants("acme", GrantFiles({}, "g1"), "", make_event()),
    "append_audit": lambda store: store.append_audit(make_event()),
    "claim": lambda store: store.claim(scope_of(make_call(key="new")), "f1", "c2"),
    "claim_held": lambda store: store.claim(CLAIMED, "f1", "c2"),
    "release": lambda store: store.release(CLAIMED, "c9"),
    "resolve": lambda store: store.resolve(make_call("c1", state=CallState.FAILED), make_event()),
    "beat": lambda store: store.beat(),
    "put_tenant_key": lambda store: store.put_tenant_key("acme", b"k"),
    "erase_tenant": lambda store: store.erase_tenant("acme", make_event()),
    "set_brake": lambda store: store.set_brake(make_brake(), make_event()),
    "lift_brake": lambda store: store.lift_brake("b404", make_event()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_refuses_each_change_of_a_run_that_was_taken_over(
    place: StorePlace, change: Callable[[Store], Awaitable[object]]
) -> None:
    older = place.open()
    await run(older, make_call("c1"), make_lease("l1"))
    await older.claim(CLAIMED, "f1", "c9")
    newer = place.open()
    before = await read_audit(newer)
    with pytest.raises(StaleEpoch):
        await change(older)
    assert await read_audit(newer) == before


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_refuses_each_change_after_it_was_closed(
    store: Store, change: Callable[[Store], Awaitable[object]]
) -> None:
    await store.claim(CLAIMED, "f1", "c9")
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await change(store)


async def test_may_be_closed_twice(store: Store) -> None:
    await store.close()
    await store.close()


async def test_finds_what_an_earlier_run_left_unfinished_and_not_its_own(place: StorePlace) -> None:
    older = place.open()
    reserved, dispatched = await reserve(older, make_call("c1")), await run(older, make_call("c2"))
    await succeed(older, make_call("c3"))
    newer = place.open()
    await run(newer, make_call("c4"))
    found = {call.call_id: call for call in await newer.unfinished()}
    assert found == {"c1": reserved, "c2": dispatched}


@pytest.mark.parametrize("state", [CallState.FAILED, CallState.IN_DOUBT])
async def test_adopts_a_call_of_an_earlier_run_once(place: StorePlace, state: CallState) -> None:
    call = await run(place.open(), make_call())
    newer = place.open()
    adopted = replace(call, state=state, message="the broker died")
    await newer.adopt(adopted, event_of(call))
    assert await newer.get_call("acme", call.call_id) == adopted
    with pytest.raises(StoreError, match=state.value):
        await newer.adopt(adopted, event_of(call))


async def test_does_not_adopt_its_own_call_nor_invent_a_success(place: StorePlace) -> None:
    older = await run(place.open(), make_call())
    store = place.open()
    own = await run(store, make_call())
    with pytest.raises(StoreError):
        await store.adopt(replace(own, state=CallState.FAILED), event_of(own))
    with pytest.raises(StoreError, match="no end"):
        await store.adopt(replace(older, state=CallState.SUCCEEDED), event_of(older))


async def test_does_not_complete_the_call_of_an_earlier_run(place: StorePlace) -> None:
    older = await run(place.open(), make_call())
    with pytest.raises(StoreError):
        await place.open().complete(replace(older, state=CallState.SUCCEEDED), event_of(older))


# --- cancellation ----------------------------------------------------------------------------------------
async def test_tells_a_cancelled_caller_what_it_holds(store: Store) -> None:
    holds = []

    async def caller() -> None:
        await reserve(store, make_call("c1"))
        holds.append("c1")
        await asyncio.sleep(3600)

    task = asyncio.create_task(caller())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = await store.get_call("acme", "c1")
    assert holds == (["c1"] if found else [])
