"""The HTTP proxy: `python -P -m sandboxes.proxy`, started by the broker and by nobody else.

Its standard input is the control socket. It serves until that ends or says something that is no message. It
reads what sandboxes and targets send, so it has no right over anything: its own user, no capability, no file,
no session with Vault; of secrets only those of calls that are open now.
"""

from __future__ import annotations

# idna and linecache are loaded now because nothing can be read any more when they are first wanted: names are
# looked up with the one, the text of an exception may want the other.
import asyncio
import contextlib
import encodings.idna
import gc
import linecache
import os
import socket
import sys
from collections.abc import Callable

import uvloop

from sandboxes.egress.codec import ControlError, printable
from sandboxes.egress.confinement import ConfinementError
from sandboxes.egress.messages import CloseCall, Done, Refused
from sandboxes.egress.records import ConnectionEntry
from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.calls import CallRefused, OpenedCall
from sandboxes.proxy.channel import Channel
from sandboxes.proxy.confinement import confine
from sandboxes.proxy.control import (
    REQUESTS,
    Answer,
    Closed,
    Configure,
    Declare,
    Ended,
    OpenCall,
    Request,
    decode,
    encode,
)
from sandboxes.proxy.dialing import Names, Trust, load_ahead
from sandboxes.proxy.ledger import OnEntry
from sandboxes.proxy.serving import Connection, turn_away
from sandboxes.proxy.shares import Shares

__all__ = ["Service", "encodings", "linecache", "main", "serve"]

_FEW_RULES = 30
"""So many are read at once, 0.2 ms each."""
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


class Service:
    """What the broker asked for so far."""

    def __init__(self, limits: Configure, channel: Channel) -> None:
        self._limits, self._channel = limits, channel
        self._targets: dict[str, HttpTarget] = {}
        self._calls: dict[str, OpenedCall] = {}
        self._commons = (Names(), Trust(), Shares(limits.connections_over_all))
        self._endings: set[asyncio.Task[None]] = set()

    async def answer(self, request: Request, fds: list[int]) -> Answer:
        """Carry out one request; its descriptors belong to it.

        Raises:
            ControlError: It is not one that may come now.
        """
        if isinstance(request, OpenCall):
            return await self._open(request, [socket.socket(fileno=fd) for fd in fds])
        if fds:
            raise ControlError(f"{request.op}: carries descriptors")
        if isinstance(request, Declare):
            self._targets[request.target.name] = request.target.target
            return Done(request.seq)
        if isinstance(request, CloseCall):
            return await self._close(request)
        raise ControlError("configure: may come only once, and first")

    async def close(self) -> None:
        """End every call."""
        for name in list(self._calls):
            await self._calls.pop(name).close()

    async def _open(self, request: OpenCall, doors: list[socket.socket]) -> Answer:
        try:
            if len(doors) != len(request.doors):
                raise CallRefused("not every door came, perhaps because there are too many descriptors here")
            if request.call in self._calls:
                raise CallRefused(f"call {request.call} is open already")
            await _read_rules(request)
            call = OpenedCall(request, self._targets, self._limits, self._commons, self._tell(request.call))
        except CallRefused as error:
            _close_all(doors)
            return Refused(request.seq, printable(str(error)))
        except Exception as error:  # whatever is wrong with one call's words must not end the others
            _close_all(doors)
            return Refused(request.seq, f"the call cannot be opened: {type(error).__name__}")
        self._calls[request.call] = call
        try:
            for entry, door in zip(request.doors, doors, strict=True):
                await call.serve(door, _make_handler(call, entry.target))
        except OSError as error:
            _close_all(doors)
            del self._calls[request.call]
            await call.close()
            return Refused(request.seq, printable(f"no doors for call {request.call}: {error}"))
        call.end_after(request.milliseconds / 1_000, lambda: self._end(call))
        return Done(request.seq)

    async def _close(self, request: CloseCall) -> Answer:
        call = self._calls.pop(request.call, None)
        if call is None:
            return Closed(request.seq, 0)
        await call.close()
        return Closed(request.seq, call.ledger.uncounted)

    def _end(self, call: OpenedCall) -> None:
        """End a call that nobody closed in its time; its `CloseCall` still says what it had."""
        task = asyncio.get_running_loop().create_task(call.close())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    def _tell(self, call: str) -> OnEntry:
        def tell(entry: ConnectionEntry) -> None:
            with contextlib.suppress(ConnectionError):  # the broker is gone, and so is this process at once
                self._channel.send(encode(Ended(call, entry)))

        return tell


async def _read_rules(request: OpenCall) -> None:
    """Read a call's rules in turns with what else there is; what was read once is known from then on."""
    rules = [rule for entry in request.accesses for rule in (*entry.allow, *(entry.narrowed or ()))]
    for rule in rules if len(rules) > _FEW_RULES else ():
        with contextlib.suppress(ControlError):  # it is said where they are read for good
            _ = rule.rule
        await asyncio.sleep(0)


def _make_handler(call: OpenedCall, door: str) -> Handler:
    """Make what takes a door's connections over."""

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if problem := call.find_problem():
            turn_away(call, problem, reader, writer)
            return
        call.hold(Connection(call, door, reader, writer).run(), writer)

    return handle


def _close_all(doors: list[socket.socket]) -> None:
    for door in doors:
        door.close()


async def serve(control: socket.socket) -> None:
    """Serve until the broker is gone.

    Raises:
        ControlError: The other side is not the broker that we know.
    """
    channel = Channel(control)
    service = None
    try:
        while (packet := await channel.receive()) is not None:
            request = decode(packet[0], REQUESTS)
            if service is None:
                service = _configure(request, channel)
                answer: Answer = Done(request.seq)
            else:
                answer = await service.answer(request, packet[1])
            channel.send(encode(answer))
    except ConnectionError:
        pass  # the broker went away while it was being answered
    finally:
        if service is not None:
            await service.close()
        channel.close()


def _configure(request: Request, channel: Channel) -> Service:
    if not isinstance(request, Configure):
        raise ControlError("configure: must come first")
    return Service(request, channel)


def main() -> int:
    """Confine this process, then serve on standard input.

    Returns:
        0 when the broker ended it, 2 when it could not serve.
    """
    try:
        control = socket.socket(fileno=os.dup(0))
    except OSError:
        print("the broker starts this process; it does nothing by itself", file=sys.stderr)
        return 2
    try:
        load_ahead()
        confine()
        gc.freeze()  # what is loaded by now stays: the collector need not look at it
        gc.set_threshold(20_000, 20, 50)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(control))
    except (ConfinementError, ControlError) as error:
        print(f"proxy: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
