"""What every store is opened with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from broker.store.cipher import Cipher

Clock = Callable[[], datetime]

DAY_SECONDS = 86_400


def read_clock() -> datetime:
    """Read the machine's clock, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Clock, keys and retention of a store.

    Attributes:
        audit_key: Key of the audit chain; at least 16 bytes.
        key_id: Names the key in each audit record, so that it can be changed one day.
        retention_seconds: How long a key replays; after it, its claim stays as a tombstone.
        epoch_seconds: How long a process has the store after each beat. Beat at least three times as often.
        cipher: Seals requests, results and tool logs; without one they are kept clear.
        monotonic: A clock that nobody sets, in seconds: what has to last, lasts by this one.
    """

    audit_key: bytes = field(repr=False)
    key_id: str
    clock: Clock = read_clock
    retention_seconds: int = 7 * DAY_SECONDS
    epoch_seconds: float = 15.0
    cipher: Cipher | None = field(default=None, repr=False)
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if len(self.audit_key) < 16:
            raise ValueError("audit_key: is shorter than 16 bytes; make one from 32 random bytes")
        if self.epoch_seconds <= 0:
            raise ValueError("epoch_seconds: must be more than 0; 15 is a good value")
        if not self.key_id:
            raise ValueError('key_id: is empty; give the audit key a name, for example "k1"')

    @property
    def retention(self) -> timedelta:
        """The retention as a difference of times."""
        return timedelta(seconds=self.retention_seconds)
