"""Whatever stalls, a call is answered when its time is up; what it opened is taken away behind the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from broker.errors import Failed, Refused
from broker.model import CallState
from broker.trail import Trail
from sandboxes.outcome import RawOutcome
from tests.broker.workshop import EMPTY, Workshop


@pytest.fixture
async def shop() -> Workshop:
    return await Workshop.open()


class Stall:
    """Something that does not go on until the test says so."""

    def __init__(self) -> None:
        self.mended = asyncio.Event()

    async def wait(self) -> None:
        await self.mended.wait()

    async def run_tool(self, _start: Any) -> RawOutcome:
        await self.mended.wait()
        return EMPTY


def at(stage: str) -> Callable[[Trail], bool]:
    return lambda trail: bool(trail.stages) and trail.stages[-1].stage == stage


async def settle_down(shop: Workshop) -> None:
    async with asyncio.timeout(5):
        while not shop.is_clean():
            await asyncio.sleep(0)


async def begin_late(shop: Workshop, request: Any, stage: Callable[[Trail], bool]) -> Awaitable[Any]:
    """Start a call whose time is up when it gets to a stage."""
    task, trail = await shop.begin(request, stage)
    trail.answer_by(time.monotonic())
    return task


async def test_stops_a_read_whose_credential_does_not_come(shop: Workshop):
    shop.vault.minting = Stall().wait
    with pytest.raises(Failed) as failure:
        await (await begin_late(shop, shop.lookup(), at("mint")))
    assert failure.value.reason_name == "DEADLINE_EXCEEDED"
    await settle_down(shop)
    assert shop.runs == 0


async def test_gives_the_key_of_a_write_back_that_did_not_begin(shop: Workshop):
    stall = Stall()
    shop.vault.minting = stall.wait
    with pytest.raises(Failed) as failure:
        await (await begin_late(shop, shop.draft(), at("mint")))
    assert failure.value.reason_name == "DEADLINE_EXCEEDED"
    stall.mended.set()
    await settle_down(shop)
    assert not (await shop.path.answer(shop.draft())).replayed
    assert shop.runs == 1


async def test_does_not_stop_a_write_that_may_have_begun(shop: Workshop):
    stall = Stall()
    shop.tool = stall.run_tool
    with pytest.raises(Refused) as refusal:
        await (await begin_late(shop, shop.draft(), lambda trail: trail.ran))
    assert refusal.value.reason_name == "IN_PROGRESS"
    stall.mended.set()
    assert (await shop.path.answer(shop.draft())).replayed
    assert shop.runs == 1


async def test_gives_a_durable_answer_while_the_end_of_a_lease_stalls(shop: Workshop):
    stall = Stall()
    shop.vault.ending = stall.wait
    answer = await (await begin_late(shop, shop.draft(), lambda trail: trail.settled))
    assert await shop.states() == [CallState.SUCCEEDED]
    assert not answer.replayed
    stall.mended.set()
    await settle_down(shop)


async def test_leaves_an_answer_in_time_alone(shop: Workshop):
    task, trail = await shop.begin(shop.draft(), lambda trail: trail.call is not None)
    assert await task
    trail.answer_by(time.monotonic())  # nobody waits any more
    assert shop.is_clean()


@pytest.mark.parametrize("seconds", [0.6, 1.5])
async def test_tells_who_repeats_a_running_write_that_it_runs(shop: Workshop, seconds: float):
    stall = Stall()
    shop.tool = stall.run_tool
    first, _ = await shop.begin(shop.draft(), lambda trail: trail.ran)
    again = replace(shop.draft(), deadline=time.monotonic() + seconds)
    with pytest.raises(Refused) as refusal:
        await shop.path.answer(again)
    assert refusal.value.reason_name == "IN_PROGRESS"
    stall.mended.set()
    assert await first


async def test_tells_so_also_when_the_store_stalls_meanwhile(shop: Workshop):
    stall = Stall()
    shop.tool = stall.run_tool
    first, _ = await shop.begin(shop.draft(), lambda trail: trail.ran)
    task = await begin_late(shop, shop.draft(), lambda trail: bool(trail.earlier_call_id))
    with pytest.raises(Refused) as refusal:
        await task
    assert refusal.value.reason_name == "IN_PROGRESS"
    stall.mended.set()
    assert await first
