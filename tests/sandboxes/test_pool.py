"""The warm pool: one call a sandbox, of its own kind, loaded before it comes; stock as demand wants it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sandboxes.outcome import SandboxUnavailable
from sandboxes.pool import COLD_IDLE_SECONDS, QUIET_SECONDS
from sandboxes.pool_watch import Why
from tests.parts.engine import TestLimits
from tests.sandboxes.yard import LOOKUP, RIVAL, TERMS, Yard, opened, settle, yard

__all__ = ["yard"]


async def test_makes_nothing_before_there_is_a_call(yard: Yard):
    await yard.pass_time(1.0)
    assert yard.driver.begun == 0


async def test_makes_a_cold_one_for_the_first_call(yard: Yard):
    sandbox = await yard.call()
    assert not sandbox.is_warm
    assert yard.notes.ages == [None]
    assert sandbox not in yard.driver.live


async def test_has_a_loaded_one_for_the_next_call(yard: Yard):
    assert await yard.fill() >= 1
    await yard.pass_time(5.0)
    sandbox = await yard.call()
    assert sandbox.is_warm
    assert yard.notes.ages == [None, pytest.approx(5.0, abs=1.0)]


async def test_uses_no_sandbox_twice(yard: Yard):
    used = [await yard.call() for _ in range(50)]
    assert len({sandbox.container_id for sandbox in used}) == 50
    assert len({sandbox.uid for sandbox in used}) == 50


@pytest.mark.parametrize(
    "other",
    [
        RIVAL,
        replace(LOOKUP, digest="d2"),
        replace(LOOKUP, image_id="sha256:" + "2" * 64),
        replace(LOOKUP, command=("python3", "-m", "other")),
        replace(LOOKUP, limits=TestLimits(memory_mib=97)),
        replace(LOOKUP, has_nest=True),
        replace(LOOKUP, terms="other"),
    ],
)
async def test_gives_no_call_a_sandbox_of_another_kind(yard: Yard, other: object):
    await yard.fill()
    waiting = yard.waiting()
    sandbox = await yard.call(other)  # type: ignore[arg-type]
    assert sandbox not in waiting
    assert yard.notes.ages[-1] is None


async def test_ends_what_a_call_took_and_did_not_use(yard: Yard):
    await yard.fill()
    place = yard.take()
    sandbox, _ = await place.sandbox()
    place.leave()
    place.leave()  # a second time does no harm
    await settle()
    assert sandbox.gone is not None
    assert sandbox not in yard.waiting()


async def test_takes_a_call_that_goes_away_out_of_the_queue(yard: Yard):
    yard.driver.gate.clear()
    place = yard.take()
    waiting = asyncio.create_task(place.sandbox())
    await settle()
    waiting.cancel()
    await settle()
    place.leave()
    yard.driver.gate.set()
    await settle()
    assert yard.idle() == 1  # what was begun for it waits for another one


async def test_lets_no_call_keep_what_came_as_it_went_away(yard: Yard):
    yard.driver.gate.clear()
    place = yard.take()
    yard.driver.gate.set()
    await settle()
    place.leave()
    await settle()
    assert not [one for one in yard.driver.live if one not in yard.waiting()]


async def test_gives_a_call_what_is_being_made_as_stock(yard: Yard):
    await yard.call()
    yard.driver.gate.clear()
    await yard.pass_time(QUIET_SECONDS * 2)
    begun = yard.driver.begun
    place = yard.take()
    assert yard.driver.begun == begun
    yard.driver.gate.set()
    await place.sandbox()
    place.leave()


async def test_makes_no_more_at_once_than_there_are_makers(yard: Yard):
    yard.driver.gate.clear()
    calls = asyncio.gather(*(yard.call() for _ in range(6)))
    await settle()
    assert yard.driver.making == TERMS.makers
    yard.driver.gate.set()
    await calls
    await yard.pass_time(1.0)
    assert yard.driver.most_making == TERMS.makers


async def test_follows_demand_up_and_down(yard: Yard):
    yard.make_slowly(0.1)
    for _ in range(30):
        await yard.call()
        await yard.pass_time(0.2)
    many = yard.idle()
    assert many > 1
    for _ in range(60):
        await yard.pass_time(1.0)
    assert 1 <= yard.idle() < many
    for _ in range(60):
        await yard.pass_time(1.0)
    assert yard.idle() == 0
    await yard.pass_time(1.0)
    assert not yard.driver.live
    assert LOOKUP not in yard.pool.shelves


async def test_waits_for_a_quiet_moment_to_fill_up(yard: Yard):
    yard.make_slowly(0.1)
    for _ in range(20):
        await yard.call()
        await yard.pass_time(0.5)
    before, wanted = yard.idle(), yard.pool.wants()[LOOKUP]
    assert before >= wanted > 1
    begun = yard.driver.begun
    await yard.call()
    assert yard.driver.begun == begun
    await asyncio.sleep(QUIET_SECONDS * 2)  # the pool wakes by itself
    await yard.pass_time(QUIET_SECONDS * 2)
    assert yard.idle() >= wanted


async def test_never_has_more_waiting_than_it_may():
    async with opened(replace(TERMS, max_idle=3)) as yard:
        yard.make_slowly(0.1)
        for number in range(40):
            await yard.call(LOOKUP if number % 2 else RIVAL)
            assert yard.idle(LOOKUP) + yard.idle(RIVAL) <= 3
            await yard.pass_time(0.1)
        assert {yard.idle(LOOKUP), yard.idle(RIVAL)} == {1, 2}


async def test_keeps_nothing_when_it_is_off():
    async with opened(replace(TERMS, max_idle=0)) as yard:
        await asyncio.gather(*(yard.call() for _ in range(5)))
        await yard.pass_time(1.0)
        assert not yard.driver.live
        assert yard.notes.ages == [None] * 5


async def test_replaces_what_comes_near_its_idle_age(yard: Yard):
    await yard.fill()
    old = yard.waiting()
    await yard.pass_time(TERMS.idle_seconds * 0.5)
    assert yard.waiting() == old
    yard.pool.shelves[LOOKUP].demand.note(yard.now)
    await yard.pass_time(TERMS.idle_seconds * 0.31)
    assert Why.RETIRED in yard.notes.ends
    assert yard.idle() >= 1
    assert not set(old) & set(yard.waiting())


async def test_tells_a_sandbox_how_long_it_may_wait():
    async with opened(replace(TERMS, idle_seconds=2.0)) as yard:
        cold = await yard.call()
        await yard.pass_time(QUIET_SECONDS * 2)
        assert cold.spec.idle_seconds == COLD_IDLE_SECONDS
        assert {one.spec.idle_seconds for one in yard.waiting()} == {2.0}


async def test_never_hands_out_one_that_died(yard: Yard):
    await yard.fill()
    for dead in yard.waiting():
        dead.is_alive = False
    sandbox = await yard.call()
    assert sandbox.is_warm is False
    assert Why.DIED in yard.notes.ends


async def test_replaces_one_that_died_after_it_was_taken(yard: Yard):
    await yard.fill()
    place = yard.take()
    yard.driver.live.copy().pop()
    for one in yard.driver.live:
        one.is_alive = False
    sandbox, _ = await place.sandbox()
    assert sandbox.is_alive
    place.leave()


async def test_finds_one_that_died_while_it_waited(yard: Yard):
    await yard.fill()
    dead = yard.waiting()[0]
    dead.is_alive = False
    await yard.pass_time(1.0)
    assert yard.notes.ends == [Why.DIED]
    assert dead not in yard.driver.live


async def test_kills_and_flags_one_that_is_busy_without_a_call(yard: Yard):
    await yard.fill()
    busy = yard.waiting()[0]
    await yard.pass_time(1.0)
    busy.cpu = 0.5
    await yard.pass_time(4.0)
    assert yard.notes.flags == [pytest.approx(0.1, rel=0.05)]
    assert yard.notes.ends == [Why.BUSY]
    assert busy not in yard.driver.live


async def test_flags_none_for_what_it_used_to_load(yard: Yard):
    await yard.fill()
    for one in yard.waiting():
        one.cpu += 0.05  # in 5 s: one percent
    await yard.pass_time(5.0)
    assert (yard.notes.flags, yard.notes.ends) == ([], [])


async def test_ends_what_is_not_wanted_any_more(yard: Yard):
    await yard.fill()
    await yard.fill(RIVAL)
    yard.pool.is_wanted = lambda kind: kind.tenant != "shop"
    await yard.pass_time(0.0)
    assert (yard.idle(LOOKUP), yard.idle(RIVAL) > 0) == (0, True)
    assert set(yard.notes.ends) == {Why.NOT_WANTED}
    await yard.pass_time(5.0)
    assert yard.idle(LOOKUP) == 0


async def test_makes_no_stock_of_what_stopped_to_be_wanted_meanwhile(yard: Yard):
    await yard.call()
    yard.driver.gate.clear()
    await yard.pass_time(QUIET_SECONDS * 2)
    assert yard.driver.making
    yard.pool.is_wanted = lambda kind: False
    yard.driver.gate.set()
    await settle()
    assert not yard.driver.live


async def test_throws_away_what_lost_its_way_out(yard: Yard):
    kind = replace(LOOKUP, has_nest=True)
    await yard.fill(kind)
    waiting = yard.waiting(kind)
    for nest in yard.nests:
        nest.lost.set()
    sandbox = await yard.call(kind)
    assert sandbox not in waiting
    assert set(yard.notes.ends) == {Why.EGRESS_LOST}
    assert not set(waiting) & yard.driver.live


async def test_gives_a_sandbox_with_its_nest(yard: Yard):
    kind = replace(LOOKUP, has_nest=True)
    await yard.fill(kind)
    place = yard.take(kind)
    sandbox, nest = await place.sandbox()
    assert nest is not None
    assert (nest.uid, nest.folder) == (sandbox.uid, yard.driver.made[1].spec.socket_dir)
    place.leave()


async def test_tells_a_waiting_call_why_none_can_be_made(yard: Yard):
    yard.driver.make_failures = 1
    with pytest.raises(SandboxUnavailable, match="the engine is gone"):
        await yard.call()
    assert yard.notes.causes == ["the engine is gone"]
    await yard.call()


async def test_makes_stock_more_slowly_each_time_that_it_cannot_be_loaded(yard: Yard):
    yard.driver.load_failures = 1000
    await yard.call()
    begun = []
    for _ in range(90):
        await yard.pass_time(1.0)
        begun.append(yard.driver.begun)
    assert begun[-1] <= 12  # at 1, 2, 4, 8, 16, 32 s by two makers at most
    assert begun[-1] - begun[-20] <= 2


async def test_still_gives_calls_a_cold_one_while_stock_cannot_be_loaded(yard: Yard):
    yard.driver.load_failures = 1000
    for _ in range(5):
        assert not (await yard.call()).is_warm
        await yard.pass_time(1.0)


async def test_goes_on_at_full_speed_once_it_can_be_loaded(yard: Yard):
    yard.driver.load_failures = 2
    await yard.call()
    for _ in range(10):
        await yard.pass_time(1.0)
    assert yard.idle() >= 1
    assert yard.pool.shelves[LOOKUP].failures == 0


async def test_ends_everything_when_it_is_closed(yard: Yard):
    await yard.fill()
    place = yard.take()
    sandbox, _ = await place.sandbox()
    yard.driver.gate.clear()
    other = yard.take(RIVAL)
    waiting = asyncio.create_task(other.sandbox())
    await settle()
    await yard.pool.close()
    with pytest.raises(SandboxUnavailable, match="shutting down"):
        await waiting
    assert sandbox.gone is not None
    with pytest.raises(SandboxUnavailable, match="closed"):
        yard.take()
    place.leave()
    other.leave()


async def test_ends_one_whose_task_had_not_begun(yard: Yard):
    yard.take()
    await yard.pool.close()
    assert yard.driver.begun == 0
