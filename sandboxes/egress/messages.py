"""What the broker says to either process behind a sandbox's way out, and hears from it, in the same words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sandboxes.egress.addresses import CALL_NAME
from sandboxes.egress.codec import MAX_COUNT, TEXT, check_text, check_whole


@dataclass(frozen=True, slots=True)
class CloseCall:
    """End everything that a call has. A call that is not open has nothing: that is no error."""

    op: ClassVar[str] = "close"
    seq: int
    call: str

    def __post_init__(self) -> None:
        check_whole(self.seq, "seq", 0, MAX_COUNT)
        check_text(self.call, "call", CALL_NAME)


@dataclass(frozen=True, slots=True)
class Done:
    """The request was carried out."""

    op: ClassVar[str] = "done"
    seq: int

    def __post_init__(self) -> None:
        check_whole(self.seq, "seq", 0, MAX_COUNT)


@dataclass(frozen=True, slots=True)
class Refused:
    """The request was not carried out, and nothing is left of the attempt."""

    op: ClassVar[str] = "refused"
    seq: int
    message: str

    def __post_init__(self) -> None:
        check_whole(self.seq, "seq", 0, MAX_COUNT)
        check_text(self.message, "message", TEXT)
