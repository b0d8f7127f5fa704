"""Broker or engine is killed in the middle of calls whose tools do not end: 10 s later nothing of them lives.

Each repetition is one kill with several calls under way. TOOLCRIB_LONG=1 makes 50 of each kind, not 10.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandboxes.engine import Engine
from sandboxes.runsc import find_runsc
from tests.contracts.kernel import Trace, find_alive, wait_until_gone
from tests.e2e.breakable import own_engine
from tests.e2e.sandbox_stack import Call, SandboxStack
from tests.parts import without
from tests.parts.crib import CACHE_DIR

pytestmark = pytest.mark.engine

KILLS = 50 if os.environ.get("TOOLCRIB_LONG") else 10
KILLS_OF_RUNSC = 10 if os.environ.get("TOOLCRIB_LONG") else 3
WAYS = ("cling", "sleep", "flood_slowly")
GONE_SECONDS = 10.0
IDLE_SECONDS = 30.0  # the least that the pool gives to every sandbox, whatever its idle age
MARGIN_SECONDS = 1.0
RUNSC = '[sandboxes.classes]\ncontainer = "docker-runsc"\n'
SHORT_IDLE_AGE = f"[sandboxes.pool]\nidle_seconds = {IDLE_SECONDS}\n"
RUNTIMES = [
    pytest.param("", KILLS, id="runc"),
    pytest.param(
        RUNSC,
        KILLS_OF_RUNSC,
        id="runsc",
        marks=pytest.mark.skipif(not find_runsc(), reason="runsc is not installed"),
    ),
]


@pytest.fixture(autouse=True)
def parts() -> None:
    for part in ("engine", "openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")


@pytest.mark.parametrize(("settings", "kills"), RUNTIMES)
async def test_leaves_no_tool_when_the_broker_was_killed(
    tmp_path: Path, engine: Engine, settings: str, kills: int
) -> None:
    traces, took = list[Trace](), list[float]()
    async with SandboxStack(tmp_path / "state", CACHE_DIR, engine.base_url, settings) as stack:
        for _ in range(kills):
            calls = await _begin(stack, settings)
            traces += (now := stack.trace(*calls))
            assert find_alive(*now)
            stack.kill_broker()
            took.append(await asyncio.to_thread(wait_until_gone, GONE_SECONDS, *now))
            assert {(await call.task).code for call in calls} == {"UNAVAILABLE"}
            await stack.replace_broker()
        assert find_alive(*traces) == []
    print(f"{kills} kills of the broker: nothing alive after {max(took):.2f} s at most")


@pytest.mark.parametrize(("settings", "kills"), RUNTIMES)
async def test_leaves_no_tool_when_the_engine_was_killed(tmp_path: Path, settings: str, kills: int) -> None:
    traces, took = list[Trace](), list[float]()
    with own_engine(tmp_path / "e", tmp_path / "engine") as engine:
        async with SandboxStack(tmp_path / "state", CACHE_DIR, engine.base_url, settings) as stack:
            for _ in range(kills):
                calls = await _begin(stack, settings)
                traces += (now := stack.trace(*calls))
                assert find_alive(*now)
                engine.kill()
                took.append(await asyncio.to_thread(wait_until_gone, GONE_SECONDS, *now))
                assert "OK" not in {(await call.task).code for call in calls}
                await asyncio.to_thread(engine.mend)
            assert find_alive(*traces) == []
    print(f"{kills} kills of the engine: no tool alive after {max(took):.2f} s at most")


async def test_leaves_no_tool_when_both_were_killed(tmp_path: Path) -> None:
    with own_engine(tmp_path / "e", tmp_path / "engine") as engine:
        async with SandboxStack(tmp_path / "state", CACHE_DIR, engine.base_url) as stack:
            calls = await _begin(stack, "")
            traces = stack.trace_marks(*calls)
            engine.kill()
            stack.kill_broker()
            took = await asyncio.to_thread(wait_until_gone, GONE_SECONDS, *traces)
    print(f"tools are gone {took:.2f} s after broker and engine were killed")


@pytest.mark.parametrize("runtime", [param.values[0] for param in RUNTIMES][:1])
async def test_leaves_no_idle_sandbox_when_both_were_killed(tmp_path: Path, runtime: str) -> None:
    with own_engine(tmp_path / "e", tmp_path / "engine") as engine:
        settings = runtime + SHORT_IDLE_AGE
        async with SandboxStack(tmp_path / "state", CACHE_DIR, engine.base_url, settings) as stack:
            async with _plain_container(stack) as plain:
                traces = await _fill_pool(stack)
                assert find_alive(*traces)
                engine.kill()
                stack.kill_broker()
                took = await asyncio.to_thread(wait_until_gone, IDLE_SECONDS + MARGIN_SECONDS, *traces)
                assert find_alive(plain), "the control ended as well: something else ends them"
    print(f"idle sandboxes: gone {took:.2f} s after broker and engine were killed")


async def _begin(stack: SandboxStack, settings: str) -> list[Call]:
    """Have several stubborn tools run; under gVisor nobody outside sees them, so time has to do."""
    async with asyncio.timeout(30):
        while (await stack.call()).code != "OK":
            await asyncio.sleep(0.2)
    calls = [stack.begin(how) for how in WAYS]
    if settings:
        await asyncio.sleep(1.0)
    else:
        await stack.wait_until_running(*calls)
        await asyncio.sleep(0.2)
    return calls


async def _fill_pool(stack: SandboxStack) -> list[Trace]:
    """Make calls until some sandboxes wait for the next ones; returns these."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        await asyncio.gather(*(stack.call() for _ in range(3)))
        await asyncio.sleep(0.5)
        if traces := stack.trace()[1:]:
            return traces
    raise AssertionError("no sandbox waits for a call")


@asynccontextmanager
async def _plain_container(stack: SandboxStack) -> AsyncIterator[Trace]:
    """The control: a container whose PID 1 is not our init, but a program that waits."""
    trace, client = Trace(f"plain-{secrets.token_hex(8)}"), stack.engine.client
    config = {
        "Image": stack.base_image,
        "Entrypoint": ["/usr/bin/python3", "-c", "import time; time.sleep(600)", trace.mark],
        "OpenStdin": True,
        "StdinOnce": True,
        "NetworkDisabled": True,
    }
    made = await asyncio.to_thread(client.create_container_from_config, config, None)
    await asyncio.to_thread(client.start, made["Id"])
    try:
        yield trace
    finally:
        for line in find_alive(trace):
            os.kill(int(line.split()[0]), signal.SIGKILL)
