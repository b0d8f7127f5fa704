"""Who gets a place: at once or not at all, fairly by tenant, within what the host's memory holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest

from sandboxes.admission import NoPlace, find_wait
from sandboxes.outcome import SandboxUnavailable
from sandboxes.pool_place import Place
from sandboxes.pool_size import idle_mib, running_mib
from sandboxes.pool_stock import Kind
from sandboxes.pool_watch import Why
from tests.parts.engine import TestLimits
from tests.sandboxes.yard import LOOKUP, RIVAL, TERMS, Yard, opened, settle, yard

__all__ = ["yard"]

RUNNING = running_mib(LOOKUP.limits.memory_mib, 4)
WAITING = idle_mib(LOOKUP.limits.memory_mib, 4)


def take_many(yard: Yard, kind: Kind, count: int) -> tuple[list[Place], int]:
    """Let calls come all at once; returns the places of those that got one, and how many got none."""
    places: list[Place] = []
    refused = 0
    for _ in range(count):
        try:
            places.append(yard.take(kind))
        except NoPlace:
            refused += 1
    return places, refused


def leave_all(places: Iterable[Place]) -> None:
    for place in places:
        place.leave()


async def make_busy(yard: Yard, seconds: float = 0.2) -> None:
    """Let it learn how long a making takes, then hold all makings up."""
    yard.make_slowly(seconds)
    await yard.call()
    yard.pool.is_wanted = lambda _kind: False
    await yard.pass_time(10.0)
    yard.driver.gate.clear()


async def test_refuses_at_once_what_would_wait_too_long(yard: Yard):
    await make_busy(yard)
    places, refused = take_many(yard, LOOKUP, 30)
    # Two makers, 0.2 s each: about ten a second can be begun within the one second that a call may wait.
    assert 10 <= len(places) <= 13
    assert refused == 30 - len(places)
    leave_all(places)


async def test_says_when_asking_again_can_help(yard: Yard):
    await make_busy(yard)
    places, _ = take_many(yard, LOOKUP, 30)
    with pytest.raises(NoPlace, match=r"would be begun in 1\.\d s only") as error:
        yard.take()
    assert TERMS.max_wait_seconds < error.value.retry_after_seconds < 2.0
    assert yard.notes.refusals[-1] == LOOKUP
    leave_all(places)


async def test_lets_no_call_wait_longer_than_its_own_patience(yard: Yard):
    await make_busy(yard)
    places, _ = take_many(yard, LOOKUP, 5)
    with pytest.raises(NoPlace):
        yard.take(patience=0.1)
    leave_all(places)


async def test_never_refuses_while_a_maker_has_nothing_to_do(yard: Yard):
    await make_busy(yard, seconds=30.0)
    places, refused = take_many(yard, LOOKUP, 3)
    assert (len(places), refused) == (TERMS.makers, 1)
    leave_all(places)


async def test_takes_another_tenants_call_while_one_floods(yard: Yard):
    await make_busy(yard)
    flood, refused = take_many(yard, LOOKUP, 50)
    assert refused
    places, none = take_many(yard, RIVAL, 3)
    assert (len(places), none) == (3, 0)
    leave_all(flood + places)


async def test_serves_tenants_in_turn(yard: Yard):
    await make_busy(yard)
    flood, _ = take_many(yard, LOOKUP, 50)
    served: list[str] = []

    async def wait(place: Place, tenant: str) -> None:
        await place.sandbox()
        served.append(tenant)

    rivals = [yard.take(RIVAL) for _ in range(3)]
    tasks = [asyncio.create_task(wait(place, "shop")) for place in flood]
    tasks += [asyncio.create_task(wait(place, "rival")) for place in rivals]
    yard.driver.gate.set()
    await asyncio.gather(*tasks)
    # Two of the flood were being made when the others came; from then on every second one is the rival's.
    assert [number for number, tenant in enumerate(served) if tenant == "rival"][-1] <= 8
    leave_all(flood + rivals)


async def test_fills_up_for_tenants_in_turn(yard: Yard):
    yard.make_slowly(0.1)
    for _ in range(20):
        await yard.call(LOOKUP)
        await yard.pass_time(0.1)
    await yard.call(RIVAL)
    await yard.pass_time(1.0)
    assert yard.idle(RIVAL) >= 1


async def test_starves_nobodys_stock_while_another_tenant_floods(yard: Yard):
    yard.make_slowly(0.05)
    await yard.fill(RIVAL)
    flood: list[asyncio.Task[object]] = []
    found: list[bool] = []
    for _ in range(10):
        flood += [asyncio.create_task(yard.call(LOOKUP)) for _ in range(8)]
        await yard.pass_time(0.04, review=False)
        found.append((await yard.call(RIVAL)).is_warm)
        flood += [asyncio.create_task(yard.call(LOOKUP)) for _ in range(8)]
        await yard.pass_time(0.04, review=False)
    await asyncio.gather(*flood, return_exceptions=True)
    assert found.count(True) >= 9


async def test_makes_for_waiting_calls_before_it_makes_their_tenants_stock(yard: Yard):
    await yard.fill()
    yard.driver.gate.clear()
    await yard.pass_time(1.0)
    places: list[Place] = []
    while yard.idle():
        places.append(yard.take())
    await yard.pass_time(1.0)
    more, _ = take_many(yard, LOOKUP, 2)
    yard.driver.gate.set()
    await settle()
    assert [made.is_warm for made in yard.driver.made[-3:]].count(False) >= 2
    leave_all(places + more)


async def test_refuses_what_the_memory_does_not_hold():
    async with opened(replace(TERMS, max_idle=0, memory_mib=3 * RUNNING + 10)) as yard:
        places, refused = take_many(yard, LOOKUP, 5)
        assert (len(places), refused) == (3, 2)
        places.pop().leave()
        places.append(yard.take())
        with pytest.raises(NoPlace, match="all the memory that they may have"):
            yard.take()
        leave_all(places)


async def test_keeps_no_more_waiting_than_the_memory_holds():
    async with opened(replace(TERMS, memory_mib=RUNNING + 2 * WAITING + 10)) as yard:
        yard.make_slowly(0.2)
        for _ in range(20):
            await yard.call()
            await yard.pass_time(0.2)
            assert yard.idle() <= 2 + RUNNING // WAITING


async def test_lets_what_waits_give_way_to_what_runs():
    async with opened(replace(TERMS, memory_mib=3 * RUNNING + 5)) as yard:
        yard.make_slowly(0.2)
        for _ in range(20):
            await yard.call()
            await yard.pass_time(0.2)
        assert yard.idle(LOOKUP) > 1
        places, refused = take_many(yard, RIVAL, 3)
        assert (len(places), refused) == (2, 1)
        assert Why.SURPLUS in yard.notes.ends
        leave_all(places)


async def test_leaves_another_tenant_room_to_begin():
    async with opened(replace(TERMS, max_idle=0, memory_mib=8 * RUNNING)) as yard:
        await yard.call(RIVAL)
        flood, refused = take_many(yard, LOOKUP, 20)
        assert (len(flood), refused) == (6, 14)
        places, none = take_many(yard, RIVAL, 2)
        assert none == 0
        leave_all(flood + places)


async def test_lets_a_tenant_that_is_alone_have_all_the_memory():
    async with opened(replace(TERMS, max_idle=0, memory_mib=8 * RUNNING)) as yard:
        places, _ = take_many(yard, LOOKUP, 20)
        assert len(places) == 8
        leave_all(places)


async def test_charges_a_larger_sandbox_more():
    async with opened(replace(TERMS, max_idle=0, memory_mib=4 * RUNNING)) as yard:
        large = replace(LOOKUP, limits=TestLimits(memory_mib=3 * 96))
        places, refused = take_many(yard, large, 2)
        assert (len(places), refused) == (1, 1)
        leave_all(places)


async def test_puts_a_warm_one_back_that_the_memory_does_not_let_run():
    async with opened(replace(TERMS, memory_mib=RUNNING + WAITING + 5)) as yard:
        assert await yard.fill()
        running = yard.take(RIVAL)
        assert yard.idle()
        with pytest.raises(NoPlace):
            yard.take(LOOKUP)
        assert yard.idle()
        running.leave()
        assert (await yard.call(LOOKUP)).is_warm


async def test_refuses_a_class_that_no_driver_serves(yard: Yard):
    with pytest.raises(SandboxUnavailable, match='no driver serves the class "strong"'):
        yard.take(replace(LOOKUP, isolation="strong"))
    assert yard.driver.begun == 0


@pytest.mark.parametrize(
    ("waiting", "free", "expected"),
    [
        ({}, 2, 0.0),
        ({}, 0, 0.05),
        ({"shop": 4}, 0, 0.45),
        ({"rival": 40}, 0, 0.15),
        ({"shop": 2, "rival": 40}, 0, 0.55),
        ({"shop": 2, "rival": 1, "third": 1}, 0, 0.45),
        ({"shop": 1}, 2, 0.0),
    ],
)
def test_tells_the_wait_from_the_order_of_service(waiting: dict[str, int], free: int, expected: float):
    assert find_wait("shop", waiting, free, 2, 0.2) == pytest.approx(expected)
