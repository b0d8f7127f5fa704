"""Who may write: the runs of brokers on one state, and what a restore left to be careful about.

Rules:
1. The newest epoch writes, and no other; every commit compares numbers, never times.
2. Times only say when another may begin: once the newest has ended or has expired. A clock that jumps ahead
   lets one in early, and the older is stale from then on: still one writer. A clock that jumps back must not
   keep everybody out: an epoch that is not prolonged while it is watched for its whole length has expired.
3. The time of grace after a restore is counted by beats, on a clock that nobody sets.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.store.moments import from_micros, to_micros
from broker.store.options import StoreOptions
from broker.store.records import StaleEpoch, StoreBusy
from broker.store.rules import KeyRow

SECOND_MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """The newest epoch.

    Attributes:
        length_seconds: What one beat of it adds.
        ended: True when it was closed.
    """

    number: int
    expires: datetime
    length_seconds: float
    ended: bool


@dataclass(frozen=True, slots=True)
class Restoration:
    """What a restore left: keys used since the backup are not known here.

    Attributes:
        at: When it was.
        epoch: The newest epoch from before it.
        grace_seconds: How much longer unknown keys are refused.
    """

    at: datetime
    epoch: int
    grace_seconds: float

    def doubts(self, key: KeyRow | None, new_since: datetime | None) -> bool:
        """Tell whether a key that looks free may have been used since the backup.

        One that was free in the backup may have been taken again after it; nobody's word helps there.
        """
        if self.grace_seconds <= 0:
            return False
        if key is not None:
            return key.epoch <= self.epoch
        return new_since is None or new_since.tzinfo is None or new_since <= self.at

    def after(self, seconds: float) -> Restoration:
        """Let time pass."""
        return Restoration(self.at, self.epoch, max(0.0, self.grace_seconds - seconds))


class Watch:
    """Watches an epoch on a clock that nobody sets: see rule 2."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seen: Run | None = None
        self._since = 0.0

    def remaining_seconds(self, run: Run, now: datetime) -> float:
        """Say how long another process may not begin; 0 when it may."""
        if run != self._seen:
            self._seen, self._since = run, self._monotonic()
        if run.ended:
            return 0.0
        watched = run.length_seconds - (self._monotonic() - self._since)
        return max(0.0, min((run.expires - now).total_seconds(), watched))

    def check_free(self, run: Run | None, now: datetime) -> None:
        """See that an epoch may begin.

        Raises:
            StoreBusy: Another process has the store.
        """
        remaining = self.remaining_seconds(run, now) if run else 0.0
        if run and remaining > 0:
            raise StoreBusy(
                f"another broker has it (epoch {run.number}), or was killed. Stop it, or wait: unless it "
                f"goes on, its epoch expires in {remaining:.1f} s",
                remaining,
            )


def find_newest(connection: sqlite3.Connection) -> Run | None:
    """Read the newest epoch; None before the first one, and in a state of an older program."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'epochs'").fetchone():
        return None
    row = connection.execute("SELECT * FROM epochs ORDER BY number DESC LIMIT 1").fetchone()
    if row is None:
        return None
    length_seconds = row["length"] / SECOND_MICROS
    return Run(row["number"], from_micros(row["expires"]), length_seconds, row["ended"] is not None)


def begin_epoch(connection: sqlite3.Connection, options: StoreOptions) -> int:
    """Begin an epoch and return its number: whoever had the newest is stale from now on."""
    now, length = to_micros(options.clock()), int(options.epoch_seconds * SECOND_MICROS)
    (number,) = connection.execute("SELECT coalesce(max(number), 0) + 1 FROM epochs").fetchone()
    connection.execute("INSERT INTO epochs VALUES (?, ?, ?, ?, NULL)", (number, now, now + length, length))
    return int(number)


def check_epoch(connection: sqlite3.Connection, number: int) -> None:
    """See that an epoch is the newest.

    Raises:
        StaleEpoch: It is not.
    """
    (newest,) = connection.execute("SELECT max(number) FROM epochs").fetchone()
    if newest != number:
        raise StaleEpoch(describe_stale(number, newest))


def describe_stale(number: int, newest: int) -> str:
    """Say who has taken over."""
    return (
        f"another broker has taken it over (epoch {newest}); this one (epoch {number}) may not change it "
        "any more"
    )


def prolong_epoch(connection: sqlite3.Connection, number: int, options: StoreOptions) -> None:
    """Let an epoch expire later."""
    expires = options.clock() + timedelta(seconds=options.epoch_seconds)
    connection.execute("UPDATE epochs SET expires = ? WHERE number = ?", (to_micros(expires), number))


def end_epoch(connection: sqlite3.Connection, number: int, now: datetime) -> None:
    """Write that an epoch was closed: the next one may begin at once."""
    connection.execute("UPDATE epochs SET ended = ? WHERE number = ?", (to_micros(now), number))


def find_restoration(connection: sqlite3.Connection) -> Restoration | None:
    """Read what the last restore left."""
    row = connection.execute("SELECT restored_at, restored_epoch, grace_left FROM installation").fetchone()
    if row is None or row["restored_at"] is None:
        return None
    at = from_micros(row["restored_at"])
    return Restoration(at, row["restored_epoch"], row["grace_left"] / SECOND_MICROS)


def write_grace(connection: sqlite3.Connection, restoration: Restoration) -> None:
    """Write how much of the time of grace is left."""
    left = int(restoration.grace_seconds * SECOND_MICROS)
    connection.execute("UPDATE installation SET grace_left = ?", (left,))
