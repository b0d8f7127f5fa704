"""What a hostile tenant cannot do to a pool: hold its makers, its memory, or what waits for others."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxes import pool as pool_module
from sandboxes.admission import NoPlace
from sandboxes.outcome import SandboxUnavailable
from sandboxes.pool_place import Place
from sandboxes.pool_size import idle_mib, share_out
from sandboxes.pool_stock import Kind
from tests.parts.engine import TestLimits
from tests.sandboxes.yard import LOOKUP, RIVAL, TERMS, Yard, opened, settle, yard

__all__ = ["yard"]


async def test_makes_nothing_for_who_is_gone(yard: Yard):
    yard.driver.gate.clear()
    for place in [yard.take() for _ in range(5)]:
        place.leave()
    shelf = yard.pool.shelves[LOOKUP]
    assert (len(shelf.waiting), shelf.uncovered) == (0, 0)


async def test_ends_nothing_that_waits_for_a_call_that_is_refused():
    async with opened(replace(TERMS, memory_mib=300, max_wait_seconds=0.0)) as yard:
        yard.make_slowly(0.5)
        for _ in range(6):
            await yard.call(RIVAL)
            await yard.pass_time(0.1)
        await yard.pass_time(1.0)
        waiting, ends = yard.idle(RIVAL), len(yard.notes.ends)
        yard.driver.gate.clear()
        places: list[Place] = []
        with pytest.raises(NoPlace, match="would be begun"):
            places.extend(yard.take(kind_of(number)) for number in range(9))
        assert (waiting >= 4, len(yard.notes.ends) - ends, len(places)) == (True, 0, 1)
        for place in places:
            place.leave()


def kind_of(number: int, tenant: str = "evil") -> Kind:
    return replace(LOOKUP, tenant=tenant, digest=f"e{number}")


async def test_lets_no_handler_that_hangs_as_it_loads_keep_a_maker(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pool_module, "LONGEST_MAKING_SECONDS", 0.02)
    hung = asyncio.Event()
    monkeypatch.setattr(yard.driver, "loading", hung.wait)
    for number in range(TERMS.makers + 1):
        await yard.call(kind_of(number))
    await yard.pass_time(1.0)
    place = yard.take(RIVAL)
    async with asyncio.timeout(5):
        await place.sandbox()
    place.leave()
    hung.set()


async def test_lets_no_slow_loading_say_how_long_others_wait(yard: Yard, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool_module, "LONGEST_MAKING_SECONDS", 0.01)
    before = yard.pool._make.seconds

    async def load() -> None:
        yard.now += 15.0
        await asyncio.sleep(0.05)

    await yard.call(kind_of(1))
    monkeypatch.setattr(yard.driver, "loading", load)
    await yard.pass_time(1.0)
    await asyncio.sleep(0.1)
    assert yard.idle(kind_of(1)) == 1
    assert yard.pool._make.seconds <= before


async def test_counts_the_memory_of_what_is_dying(yard: Yard, monkeypatch: pytest.MonkeyPatch):
    place = yard.take()
    sandbox, _ = await place.sandbox()
    dead = asyncio.Event()
    monkeypatch.setattr(sandbox, "end", dead.wait)
    place.leave()
    await settle()
    assert yard.pool._memory.running_mib == place.charge_mib
    dead.set()
    await settle()
    assert yard.pool._memory.running_mib == 0


async def test_keeps_no_more_waiting_than_it_may_when_callers_hang_up():
    async with opened(replace(TERMS, max_idle=2)) as yard:
        for number in range(20):
            yard.take(kind_of(number)).leave()
            await settle()
            assert len(yard.pool.idle) <= 2


async def test_keeps_no_more_waiting_than_memory_allows_when_callers_hang_up():
    async with opened(replace(TERMS, max_idle=50, memory_mib=150)) as yard:
        for number in range(20):
            yard.take(kind_of(number)).leave()
            await settle()
            assert yard.pool._idle_mib() <= 150


async def test_rests_longer_each_time_what_it_loads_misbehaves(yard: Yard):
    await yard.call()
    for _ in range(60):
        for sandbox in yard.waiting() if LOOKUP in yard.pool.shelves else []:
            sandbox.cpu += 1.0
        yard.pool.shelves[LOOKUP].demand.note(yard.now)  # it is called all the time
        await yard.pass_time(1.0)
    assert len(yard.notes.flags) <= 6  # not one every four seconds


def share_out_slowly(wanted: dict[Kind, int], most: int) -> dict[str, int]:
    """What each tenant gets when places are given one by one to who has the fewest."""
    left, held = dict(wanted), dict.fromkeys((kind.tenant for kind in wanted), 0)
    for _ in range(min(most, sum(wanted.values()))):
        kind = min((one for one in left if left[one]), key=lambda one: held[one.tenant])
        left[kind] -= 1
        held[kind.tenant] += 1
    return held


KINDS = st.dictionaries(
    st.builds(kind_of, st.integers(0, 9), st.sampled_from(["a", "b", "c"])), st.integers(0, 8), max_size=12
)


@given(KINDS, st.integers(0, 30))
def test_shares_places_out_fairly(wanted: dict[Kind, int], most: int):
    given_out = share_out(wanted, lambda kind: kind.tenant, most)
    assert all(given_out[kind] <= wanted[kind] for kind in wanted)
    held = dict.fromkeys((kind.tenant for kind in wanted), 0)
    for kind, count in given_out.items():
        held[kind.tenant] += count
    slowly = share_out_slowly(wanted, most)
    assert sorted(held.values()) == sorted(slowly.values())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "leave", "wait", "hang up", "fail", "gate", "time", "kill", "lose"]),
        st.integers(0, 5),
    ),
    max_size=40,
)


class Life:
    """Does at random what calls, callers and engines do."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.places: list[Place] = []
        self.waits: list[asyncio.Task[object]] = []

    async def do(self, step: str, number: int) -> None:
        getattr(self, step.replace(" ", "_"))(number)
        if number % 2:
            await settle()
        pool = self.yard.pool
        # What is being made was begun while there was room, and is few.
        made = sum(len(shelf.idle) * pool._charge(kind, idle_mib) for kind, shelf in pool.shelves.items())
        assert 0 <= pool._memory.running_mib <= pool.terms.memory_mib
        assert made + pool._memory.running_mib <= pool.terms.memory_mib
        assert len(pool.idle) <= pool.terms.max_idle

    def take(self, number: int) -> None:
        limits = TestLimits(memory_mib=64 + 32 * (number % 3))
        kind = replace(kind_of(number, "ab"[number % 2]), limits=limits, has_nest=number > 3)
        with contextlib.suppress(NoPlace):
            self.places.append(self.yard.take(kind))

    def leave(self, number: int) -> None:
        for place in self.places[number : number + 1]:
            place.leave()

    def wait(self, number: int) -> None:
        for place in self.places[number : number + 1]:
            self.waits.append(asyncio.ensure_future(place.sandbox()))

    def hang_up(self, number: int) -> None:
        for wait in self.waits[number : number + 1]:
            wait.cancel()

    def fail(self, number: int) -> None:
        self.yard.driver.make_failures, self.yard.driver.load_failures = number % 2, number // 2

    def gate(self, number: int) -> None:
        (self.yard.driver.gate.set if number % 2 else self.yard.driver.gate.clear)()

    def time(self, number: int) -> None:
        self.yard.now += number * 3.0
        self.yard._review.review()

    def kill(self, number: int) -> None:
        for sandbox in list(self.yard.driver.live)[:number]:
            sandbox.is_alive = False

    def lose(self, number: int) -> None:
        for nest in self.yard.nests[:number]:
            nest.lost.set()


async def live(steps: list[tuple[str, int]]) -> None:
    async with opened(replace(TERMS, max_idle=4, memory_mib=500)) as yard:
        life = Life(yard)
        for step, number in steps:
            await life.do(step, number)
        for place in life.places:
            place.leave()
        yard.driver.gate.set()
        for wait in life.waits:
            wait.cancel()
        await asyncio.gather(*life.waits, return_exceptions=True)
        await settle()
        assert yard.pool._memory.running_mib == 0
        assert not yard.pool._memory._running
        assert all(not shelf.waiting for shelf in yard.pool.shelves.values())
    assert yard.pool._making == 0
    assert all(shelf.making == 0 for shelf in yard.pool.shelves.values())


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_charges_nothing_once_every_call_has_left(steps: list[tuple[str, int]]):
    asyncio.run(live(steps))


async def test_tells_a_call_that_came_too_late(yard: Yard):
    await yard.pool.close()
    with pytest.raises(SandboxUnavailable, match="closed"):
        yard.take()
