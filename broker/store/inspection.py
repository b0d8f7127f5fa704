"""A look at a store from outside, for doctor: takes no epoch, and changes nothing in it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.store.database import connect
from broker.store.epochs import Run, find_newest
from broker.store.options import read_clock
from broker.store.records import StoreError
from broker.store.schema import check_schema, read_migrations

SETTLING_SECONDS = 30

# A lease is owed when its call has ended a while ago, or its broker: what is alive now may be in use.
_COUNT_OWED = """
SELECT count(*) FROM leases JOIN calls USING (tenant, environment, call_id)
WHERE confirmed_dead IS NULL AND (ended < ?1 OR calls.epoch < ?2)
"""
_COUNT_UNFINISHED = "SELECT count(*) FROM calls WHERE state IN ('RESERVED', 'DISPATCHED') AND epoch < ?"
_LIST_MANIFESTS = "SELECT DISTINCT tenant, manifest_yaml FROM versions WHERE state <> 'REJECTED'"


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
        manifests: Tenant and tool.yaml of each version that is not rejected.
    """

    installation: str
    live_epoch: int
    schema: tuple[int, int]
    owed_leases: int
    unfinished_calls: int
    in_doubt_calls: int
    manifests: tuple[tuple[str, str], ...]


def look_into(path: Path) -> StateView:
    """Look into the store of a broker that may be running.

    Raises:
        StoreError: It cannot be read, or is of another program.
    """
    if not path.is_file():
        raise StoreError(f"{path}: is not there; `toolcrib serve` makes it at its first start")
    try:
        with _reading(path) as connection:
            return _look(connection)
    except (sqlite3.Error, StoreError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error


def is_live(path: Path) -> bool:
    """Tell whether a broker has the store, or was killed so lately that nobody can tell.

    Raises:
        StoreError: It cannot be read.
    """
    if not path.is_file():
        return False
    try:
        with _reading(path) as connection:
            newest = find_newest(connection)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    return newest is not None and _is_live(newest)


def _is_live(run: Run) -> bool:
    return not run.ended and read_clock() < run.expires


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Read one snapshot."""
    connection = connect(path, writes=False)
    try:
        connection.execute("BEGIN")
        yield connection
    finally:
        connection.close()


def _look(connection: sqlite3.Connection) -> StateView:
    steps = read_migrations()
    schema = (check_schema(connection, steps), len(steps))
    row = connection.execute("SELECT id FROM installation").fetchone()
    newest = find_newest(connection)
    if row is None or newest is None:
        raise StoreError("no broker finished a start of this version on it; start one")
    is_running = _is_live(newest)
    # The epochs below this one are dead; without a broker every one is.
    first_live = newest.number if is_running else newest.number + 1
    settled = int((time.time() - SETTLING_SECONDS) * 1_000_000)
    count = "SELECT count(*) FROM calls WHERE state = 'IN_DOUBT'"
    return StateView(
        installation=row["id"],
        live_epoch=newest.number if is_running else 0,
        schema=schema,
        owed_leases=_count(connection, _COUNT_OWED, settled, first_live),
        unfinished_calls=_count(connection, _COUNT_UNFINISHED, first_live),
        in_doubt_calls=_count(connection, count),
        manifests=tuple((row[0], row[1]) for row in connection.execute(_LIST_MANIFESTS)),
    )


def _count(connection: sqlite3.Connection, query: str, *values: int) -> int:
    return int(connection.execute(query, values).fetchone()[0])
