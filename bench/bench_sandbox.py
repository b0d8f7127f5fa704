"""What a sandbox costs: warm, cold, and how many fresh ones there are in a second.

    python -m bench.bench_sandbox [--rounds 5] [--runtime docker-runc]

Floors: the same handler in a bare process blocked on its frames (for a warm one), `docker run` with the same
hardening (for a cold one), the bare engine with the same request and a client that does nothing else (for the
rate of fresh ones).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import uvloop

from bench import plot
from bench.bare_process import ECHO_HANDLER, BareProcess, make_start
from bench.docker_run import Limits, docker_run
from bench.engine_rate import BareEngine
from bench.measure import Pacing, Subject, measure
from bench.stillness import wait_for_stillness
from sandboxes.docker_driver import DockerDriver
from sandboxes.docker_sandbox import DockerSandbox
from sandboxes.engine import Engine, EngineMissing, find_engine
from sandboxes.images import build_base, build_bundle
from sandboxes.outcome import SandboxSpec, refuse_to_sign
from sandboxes.runtimes import RUNTIMES

STATE = Path(__file__).parents[1] / ".toolcrib"
BARE, WARM, COLD = "bare process, warm", "warm container", "cold container"
CALLERS = 8
COMMAND = ("python3", "-m", "handler")


class Sandboxes:
    """Warm ones in stock, and cold ones, on one driver."""

    def __init__(self, driver: DockerDriver, image_id: str, folder: Path) -> None:
        self._driver, self._image_id, self._folder = driver, image_id, folder
        self._stock: list[tuple[AsyncExitStack, DockerSandbox]] = []
        self._bare: list[BareProcess] = []
        self._used: list[Callable[[], Awaitable[None]]] = []

    def subjects(self) -> list[Subject]:
        """The bare process and the warm container, in the same pacing; and the cold one."""
        return [
            Subject(BARE, self._run_bare, BARE, calls=12, dropped=2, prepare=self._stock_bare),
            Subject(WARM, self._run_warm, BARE, calls=12, dropped=2, prepare=self._stock_warm),
        ]

    async def run_cold(self) -> None:
        """Make a container, hold its call, and see it dead."""
        async with self._driver.create(self.spec(), "bench") as sandbox:
            await _call(sandbox)

    def spec(self) -> SandboxSpec:
        """A sandbox of the echoing tool."""
        uid = self._driver.allocate_uid()
        return SandboxSpec(self._image_id, COMMAND, Limits(), None, uid, idle_seconds=300)

    async def _stock_warm(self, count: int) -> None:
        await self._clear()
        for _ in range(count):
            stack = AsyncExitStack()
            sandbox = await stack.enter_async_context(self._driver.create(self.spec(), "bench"))
            self._stock.append((stack, sandbox))
        for _, sandbox in self._stock:
            await sandbox.warm_up(20)
        await wait_for_stillness()

    async def _run_warm(self) -> None:
        stack, sandbox = self._stock.pop()
        self._used.append(stack.aclose)
        await _call(sandbox)

    async def _stock_bare(self, count: int) -> None:
        await self._clear()
        self._bare = [BareProcess(self._folder) for _ in range(count)]
        for process in self._bare:
            await process.warm_up()
        await wait_for_stillness()

    async def _run_bare(self) -> None:
        process = self._bare.pop()

        async def end() -> None:
            process.end()

        self._used.append(end)
        assert await process.run(make_start())

    async def settle(self) -> None:
        """Wait until nothing of an earlier call is left."""
        await self._clear()
        await wait_for_stillness()

    async def _clear(self) -> None:
        """End what the burst before has used, so that no end runs beside a timed call."""
        while self._used:
            await self._used.pop()()
        await self._driver.leftovers()  # the engine has removed them, too


async def _call(sandbox: DockerSandbox) -> None:
    outcome = await sandbox.run(make_start(), 20, refuse_to_sign)
    assert outcome.response, outcome


@asynccontextmanager
async def open_driver(folder: Path, runtime: str) -> AsyncIterator[tuple[Engine, DockerDriver, str]]:
    """Hold a driver and the image of the echoing tool."""
    address = os.environ.get("DOCKER_HOST") or None
    engine = await asyncio.to_thread(find_engine, folder / "engine", address, STATE / "bench")
    try:
        base = await asyncio.to_thread(build_base, engine, STATE / "cache")
        image = await asyncio.to_thread(build_bundle, engine, base, "bench", {"handler.py": ECHO_HANDLER})
        driver = DockerDriver(engine, "bench", 1, runtime=RUNTIMES[runtime])
        await driver.start()
        try:
            yield engine, driver, image
        finally:
            await driver.close()
    finally:
        engine.stop()


async def fresh_a_second(make: Callable[[], Awaitable[None]], seconds: float) -> float:
    """How many `make` there are in a second, by CALLERS that do it one after the other."""
    until, made = time.monotonic() + seconds, 0

    async def caller() -> None:
        nonlocal made
        while time.monotonic() < until:
            await make()
            made += 1

    began = time.monotonic()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return made / (time.monotonic() - began)


async def compare_rates(sandboxes: Sandboxes, bare: BareEngine, rounds: int) -> dict[str, object]:
    """The rate of fresh containers through the driver, beside the bare engine's, interleaved."""
    rates: dict[str, list[float]] = {"engine": [], "engine (again)": [], "driver": []}
    for _ in range(rounds):
        rates["engine"].append(await fresh_a_second(bare.run, 4))
        rates["driver"].append(await fresh_a_second(sandboxes.run_cold, 4))
        rates["engine (again)"].append(await fresh_a_second(bare.run, 4))
    ratios = sorted(ours / floor for ours, floor in zip(rates["driver"], rates["engine"], strict=True))
    pairs = sorted(b / a for a, b in zip(rates["engine"], rates["engine (again)"], strict=True))
    return {**rates, "ratio": ratios[len(ratios) // 2], "a/a": pairs[len(pairs) // 2]}


async def run(options: argparse.Namespace) -> None:
    """Measure, print the table and write the JSON."""
    with tempfile.TemporaryDirectory(prefix="tc-bench-") as folder:
        async with open_driver(Path(folder), options.runtime) as (engine, driver, image):
            sandboxes = Sandboxes(driver, image, Path(folder))
            cold = Subject(COLD, sandboxes.run_cold, "docker run, hardened", calls=4, dropped=1)
            pacing = Pacing(
                rounds=options.rounds, busy_wait_ms=15
            )  # less, and the floor itself is not steady
            warm = await measure("sandbox-warm", sandboxes.subjects(), pacing, sandboxes.settle)
            made = [docker_run(engine.base_url, image), cold]
            reports = [warm, await measure("sandbox-cold", made, pacing, sandboxes.settle)]
            for report in reports:
                print(report.table())
            bare = BareEngine(engine, sandboxes.spec, driver, Path(folder))
            rates = await compare_rates(sandboxes, bare, options.rounds)
            await bare.close()
    print(f"fresh containers a second, {CALLERS} callers: {json.dumps(rates)}")
    for report in reports:
        written = report.write()
        print(f"written: {written}, {plot.write(written).name}")


def main() -> int:
    """Read the arguments and run.

    Returns:
        0, or 1 when a part is missing.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="bursts of each subject (default 5)")
    parser.add_argument("--runtime", default="docker-runc", choices=sorted(RUNTIMES))
    try:
        uvloop.run(run(parser.parse_args()))
    except EngineMissing as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
