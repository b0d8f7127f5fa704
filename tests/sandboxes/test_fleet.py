"""Several drivers as one: each class has its own, and nothing falls back to another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from sandboxes import pool_review
from sandboxes.fleet import Fleet
from sandboxes.outcome import SandboxUnavailable
from sandboxes.pool import QUIET_SECONDS
from tests.sandboxes.yard import LOOKUP, PATIENCE, TERMS, MemoryDriver, settle


class StrongDriver(MemoryDriver):
    """Another driver, with ids of its own; it has something of an older epoch."""

    name, overhead_mib = "strong-memory", 64

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[str] = []
        self.started = self.closed = 0

    async def start(self) -> None:
        self.started += 1

    async def close(self) -> None:
        self.closed += 1

    def knows(self, container_id: str) -> bool:
        return container_id.startswith("strong-")

    async def reap(self) -> list[str]:
        return ["strong-old"]

    async def leftovers(self) -> list[str]:
        return ["strong-1"]

    async def end_container(self, container_id: str) -> bool:
        self.ended.append(container_id)
        return True


class Two:
    """A fleet of two drivers with an open pool."""

    def __init__(self) -> None:
        self.weak, self.strong = MemoryDriver(), StrongDriver()
        self.fleet = Fleet({"container": self.weak, "strong": self.strong})
        no_nest: Any = None
        self.pool = self.fleet.open_pool(TERMS, no_nest)

    async def call(self, isolation: str = "container") -> Any:
        place = self.pool.take(replace(LOOKUP, isolation=isolation), PATIENCE)
        sandbox, _ = await place.sandbox()
        place.leave()
        return sandbox


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    found = Two()
    yield found
    await found.fleet.close_pool()
    await found.fleet.close()


async def test_runs_each_class_on_its_driver(two: Two):
    assert await two.call("container") in two.weak.made
    assert await two.call("strong") in two.strong.made
    assert two.fleet.names == {"container": "memory", "strong": "strong-memory"}


async def test_never_falls_back_to_another_class():
    weak, no_nest = MemoryDriver(), None
    fleet = Fleet({"container": weak})
    pool = fleet.open_pool(TERMS, no_nest)  # type: ignore[arg-type]
    with pytest.raises(SandboxUnavailable, match='"strong"'):
        pool.take(replace(LOOKUP, isolation="strong"), PATIENCE)
    assert weak.begun == 0
    await fleet.close_pool()


async def test_ends_a_sandbox_by_the_driver_that_made_it(two: Two):
    assert await two.fleet.end_container("strong-7")
    assert two.strong.ended == ["strong-7"]


async def test_does_not_say_that_a_strange_sandbox_is_gone(two: Two):
    with pytest.raises(SandboxUnavailable, match="no driver of sandboxes.classes made other-1"):
        await two.fleet.end_container("other-1")


async def test_reaps_with_every_driver(two: Two):
    assert await two.fleet.reap() == ["strong-old"]


async def test_counts_what_waits_as_no_leftover(two: Two):
    await two.call()
    await asyncio.sleep(QUIET_SECONDS * 2)
    await settle()
    (waiting,) = two.pool.idle
    assert waiting in await two.weak.leftovers()
    assert await two.fleet.leftovers() == ["strong-1"]


async def test_counts_what_a_call_has(two: Two):
    place = two.pool.take(LOOKUP, PATIENCE)
    sandbox, _ = await place.sandbox()
    assert sandbox.container_id in await two.fleet.leftovers()
    place.leave()


async def test_takes_what_is_being_made_to_wait_for_no_leftover(two: Two, monkeypatch: pytest.MonkeyPatch):
    loaded = asyncio.Event()
    monkeypatch.setattr(two.weak, "loading", loaded.wait)
    two.pool.take(LOOKUP, PATIENCE).leave()
    await settle()
    assert await two.weak.leftovers()
    assert not two.pool.idle
    asyncio.get_running_loop().call_later(0.02, loaded.set)
    assert await two.fleet.leftovers() == ["strong-1"]


async def test_starts_and_closes_a_driver_of_two_classes_once():
    driver = StrongDriver()
    fleet = Fleet({"container": driver, "strong": driver})
    await fleet.start()
    await fleet.close()
    assert (driver.started, driver.closed) == (1, 1)
    assert await fleet.reap() == ["strong-old"]


def test_refuses_to_be_without_a_driver():
    with pytest.raises(ValueError, match="no driver"):
        Fleet({})


async def test_reviews_its_pool_regularly(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool_review, "REVIEW_SECONDS", 0.01)
    two = Two()
    await two.call()
    await asyncio.sleep(QUIET_SECONDS * 2)
    (waiting,) = two.weak.live
    waiting.is_alive = False
    async with asyncio.timeout(5):
        while waiting in two.weak.live:
            await asyncio.sleep(0.01)
    await two.fleet.close_pool()


async def test_goes_on_reviewing_after_a_fault(monkeypatch: pytest.MonkeyPatch, caplog: Any):
    monkeypatch.setattr(pool_review, "REVIEW_SECONDS", 0.01)
    two, asked = Two(), []

    def fail(kind: object) -> bool:
        asked.append(kind)
        raise RuntimeError("a fault")

    await two.call()
    two.pool.is_wanted = fail
    async with asyncio.timeout(5):
        while len(asked) < 3:
            await asyncio.sleep(0.01)
    two.pool.is_wanted = lambda _kind: True
    await two.fleet.close_pool()
    assert "could not be reviewed" in caplog.text
