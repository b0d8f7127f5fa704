"""The store's contract: idempotency keys, from claim to tombstone, and those who wait for a call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from broker.model import CallRecord, CallState
from broker.store.protocol import Store
from broker.store.records import ClaimScope, StoreError
from tests.contracts.stores import (
    RETENTION_SECONDS,
    SetClock,
    StorePlace,
    event_of,
    make_call,
    make_charge,
    reserve,
    run,
    scope_of,
    succeed,
)

KEYED = make_call("c1", key="k")
SCOPE = scope_of(KEYED)

Step = Callable[[Store, CallRecord], Awaitable[CallRecord]]


async def give_back(store: Store, call: CallRecord) -> None:
    failed = replace(call, state=CallState.FAILED, message="no sandbox")
    await store.give_back(failed, event_of(call, "call.failed"))


# --- claims ----------------------------------------------------------------------------------------------
async def test_gives_a_new_key_to_who_asks_first(store: Store) -> None:
    claim = await store.claim(SCOPE, "f1", "c1")
    assert (claim.won, claim.attempt, claim.earlier) == (True, 1, None)


async def test_names_the_call_that_claimed_a_key_before(store: Store) -> None:
    await store.claim(SCOPE, "f1", "c1")
    claim = await store.claim(SCOPE, "f2", "c2")
    assert not claim.won
    assert claim.earlier is not None
    found = claim.earlier
    assert (found.call_id, found.fingerprint, found.state) == ("c1", "f1", CallState.CLAIMED)


@pytest.mark.parametrize("round_", range(5))
async def test_gives_a_key_to_exactly_one_of_many_who_race(store: Store, round_: int) -> None:
    claims = await asyncio.gather(*(store.claim(SCOPE, "f1", f"c{number}") for number in range(20)))
    winners = [number for number, claim in enumerate(claims) if claim.won]
    assert len(winners) == 1
    losers = {claim.earlier.call_id for claim in claims if claim.earlier is not None}
    assert losers == {f"c{winners[0]}"}


async def test_gives_a_key_once_while_its_first_call_is_being_reserved(store: Store) -> None:
    await store.claim(SCOPE, "f1", "c1")
    claims, _ = await asyncio.gather(
        asyncio.gather(*(store.claim(SCOPE, "f1", f"d{number}") for number in range(20))),
        store.reserve(KEYED, SCOPE, (), event_of(KEYED)),
    )
    assert {claim.earlier.call_id for claim in claims if claim.earlier} == {"c1"}
    assert not any(claim.won for claim in claims)


async def test_frees_a_key_on_release(store: Store) -> None:
    await store.claim(SCOPE, "f1", "c1")
    await store.release(SCOPE, "c1")
    claim = await store.claim(SCOPE, "f2", "c2")
    assert (claim.won, claim.attempt) == (True, 1)


async def test_does_not_release_the_key_of_another_call(store: Store) -> None:
    await store.claim(SCOPE, "f1", "c1")
    await store.release(SCOPE, "c2")
    assert not (await store.claim(SCOPE, "f1", "c3")).won


async def test_does_not_release_a_reserved_key(store: Store) -> None:
    await reserve(store, KEYED)
    await store.release(SCOPE, "c1")
    assert not (await store.claim(SCOPE, "f1", "c2")).won


async def test_reserves_only_a_key_that_the_call_claimed(store: Store) -> None:
    await store.claim(SCOPE, "f1", "c2")
    with pytest.raises(StoreError, match="did not claim"):
        await store.reserve(KEYED, SCOPE, (), event_of(KEYED))
    assert await store.get_call("acme", "c1") is None


async def test_reserves_only_the_calls_own_key(store: Store) -> None:
    await store.claim(SCOPE, "f1", "c1")
    with pytest.raises(StoreError, match="another call's"):
        await store.reserve(make_call("c1", key="j"), SCOPE, (), event_of(KEYED))


async def test_reserves_only_the_attempt_that_comes_next(store: Store) -> None:
    await store.claim(SCOPE, "f1", "c1")
    with pytest.raises(StoreError, match="attempt 3"):
        await store.reserve(replace(KEYED, attempt=3), SCOPE, (), event_of(KEYED))
    assert await store.get_call("acme", "c1") is None


@pytest.mark.parametrize(
    "elsewhere",
    [
        replace(SCOPE, tenant="other"),
        replace(SCOPE, environment="staging"),
        replace(SCOPE, agent="b"),
        replace(SCOPE, method="m"),
        replace(SCOPE, key="j"),
    ],
    ids=["tenant", "environment", "agent", "method", "key"],
)
async def test_takes_a_key_elsewhere_for_another_key(store: Store, elsewhere: ClaimScope) -> None:
    await succeed(store, KEYED)
    assert (await store.claim(elsewhere, "f9", "c2")).won


async def test_forgets_claims_that_were_never_reserved_at_a_restart(place: StorePlace) -> None:
    await place.open().claim(SCOPE, "f1", "c1")
    assert (await place.open().claim(SCOPE, "f2", "c2")).won


# --- what a key did before -------------------------------------------------------------------------------
async def test_finds_the_call_that_is_running(store: Store) -> None:
    call = await run(store, KEYED)
    claim = await store.claim(SCOPE, "f1", "c2")
    assert (claim.won, claim.earlier) == (False, call)


async def test_finds_the_call_that_ended(store: Store) -> None:
    ended = await succeed(store, KEYED)
    assert (await store.claim(SCOPE, "f1", "c2")).earlier == ended


@pytest.mark.parametrize("state", [CallState.FAILED, CallState.IN_DOUBT])
async def test_holds_the_key_of_a_call_that_ran_and_went_wrong(store: Store, state: CallState) -> None:
    call = await run(store, KEYED)
    await store.complete(replace(call, state=state), event_of(call))
    claim = await store.claim(SCOPE, "f1", "c2")
    assert claim.earlier is not None
    assert (claim.won, claim.earlier.state) == (False, state)


@pytest.mark.parametrize("until", [reserve, run])
async def test_gives_a_key_again_after_it_was_given_back(store: Store, until: Step) -> None:
    await give_back(store, await until(store, KEYED))
    claim = await store.claim(SCOPE, "f2", "c2")
    assert (claim.won, claim.attempt, claim.earlier) == (True, 2, None)


async def test_counts_the_attempts_on(store: Store) -> None:
    for number in range(1, 4):
        call = await reserve(store, make_call(f"c{number}", key="k"))
        assert call.attempt == number
        await give_back(store, call)
    assert (await store.claim(SCOPE, "f1", "c9")).attempt == 4


async def test_holds_a_key_whose_second_attempt_ran(store: Store) -> None:
    await give_back(store, await reserve(store, KEYED))
    second = await succeed(store, make_call("c2", key="k", tool_version="2.0.0"))
    claim = await store.claim(SCOPE, "f1", "c3")
    assert (claim.won, claim.earlier) == (False, second)
    assert await store.pinned_version(SCOPE) == "2.0.0"


async def test_keeps_the_count_of_attempts_over_a_release(store: Store) -> None:
    await give_back(store, await reserve(store, KEYED))
    await store.claim(SCOPE, "f1", "c2")
    await store.release(SCOPE, "c2")
    assert (await store.claim(SCOPE, "f1", "c3")).attempt == 2


async def test_does_not_give_back_a_call_that_ended(store: Store) -> None:
    ended = await succeed(store, KEYED)
    with pytest.raises(StoreError, match="SUCCEEDED"):
        await give_back(store, ended)
    assert not (await store.claim(SCOPE, "f1", "c2")).won


async def test_frees_the_key_of_an_adopted_call_that_failed(place: StorePlace) -> None:
    call = await reserve(place.open(), KEYED)
    newer = place.open()
    await newer.adopt(replace(call, state=CallState.FAILED), event_of(call))
    claim = await newer.claim(SCOPE, "f1", "c2")
    assert (claim.won, claim.attempt) == (True, 2)


async def test_holds_the_key_of_an_adopted_call_in_doubt(place: StorePlace) -> None:
    call = await run(place.open(), KEYED)
    newer = place.open()
    await newer.adopt(replace(call, state=CallState.IN_DOUBT), event_of(call))
    assert not (await newer.claim(SCOPE, "f1", "c2")).won


# --- retention -------------------------------------------------------------------------------------------
async def test_replays_a_key_until_its_retention_ends(store: Store, clock: SetClock) -> None:
    await succeed(store, KEYED)
    clock.advance(RETENTION_SECONDS - 1)
    claim = await store.claim(SCOPE, "f1", "c2")
    assert (claim.won, claim.expired) == (False, False)


async def test_never_gives_an_expired_key_again(store: Store, clock: SetClock) -> None:
    await succeed(store, KEYED)
    for _ in range(3):
        clock.advance(RETENTION_SECONDS)
        claim = await store.claim(SCOPE, "f1", "c2")
        assert (claim.won, claim.expired) == (False, True)


async def test_keeps_the_tombstone_of_an_expired_key_over_a_restart(place: StorePlace) -> None:
    await succeed(place.open(), KEYED)
    place.clock.advance(RETENTION_SECONDS)
    assert (await place.open().claim(SCOPE, "f1", "c2")).expired


async def test_gives_a_key_again_however_old_when_nothing_ran(store: Store, clock: SetClock) -> None:
    await give_back(store, await reserve(store, KEYED))
    clock.advance(RETENTION_SECONDS)
    assert (await store.claim(SCOPE, "f1", "c2")).won


# --- the pinned version ----------------------------------------------------------------------------------
async def test_pins_the_version_that_a_key_ran_with(store: Store) -> None:
    assert await store.pinned_version(SCOPE) == ""
    await succeed(store, replace(KEYED, tool_version="1.2.3"))
    assert await store.pinned_version(SCOPE) == "1.2.3"


async def test_pins_nothing_when_nothing_ran(store: Store) -> None:
    await give_back(store, await reserve(store, KEYED))
    assert await store.pinned_version(SCOPE) == ""


# --- waiting ---------------------------------------------------------------------------------------------
async def wait_for(store: Store, call_id: str = "c1") -> asyncio.Task[None]:
    """Begin to wait, and let the wait begin."""
    task = asyncio.create_task(store.wait_for_change(call_id, 60))
    _, pending = await asyncio.wait({task}, timeout=0.1)
    assert pending, "waits while nothing changes"
    return task


async def test_wakes_who_waits_when_a_claim_is_released(store: Store) -> None:
    await store.claim(SCOPE, "f1", "c1")
    waiting = await wait_for(store)
    await store.release(SCOPE, "c1")
    await asyncio.wait_for(waiting, 10)


async def test_wakes_who_waits_when_a_claim_is_reserved(store: Store) -> None:
    await store.claim(SCOPE, "f1", "c1")
    waiting = await wait_for(store)
    await store.reserve(KEYED, SCOPE, (), event_of(KEYED))
    await asyncio.wait_for(waiting, 10)


async def test_wakes_all_who_wait_when_a_call_ends(store: Store) -> None:
    call = await run(store, KEYED)
    waiting = [await wait_for(store) for _ in range(3)]
    await store.complete(replace(call, state=CallState.SUCCEEDED, result=b""), event_of(call))
    await asyncio.wait_for(asyncio.gather(*waiting), 10)


async def test_wakes_who_waits_when_a_call_is_given_back(store: Store) -> None:
    call = await reserve(store, KEYED, make_charge())
    waiting = await wait_for(store)
    await give_back(store, call)
    await asyncio.wait_for(waiting, 10)


async def test_wakes_who_waits_when_a_call_is_adopted(place: StorePlace) -> None:
    call = await run(place.open(), KEYED)
    newer = place.open()
    waiting = await wait_for(newer)
    await newer.adopt(replace(call, state=CallState.IN_DOUBT), event_of(call))
    await asyncio.wait_for(waiting, 10)


async def test_does_not_wait_for_a_call_that_has_ended(store: Store) -> None:
    await succeed(store, KEYED)
    await asyncio.wait_for(store.wait_for_change("c1", float("inf")), 10)


async def test_does_not_wait_for_a_call_that_nobody_knows(store: Store) -> None:
    await asyncio.wait_for(store.wait_for_change("c404", float("inf")), 10)


@pytest.mark.parametrize("timeout_seconds", [-1, 0, 0.01])
async def test_stops_waiting_when_the_time_is_up(store: Store, timeout_seconds: float) -> None:
    await run(store, KEYED)
    await asyncio.wait_for(store.wait_for_change("c1", timeout_seconds), 10)


async def test_wakes_who_waits_when_the_store_closes(store: Store) -> None:
    await run(store, KEYED)
    waiting = await wait_for(store)
    await store.close()
    await asyncio.wait_for(waiting, 10)


# --- a read that failed in passing -----------------------------------------------------------------------
async def test_frees_the_key_of_a_read_that_failed_in_passing_and_keeps_its_charges(store: Store) -> None:
    charge = make_charge()
    await reserve(store, KEYED, charge)
    await store.dispatch(KEYED.call_id, ())
    failed = replace(KEYED, state=CallState.FAILED, message="too slow")
    await store.complete(failed, event_of(KEYED, "call.failed"), frees_key=True)
    claim = await store.claim(SCOPE, "f1", "c2")
    assert (claim.won, claim.attempt) == (True, 2)
    found = await store.get_call(KEYED.tenant, KEYED.call_id)
    assert found is not None
    assert found.state is CallState.FAILED
