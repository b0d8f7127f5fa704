"""Backup and restore: one moment's file, and nothing believed that may have changed since."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.audit import Verified, verify
from broker.model import CallState, Mark
from broker.store.backup import Restored, backup_store, restore_store
from broker.store.records import StaleEpoch, StoreBusy, StoreError
from broker.store.sqlite import SqliteStore, open_store, read_audit, take_over
from tests.contracts.stores import (
    AUDIT_KEY,
    START,
    SetClock,
    event_of,
    make_brake,
    make_call,
    make_event,
    make_lease,
    make_options,
    read_events,
    reserve,
    run,
    scope_of,
    succeed,
)
from tools.contract import Effect


class Place:
    """A store with a backup beside it."""

    def __init__(self, folder: Path) -> None:
        self.clock = SetClock()
        self.options = make_options(self.clock)
        self.path, self.backup = folder / "state.db", folder / "backup.db"
        self.opened: list[SqliteStore] = []

    def open(self) -> SqliteStore:
        self.opened.append(take_over(self.path, self.options))
        return self.opened[-1]

    async def back_up(self) -> None:
        await backup_store(self.path, self.backup, clock=self.clock)
        self.clock.advance(60)

    async def restore(self, **changes: float) -> Restored:
        return await restore_store(self.backup, self.path, self.options, **changes)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    yield place
    for store in place.opened:
        await store.close()


# --- backup ----------------------------------------------------------------------------------------------
async def test_backs_up_what_is_durable_while_the_broker_writes(place: Place) -> None:
    store = place.open()
    before = await succeed(store, make_call(key="k"))
    writes = [asyncio.create_task(succeed(store, make_call(key=f"k{number}"))) for number in range(20)]
    await place.back_up()
    await asyncio.gather(*writes)
    await store.close()
    await place.restore()
    assert await place.open().get_call("acme", before.call_id) == before
    assert isinstance(await verify(read_audit(place.path), {"k1": AUDIT_KEY}), Verified)


async def test_makes_one_file_that_only_its_owner_can_read(place: Place, tmp_path: Path) -> None:
    await place.open().close()
    await place.back_up()
    assert [file.name for file in tmp_path.glob("backup*")] == ["backup.db"]
    assert place.backup.stat().st_mode & 0o777 == 0o600


async def test_overwrites_nothing_with_a_backup(place: Place) -> None:
    await place.open().close()
    place.backup.write_text("mine")
    with pytest.raises(StoreError, match="is there already"):
        await place.back_up()
    assert place.backup.read_text() == "mine"


async def test_backs_up_no_backup_and_nothing_that_is_no_store(place: Place, tmp_path: Path) -> None:
    await place.open().close()
    await place.back_up()
    with pytest.raises(StoreError, match="is a backup itself"):
        await backup_store(place.backup, tmp_path / "again.db")
    with pytest.raises(StoreError, match="cannot be backed up"):
        await backup_store(tmp_path / "missing.db", tmp_path / "again.db")
    assert not (tmp_path / "again.db").exists()


async def test_lets_no_broker_open_a_backup(place: Place) -> None:
    await place.open().close()
    await place.back_up()
    with pytest.raises(StoreError, match="toolcrib store restore"):
        take_over(place.backup, place.options)


# --- restore ---------------------------------------------------------------------------------------------
async def test_puts_in_doubt_each_write_that_was_running(place: Place) -> None:
    store = place.open()
    await reserve(store, make_call("c1", key="k", request=b"r"))
    await run(store, make_call("c2"), make_lease("l2"))
    await run(store, make_call("c3", effect=Effect.DRAFT))
    await succeed(store, make_call("c4"))
    await place.back_up()
    await store.close()
    restored = await place.restore()
    found = await place.open().in_doubt()
    assert [(call.call_id, call.request) for call in found] == [("c1", b"r"), ("c2", None), ("c3", None)]
    assert restored.in_doubt == 3


async def test_leaves_a_read_that_was_running_to_the_next_start(place: Place) -> None:
    store = place.open()
    await run(store, make_call("c1", effect=Effect.READ))
    await place.back_up()
    await store.close()
    assert (await place.restore()).in_doubt == 0
    assert [call.call_id for call in await place.open().unfinished()] == ["c1"]


async def test_runs_no_write_again_that_was_made_after_the_backup(place: Place) -> None:
    store = place.open()
    await place.back_up()
    lost = await succeed(store, make_call("c1", key="k"))
    await store.close()
    await place.restore()
    claim = await place.open().claim(scope_of(lost), "f1", "c2")
    assert (claim.won, claim.restored) == (False, True)


async def test_runs_no_second_attempt_again_that_was_made_after_the_backup(place: Place) -> None:
    store = place.open()
    first = await reserve(store, make_call("c1", key="k"))
    await store.give_back(replace(first, state=CallState.FAILED), event_of(first))
    await place.back_up()
    await succeed(store, make_call("c2", key="k"))
    await store.close()
    await place.restore()
    claim = await place.open().claim(scope_of(first), "f1", "c3", START + timedelta(days=1))
    assert (claim.won, claim.restored) == (False, True)


async def test_replays_what_was_made_before_the_backup(place: Place) -> None:
    store = place.open()
    ended = await succeed(store, make_call("c1", key="k"))
    await place.back_up()
    await store.close()
    await place.restore()
    claim = await place.open().claim(scope_of(ended), "f1", "c2")
    assert claim.earlier == ended


async def test_goes_on_past_every_epoch_that_there_was(place: Place) -> None:
    await place.open().close()
    await place.back_up()
    for _ in range(3):
        await place.open().close()
    await place.restore()
    assert 4 < place.open().epoch.number < 10


async def test_leaps_over_epochs_that_nobody_can_count_any_more(place: Place) -> None:
    await place.open().close()
    await place.back_up()
    place.path.unlink()
    await place.restore()
    assert place.open().epoch.number > 1_000_000


async def test_makes_stale_whoever_still_has_the_old_file(place: Place) -> None:
    stopped = place.open()
    await place.back_up()
    place.clock.advance(3600)
    restored = await place.restore()
    with pytest.raises(StaleEpoch):
        await stopped.append_audit(make_event())
    assert restored.replaced is not None
    newer = place.open()
    await newer.append_audit(make_event())
    with pytest.raises(StaleEpoch):
        await stopped.append_audit(make_event())


async def test_refuses_to_restore_under_a_running_broker(place: Place, tmp_path: Path) -> None:
    store = place.open()
    await place.back_up()
    await store.beat()
    with pytest.raises(StoreBusy):
        await place.restore()
    await store.append_audit(make_event())
    assert {file.suffix for file in tmp_path.iterdir()} <= {".db", ".db-wal", ".db-shm"}


async def test_keeps_what_was_in_the_place(place: Place) -> None:
    store = place.open()
    await place.back_up()
    lost = await succeed(store, make_call("c1"))
    await store.close()
    restored = await place.restore()
    assert restored.replaced is not None
    old = take_over(restored.replaced, place.options)
    assert await old.get_call("acme", lost.call_id) == lost
    await old.close()


async def test_restores_over_a_file_that_is_damaged(place: Place) -> None:
    ended = await succeed(place.open(), make_call("c1"))
    await place.back_up()
    await place.opened[0].close()
    place.path.write_bytes(b"damaged" * 1000)
    await place.restore()
    assert await place.open().get_call("acme", "c1") == ended


async def test_mixes_no_journal_that_was_left_into_what_it_restores(place: Place) -> None:
    store = place.open()
    await place.back_up()
    lost = await succeed(store, make_call("c1"))
    place.path.unlink()  # and the journal stays
    await place.restore()
    assert await place.open().get_call("acme", lost.call_id) is None
    assert isinstance(await verify(read_audit(place.path), {"k1": AUDIT_KEY}), Verified)


async def test_restores_from_no_file_that_is_no_whole_backup(place: Place, tmp_path: Path) -> None:
    await succeed(place.open(), make_call("c1"))
    await place.opened[0].close()
    for backup, why in ((place.path, "is no backup"), (tmp_path / "missing", "cannot be restored")):
        with pytest.raises(StoreError, match=why):
            await restore_store(backup, tmp_path / "new.db", place.options)
    await place.back_up()
    place.backup.write_bytes(place.backup.read_bytes()[:-6000])
    with pytest.raises(StoreError, match="cannot be restored|is damaged"):
        await place.restore()
    assert await place.open().get_call("acme", "c1") is not None


async def test_refuses_to_restore_by_a_clock_that_is_behind_the_backup(place: Place) -> None:
    await place.open().close()
    await place.back_up()
    place.clock.jump(-3 * 86_400)
    with pytest.raises(StoreError, match="set the clock first"):
        await place.restore()


async def test_says_in_the_chain_that_it_was_restored_and_what_is_in_doubt(place: Place) -> None:
    store = place.open()
    await run(store, make_call("c1"))
    await place.back_up()
    await succeed(store, make_call("c2"))
    await store.close()
    await place.restore()
    records = [record async for record in read_audit(place.path)]
    assert [
        kind in record.payload
        for kind, record in zip(("call.reserved", "store.restored", "call.adopted"), records, strict=True)
    ] == [True, True, True]
    assert isinstance(await verify(read_audit(place.path), {"k1": AUDIT_KEY}), Verified)


# --- brakes ----------------------------------------------------------------------------------------------
async def test_keeps_in_force_the_brakes_of_the_backup(place: Place) -> None:
    store = place.open()
    await store.set_brake(make_brake(), make_event())
    await place.back_up()
    await store.lift_brake("b1", make_event())
    await store.close()
    await place.restore()
    assert list(await place.open().brakes()) == [make_brake()]


async def test_keeps_in_force_the_brakes_that_were_set_after_the_backup(place: Place) -> None:
    store = place.open()
    await place.back_up()
    await store.set_brake(make_brake(), make_event())
    await store.close()
    await place.restore()
    again = place.open()
    (event,) = await read_events(again, "store.restored")
    assert (list(await again.brakes()), event["details"]["brakes"]) == ([make_brake()], ["b1"])


async def test_takes_over_no_brake_of_another_installation(place: Place, tmp_path: Path) -> None:
    await place.open().close()
    await place.back_up()
    other = take_over(tmp_path / "other.db", place.options)
    await other.set_brake(make_brake(), make_event())
    await other.close()
    await restore_store(place.backup, tmp_path / "other.db", place.options)
    restored = take_over(tmp_path / "other.db", place.options)
    assert list(await restored.brakes()) == []
    await restored.close()


async def test_keeps_marks_uses_and_live_leases_over_a_restore(place: Place) -> None:
    store = place.open()
    call = await run(store, make_call("c1"), make_lease("l1", engine="ssh", role="push", expires=START))
    await store.complete(replace(call, state=CallState.FAILED, marks=(Mark.STOPPED,)), event_of(call))
    before = [await store.live_leases(), await store.grant_uses("acme")]
    await place.back_up()
    await store.close()
    await place.restore()
    again = place.open()
    assert [await again.live_leases(), await again.grant_uses("acme")] == before


async def test_is_taken_over_by_a_broker_that_waits(place: Place) -> None:
    options = replace(place.options, monotonic=asyncio.get_running_loop().time, epoch_seconds=0.3)
    killed = take_over(place.path, options)
    waited = await open_store(place.path, options, wait_seconds=20)
    assert waited.epoch.number == killed.epoch.number + 1
    with pytest.raises(StaleEpoch):
        await killed.beat()
    await waited.close()
    await killed.close()
