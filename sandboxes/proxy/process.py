"""The broker's side of the HTTP proxy: start it, open a call's doors, hear what goes through, close them.

Rules:
1. The broker binds the doors, the proxy only gets them: it needs no right over files, and knows no path.
2. What a call gets, secrets among it, goes to the child when the call opens and is forgotten there with it.
3. Each exchange is told as it ends. What a child that died had not told is not known, and the record says so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandboxes.child import Child, ChildRefused, Request, spawn
from sandboxes.egress.addresses import socket_name
from sandboxes.egress.codec import ControlError
from sandboxes.egress.messages import CloseCall, Done
from sandboxes.egress.records import ConnectionRecord
from sandboxes.egress.remains import note_process
from sandboxes.keeper import Keeper, OnGone
from sandboxes.nests import Nest
from sandboxes.proxy.access import HttpAccess, HttpTarget
from sandboxes.proxy.channel import Channel, make_pair
from sandboxes.proxy.control import FROM_CHILD, Closed, Configure, Declare, Ended, OpenCall, decode, encode
from sandboxes.proxy.entries import AccessEntry, DoorEntry, TargetEntry

PROXY_FOLDER = ".proxy"
PROXY_SOCKET = "s"
"""Where the relay of a sandbox finds its forward door (sandboxes/container_relay.py)."""
_BACKLOG = 64
_FORGETTING = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
"""Everything is freed by libc, and at once: it then overwrites it, as confinement.py tells it to. What Python
or a thread's cache kept for later would hold the secrets of calls that ended."""
_FOLDER_MODE = 0o711

OnRecord = Callable[[ConnectionRecord], None]


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """What one call may take of the proxy, whatever its targets, and all calls together.

    Attributes:
        connections_at_once: Of the sandbox.
        connections_in_all: Of the sandbox; with this many its doors stop listening.
        connect_timeout_seconds: How long a target may take to accept.
        connections_over_all: Of all calls together; from there on each has its part (shares.py). One takes
            0.6 MiB of the process's memory with TLS at both ends, 2 MiB where nobody reads a long answer.
    """

    connections_at_once: int = 16
    connections_in_all: int = 1_000
    connect_timeout_seconds: int = 5
    connections_over_all: int = 384


class ProxyChild(Child):
    """A running HTTP proxy."""

    listeners: dict[str, OnRecord]

    @classmethod
    async def launch(cls, on_gone: OnGone) -> ProxyChild:
        """Start it; `on_gone` is called once, when it is gone, for whatever reason."""
        ours, theirs = make_pair()
        listeners: dict[str, OnRecord] = {}
        with theirs:
            try:
                process = spawn("sandboxes.proxy", theirs, environment=_FORGETTING)
            except BaseException:
                ours.close()
                raise
        launched = cls(process, _PacketChannel(ours), on_gone, lambda event: _hand_on(event, listeners))
        launched.listeners = listeners
        return launched


