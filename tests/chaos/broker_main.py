"""The broker under test, with failure points: the tests' own entry point, which the product does not have.

A launcher that imports everything once and then forks a broker for each line that it reads: a start costs no
imports, and 300 of them fit into the time. Each broker is a process of its own, led by a `Plan`.

    python -m tests.chaos.broker_main FOLDER

A line in is a plan. Lines out: {"pid": …} when forked, {"ready": seconds} when it listens, {"stopped": pid}
when it stopped itself, {"ended": status} when it is gone.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from broker.app import Broker, Hooks
from broker.logs import log_as_json
from broker.settings import Settings, read_settings
from broker.store.records import Epoch, StoreBusy
from broker.trail import Trail
from sandboxes.docker_driver import DockerDriver
from sandboxes.engine import Engine
from sandboxes.sandbox import Driver
from tests.chaos.controls import take_away
from tests.chaos.process_driver import EitherDriver, UnsandboxedDriver

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Plan:
    """What befalls one broker.

    Attributes:
        point: The boundary at which it happens; "" for never.
        method: Whose passing counts; "" for everybody's.
        passing: At which passing of it, from 1.
        armed_after: Seconds since it listens from which passings count.
        do: "kill" and "stop" hit the process, "fail" and "delay" the call.
        seconds: How long a delay or a stop is; or how long after the passing it is killed.
        control: Which protection is taken away, for the controls.
        docker: True when real sandboxes are wanted as well.
    """

    point: str = ""
    method: str = ""
    passing: int = 1
    armed_after: float = 0.0
    do: str = "kill"
    seconds: float = 0.0
    control: str = ""
    docker: bool = False

    def to_line(self) -> bytes:
        """The plan as the launcher reads it."""
        return json.dumps(asdict(self)).encode() + b"\n"


class PlannedFailure(Exception):
    """What a stage boundary raises when the plan says "fail"."""


class FailurePoint:
    """The boundary hook: does what the plan says, at the place that it says."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._passed = 0
        self._armed = math.inf
        self.methods: dict[str, str] = {}

    async def __call__(self, stage: str, call_id: str) -> None:
        """Pass the boundary before a stage, or don't."""
        plan = self._plan
        if stage != plan.point or plan.method not in ("", self.methods.get(call_id)):
            return
        if time.monotonic() < self._armed:
            return
        self._passed += 1
        if self._passed != plan.passing:
            return
        if plan.do == "fail":
            raise PlannedFailure(f"planned at {stage}")
        if plan.do == "delay":
            await asyncio.sleep(plan.seconds)
        elif plan.seconds and plan.do == "kill":
            asyncio.get_running_loop().call_later(plan.seconds, self._strike, call_id)
        else:
            self._strike(call_id)

    def _strike(self, call_id: str) -> None:
        plan = self._plan
        if plan.do == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
            return
        where = f"{plan.point}+" if plan.seconds else plan.point
        say({"hit": where, "method": self.methods.get(call_id, "")})
        os.kill(os.getpid(), signal.SIGKILL)

    def arm(self, broker: Broker) -> None:
        """Begin to count. Notes which call is whose method: the hook itself is told the call id only."""
        self._armed = time.monotonic() + self._plan.armed_after
        path: Any = broker.path
        for name in ("begin", "begin_own"):
            setattr(path, name, self._noting(getattr(path, name)))

    def _noting(self, begin: Callable[..., Trail]) -> Callable[..., Trail]:
        def noting(*args: Any) -> Trail:
            trail = begin(*args)
            self.methods[trail.call_id] = trail.method
            return trail

        return noting


def say(fact: dict[str, object]) -> None:
    """Tell the supervisor; one write, so that lines of launcher and broker do not mix."""
    os.write(1, json.dumps(fact).encode() + b"\n")


def driver_factory(folder: Path, docker: bool) -> Callable[[Settings, Epoch], Driver]:
    """Plain processes, and real sandboxes beside them where they are wanted."""

    def make(settings: Settings, epoch: Epoch) -> Driver:
        processes = UnsandboxedDriver(folder / "processes.sock", epoch.installation, epoch.number)
        if not docker:
            return processes
        engine = Engine(settings.engine.url)
        return EitherDriver(processes, DockerDriver(engine, epoch.installation, epoch.number))

    return make


async def run_broker(folder: Path, plan: Plan) -> None:
    """Run one broker until SIGTERM, or until its plan ends it."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    point = FailurePoint(plan)
    hooks = Hooks(boundary=point, driver_factory=driver_factory(folder, plan.docker))
    async with open_broker(folder, hooks) as (broker, seconds):
        point.arm(broker)
        say({"ready": round(seconds, 3)})
        await stop.wait()


@asynccontextmanager
async def open_broker(folder: Path, hooks: Hooks) -> AsyncIterator[tuple[Broker, float]]:
    """Hold a broker, from when the epoch of the one before has expired; and the seconds since then."""
    settings = read_settings(folder / "toolcrib.toml")
    async with AsyncExitStack() as stack:
        while True:
            began = time.monotonic()
            try:
                broker = await stack.enter_async_context(Broker(settings, hooks))
                break
            except StoreBusy as busy:
                await asyncio.sleep(min(max(busy.remaining_seconds, 0.01), 1.0))
        yield broker, time.monotonic() - began


def fork_broker(folder: Path, plan: Plan) -> int:
    """Fork a broker that ends when the launcher does; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        log_as_json((folder / "broker.log").open("a"))
        take_away(plan.control)
        uvloop.run(run_broker(folder, plan))
        os._exit(0)
    except BaseException as error:
        say({"error": f"{type(error).__name__}: {error}"})
        os._exit(1)


def main() -> None:
    """Fork one broker after the other."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    folder = Path(sys.argv[1])
    for line in sys.stdin.buffer:
        pid = fork_broker(folder, Plan(**json.loads(line)))
        say({"pid": pid})
        while True:
            _, status = os.waitpid(pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            say({"stopped": pid})
        say({"ended": status})


if __name__ == "__main__":
    main()
