"""A workshop with a lever, and what the tests of brakes and of living leases do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.errors import CallError
from broker.lease_book import LeaseBook
from broker.lever import Halt, Lever, Order
from broker.model import BrakeKind, Caller, Role
from broker.trail import Trail
from sandboxes.outcome import RawOutcome
from tests.broker.workshop import EMPTY, Workshop

OLGA = Caller("shop", "olga", Role.OPERATOR, "", "spiffe://x/tenant/shop/operator/olga")
DRAFT = "shop.v1.Orders/CreateRefundDraft"
AGENT = Order(BrakeKind.AGENT, "shop", "refund-desk", "drill")
TOOL = Order(BrakeKind.TOOL, "shop", DRAFT, "drill")
SERVICE = Order(BrakeKind.TOOL, "shop", "shop.v1.Orders", "drill")
TENANT = Order(BrakeKind.TENANT, "shop", "", "drill")
ALL = Order(BrakeKind.ALL, "", "", "drill")
EVERY = [AGENT, TOOL, SERVICE, TENANT, ALL]


class Station:
    """A workshop with a lever."""

    def __init__(self, shop: Workshop) -> None:
        self.shop, self.go_on = shop, asyncio.Event()
        self.book = LeaseBook(shop.store, shop.path, shop.debts, ["shop", "rival"])
        self.lever = Lever(shop.brakes, shop.store, self.book, shop.catalogue, lambda: datetime.now(UTC))

    async def stall(self, _start: Any = None) -> RawOutcome:
        await self.go_on.wait()
        return EMPTY

    async def begin(self, request: Any, stage: Callable[[Trail], bool]) -> tuple[asyncio.Task[Any], Trail]:
        return await self.shop.begin(request, stage)

    async def begin_slow(self, request: Any) -> tuple[asyncio.Task[Any], Trail]:
        """Start a call whose tool does not end by itself."""
        self.shop.tool = self.stall
        return await self.begin(request, lambda trail: trail.ran)

    async def pull(self, order: Order) -> Halt:
        return await self.lever.set(order, OLGA)

    async def pull_after(self, steps: int, order: Order) -> tuple[asyncio.Task[Any], Trail] | None:
        """Start a write, let it take some steps, and pull; None when it was answered before that."""
        request, held = self.shop.draft(f"k{steps}"), []
        trail = self.shop.path.begin(request)
        task = asyncio.create_task(self.shop.path.answer(request, trail))
        put = self.shop.brakes.put
        self.shop.brakes.put = lambda brake: (held.append(not task.done()), put(brake))  # type: ignore
        for _ in range(steps):
            await asyncio.sleep(0)
        await self.pull(order)
        self.shop.brakes.put = put  # type: ignore[method-assign]
        return (task, trail) if all(held) else None

    async def lift(self) -> None:
        for brake in self.lever.brakes.in_force:
            await self.lever.lift(brake, "over", OLGA)


async def reason_of(task: asyncio.Task[Any]) -> str:
    with pytest.raises(CallError) as error:
        await task
    return error.value.reason_name


async def ask(station: Station, request: Any) -> str:
    """Make a call; "OK" or the reason."""
    try:
        await station.shop.path.answer(request)
    except CallError as error:
        return error.reason_name
    return "OK"


async def answer(outcome: RawOutcome) -> RawOutcome:
    return outcome


def at(stage: str) -> Callable[[Trail], bool]:
    return lambda trail: bool(trail.stages) and trail.stages[-1].stage == stage
