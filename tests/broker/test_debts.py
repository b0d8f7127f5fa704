"""A lease whose end is not confirmed stays owed, and keeps neither its call nor the other leases waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from broker import debts
from broker.debts import Debts
from broker.model import LeaseRecord
from broker.store.memory import MemoryStore
from credentials.lease import LeaseIds


class MoodyVault:
    """Ends leases as the test says."""

    def __init__(self) -> None:
        self.before: Callable[[LeaseIds], Awaitable[None]] | None = None
        self.ended: list[str] = []

    async def end(self, lease: LeaseIds) -> datetime:
        if self.before:
            await self.before(lease)
        self.ended.append(lease.lease_id)
        return datetime.now(UTC)


def make_lease(name: str) -> LeaseRecord:
    return LeaseRecord(name, name, "orders_read", "v-user", datetime.now(UTC))


async def test_does_not_keep_a_call_waiting_for_a_vault_that_stalls(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(debts, "PATIENCE_SECONDS", 0.05)
    vault, go_on = MoodyVault(), asyncio.Event()

    async def stall(_lease: LeaseIds) -> None:
        await go_on.wait()

    vault.before = stall
    owed = Debts(vault, MemoryStore())
    assert await owed.end("c1", make_lease("l1")) is None
    assert owed.count == 1
    go_on.set()
    await owed.close()
    assert (owed.count, vault.ended) == (0, ["l1"])


async def test_pays_the_others_although_one_end_fails_in_a_new_way(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(debts, "FIRST_PAUSE_SECONDS", 0.01)
    vault = MoodyVault()

    async def fail(lease: LeaseIds) -> None:
        if lease.lease_id == "l1":
            raise RuntimeError("what nobody thought of")

    vault.before = fail
    owed = Debts(vault, MemoryStore())
    await owed.start()
    await owed.owe("c1", [make_lease("l1"), make_lease("l2")])
    async with asyncio.timeout(5):
        while "l2" not in vault.ended:
            await asyncio.sleep(0.01)
    await owed.owe("c2", [make_lease("l3")])
    async with asyncio.timeout(5):
        while "l3" not in vault.ended:
            await asyncio.sleep(0.01)
    assert owed.count == 1
    await owed.close()
