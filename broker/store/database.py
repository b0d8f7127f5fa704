"""The SQLite file: one thread that writes, two that read, and errors with one name.

Rules:
1. Changes that wait while the disk is busy share the next commit (group commit); each is a savepoint, so one
   that fails takes nothing else with it.
2. A change is told done after its commit. If the commit fails, all changes in it fail and none is there.
3. The first statement of every commit compares the epoch, under the write lock that holds until its end.
   It must be the newest one; when it expires does not matter here.
4. A caller who is cancelled gets the change's outcome first and the cancellation at its next await: it must
   know whether it holds a reservation.
5. A change that nobody waits for (`Turn.LAST`) is written behind those that somebody does, and before the
   next change or query that could see it is missing.
6. After an fsync that failed nothing is written any more until the file is opened again. The kernel may have
   dropped what it could not write and say yes the next time; only what is read back from the disk is true.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import queue
import sqlite3
import stat
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from broker.store.epochs import check_epoch
from broker.store.records import StaleEpoch, StoreError

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], T]

log = logging.getLogger(__name__)

MAX_GROUP = 128
READERS = 2
# What nobody waits for is written after so long a lull, or when so many wait, or so many commits came first.
LULL_SECONDS = 0.025
MAX_LATE = 16
# The log is copied into the file in a pause, after so many commits: not in the middle of somebody's change.
PAUSE_SECONDS = 0.005
COMMITS_A_COPY = 50
# After these nobody knows what is on the disk.
_LAST_ERRORS = {
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_DIR_FSYNC,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
}
BUSY_SECONDS = 5.0

_WRITER_SETTINGS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 8000",  # pages; where there is no pause
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
)
_READER_SETTINGS = ("PRAGMA query_only = ON", "PRAGMA trusted_schema = OFF")


def prepare_file(path: Path) -> None:
    """Make the file where there is none, and see that only its owner can read it.

    SQLite gives its side files (-wal, -shm) the mode of the database.

    Raises:
        StoreError: It cannot be made, or is no regular file.
    """
    is_new = not path.exists()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: cannot be opened ({error.strerror}); see state.path") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StoreError(f"{path}: is no regular file; see state.path")
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    if is_new:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """See that the names in a folder survive a power loss.

    Raises:
        StoreError: They cannot be written.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error.strerror})") from error
    finally:
        os.close(descriptor)


def connect(path: Path, *, writes: bool) -> sqlite3.Connection:
    """Open a connection with our settings.

    Raises:
        sqlite3.Error: The file is no database, or cannot be read.
    """
    mode = "rw" if writes else "ro"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=BUSY_SECONDS,
        check_same_thread=False,
    )
    connection.row_factory = sqlite3.Row
    try:
        for setting in _WRITER_SETTINGS if writes else _READER_SETTINGS:
            connection.execute(setting)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class Turn(enum.Enum):
    """When a change is written, among those that wait.

    FIRST may come before those that are LAST: it has nothing to do with what they change. NEXT comes after
    everything that was given before it.
    """

    FIRST = 0
    NEXT = 1
    LAST = 2


@dataclass(frozen=True, slots=True)
class _Job:
    change: Change[Any]
    done: asyncio.Future[Any]
    turn: Turn = Turn.NEXT


@dataclass(frozen=True, slots=True)
class _Failed:
    error: Exception


