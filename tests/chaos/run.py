"""One run: callers write, brokers die and are started again, and in the end the counter is asked.

stage      OpenBao, targets, process engine, settings, bundle, grants
storm      a death after the other; how many writes there may be grows with the deaths
calm       one more broker, which lives until every write is answered
verdict    what the callers were told beside what the targets counted and the audit says
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sandboxes.engine import Engine
from tests.chaos.broker_main import Plan
from tests.chaos.clients import Work
from tests.chaos.killer import plan_deaths, plan_fault
from tests.chaos.report import Report, judge, read_audit
from tests.chaos.stage import open_stage
from tests.chaos.supervisor import Supervisor, open_supervisor
from tests.chaos.targets import LATE_SECONDS, ROOT

GOAD_WRITES = 16
BREATHER_EVERY = 20
BREATHER_SECONDS = 6.0
"""After every so many kills a broker lives that long: what has to settle can, another fault has its turn."""
END_SECONDS = 300.0


@dataclass(frozen=True)
class Orders:
    """What a run is to do.

    Attributes:
        writes: How many, at least.
        docker_writes: How many of them go through real sandboxes.
        control: Which protection is taken away; "" for none.
        breathers: False: brokers are never left alone for a while during the storm.
    """

    writes: int
    kills: int
    seed: int
    docker_writes: int = 0
    callers: int = 24
    control: str = ""
    breathers: bool = True

    @property
    def base_plan(self) -> Plan:
        """The plan of a broker that nothing befalls."""
        return Plan(control=self.control, docker=self.docker_writes > 0)


@dataclass(frozen=True)
class Machine:
    """Where a run happens.

    Attributes:
        folder: Empty; all goes there.
        engine: For real sandboxes.
        say: Told how far it is.
    """

    folder: Path
    engine: Engine | None = None
    cache_dir: Path | None = None
    say: Callable[[str], None] = lambda _: None


class CallersProcess:
    """The process of the callers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._allowed = 0
        self.made = self.open = 0
        self._following = asyncio.create_task(self._follow())

    def allow(self, writes: int) -> None:
        """Let them make so many writes in all."""
        self._allowed = max(self._allowed, writes)
        self._tell({"allow": self._allowed})

    def goad(self) -> None:
        """Let them make some more: the failure point waits for a new write."""
        self.allow(self.made + GOAD_WRITES)

    async def finish(self) -> None:
        """Let them see the open writes through, and wait until they have.

        Raises:
            RuntimeError: They failed.
        """
        self._tell({"finish": True})
        await self._following
        if await self._process.wait() != 0:
            raise RuntimeError("the callers failed; see above")

    def _tell(self, fact: dict[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(fact).encode() + b"\n")

    async def _follow(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            self.made, self.open = said["made"], said["open"]


@asynccontextmanager
async def open_callers(folder: Path, work: Work) -> AsyncIterator[CallersProcess]:
    """Hold the callers' process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.chaos.clients",
        str(folder),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(work)).encode() + b"\n")
    try:
        yield CallersProcess(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def run(orders: Orders, machine: Machine) -> Report:
    """Carry out a whole run."""
    folder, began = machine.folder, time.monotonic()
    every = orders.writes // orders.docker_writes if orders.docker_writes else 0
    async with (
        open_stage(folder, machine.engine, machine.cache_dir) as stage,
        open_supervisor(folder) as supervisor,
    ):
        await supervisor.start(orders.base_plan)
        await stage.set_up()
        await supervisor.stop()
        supervisor.save_state()
        work = Work(orders.seed, orders.callers, every, END_SECONDS)
        async with open_callers(folder, work) as callers:
            await _storm(orders, supervisor, callers, machine.say)
            storm_seconds = time.monotonic() - began
            machine.say(f"calm after {supervisor.toll.kills} kills, {storm_seconds:.0f} s")
            await supervisor.start(orders.base_plan)
            callers.allow(orders.writes)
            await callers.finish()
        await supervisor.stop()
        counts = await _count(stage.counters)
        found: dict[str, Any] = json.loads((folder / "writes.json").read_text())
        audit = await read_audit(folder) if orders.control != "journal-off" else None
        seconds = time.monotonic() - began
        return judge(found, counts, audit).with_toll(supervisor.toll, storm_seconds, seconds)


async def _storm(
    orders: Orders, supervisor: Supervisor, callers: CallersProcess, say: Callable[[str], None]
) -> None:
    began = time.monotonic()
    deaths = plan_deaths(orders.kills, orders.seed, orders.base_plan)
    for number, death in enumerate(deaths, start=1):
        if orders.control == "journal-off":
            supervisor.forget_state()
        callers.allow(orders.writes * number // len(deaths))
        await supervisor.suffer(death, callers.goad)
        if number % BREATHER_EVERY == 0 and number < len(deaths) and orders.breathers:
            say(
                f"{time.monotonic() - began:4.0f} s: {number} of {len(deaths)} kills, "
                f"{callers.made} writes, {callers.open} open"
            )
            fault = plan_fault(number // BREATHER_EVERY, orders.base_plan, BREATHER_SECONDS)
            await supervisor.suffer(fault, callers.goad)


async def _count(counters: Any) -> dict[str, Any]:
    """Read the counters when every write that was sent has been applied."""
    await asyncio.sleep(LATE_SECONDS + 0.5)
    return {kind: await counter.count() for kind, counter in counters.items()}
