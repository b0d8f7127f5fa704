"""Callers that hang up, at every step of a call: nothing of it stays, in pool, memory, Vault or store."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broker.model import CallState
from broker.request import Request
from sandboxes.outcome import OutcomeKind, RawOutcome
from sandboxes.pool_size import PoolTerms
from tests.broker import bench
from tests.broker.workshop import EMPTY, Workshop

STEPS = 60
"""More than any call takes from its beginning to its answer."""
OVER = {CallState.SUCCEEDED, CallState.FAILED, CallState.IN_DOUBT, CallState.REFUSED}


async def hang_up_after(shop: Workshop, request: Request, steps: int) -> None:
    """Begin a call, let the loop go round so often, hang up, and wait until nothing goes on."""
    task = asyncio.create_task(shop.path.answer(request))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(5):
        while shop.path.running or shop.pool._memory.running_mib or shop.pool._making:
            await asyncio.sleep(0.001)


def give_time(shop: Workshop) -> None:
    """Let every part of a call take some steps of the loop."""

    async def pause() -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    async def work(_start: object) -> object:
        await pause()
        return EMPTY

    shop.engine.creating = shop.vault.minting = shop.vault.ending = pause
    shop.tool = work  # type: ignore[assignment]


WANTS = "{credentials: [orders_read], targets: [orders-db], deadline_seconds: 10}"


@pytest.mark.parametrize("wants", [WANTS, "{deadline_seconds: 10}"])
@pytest.mark.parametrize("warm", [0, 4])
@pytest.mark.parametrize("key", ["", "k"])
async def test_keeps_nothing_of_a_read_whose_caller_hangs_up(
    wants: str, warm: int, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bench.shop_source()
    source = replace(source, manifest_yaml=source.manifest_yaml.replace(WANTS, wants))
    monkeypatch.setattr(bench, "shop_source", lambda: source)
    shop = await Workshop.open()
    give_time(shop)
    shop.pool.terms = PoolTerms(warm, 300, makers=2, max_wait_seconds=5, memory_mib=1_000)
    for steps in range(STEPS):
        await hang_up_after(shop, shop.lookup(key=f"{key}{steps}" if key else ""), steps)
        assert shop.is_clean()
        assert not any(shelf.waiting for shelf in shop.pool.shelves.values())
    await shop.path._stages.reserve.close()
    states = {*await shop.states()}
    assert CallState.SUCCEEDED in states  # the last ones came to their end
    assert states <= OVER
    await shop.pool.close()
    assert not shop.pool._holders


async def test_keeps_nothing_of_a_write_whose_caller_hangs_up() -> None:
    shop = await Workshop.open()
    give_time(shop)
    for steps in range(STEPS):
        await hang_up_after(shop, shop.draft(key=f"k{steps}"), steps)
        assert shop.is_clean()
    states = await shop.states()
    assert {*states} <= OVER
    assert shop.runs == sum(state in (CallState.SUCCEEDED, CallState.IN_DOUBT) for state in states)
    await shop.pool.close()
    assert not shop.pool._holders


@pytest.mark.parametrize("wants", [WANTS, "{deadline_seconds: 10}"])
async def test_records_the_end_of_a_call_whose_caller_hangs_up_as_it_fails(
    wants: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bench.shop_source()
    source = replace(source, manifest_yaml=source.manifest_yaml.replace(WANTS, wants))
    monkeypatch.setattr(bench, "shop_source", lambda: source)
    for steps in range(8):
        shop = await Workshop.open()
        shop.tool = crash
        task, _ = await shop.begin(shop.lookup(), lambda trail: trail.failure is not None)
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        while shop.path.running:
            await asyncio.sleep(0.001)
        assert await shop.states() == [CallState.FAILED]
        await shop.pool.close()


async def crash(_start: object) -> RawOutcome:
    return RawOutcome(OutcomeKind.CRASHED)
