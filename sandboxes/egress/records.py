"""What became of each connection, and of each HTTP exchange, that a call tried to make.

`ConnectionRecord` is what the broker keeps. `ConnectionEntry` is the same in numbers and text: as the egress
process and the HTTP proxy tell it, and as the store writes it. Rules:
1. Nothing of a body, a query or a path stands in it: the path is the template of the rule that allowed it.
2. An entry is checked when it is made, so also when it is read: it comes from where hostile bytes are read.

Standard library only: both child processes load this file.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Self

from sandboxes.egress.codec import (
    MAX_COUNT,
    TEXT,
    ControlError,
    check_text,
    check_whole,
    printable,
    read_time,
)

MAX_KEPT = 256
"""Records that are kept of one call; of more only their number is."""

_TARGET = re.compile(r"(?:[a-z][a-z0-9-]{0,62})?")
_METHOD = re.compile(r"(?:[A-Z][A-Z-]{0,19})?")
_DIGEST = re.compile(r"(?:[0-9a-f]{64})?")
_RULE = re.compile(r"[ -~]{0,2000}")


class Outcome(enum.StrEnum):
    """How a connection or an exchange ended."""

    ENDED = "ended"
    """One end closed it, or lost it; an exchange came to the end of its answer."""
    ABORTED = "aborted"
    """It was open when the call was closed."""
    CONNECT_FAILED = "connect_failed"
    """The target did not accept, or is not who it should be; `detail` says why."""
    OVER_LIMIT = "over_limit"
    """The call had too many; nothing was connected."""
    REFUSED = "refused"
    """No rule allows it, or its address is none that may be reached; nothing of it was passed on."""
    PROTOCOL_REFUSED = "protocol_refused"
    """What came from the sandbox is not what is spoken there; nothing of it was passed on."""
    BAD_ANSWER = "bad_answer"
    """What came from the target could not be passed on; `detail` says why."""
    CUT = "cut"
    """It reached a limit of bytes."""
    TIMED_OUT = "timed_out"
    """It reached a limit of time."""
    LOST = "lost"
    """The process that carried the call's connections died: what it had not told by then is not known."""


@dataclass(frozen=True, slots=True)
class ConnectionRecord:
    """One connection of a call, or one HTTP exchange.

    Attributes:
        target: The operator's name for the target; empty where the request was for none.
        address: "address:port" that was reached; empty when none was.
        bytes_up: From the sandbox to the target, as far as they were taken over.
        bytes_down: From the target to the sandbox.
        detail: More about a failure, for people; nothing that the target said.
        method: Of an HTTP request; empty for what is no request, or none that was understood.
        path_template: Path of the rule that allowed it, as the manifest has it; empty where none did.
        status: Of the HTTP answer; 0 where there was none.
        rule: The manifest's rule that allowed it.
        grant_rule: The grant's rule that allowed it, where the grant narrows.
        injected: The manifest's name of the credential that was added; empty: none.
        stripped: How often its secret stood in what came back, and was taken out.
        request_sha256: Of the body, hex; empty where the operator does not ask for it.
        response_sha256: So is this.
    """

    target: str
    address: str
    opened: datetime
    closed: datetime
    bytes_up: int
    bytes_down: int
    outcome: Outcome
    detail: str = ""
    method: str = ""
    path_template: str = ""
    status: int = 0
    rule: str = ""
    grant_rule: str = ""
    injected: str = ""
    stripped: int = 0
    request_sha256: str = ""
    response_sha256: str = ""


