"""Connections that the proxy holds after a CONNECT: TLS opened here, or bytes carried without a look.

Rules of a blind tunnel:
1. While one end does not take its bytes, the other is not read: a flood fills no memory.
2. The end of one direction is passed on; the other goes on until it ends too.
3. Reaching a cap of bytes or time resets both ends.
4. It lasts until both ends took everything, within its time: what is closed then has nothing unsent.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import ssl
import struct
from dataclasses import dataclass

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_PIECE_BYTES = 65_536
_UNSENT_BYTES = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class TlsRefused(Exception):
    """The client did not open TLS as it is wanted here; the text says how it failed, with nothing it sent."""


class Ending(enum.StrEnum):
    """How a tunnel ended."""

    ENDED = "ended"
    CUT = "cut"
    """It reached a cap of bytes."""
    TIMED_OUT = "timed_out"
    LOST = "lost"
    """One end was reset."""


@dataclass(frozen=True, slots=True)
class TunnelCaps:
    """What a tunnel may take.

    Attributes:
        up_bytes: From the sandbox to the target.
        down_bytes: From the target to the sandbox.
        seconds: From its beginning to its end.
    """

    up_bytes: int
    down_bytes: int
    seconds: float


@dataclass(slots=True)
class Carried:
    """What became of a tunnel; counts while it is carried.

    Attributes:
        up_bytes: Taken from the sandbox and passed on.
        down_bytes: So from the target.
        ending: How it ended.
    """

    up_bytes: int = 0
    down_bytes: int = 0
    ending: Ending = Ending.ENDED


class _CapReached(Exception):
    pass


async def open_tls(writer: asyncio.StreamWriter, context: ssl.SSLContext, seconds: float) -> None:
    """Go on in TLS on a connection that was accepted; its reader and writer then carry what is inside.

    Call it right after the answer to CONNECT was written, and only if nothing came after the CONNECT's head.

    Args:
        writer: Of the accepted connection.
        context: Of `Leaves.context`.
        seconds: For the handshake.

    Raises:
        TlsRefused: It failed; the connection is closed.
    """
    try:
        async with asyncio.timeout(seconds):
            await writer.start_tls(context)
    except TimeoutError as error:
        writer.transport.abort()
        raise TlsRefused(f"TLS was not opened within {seconds:g} s") from error
    except (OSError, ssl.SSLError) as error:
        writer.transport.abort()
        reason = getattr(error, "reason", None) or type(error).__name__
        raise TlsRefused(f"TLS was not opened: {reason}") from error


async def carry_blind(inside: Streams, outside: Streams, caps: TunnelCaps, carried: Carried) -> Carried:
    """Carry bytes both ways until both ends have ended, or a cap is reached; then both are closed.

    Args:
        inside: The sandbox's end.
        outside: The target's end, without TLS of ours.
        caps: Its limits; what was sent before (a ClientHello) is not counted unless `carried` has it.
        carried: Is counted up while it runs, so that a record can be made of a tunnel that is cancelled.

    Returns:
        `carried`, with its ending.
    """
    for _, writer in (inside, outside):
        writer.transport.set_write_buffer_limits(high=_UNSENT_BYTES)
    carried.ending = Ending.LOST  # until it is known better: a tunnel that is cancelled says so
    try:
        carried.ending = await _carry_both(inside, outside, caps, carried)
    finally:
        for _, writer in (inside, outside):
            if carried.ending is not Ending.ENDED:
                _reset(writer)
            writer.close()
    return carried


async def _carry_both(inside: Streams, outside: Streams, caps: TunnelCaps, carried: Carried) -> Ending:
    try:
        async with asyncio.timeout(caps.seconds), asyncio.TaskGroup() as both:
            both.create_task(_carry(inside[0], outside[1], caps.up_bytes, carried, "up_bytes"))
            both.create_task(_carry(outside[0], inside[1], caps.down_bytes, carried, "down_bytes"))
    except TimeoutError:
        return Ending.TIMED_OUT
    except BaseExceptionGroup as failures:
        if failures.subgroup(_CapReached) is not None:
            return Ending.CUT
        if failures.subgroup(OSError) is not None:
            return Ending.LOST
        raise
    return Ending.ENDED


def _reset(writer: asyncio.StreamWriter) -> None:
    """Drop what is unsent and reset: an end that is cut must not look like one that is complete."""
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.family != socket.AF_UNIX and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most_bytes: int, carried: Carried, name: str
) -> None:
    while piece := await reader.read(_PIECE_BYTES):
        count = getattr(carried, name) + len(piece)
        if count > most_bytes:
            raise _CapReached
        setattr(carried, name, count)
        writer.write(piece)
        await writer.drain()
    with contextlib.suppress(OSError):  # the other end may be gone
        if writer.can_write_eof():
            writer.write_eof()
        if not writer.is_closing():
            writer.transport.set_write_buffer_limits(high=0)
        await writer.drain()
