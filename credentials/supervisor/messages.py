"""What broker and supervisor say to each other: one JSON object in each packet of a socket.

The standard library only: the supervisor imports this.
"""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass, field
from typing import Any

MAX_PACKET_BYTES = 65_536


class Garbled(Exception):
    """What came is no message."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Which Vault it is. The files are read before the supervisor gives its rights up.

    Attributes:
        ca_file: PEM of the CA of Vault's certificate; "": the system's.
        certificate: PEM of our own certificate, and its key; "": none is shown.
        timeout_seconds: For one request.
    """

    address: str
    ca_file: str = ""
    certificate: str = ""
    private_key: str = ""
    timeout_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Keep:
    """The token to keep from now on, in place of an earlier one.

    Attributes:
        number: What `Lost` names it by.
    """

    number: int
    token: str = field(repr=False)
    period_seconds: int
    renew_seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """Renew now: something was denied."""


@dataclass(frozen=True, slots=True)
class Release:
    """End without touching the token."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The supervisor is ready for a token.

    Attributes:
        uid: Under which it runs.
    """

    uid: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The supervisor cannot begin, and ends."""

    cause: str


@dataclass(frozen=True, slots=True)
class Kept:
    """The token is taken over."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """The token has another period."""


@dataclass(frozen=True, slots=True)
class Failing:
    """The token was not renewed; it is tried again."""

    cause: str


@dataclass(frozen=True, slots=True)
class Lost:
    """Vault does not know a token any more."""

    number: int


Message = Begin | Keep | Look | Release | Ready | Refused | Kept | Renewed | Failing | Lost
_KINDS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (Begin, Keep, Look, Release, Ready, Refused, Kept, Renewed, Failing, Lost)
}


def encode(message: Message) -> bytes:
    """Write a message as one packet."""
    return json.dumps({"is": type(message).__name__.lower()} | asdict(message)).encode()


def decode(packet: bytes) -> Message:
    """Read one packet.

    Raises:
        Garbled: It is none of the messages. The text does not repeat it: it may hold a token.
    """
    try:
        fields = json.loads(packet)
        message: Message = _KINDS[fields.pop("is")](**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Garbled(f"no message in {len(packet)} bytes") from error
    return message


def make_pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends of a control socket; neither is inherited by other programs."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
