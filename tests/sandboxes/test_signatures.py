"""Signatures and cancellation in the conversation with a real container, its handler hostile or not."""

from __future__ import annotations

import asyncio

import pytest

from sandboxes.conversation import MAX_SIGNS
from sandboxes.outcome import OutcomeKind, RawOutcome
from tests.parts.engine import Obedient, answer_of
from toolcrib.handler.v1 import handler_pb2

pytestmark = pytest.mark.engine

ASK = """
from toolcrib.handler.v1 import handler_pb2
def ask(data=b"data", times=1):
    for number in range(times):
        frame = handler_pb2.HandlerFrame(sign=handler_pb2.Sign(id=number, credential="key", input=data))
        context._frames.write(frame)
"""


class Desk:
    """Answers signs, and notes them."""

    def __init__(self, pause_seconds: float = 0.0) -> None:
        self.signs: list[handler_pb2.Sign] = []
        self._pause_seconds = pause_seconds

    async def answer(self, sign: handler_pb2.Sign) -> handler_pb2.Signature:
        self.signs.append(sign)
        await asyncio.sleep(self._pause_seconds)
        return handler_pb2.Signature(id=sign.id, signature=sign.input[::-1], key_version=1)

    async def run(self, obedient: Obedient, program: str, deadline_seconds: float = 10.0) -> RawOutcome:
        async with obedient.driver.create(obedient.spec(), "call") as sandbox:
            return await sandbox.run(obedient.start(program), deadline_seconds, self.answer)


async def test_answers_signs_while_the_tool_runs(obedient: Obedient) -> None:
    program = """
one, two = context.sign("key", b"abc"), context.sign("key", b"xyz" * 10_000)
answer = f"{one.signature} {len(two.signature)} {two.key_version}"
"""
    assert answer_of(await Desk().run(obedient, program)) == "b'cba' 30000 1"


async def test_ends_at_the_deadline_though_a_signature_is_late(obedient: Obedient) -> None:
    desk = Desk(pause_seconds=60)
    outcome = await desk.run(obedient, "context.sign('key', b'abc')", deadline_seconds=1.0)
    assert outcome.kind is OutcomeKind.TIMED_OUT


async def test_ends_a_handler_that_floods_signs(obedient: Obedient) -> None:
    desk = Desk()
    outcome = await desk.run(obedient, ASK + "ask(b'', 5_000)\nimport time; time.sleep(60)")
    assert outcome.kind is OutcomeKind.CRASHED
    assert "1000 signatures" in outcome.detail
    assert len(desk.signs) == MAX_SIGNS


async def test_ends_at_the_deadline_though_no_answer_is_read(obedient: Obedient) -> None:
    program = ASK + "ask(bytes(300), 800)\nimport time; time.sleep(60)"
    outcome = await Desk().run(obedient, program, deadline_seconds=2.0)
    assert outcome.kind is OutcomeKind.TIMED_OUT


async def test_refuses_an_input_that_is_larger_than_the_output_cap(obedient: Obedient) -> None:
    desk = Desk()
    outcome = await desk.run(obedient, ASK + "ask(bytes(300 * 1024))")
    assert outcome.kind is OutcomeKind.OUTPUT_TOO_LARGE
    assert desk.signs == []


async def test_signs_nothing_after_the_result(obedient: Obedient) -> None:
    program = ASK + (
        "context._frames.write(handler_pb2.HandlerFrame(result=handler_pb2.Result()))\n"
        "ask(times=20)\nimport time; time.sleep(1)"
    )
    desk = Desk()
    assert (await desk.run(obedient, program)).kind is OutcomeKind.RESULT
    assert desk.signs == []


# --- cancel ----------------------------------------------------------------------------------------------
WAIT = """
import time
while not context.cancelled:
    time.sleep(0.01)
answer = context.cancel_reason
"""


async def test_tells_a_running_tool_that_it_may_stop(obedient: Obedient) -> None:
    async with obedient.driver.create(obedient.spec(), "call") as sandbox:
        running = asyncio.create_task(sandbox.run(obedient.start(WAIT), 10.0))
        await asyncio.sleep(0.3)
        sandbox.cancel("session lost")
        sandbox.cancel("something else")
        assert answer_of(await running) == "session lost"


async def test_tells_a_tool_that_was_cancelled_before_it_ran(obedient: Obedient) -> None:
    async with obedient.driver.create(obedient.spec(), "call") as sandbox:
        sandbox.cancel("x" * 1000)
        assert answer_of(await sandbox.run(obedient.start(WAIT), 10.0)) == "x" * 200


async def test_waits_for_nobody_who_is_told_to_stop(obedient: Obedient) -> None:
    async with obedient.driver.create(obedient.spec(), "call") as sandbox:
        program = "import time; time.sleep(60)"
        running = asyncio.create_task(sandbox.run(obedient.start(program), 1.0))
        await asyncio.sleep(0.2)
        sandbox.cancel("brake")
        assert (await running).kind is OutcomeKind.TIMED_OUT
    sandbox.cancel("too late")
