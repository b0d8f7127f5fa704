"""The store's contract: what is in doubt, how it is resolved, and what a resolution needs to be kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.model import CallRecord, CallState, SandboxRecord
from broker.store.protocol import Store
from broker.store.records import BudgetExhausted, StoreError
from tests.contracts.stores import (
    START,
    StorePlace,
    event_of,
    make_call,
    make_charge,
    make_lease,
    read_audit,
    reserve,
    run,
    scope_of,
    succeed,
)

LATER = START + timedelta(seconds=1)
BOX = SandboxRecord("box1", "sha256:1", START)
KEYED = make_call("c1", key="k", request=b"\x0a\x01x")


async def doubt(store: Store, call: CallRecord = KEYED) -> CallRecord:
    """Run a call into doubt."""
    doubtful = replace(await run(store, call), state=CallState.IN_DOUBT, ended=START, message="who knows")
    await store.complete(doubtful, event_of(doubtful))
    return doubtful


async def resolve(store: Store, call: CallRecord, state: CallState, **changes: object) -> CallRecord:
    """Resolve a call in doubt."""
    resolved = replace(call, state=state, ended=LATER, **changes)  # type: ignore[arg-type]
    await store.resolve(resolved, event_of(resolved, "call.resolved"))
    return resolved


# --- what is kept ----------------------------------------------------------------------------------------
async def test_keeps_the_request_from_reservation_to_end(store: Store) -> None:
    call = await succeed(store, KEYED)
    found = await store.get_call("acme", call.call_id)
    assert found is not None
    assert found.request == KEYED.request


async def test_does_not_let_an_end_change_the_request(store: Store) -> None:
    call = await run(store, KEYED)
    await store.complete(replace(call, state=CallState.FAILED, request=b"forged"), event_of(call))
    found = await store.get_call("acme", "c1")
    assert found is not None
    assert found.request == KEYED.request


async def test_keeps_the_containers_of_a_call_from_its_dispatch_on(place: StorePlace) -> None:
    older = place.open()
    await reserve(older, KEYED)
    await older.dispatch("c1", [make_lease("l1")], [BOX])
    (left,) = await place.open().unfinished()
    assert (left.sandboxes, left.leases) == ((BOX,), (make_lease("l1"),))


async def test_forgets_no_container_when_the_end_names_others(store: Store) -> None:
    await reserve(store, KEYED)
    await store.dispatch("c1", [], [BOX, replace(BOX, container_id="box2")])
    gone = replace(BOX, gone=LATER)
    ended = replace(KEYED, state=CallState.IN_DOUBT, sandboxes=(gone,))
    await store.complete(ended, event_of(ended))
    found = await store.get_call("acme", "c1")
    assert found is not None
    assert found.sandboxes == (gone, replace(BOX, container_id="box2"))


# --- the list --------------------------------------------------------------------------------------------
async def test_lists_what_is_in_doubt_oldest_first_whoever_left_it(place: StorePlace) -> None:
    older = place.open()
    await doubt(older, make_call("c3", started=LATER, tenant="other"))
    await doubt(older, make_call("c1"))
    newer = place.open()
    await doubt(newer, make_call("c2", request=b"r"))
    await succeed(newer, make_call("c4"))
    found = await newer.in_doubt()
    assert [(call.call_id, call.request) for call in found] == [("c1", None), ("c2", b"r"), ("c3", None)]


async def test_lists_no_more_in_doubt_than_is_asked_for(store: Store) -> None:
    for number in range(3):
        await doubt(store, make_call(f"c{number}"))
    assert [call.call_id for call in await store.in_doubt(2)] == ["c0", "c1"]


async def test_does_not_list_what_was_resolved_or_waits_for_a_person(store: Store) -> None:
    for number, state in enumerate((CallState.SUCCEEDED, CallState.FAILED, CallState.NEEDS_HUMAN)):
        await resolve(store, await doubt(store, make_call(f"c{number}")), state)
    assert list(await store.in_doubt()) == []


# --- resolutions -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("through", [(), (CallState.NEEDS_HUMAN,)])
async def test_keeps_the_result_of_what_happened(store: Store, through: tuple[CallState, ...]) -> None:
    call = await doubt(store)
    for state in through:
        call = await resolve(store, call, state)
    resolved = await resolve(store, call, CallState.SUCCEEDED, result=b"\x01", message="")
    claim = await store.claim(scope_of(KEYED), "f1", "c2")
    assert (claim.won, claim.earlier) == (False, resolved)


async def test_frees_the_key_of_what_did_not_happen(store: Store) -> None:
    await resolve(store, await doubt(store), CallState.FAILED)
    claim = await store.claim(scope_of(KEYED), "f1", "c2")
    assert (claim.won, claim.attempt) == (True, 2)


async def test_counts_attempts_that_were_made_while_it_was_in_doubt(store: Store) -> None:
    await resolve(store, await doubt(store), CallState.FAILED, attempt=3)
    claim = await store.claim(scope_of(KEYED), "f1", "c2")
    assert (claim.won, claim.attempt) == (True, 4)
    await reserve(store, make_call("c3", key="other"))
    again = replace(KEYED, call_id="c2", attempt=4)
    await store.reserve(again, scope_of(again), (), event_of(again))


@pytest.mark.parametrize("state", [CallState.SUCCEEDED, CallState.FAILED, CallState.NEEDS_HUMAN])
async def test_gives_charges_back_only_of_what_did_not_happen(store: Store, state: CallState) -> None:
    call = await reserve(store, make_call("c1"), make_charge(limit=1))
    await store.dispatch("c1", [])
    doubtful = replace(call, state=CallState.IN_DOUBT)
    await store.complete(doubtful, event_of(call))
    await resolve(store, doubtful, state)
    if state is CallState.FAILED:
        await reserve(store, make_call(), make_charge(limit=1))
        return
    with pytest.raises(BudgetExhausted):
        await reserve(store, make_call(), make_charge(limit=1))


async def test_holds_the_key_of_what_waits_for_a_person(store: Store) -> None:
    await resolve(store, await doubt(store), CallState.NEEDS_HUMAN)
    claim = await store.claim(scope_of(KEYED), "f1", "c2")
    assert claim.earlier is not None
    assert (claim.won, claim.earlier.state) == (False, CallState.NEEDS_HUMAN)


@pytest.mark.parametrize("state", [CallState.SUCCEEDED, CallState.FAILED])
async def test_resolves_once(store: Store, state: CallState) -> None:
    resolved = await resolve(store, await doubt(store), state, result=b"1")
    before = await read_audit(store)
    with pytest.raises(StoreError, match=state.value):
        await resolve(store, resolved, CallState.SUCCEEDED, result=b"2")
    assert await store.get_call("acme", "c1") == resolved
    assert await read_audit(store) == before


async def test_resolves_what_an_earlier_run_left_in_doubt(place: StorePlace) -> None:
    call = await doubt(place.open())
    newer = place.open()
    resolved = await resolve(newer, call, CallState.SUCCEEDED, result=b"1")
    assert await newer.get_call("acme", "c1") == resolved


@pytest.mark.parametrize("make", [reserve, run, succeed])
async def test_resolves_only_what_is_in_doubt(store: Store, make) -> None:
    call = await make(store, KEYED)
    with pytest.raises(StoreError, match="starts only from IN_DOUBT or NEEDS_HUMAN"):
        await resolve(store, call, CallState.FAILED)


@pytest.mark.parametrize("state", [CallState.RESERVED, CallState.DISPATCHED, CallState.IN_DOUBT])
async def test_resolves_only_with_a_resolution(store: Store, state: CallState) -> None:
    call = await doubt(store)
    with pytest.raises(StoreError, match="no end"):
        await resolve(store, call, state)


async def test_does_not_put_before_a_person_what_is_there_already(store: Store) -> None:
    call = await resolve(store, await doubt(store), CallState.NEEDS_HUMAN)
    with pytest.raises(StoreError, match="no end"):
        await resolve(store, call, CallState.NEEDS_HUMAN)


async def test_does_not_let_another_tenant_resolve(store: Store) -> None:
    call = await doubt(store)
    with pytest.raises(StoreError, match="no such call"):
        await resolve(store, replace(call, tenant="b"), CallState.FAILED)
