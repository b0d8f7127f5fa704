"""One open call: what it may do, what it did, and the connections that it has; all of it ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from credentials.injection import NotInjectable
from sandboxes.egress.codec import ControlError
from sandboxes.proxy.access import HttpAccess, HttpTarget
from sandboxes.proxy.authority import Authority, Leaves
from sandboxes.proxy.control import Configure, OpenCall
from sandboxes.proxy.dialing import Dialer, Names, Trust
from sandboxes.proxy.injecting import Injector
from sandboxes.proxy.ledger import Ledger, OnEntry
from sandboxes.proxy.scanning import prepare
from sandboxes.proxy.shares import Share, Shares
from sandboxes.proxy.washing import wash_reads
from tools.http_rules import read_origin

_END_SECONDS = 2.0
_MOST_REFUSED = 1_000
"""Requests of a call that no target's limit counts."""


class CallRefused(Exception):
    """A call cannot be opened; nothing of it is left."""


class Place:
    """A target as one call may use it.

    Attributes:
        search: What answers are searched for.
        requests: How many the call made.
        share: What the call holds of what all have in common.
    """

    def __init__(self, target: HttpTarget, access: HttpAccess, share: Share) -> None:
        self.target, self.access, self.share = target, access, share
        self.injector = Injector(access.injection, target)
        self.search = prepare(access.injection)
        self.requests = 0

    def count_request(self) -> bool:
        """Count one more; False when the call made as many as it may."""
        self.requests += 1
        return self.requests <= self.access.caps.requests


Origins = Mapping[str, Place]
"""By origin in the form of `tools.http_rules.make_origin`."""


class OpenedCall:
    """What the child keeps of one call."""

    def __init__(
        self,
        request: OpenCall,
        targets: Mapping[str, HttpTarget],
        limits: Configure,
        commons: tuple[Names, Trust, Shares],
        on_entry: OnEntry,
    ) -> None:
        """Read what the call may do; its rules are parsed here, once.

        Raises:
            CallRefused: It names what is not declared, or what cannot be used.
        """
        self.name, self.limits = request.call, limits
        self.ledger = Ledger(on_entry)
        names, trust, shares = commons
        self.dialer = Dialer(names, trust)
        self.share = shares.open(limits.connections_at_once)
        self._accepted = self._requests = self._refused = 0
        try:
            self._places = _make_places(request, targets, self.share)
            self._leaves = _make_leaves(request)
        except BaseException:
            self.share.close()
            raise
        self._most_requests = _MOST_REFUSED + sum(one.access.caps.requests for one in self._places.values())
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._servers: list[asyncio.Server] = []
        self._ending: asyncio.TimerHandle | None = None

    @property
    def leaves(self) -> Leaves | None:
        """Signs in the name of the call's authority; None where it has none."""
        return self._leaves

    def origins(self, target: str = "") -> Origins:
        """Give the origins that a door leads to: of one target, or of all.

        An origin of two targets is none of the forward door's: whose rules and credential would it be?
        """
        places = [self._places[target]] if target else list(self._places.values())
        pairs = [(origin, place) for place in places for origin in _read_origins(place.target)]
        found = Counter(origin for origin, _ in pairs)
        return {origin: place for origin, place in pairs if found[origin] == 1}

    def place(self, target: str) -> Place:
        """Give a target of the call."""
        return self._places[target]

    async def serve(
        self, door: socket.socket, handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]
    ) -> None:
        """Accept connections at a door; it belongs to this call from now on."""
        start = asyncio.start_unix_server if door.family == socket.AF_UNIX else asyncio.start_server
        self._servers.append(await start(handle, sock=door, limit=32 * 1024, backlog=64))

    def hold(
        self, work: Coroutine[Any, Any, None], writer: asyncio.StreamWriter, *, is_counted: bool = True
    ) -> None:
        """Run the work of a connection until it ends, or the call does; what is open then is dropped.

        Args:
            work: Serves it, and waits until it is closed.
            writer: Of the connection.
            is_counted: Whether it was taken from the call's share; not one that was refused.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        self._writers.add(writer)
        self._refused += not is_counted
        task.add_done_callback(lambda done: self._let_go(done, writer, is_counted))

    def can_linger(self) -> bool:
        """Whether one more that was refused may be held until that was read."""
        return self.share.is_open and self._refused < self.limits.connections_at_once

    def find_problem(self) -> str:
        """Take a connection that was accepted, for `hold`; where it is one too many, say why."""
        self._accepted += 1
        if self._accepted >= self.limits.connections_in_all:
            self.stop_listening()
        return self.share.find_problem()

    def count_request(self) -> str:
        """Count a request, whatever becomes of it; where it is one too many, say why."""
        self._requests += 1
        if self._requests <= self._most_requests:
            return ""
        return f"the call sent {self._most_requests} requests, most of them refused, and may send no more"

    def end_after(self, seconds: float, end: Callable[[], None]) -> None:
        """End the call by itself when nobody does."""
        self._ending = asyncio.get_running_loop().call_later(seconds, end)

    def stop_listening(self) -> None:
        """Accept nothing more."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def close(self) -> None:
        """End everything of it, and forget what it was given."""
        if self._ending is not None:
            self._ending.cancel()
        self.share.close()
        self.stop_listening()
        writers = tuple(self._writers)  # a task that is cancelled before its first step closes nothing
        await self._end_tasks()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # what ended is told in the loop's next turn, and lets go what it held
        if any(place.access.injection for place in self._places.values()):
            with contextlib.suppress(OSError):  # only what is kept of what was read last is left then
                await wash_reads()
        self._forget()

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_END_SECONDS)

    def _let_go(self, task: asyncio.Task[None], writer: asyncio.StreamWriter, is_counted: bool) -> None:
        writer.transport.abort()  # nothing stays open that is not counted, and ended with the call
        if is_counted:
            self.share.give_back()
        else:
            self._refused -= 1
        self._tasks.discard(task)
        self._writers.discard(writer)
        if not task.cancelled() and (error := task.exception()) is not None:
            _report(error)

    def _forget(self) -> None:
        for place in self._places.values():
            if place.access.injection is not None and isinstance(place.access.injection.fields, dict):
                place.access.injection.fields.clear()
        self._places.clear()
        self._leaves = None
        gc.collect()  # what ended in an error is held by its traceback, in a circle


def _report(error: BaseException) -> None:
    """Say where a connection failed as none should; without what it said, which may be anybody's words."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    print(f"proxy: {type(error).__name__} at {frame.filename}:{frame.lineno}", file=sys.stderr)


def _make_places(request: OpenCall, targets: Mapping[str, HttpTarget], share: Share) -> dict[str, Place]:
    places = {}
    for entry in request.accesses:
        target = targets.get(entry.target)
        if target is None:
            raise CallRefused(f"target {entry.target} is not declared")
        try:
            places[target.name] = Place(target, entry.access, share)
            _read_origins(target)
        except (ControlError, NotInjectable) as error:
            raise CallRefused(f"target {target.name}: {error}") from error
    return places


def _read_origins(target: HttpTarget) -> list[str]:
    origins = list(dict.fromkeys(read_origin(origin) for origin in target.origins))
    if not origins or None in origins:
        raise CallRefused(f"target {target.name}: an origin of it is none")
    return [origin for origin in origins if origin is not None]


def _make_leaves(request: OpenCall) -> Leaves | None:
    if not request.ca_certificate_pem:
        return None
    try:
        return Leaves(Authority(request.ca_certificate_pem, request.ca_key_pem))
    except ValueError as error:
        raise CallRefused("the container's authority cannot be used") from error
