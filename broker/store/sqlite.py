"""The embedded store: one SQLite file, one broker process, state and audit in one transaction.

Rules:
1. Who opens it begins an epoch, once the one before has ended or expired (epochs.py). From then on whoever
   had the older one can change nothing: every commit compares it (database.py).
2. The file is readable by its owner only.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from broker.store import epochs
from broker.store.database import Database, connect, prepare_file
from broker.store.options import StoreOptions
from broker.store.records import AuditRecord, Epoch, StoreBusy, StoreError
from broker.store.registry_tables import select_audit
from broker.store.schema import check_schema, migrate, read_migrations
from broker.store.sqlite_calls import SqliteCalls
from broker.store.sqlite_part import Begun
from broker.store.sqlite_registry import AUDIT_BATCH, SqliteRegistry
from broker.store.sqlite_workflows import SqliteWorkflows

T = TypeVar("T")

POLL_SECONDS = 0.2


async def open_store(path: Path, options: StoreOptions, *, wait_seconds: float = 0.0) -> SqliteStore:
    """Open the store of a broker; make it where there is none.

    Args:
        path: The database file. Its folder is there already.
        options: Clock, keys, retention.
        wait_seconds: How long to wait for another's epoch to end or expire. With more than an epoch's length,
            a state whose broker was killed opens whatever the clock says.

    Raises:
        StoreBusy: Another broker has it.
        StoreError: The file cannot be used, or is of a newer program.
    """
    return await when_free(options, wait_seconds, lambda watch: open_now(path, options, watch))


async def when_free(options: StoreOptions, wait_seconds: float, attempt: Callable[[epochs.Watch], T]) -> T:
    """Try something that needs a free store, off the event loop, until it is free or the time is up.

    Raises:
        StoreBusy: Another broker has it.
    """
    watch = epochs.Watch(options.monotonic)
    give_up = time.monotonic() + wait_seconds
    while True:
        try:
            return await asyncio.to_thread(attempt, watch)
        except StoreBusy as busy:
            remaining = give_up - time.monotonic()
            if remaining <= 0:
                raise
            await asyncio.sleep(min(busy.remaining_seconds, remaining, POLL_SECONDS))


def open_now(path: Path, options: StoreOptions, watch: epochs.Watch) -> SqliteStore:
    """Open the store if nobody has it by now: see `open_store`."""
    return _open(path, options, watch)


def take_over(path: Path, options: StoreOptions) -> SqliteStore:
    """Open the store without asking who has it: whoever had it before is stale from now on.

    Raises:
        StoreError: The file cannot be used, or is of a newer program.
    """
    return _open(path, options, None)


def _open(path: Path, options: StoreOptions, watch: epochs.Watch | None) -> SqliteStore:
    prepare_file(path)
    try:
        connection = connect(path, writes=True)
        try:
            begun = begin(connection, options, watch)
        except BaseException:
            connection.close()
            raise
    except StoreBusy as busy:
        raise StoreBusy(f"{path}: {busy}", busy.remaining_seconds) from busy
    except (sqlite3.Error, StoreError) as error:
        raise StoreError(f"{path}: cannot be used: {error}") from error
    return SqliteStore(Database(path, connection, begun.epoch.number), begun, options)


def begin(connection: sqlite3.Connection, options: StoreOptions, watch: epochs.Watch | None) -> Begun:
    """Begin an epoch. Whoever has the store is asked before its schema changes, and again under the lock.

    Raises:
        StoreBusy: The watch says that another has it.
        StoreError: It is a backup, or of a newer program.
    """
    _check_free(connection, options, watch)
    migrate(connection, read_migrations())
    connection.execute("BEGIN IMMEDIATE")
    _check_free(connection, options, watch)
    connection.execute(
        "INSERT INTO installation (one, id, page_key) VALUES (1, ?, ?) ON CONFLICT DO NOTHING",
        (secrets.token_hex(8), secrets.token_bytes(32)),
    )
    row = connection.execute("SELECT id, page_key, backup_at FROM installation").fetchone()
    if row["backup_at"] is not None:
        raise StoreError("it is a backup; put it in place with `toolcrib store restore`")
    number = epochs.begin_epoch(connection, options)
    begun = Begun(Epoch(row["id"], number), row["page_key"], epochs.find_restoration(connection))
    connection.execute("COMMIT")
    return begun


def _check_free(connection: sqlite3.Connection, options: StoreOptions, watch: epochs.Watch | None) -> None:
    if watch is not None:
        watch.check_free(epochs.find_newest(connection), options.clock())


async def read_audit(path: Path, after_sequence: int = 0) -> AsyncIterator[AuditRecord]:
    """Iterate over the audit chain of a store, open or not, without changing anything in it.

    Raises:
        StoreError: The file cannot be read, or is of a newer program.
    """
    try:
        connection = await asyncio.to_thread(connect, path, writes=False)
        try:
            check_schema(connection, read_migrations())
            while batch := await asyncio.to_thread(select_audit, connection, after_sequence, AUDIT_BATCH):
                for record in batch:
                    yield record
                after_sequence = batch[-1].sequence
        finally:
            connection.close()
    except (sqlite3.Error, StoreError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error


class SqliteStore(SqliteCalls, SqliteRegistry, SqliteWorkflows):
    """Implements `Store` on one SQLite file. See there for what each method promises."""

    def __init__(self, database: Database, begun: Begun, options: StoreOptions) -> None:
        super().__init__(database, begun, options)
        self._beaten = options.monotonic()

    @property
    def is_tenured(self) -> bool:
        """True while the last beat is so young that, by the clocks, nobody can have taken over."""
        return self._options.monotonic() - self._beaten < self._options.epoch_seconds / 2

    async def beat(self) -> None:
        """Let the epoch expire later, and the time of grace pass."""
        monotonic = self._options.monotonic()
        rest = self.restoration.after(monotonic - self._beaten) if self.restoration else None

        def change(connection: sqlite3.Connection) -> None:
            epochs.prolong_epoch(connection, self.epoch.number, self._options)
            if rest is not None:
                epochs.write_grace(connection, rest)

        await self._database.write(change)
        self._beaten, self.restoration = monotonic, rest

    async def close(self) -> None:
        """Commit what waits, end the epoch so that the next one may begin at once, close the file."""
        self._keys.notify_all()
        await self._database.close(
            lambda connection: epochs.end_epoch(connection, self.epoch.number, self._options.clock())
        )
