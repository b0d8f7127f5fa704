"""The store's contract: what a call connected to stays with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.model import CallRecord, CallState
from broker.store.protocol import Store
from sandboxes.egress.records import MAX_KEPT, ConnectionRecord, Outcome, lost_record
from tests.contracts.stores import START, StorePlace, event_of, make_call, make_event, run

SEARCH = ConnectionRecord(
    target="github",
    address="192.0.2.7:443",
    opened=START,
    closed=START + timedelta(milliseconds=3, microseconds=1),
    bytes_up=200,
    bytes_down=2**40,
    outcome=Outcome.ENDED,
    method="GET",
    path_template="/search/issues",
    status=200,
    rule="GET /search/issues?q={text}",
    grant_rule="GET /search/issues?*",
    injected="github",
    stripped=1,
    request_sha256="a" * 64,
    response_sha256="b" * 64,
)
REFUSED = ConnectionRecord(
    "", "", START + timedelta(seconds=1), START + timedelta(seconds=1), 0, 0, Outcome.REFUSED, "no rule"
)


async def end(store: Store, *connections: ConnectionRecord, dropped: int = 0) -> CallRecord:
    """End a call that connected to something."""
    call = await run(store, make_call("c1"))
    ended = replace(call, state=CallState.SUCCEEDED, connections=connections, connections_dropped=dropped)
    await store.complete(ended, event_of(ended))
    return ended


async def read(store: Store) -> CallRecord:
    found = await store.get_call("acme", "c1")
    assert found is not None
    return found


async def test_keeps_every_field_of_a_connection(store: Store) -> None:
    await end(store, SEARCH, REFUSED, dropped=3)

    found = await read(store)

    assert (found.connections, found.connections_dropped) == ((SEARCH, REFUSED), 3)


async def test_has_no_connections_of_a_call_that_made_none(store: Store) -> None:
    await end(store)

    found = await read(store)

    assert (found.connections, found.connections_dropped) == ((), 0)


async def test_puts_them_in_the_order_of_their_beginnings(store: Store) -> None:
    await end(store, REFUSED, SEARCH)

    assert (await read(store)).connections == (SEARCH, REFUSED)


async def test_keeps_the_first_ones_and_the_number_of_the_others(store: Store) -> None:
    many = [replace(REFUSED, opened=START + timedelta(seconds=one)) for one in range(MAX_KEPT + 5)]
    await end(store, *many, dropped=2)

    found = await read(store)

    assert (found.connections, found.connections_dropped) == (tuple(many[:MAX_KEPT]), 7)


async def test_keeps_that_a_process_died_whatever_else_there_is(store: Store) -> None:
    lost = lost_record(START + timedelta(hours=1), "it died")
    await end(store, *[SEARCH] * (MAX_KEPT + 1), lost)

    found = await read(store)

    assert (found.connections[-1], found.connections_dropped) == (lost, 2)


async def test_ends_a_call_also_when_a_connection_cannot_be_written(store: Store) -> None:
    await end(store, replace(SEARCH, target="Two words"), REFUSED)

    found = await read(store)

    assert (found.connections, found.connections_dropped) == ((REFUSED,), 1)


async def test_lists_calls_without_their_connections(store: Store) -> None:
    await end(store, SEARCH, dropped=1)

    (listed,) = (await store.list_calls("acme")).items

    assert (listed.connections, listed.connections_dropped) == ((), 0)


async def test_keeps_them_when_the_call_is_amended(store: Store) -> None:
    ended = await end(store, SEARCH)

    await store.amend(replace(ended, connections=()))

    assert (await read(store)).connections == (SEARCH,)


async def test_keeps_them_when_a_doubt_is_resolved(store: Store) -> None:
    call = await run(store, make_call("c1"))
    doubtful = replace(call, state=CallState.IN_DOUBT, connections=(SEARCH,))
    await store.complete(doubtful, event_of(doubtful))

    resolved = replace(doubtful, state=CallState.FAILED, connections=())
    await store.resolve(resolved, event_of(resolved))

    assert (await read(store)).connections == (SEARCH,)


async def test_takes_over_with_an_adopted_call_that_they_are_not_known(place: StorePlace) -> None:
    await run(place.open(), make_call("c1"))
    store = place.open()
    (left,) = await store.unfinished()
    lost = lost_record(START, "the broker ended")

    adopted = replace(left, state=CallState.FAILED, connections=(lost,))
    await store.adopt(adopted, event_of(adopted))

    assert (await read(store)).connections == (lost,)


async def test_keeps_them_of_an_erased_tenant_without_the_digests_of_bodies(store: Store) -> None:
    await end(store, SEARCH, REFUSED, dropped=1)

    await store.erase_tenant("acme", make_event())

    found = await read(store)
    bare = replace(SEARCH, request_sha256="", response_sha256="")
    assert (found.connections, found.connections_dropped) == ((bare, REFUSED), 1)


@pytest.mark.parametrize("tenant", ["b", "acme2"])
async def test_takes_no_digest_of_another_tenant(store: Store, tenant: str) -> None:
    await end(store, SEARCH)

    await store.erase_tenant(tenant, make_event(tenant=tenant))

    assert (await read(store)).connections == (SEARCH,)
