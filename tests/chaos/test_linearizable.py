"""Many callers, the same keys: one effect and one answer each, and a history that some order explains."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import grpc
import pytest

from broker.client import read_profile
from tests.chaos.broker_main import Plan
from tests.chaos.clients import METHODS
from tests.chaos.linearizability import Operation, find_violation, is_linearizable
from tests.chaos.stage import AGENT, PROCESSES, open_stage
from tests.chaos.supervisor import open_supervisor
from tests.e2e.caller import read_error
from tests.parts import REAL_PARTS, without

CALLERS, KEYS = 64, 200
ANSWER_FIELD = b"\x08"  # field 1, a number: the one that the response has


def test_accepts_one_answer_for_all() -> None:
    assert is_linearizable([Operation("k", 0, 5, 7), Operation("k", 1, 2, 7), Operation("k", 6, 8, 7)])


def test_refuses_two_answers() -> None:
    assert not is_linearizable([Operation("k", 0, 5, 7), Operation("k", 1, 2, 8)])


def test_looks_at_each_key_by_itself() -> None:
    assert find_violation([Operation("a", 0, 5, 7), Operation("b", 1, 2, 8)]) == ""
    assert find_violation([Operation("a", 0, 5, 7), Operation("a", 6, 9, 8), Operation("b", 1, 2, 8)]) == "a"


def test_knows_that_time_orders_what_does_not_overlap() -> None:
    def counter(state: int, answer: int) -> tuple[int, bool]:
        return state + 1, answer == state + 1

    assert is_linearizable([Operation("k", 0, 9, 2), Operation("k", 1, 2, 1)], counter)
    assert not is_linearizable([Operation("k", 0, 1, 2), Operation("k", 2, 3, 1)], counter)


async def test_gives_all_callers_of_a_key_one_effect_and_one_answer(tmp_path: Path) -> None:
    if without("openbao"):
        pytest.skip("needs openbao")
    async with open_stage(tmp_path / "stage") as stage, open_supervisor(stage.folder) as supervisor:
        REAL_PARTS.append(f"OpenBao {stage.vault.version}")
        await supervisor.start(Plan())
        await stage.set_up()
        history = await ask_all(stage.folder)
        await supervisor.stop()
        counted = await stage.counters["probed"].count()
    assert len(history) == CALLERS * KEYS
    assert {operation.answer for operation in history} == set(range(1, KEYS + 1))
    assert sorted(effect["mark"] for effect in counted["effects"]) == sorted({o.key for o in history})
    assert find_violation(history) == ""


async def ask_all(folder: Path) -> list[Operation]:
    """Let every caller ask every key, in an order of its own."""
    profile = read_profile(folder / "clients" / f"{PROCESSES}-agent-{AGENT}")
    history: list[Operation] = []
    channels = [profile.connect_async() for _ in range(4)]
    await asyncio.gather(*(_ask_each(channels[n % 4], random.Random(n), history) for n in range(CALLERS)))
    for channel in channels:
        await channel.close()
    return history


async def _ask_each(channel: grpc.aio.Channel, order: random.Random, history: list[Operation]) -> None:
    send = channel.unary_unary(f"/{METHODS['probed']}")
    for key in order.sample([f"k{number}" for number in range(KEYS)], KEYS):
        asked = time.monotonic()
        request = b"\x0a" + bytes([len(key)]) + key.encode()  # field 1: the mark
        raw = await _ask(send, request, key)
        history.append(Operation(key, asked, time.monotonic(), read_number(raw)))


async def _ask(send: grpc.aio.UnaryUnaryMultiCallable, request: bytes, key: str) -> bytes:
    """Ask till it is answered: on a busy machine a call is refused before anything ran, with a time."""
    while True:
        try:
            return await send(request, metadata=(("toolcrib-idempotency-key", key),), timeout=60)
        except grpc.aio.AioRpcError as error:
            refusal = read_error(error)
            if refusal.code != "RESOURCE_EXHAUSTED" or refusal.retry_after_seconds is None:
                raise
            await asyncio.sleep(refusal.retry_after_seconds)


def read_number(raw: bytes) -> int:
    """Read the effect's number out of the response."""
    assert raw[:1] == ANSWER_FIELD
    number = shift = 0
    for byte in raw[1:]:
        number |= (byte & 0x7F) << shift
        shift += 7
    return number
