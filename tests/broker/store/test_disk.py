"""What the SQLite store does when its disk fails: no room, an fsync that fails, the power that goes."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.audit import Verified, verify
from broker.model import CallState
from broker.store.database import Database, connect
from broker.store.options import StoreOptions
from broker.store.records import StoreError
from broker.store.sqlite import SqliteStore, open_store, read_audit, take_over
from tests.broker.store.faults import fail_syncs, full_disk
from tests.contracts.stores import AUDIT_KEY, make_call, make_event, reserve, run, scope_of, succeed

OPTIONS = StoreOptions(AUDIT_KEY, "k1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_store(path, OPTIONS)
    yield store
    await store.close()


async def fail_from_now_on(store: SqliteStore) -> None:
    """Let every fsync of the thread that writes fail."""
    await store._database.write(lambda _: fail_syncs())
    with pytest.raises(StoreError, match="disk I/O error"):
        await store.append_audit(make_event())


# --- no room ---------------------------------------------------------------------------------------------
async def test_changes_nothing_when_the_disk_is_full(store: SqliteStore, path: Path) -> None:
    before = await succeed(store, make_call(key="k"))
    with full_disk(path.with_name("state.db-wal")), pytest.raises(StoreError, match="cannot be written"):
        await reserve(store, make_call("c2", tool_log="x" * 1_000_000))
    assert await store.get_call("acme", "c2") is None
    assert await store.get_call("acme", before.call_id) == before


async def test_goes_on_when_the_disk_has_room_again(store: SqliteStore, path: Path) -> None:
    await store.append_audit(make_event())
    with full_disk(path.with_name("state.db-wal")), pytest.raises(StoreError):
        await reserve(store, make_call("c1", tool_log="x" * 1_000_000))
    await reserve(store, make_call("c1"))
    assert isinstance(await verify(store.audit_records(), {"k1": AUDIT_KEY}), Verified)


async def test_tells_done_what_is_there_when_the_disk_fills_within_a_batch(
    store: SqliteStore, path: Path
) -> None:
    await store.append_audit(make_event())
    calls = [make_call(f"c{number}", tool_log="x" * (number * 20_000)) for number in range(40)]
    with full_disk(path.with_name("state.db-wal"), room_bytes=3_000_000):
        told = await asyncio.gather(*(reserve(store, call) for call in calls), return_exceptions=True)
    outcomes = {call.call_id: outcome for call, outcome in zip(calls, told, strict=True)}
    assert any(isinstance(outcome, StoreError) for outcome in told)
    for call_id, outcome in outcomes.items():
        assert (await store.get_call("acme", call_id) is None) == isinstance(outcome, StoreError)
    assert isinstance(await verify(store.audit_records(), {"k1": AUDIT_KEY}), Verified)


# --- an fsync that fails ---------------------------------------------------------------------------------
async def test_refuses_every_write_after_an_fsync_failed(store: SqliteStore) -> None:
    await fail_from_now_on(store)
    for change in (reserve(store, make_call()), store.append_audit(make_event()), store.beat()):
        with pytest.raises(StoreError, match="nothing is written any more until the broker is started again"):
            await change


async def test_still_answers_from_what_was_durable_after_an_fsync_failed(store: SqliteStore) -> None:
    ended = await succeed(store, make_call(key="k"))
    await fail_from_now_on(store)
    claim = await store.claim(scope_of(ended), "f1", "c2")
    assert claim.earlier == ended


async def test_writes_again_once_it_is_opened_again(store: SqliteStore, path: Path) -> None:
    ended = await succeed(store, make_call(key="k"))
    await fail_from_now_on(store)
    await store.close()
    again = take_over(path, OPTIONS)
    await again.append_audit(make_event())
    assert await again.get_call("acme", ended.call_id) == ended
    assert isinstance(await verify(again.audit_records(), {"k1": AUDIT_KEY}), Verified)
    await again.close()


async def test_has_what_failed_to_be_sure_whole_or_not_at_all(store: SqliteStore, path: Path) -> None:
    await run(store, make_call("c1", key="k"))
    await fail_from_now_on(store)
    copy = path.with_name("after-power-loss.db")
    shutil.copy(path, copy)
    shutil.copy(path.with_name("state.db-wal"), copy.with_name(copy.name + "-wal"))
    after = take_over(copy, OPTIONS)
    (left,) = await after.unfinished()
    assert left.state is CallState.DISPATCHED
    assert isinstance(await verify(after.audit_records(), {"k1": AUDIT_KEY}), Verified)
    await after.close()


class FailsOnce(sqlite3.Connection):
    """A disk whose fsync fails once, and says yes the next time."""

    failures = 0

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        if statement == "COMMIT" and self.failures:
            self.failures -= 1
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return super().execute(statement, *values)  # type: ignore[arg-type]


async def test_does_not_believe_an_fsync_that_says_yes_the_second_time(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=FailsOnce)
    connection.execute("CREATE TABLE epochs (number INTEGER)")
    connection.execute("INSERT INTO epochs VALUES (1)")
    connection.failures = 1
    database = Database(path, connection, 1)
    for _ in range(2):
        with pytest.raises(StoreError):
            await database.write(lambda _: None)
    assert connection.failures == 0
    await database.close()


# --- the power -------------------------------------------------------------------------------------------
async def test_holds_a_true_beginning_of_its_history_wherever_the_journal_was_cut(
    store: SqliteStore, path: Path
) -> None:
    for number in range(6):
        await succeed(store, make_call(f"c{number}", key=f"k{number}"))
    journal = path.with_name("state.db-wal").read_bytes()
    main = path.read_bytes()
    heads = []
    for end in range(0, len(journal) + 1, len(journal) // 23):
        copy = path.with_name(f"cut{end}.db")
        copy.write_bytes(main)
        copy.with_name(copy.name + "-wal").write_bytes(journal[:end])
        heads.append(await _head_of(copy))
    assert heads == sorted(heads)
    assert len(set(heads)) > 5


async def _head_of(copy: Path) -> int:
    """Open what a power loss left, and see that it is whole."""
    store = take_over(copy, OPTIONS)
    await store.close()
    verdict = await verify(read_audit(copy), {"k1": AUDIT_KEY})
    assert isinstance(verdict, Verified)
    connection = connect(copy, writes=False)
    assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    connection.close()
    return verdict.head.sequence
