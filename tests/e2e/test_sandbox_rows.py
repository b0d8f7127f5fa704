"""Calls in a row through the pool: nothing is left, the broker keeps nothing, no container serves twice.

TOOLCRIB_LONG=1 makes 2,000 calls, instead of 100.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import linear_regression

import pytest

from sandboxes.engine import Engine
from tests.contracts.kernel import find_alive
from tests.e2e.measured_broker import MeasuredBroker, start_measured_broker
from tests.e2e.sandbox_stack import SandboxStack
from tests.parts import without
from tests.parts.crib import CACHE_DIR

pytestmark = pytest.mark.engine

LONG = bool(os.environ.get("TOOLCRIB_LONG"))
CALLS = 2_000 if LONG else 100
FIRST_CALLS = 200 if LONG else 60
SAMPLES = 10
MAX_BYTES_A_CALL = 1024
IDLE_SECONDS = 5.0
EMPTY_SECONDS = 30.0


class MeasuredStack(SandboxStack):
    """A stack whose broker tells how much memory it holds."""

    process: MeasuredBroker

    def _run_broker(self, config: Path) -> AbstractContextManager[MeasuredBroker]:
        return start_measured_broker(config)


@pytest.fixture
async def stack(tmp_path: Path, engine: Engine) -> AsyncIterator[MeasuredStack]:
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    settings = f"[sandboxes.pool]\nidle_seconds = {IDLE_SECONDS}\n"
    running = MeasuredStack(tmp_path / "state", CACHE_DIR, engine.base_url, settings)
    async with running:
        yield running


async def test_keeps_nothing_of_calls_in_a_row(stack: MeasuredStack) -> None:
    uids, places, sizes = await _call(stack, FIRST_CALLS), list[int](), list[int]()
    for number in range(SAMPLES):
        places.append(number * CALLS // SAMPLES)
        sizes.append(await asyncio.to_thread(stack.process.measure))
        uids += await _call(stack, CALLS // SAMPLES)
    slope = linear_regression(places, sizes).slope
    print(f"{slope:.0f} bytes a call over {CALLS} calls; {sizes}")
    assert len(set(uids)) == len(uids) == CALLS + FIRST_CALLS, "a sandbox served two calls"
    assert slope < MAX_BYTES_A_CALL
    traces = stack.trace()
    async with asyncio.timeout(EMPTY_SECONDS):
        while stack.list_containers():
            await asyncio.sleep(0.2)
    assert find_alive(*traces, gofers=True) == []


async def _call(stack: SandboxStack, count: int) -> list[int]:
    """Make calls, one after the other; the user id of each one's sandbox, which served no other before."""
    uids = []
    for _ in range(count):
        reply = await stack.call()
        assert reply.code == "OK", reply
        assert reply.result["calls"] == 1
        uids.append(int(reply.result["uid"]))
    return uids
