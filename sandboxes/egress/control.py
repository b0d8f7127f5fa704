"""What broker and egress process say to each other, over a socketpair that only the two of them hold.

The wire: frames of a 4-byte big-endian length and that many bytes of one JSON object. Rules:
1. Every message is checked when it is made and when it is read: exact keys, exact types, ranges.
2. A frame that does not check ends the conversation; there is no guessing what was meant.
3. Each request has a number, and exactly one answer with that number.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

from sandboxes.egress.addresses import CALL_NAME, HOST, KINDS, TARGET_NAME
from sandboxes.egress.records import ConnectionRecord, Outcome

MAX_FRAME_BYTES = 1024 * 1024
MAX_TARGETS = 256
_LENGTH = struct.Struct(">I")
_TEXT = re.compile(r"[ -~]{0,1000}")
_PATH = re.compile(r"/[ -~]{1,1000}")
_MAX_COUNT = 2**53


class ControlError(Exception):
    """The other side said something that is no message."""


def _whole(value: object, name: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ControlError(f"{name}: {value!r} is no whole number within {low}-{high}")
    return value


def _text(value: object, name: str, pattern: re.Pattern[str]) -> str:
    if type(value) is not str or not pattern.fullmatch(value):
        raise ControlError(f"{name}: {str(value)[:80]!r} does not match {pattern.pattern}")
    return value


def _list(value: object, name: str, most: int) -> list[Any]:
    if type(value) is not list or len(value) > most:
        raise ControlError(f"{name}: is no list of at most {most}")
    return value


def _distinct(names: list[str], name: str) -> None:
    if len(set(names)) != len(names):
        raise ControlError(f"{name}: names one twice")


@dataclass(frozen=True, slots=True)
class TargetEntry:
    """Where a target is, as the egress process needs to know it."""

    name: str
    kind: str
    host: str
    port: int

    def __post_init__(self) -> None:
        _text(self.name, "target name", TARGET_NAME)
        if self.kind not in KINDS:
            raise ControlError(f"target kind: {self.kind!r} is unknown")
        _text(self.host, "target host", HOST)
        _whole(self.port, "target port", 1, 65_535)


@dataclass(frozen=True, slots=True)
class Configure:
    """First message to the child: where it works, what it may reach, and how much of it a call may take."""

    op: ClassVar[str] = "configure"
    seq: int
    root: str
    targets: list[TargetEntry]
    connections_at_once: int
    connections_in_all: int
    connect_timeout_seconds: int
    buffer_bytes: int

    def __post_init__(self) -> None:
        _whole(self.seq, "seq", 0, _MAX_COUNT)
        _text(self.root, "root", _PATH)
        _list(self.targets, "targets", MAX_TARGETS)
        _distinct([target.name for target in self.targets], "targets")
        _whole(self.connections_at_once, "connections_at_once", 1, 1_000)
        _whole(self.connections_in_all, "connections_in_all", 1, 1_000)
        _whole(self.connect_timeout_seconds, "connect_timeout_seconds", 1, 60)
        _whole(self.buffer_bytes, "buffer_bytes", 4_096, 1_048_576)


@dataclass(frozen=True, slots=True)
class OpenCall:
    """Make the sockets of one call in a folder that is there. Targets are names of configured ones."""

    op: ClassVar[str] = "open"
    seq: int
    call: str
    nest: str
    uid: int
    targets: list[str]

    def __post_init__(self) -> None:
        _whole(self.seq, "seq", 0, _MAX_COUNT)
        _text(self.call, "call", CALL_NAME)
        _text(self.nest, "nest", CALL_NAME)
        _whole(self.uid, "uid", 1, 2**31 - 1)
        for target in _list(self.targets, "targets", MAX_TARGETS):
            _text(target, "targets", TARGET_NAME)
        _distinct(self.targets, "targets")


@dataclass(frozen=True, slots=True)
class CloseCall:
    """End everything that a call has. A call that is not open has nothing: that is no error."""

    op: ClassVar[str] = "close"
    seq: int
    call: str

    def __post_init__(self) -> None:
        _whole(self.seq, "seq", 0, _MAX_COUNT)
        _text(self.call, "call", CALL_NAME)


@dataclass(frozen=True, slots=True)
class Done:
    """The request was carried out."""

    op: ClassVar[str] = "done"
    seq: int

    def __post_init__(self) -> None:
        _whole(self.seq, "seq", 0, _MAX_COUNT)


@dataclass(frozen=True, slots=True)
class Refused:
    """The request was not carried out, and nothing is left of the attempt."""

    op: ClassVar[str] = "refused"
    seq: int
    message: str

    def __post_init__(self) -> None:
        _whole(self.seq, "seq", 0, _MAX_COUNT)
        _text(self.message, "message", _TEXT)


@dataclass(frozen=True, slots=True)
class ConnectionEntry:
    """A connection's record on the wire; times in microseconds since 1970."""

    target: str
    address: str
    opened_micros: int
    closed_micros: int
    bytes_up: int
    bytes_down: int
    outcome: str
    detail: str

    def __post_init__(self) -> None:
        _text(self.target, "target", TARGET_NAME)
        _text(self.address, "address", _TEXT)
        for name in ("opened_micros", "closed_micros", "bytes_up", "bytes_down"):
            _whole(getattr(self, name), name, 0, _MAX_COUNT)
        if self.outcome not in list(Outcome):
            raise ControlError(f"outcome: {self.outcome!r} is unknown")
        _text(self.detail, "detail", _TEXT)

    @property
    def record(self) -> ConnectionRecord:
        """The same as the broker keeps it."""
        return ConnectionRecord(
            target=self.target,
            address=self.address,
            opened=_time(self.opened_micros),
            closed=_time(self.closed_micros),
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            outcome=Outcome(self.outcome),
            detail=self.detail,
        )


