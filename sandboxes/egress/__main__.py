"""The egress process: `python -P -m sandboxes.egress`, started by the broker and by nobody else.

Its standard input is the control socket. It serves until that ends or says something that is no message;
then it removes what it made. It holds no secret, and no descriptor of the broker's but that one.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import sys

from sandboxes.egress.confinement import ConfinementError, confine
from sandboxes.egress.control import (
    REQUESTS,
    Answer,
    Closed,
    Configure,
    ControlError,
    OpenCall,
    Request,
    decode,
    encode,
    printable,
    read_body,
)
from sandboxes.egress.doors import Doors, Root
from sandboxes.egress.messages import CloseCall, Done, Refused


class Service:
    """What the broker asked for so far."""

    def __init__(self, rules: Configure, root: Root) -> None:
        self._rules = rules
        self._root = root
        self._targets = {target.name: target for target in rules.targets}
        self._calls: dict[str, Doors] = {}

    async def answer(self, request: Request) -> Answer:
        """Carry out one request.

        Raises:
            ControlError: It is not one that may come now.
        """
        if isinstance(request, OpenCall):
            return await self._open(request)
        if isinstance(request, CloseCall):
            return await self._close(request)
        raise ControlError("configure: may come only once, and first")

    async def close(self) -> None:
        """End every call and leave nothing."""
        for call in list(self._calls):
            await self._calls.pop(call).close()
        self._root.clear()

    async def _open(self, request: OpenCall) -> Answer:
        unknown = [name for name in request.targets if name not in self._targets]
        if unknown:
            return Refused(request.seq, f"target {unknown[0]} is not declared")
        if request.call in self._calls:
            return Refused(request.seq, f"call {request.call} is open already")
        doors = Doors(self._root, request.nest, self._rules)
        try:
            await doors.open(request.uid, [self._targets[name] for name in request.targets])
        except OSError as error:
            return Refused(request.seq, printable(f"no sockets for call {request.call}: {error}"))
        self._calls[request.call] = doors
        return Done(request.seq)

    async def _close(self, request: CloseCall) -> Answer:
        doors = self._calls.pop(request.call, None)
        return Closed(request.seq, await doors.close() if doors else [])


async def serve(control: socket.socket) -> None:
    """Serve until the broker is gone.

    Raises:
        ControlError: The other side is not the broker that we know.
    """
    reader, writer = await asyncio.open_connection(sock=control)
    service = None
    try:
        while (body := await read_body(reader)) is not None:
            request = decode(body, REQUESTS)
            if service is None:
                service, answer = _configure(request)
            else:
                answer = await service.answer(request)
            writer.write(encode(answer))
            await writer.drain()
    except ConnectionError:
        pass  # the broker went away while it was being answered
    finally:
        if service is not None:
            await service.close()
        writer.close()


def _configure(request: Request) -> tuple[Service | None, Answer]:
    if not isinstance(request, Configure):
        raise ControlError("configure: must come first")
    try:
        descriptor = os.open(request.root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        # Held for this process's life: two brokers on one folder would remove each other's sockets.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        root = Root(descriptor)
        root.clear()
    except BlockingIOError:
        return None, Refused(request.seq, f"{request.root} is in use by another egress process")
    except OSError as error:
        return None, Refused(request.seq, printable(f"{request.root} cannot be used: {error}"))
    return Service(request, root), Done(request.seq)


def main() -> int:
    """Confine this process, then serve on standard input.

    Returns:
        0 when the broker ended it, 2 when it could not serve.
    """
    try:
        control = socket.socket(fileno=0)
    except OSError:
        print("the broker starts this process; it does nothing by itself", file=sys.stderr)
        return 2
    try:
        confine()
        asyncio.run(serve(control))
    except (ConfinementError, ControlError) as error:
        print(f"egress: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
