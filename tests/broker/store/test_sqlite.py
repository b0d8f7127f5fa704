"""What only the SQLite store does: files, take-over, group commit."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.audit import Verified, verify
from broker.store import call_table
from broker.store.database import Database, connect
from broker.store.options import StoreOptions
from broker.store.records import StaleEpoch, StoreBusy, StoreError
from broker.store.sqlite import SqliteStore, open_store, read_audit, take_over
from tests.contracts.stores import (
    AUDIT_KEY,
    START,
    make_call,
    make_event,
    make_lease,
    read_events,
    run,
    scope_of,
    succeed,
)

OPTIONS = StoreOptions(AUDIT_KEY, "k1")


async def open_at(path: Path) -> SqliteStore:
    return await open_store(path, OPTIONS)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_at(tmp_path / "state.db")
    yield store
    await store.close()


# --- the file --------------------------------------------------------------------------------------------
async def test_makes_files_that_only_their_owner_can_read(store: SqliteStore, tmp_path: Path) -> None:
    await succeed(store, make_call())
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert set(modes) == {"state.db", "state.db-wal", "state.db-shm"}
    assert set(modes.values()) == {0o600}


async def test_takes_the_file_away_from_other_readers(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch(mode=0o644)
    await (await open_at(path)).close()
    assert path.stat().st_mode & 0o777 == 0o600


async def test_refuses_a_second_broker_and_says_what_to_do(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(StoreBusy, match=r"state\.db: another broker has it .*Stop it, or wait"):
        await open_at(tmp_path / "state.db")
    await store.append_audit(make_event())


async def test_lets_the_next_broker_in_after_the_first_closed(store: SqliteStore, tmp_path: Path) -> None:
    await store.close()
    await (await open_at(tmp_path / "state.db")).close()


async def test_is_stale_once_somebody_took_it_over(store: SqliteStore, tmp_path: Path) -> None:
    newer = take_over(tmp_path / "state.db", OPTIONS)
    with pytest.raises(StaleEpoch, match="taken it over"):
        await store.append_audit(make_event())
    await newer.append_audit(make_event())
    await newer.close()


async def test_leaves_a_file_that_is_no_store_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"no database" * 100)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"state\.db: cannot be used"):
            await open_at(path)
    assert path.read_bytes() == b"no database" * 100


async def test_refuses_a_path_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"state\.path"):
        await open_at(tmp_path / "missing" / "state.db")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=r"state\.path"):
        await open_at(tmp_path / "folder")


async def test_refuses_a_file_of_a_newer_program(store: SqliteStore, tmp_path: Path) -> None:
    await store.close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("INSERT INTO migrations VALUES (9999, '9999_later', 'x')")
    connection.close()
    with pytest.raises(StoreError, match="newer Toolcrib"):
        await open_at(tmp_path / "state.db")


async def test_keeps_what_it_said_was_done_when_the_process_is_killed(tmp_path: Path) -> None:
    script = """
        import asyncio, os, signal, sys
        from pathlib import Path
        from tests.contracts.stores import make_call, succeed
        from tests.broker.store.test_sqlite import open_at

        async def main():
            await succeed(await open_at(Path(sys.argv[1])), make_call("c1", key="k"))
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(main())
    """
    path = tmp_path / "state.db"
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    killed = subprocess.run(command, cwd=Path(__file__).parents[3], check=False)
    assert killed.returncode == -9
    store = take_over(path, OPTIONS)
    claim = await store.claim(scope_of(make_call(key="k")), "f1", "c2")
    await store.close()
    assert claim.earlier is not None
    assert claim.earlier.call_id == "c1"


async def test_is_stale_when_it_wakes_after_it_was_stopped_and_taken_over(tmp_path: Path) -> None:
    script = """
        import asyncio, os, signal, sys
        from dataclasses import replace
        from pathlib import Path
        from broker.store.records import StaleEpoch
        from broker.store.sqlite import open_store
        from tests.broker.store.test_sqlite import OPTIONS
        from tests.contracts.stores import make_call, run, event_of
        from broker.model import CallState

        async def main():
            store = await open_store(Path(sys.argv[1]), replace(OPTIONS, epoch_seconds=0.3))
            call = await run(store, make_call("c1", key="k"))
            os.kill(os.getpid(), signal.SIGSTOP)
            try:
                await store.complete(replace(call, state=CallState.SUCCEEDED), event_of(call))
            except StaleEpoch:
                os._exit(77)

        asyncio.run(main())
    """
    path = tmp_path / "state.db"
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    stopped = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    newer = await open_store(path, OPTIONS, wait_seconds=30)
    (left,) = await newer.unfinished()
    stopped.send_signal(signal.SIGCONT)
    assert stopped.wait(30) == 77
    assert (await newer.get_call("acme", "c1")) == left
    await newer.close()


async def test_commits_what_waits_before_it_is_closed(tmp_path: Path) -> None:
    store = await open_at(tmp_path / "state.db")
    writes = [asyncio.create_task(store.append_audit(make_event())) for _ in range(20)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)
    assert len([record async for record in read_audit(tmp_path / "state.db")]) == 20


# --- the audit from outside ------------------------------------------------------------------------------
async def test_reads_the_audit_beside_a_running_broker(store: SqliteStore, tmp_path: Path) -> None:
    await asyncio.gather(*(store.append_audit(make_event()) for _ in range(1200)))
    verdict = await verify(read_audit(tmp_path / "state.db"), {"k1": AUDIT_KEY})
    assert isinstance(verdict, Verified)
    assert verdict.head.sequence == 1200
    await store.append_audit(make_event())


async def test_reads_no_audit_where_there_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        _ = [record async for record in read_audit(tmp_path / "state.db")]
    assert list(tmp_path.iterdir()) == []


# --- leases, brakes and uses -----------------------------------------------------------------------------
async def test_reads_leases_brakes_and_uses_while_a_change_takes_long(store: SqliteStore) -> None:
    await run(store, make_call(), make_lease("l1"))
    go_on = threading.Event()
    writing = asyncio.create_task(store._database.write(lambda _: go_on.wait(30)))
    found = [await store.live_leases(), await store.brakes(), await store.grant_uses("acme")]
    assert [len(one) for one in found] == [1, 0, 1]
    assert not writing.done()
    go_on.set()
    assert await writing


async def test_commits_in_groups_the_ends_of_leases_that_come_at_once(store: SqliteStore) -> None:
    await run(store, make_call(), *(make_lease(f"l{number}") for number in range(100)))
    commits: list[str] = []
    store._database._connection.set_trace_callback(
        lambda said: commits.append(said) if said == "COMMIT" else None
    )
    await asyncio.gather(*(store.lease_ended(f"l{number}", START) for number in range(100)))
    assert len(commits) < 25
    assert len(await read_events(store, "lease.ended")) == 100


async def test_owes_a_lease_of_whose_end_the_chain_takes_no_record(
    store: SqliteStore, tmp_path: Path
) -> None:
    await run(store, make_call(), make_lease("l1"))
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection, connection:
        connection.execute("CREATE TRIGGER no BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(StoreError, match="cannot be written"):
        await store.lease_ended("l1", START)
    assert len(await store.live_leases()) == 1


async def test_finds_live_leases_and_uses_without_reading_every_call(store: SqliteStore) -> None:
    def explain(connection: sqlite3.Connection) -> set[str]:
        queries: dict[str, tuple[str, ...]] = {
            call_table._OWING: ("acme",),
            call_table._USES: ("acme",),
            call_table._END_LEASE: ("0", "l1"),
        }
        plans = [
            row["detail"]
            for query, values in queries.items()
            for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", values)
        ]
        return {step for step in plans if step.startswith("SCAN")}

    assert await store._database.read(explain) == {"SCAN leases USING INDEX leases_owed"}


# --- memory ----------------------------------------------------------------------------------------------
async def test_keeps_nothing_in_memory_of_calls_that_have_ended(store: SqliteStore) -> None:
    for number in range(20):
        call = make_call(f"c{number}", key=f"k{number}")
        waiting = asyncio.create_task(store.wait_for_change(call.call_id, 10))
        await succeed(store, call)
        assert not (await store.claim(scope_of(call), "f1", "retry")).won
        await waiting
    refused = make_call(key="refused")
    await store.claim(scope_of(refused), "f1", refused.call_id)
    await store.release(scope_of(refused), refused.call_id)
    keys = store._keys
    assert (len(keys._holders), len(keys._locks), len(keys._waiting)) == (0, 0, 0)


# --- group commit ----------------------------------------------------------------------------------------
class Bench:
    """A bare database that counts its commits."""

    def __init__(self, path: Path) -> None:
        self.connection = connect_new(path)
        self.connection.execute("CREATE TABLE epochs (number INTEGER)")
        self.connection.execute("INSERT INTO epochs VALUES (1)")
        self.connection.execute("CREATE TABLE notes (text TEXT UNIQUE)")
        self.commits = 0
        self.connection.set_trace_callback(self._count)
        self.database = Database(path, self.connection, 1)

    def _count(self, statement: str) -> None:
        self.commits += statement == "COMMIT"

    async def note(self, text: str) -> None:
        await self.database.write(
            lambda connection: connection.execute("INSERT INTO notes VALUES (?)", (text,)) and None
        )

    async def notes(self) -> set[str]:
        return await self.database.read(
            lambda connection: {row["text"] for row in connection.execute("SELECT text FROM notes")}
        )


def connect_new(path: Path) -> sqlite3.Connection:
    path.touch()
    return connect(path, writes=True)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "notes.db")
    yield bench
    await bench.database.close()


async def test_commits_in_groups_what_comes_at_once(bench: Bench) -> None:
    await asyncio.gather(*(bench.note(str(number)) for number in range(200)))
    assert len(await bench.notes()) == 200
    assert bench.commits < 50


async def test_fails_only_the_change_that_is_wrong_in_a_group(bench: Bench) -> None:
    texts = ["a", "b", "a", "c"]
    outcomes = await asyncio.gather(*(bench.note(text) for text in texts), return_exceptions=True)
    assert [isinstance(outcome, StoreError) for outcome in outcomes] == [False, False, True, False]
    assert await bench.notes() == {"a", "b", "c"}


async def test_fails_the_whole_group_when_its_transaction_is_lost(bench: Bench) -> None:
    def lose(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    outcomes = await asyncio.gather(
        bench.note("a"), bench.database.write(lose), bench.note("b"), return_exceptions=True
    )
    assert isinstance(outcomes[1], StoreError)
    written = {text for text, outcome in zip("a-b", outcomes, strict=True) if outcome is None}
    assert await bench.notes() == written


async def test_hands_on_what_a_change_raises_and_undoes_it(bench: Bench) -> None:
    def change(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes VALUES ('a')")
        raise LookupError("no")

    with pytest.raises(LookupError):
        await bench.database.write(change)
    assert await bench.notes() == set()


async def test_never_lets_a_query_write(bench: Bench) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        await bench.database.read(lambda connection: connection.execute("INSERT INTO notes VALUES ('a')"))
    assert await bench.notes() == set()


async def test_puts_a_cancellation_off_until_the_outcome_is_known(bench: Bench) -> None:
    told = []

    async def caller() -> None:
        await bench.note("a")
        told.append("a")
        await asyncio.sleep(3600)

    task = asyncio.create_task(caller())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (told, await bench.notes()) == (["a"], {"a"})


async def test_lets_a_timeout_around_a_change_be_a_timeout(bench: Bench) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await bench.note("a")
            await asyncio.sleep(3600)
    assert await bench.notes() == {"a"}
