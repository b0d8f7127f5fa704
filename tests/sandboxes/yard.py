"""A pool on a driver in memory, whose sandboxes take as long to be made as the test says.

Time is the test's: `Yard.pass_time` moves the pool's clock. What is asked of the loop takes its real time.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandboxes.nests import Nest
from sandboxes.outcome import AnswerSign, OutcomeKind, RawOutcome, SandboxSpec, SandboxUnavailable
from sandboxes.pool import QUIET_SECONDS, Pool
from sandboxes.pool_place import Place
from sandboxes.pool_review import PoolReview
from sandboxes.pool_size import PoolTerms
from sandboxes.pool_stock import Kind
from sandboxes.pool_watch import Why
from tests.parts.engine import TestLimits
from toolcrib.handler.v1 import handler_pb2

IMAGE = "sha256:" + "1" * 64
LOOKUP = Kind("shop", "shop 1.0.0", "d1", "container", IMAGE, ("python3", "-m", "handler"), TestLimits())
RIVAL = replace(LOOKUP, tenant="rival")
TERMS = PoolTerms(max_idle=8, idle_seconds=100.0, makers=2, max_wait_seconds=1.0, memory_mib=100_000)
PATIENCE = 10.0


class MemorySandbox:
    """A sandbox that exists only here, and keeps the protocol's promises."""

    def __init__(self, spec: SandboxSpec, number: int, driver: MemoryDriver) -> None:
        self.container_id, self.image_id, self.uid = f"mem-{number}", spec.image_id, spec.uid
        self.spec, self.made = spec, datetime.now(UTC)
        self.gone: datetime | None = None
        self.cpu, self.is_alive, self.runs, self.is_warm = 0.0, True, 0, False
        self._driver = driver

    def cpu_seconds(self) -> float | None:
        return self.cpu

    async def warm_up(self, patience_seconds: float) -> None:
        assert not self.runs, "only before run"
        await self._driver.loading()
        self.is_warm = True

    async def run(self, start: handler_pb2.Start, deadline_seconds: float, answer: AnswerSign) -> RawOutcome:
        assert not self.runs, "a sandbox serves one call"
        self.runs += 1
        return RawOutcome(OutcomeKind.RESULT)

    def cancel(self, reason: str) -> None:
        pass

    async def end(self) -> bool:
        self.is_alive = False
        self.gone = self.gone or datetime.now(UTC)
        return True


class MemoryDriver:
    """Makes them; `gate` holds all makings up, `failures` lets so many fail, `spend` is called for each."""

    name, overhead_mib = "memory", 4

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.make_failures = self.load_failures = 0
        self.making = self.most_making = self.begun = 0
        self.spend: Callable[[], None] = lambda: None
        self.made: list[MemorySandbox] = []
        self.live: set[MemorySandbox] = set()
        self._uids = itertools.count(100_000)

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        assert not self.live

    def allocate_uid(self) -> int:
        return next(self._uids)

    async def loading(self) -> None:
        if self.load_failures > 0:
            self.load_failures -= 1
            raise SandboxUnavailable("the handler cannot be loaded")

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, call_id: str) -> AsyncIterator[MemorySandbox]:
        self.begun += 1
        self.making += 1
        self.most_making = max(self.most_making, self.making)
        try:
            await self.gate.wait()
        finally:
            self.making -= 1
        self.spend()
        if self.make_failures > 0:
            self.make_failures -= 1
            raise SandboxUnavailable("the engine is gone")
        sandbox = MemorySandbox(spec, len(self.made) + 1, self)
        self.made.append(sandbox)
        self.live.add(sandbox)
        try:
            yield sandbox
        finally:
            await sandbox.end()
            self.live.discard(sandbox)

    def knows(self, container_id: str) -> bool:
        return container_id.startswith("mem-")

    async def reap(self) -> list[str]:
        return []

    async def leftovers(self) -> list[str]:
        return sorted(sandbox.container_id for sandbox in self.live)

    async def end_container(self, container_id: str) -> bool:
        for sandbox in list(self.live):
            if sandbox.container_id == container_id:
                await sandbox.end()
        return True


