"""What was applied last is in force, whatever else goes on at the same time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from broker.catalogue import Catalogue
from broker.errors import Refused
from broker.grant_book import GrantBook
from broker.policy.files import digest_files
from broker.policy.grants import GrantSet
from broker.store.memory import MemoryStore
from broker.store.records import AuditEvent, GrantFiles, StoreError

EVENT = AuditEvent("test", "shop", "", datetime.now(UTC))
ONE, TWO = ({"destinations.toml": f'[[destination]]\nvalue = "{name}"\nnote = "n"\n'} for name in "ab")


class SlowBook(GrantBook):
    """Compiles the first files as slowly as the test wants."""

    gate: asyncio.Event

    async def compile(self, tenant: str, files: dict[str, str]) -> GrantSet:
        compiled = await super().compile(tenant, files)
        if files == ONE:
            await self.gate.wait()
        return compiled


class BrokenStore(MemoryStore):
    """Cannot be read any more."""

    async def grant_files(self, tenant: str) -> GrantFiles:
        raise StoreError("disk gone")


async def apply(store: MemoryStore, files: dict[str, str]) -> None:
    base = await store.grant_files("shop")
    await store.apply_grants("shop", GrantFiles(files, digest_files(files)), base.digest, EVENT)


def make_book(store: MemoryStore) -> SlowBook:
    book = SlowBook(store, Catalogue(store), ("dev",), {})
    book.gate = asyncio.Event()
    return book


async def test_a_slow_refresh_does_not_bring_older_grants_back():
    store = MemoryStore()
    book = make_book(store)
    await apply(store, ONE)
    first = asyncio.create_task(book.refresh("shop"))
    await asyncio.sleep(0.05)
    await apply(store, TWO)
    second = asyncio.create_task(book.refresh("shop"))
    await asyncio.sleep(0.05)
    book.gate.set()
    await asyncio.gather(first, second)
    assert book.of("shop").digest == digest_files(TWO)


async def test_the_grants_before_decide_until_the_new_ones_are_ready():
    store = MemoryStore()
    book = make_book(store)
    await apply(store, TWO)
    await book.refresh("shop")
    await apply(store, ONE)
    refresh = asyncio.create_task(book.refresh("shop"))
    await asyncio.sleep(0.05)
    assert book.of("shop").digest == digest_files(TWO)
    book.gate.set()
    await refresh
    assert book.of("shop").digest == digest_files(ONE)


async def test_allows_nothing_when_the_grants_cannot_be_read_again():
    book = make_book(BrokenStore())
    with pytest.raises(StoreError):
        await book.refresh("shop")
    with pytest.raises(Refused) as refusal:
        book.of("shop")
    assert refusal.value.reason_name == "POLICY_FAILED"
