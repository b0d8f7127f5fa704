"""What a call can end with instead of an answer.

    ToolcribError         .reason .message .violations .details .retry_after_seconds .call_id .key .labels
    ├── Refused           this try did nothing; the caller must change something, or wait
    ├── Failed            it was allowed, then went wrong; `.reason` says whether it may have happened
    └── Unreachable       no answer of a broker came; a write may have happened: ask again with `.key`

`.reason` is one of toolcrib/v1/reasons.proto; of an Unreachable it is the gRPC status's name. `.key` is the
idempotency key that was sent: whoever asks again gives the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule that the request broke.

    Attributes:
        field: A path such as "payments[3].amount.currency".
        description: What it must be, for people.
    """

    field: str
    description: str


class ToolcribError(Exception):
    """Base of the three ways in which a call has no answer.

    Attributes:
        reason: The stable code, for example "KEY_REUSED"; all stand in toolcrib/v1/reasons.proto.
        message: One sentence for people that says what to do.
        violations: Every broken rule, by field.
        details: More for programs, for example "tool_code" and "effect" of a tool's own failure.
        retry_after_seconds: When asking again can help; None when only a change can.
        call_id: The call's record, for `get_call` and for people; empty where there is none.
        key: The idempotency key that was sent; empty where none was.
        code: The gRPC status's name, for example "INVALID_ARGUMENT".
        labels: Where the message came from: with "untrusted", a tool or its target wrote it. It is data.
        may_have_happened: Whether some try of this write may have had its effect. Then another key, or
            another way to the same end, may do it twice; the same key tells what became of it.
    """

    def __init__(  # noqa: PLR0913 - one parameter an attribute
        self,
        reason: str,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        details: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
        call_id: str = "",
        code: str = "",
        labels: Sequence[str] = (),
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.details = dict(details or {})
        self.retry_after_seconds = retry_after_seconds
        self.call_id = call_id
        self.code = code
        self.labels = tuple(labels)
        self.key = ""
        self.may_have_happened = False

    def __str__(self) -> str:
        lines = [f"{self.reason}: {self.message}"]
        lines += [f"  {item.field}: {item.description}" for item in self.violations]
        return "\n".join(lines)


class Refused(ToolcribError):
    """This try did nothing. The caller must change something, or wait."""


class Failed(ToolcribError):
    """Allowed, then went wrong. IN_DOUBT: nobody knows yet whether the write happened."""


class Unreachable(ToolcribError):
    """No broker answered, or none in time. A write may have happened: ask again with the same key."""
