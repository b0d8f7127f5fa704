"""Times as the store keeps them: whole microseconds since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Count the microseconds since 1970, exactly.

    Raises:
        ValueError: The time has no zone, so nobody knows when it is.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()}: a time without a zone cannot be stored")
    return (moment - EPOCH) // MICROSECOND


def to_micros_or_none(moment: datetime | None) -> int | None:
    """Count the microseconds since 1970 where there is a time."""
    return None if moment is None else to_micros(moment)


def from_micros(micros: int) -> datetime:
    """Turn microseconds since 1970 into a time in UTC."""
    return EPOCH + micros * MICROSECOND


def from_micros_or_none(micros: int | None) -> datetime | None:
    """Turn microseconds since 1970 into a time where there is one."""
    return None if micros is None else from_micros(micros)