class Database:
    """Runs changes and queries off the event loop."""

    def __init__(self, path: Path, writer: sqlite3.Connection, epoch: int) -> None:
        self._path = path
        self._connection = writer
        self._epoch = epoch
        self._closed, self._broken = False, ""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._late: deque[_Job] = deque()  # the writer's own
        self._commits = self._passed = 0  # since the log was copied; before what is late
        self._late_count = 0  # the event loop's own: those that are not done
        self._thread = threading.Thread(target=self._write_for_ever, name="store-writer", daemon=True)
        self._thread.start()
        self._local = threading.local()
        self._reader_connections: list[sqlite3.Connection] = []
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")

    async def write(self, change: Change[T], turn: Turn = Turn.NEXT) -> T:
        """Run a change in the next commit, or in that of its turn; return its value once it is durable.

        Raises:
            StaleEpoch: Another process took the store over.
            StoreError: The change could not be written; nothing changed.
        """
        if self._closed:
            raise StoreError("the store is closed")
        done: asyncio.Future[T] = _Outcome(loop=asyncio.get_running_loop())
        if turn is Turn.LAST:
            self._late_count += 1
            done.add_done_callback(self._count_late)
        self._jobs.put(_Job(change, done, turn))
        return await _outlast_cancellation(done)

    def _count_late(self, _: asyncio.Future[Any]) -> None:
        self._late_count -= 1

    async def read(self, query: Change[T], *, sees_late: bool = True) -> T:
        """Run a query on one snapshot.

        Args:
            query: Run with a connection that only reads.
            sees_late: False where no change that is LAST could change what the query finds.

        Raises:
            StoreError: The file cannot be read.
        """
        if self._closed:
            raise StoreError("the store is closed")
        if sees_late and self._late_count:
            await self.write(_change_nothing)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, query)

    async def close(self, last: Change[None] | None = None) -> None:
        """Commit what waits and a last change, if it can be written; end the threads, close the file."""
        if self._closed:
            return
        self._closed = True
        if last is not None:
            done: asyncio.Future[None] = _Outcome(loop=asyncio.get_running_loop())
            self._jobs.put(_Job(last, done))
            try:
                await _outlast_cancellation(done)
            except StoreError as error:
                log.warning("the epoch was not ended", extra={"cause": str(error)})
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._jobs.put(None)
        self._thread.join()
        self._readers.shutdown(wait=True)
        for connection in (*self._reader_connections, self._connection):
            connection.close()

    # --- reading -----------------------------------------------------------------------------------------
    def _read(self, query: Change[T]) -> T:
        try:
            connection = self._reader()
            connection.execute("BEGIN")
            try:
                return query(connection)
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: cannot be read: {error}") from error

    def _reader(self) -> sqlite3.Connection:
        if not hasattr(self._local, "connection"):
            self._local.connection = connect(self._path, writes=False)
            self._reader_connections.append(self._local.connection)
        connection: sqlite3.Connection = self._local.connection
        return connection

    # --- writing -----------------------------------------------------------------------------------------
    def _write_for_ever(self) -> None:
        while (group := self._next_group()) is not None:
            outcomes = self._commit(group)
            try:
                group[0].done.get_loop().call_soon_threadsafe(_deliver, group, outcomes)
            except RuntimeError:
                log.warning("the event loop ended before %d changes could be told done", len(group))

    def _next_group(self) -> Sequence[_Job] | None:
        """Wait for a change, and take those that are there by then with it; None at the end."""
        group: list[_Job] = []
        while not group:
            try:
                job = self._jobs.get(timeout=self._find_patience())
            except queue.Empty:
                if self._late:
                    return self._take_late()
                self._copy_log()
                continue
            more = self._sort_in(job, group)
            while more and len(group) < MAX_GROUP:
                try:
                    more = self._sort_in(self._jobs.get_nowait(), group)
                except queue.Empty:
                    break
            if not more:
                if not (group or self._late):
                    return None
                self._jobs.put(None)  # the end, after this group
                return [*self._take_late(), *group]
        self._passed += bool(self._late)
        must = max(len(self._late), self._passed) >= MAX_LATE or any(job.turn is Turn.NEXT for job in group)
        return [*self._take_late(), *group] if must else group

    def _find_patience(self) -> float | None:
        """Say how long to wait for a change before something else is to be done."""
        if self._late:
            return LULL_SECONDS
        return PAUSE_SECONDS if self._commits >= COMMITS_A_COPY else None

    def _copy_log(self) -> None:
        """Copy what is committed from the log into the file, as far as no reader needs the log."""
        self._commits = 0
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            log.warning("the log was not copied", extra={"cause": str(error)})
            self._give_up_after(error)

    def _sort_in(self, job: _Job | None, group: list[_Job]) -> bool:
        """Put a change where its turn is; False at the end."""
        if job is not None:
            (self._late if job.turn is Turn.LAST else group).append(job)
        return job is not None

    def _take_late(self) -> Sequence[_Job]:
        late, self._passed = list(self._late), 0
        self._late.clear()
        return late

    def _commit(self, group: Sequence[_Job]) -> Sequence[Any]:
        if self._broken:
            return [_Failed(StoreError(self._broken)) for _ in group]
        alone = len(group) == 1  # what goes wrong takes nothing else with it
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            check_epoch(self._connection, self._epoch)
            outcomes = [job.change(self._connection) if alone else self._run(job) for job in group]
            self._connection.execute("COMMIT")
            self._commits += 1
        except StaleEpoch as error:
            self._roll_back()
            return [_Failed(StaleEpoch(f"{self._path}: {error}")) for _ in group]
        except Exception as error:  # whatever it is, each caller must hear of it
            self._roll_back()
            self._give_up_after(error)
            if alone and not isinstance(error, sqlite3.Error):
                return [_Failed(error)]
            return [_Failed(self._as_store_error(error)) for _ in group]
        return outcomes

    def _run(self, job: _Job) -> Any:
        """Run one change between savepoints; an error that ended the transaction fails the whole group."""
        self._connection.execute("SAVEPOINT change")
        try:
            value = job.change(self._connection)
        except Exception as error:
            if not self._connection.in_transaction or _is_last(error):
                raise
            self._connection.execute("ROLLBACK TO change")
            value = _Failed(self._as_store_error(error) if isinstance(error, sqlite3.Error) else error)
        self._connection.execute("RELEASE change")
        return value

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._break(f"a transaction cannot be rolled back: {error}")

    def _give_up_after(self, error: Exception) -> None:
        if _is_last(error):
            self._break(f"it is not known what is on the disk: {error}")

    def _break(self, why: str) -> None:
        self._broken = f"{self._path}: nothing is written any more until the broker is started again: {why}"
        log.critical("store stopped writing", extra={"cause": why})

    def _as_store_error(self, error: Exception) -> StoreError:
        if isinstance(error, StoreError):
            return StoreError(str(error))
        return StoreError(f"{self._path}: cannot be written: {error}")


def _is_last(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) in _LAST_ERRORS


def _deliver(group: Sequence[_Job], outcomes: Sequence[Any]) -> None:
    """Tell each caller its outcome, on the event loop."""
    for job, outcome in zip(group, outcomes, strict=True):
        if isinstance(outcome, _Failed):
            job.done.set_exception(outcome.error)
        else:
            job.done.set_result(outcome)


def _change_nothing(_: sqlite3.Connection) -> None:
    """Come after what is LAST."""


class _Outcome(asyncio.Future[T]):
    """What becomes of a change. Whoever waits for it gets it first, and is cancelled afterwards."""

    def cancel(self, msg: object = None) -> bool:
        """Refuse: the change is on its way. The task that waits is cancelled when it goes on."""
        return False


async def _outlast_cancellation(done: asyncio.Future[T]) -> T:
    """Await an outcome; a cancellation in between is put off to the caller's next await."""
    cancelled = False
    while not done.done():
        try:
            return await done
        except asyncio.CancelledError:
            cancelled = True
    if cancelled and (task := asyncio.current_task()) is not None:
        task.uncancel()
        task.cancel()
    return done.result()