@dataclass(frozen=True, slots=True)
class ConnectionEntry:
    """A connection's record on the wire and in the store; times in microseconds since 1970.

    Raises:
        ControlError: When it is made: something is out of its range.
    """

    target: str
    address: str
    opened_micros: int
    closed_micros: int
    bytes_up: int
    bytes_down: int
    outcome: str
    detail: str = ""
    method: str = ""
    path_template: str = ""
    status: int = 0
    rule: str = ""
    grant_rule: str = ""
    injected: str = ""
    stripped: int = 0
    request_sha256: str = ""
    response_sha256: str = ""

    def __post_init__(self) -> None:
        for name, pattern in _PATTERNS.items():
            check_text(getattr(self, name), name, pattern)
        for name, most in _MOST.items():
            check_whole(getattr(self, name), name, 0, most)
        if self.outcome not in _OUTCOMES:
            raise ControlError(f"outcome: {str(self.outcome)[:80]!r} is unknown")

    @classmethod
    def of(cls, record: ConnectionRecord) -> Self:
        """Write a record in numbers and text."""
        values = {name: getattr(record, name) for name in _SAME}
        return cls(
            **values,
            opened_micros=_to_micros(record.opened),
            closed_micros=_to_micros(record.closed),
            outcome=str(record.outcome),
        )

    @classmethod
    def read(cls, document: object) -> Self:
        """Read what `document()` wrote, here or in another process.

        Raises:
            ControlError: It is no such thing.
        """
        if type(document) is not dict or not _NEEDED <= set(document) <= _NAMES:
            raise ControlError(f"a connection: wants {sorted(_NEEDED)} and at most {sorted(_NAMES)}")
        return cls(**document)

    def document(self) -> dict[str, str | int]:
        """Write it for JSON, without what is at its default."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name in _NEEDED or value != _DEFAULTS.get(name)
        }

    @property
    def record(self) -> ConnectionRecord:
        """The same as the broker keeps it."""
        values = {name: getattr(self, name) for name in _SAME}
        return ConnectionRecord(
            **values,
            opened=read_time(self.opened_micros),
            closed=read_time(self.closed_micros),
            outcome=Outcome(self.outcome),
        )


_PATTERNS: Mapping[str, re.Pattern[str]] = {
    "target": _TARGET,
    "address": TEXT,
    "detail": TEXT,
    "method": _METHOD,
    "path_template": _RULE,
    "rule": _RULE,
    "grant_rule": _RULE,
    "injected": TEXT,
    "request_sha256": _DIGEST,
    "response_sha256": _DIGEST,
}
_MOST: Mapping[str, int] = {
    "opened_micros": MAX_COUNT,
    "closed_micros": MAX_COUNT,
    "bytes_up": MAX_COUNT,
    "bytes_down": MAX_COUNT,
    "status": 999,
    "stripped": 2**32 - 1,
}
_OUTCOMES = tuple(str(one) for one in Outcome)  # no set: a list that came instead could not be looked up
_DEFAULTS = {item.name: item.default for item in fields(ConnectionEntry)[7:]}
_NAMES = {item.name for item in fields(ConnectionEntry)}
_NEEDED = _NAMES - set(_DEFAULTS)
_SAME = _NAMES - {"opened_micros", "closed_micros", "outcome"}


def lost_record(when: datetime, detail: str) -> ConnectionRecord:
    """Say in a call's record that the process behind its connections died under it."""
    return ConnectionRecord("", "", when, when, 0, 0, Outcome.LOST, printable(detail))


def keep_connections(records: Sequence[ConnectionRecord]) -> tuple[tuple[ConnectionRecord, ...], int]:
    """Put a call's records in the order of their beginnings and keep `MAX_KEPT`.

    What says that a process died is kept in any case. Of the others each kind (target, rule, outcome) has
    its share, the earliest of it: a tool that asks for nothing 256 times does not hide what it does then.

    Returns:
        What is kept, and how many are not.
    """
    if not records:
        return (), 0  # most calls reach nothing, and pay nothing for it
    lost = [one for one in records if one.outcome is Outcome.LOST][:MAX_KEPT]
    others = sorted((one for one in records if one.outcome is not Outcome.LOST), key=lambda one: one.opened)
    if len(others) > MAX_KEPT - len(lost):
        others = _share_out(others)[: MAX_KEPT - len(lost)]
    kept = sorted([*others, *lost], key=lambda one: one.opened)
    return tuple(kept), len(records) - len(kept)


def _share_out(records: Sequence[ConnectionRecord]) -> list[ConnectionRecord]:
    """Put the first of each kind before the second of any; nothing that a tool says makes a kind."""
    counts: Counter[tuple[str, str, Outcome]] = Counter()
    ranked = []
    for record in records:
        kind = (record.target, record.rule, record.outcome)
        ranked.append((counts[kind], record))
        counts[kind] += 1
    return [record for _, record in sorted(ranked, key=lambda pair: pair[0])]


def _to_micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)
