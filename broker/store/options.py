"""What every store is opened with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

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
    """

    audit_key: bytes = field(repr=False)
    key_id: str
    clock: Clock = read_clock
    retention_seconds: int = 7 * DAY_SECONDS

    def __post_init__(self) -> None:
        if len(self.audit_key) < 16:
            raise ValueError("audit_key: is shorter than 16 bytes; make one from 32 random bytes")
        if not self.key_id:
            raise ValueError('key_id: is empty; give the audit key a name, for example "k1"')

    @property
    def retention(self) -> timedelta:
        """The retention as a difference of times."""
        return timedelta(seconds=self.retention_seconds)
