"""One run of the egress process as the broker sees it: what it is asked, and how that travels."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import Callable, Sequence

from sandboxes import child
from sandboxes.child import Child, Request
from sandboxes.egress.control import ANSWERS, Closed, Configure, OpenCall, decode, encode, read_body
from sandboxes.egress.messages import CloseCall, Done
from sandboxes.nests import Nest, Nests


class StreamChannel:
    """Frames over a stream socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, message: Request, descriptors: Sequence[int] = ()) -> None:
        """Send a request; no descriptors travel here."""
        assert isinstance(message, Configure | OpenCall | CloseCall) and not descriptors
        self._writer.write(encode(message))

    async def receive(self) -> object | None:
        """Wait for an answer; None when the child is gone."""
        body = await read_body(self._reader)
        return None if body is None else decode(body, ANSWERS)

    async def close(self) -> None:
        """Close this end."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class EgressChild(Child):
    """A running egress process.

    Attributes:
        nests: Where it can make sockets, once it is configured.
    """

    nests: Nests

    @classmethod
    async def launch(cls, nests: Nests, on_gone: Callable[[Child], None]) -> EgressChild:
        """Start it; `on_gone` is called once, when it is gone, for whatever reason."""
        ours, theirs = socket.socketpair()
        with theirs:
            channel = StreamChannel(*await asyncio.open_connection(sock=ours))
            try:
                launched = cls(spawn(theirs), channel, on_gone)
            except BaseException:
                await channel.close()
                raise
        launched.nests = nests
        return launched

    async def configure(self, rules: Configure) -> None:
        """Tell it where to work and what may be reached.

        Raises:
            ChildRefused: The folder cannot be used.
            ChildGone: It is not there any more.
        """
        await self.ask(rules, Done)

    async def open_call(self, call: str, nest: Nest, targets: list[str]) -> None:
        """Have the sockets of a call made in a nest.

        Raises:
            ChildRefused: They cannot be made.
            ChildGone: It is not there any more.
        """
        await self.ask(OpenCall(self.next_number(), call, nest.name, nest.uid, targets), Done)

    async def close_call(self, call: str) -> Closed:
        """Have everything ended that a call has.

        Raises:
            ChildGone: It is not there any more, and so is everything that it had open.
        """
        return await self.ask(CloseCall(self.next_number(), call), Closed)

    def lose(self) -> None:
        """Nothing is ever opened again in what was made for it."""
        self.nests.lose()


def spawn(control: socket.socket) -> subprocess.Popen[bytes]:
    """Start the program, `control` as its standard input."""
    return child.spawn("sandboxes.egress", control)
