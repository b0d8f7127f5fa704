"""What broker and HTTP proxy say to each other, over a socketpair that only the two of them hold.

The wire is of kind SOCK_SEQPACKET: one message a packet, a JSON object of at most 128 KiB; `OpenCall` carries
the listening descriptors of its doors beside it (`channel.py`). Rules:
1. Every message is checked when it is made and when it is read: exact keys, exact types, ranges.
2. A packet that does not check ends the conversation; there is no guessing what was meant.
3. Each request has a number, and exactly one answer with that number. `Ended` is no answer: it comes whenever
   an exchange ended, and every one of a call before the call's `Closed`.
4. No error text holds a value of a field in which a secret may stand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from sandboxes.egress.addresses import CALL_NAME
from sandboxes.egress.codec import (
    MAX_COUNT,
    ControlError,
    M,
    check_distinct,
    check_list,
    check_text,
    check_whole,
    read_message,
)
from sandboxes.egress.messages import CloseCall, Done, Refused
from sandboxes.egress.records import ConnectionEntry
from sandboxes.proxy.entries import PEM, AccessEntry, DoorEntry, TargetEntry

MAX_MESSAGE_BYTES = 128 * 1024
MAX_TARGETS = 64
"""Of one call; with its forward door they are 65 descriptors in one packet, of 253 that fit."""


@dataclass(frozen=True, slots=True)
class Configure:
    """First message to the child: how much of it a call may take, whatever the target, and all together."""

    op: ClassVar[str] = "configure"
    seq: int
    connections_at_once: int
    connections_in_all: int
    connect_timeout_seconds: int
    connections_over_all: int = 384

    def __post_init__(self) -> None:
        check_whole(self.seq, "seq", 0, MAX_COUNT)
        check_whole(self.connections_at_once, "connections_at_once", 1, 1_000)
        check_whole(self.connections_in_all, "connections_in_all", 1, 100_000)
        check_whole(self.connect_timeout_seconds, "connect_timeout_seconds", 1, 60)
        check_whole(self.connections_over_all, "connections_over_all", 1, 100_000)


@dataclass(frozen=True, slots=True)
class Declare:
    """A target that calls may be opened for. One a message: each may have certificates of its own."""

    NESTED: ClassVar[Mapping[str, type[Any]]] = {"target": TargetEntry}
    op: ClassVar[str] = "declare"
    seq: int
    target: TargetEntry

    def __post_init__(self) -> None:
        check_whole(self.seq, "seq", 0, MAX_COUNT)
        if type(self.target) is not TargetEntry:
            raise ControlError("declare: its target is no object")


@dataclass(frozen=True, slots=True, repr=False)
class OpenCall:
    """Serve the doors of one call. Their listening descriptors come beside the message, in their order.

    Attributes:
        accesses: One for each target that the call may reach over HTTP.
        ca_certificate_pem: Of the container's own authority; empty where no target of the call is https and
            opened. `ca_key_pem` likewise.
        milliseconds: When the call has not been closed by then, everything of it is ended.
    """

    NESTED: ClassVar[Mapping[str, type[Any]]] = {"doors": DoorEntry, "accesses": AccessEntry}
    op: ClassVar[str] = "open"
    seq: int
    call: str
    doors: list[DoorEntry]
    accesses: list[AccessEntry]
    ca_certificate_pem: str
    ca_key_pem: str
    milliseconds: int

    def __post_init__(self) -> None:
        check_whole(self.seq, "seq", 0, MAX_COUNT)
        check_text(self.call, "call", CALL_NAME)
        check_list(self.doors, "doors", MAX_TARGETS + 1)
        check_distinct([door.target for door in self.doors], "doors")
        check_list(self.accesses, "accesses", MAX_TARGETS)
        names = [access.target for access in self.accesses]
        check_distinct(names, "accesses")
        if not self.doors or not {door.target for door in self.doors} - {""} <= set(names):
            raise ControlError("open: wants doors, and an access for each door's target")
        check_text(self.ca_certificate_pem, "ca_certificate_pem", PEM)
        if type(self.ca_key_pem) is not str or not PEM.fullmatch(self.ca_key_pem):
            raise ControlError("ca_key_pem: is no PEM")
        check_whole(self.milliseconds, "milliseconds", 1, 7 * 86_400_000)


@dataclass(frozen=True, slots=True)
class Closed:
    """Answer to `CloseCall`: nothing of the call is left, and all its records were told.

    Attributes:
        uncounted: How many exchanges and connections more there were than are told.
    """

    op: ClassVar[str] = "closed"
    seq: int
    uncounted: int

    def __post_init__(self) -> None:
        check_whole(self.seq, "seq", 0, MAX_COUNT)
        check_whole(self.uncounted, "uncounted", 0, MAX_COUNT)


@dataclass(frozen=True, slots=True)
class Ended:
    """An exchange or a tunnel of a call ended. No answer to anything."""

    NESTED: ClassVar[Mapping[str, type[Any]]] = {"connection": ConnectionEntry}
    op: ClassVar[str] = "ended"
    call: str
    connection: ConnectionEntry

    def __post_init__(self) -> None:
        check_text(self.call, "call", CALL_NAME)
        if type(self.connection) is not ConnectionEntry:
            raise ControlError("ended: its connection is no object")


Request = Configure | Declare | OpenCall | CloseCall
Answer = Done | Refused | Closed
Message = Request | Answer | Ended

REQUESTS: Mapping[str, type[Request]] = {kind.op: kind for kind in (Configure, Declare, OpenCall, CloseCall)}
FROM_CHILD: Mapping[str, type[Answer | Ended]] = {kind.op: kind for kind in (Done, Refused, Closed, Ended)}


def encode(message: Message) -> bytes:
    """Write one packet.

    Raises:
        ControlError: It is longer than a packet may be.
    """
    body = _write({"op": message.op, **_members(message)}).encode()
    if len(body) > MAX_MESSAGE_BYTES:
        raise ControlError(f"{message.op}: a message of {len(body)} bytes is too long; use fewer rules")
    return body


def decode(body: bytes, kinds: Mapping[str, type[M]]) -> M:
    """Read one packet as one of the kinds that may come from that side.

    Raises:
        ControlError: It is none of them.
    """
    return read_message(body, kinds)


def _members(item: Any) -> dict[str, Any]:
    """Give the fields of a message, or of an entry of one; `asdict` would copy each, which costs more."""
    return {one.name: getattr(item, one.name) for one in fields(item)}


_write = json.JSONEncoder(separators=(",", ":"), default=_members).encode
