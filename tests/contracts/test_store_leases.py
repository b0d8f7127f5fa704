"""The store's contract: leases until their end is confirmed, and what the audit says of that end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.audit import Verified, verify
from broker.model import CallState, LiveLease
from broker.store.protocol import Store
from tests.contracts.stores import (
    AUDIT_KEY,
    START,
    StorePlace,
    event_of,
    make_call,
    make_lease,
    read_audit,
    read_events,
    reserve,
    run,
    succeed,
)

LATER = START + timedelta(seconds=1)
SSH = make_lease("none/ssh/git-push/a1", engine="ssh", role="git-push", expires=LATER)


# --- what is owed ---------------------------------------------------------------------------------------
async def test_owes_each_lease_until_its_end_is_confirmed(store: Store) -> None:
    call = await run(store, make_call(), make_lease("l1"), make_lease("l2"))
    await store.lease_ended("l1", LATER)
    assert list(await store.owed_leases()) == [(call.call_id, make_lease("l2"))]


async def test_keeps_the_first_time_of_a_leases_end(store: Store) -> None:
    call = await run(store, make_call(), make_lease("l1"))
    await store.lease_ended("l1", LATER)
    await store.lease_ended("l1", LATER + timedelta(hours=1))
    found = await store.get_call("acme", call.call_id)
    assert found is not None
    assert found.leases == (make_lease("l1", confirmed_dead=LATER),)


async def test_takes_the_end_of_an_unknown_lease_as_no_error(store: Store) -> None:
    await store.lease_ended("l404", LATER)
    assert list(await store.owed_leases()) == []


async def test_does_not_let_a_completion_claim_or_forget_the_end_of_a_lease(store: Store) -> None:
    call = await run(store, make_call(), make_lease("l1"), make_lease("l2"))
    await store.lease_ended("l1", LATER)
    given = (make_lease("l2", confirmed_dead=LATER),)
    await store.complete(replace(call, state=CallState.FAILED, leases=given), event_of(call))
    found = await store.get_call("acme", call.call_id)
    assert found is not None
    assert found.leases == (make_lease("l1", confirmed_dead=LATER), make_lease("l2"))


async def test_owes_the_leases_of_a_call_that_was_given_back(store: Store) -> None:
    call = await reserve(store, make_call())
    leases = (make_lease("l1"), make_lease("l2", confirmed_dead=LATER))
    await store.give_back(replace(call, state=CallState.FAILED, leases=leases), event_of(call))
    assert list(await store.owed_leases()) == [(call.call_id, make_lease("l1"))]


async def test_owes_leases_of_every_epoch(place: StorePlace) -> None:
    call = await run(place.open(), make_call(), make_lease("l1"))
    assert list(await place.open().owed_leases()) == [(call.call_id, make_lease("l1"))]


@pytest.mark.parametrize("lease", [make_lease("l1"), SSH])
async def test_keeps_where_a_lease_came_from_and_when_it_expires(store: Store, lease) -> None:
    call = await run(store, make_call("c1"), lease)
    found = await store.get_call("acme", "c1")
    assert found is not None
    assert found.leases == (lease,)
    assert list(await store.owed_leases()) == [(call.call_id, lease)]


async def test_keeps_where_a_lease_came_from_that_is_known_only_at_the_end(store: Store) -> None:
    call = await reserve(store, make_call("c1"))
    await store.give_back(replace(call, state=CallState.FAILED, leases=(SSH,)), event_of(call))
    found = await store.get_call("acme", "c1")
    assert found is not None
    assert found.leases == (SSH,)


# --- what is alive ---------------------------------------------------------------------------------------
async def test_lists_live_leases_with_their_calls_oldest_first(store: Store) -> None:
    newer = await run(store, make_call("c1"), make_lease("l1", minted=LATER), make_lease("l2", minted=LATER))
    older = await run(store, make_call("c2", tenant="other"), SSH)
    listed = await store.live_leases()
    expected = [(older, SSH), (newer, newer.leases[0]), (newer, newer.leases[1])]
    assert list(listed) == [LiveLease(call, lease) for call, lease in expected]


async def test_lists_a_lease_as_live_until_its_end_is_confirmed(store: Store) -> None:
    call = await run(store, make_call(), make_lease("l1"), make_lease("l2"))
    await store.complete(replace(call, state=CallState.SUCCEEDED, result=b"1"), event_of(call))
    await store.lease_ended("l1", LATER)
    assert [live.lease.lease_id for live in await store.live_leases()] == ["l2"]
    await store.lease_ended("l2", LATER)
    assert list(await store.live_leases()) == []


async def test_lists_live_leases_without_what_their_calls_hold(store: Store) -> None:
    call = await run(store, make_call(request=b"who"), make_lease("l1"))
    ended = replace(call, state=CallState.SUCCEEDED, result=b"1", tool_log="log")
    await store.complete(ended, event_of(call))
    (live,) = await store.live_leases()
    assert live.call == replace(ended, request=None, result=None, tool_log="")


async def test_lists_live_leases_of_every_epoch(place: StorePlace) -> None:
    call = await run(place.open(), make_call(), make_lease("l1"))
    assert list(await place.open().live_leases()) == [LiveLease(call, make_lease("l1"))]


# --- the record of the end -------------------------------------------------------------------------------
async def test_records_the_end_of_a_lease_once(store: Store) -> None:
    await run(store, make_call("c1", environment="staging"), make_lease("l1"), make_lease("l2"))
    await store.lease_ended("l1", LATER)
    await store.lease_ended("l1", LATER + timedelta(hours=1))
    (event,) = await read_events(store, "lease.ended")
    said = {name: event[name] for name in ("tenant", "environment", "call_id", "at", "details")}
    assert said == {
        "tenant": "acme",
        "environment": "staging",
        "call_id": "c1",
        "at": "2026-11-21T09:00:01.123456Z",
        "details": {"lease": "l1", "accessor": "accessor-l1", "credential": "orders_refund"},
    }


async def test_records_no_end_of_a_lease_that_nobody_knows(store: Store) -> None:
    await succeed(store, make_call())
    before = await read_audit(store)
    await store.lease_ended("l404", LATER)
    assert await read_audit(store) == before


@pytest.mark.parametrize("end", ["give_back", "complete"])
async def test_records_the_end_of_a_lease_that_was_dead_when_it_was_written_down(
    store: Store, end: str
) -> None:
    call = await (reserve if end == "give_back" else run)(store, make_call("c1"))
    dead = make_lease("l1", confirmed_dead=LATER)
    await store.lease_ended("l1", LATER)  # nobody knows it yet
    ended = replace(call, state=CallState.FAILED, leases=(dead, make_lease("l2")))
    await getattr(store, end)(ended, event_of(call, "call.failed"))
    await store.lease_ended("l1", LATER + timedelta(hours=1))
    (event,) = await read_events(store, "lease.ended")
    assert (event["call_id"], event["details"]["lease"]) == ("c1", "l1")


async def test_records_no_second_end_when_the_call_ends_after_its_lease(store: Store) -> None:
    call = await run(store, make_call(), make_lease("l1"))
    await store.lease_ended("l1", LATER)
    dead = (make_lease("l1", confirmed_dead=LATER),)
    await store.complete(replace(call, state=CallState.FAILED, leases=dead), event_of(call))
    await store.amend(replace(call, state=CallState.FAILED, leases=dead))
    assert len(await read_events(store, "lease.ended")) == 1


async def test_owes_a_lease_whose_end_cannot_be_recorded(store: Store) -> None:
    await run(store, make_call(), make_lease("l1"))
    before = await read_audit(store)
    with pytest.raises(ValueError, match="without a zone"):
        await store.lease_ended("l1", LATER.replace(tzinfo=None))
    assert len(await store.owed_leases()) == 1
    assert await read_audit(store) == before


async def test_has_a_chain_that_verifies_with_the_ends_of_leases_in_it(store: Store) -> None:
    call = await run(store, make_call(), make_lease("l1"))
    await store.lease_ended("l1", LATER)
    dead = tuple(make_lease(f"l{number}", confirmed_dead=LATER) for number in (2, 3))
    await store.complete(replace(call, state=CallState.FAILED, leases=dead), event_of(call))
    verdict = await verify(store.audit_records(), {"k1": AUDIT_KEY})
    assert isinstance(verdict, Verified)
    assert verdict.head.sequence == 5
