"""A broker whose tools hand their login to the holder, and wait. For tests only.

    python -m tests.e2e.holding_broker CONFIG HOLDER-SOCKET

It prints its address and the process id of its supervisor when it listens. Everything of it is real but what
runs the tools: a sandbox here is a wait of as many seconds as the request says.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from broker.app import Broker, Hooks
from broker.settings import read_settings
from credentials.supervisor.keeper import Supervisor
from sandboxes.outcome import AnswerSign, OutcomeKind, RawOutcome, SandboxSpec
from tests.e2e.holder import ask
from tests.e2e.stack import ROOT
from toolcrib.handler.v1 import handler_pb2

HELD = b"\x0a\x04held"
"""A mischief.v1.ReadResponse that says so."""


class HoldingSandbox:
    """A tool that logs in, through the holder, and waits."""

    def __init__(self, spec: SandboxSpec, number: int, holder: Path) -> None:
        self.container_id, self.image_id = f"held-{number}", spec.image_id
        self.uid, self.made = spec.uid, datetime.now(UTC)
        self.gone: datetime | None = None
        self._holder, self._told = holder, asyncio.Event()

    async def run(self, start: handler_pb2.Start, deadline_seconds: float, answer: AnswerSign) -> RawOutcome:
        """Log in, wait until the time is over or the broker cancels, and give the result."""
        login = start.credentials["effects"].username_password
        await ask(self._holder, {"username": login.username, "password": login.password})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_read_seconds(start.request)):
                await self._told.wait()
        return RawOutcome(OutcomeKind.RESULT, response=HELD)

    def cancel(self, reason: str) -> None:
        """Wait no longer."""
        self._told.set()

    @property
    def is_alive(self) -> bool:
        """Until it ended."""
        return self.gone is None

    def cpu_seconds(self) -> float | None:
        """Nothing runs outside of a call."""
        return 0.0

    async def warm_up(self, patience_seconds: float) -> None:
        """Nothing has to be loaded."""

    async def end(self) -> bool:
        """Nothing is left."""
        self.gone = self.gone or datetime.now(UTC)
        return True


class HoldingDriver:
    """Makes such sandboxes."""

    name, overhead_mib = "holding", 0

    def __init__(self, holder: Path) -> None:
        self._holder, self._numbers = holder, itertools.count(1)

    async def start(self) -> None:
        """Nothing has to be started."""

    async def close(self) -> None:
        """Nothing is left."""

    def allocate_uid(self) -> int:
        """A number for each."""
        return 100_000_000 + next(self._numbers)

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, call_id: str) -> AsyncIterator[HoldingSandbox]:
        """Hold one."""
        sandbox = HoldingSandbox(spec, next(self._numbers), self._holder)
        try:
            yield sandbox
        finally:
            await sandbox.end()

    def knows(self, container_id: str) -> bool:
        """All ids are its own."""
        return True

    async def reap(self) -> Sequence[str]:
        """Nothing outlives the process."""
        return []

    async def leftovers(self) -> Sequence[str]:
        """Nothing outlives the process."""
        return []

    async def end_container(self, container_id: str) -> bool:
        """Nothing outlives the process."""
        return True


def _read_seconds(request: bytes) -> int:
    """Read the field `seconds` of a mischief.v1.ReadRequest: the varint behind tag 2."""
    length = request[1]
    tail = request[2 + length :]
    return int(tail[1]) if tail else 0


class HoldingBroker:
    """The process as a test sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.address, _, supervisor = process.stdout.readline().strip().partition(" ")
        self.supervisor = int(supervisor)

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """Ask it to end, and wait for it."""
        self._process.terminate()
        return self._process.wait(60)


@contextmanager
def start_holding_broker(config: Path, holder: Path) -> Iterator[HoldingBroker]:
    """Start one."""
    command = [sys.executable, "-P", "-m", "tests.e2e.holding_broker", str(config), str(holder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        config.with_name("broker.log").open("w") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, env=environment
        ) as process,
    ):
        try:
            yield HoldingBroker(process)
        finally:
            process.kill()


async def run(config: Path, holder: Path) -> None:
    """Run a broker until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    hooks = Hooks(driver_factory=lambda settings, epoch: HoldingDriver(holder))
    async with Broker(read_settings(config), hooks) as broker:
        keeper = broker.vault._session._keeper
        assert isinstance(keeper, Supervisor)
        print(broker.address, keeper.pid, flush=True)
        await stop.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[2])))
