"""The store's contract for reads: what may run as soon as it is reserved, and ends that nobody waits for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from broker.model import CallRecord, CallState, SandboxRecord
from broker.store.protocol import Store
from broker.store.records import StoreError
from tests.contracts.stores import (
    START,
    StorePlace,
    event_of,
    make_call,
    make_charge,
    make_lease,
    read_audit,
    reserve,
)
from tools.contract import Effect


def make_read(call_id: str = "c1", **changes: Any) -> CallRecord:
    """Make a read that may run as soon as it is reserved."""
    return replace(make_call(call_id), **{"effect": Effect.READ, "state": CallState.DISPATCHED, **changes})


def end(call: CallRecord) -> CallRecord:
    """Make the record of an answered one."""
    return replace(call, state=CallState.SUCCEEDED, ended=START, result=b"\x01")


async def test_reserves_a_read_with_its_intent_to_run(store: Store) -> None:
    call = await reserve(store, make_read())
    assert await store.get_call("acme", "c1") == call


@pytest.mark.parametrize("effect", [Effect.DRAFT, Effect.WRITE, None])
async def test_reserves_no_write_with_its_intent_to_run(store: Store, effect: Effect | None) -> None:
    with pytest.raises(StoreError, match="commits only RESERVED"):
        await reserve(store, make_read(effect=effect))
    assert await store.get_call("acme", "c1") is None


async def test_reserves_no_read_with_leases_with_its_intent_to_run(store: Store) -> None:
    with pytest.raises(StoreError, match="commits only RESERVED"):
        await reserve(store, make_read(leases=(make_lease("l1"),)))


async def test_has_nothing_to_dispatch_of_a_read_whose_intent_is_on_record(store: Store) -> None:
    call = await reserve(store, make_read())
    await store.dispatch("c1", [])
    assert await store.get_call("acme", "c1") == call


async def test_dispatches_a_read_that_got_leases_all_the_same(store: Store) -> None:
    await reserve(store, make_read())
    await store.dispatch("c1", [make_lease("l1")])
    assert [lease.lease_id for _, lease in await store.owed_leases()] == ["l1"]


async def test_gives_back_a_read_of_which_nothing_ran(store: Store) -> None:
    call = await reserve(store, make_read(), make_charge(limit=1))
    await store.give_back(replace(call, state=CallState.FAILED), event_of(call))
    await reserve(store, make_read("c2"), make_charge(limit=1))


async def test_shows_an_end_that_nobody_waits_for_to_whoever_reads_later(store: Store) -> None:
    call = await reserve(store, make_read())
    task = asyncio.create_task(store.complete(end(call), event_of(call), behind=tuple))
    await asyncio.sleep(0)
    assert await store.get_call("acme", "c1") == end(call)
    await task


async def test_records_what_is_known_of_the_sandboxes_when_it_is_written(store: Store) -> None:
    call = await reserve(store, make_read())
    sandboxes = (SandboxRecord("c", "image", START, gone=START),)
    await store.complete(end(call), event_of(call), behind=lambda: sandboxes)
    found = await store.get_call("acme", "c1")
    assert found is not None
    assert found.sandboxes == sandboxes


async def test_records_an_end_that_nobody_waits_for_before_it_closes(place: StorePlace) -> None:
    store = place.open()
    call = await reserve(store, make_read())
    task = asyncio.create_task(store.complete(end(call), event_of(call), behind=tuple))
    await asyncio.sleep(0.001)
    await store.close()
    await task
    assert await place.open().get_call("acme", "c1") == end(call)


async def test_chains_ends_that_nobody_waits_for(store: Store) -> None:
    calls = [await reserve(store, make_read(f"c{number}")) for number in range(3)]
    ends = [store.complete(end(call), event_of(call, "call.succeeded"), behind=tuple) for call in calls]
    await asyncio.gather(*ends, reserve(store, make_read("c9")))
    records = await read_audit(store)
    assert [record.sequence for record in records] == list(range(1, len(records) + 1))
    assert sum("call.succeeded" in record.payload for record in records) == 3


async def test_ends_no_read_twice(store: Store) -> None:
    call = await reserve(store, make_read())
    await store.complete(end(call), event_of(call), behind=tuple)
    with pytest.raises(StoreError, match="SUCCEEDED"):
        await store.complete(end(call), event_of(call), behind=tuple)


async def test_completes_a_read_only_with_an_end(store: Store) -> None:
    call = await reserve(store, make_read())
    with pytest.raises(StoreError, match="no end"):
        await store.complete(replace(call, state=CallState.REFUSED), event_of(call))


async def test_is_tenured_after_a_beat(store: Store) -> None:
    await store.beat()
    assert store.is_tenured
