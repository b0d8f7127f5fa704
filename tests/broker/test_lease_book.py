"""What is alive is listed, by whoever knows of it, for its own tenant only, and ended whatever hangs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from broker.cipher import KeyUnavailable
from broker.lease_book import LeaseState
from broker.store.records import StoreError
from credentials.errors import Cause, EndNotConfirmed
from sandboxes.outcome import RawOutcome
from tests.broker.station import (
    AGENT,
    Station,
    reason_of,
)
from tests.broker.workshop import EMPTY, LOOKUP, Workshop


@pytest.fixture
async def station() -> Station:
    return Station(await Workshop.open())


async def test_lists_a_lease_from_its_mint_on(station: Station):
    station.shop.engine.creating = station.go_on.wait
    task, trail = await station.begin(station.shop.draft(), lambda trail: bool(trail.leases))
    (listed,) = await station.book.read("shop")
    assert await station.book.read("rival") == []
    assert (listed.state, listed.call.call_id) == (LeaseState.LIVE, trail.call_id)
    station.go_on.set()
    await task
    assert await station.book.read() == []


async def test_says_that_an_end_was_tried_in_vain(station: Station):
    async def refuse() -> None:
        raise EndNotConfirmed("l1", "Vault is sealed", Cause.SEALED)

    task, _ = await station.begin_slow(station.shop.lookup())
    station.shop.vault.ending = refuse
    halt = await station.pull(AGENT)
    (listed,) = await station.book.read("shop")
    assert (halt.leases_ended, halt.leases_owed) == (0, 1)
    assert (listed.state, listed.tries) == (LeaseState.NOT_CONFIRMED, 2)
    assert "Vault is sealed" in listed.last_error
    assert await reason_of(task) == "CALL_STOPPED"
    station.shop.vault.ending = None
    await station.shop.debts.close()


async def test_lists_what_a_cancelled_mint_could_not_end(station: Station, monkeypatch: pytest.MonkeyPatch):
    async def sealed(*_: object) -> None:
        raise KeyUnavailable("the tenant's key cannot be had")

    trail = station.shop.path.begin(station.shop.lookup())
    await station.shop.path.answer(station.shop.lookup(), trail)
    lease = replace(trail.leases[0], lease_id="l9", confirmed_dead=None)
    station.shop.debts.owe(trail.call_id, [lease])
    (listed,) = await station.book.read("shop")
    monkeypatch.setattr(station.shop.store, "get_call", sealed)
    (unopened,) = await station.book.read("shop")
    assert (listed.call.method, unopened.call.method) == (LOOKUP, "")
    assert listed.state is unopened.state is LeaseState.ENDING


async def test_shows_nobody_a_debt_whose_call_cannot_be_read(
    station: Station, monkeypatch: pytest.MonkeyPatch
):
    async def fail(*_: object) -> None:
        raise StoreError("the disk cannot be read")

    trail = station.shop.path.begin(station.shop.lookup())
    await station.shop.path.answer(station.shop.lookup(), trail)
    lease = replace(trail.leases[0], lease_id="l9", confirmed_dead=None)
    station.shop.debts.owe(trail.call_id, [lease])
    assert await station.book.read("rival") == []
    monkeypatch.setattr(station.shop.store, "get_call", fail)
    with pytest.raises(StoreError, match="cannot be read"):
        await station.book.read("rival")


async def test_looks_no_debt_up_that_is_written_down_already(
    station: Station, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []

    async def note(tenant: str, _call_id: str) -> None:
        asked.append(tenant)

    task, trail = await station.begin_slow(station.shop.lookup())
    station.shop.debts.owe(trail.call_id, trail.leases)
    monkeypatch.setattr(station.shop.store, "get_call", note)
    assert await station.book.read("rival") == []
    assert len(await station.book.read("shop")) == 1
    assert asked == []
    station.go_on.set()
    await task


async def test_ends_a_lease_although_its_sandbox_hangs(station: Station, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("broker.lever.STOP_SECONDS", 0.05)

    async def hang(_start: Any) -> RawOutcome:
        while True:
            try:
                await station.go_on.wait()
                return EMPTY
            except asyncio.CancelledError:
                continue

    station.shop.tool = hang
    task, _ = await station.begin(station.shop.lookup(), lambda trail: trail.ran)
    halt = await station.pull(AGENT)
    assert (halt.leases_ended, station.shop.vault.live) == (1, set())
    station.go_on.set()
    assert await reason_of(task) == "CALL_STOPPED"
