"""The two families of error that a call can end with, and nothing else.

    CallError
    ├── Refused   nothing happened; the caller must change something (or wait)
    └── Failed    it was allowed, then went wrong; `retryable` says whether asking again can help

Each carries a stable `Reason`. broker/api/status.py maps them to gRPC statuses, in that one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolcrib.v1.reasons_pb2 import Reason
from tools.errors import Violation


class CallError(Exception):
    """Base of both families.

    Attributes:
        reason: The stable code.
        message: One sentence for people that says what to do. Never holds arguments or secrets.
        violations: Every broken rule, by field.
        retry_after_seconds: When asking again can help; None when only a change can.
        details: More for ErrorInfo.metadata, for example the approval id.
        passes: False where it is known that the same goes wrong again until somebody changes something.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        retry_after_seconds: float | None = None,
        details: Mapping[str, str] | None = None,
        passes: bool = True,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.retry_after_seconds = retry_after_seconds
        self.details = dict(details or {})
        self.passes = passes

    @property
    def reason_name(self) -> str:
        """The reason as it travels, for example "KEY_REUSED"."""
        return Reason.Name(self.reason).removeprefix("REASON_")


class Refused(CallError):
    """Nothing happened. The caller must change something, or wait."""


class Failed(CallError):
    """Allowed, then went wrong. For a write the record says whether it may have happened."""

    @property
    def retryable(self) -> bool:
        """True when the same request may succeed later."""
        return self.retry_after_seconds is not None
