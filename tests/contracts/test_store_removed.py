"""The store's contract: what cleaning took out of a result stays with its call."""

from __future__ import annotations

from dataclasses import replace

from broker.model import CallRecord, CallState
from broker.store.protocol import Store
from tests.contracts.stores import event_of, make_call, make_event, run

LINES = ("page.body: 3 hidden, 2 bidirectional", "notes[]: 1 tag")


async def end(store: Store) -> CallRecord:
    """End a call whose result lost something."""
    call = await run(store, make_call("c1"))
    ended = replace(call, state=CallState.SUCCEEDED, removed=LINES)
    await store.complete(ended, event_of(ended))
    return ended


async def removed_of(store: Store) -> tuple[str, ...]:
    """Read what a call's result lost."""
    found = await store.get_call("acme", "c1")
    assert found is not None
    return found.removed


async def test_keeps_what_was_removed(store: Store) -> None:
    await end(store)

    assert await removed_of(store) == LINES


async def test_has_nothing_removed_of_a_call_that_lost_nothing(store: Store) -> None:
    await run(store, make_call("c1"))

    assert await removed_of(store) == ()


async def test_keeps_it_when_the_call_is_amended(store: Store) -> None:
    ended = await end(store)

    await store.amend(replace(ended, removed=()))

    assert await removed_of(store) == LINES


async def test_keeps_it_of_an_erased_tenant_because_it_is_no_content(store: Store) -> None:
    await end(store)

    await store.erase_tenant("acme", make_event())

    assert await removed_of(store) == LINES
