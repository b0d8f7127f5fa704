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
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from sandboxes.egress.addresses import CALL_NAME, HOST, KINDS, TARGET_NAME
from sandboxes.egress.codec import (
    MAX_COUNT,
    ControlError,
    M,
    check_distinct,
    check_list,
    check_text,
    check_whole,
    printable,
    read_message,
)
from sandboxes.egress.messages import CloseCall, Done, Refused
from sandboxes.egress.records import ConnectionEntry

MAX_FRAME_BYTES = 1024 * 1024
MAX_TARGETS = 256
_LENGTH = struct.Struct(">I")
_PATH = re.compile(r"/[ -~]{1,1000}")

# For those who speak this protocol.
__all__ = ["ConnectionEntry", "ControlError", "printable"]


@dataclass(frozen=True, slots=True)
class TargetEntry:
    """Where a target is, as the egress process needs to know it."""

    name: str
    kind: str
    host: str
    port: int

    def __post_init__(self) -> None:
        check_text(self.name, "target name", TARGET_NAME)
        if self.kind not in KINDS:
            raise ControlError(f"target kind: {self.kind!r} is unknown")
        check_text(self.host, "target host", HOST)
        check_whole(self.port, "target port", 1, 65_535)


@dataclass(frozen=True, slots=True)
class Configure:
    """First message to the child: where it works, what it may reach, and how much of it a call may take."""

    op: ClassVar[str] = "configure"
    NESTED: ClassVar[Mapping[str, type[Any]]] = {"targets": TargetEntry}
    seq: int
    root: str
    targets: list[TargetEntry]
    connections_at_once: int
    connections_in_all: int
    connect_timeout_seconds: int
    buffer_bytes: int
    max_bytes_up: int
    max_bytes_down: int
    connection_seconds: int
    idle_seconds: int

    def __post_init__(self) -> None:
        check_whole(self.seq, "seq", 0, MAX_COUNT)
        check_text(self.root, "root", _PATH)
        check_list(self.targets, "targets", MAX_TARGETS)
        check_distinct([target.name for target in self.targets], "targets")
        check_whole(self.connections_at_once, "connections_at_once", 1, 1_000)
        check_whole(self.connections_in_all, "connections_in_all", 1, 1_000)
        check_whole(self.connect_timeout_seconds, "connect_timeout_seconds", 1, 60)
        check_whole(self.buffer_bytes, "buffer_bytes", 4_096, 1_048_576)
        check_whole(self.max_bytes_up, "max_bytes_up", 1, MAX_COUNT)
        check_whole(self.max_bytes_down, "max_bytes_down", 1, MAX_COUNT)
        check_whole(self.connection_seconds, "connection_seconds", 1, 86_400)
        check_whole(self.idle_seconds, "idle_seconds", 1, 86_400)


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
        check_whole(self.seq, "seq", 0, MAX_COUNT)
        check_text(self.call, "call", CALL_NAME)
        check_text(self.nest, "nest", CALL_NAME)
        check_whole(self.uid, "uid", 1, 2**31 - 1)
        for target in check_list(self.targets, "targets", MAX_TARGETS):
            check_text(target, "targets", TARGET_NAME)
        check_distinct(self.targets, "targets")


@dataclass(frozen=True, slots=True)
class Closed:
    """Answer to `CloseCall`: nothing of the call is left, and this is what it had."""

    op: ClassVar[str] = "closed"
    NESTED: ClassVar[Mapping[str, type[Any]]] = {"connections": ConnectionEntry}
    seq: int
    connections: list[ConnectionEntry]

    def __post_init__(self) -> None:
        check_whole(self.seq, "seq", 0, MAX_COUNT)
        check_list(self.connections, "connections", 1_000)


Request = Configure | OpenCall | CloseCall
Answer = Done | Refused | Closed

REQUESTS: Mapping[str, type[Request]] = {kind.op: kind for kind in (Configure, OpenCall, CloseCall)}
ANSWERS: Mapping[str, type[Answer]] = {kind.op: kind for kind in (Done, Refused, Closed)}


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
    return read_message(body, kinds)


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
