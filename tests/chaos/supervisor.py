"""Starts brokers one after the other on one state and one port, and sees each of them die."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.broker_main import Plan
from tests.chaos.killer import TOOL, Death
from tests.chaos.targets import ROOT

START_SECONDS = 60.0
STALL_SECONDS = 0.8
STOP_SECONDS = 30.0
WAKE_SECONDS = 3.0
STATE_FILES = ("state.db", "state.db-wal", "state.db-shm")


class BrokerLost(Exception):
    """A broker ended in a way that nobody planned."""


@dataclass
class Toll:
    """What became of the brokers.

    Attributes:
        hits: Kills by (point, method); ("random", "") for those from outside.
        starts: Seconds from fork to listening, by start.
    """

    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    starts: list[float] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """How many brokers were killed."""
        return self.hits.total()


class Supervisor:
    """One broker at a time, from the launcher."""

    def __init__(self, folder: Path, launcher: asyncio.subprocess.Process) -> None:
        self._folder, self._launcher = folder, launcher
        self._pid = 0
        self.toll = Toll()

    async def start(self, plan: Plan) -> None:
        """Fork a broker and wait until it listens.

        Raises:
            BrokerLost: It does not start.
        """
        await self._fork(plan)
        fact = await self._hear("ready", "ended", timeout_seconds=START_SECONDS)
        if "ready" not in fact:
            raise BrokerLost(f"the broker did not start: {fact}; see {self._folder / 'broker.log'}")
        self.toll.starts.append(float(fact["ready"]))

    async def stop(self) -> None:
        """Let the broker drain and end."""
        os.kill(self._pid, signal.SIGTERM)
        fact = await self._hear("ended", timeout_seconds=STOP_SECONDS)
        if fact["ended"] != 0:
            raise BrokerLost(f"the broker ended with status {fact['ended']}")

    async def suffer(self, death: Death, goad: Callable[[], None]) -> None:
        """Start a broker and see it die; `goad` is called whenever nothing seems to lead there."""
        if death.by_itself:
            await self.start(death.plan)
            await self._await_own_death(death, goad)
        elif death.after_seconds < 0:
            await self._fork(death.plan)
            await self._kill(-death.after_seconds)
        else:
            await self.start(death.plan)
            if death.plan.do == "stop":
                await self._wake(death.plan)
            await self._kill(death.after_seconds)

    def save_state(self) -> None:
        """Keep the state as it is now; no broker may run."""
        shutil.copyfile(self._folder / "state.db", self._folder / "state.saved")

    def forget_state(self) -> None:
        """Put the kept state back: everything since is forgotten."""
        for name in STATE_FILES:
            (self._folder / name).unlink(missing_ok=True)
        shutil.copyfile(self._folder / "state.saved", self._folder / "state.db")
        (self._folder / "state.db").chmod(0o600)

    async def _fork(self, plan: Plan) -> None:
        assert self._launcher.stdin is not None
        self._launcher.stdin.write(plan.to_line())
        self._pid = int((await self._hear("pid", timeout_seconds=30.0))["pid"])

    async def _kill(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        fact = await self._hear("ended", timeout_seconds=5.0)
        if fact["ended"] != signal.SIGKILL:
            raise BrokerLost(f"the broker ended by itself, status {fact['ended']}")
        self.toll.hits["random", ""] += 1

    async def _wake(self, plan: Plan) -> None:
        """Let a broker that stops itself go on after a while."""
        with contextlib.suppress(TimeoutError):
            await self._hear("stopped", timeout_seconds=WAKE_SECONDS)
            await asyncio.sleep(plan.seconds)
            os.kill(self._pid, signal.SIGCONT)

    async def _await_own_death(self, death: Death, goad: Callable[[], None]) -> None:
        give_up = time.monotonic() + death.patience_seconds
        while time.monotonic() < give_up:
            try:
                fact = await self._hear("hit", "ended", timeout_seconds=STALL_SECONDS)
            except TimeoutError:
                goad()
                continue
            if "ended" in fact:
                raise BrokerLost(f"the broker ended by itself: {fact}")
            await self._hear("ended", timeout_seconds=5.0)
            point = TOOL if str(fact["hit"]) == "start+" else str(fact["hit"])
            self.toll.hits[point, str(fact["method"])] += 1
            return
        await self._kill(0.0)

    async def _hear(self, *wanted: str, timeout_seconds: float) -> dict[str, Any]:
        """Read what launcher and broker say until it is one of these facts."""
        assert self._launcher.stdout is not None
        async with asyncio.timeout(timeout_seconds):
            while line := await self._launcher.stdout.readline():
                fact: dict[str, Any] = json.loads(line)
                if "error" in fact:
                    raise BrokerLost(f"{fact['error']}; see {self._folder / 'broker.log'}")
                if any(name in fact for name in wanted):
                    return fact
        raise BrokerLost("the launcher ended")


@asynccontextmanager
async def open_supervisor(folder: Path) -> AsyncIterator[Supervisor]:
    """Hold the launcher; no broker outlives the block."""
    launcher = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.chaos.broker_main",
        str(folder),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Supervisor(folder, launcher)
    finally:
        with contextlib.suppress(ProcessLookupError):
            launcher.kill()
        await launcher.wait()
