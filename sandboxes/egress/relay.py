"""Bytes between a socket in a sandbox and a target's TCP port, both ways, unread.

Rules:
1. Nothing is read from the sandbox before its target accepted.
2. An end that closes its half closes the same half at the other end; a reset is passed on as a reset.
3. While an end has more than `buffer_bytes` unsent, the other one is not read: no buffer grows without bound.
4. An abort drops what is unsent and resets the target's connection, so that nothing arrives after it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, cast

from sandboxes.egress.control import ConnectionEntry, TargetEntry, printable
from sandboxes.egress.records import Outcome

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class End(asyncio.Protocol):
    """One end of a connection: what it reads goes to its peer."""

    peer: End

    def __init__(self, lost: Callable[[End, bool], None], buffer_bytes: int) -> None:
        self.transport: asyncio.Transport | None = None
        self.taken_bytes = 0
        self.at_end = False
        self.gone = False
        self._lost = lost
        self._buffer_bytes = buffer_bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket over."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=self._buffer_bytes)

    def data_received(self, data: bytes) -> None:
        """Hand on what came."""
        self.taken_bytes += len(data)
        if (out := self.peer.transport) is not None and not out.is_closing():
            out.write(data)

    def eof_received(self) -> bool:
        """Close this half at the other end; when it was the second half, close both ends."""
        self.at_end = True
        if (out := self.peer.transport) is not None and not out.is_closing():
            out.write_eof()
        if self.peer.at_end:
            self.close()
            self.peer.close()
        return True  # this half only: what the peer still says goes out

    def pause_writing(self) -> None:
        """Stop reading the peer: too much is unsent here."""
        if self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read the peer again."""
        if self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that this end is gone, and whether by an error."""
        self.gone = True
        self._lost(self, exc is not None)

    @property
    def is_live(self) -> bool:
        """True between connected and gone."""
        return self.transport is not None and not self.gone

    def close(self) -> None:
        """Send what is unsent, then close."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Drop what is unsent and reset."""
        if self.transport is None or self.gone:
            return
        raw: Any = self.transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()


class Connection:
    """One connection that a sandbox made, from accept until both ends are gone.

    Attributes:
        inside: The protocol of the accepted socket.
        ended: Set when both ends are gone; then `entry()` is final.
    """

    def __init__(
        self,
        target: TargetEntry,
        admit: Callable[[Connection], bool],
        on_end: Callable[[Connection], None],
        connect_timeout_seconds: int,
        buffer_bytes: int,
    ) -> None:
        self.inside = _Inside(self, buffer_bytes)
        self.outside = End(self._end_lost, buffer_bytes)
        self.inside.peer, self.outside.peer = self.outside, self.inside
        self.ended = asyncio.Event()
        self._target = target
        self._admit = admit
        self._on_end = on_end
        self._connect_timeout_seconds = connect_timeout_seconds
        self._opened = _now_micros()
        self._closed = 0
        self._address = ""
        self._outcome = Outcome.ENDED
        self._detail = ""
        self._connecting: asyncio.Task[None] | None = None

    def accepted(self) -> None:
        """Go on with an accepted socket: connect to the target, unless the call may not have another."""
        if self._admit(self):
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        else:
            self._outcome = Outcome.OVER_LIMIT
            self.inside.abort()

    def abort(self) -> None:
        """End it now, whatever is on its way."""
        self._outcome = Outcome.ABORTED
        if self._connecting is not None:
            self._connecting.cancel()
        self.outside.abort()
        self.inside.abort()

    def entry(self) -> ConnectionEntry:
        """Say what became of it."""
        return ConnectionEntry(
            target=self._target.name,
            address=self._address,
            opened_micros=self._opened,
            closed_micros=self._closed or _now_micros(),
            bytes_up=self.inside.taken_bytes,
            bytes_down=self.outside.taken_bytes,
            outcome=str(self._outcome),
            detail=self._detail,
        )

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout_seconds):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    lambda: self.outside, self._target.host, self._target.port
                )
            host, port = transport.get_extra_info("peername")[:2]
            self._address = f"{host}:{port}"
        except TimeoutError:
            self._fail(f"{self._where} did not accept within {self._connect_timeout_seconds} s")
        except (OSError, ValueError) as error:
            self._fail(f"{self._where} cannot be reached: {error}")
        finally:
            self._connecting = None
            self._settle()
        if self.outside.is_live and self.inside.transport is not None:
            self.inside.transport.resume_reading()

    @property
    def _where(self) -> str:
        return f"{self._target.host}:{self._target.port}"

    def _fail(self, detail: str) -> None:
        self._outcome, self._detail = Outcome.CONNECT_FAILED, printable(detail)
        self.outside.abort()
        self.inside.abort()

    def _end_lost(self, end: End, by_error: bool) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if end.peer.is_live:
            if by_error:
                end.peer.abort()
            else:
                end.peer.close()
        self._settle()

    def _settle(self) -> None:
        if self.inside.is_live or self.outside.is_live or self._connecting is not None:
            return
        if not self.ended.is_set():
            self._closed = _now_micros()
            self.ended.set()
            self._on_end(self)


class _Inside(End):
    """The end in the sandbox: silent until its target accepted."""

    def __init__(self, connection: Connection, buffer_bytes: int) -> None:
        super().__init__(connection._end_lost, buffer_bytes)
        self._connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the target."""
        super().connection_made(transport)
        assert self.transport is not None
        # Not at once: Python 3.11.2 begins to read after this method, paused or not, and what came before the
        # target accepted would be lost. In the loop's next turn the pause comes before anything that is read.
        asyncio.get_running_loop().call_soon(self.transport.pause_reading)
        self._connection.accepted()


def _now_micros() -> int:
    return time.time_ns() // 1000