@dataclass
class Notes:
    """What the pool told."""

    ages: list[float | None] = field(default_factory=list)
    refusals: list[Kind] = field(default_factory=list)
    makings: list[bool] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    ends: list[Why] = field(default_factory=list)
    flags: list[float] = field(default_factory=list)

    def taken(self, kind: Kind, age_seconds: float | None) -> None:
        self.ages.append(age_seconds)

    def refused(self, kind: Kind) -> None:
        self.refusals.append(kind)

    def made(self, kind: Kind, seconds: float, *, warm: bool) -> None:
        self.makings.append(warm)

    def failed(self, kind: Kind, cause: str) -> None:
        self.causes.append(cause)

    def ended(self, kind: Kind, why: Why) -> None:
        self.ends.append(why)

    def flagged(self, kind: Kind, cpu_share: float) -> None:
        self.flags.append(cpu_share)


class Yard:
    """A pool that tests can look into."""

    def __init__(self, terms: PoolTerms = TERMS) -> None:
        self.now = 1000.0
        self.driver, self.notes = MemoryDriver(), Notes()
        self.nests: list[Nest] = []
        self.pool = Pool({"container": self.driver}, self._nest, terms, self.notes, lambda: self.now)
        self._review = PoolReview(self.pool)

    @contextmanager
    def _nest(self, uid: int, _http: object = None) -> Iterator[Nest]:
        nest = Nest(Path(f"/nests/{uid}"), uid)
        self.nests.append(nest)
        yield nest

    def make_slowly(self, seconds: float) -> None:
        """Let each making take its time on the pool's clock."""

        def spend() -> None:
            self.now += seconds

        self.driver.spend = spend

    def take(self, kind: Kind = LOOKUP, patience: float = PATIENCE) -> Place:
        return self.pool.take(kind, patience)

    async def call(self, kind: Kind = LOOKUP) -> MemorySandbox:
        """Make one call from its beginning to its end; returns the sandbox that it had."""
        place = self.take(kind)
        try:
            sandbox, _ = await place.sandbox()
            assert isinstance(sandbox, MemorySandbox)
            await sandbox.run(handler_pb2.Start(), 1.0, _sign_nothing)
            await sandbox.end()
            return sandbox
        finally:
            place.leave()
            await settle()

    async def fill(self, kind: Kind = LOOKUP) -> int:
        """Let a call come and the stock be made; returns how many wait."""
        await self.call(kind)
        await self.pass_time(QUIET_SECONDS * 2)
        return self.idle(kind)

    async def pass_time(self, seconds: float, *, review: bool = True) -> None:
        """Move the clock, look at what waits as the pool does each second, and let everything happen."""
        self.now += seconds
        if review:
            self._review.review()
        else:
            self.pool.schedule()
        await settle()

    def idle(self, kind: Kind = LOOKUP) -> int:
        shelf = self.pool.shelves.get(kind)
        return len(shelf.idle) if shelf else 0

    def waiting(self, kind: Kind = LOOKUP) -> list[MemorySandbox]:
        """The sandboxes that wait."""
        found = [holder.sandbox for holder in self.pool.shelves[kind].idle]
        return [one for one in found if isinstance(one, MemorySandbox)]


async def settle() -> None:
    """Let every task go on until nothing moves."""
    for _ in range(50):
        await asyncio.sleep(0)


async def _sign_nothing(sign: handler_pb2.Sign) -> handler_pb2.Signature:
    return handler_pb2.Signature()


@asynccontextmanager
async def opened(terms: PoolTerms = TERMS) -> AsyncIterator[Yard]:
    """A yard whose pool is closed at the end, which must leave nothing."""
    yard = Yard(terms)
    try:
        yield yard
    finally:
        yard.driver.gate.set()
        await yard.pool.close()
    assert not yard.driver.live
    assert all(sandbox.runs <= 1 for sandbox in yard.driver.made)


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    async with opened() as found:
        yield found
