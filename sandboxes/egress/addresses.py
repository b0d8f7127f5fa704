"""What the operator declares as reachable, and how a sandbox sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

CONTAINER_DIR = "/run/toolcrib"
"""Where a call's socket folder is mounted, read-only, in its container."""

KINDS = ("http", "ldap", "postgresql", "smtp", "ssh", "tls")
"""What may speak at a target. The HTTP proxy serves "http"; of all others the bytes are carried as they are,
once the first of them are what is spoken there (peeking.py)."""
POSTGRESQL_SOCKET = ".s.PGSQL.5432"
"""libpq and asyncpg find this one when the folder is given as host and no port is: so the port that the
target really listens on does not matter inside."""
MAX_SOCKET_PATH = 107
"""Bytes that a client can connect to: sockaddr_un.sun_path, less the final zero."""

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
        kind: What speaks there, one of `KINDS`.
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
        if self.kind not in KINDS:
            raise TargetInvalid(f"target {self.name}: kind {self.kind!r} is not one of {list(KINDS)}")
        if len(self.socket_path) > MAX_SOCKET_PATH:
            raise TargetInvalid(
                f"target {self.name}: no client could connect to {self.socket_path}; use a shorter name"
            )
        if not HOST.fullmatch(self.host):
            raise TargetInvalid(f"target {self.name}: host {self.host!r} is no host name or address")
        if type(self.port) is not int or not 1 <= self.port <= 65_535:
            raise TargetInvalid(f"target {self.name}: port {self.port!r} is not within 1-65535")

    @property
    def socket_name(self) -> str:
        """File name of its socket."""
        return socket_name(self.kind, self.name)

    @property
    def socket_path(self) -> str:
        """Where a container sees its socket."""
        return f"{CONTAINER_DIR}/{self.name}/{self.socket_name}"


def socket_name(kind: str, target: str) -> str:
    """Name the socket of a target."""
    return POSTGRESQL_SOCKET if kind == "postgresql" else f"{target}.sock"


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """What one call may take of the egress process.

    Attributes:
        connections_at_once: More are accepted, recorded and closed at once.
        connections_in_all: With this many the call's sockets stop listening.
        connect_timeout_seconds: How long a target may take to accept.
        buffer_bytes: Above this much unsent, the other end is no longer read.
        max_bytes_up: What one connection may carry toward its target.
        max_bytes_down: What it may carry from there.
        connection_seconds: How long it may last.
        idle_seconds: How long both ends of it may be silent.
    """

    connections_at_once: int = 16
    connections_in_all: int = 256
    connect_timeout_seconds: int = 5
    buffer_bytes: int = 65_536
    max_bytes_up: int = 1024**3
    max_bytes_down: int = 4 * 1024**3
    connection_seconds: int = 900
    idle_seconds: int = 300
