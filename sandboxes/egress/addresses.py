"""What the operator declares as reachable, and how a sandbox sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

CONTAINER_DIR = "/run/toolcrib"
"""Where a call's socket folder is mounted, read-only, in its container."""

SOCKET_NAMES: Mapping[str, str] = {"postgresql": ".s.PGSQL.5432"}
"""File name of the socket by kind of target. libpq and asyncpg find this one when the folder is given as host
and no port is: so the port that the target really listens on does not matter inside."""

TARGET_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
CALL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
HOST = re.compile(r"[A-Za-z0-9_.:-]{1,253}")


class TargetInvalid(ValueError):
    """A declared target cannot be used; the message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class TargetAddress:
    """A system that tools may reach when manifest and grant name it.

    Attributes:
        name: The operator's name for it, for example "orders-db".
        kind: What speaks there: "postgresql".
        host: Name or address that the egress process connects to.
        port: TCP port, 1 to 65535.
        settings: What the operator lets handlers know, for example {"database": "shop"}; no secrets.
    """

    name: str
    kind: str
    host: str
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not TARGET_NAME.fullmatch(self.name):
            raise TargetInvalid(f"target {self.name!r}: use 1-63 of a-z, 0-9 and -, starting with a letter")
        if self.kind not in SOCKET_NAMES:
            raise TargetInvalid(
                f"target {self.name}: kind {self.kind!r} is not one of {sorted(SOCKET_NAMES)}"
            )
        if not HOST.fullmatch(self.host):
            raise TargetInvalid(f"target {self.name}: host {self.host!r} is no host name or address")
        if type(self.port) is not int or not 1 <= self.port <= 65_535:
            raise TargetInvalid(f"target {self.name}: port {self.port!r} is not within 1-65535")

    @property
    def socket_name(self) -> str:
        """File name of its socket."""
        return SOCKET_NAMES[self.kind]


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """What one call may take of the egress process.

    Attributes:
        connections_at_once: More are accepted, recorded and closed at once.
        connections_in_all: With this many the call's sockets stop listening.
        connect_timeout_seconds: How long a target may take to accept.
        buffer_bytes: Above this much unsent, the other end is no longer read.
    """

    connections_at_once: int = 16
    connections_in_all: int = 256
    connect_timeout_seconds: int = 5
    buffer_bytes: int = 65_536