@dataclass(frozen=True, slots=True)
class Closed:
    """Answer to `CloseCall`: nothing of the call is left, and this is what it had."""

    op: ClassVar[str] = "closed"
    seq: int
    connections: list[ConnectionEntry]

    def __post_init__(self) -> None:
        _whole(self.seq, "seq", 0, _MAX_COUNT)
        _list(self.connections, "connections", 1_000)


Request = Configure | OpenCall | CloseCall
Answer = Done | Refused | Closed
M = TypeVar("M")

REQUESTS: Mapping[str, type[Request]] = {kind.op: kind for kind in (Configure, OpenCall, CloseCall)}
ANSWERS: Mapping[str, type[Answer]] = {kind.op: kind for kind in (Done, Refused, Closed)}
_ENTRIES: Mapping[tuple[str, str], type[Any]] = {
    ("configure", "targets"): TargetEntry,
    ("closed", "connections"): ConnectionEntry,
}


def printable(text: str) -> str:
    """Make any text fit for a message."""
    return text.encode("ascii", "backslashreplace").decode().replace("\n", " | ")[:500].strip()


def encode(message: Request | Answer) -> bytes:
    """Write one frame."""
    body = json.dumps({"op": message.op, **asdict(message)}, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise ControlError(f"{message.op}: a frame of {len(body)} bytes is too long")
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes, kinds: Mapping[str, type[M]]) -> M:
    """Read the body of one frame as one of the kinds that may come from that side.

    Raises:
        ControlError: It is none of them.
    """
    try:
        document = json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ControlError(f"is no JSON: {error}") from error
    op = document.pop("op", None) if type(document) is dict else None
    if type(op) is not str or op not in kinds:
        raise ControlError(f"op: {str(op)[:80]!r} is not one of {sorted(kinds)}")
    for name in list(document):
        if entry := _ENTRIES.get((op, name)):
            document[name] = [_build(entry, item) for item in _list(document[name], name, 1_000)]
    return _build(kinds[op], document)


async def read_body(reader: asyncio.StreamReader) -> bytes | None:
    """Read one frame's body; None when the other side is gone, also in the middle of a frame.

    Raises:
        ControlError: The frame is longer than any message.
    """
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_FRAME_BYTES:
            raise ControlError(f"a frame of {length} bytes is too long")
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ControlError("a key stands twice")
    return dict(pairs)


def _build(kind: type[M], document: object) -> M:
    names = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    if type(document) is not dict or set(document) != names:
        raise ControlError(f"{kind.__name__}: wants exactly {sorted(names)}")
    return kind(**document)


def _time(micros: int) -> datetime:
    try:
        return datetime.fromtimestamp(micros / 1_000_000, UTC)
    except (OverflowError, ValueError) as error:
        raise ControlError(f"time: {micros} is out of range") from error
