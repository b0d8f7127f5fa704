"""What came in at the door, before anything about it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Peer:
    """What the TLS channel proved, and what was sent to prove more. Never built from a field of a request.

    Attributes:
        unverified_pem: The leaf certificate in PEM; TLS checked its chain when the channel opened, and
            nothing has checked it since. Empty when there was none.
        unverified_authorization: Every value of metadata `authorization`; a secret, so it is not shown.
    """

    unverified_pem: bytes
    unverified_authorization: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """One tool request as it arrived.

    Attributes:
        method: The gRPC method without the leading slash.
        raw_input: Bytes of a message, or of a JSON text when `is_json`.
        metadata: The call's metadata; names in lower case. Nothing that proves who calls is in it.
        deadline: When the caller stops waiting, on the monotonic clock; infinity when never.
    """

    peer: Peer
    method: str
    raw_input: bytes
    deadline: float
    is_json: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
