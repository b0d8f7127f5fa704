"""Sandboxes that contain nothing, for the tests of the contract: our real init in a PID namespace.

A process of `unshare` stands for the runtime, a dictionary for the engine. Beginning, conversation and end
are as in a container; memory, files and network are the host's, so clauses about these are not claimed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sandboxes import container_init
from sandboxes.exchange import Exchange
from sandboxes.outcome import AnswerSign, RawOutcome, SandboxSpec, SandboxUnavailable
from sandboxes.stream import Stream
from toolcrib.handler.v1 import handler_pb2

IMAGE = "sha256:" + "fa4e" * 16
UNCLAIMED = frozenset({"S10", "S11"})
_INIT = Path(container_init.__file__)
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_END_SECONDS = 5.0


@dataclass
class FakeEngine:
    """What is there, by id: it outlives the driver that made it, as an engine's containers do."""

    sandboxes: dict[str, tuple[str, int, FakeSandbox]] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    uids: itertools.count[int] = field(default_factory=lambda: itertools.count(100_000_000))
    leaked: list[AbstractAsyncContextManager[FakeSandbox]] = field(default_factory=list)

    async def end_all(self) -> None:
        """Take away what a driver left."""
        for held in self.leaked:
            await held.__aexit__(None, None, None)
        self.leaked.clear()
        for _, _, sandbox in list(self.sandboxes.values()):
            await sandbox.end()


class FakeSandbox:
    """One init and what it starts, in a PID namespace of their own."""

    def __init__(self, spec: SandboxSpec, container_id: str) -> None:
        self.container_id, self.image_id, self.uid = container_id, spec.image_id, spec.uid
        self.made = datetime.now(UTC)
        self.gone: datetime | None = None
        self._spec = spec
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._init = 0
        self.exchange: Exchange
        self.stream: Stream

    async def make(self, *, sees_neighbours: bool = False) -> None:
        """Start init."""
        ours, theirs = socket.socketpair()
        with theirs:
            end = theirs.fileno()
            command = self._command(sees_neighbours)
            self._process = subprocess.Popen(command, stdin=end, stdout=end, stderr=subprocess.DEVNULL)
        self.stream = await Stream.over(ours)
        self.exchange = Exchange(self.stream, self._spec, _know_nothing)
        await self._find_init()
        self.exchange.be_born()

    @property
    def is_alive(self) -> bool:
        """Whether init runs."""
        return self.gone is None and not self._has_ended()

    def cpu_seconds(self) -> float | None:
        """Add up what each of its processes used, and the children that they waited for."""
        try:
            namespace = Path(f"/proc/{self._init}/ns/pid").readlink()
        except OSError:
            return None
        return (
            sum(
                _read_ticks(folder)
                for folder in Path("/proc").glob("[0-9]*")
                if _read_namespace(folder) == namespace
            )
            / _TICKS_A_SECOND
        )

    async def warm_up(self, patience_seconds: float) -> None:
        """Wait until the handler is loaded."""
        await self.exchange.warm_up(patience_seconds)

    async def run(self, start: handler_pb2.Start, deadline_seconds: float, answer: AnswerSign) -> RawOutcome:
        """Hold the conversation."""
        return await self.exchange.run(start, deadline_seconds, answer)

    def cancel(self, reason: str) -> None:
        """Tell the handler."""
        self.exchange.cancel(reason)

    async def end(self) -> bool:
        """Kill init, and with it its namespace."""
        if self.gone is not None or self._process is None:
            return True
        self.stream.close()
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        async with asyncio.timeout(_END_SECONDS):
            while self._process.poll() is None:
                await asyncio.sleep(0.005)
        if self.gone is None:  # nobody else has ended it meanwhile
            self.gone = datetime.now(UTC)
            if self._pidfd >= 0:
                os.close(self._pidfd)
        return True

    def _command(self, sees_neighbours: bool) -> list[str]:
        unshare = ["unshare", "--pid", "--fork", *([] if sees_neighbours else ["--mount-proc"])]
        # The interpreter may lie where only root reads.
        capability = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
        identity = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", *capability]
        init = [sys.executable, "-I", "-S", str(_INIT)]
        return [*unshare, *identity, *init, sys.executable, *self._spec.command[1:]]

    async def _find_init(self) -> None:
        """Find the child of `unshare`."""
        assert self._process is not None
        async with asyncio.timeout(_END_SECONDS):
            while not (found := _find_child(self._process.pid)):
                if self._process.poll() is not None:
                    raise SandboxUnavailable("unshare does not start; are we root?")
                await asyncio.sleep(0.005)
        self._init, self._pidfd = found, os.pidfd_open(found)

    def _has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))


