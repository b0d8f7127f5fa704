"""The store's contract: who may begin an epoch when, whatever the clocks say, and what clocks do to keys."""

from __future__ import annotations

import pytest

from broker.model import CallState
from broker.store.epochs import Watch
from broker.store.records import BudgetExhausted, StaleEpoch, StoreBusy
from tests.contracts.stores import (
    START,
    SetClock,
    StorePlace,
    make_call,
    make_charge,
    make_event,
    reserve,
    scope_of,
    succeed,
)

DAYS = 3 * 86_400
EPOCH_SECONDS = 15


# --- who may begin ---------------------------------------------------------------------------------------
async def test_refuses_a_second_process_and_says_how_long(place: StorePlace, clock: SetClock) -> None:
    first = place.open()
    clock.advance(5)
    with pytest.raises(StoreBusy, match="expires in 10.0 s") as caught:
        place.open_free()
    assert caught.value.remaining_seconds == 10
    await first.append_audit(make_event())


async def test_begins_at_once_after_a_clean_close(place: StorePlace) -> None:
    first = place.open()
    await first.close()
    assert place.open_free().epoch.number == first.epoch.number + 1


async def test_takes_over_what_expired(place: StorePlace, clock: SetClock) -> None:
    first = place.open()
    clock.advance(EPOCH_SECONDS)
    second = place.open_free()
    with pytest.raises(StaleEpoch, match="taken it over"):
        await first.beat()
    await second.beat()


async def test_lives_longer_with_each_beat(place: StorePlace, clock: SetClock) -> None:
    first = place.open()
    for _ in range(4):
        clock.advance(10)
        await first.beat()
    with pytest.raises(StoreBusy):
        place.open_free()


async def test_goes_on_past_its_expiry_while_nobody_takes_over(place: StorePlace, clock: SetClock) -> None:
    store = place.open()
    clock.advance(DAYS)
    await store.append_audit(make_event())
    await store.beat()


async def test_does_not_end_the_epoch_of_who_took_over(place: StorePlace) -> None:
    older, newer = place.open(), place.open()
    await older.close()
    with pytest.raises(StoreBusy):
        place.open_free()
    await newer.beat()


# --- clocks that jump ------------------------------------------------------------------------------------
async def test_has_one_writer_after_a_clock_jumped_ahead(place: StorePlace, clock: SetClock) -> None:
    first = place.open()
    clock.jump(DAYS)
    second = place.open_free()
    with pytest.raises(StaleEpoch):
        await first.append_audit(make_event())
    await second.append_audit(make_event())


async def test_takes_over_though_the_clock_jumped_back(place: StorePlace, clock: SetClock) -> None:
    place.open()
    clock.jump(-DAYS)
    watch = Watch(clock.monotonic)
    with pytest.raises(StoreBusy) as caught:
        place.open_free(watch)
    assert caught.value.remaining_seconds == EPOCH_SECONDS
    clock.lived += EPOCH_SECONDS
    place.open_free(watch)


async def test_does_not_take_over_who_beats_though_the_clock_jumped_back(
    place: StorePlace, clock: SetClock
) -> None:
    first = place.open()
    clock.jump(-DAYS)
    watch = Watch(clock.monotonic)
    for _ in range(3):
        with pytest.raises(StoreBusy):
            place.open_free(watch)
        clock.advance(10)
        await first.beat()


@pytest.mark.parametrize("seconds", [-DAYS, DAYS, 30 * DAYS])
async def test_gives_no_key_twice_because_a_clock_jumped(
    place: StorePlace, clock: SetClock, seconds: float
) -> None:
    store = place.open()
    call = await succeed(store, make_call("c1", key="k"))
    clock.jump(seconds)
    claim = await store.claim(scope_of(call), "f1", "c2")
    assert not claim.won
    clock.jump(-seconds)
    assert (await store.claim(scope_of(call), "f1", "c2")).earlier == call


async def test_counts_charges_of_a_future_that_was_taken_back(place: StorePlace, clock: SetClock) -> None:
    store = place.open()
    clock.jump(DAYS)
    await reserve(store, make_call(), make_charge(limit=1))
    clock.jump(-DAYS)
    with pytest.raises(BudgetExhausted):
        await reserve(store, make_call(), make_charge(limit=1))


async def test_lets_an_older_window_go_when_the_clock_jumps_ahead(place: StorePlace, clock: SetClock) -> None:
    store = place.open()
    await reserve(store, make_call(), make_charge(limit=1))
    clock.jump(DAYS)
    await reserve(store, make_call(), make_charge(limit=1))


async def test_finds_what_was_running_whatever_the_clock_says(place: StorePlace, clock: SetClock) -> None:
    await reserve(place.open(), make_call("c1", started=START))
    clock.jump(-DAYS)
    (left,) = await place.open().unfinished()
    assert (left.call_id, left.state) == ("c1", CallState.RESERVED)
