"""Reads without credentials: one durable commit before they run, and when their answer may leave."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from broker.brakes import Brakes
from broker.errors import CallError, Failed
from broker.model import CallState
from broker.recovery import adopt_unfinished
from broker.store.memory import MemoryStore
from broker.store.records import Latest
from sandboxes.outcome import RawOutcome, SandboxError
from tests.broker import bench
from tests.broker.workshop import EMPTY, FakeSandbox, MoodyStore, Workshop

WANTS = "{credentials: [orders_read], targets: [orders-db], deadline_seconds: 10}"


class WatchedStore(MoodyStore):
    """Notes the commits that calls wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[str] = []
        self.tenured = True

    @property
    def is_tenured(self) -> bool:
        return self.tenured

    async def reserve(self, call: Any, *arguments: Any) -> None:
        self.commits.append(f"reserve {call.state}")
        await super().reserve(call, *arguments)

    async def complete(self, *arguments: Any, behind: Latest | None = None, **options: Any) -> None:
        self.commits.append("complete" if behind is None else "complete behind")
        await super().complete(*arguments, behind=behind, **options)

    async def amend(self, *arguments: Any) -> None:
        self.commits.append("amend")
        await super().amend(*arguments)


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> WatchedStore:
    source = bench.shop_source()
    bare = replace(source, manifest_yaml=source.manifest_yaml.replace(WANTS, "{deadline_seconds: 10}"))
    monkeypatch.setattr(bench, "shop_source", lambda: bare)
    return WatchedStore()


@pytest.fixture
async def shop(store: WatchedStore) -> AsyncIterator[Workshop]:
    yield await Workshop.fill(store, await bench.Bench.make(store))


async def only_state(shop: Workshop) -> CallState:
    (state,) = await shop.states()
    return state


async def until(shop: Workshop, state: CallState) -> None:
    async with asyncio.timeout(5):
        while await only_state(shop) is not state:
            await asyncio.sleep(0.01)


async def test_waits_for_one_commit(shop: Workshop, store: WatchedStore) -> None:
    await shop.path.answer(shop.lookup())
    await until(shop, CallState.SUCCEEDED)
    assert store.commits == ["reserve DISPATCHED", "complete behind"]


async def test_waits_for_the_completion_of_a_read_that_can_be_replayed(
    shop: Workshop, store: WatchedStore
) -> None:
    await shop.path.answer(shop.lookup(key="k"))
    assert store.commits == ["reserve DISPATCHED", "complete"]
    assert (await shop.path.answer(shop.lookup(key="k"))).replayed


async def test_gives_no_answer_of_a_keyed_read_that_is_not_durable(
    shop: Workshop, store: WatchedStore
) -> None:
    store.failures["complete"] = 2
    with pytest.raises(CallError):
        await shop.path.answer(shop.lookup(key="k"))


async def test_has_the_intent_on_record_when_the_tool_starts(shop: Workshop) -> None:
    seen: list[CallState] = []

    async def look(_start: Any) -> RawOutcome:
        seen.append(await only_state(shop))
        return EMPTY

    shop.tool = look
    await shop.path.answer(shop.lookup())
    assert seen == [CallState.DISPATCHED]


async def test_runs_nothing_that_cannot_be_recorded(
    shop: Workshop, store: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        store.failures["reserve"] = 1
        store._fail("reserve")

    monkeypatch.setattr(store, "reserve", fail)
    with pytest.raises(Failed) as failure:
        await shop.path.answer(shop.lookup())
    assert (failure.value.reason_name, shop.runs) == ("RECORD_UNAVAILABLE", 0)


async def test_writes_an_end_again_that_the_disk_did_not_take(shop: Workshop, store: WatchedStore) -> None:
    store.failures["complete"] = 1
    await shop.path.answer(shop.lookup())
    await until(shop, CallState.SUCCEEDED)
    assert store.commits.count("complete behind") == 2


async def test_asks_the_store_before_it_answers_when_its_last_beat_is_old(
    shop: Workshop, store: WatchedStore
) -> None:
    store.tenured = False
    await shop.path.answer(shop.lookup())
    assert store.commits == ["reserve DISPATCHED", "complete"]


async def test_gives_back_a_read_that_gets_no_sandbox(shop: Workshop) -> None:
    async def fail() -> None:
        raise SandboxError("no engine")

    shop.engine.creating = fail
    with pytest.raises(Failed):
        await shop.path.answer(shop.lookup())
    (call,) = await shop.calls()
    assert (call.state, shop.runs) == (CallState.FAILED, 0)


async def test_tells_after_a_crash_that_a_read_may_have_been_answered(
    shop: Workshop, store: WatchedStore
) -> None:
    store.failures["complete"] = 1_000
    await shop.path.answer(shop.lookup())
    newer = MemoryStore(state=store.state)
    (adopted,) = await adopt_unfinished(newer, Brakes())
    assert adopted.state is CallState.FAILED
    assert "may have been answered" in adopted.message


async def test_says_no_more_than_a_warning_when_the_end_beside_an_answer_fails(
    shop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    loose: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: loose.append(context))
    shop.engine.ending = SandboxError("no engine")
    await shop.path.answer(shop.lookup())
    await until(shop, CallState.SUCCEEDED)
    async with asyncio.timeout(5):
        while "end of the sandbox" not in caplog.text:
            await asyncio.sleep(0.01)
    gc.collect()
    assert not loose


async def test_records_the_end_of_a_sandbox_that_comes_after_the_completion(
    shop: Workshop, store: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = asyncio.Event()
    end = FakeSandbox.end

    async def end_late(sandbox: FakeSandbox) -> bool:
        await dead.wait()
        return await end(sandbox)

    monkeypatch.setattr(FakeSandbox, "end", end_late)
    await shop.path.answer(shop.lookup())
    await until(shop, CallState.SUCCEEDED)
    dead.set()
    async with asyncio.timeout(5):
        while (await shop.calls())[0].sandboxes[0].gone is None:
            await asyncio.sleep(0.01)
    assert store.commits == ["reserve DISPATCHED", "complete behind", "amend"]
