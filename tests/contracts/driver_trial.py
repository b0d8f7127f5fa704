"""What the checkers of the driver contract have at hand: drivers, one handler, and one sandbox at a time."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from sandboxes.outcome import RawOutcome, SandboxSpec, refuse_to_sign
from sandboxes.sandbox import Driver, Sandbox
from tests.contracts.kernel import POLL_SECONDS, Trace, find_alive
from tests.parts.engine import TestLimits
from toolcrib.handler.v1 import handler_pb2

EPOCH = 2
WARM_SECONDS = 20.0
LATE_SECONDS = 1.0
"""How much later than its deadline a call may be answered."""

# Says that it is loaded, runs the program of its Start, and answers with what that put into `answer`. It is
# given to the interpreter as an argument, so that no image of its own is needed.
HANDLER = """
import os, select, signal, struct, sys, time
from toolcrib.handler.v1 import handler_pb2 as pb

def read_exactly(size):
    data = b""
    while len(data) < size:
        data += os.read(3, size - len(data)) or sys.exit("hung up")
    return data

def read():
    return pb.BrokerFrame.FromString(read_exactly(*struct.unpack(">I", read_exactly(4))))

def write(**frame):
    body = pb.HandlerFrame(**frame).SerializeToString()
    data = struct.pack(">I", len(body)) + body
    while data:
        data = data[os.write(4, data):]

def work():
    global start, waited, answer
    write(loaded=pb.Loaded())
    loaded = time.monotonic()
    select.select([3], [], [])
    waited = time.monotonic() - loaded
    start = read().start
    answer = ""
    exec(start.request.decode(), globals())
    answer = answer if isinstance(answer, bytes) else str(answer).encode()
    write(result=pb.Result(response=answer))

"""
WORK = "work()"

# A child of another session that ends for nothing but SIGKILL.
DETACH = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(1)
    os._exit(0)
"""
SLEEP = "time.sleep(60)"
CLING = DETACH + SLEEP

OpenDriver = Callable[[str, int], Driver]


@dataclass
class DriverFactory:
    """Makes the drivers of one kind, for a checker.

    Attributes:
        name: The kind.
        open: Makes a driver for an installation and an epoch.
        image_id: An image that has the interpreter and the SDK.
        unclaimed: The clauses that drivers of this kind do not promise; a production driver promises all.
        opened: What was made, for whoever takes it away.
    """

    name: str
    open: OpenDriver
    image_id: str
    unclaimed: frozenset[str] = frozenset()
    limits: TestLimits = field(default_factory=TestLimits)
    installation: str = field(default_factory=lambda: f"test-{secrets.token_hex(8)}")
    opened: list[Driver] = field(default_factory=list)

    def __call__(self, epoch: int = EPOCH, *, elsewhere: bool = False) -> Driver:
        """Make a driver of this installation, or of another one."""
        driver = self.open(self.installation + ("-other" if elsewhere else ""), epoch)
        self.opened.append(driver)
        return driver

    def violated_by(self, violate: Callable[[Any], Any]) -> DriverFactory:
        """Make a factory of drivers that break a promise."""
        return replace(self, open=lambda *place: violate(self.open(*place)), opened=self.opened)

    async def close(self) -> None:
        """Close every driver that was made."""
        for driver in self.opened:
            await driver.close()
        self.opened.clear()


@dataclass
class Trial:
    """One sandbox under examination."""

    driver: Driver
    sandbox: Sandbox
    mark: str

    @property
    def trace(self) -> Trace:
        """By what the kernel knows it."""
        return Trace(self.mark, self.sandbox.container_id, self.sandbox.uid)

    def alive(self) -> list[str]:
        """Its processes."""
        return find_alive(self.trace)

    async def run(self, program: str, deadline_seconds: float = 10.0) -> RawOutcome:
        """Run a program as its call."""
        return await self.sandbox.run(start_of(program), deadline_seconds, refuse_to_sign)

    async def answer(self, program: str, deadline_seconds: float = 10.0) -> str:
        """Run a program and give what it put into `answer`."""
        outcome = await self.run(program, deadline_seconds)
        said = f"{outcome.kind}: {outcome.detail} {outcome.failure} {outcome.log}"
        assert outcome.kind == "result", f"the program gave no answer: {said}"
        return outcome.response.decode()

    async def run_in_time(self, program: str, deadline_seconds: float) -> RawOutcome:
        """Run a program; it has to be over a second after its deadline, and without an exception."""
        call = asyncio.create_task(self.run(program, deadline_seconds))
        await asyncio.wait([call], timeout=deadline_seconds + LATE_SECONDS)
        over = call.done()
        call.cancel()
        assert over, f"no answer {LATE_SECONDS} s after the deadline of {program!r}"
        assert call.exception() is None, f"{program!r} made it raise {call.exception()!r}"
        return call.result()


def start_of(program: str) -> handler_pb2.Start:
    """The Start that makes the handler run a program."""
    return handler_pb2.Start(protocol_version=1, method="test.v1.Trial/Run", request=program.encode())


def spec_of(make: DriverFactory, driver: Driver, work: str = WORK, **changes: Any) -> tuple[SandboxSpec, str]:
    """A sandbox of the handler that does `work`, and the mark that its processes carry."""
    mark = f"trial-{secrets.token_hex(8)}"
    command = ("python3", "-c", HANDLER + work, mark)
    spec = SandboxSpec(make.image_id, command, make.limits, None, driver.allocate_uid())
    return replace(spec, **changes), mark


@asynccontextmanager
async def trial(
    make: DriverFactory,
    driver: Driver | None = None,
    *,
    work: str = WORK,
    warm: bool = True,
    **changes: Any,
) -> AsyncIterator[Trial]:
    """Hold a sandbox whose handler is loaded.

    Args:
        make: Where its driver comes from.
        driver: Which driver; by default a new one.
        work: What the handler does instead of the usual.
        warm: Whether to wait until it is loaded.
        changes: Other fields of its spec.
    """
    driver = driver or make()
    spec, mark = spec_of(make, driver, work, **changes)
    async with driver.create(spec, mark) as sandbox:
        found = Trial(driver, sandbox, mark)
        if warm:
            await sandbox.warm_up(WARM_SECONDS)
        yield found


async def expect_gone(seconds: float, *traces: Trace) -> None:
    """Wait until the kernel has none of these; others may work meanwhile."""
    until = time.monotonic() + seconds
    while left := find_alive(*traces):
        assert time.monotonic() < until, f"after {seconds} s there are still {left}"
        await asyncio.sleep(POLL_SECONDS)


def do_nothing_for(seconds: float) -> None:
    """Let time pass in which nothing of ours acts: what ends now ends by itself."""
    time.sleep(seconds)