class FakeDriver:
    """Makes such sandboxes, for one installation and epoch."""

    name = "fake"
    overhead_mib = 0

    def __init__(
        self, engine: FakeEngine, installation: str, epoch: int, *, sees_neighbours: bool = False
    ) -> None:
        self.engine, self.installation, self.epoch = engine, installation, epoch
        self._sees_neighbours = sees_neighbours

    async def start(self) -> None:
        """Nothing has to be started."""

    async def close(self) -> None:
        """End what this driver made."""
        for installation, epoch, sandbox in list(self.engine.sandboxes.values()):
            if (installation, epoch) == (self.installation, self.epoch):
                await self.finish(sandbox)

    def allocate_uid(self) -> int:
        """Give the next number."""
        return next(self.engine.uids)

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, call_id: str) -> AsyncIterator[FakeSandbox]:
        """Hold one."""
        if spec.image_id != IMAGE:
            raise SandboxUnavailable(f"there is no image {spec.image_id[:16]}")
        sandbox = FakeSandbox(spec, f"fake-{next(self.engine.numbers)}-{call_id}")
        self.engine.sandboxes[sandbox.container_id] = (self.installation, self.epoch, sandbox)
        try:
            await asyncio.shield(making := asyncio.ensure_future(self._make(sandbox)))
            yield sandbox
        finally:
            with contextlib.suppress(Exception):
                await making
            await self.finish(sandbox)

    def knows(self, container_id: str) -> bool:
        """Tell whether it is an id of ours."""
        return container_id.startswith("fake-")

    async def reap(self) -> list[str]:
        """End what other epochs left."""
        found = [
            sandbox
            for installation, epoch, sandbox in self.engine.sandboxes.values()
            if installation == self.installation and epoch != self.epoch
        ]
        for sandbox in found:
            await self.finish(sandbox)
        return [sandbox.container_id for sandbox in found]

    async def leftovers(self) -> list[str]:
        """List what is there of this installation."""
        return [name for name, held in self.engine.sandboxes.items() if held[0] == self.installation]

    async def end_container(self, container_id: str) -> bool:
        """End by id."""
        installation, _, sandbox = self.engine.sandboxes.get(container_id, (self.installation, 0, None))
        if installation != self.installation:
            raise SandboxUnavailable("it belongs to another installation")
        if sandbox is not None:
            await self.finish(sandbox)
        return True

    async def finish(self, sandbox: FakeSandbox) -> None:
        """End one, and forget it."""
        await sandbox.end()
        self.engine.sandboxes.pop(sandbox.container_id, None)

    async def _make(self, sandbox: FakeSandbox) -> None:
        await sandbox.make(sees_neighbours=self._sees_neighbours)


async def _know_nothing() -> str:
    return ""


def _find_child(parent: int) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                return int(folder.name)
    return 0


def _read_namespace(folder: Path) -> Path | None:
    try:
        return (folder / "ns" / "pid").readlink()
    except OSError:
        return None


def _read_ticks(folder: Path) -> int:
    """Read what a process and the children that it waited for used: fields 14 to 17 of proc(5)."""
    with contextlib.suppress(OSError):
        return sum(map(int, (folder / "stat").read_text().rpartition(")")[2].split()[11:15]))
    return 0
