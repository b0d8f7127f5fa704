"""A look at a store from outside, for doctor: takes no epoch and no lock, and changes nothing in it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.store.database import connect
from broker.store.protocol import StoreError
from broker.store.schema import check_schema, read_migrations

SETTLING_SECONDS = 30
_LOCKS = Path("/proc/locks")

# A lease is owed when its call has ended a while ago, or its broker: what is alive now may be in use.
_COUNT_OWED = """
SELECT count(*) FROM leases JOIN calls USING (tenant, environment, call_id)
WHERE confirmed_dead IS NULL AND (ended < ?1 OR calls.epoch < ?2)
"""
_COUNT_UNFINISHED = "SELECT count(*) FROM calls WHERE state IN ('RESERVED', 'DISPATCHED') AND epoch < ?"
_LIST_MANIFESTS = "SELECT DISTINCT manifest_yaml FROM versions WHERE state <> 'REJECTED'"


@dataclass(frozen=True, slots=True)
class StateView:
    """What a store says to somebody who only looks.

    Attributes:
        installation: Its id, as containers carry it.
        live_epoch: Epoch of the broker that runs on it now; 0 when none does.
        schema: How many steps of the schema it has, and how many this program knows.
        owed_leases: Leases whose end is not confirmed though nothing uses them.
        unfinished_calls: Calls that an earlier broker left open; the next one adopts them.
        in_doubt_calls: Calls of which nobody knows whether they happened.
        manifests: tool.yaml of each version that is not rejected.
    """

    installation: str
    live_epoch: int
    schema: tuple[int, int]
    owed_leases: int
    unfinished_calls: int
    in_doubt_calls: int
    manifests: tuple[str, ...]


def look_into(path: Path) -> StateView:
    """Look into the store of a broker that may be running.

    Raises:
        StoreError: It cannot be read, or is of another program.
    """
    if not path.is_file():
        raise StoreError(f"{path}: is not there; `toolcrib serve` makes it at its first start")
    try:
        with _reading(path) as connection:
            return _look(connection, is_running=is_locked(path.with_name(path.name + ".lock")))
    except (sqlite3.Error, StoreError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error


def is_locked(path: Path) -> bool:
    """Tell whether a process holds a lock on a file, without trying to lock it: that could refuse a broker.

    See proc(5) for the form of /proc/locks. Another mount with the same inode number would look the same.
    """
    try:
        inode = str(path.stat().st_ino)
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return False
    return any(_names_inode(line.split(), inode) for line in lines)


def _names_inode(words: list[str], inode: str) -> bool:
    return "FLOCK" in words and any(word.count(":") == 2 and word.endswith(f":{inode}") for word in words)


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Read one snapshot."""
    connection = connect(path, writes=False)
    try:
        connection.execute("BEGIN")
        yield connection
    finally:
        connection.close()


def _look(connection: sqlite3.Connection, *, is_running: bool) -> StateView:
    steps = read_migrations()
    schema = (check_schema(connection, steps), len(steps))
    row = connection.execute("SELECT id, epoch FROM installation").fetchone()
    if row is None:
        raise StoreError("no broker ever finished its first start on it; start one")
    # The epochs below this one are dead; without a broker every one is.
    first_live = row["epoch"] if is_running else row["epoch"] + 1
    settled = int((time.time() - SETTLING_SECONDS) * 1_000_000)
    count = "SELECT count(*) FROM calls WHERE state = 'IN_DOUBT'"
    return StateView(
        installation=row["id"],
        live_epoch=row["epoch"] if is_running else 0,
        schema=schema,
        owed_leases=_count(connection, _COUNT_OWED, settled, first_live),
        unfinished_calls=_count(connection, _COUNT_UNFINISHED, first_live),
        in_doubt_calls=_count(connection, count),
        manifests=tuple(row[0] for row in connection.execute(_LIST_MANIFESTS)),
    )


def _count(connection: sqlite3.Connection, query: str, *values: int) -> int:
    return int(connection.execute(query, values).fetchone()[0])
