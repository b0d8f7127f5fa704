"""What a sandbox is asked to be, and what comes out of it.

    SandboxError
    ├── SandboxUnavailable   no handler ran and nothing happened: the engine is missing, stalled or refused
    └── EngineUnfit          the engine cannot keep a promise of ours (seccomp, limits); says how to mend it

A `RawOutcome` is what the handler said, before anybody has checked it. An `AnswerSign` is the broker's part
of the conversation: it answers each `Sign` and raises for none.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from toolcrib.handler.v1 import handler_pb2

AnswerSign = Callable[[handler_pb2.Sign], Awaitable[handler_pb2.Signature]]


class SandboxError(Exception):
    """Base of what this package raises."""


class SandboxUnavailable(SandboxError):
    """No handler ran: the engine is not reachable, stalls, or refused to make the container."""


class EngineUnfit(SandboxError):
    """The engine lacks something that the hardening needs."""


class Limits(Protocol):
    """The ceilings of one sandbox, as a manifest sets them."""

    @property
    def memory_mib(self) -> int:
        """Memory in MiB; swap is off."""

    @property
    def pids(self) -> int:
        """Processes and threads."""

    @property
    def cpus(self) -> float:
        """Processors, 0.5 is half of one."""

    @property
    def tmp_mib(self) -> int:
        """Size of /tmp in MiB; it counts as memory."""

    @property
    def output_kib(self) -> int:
        """All that the handler may say in frames, in KiB."""

    @property
    def log_kib(self) -> int:
        """What is kept of the handler's stdout and stderr, in KiB."""

    @property
    def artefacts(self) -> int:
        """Files that the handler may give back; 0 for none."""

    @property
    def artefact_kib(self) -> int:
        """All of these files together, in KiB."""


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """One sandbox.

    Attributes:
        image_id: "sha256:…"; a name would let somebody else choose the image.
        command: The handler's program and arguments, started in /opt/bundle.
        socket_dir: Host folder of this call's egress sockets, seen read-only at /run/toolcrib; None for none.
        uid: User and group, from `Driver.allocate_uid`; no other sandbox has it.
        idle_seconds: How long it may wait for its call before it ends by itself.
        has_proxy: Whether the handler finds the HTTP proxy on its loopback.
        take_door: Takes the socket that listens there, before the handler starts, where the runtime lets one
            be made from outside. Otherwise, or without this, init relays to the socket folder.
    """

    image_id: str
    command: tuple[str, ...]
    limits: Limits
    socket_dir: Path | None
    uid: int
    idle_seconds: float = 30.0
    has_proxy: bool = False
    take_door: Callable[[socket.socket], None] | None = None


class OutcomeKind(enum.StrEnum):
    """How a conversation with a handler ended."""

    RESULT = "result"
    FAILURE = "failure"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    OUTPUT_TOO_LARGE = "output_too_large"


@dataclass(frozen=True, slots=True)
class RawArtefact:
    """A file that a handler gave back; nothing of it is checked but its size.

    Attributes:
        name: The plain file name.
        media_type: What the handler says that it is.
    """

    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class RawOutcome:
    """What came out of a sandbox; nothing of it is checked yet.

    Attributes:
        response: The response message's bytes, with RESULT.
        failure: What the handler said, with FAILURE.
        log: The handler's stdout and stderr: escaped, cut.
        detail: What happened, for operators; empty with RESULT.
        log_truncated: True when more was said than the log's cap.
        artefacts: The files that the handler gave back, within their caps, with RESULT only.
    """

    kind: OutcomeKind
    response: bytes = b""
    failure: handler_pb2.Failure | None = None
    log: str = ""
    detail: str = ""
    log_truncated: bool = False
    artefacts: tuple[RawArtefact, ...] = ()


async def refuse_to_sign(sign: handler_pb2.Sign) -> handler_pb2.Signature:
    """Answer where the call has no key that signs."""
    return handler_pb2.Signature(id=sign.id, error="this call has no credential that signs")
