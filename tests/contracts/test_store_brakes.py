"""The store's contract: brakes in force, marks on calls, and how often grants were used."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.model import BrakeKind, CallState, GrantUse, Mark
from broker.store.protocol import Store
from broker.store.records import BudgetExhausted, StoreError
from tests.contracts.stores import (
    START,
    StorePlace,
    event_of,
    make_brake,
    make_call,
    make_charge,
    make_event,
    make_lease,
    read_audit,
    read_events,
    reserve,
    run,
    succeed,
)

LATER = START + timedelta(seconds=1)
SET, LIFTED = make_event(kind="brake.set"), make_event(kind="brake.lifted")
METHOD = "shop.v1.Orders/IssueRefund"


# --- brakes ----------------------------------------------------------------------------------------------
async def test_has_no_brake_in_force_at_first(store: Store) -> None:
    assert list(await store.brakes()) == []


@pytest.mark.parametrize("kind", BrakeKind)
async def test_keeps_a_brake_of_each_kind_over_a_restart(place: StorePlace, kind: BrakeKind) -> None:
    brake = make_brake(kind=kind, tenant="" if kind is BrakeKind.ALL else "acme")
    assert await place.open().set_brake(brake, SET) == brake
    assert list(await place.open().brakes()) == [brake]


async def test_lists_brakes_of_every_tenant_oldest_first(store: Store) -> None:
    newer, older = make_brake("b1", set_at=LATER), make_brake("b2", tenant="other")
    await store.set_brake(newer, SET)
    await store.set_brake(older, SET)
    assert list(await store.brakes()) == [older, newer]


async def test_leaves_the_brake_that_is_in_force(store: Store) -> None:
    brake = make_brake("b1")
    await store.set_brake(brake, SET)
    again = make_brake("b2", reason="another", set_by="spiffe://x/other", set_at=LATER)
    assert await store.set_brake(again, SET) == brake
    assert list(await store.brakes()) == [brake]


async def test_replaces_the_brake_that_is_named_and_no_other(place: StorePlace) -> None:
    older, other = make_brake("b1"), make_brake("b2", tenant="other")
    newer = make_brake("b3", set_by="spiffe://x/other", set_at=LATER)
    store = place.open()
    await store.set_brake(older, SET)
    await store.set_brake(other, SET)
    assert await store.set_brake(newer, SET, "b9") == older
    assert await store.set_brake(newer, SET, "b1") == newer
    assert [brake.brake_id for brake in await place.open().brakes()] == ["b2", "b3"]


async def test_records_each_order_to_brake_though_it_is_in_force_already(store: Store) -> None:
    await store.set_brake(make_brake("b1"), SET)
    await store.set_brake(make_brake("b2"), SET)
    assert len(await read_events(store, "brake.set")) == 2


@pytest.mark.parametrize(
    "other", [{"tenant": "other"}, {"value": "shop.v1.Orders"}, {"kind": BrakeKind.TOOL}], ids=str
)
async def test_tells_brakes_of_another_kind_tenant_or_value_apart(store: Store, other) -> None:
    brakes = [make_brake("b1"), make_brake("b2", **other)]
    for brake in brakes:
        await store.set_brake(brake, SET)
    await store.lift_brake("b1", LIFTED)
    assert list(await store.brakes()) == brakes[1:]


async def test_lifts_a_brake_and_lets_it_be_set_again(store: Store) -> None:
    await store.set_brake(make_brake("b1"), SET)
    await store.lift_brake("b1", LIFTED)
    assert list(await store.brakes()) == []
    again = make_brake("b2", set_at=LATER)
    assert await store.set_brake(again, SET) == again
    assert len(await read_events(store, "brake.lifted")) == 1


async def test_records_nothing_of_lifting_a_brake_that_is_not_there(store: Store) -> None:
    await store.set_brake(make_brake("b1"), SET)
    before = await read_audit(store)
    await store.lift_brake("b404", LIFTED)
    assert (await read_audit(store), len(await store.brakes())) == (before, 1)


async def test_refuses_a_brake_under_the_id_of_another(store: Store) -> None:
    await store.set_brake(make_brake("b1"), SET)
    with pytest.raises(StoreError):
        await store.set_brake(make_brake("b1", value="other"), SET)
    assert list(await store.brakes()) == [make_brake("b1")]


async def test_changes_no_brake_when_the_audit_cannot_be_written(store: Store) -> None:
    await store.set_brake(make_brake("b1"), SET)
    unwritable = replace(SET, details={"set": {1}})
    with pytest.raises(ValueError, match="audit event"):
        await store.set_brake(make_brake("b2", value="other"), unwritable)
    with pytest.raises(ValueError, match="audit event"):
        await store.lift_brake("b1", unwritable)
    assert list(await store.brakes()) == [make_brake("b1")]


async def test_keeps_brakes_marks_and_owed_leases_of_an_erased_tenant(store: Store) -> None:
    await store.set_brake(make_brake(), SET)
    call = await run(store, make_call("c1"), make_lease("l1"))
    await store.complete(replace(call, state=CallState.FAILED, marks=(Mark.STOPPED,)), event_of(call))
    await store.erase_tenant("acme", make_event())
    (live,) = await store.live_leases("acme")
    assert (live.lease.lease_id, live.call.marks) == ("l1", (Mark.STOPPED,))
    assert list(await store.brakes()) == [make_brake()]


# --- marks -----------------------------------------------------------------------------------------------
async def marks_of(store: Store, call_id: str = "c1") -> tuple[Mark, ...]:
    """Read a call's marks."""
    found = await store.get_call("acme", call_id)
    assert found is not None
    return found.marks


