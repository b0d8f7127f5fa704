"""What became of each connection that a call tried to make."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime


class Outcome(enum.StrEnum):
    """How a connection ended."""

    ENDED = "ended"
    """One end closed it, or lost it."""
    ABORTED = "aborted"
    """It was open when the call was closed."""
    CONNECT_FAILED = "connect_failed"
    """The target did not accept; `detail` says why."""
    OVER_LIMIT = "over_limit"
    """The call had too many; nothing was connected."""


@dataclass(frozen=True, slots=True)
class ConnectionRecord:
    """One connection of a call.

    Attributes:
        target: The operator's name for the target.
        address: "address:port" that was reached; empty when none was.
        bytes_up: From the sandbox to the target, as far as they were taken over.
        bytes_down: From the target to the sandbox.
        detail: More about a failure, for people.
    """

    target: str
    address: str
    opened: datetime
    closed: datetime
    bytes_up: int
    bytes_down: int
    outcome: Outcome
    detail: str = ""