class HttpProxy:
    """Keeps one HTTP proxy running, and opens the doors of calls in it."""

    def __init__(
        self,
        targets: Mapping[str, HttpTarget],
        limits: ProxyLimits | None = None,
        on_gone: OnGone | None = None,
    ) -> None:
        """Know what may be reached.

        Args:
            targets: What the operator declared, by name.
            limits: Of each call.
            on_gone: Told of each child that is gone; its calls are lost.
        """
        self._targets = dict(targets)
        self._limits = limits or ProxyLimits()
        self._note = Path()
        self._keeper = Keeper("the HTTP proxy", self._launch, on_gone or (lambda _: None))

    @property
    def child(self) -> ProxyChild | None:
        """The one that serves; None while it is being started again."""
        return self._keeper.child

    @property
    def restarts(self) -> int:
        """How often it had to be started again."""
        return self._keeper.restarts

    async def start(self, note: Path) -> None:
        """Start it.

        Args:
            note: Where is written down which process it is, for whoever has to end it in our place.

        Raises:
            ChildGone: It ended at once.
            ChildRefused: It cannot serve.
        """
        self._note = note
        await self._keeper.start()

    async def stop(self) -> None:
        """End it, with every connection."""
        await self._keeper.stop()

    async def open_call(
        self, child: ProxyChild, call: ProxyCall, nest: Nest, accesses: Sequence[HttpAccess]
    ) -> None:
        """Make the doors of a call in its nest and have them served.

        Raises:
            ChildRefused: They cannot be made or served; `close_call` removes what is left.
            ChildGone: The proxy is not there any more.
        """
        places = ["", *(access.target for access in accesses)]
        doors: list[socket.socket] = []
        try:
            certificate, key = nest.take_authority()
            doors.extend(_open_door(nest, place) for place in places)
            request = OpenCall(
                seq=child.next_number(),
                call=call.call_id,
                doors=[DoorEntry(place) for place in places],
                accesses=[AccessEntry.write(access) for access in accesses],
                ca_certificate_pem=certificate,
                ca_key_pem=key,
                milliseconds=max(1, round(call.seconds * 1_000)),
            )
            child.listeners[call.call_id] = call.on_record
            await child.ask(request, Done, [door.fileno() for door in doors])
        except (OSError, ControlError) as error:
            raise ChildRefused(f"no doors can be made: {error}") from error
        finally:
            for door in doors:
                door.close()

    async def close_call(self, child: ProxyChild, call: ProxyCall, nest: Nest) -> int:
        """End everything that a call has at the proxy, and remove its doors.

        Returns:
            How many exchanges there were beyond those that were told.

        Raises:
            ChildGone: The proxy is not there any more, and so is everything that it had open.
        """
        try:
            closed = await child.ask(CloseCall(child.next_number(), call.call_id), Closed)
            return closed.uncounted
        finally:
            child.listeners.pop(call.call_id, None)
            for place in call.places:
                shutil.rmtree(nest.folder / place, ignore_errors=True)

    async def _launch(self, on_gone: OnGone) -> ProxyChild:
        child = await ProxyChild.launch(on_gone)
        limits = self._limits
        try:
            note_process(self._note, child.pid)
            await child.ask(
                Configure(
                    child.next_number(),
                    limits.connections_at_once,
                    limits.connections_in_all,
                    limits.connect_timeout_seconds,
                    limits.connections_over_all,
                ),
                Done,
            )
            for target in self._targets.values():
                await child.ask(Declare(child.next_number(), TargetEntry.write(target)), Done)
        except BaseException as error:
            await child.kill("it was not configured")
            if isinstance(error, OSError | ControlError):
                raise ChildRefused(str(error)) from error
            raise
        return child


@dataclass(frozen=True, slots=True)
class ProxyCall:
    """What the proxy has to know of a call beside its accesses.

    Attributes:
        targets: Those of kind "http" that it may reach.
        seconds: After these the proxy ends it by itself.
        on_record: Told of each exchange as it ends.
    """

    call_id: str
    targets: tuple[str, ...]
    seconds: float
    on_record: OnRecord

    @property
    def places(self) -> tuple[str, ...]:
        """The folders of its doors."""
        return (PROXY_FOLDER, *self.targets)


class _PacketChannel:
    """The proxy's packets, as requests, answers and events."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket, self._channel = ours, Channel(ours)
        self._receiving = False

    async def send(self, message: Request, descriptors: Sequence[int] = ()) -> None:
        """Send a request, with a call's doors beside it."""
        assert isinstance(message, Configure | Declare | OpenCall | CloseCall)
        self._channel.send(encode(message), descriptors)
        await self._channel.drain()

    async def receive(self) -> object | None:
        """Wait for what comes next; None when the child is gone."""
        self._receiving = True
        try:
            packet = await self._channel.receive()
        finally:
            self._receiving = False
        if packet is None:
            return None
        body, descriptors = packet
        for descriptor in descriptors:
            os.close(descriptor)
        if descriptors:
            raise ControlError("it sent descriptors")
        return decode(body, FROM_CHILD)

    async def close(self) -> None:
        """Close this end; who waits for a packet hears of the end."""
        if self._receiving:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        else:
            self._channel.close()


def _hand_on(event: object, listeners: Mapping[str, OnRecord]) -> None:
    """Give a record to the call that it is of; of one that is not open it is dropped."""
    if isinstance(event, Ended) and (listener := listeners.get(event.call)) is not None:
        listener(event.connection.record)


def _open_door(nest: Nest, place: str) -> socket.socket:
    """Take the forward door that listens in the sandbox already, or make one in its folder."""
    inner = None if place else nest.take_door()
    return _bind(nest, place) if inner is None else inner


def _bind(nest: Nest, place: str) -> socket.socket:
    """Make one door: "" is the forward door, else a target's.

    Bound by way of a descriptor: the whole path may be over the 108 bytes that a socket's may have.
    """
    folder = nest.folder / (place or PROXY_FOLDER)
    folder.mkdir(mode=_FOLDER_MODE)
    folder.chmod(_FOLDER_MODE)  # the broker's umask may have taken some of it
    name = socket_name("http", place) if place else PROXY_SOCKET
    inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        door.bind(f"/proc/self/fd/{inside}/{name}")
        os.chmod(name, 0o600, dir_fd=inside)
        os.chown(name, nest.uid, -1, dir_fd=inside, follow_symlinks=False)
        door.listen(_BACKLOG)
    except BaseException:
        door.close()
        raise
    finally:
        os.close(inside)
    return door