@pytest.mark.parametrize("mark", Mark)
async def test_keeps_a_mark_that_comes_with_the_end(store: Store, mark: Mark) -> None:
    ended = replace(await run(store, make_call("c1")), state=CallState.FAILED, marks=(mark,))
    await store.complete(ended, event_of(ended))
    assert await marks_of(store) == (mark,)


async def test_adds_the_marks_of_an_amendment_in_their_order(store: Store) -> None:
    call = await run(store, make_call("c1"))
    ended = replace(call, state=CallState.FAILED, marks=(Mark.SESSION_LOST, Mark.SECRET_IN_LOG))
    await store.complete(ended, event_of(ended))
    await store.amend(replace(ended, marks=(Mark.STOPPED, Mark.SECRET_IN_RESULT, Mark.SESSION_LOST)))
    await store.amend(replace(ended, marks=()))
    every = (Mark.SECRET_IN_RESULT, Mark.SECRET_IN_LOG, Mark.SESSION_LOST, Mark.STOPPED)
    assert await marks_of(store) == every


@pytest.mark.parametrize("end", ["complete", "give_back"])
async def test_forgets_no_mark_when_the_call_ends(store: Store, end: str) -> None:
    call = await run(store, make_call("c1", marks=(Mark.STOPPED,)))
    ended = replace(call, state=CallState.FAILED, marks=(Mark.SECRET_IN_LOG,))
    await getattr(store, end)(ended, event_of(ended))
    assert await marks_of(store) == (Mark.SECRET_IN_LOG, Mark.STOPPED)


async def test_forgets_no_mark_when_a_call_is_adopted_and_resolved(place: StorePlace) -> None:
    call = await run(place.open(), make_call("c1", marks=(Mark.SESSION_LOST,)))
    store = place.open()
    (left,) = await store.unfinished()
    assert left.marks == (Mark.SESSION_LOST,)
    doubtful = replace(call, state=CallState.IN_DOUBT, marks=())
    await store.adopt(doubtful, event_of(call))
    await store.resolve(replace(doubtful, state=CallState.SUCCEEDED), event_of(call))
    (listed,) = (await store.list_calls("acme")).items
    assert listed.marks == (Mark.SESSION_LOST,)


# --- uses of grants --------------------------------------------------------------------------------------
async def test_counts_what_a_grant_allowed_by_environment_agent_and_method(store: Store) -> None:
    calls = [
        make_call(),
        make_call(started=LATER),
        make_call(started=LATER - timedelta(hours=1)),
        make_call(agent="other"),
        make_call(environment="staging"),
        make_call(grant_id="lookups", method="m"),
    ]
    for call in calls:
        await succeed(store, call)
    assert set(await store.grant_uses("acme")) == {
        GrantUse("refunds", "prod", "desk", METHOD, 3, LATER),
        GrantUse("refunds", "prod", "other", METHOD, 1, START),
        GrantUse("refunds", "staging", "desk", METHOD, 1, START),
        GrantUse("lookups", "prod", "desk", "m", 1, START),
    }


async def test_counts_what_was_reserved_whatever_became_of_it(place: StorePlace) -> None:
    store = place.open()
    call = await reserve(store, make_call())
    await store.give_back(replace(call, state=CallState.FAILED), event_of(call))
    await run(store, make_call())
    assert list(await place.open().grant_uses("acme")) == [
        GrantUse("refunds", "prod", "desk", METHOD, 2, START)
    ]


async def test_counts_no_use_of_what_was_not_reserved(store: Store) -> None:
    refused = make_call(state=CallState.REFUSED)
    await store.refuse(refused, event_of(refused))
    with pytest.raises(BudgetExhausted):
        await reserve(store, make_call(), make_charge(amount=3, limit=2))
    await reserve(store, make_call(grant_id=""))
    assert list(await store.grant_uses("acme")) == []
