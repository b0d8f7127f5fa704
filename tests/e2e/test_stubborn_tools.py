"""A tool that does not end by itself is answered in time and gone soon; other calls do not feel it."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sandboxes.engine import Engine
from tests.contracts.driver_trial import expect_gone
from tests.e2e.caller import Reply
from tests.e2e.sandbox_stack import DEADLINE_SECONDS, SandboxStack
from tests.parts import without
from tests.parts.crib import CACHE_DIR

pytestmark = pytest.mark.engine

ANSWERED_SECONDS = 1.0
GONE_SECONDS = 2.0
CALLS_BEFORE = 10
WAYS = ("sleep", "cling", "stop", "flood", "flood_log", "flood_slowly", "double_fork")


@dataclass
class Seen:
    """What was seen of one such call. `beside` is what other calls took meanwhile."""

    reply: Reply
    answered_seconds: float
    gone_seconds: float
    beside: list[float] = field(default_factory=list)


@pytest.fixture
async def stack(tmp_path: Path, engine: Engine) -> AsyncIterator[SandboxStack]:
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    async with SandboxStack(tmp_path / "state", CACHE_DIR, engine.base_url) as running:
        yield running


async def test_answers_in_time_and_ends_what_does_not_end(stack: SandboxStack) -> None:
    before = statistics.median([await _measure(stack) for _ in range(CALLS_BEFORE)])
    for how in WAYS:
        seen = await _observe(stack, how)
        beside = statistics.median(seen.beside)
        print(
            f"{how}: {seen.reply.reason} after {seen.answered_seconds:.2f} s, gone "
            f"{seen.gone_seconds:.2f} s later; {len(seen.beside)} calls beside took {beside:.3f} s, "
            f"before {before:.3f} s"
        )
        assert seen.reply.code != "OK"
        assert seen.answered_seconds < DEADLINE_SECONDS + ANSWERED_SECONDS
        assert beside < max(5 * before, before + 0.5)


async def _observe(stack: SandboxStack, how: str) -> Seen:
    began, beside = time.monotonic(), list[float]()
    call = stack.begin(how)
    call.task.add_done_callback(lambda _: ended.append(time.monotonic()))
    ended: list[float] = []
    while not call.task.done():
        beside.append(await _measure(stack))
    left_seconds = GONE_SECONDS - (time.monotonic() - ended[0])
    await expect_gone(left_seconds, *stack.trace_marks(call))
    return Seen(call.task.result(), ended[0] - began, time.monotonic() - ended[0], beside)


async def _measure(stack: SandboxStack) -> float:
    began = time.monotonic()
    reply = await stack.call()
    assert reply.code == "OK", reply
    return time.monotonic() - began
