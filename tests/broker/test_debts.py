"""A lease whose end is not confirmed stays owed, and keeps neither its call nor the other leases waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from broker import debts
from broker.debts import Debts
from broker.model import CallRecord, CallState, LeaseRecord, LiveLease
from broker.store.memory import MemoryStore
from broker.store.records import AuditEvent, StoreError
from credentials.errors import Cause, EndNotConfirmed
from credentials.lease import LeaseIds, OwedLease
from tools.contract import Effect


class MoodyVault:
    """Ends leases as the test says."""

    def __init__(self) -> None:
        self.before: Callable[[LeaseIds], Awaitable[None]] | None = None
        self.ended: list[str] = []
        self.tried: list[str] = []

    async def end(self, lease: LeaseIds) -> datetime:
        self.tried.append(lease.lease_id)
        if self.before:
            await self.before(lease)
        self.ended.append(lease.lease_id)
        return datetime.now(UTC)


async def refuse(lease: LeaseIds) -> None:
    raise EndNotConfirmed(lease.lease_id, "Vault is sealed", Cause.SEALED)


def make_lease(name: str) -> LeaseRecord:
    return LeaseRecord(name, name, "orders_read", "v-user", datetime.now(UTC))


async def wait_until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not reached():
            await asyncio.sleep(0.005)


async def dispatch_a_call(store: MemoryStore, lease: LeaseRecord) -> tuple[CallRecord, AuditEvent]:
    """Leave a read that is DISPATCHED with a lease."""
    event = AuditEvent("test", "shop", "dev", datetime.now(UTC), "c1")
    call = CallRecord(
        "c1", "shop", "dev", "desk", "", "s.S/M", "1", Effect.READ, "", "", 1, 1, CallState.RESERVED,
        datetime.now(UTC),
    )  # fmt: skip
    await store.reserve(call, None, (), event)
    await store.dispatch("c1", [lease])
    return call, event


async def end_a_call(store: MemoryStore, lease: LeaseRecord) -> None:
    """Leave a read that FAILED and owes a lease."""
    call, event = await dispatch_a_call(store, lease)
    ended = replace(call, state=CallState.FAILED, ended=datetime.now(UTC), leases=(lease,))
    await store.complete(ended, event)


async def live_leases_of_nobody() -> list[tuple[str, LeaseRecord]]:
    return []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debts, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(debts, "LONGEST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(debts, "SWEEP_SECONDS", 0.02)
    monkeypatch.setattr(debts, "LAST_TRY_SECONDS", 0.1)


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


@pytest.mark.usefixtures("quick")
async def test_pays_the_others_although_one_end_fails_in_a_new_way():
    vault = MoodyVault()

    async def fail(lease: LeaseIds) -> None:
        if lease.lease_id == "l1":
            raise RuntimeError("what nobody thought of")

    vault.before = fail
    owed = Debts(vault, MemoryStore())
    await owed.start()
    owed.owe("c1", [make_lease("l1"), make_lease("l2")])
    await wait_until(lambda: owed.count == 1)
    owed.owe("c2", [make_lease("l3")])
    await wait_until(lambda: owed.count == 1 and "l3" in vault.ended)
    await owed.close()


@pytest.mark.usefixtures("quick")
async def test_ends_the_others_while_one_end_hangs():
    vault = MoodyVault()

    async def hang(lease: LeaseIds) -> None:
        if lease.lease_id == "l0":
            await asyncio.sleep(60)

    vault.before = hang
    owed = Debts(vault, MemoryStore())
    await owed.start()
    owed.owe("c1", [make_lease(f"l{number}") for number in range(200)])
    await wait_until(lambda: owed.count == 1)
    assert [debt.lease.lease_id for debt in owed.owed] == ["l0"]
    await owed.close()


@pytest.mark.usefixtures("quick")
async def test_waits_longer_after_each_try_and_up_to_a_limit(monkeypatch: pytest.MonkeyPatch):
    vault, pauses = MoodyVault(), []
    vault.before = refuse
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def note(delay, callback, *arguments):
        if callback.__name__ == "_queue":
            pauses.append(delay)
        return call_later(delay, callback, *arguments)

    monkeypatch.setattr(loop, "call_later", note)
    owed = Debts(vault, MemoryStore())
    await owed.start()
    owed.owe("c1", [make_lease("l1")])
    await wait_until(lambda: len(vault.tried) >= 6)
    await owed.close()
    steps = [0.01, 0.02, 0.04, 0.05, 0.05]
    assert all(step / 2 <= pause <= step for step, pause in zip(steps, pauses, strict=False))


async def test_says_how_often_an_end_was_tried_and_what_was_wrong():
    vault = MoodyVault()
    vault.before = refuse
    owed = Debts(vault, MemoryStore())
    for _ in range(3):
        assert await owed.end("c1", make_lease("l1")) is None
    (debt,) = owed.owed
    assert (debt.call_id, debt.tries) == ("c1", 3)
    assert "Vault is sealed" in debt.last_error
    vault.before = None
    assert await owed.end("c1", make_lease("l1"))
    assert owed.count == 0


async def test_tries_one_lease_once_at_a_time():
    vault, go_on = MoodyVault(), asyncio.Event()

    async def stall(_lease: LeaseIds) -> None:
        await go_on.wait()

    vault.before = stall
    owed = Debts(vault, MemoryStore())
    both = [asyncio.create_task(owed.end("c1", make_lease("l1"))) for _ in range(2)]
    await wait_until(lambda: bool(vault.tried))
    go_on.set()
    first, second = await asyncio.gather(*both)
    assert (vault.tried, first) == (["l1"], second)


@pytest.mark.usefixtures("quick")
async def test_takes_up_what_an_earlier_run_left_owed():
    store, vault = MemoryStore(), MoodyVault()
    await end_a_call(store, make_lease("l1"))
    owed = Debts(vault, store)
    await owed.start()
    await wait_until(lambda: owed.count == 0)
    assert vault.ended == ["l1"]
    assert not await store.owed_leases()
    await owed.close()


@pytest.mark.usefixtures("quick")
async def test_takes_up_what_died_before_its_call_was_written_down():
    store, vault = MemoryStore(), MoodyVault()
    owed = Debts(vault, store)
    await owed.start()
    lease = make_lease("l1")
    assert await owed.end("c1", lease)  # noted nowhere: its call is not written down yet
    await end_a_call(store, lease)
    await wait_until(lambda: vault.ended == ["l1", "l1"] and owed.count == 0)
    assert not await store.owed_leases()
    await owed.close()


@pytest.mark.usefixtures("quick")
async def test_ends_what_is_asked_for_now_before_the_tries_that_wait(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(debts, "RETRIES_AT_ONCE", 1)
    vault = MoodyVault()

    async def hang(lease: LeaseIds) -> None:
        if lease.lease_id == "l0":
            await asyncio.sleep(60)

    vault.before = hang
    owed = Debts(vault, MemoryStore())
    await owed.start()
    owed.owe("c1", [make_lease("l0")])
    await wait_until(lambda: vault.tried == ["l0"])
    owed.owe("c2", [make_lease("l1")])
    await asyncio.sleep(0.05)  # waits behind l0 now
    assert vault.tried == ["l0"]
    assert await owed.end("c2", make_lease("l1"))
    await owed.close()
    assert vault.tried == ["l0", "l1"]


@pytest.mark.usefixtures("quick")
async def test_ends_no_lease_again_that_ended_while_the_store_was_read(monkeypatch: pytest.MonkeyPatch):
    store, vault = MemoryStore(), MoodyVault()
    owed, lease = Debts(vault, store), make_lease("l1")
    reads: list[Sequence[LiveLease]] = []
    await end_a_call(store, lease)
    live_leases = store.live_leases

    async def read(tenant: str = "") -> Sequence[LiveLease]:
        found = await live_leases(tenant)
        if not reads:
            assert await owed.end("c1", lease)
        reads.append(found)
        return found

    monkeypatch.setattr(store, "owed_leases", live_leases_of_nobody)
    monkeypatch.setattr(store, "live_leases", read)
    await owed.start()
    await wait_until(lambda: len(reads) > 4)
    await owed.close()
    assert (len(reads[0]), vault.ended) == (1, ["l1"])


@pytest.mark.usefixtures("quick")
async def test_leaves_the_leases_of_running_calls_alone():
    store, vault = MemoryStore(), MoodyVault()
    owed = Debts(vault, store)
    await owed.start()
    await dispatch_a_call(store, make_lease("l1"))
    await asyncio.sleep(0.1)
    await owed.close()
    assert vault.tried == []


async def test_keeps_a_lease_owed_whose_death_cannot_be_recorded(monkeypatch: pytest.MonkeyPatch):
    store, vault = MemoryStore(), MoodyVault()

    async def fail(*_: object) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr(store, "lease_ended", fail)
    owed = Debts(vault, store)
    assert await owed.end("c1", make_lease("l1")) is None
    assert [debt.last_error for debt in owed.owed] == ["disk full"]


async def test_ends_what_a_cancelled_mint_left_also_when_the_broker_stops():
    vault = MoodyVault()
    owed = Debts(vault, MemoryStore())
    now = datetime.now(UTC)
    owed.owe("c1", [OwedLease("orders", "l1", "a1", "database", "orders-read", "v-user", now)])
    await owed.close()
    assert (owed.count, vault.ended) == (0, ["l1"])
