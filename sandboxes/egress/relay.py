"""Bytes between a socket in a sandbox and a target's TCP port, both ways, unread but for the sandbox's first.

Rules:
1. Nothing is read from the sandbox before its target accepted; nothing is passed on before what it says first
   is a beginning of what is spoken there (peeking.py).
2. An end that closes its half closes the same half at the other end; a reset is passed on as a reset.
3. While an end has more than `buffer_bytes` unsent, the other one is not read: no buffer grows without bound.
4. An abort drops what is unsent and resets the target's connection, so that nothing arrives after it.
5. What would go over a limit of bytes is not passed on, and aborts; so does a limit of time, of the whole
   connection and of a silence of both ends. What aborted first stands in the record.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, cast

from sandboxes.egress.control import Configure, ConnectionEntry, TargetEntry, printable
from sandboxes.egress.peeking import MOST_BYTES, Start, judge_start
from sandboxes.egress.records import Outcome

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class End(asyncio.Protocol):
    """One end of a connection: what it reads goes to its peer.

    Attributes:
        passed_bytes: How much of what it read went to its peer.
        heard: When it last said something, on the loop's clock; 0.0: never.
    """

    peer: End
    whose = "the target"

    def __init__(self, connection: Connection, most_bytes: int) -> None:
        self.transport: asyncio.Transport | None = None
        self.passed_bytes = 0
        self.heard = 0.0
        self.at_end = False
        self.gone = False
        self._connection = connection
        self._most_bytes = most_bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket over."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=self._connection.rules.buffer_bytes)

    def data_received(self, data: bytes) -> None:
        """Hand on what came, unless it is too much."""
        self.heard = asyncio.get_running_loop().time()
        if self.passed_bytes + len(data) > self._most_bytes:
            self._connection.stop(Outcome.CUT, f"{self.whose} sent more than {self._most_bytes} bytes")
            return
        self.passed_bytes += len(data)
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
        self._connection.end_lost(self, by_error=exc is not None)

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
        target: What it is for.
        rules: The limits that it has.
        ended: Set when both ends are gone; then `entry()` is final.
    """

    def __init__(
        self,
        target: TargetEntry,
        rules: Configure,
        admit: Callable[[Connection], bool],
        on_end: Callable[[Connection], None],
    ) -> None:
        self.target = target
        self.rules = rules
        self.inside = _Inside(self, rules.max_bytes_up)
        self.outside = End(self, rules.max_bytes_down)
        self.inside.peer, self.outside.peer = self.outside, self.inside
        self.ended = asyncio.Event()
        self._admit = admit
        self._on_end = on_end
        self._opened = _now_micros()
        self._closed = 0
        self._address = ""
        self._outcome: Outcome | None = None
        self._detail = ""
        self._connecting: asyncio.Task[None] | None = None
        self._began = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    def accepted(self) -> None:
        """Go on with an accepted socket: connect to the target, unless the call may not have another."""
        if self._admit(self):
            loop = asyncio.get_running_loop()
            self._began = loop.time()
            self._connecting = loop.create_task(self._connect())
            self._watch()
        else:
            self.stop(Outcome.OVER_LIMIT, "")

    def abort(self) -> None:
        """End it now, whatever is on its way."""
        self.stop(Outcome.ABORTED, "")

    def stop(self, outcome: Outcome, detail: str) -> None:
        """End it now, for a reason; the first one stays."""
        if self._outcome is None:
            self._outcome, self._detail = outcome, printable(detail)
        if self._connecting is not None:
            self._connecting.cancel()
        self.outside.abort()
        self.inside.abort()

    def entry(self) -> ConnectionEntry:
        """Say what became of it."""
        return ConnectionEntry(
            target=self.target.name,
            address=self._address,
            opened_micros=self._opened,
            closed_micros=max(self._opened, self._closed or _now_micros()),  # a clock may be set back
            bytes_up=self.inside.passed_bytes,
            bytes_down=self.outside.passed_bytes,
            outcome=str(self._outcome or Outcome.ENDED),
            detail=self._detail,
        )

    async def _connect(self) -> None:
        seconds = self.rules.connect_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    lambda: self.outside, self.target.host, self.target.port
                )
            host, port = transport.get_extra_info("peername")[:2]
            self._address = f"{host}:{port}"
        except TimeoutError:
            self._fail(f"{self._where} did not accept within {seconds} s")
        except (OSError, ValueError) as error:
            self._fail(f"{self._where} cannot be reached: {error}")
        finally:
            self._connecting = None
            self._settle()
        if self.outside.is_live and self.inside.transport is not None:
            self.inside.transport.resume_reading()

    @property
    def _where(self) -> str:
        return f"{self.target.host}:{self.target.port}"

    def _fail(self, detail: str) -> None:
        self._connecting = None  # this one: nothing of it is left to cancel
        self.stop(Outcome.CONNECT_FAILED, detail)

    def _watch(self) -> None:
        """Look at the limits of time now, and again when the next one could be reached."""
        loop, rules = asyncio.get_running_loop(), self.rules
        ends = self._began + rules.connection_seconds
        quiet = max(self._began, self.inside.heard, self.outside.heard) + rules.idle_seconds
        if loop.time() < min(ends, quiet):
            self._alarm = loop.call_at(min(ends, quiet), self._watch)
        elif ends <= quiet:
            self.stop(Outcome.TIMED_OUT, f"it was open for {rules.connection_seconds} s")
        else:
            self.stop(Outcome.TIMED_OUT, f"neither end said anything for {rules.idle_seconds} s")

    def end_lost(self, end: End, *, by_error: bool) -> None:
        """Take note that an end is gone: the other one goes too."""
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
            if self._alarm is not None:
                self._alarm.cancel()
            self._closed = _now_micros()
            self.ended.set()
            self._on_end(self)


class _Inside(End):
    """The end in the sandbox: silent until its target accepted, and held to what is spoken there."""

    whose = "the sandbox"

    def __init__(self, connection: Connection, most_bytes: int) -> None:
        super().__init__(connection, most_bytes)
        self._kept: bytes | None = b""  # what came so far; None once it was a beginning of its kind

    def data_received(self, data: bytes) -> None:
        """Hand on what came, once it is what is spoken at the target."""
        if self._kept is None:
            super().data_received(data)
            return
        self._kept += data
        start = judge_start(self._connection.target.kind, self._kept[:MOST_BYTES])
        if start is Start.RIGHT:
            kept, self._kept = self._kept, None
            super().data_received(kept)
        elif start is Start.WRONG or len(self._kept) >= MOST_BYTES:
            self._refuse()

    def eof_received(self) -> bool:
        """Close this half at the target, unless it ends in the middle of the beginning."""
        if self._kept:
            self._refuse()
            return True
        return super().eof_received()

    def _refuse(self) -> None:
        kind = self._connection.target.kind
        self._kept = b""
        self._connection.stop(
            Outcome.PROTOCOL_REFUSED, f"what came from the sandbox begins no conversation of kind {kind}"
        )

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
