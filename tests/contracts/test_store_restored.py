"""The store's contract after a restore: a key that may have been used since the backup runs nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.model import CallState
from broker.store.protocol import Store
from tests.contracts.stores import (
    START,
    SetClock,
    StorePlace,
    event_of,
    make_call,
    reserve,
    scope_of,
    succeed,
)

KEYED = make_call("c1", key="k")
SCOPE = scope_of(KEYED)
AFTER = START + timedelta(microseconds=1)
GRACE_SECONDS = 100


async def give_back(store: Store) -> None:
    call = await reserve(store, KEYED)
    await store.give_back(replace(call, state=CallState.FAILED), event_of(call))


async def live(store: Store, clock: SetClock, seconds: float) -> None:
    for _ in range(10):
        clock.advance(seconds / 10)
        await store.beat()


@pytest.fixture
def restored(place: StorePlace) -> Store:
    """A store that was restored at the START."""
    place.open()
    place.mark_restored(GRACE_SECONDS)
    return place.open()


async def test_refuses_a_key_that_it_does_not_know(restored: Store) -> None:
    claim = await restored.claim(SCOPE, "f1", "c1")
    assert (claim.won, claim.restored, claim.earlier) == (False, True, None)


@pytest.mark.parametrize("new_since", [START, START - timedelta(days=1), AFTER.replace(tzinfo=None)])
async def test_refuses_a_key_that_may_be_older_than_the_restore(restored: Store, new_since) -> None:
    assert (await restored.claim(SCOPE, "f1", "c1", new_since)).restored


async def test_gives_a_key_that_is_younger_than_the_restore(restored: Store) -> None:
    assert (await restored.claim(SCOPE, "f1", "c1", AFTER)).won


async def test_replays_what_the_backup_knows(place: StorePlace) -> None:
    ended = await succeed(place.open(), KEYED)
    place.mark_restored(GRACE_SECONDS)
    claim = await place.open().claim(SCOPE, "f1", "c2")
    assert (claim.earlier, claim.restored) == (ended, False)


@pytest.mark.parametrize("new_since", [None, AFTER])
async def test_refuses_a_key_that_was_free_in_the_backup(place: StorePlace, new_since) -> None:
    await give_back(place.open())
    place.mark_restored(GRACE_SECONDS)
    claim = await place.open().claim(SCOPE, "f1", "c2", new_since)
    assert (claim.won, claim.restored) == (False, True)


async def test_gives_again_what_was_given_back_after_the_restore(restored: Store) -> None:
    await restored.claim(SCOPE, "f1", "c1", AFTER)
    await restored.reserve(KEYED, SCOPE, (), event_of(KEYED))
    await restored.give_back(replace(KEYED, state=CallState.FAILED), event_of(KEYED))
    claim = await restored.claim(SCOPE, "f1", "c2")
    assert (claim.won, claim.attempt) == (True, 2)


async def test_gives_unknown_keys_once_the_time_of_grace_was_lived(restored: Store, clock: SetClock) -> None:
    await live(restored, clock, GRACE_SECONDS - 1)
    assert (await restored.claim(SCOPE, "f1", "c1")).restored
    await live(restored, clock, 1.1)
    assert (await restored.claim(SCOPE, "f1", "c1")).won


async def test_does_not_end_the_time_of_grace_because_the_clock_jumped(
    restored: Store, clock: SetClock
) -> None:
    clock.jump(3 * 86_400)
    await restored.beat()
    assert (await restored.claim(SCOPE, "f1", "c1")).restored


async def test_goes_on_with_the_time_of_grace_after_a_restart(
    restored: Store, place: StorePlace, clock: SetClock
) -> None:
    await live(restored, clock, 60)
    again = place.open()
    assert (await again.claim(SCOPE, "f1", "c1")).restored
    await live(again, clock, 41)
    assert (await again.claim(SCOPE, "f1", "c1")).won
