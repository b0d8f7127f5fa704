"""The embedded store: one SQLite file, one broker process, state and audit in one transaction.

Rules:
1. A lock on a file beside the database refuses a second broker kindly. What makes it safe is the epoch: each
   opening counts it up, and every commit compares it (database.py).
2. The file is readable by its owner only; it holds requests' results in clear.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

from broker.store.database import Database, connect, prepare_file
from broker.store.options import DAY_SECONDS, Clock, StoreOptions, read_clock
from broker.store.protocol import AuditRecord, Epoch, StoreError
from broker.store.registry_tables import select_audit
from broker.store.schema import check_schema, migrate, read_migrations
from broker.store.sqlite_calls import SqliteCalls
from broker.store.sqlite_registry import AUDIT_BATCH, SqliteRegistry


async def open_store(
    path: Path,
    clock: Clock = read_clock,
    *,
    audit_key: bytes,
    key_id: str,
    retention_seconds: int = 7 * DAY_SECONDS,
) -> SqliteStore:
    """Open the store of a broker; make it where there is none.

    Args:
        path: The database file. Its folder is there already.
        clock: Tells the time, in UTC.
        audit_key: Key of the audit chain.
        key_id: Names that key.
        retention_seconds: How long an idempotency key replays.

    Raises:
        StoreError: The file cannot be used, is of a newer program, or another broker has it open.
    """
    options = StoreOptions(audit_key, key_id, clock, retention_seconds)
    return await asyncio.to_thread(_open_locked, path, options)


def _open_locked(path: Path, options: StoreOptions) -> SqliteStore:
    lock = _lock(path)
    try:
        store = open_unlocked(path, options)
    except BaseException:
        os.close(lock)
        raise
    store.lock = lock
    return store


def open_unlocked(path: Path, options: StoreOptions) -> SqliteStore:
    """Open the store without asking who has it: whoever had it before is stale from now on.

    Raises:
        StoreError: The file cannot be used, or is of a newer program.
    """
    prepare_file(path)
    try:
        connection = connect(path, writes=True)
        try:
            migrate(connection, read_migrations())
            epoch, page_key = _begin_epoch(connection)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, StoreError) as error:
        raise StoreError(f"{path}: cannot be used: {error}") from error
    return SqliteStore(Database(path, connection, epoch.number), epoch, page_key, options)


def _lock(path: Path) -> int:
    """Lock the file beside the database, for this process only."""
    beside = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{beside}: cannot be opened ({error.strerror}); see state.path") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"{path}: another broker has it open; stop that one first") from error
    return descriptor


def _begin_epoch(connection: sqlite3.Connection) -> tuple[Epoch, bytes]:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "INSERT INTO installation VALUES (1, ?, 0, ?) ON CONFLICT DO NOTHING",
        (secrets.token_hex(8), secrets.token_bytes(32)),
    )
    connection.execute("UPDATE installation SET epoch = epoch + 1")
    row = connection.execute("SELECT id, epoch, page_key FROM installation").fetchone()
    connection.execute("COMMIT")
    return Epoch(row["id"], row["epoch"]), row["page_key"]


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


class SqliteStore(SqliteCalls, SqliteRegistry):
    """Implements `Store` on one SQLite file. See there for what each method promises.

    Attributes:
        lock: Descriptor of the lock beside the file; closed with the store.
    """

    lock: int | None = None

    async def close(self) -> None:
        """Commit what waits, close the file, let go of the lock."""
        self._keys.notify_all()
        await self._database.close()
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None
