"""A credential does not outlive its call, whatever is killed or stalls: broker, supervisor, Vault.

Each lease has an open session in PostgreSQL that another process holds, so that a dead broker closes none.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from credentials.bootstrap.blueprint import SESSION_PERIOD_SECONDS
from credentials.policies import BROKER_POLICY_NAME
from tests.e2e.caller import read_error
from tests.e2e.kill_stack import KillStack, Live, finish
from tests.parts import without

LEASES = 300
KILLED_SECONDS = 3.0
PERIOD_SECONDS = 6
ENDED_SECONDS = 2.0
HELD_CALLS = 20
STALL_SECONDS = 20.0
OWED_SECONDS = 60.0
CHILD_SECONDS = 60 + 20  # the tool's deadline, and the margin of the mint


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[KillStack]:
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    async with KillStack(tmp_path / "state", PERIOD_SECONDS, max_connections=LEASES + 60) as running:
        yield running


def patience(stack: KillStack) -> float:
    """How long the ends may take; on a machine that is busy with other things, as long as the making took."""
    return max(KILLED_SECONDS, stack.minting_seconds)


async def test_leaves_nothing_three_seconds_after_the_broker_was_killed(stack: KillStack) -> None:
    calls = await stack.hold(LEASES, 60)
    assert await stack.live() == Live(LEASES, LEASES, LEASES, LEASES)
    stack.process.kill()
    took = await stack.wait_until_nothing_lives(patience(stack))
    print(f"{LEASES} leases made in {stack.minting_seconds:.1f} s, gone {took:.1f} s after the kill")
    assert (await stack.holder.count(), stack.vault.count_sessions()) == (0, 0)
    assert set(await finish(calls)) == {"UNAVAILABLE"}


async def test_leaves_nothing_after_the_period_when_the_supervisor_was_killed_too(stack: KillStack) -> None:
    calls = await stack.hold(LEASES, 60)
    os.kill(stack.process.supervisor, signal.SIGSTOP)  # so that it does nothing of its own
    stack.process.kill()
    os.kill(stack.process.supervisor, signal.SIGKILL)
    assert await stack.live() == Live(LEASES, LEASES, LEASES, LEASES)
    took = await stack.wait_until_nothing_lives(PERIOD_SECONDS + patience(stack))
    print(f"{LEASES} leases gone {took:.1f} s after both were killed; the period is {PERIOD_SECONDS} s")
    assert (await stack.holder.count(), stack.vault.count_sessions()) == (0, 0)
    await finish(calls)


async def test_leaves_nothing_two_seconds_after_each_call(stack: KillStack) -> None:
    for _ in range(5):
        await asyncio.gather(*(stack.read(0) for _ in range(8)))
        await stack.wait_until_nothing_lives(ENDED_SECONDS)
        assert await stack.holder.count() == 0
    assert (stack.vault.count_sessions(), stack.process.end()) == (1, 0)
    assert stack.vault.count_sessions() == 0


async def test_tells_the_calls_whose_session_vault_ended_and_opens_another(stack: KillStack) -> None:
    calls = await stack.hold(10, 60)
    [session] = [token for token in stack.vault.list_tokens() if BROKER_POLICY_NAME in token["policies"]]
    stack.vault.write("auth/token/revoke-accessor", accessor=session["accessor"])
    assert set(await finish(calls)) == {"OK"}  # the tools were told, and ended early
    await stack.wait_until_nothing_lives(KILLED_SECONDS)
    while stack.vault.count_sessions() == 0:
        await asyncio.sleep(0.05)
    assert await stack.read(0)
    assert stack.process.end() == 0
    assert stack.read_marks() == [["SESSION_LOST"]] * 10 + [[]]
    assert stack.read_events("session.") == ["session.opened", "session.lost", "session.opened"]


async def test_loses_no_credential_while_vault_stalls_for_twenty_seconds(tmp_path: Path) -> None:
    async with KillStack(tmp_path / "state", SESSION_PERIOD_SECONDS) as stack:
        held = await stack.hold(HELD_CALLS, 38)
        load = Load(stack)
        await asyncio.sleep(3)
        os.kill(stack.vault.pid or 0, signal.SIGSTOP)
        under_way = load.begun - len(load.ends)
        await asyncio.sleep(STALL_SECONDS)
        os.kill(stack.vault.pid or 0, signal.SIGCONT)
        assert await stack.holder.count() >= HELD_CALLS
        assert stack.vault.count_leases() >= HELD_CALLS
        await asyncio.sleep(3)
        ends = await load.end()
        print(f"{HELD_CALLS} calls held on, {under_way} were under way; others' ends: {Counter(ends)}")
        assert set(ends) == {"OK", "UNAVAILABLE CREDENTIALS_UNAVAILABLE"}
        assert ends[-1] == "OK"
        assert set(await finish(held)) == {"OK"}
        await stack.wait_until_no_login_lives(OWED_SECONDS)
        assert stack.vault.count_sessions() == 1
        # A child that Vault made after nobody waited for it any more: nobody has it, and its time is short.
        unclaimed = [token for token in stack.vault.list_tokens() if "call_id" in (token["meta"] or {})]
        assert all(token["num_uses"] == 2 and token["ttl"] <= CHILD_SECONDS for token in unclaimed)
        assert "session lost" not in (stack.state_dir / "broker.log").read_text()


class Load:
    """Callers that call again and again, for a second each time."""

    def __init__(self, stack: KillStack) -> None:
        self.begun, self.ends, self._going = 0, list[str](), True
        self._callers = [asyncio.create_task(self._call(stack)) for _ in range(4)]

    async def end(self) -> list[str]:
        self._going = False
        await asyncio.gather(*self._callers)
        return self.ends

    async def _call(self, stack: KillStack) -> None:
        while self._going:
            self.begun += 1
            try:
                await stack.read(1)
                self.ends.append("OK")
            except grpc.aio.AioRpcError as error:
                reason = read_error(error).reason
                self.ends.append(f"{error.code().name} {reason}")
