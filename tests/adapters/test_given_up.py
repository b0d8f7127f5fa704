"""What nobody waits for any more, and what a model is told when things go wrong."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import anyio
import grpc
import pytest

from tests.adapters.contract import Desk, read_error, read_result
from tests.adapters.crib import DRAFT, LOOKUP, ORDER, REFUND_DRAFT, ToolScript
from toolcrib.adapters import Terms, ToolSpec, load_tools, load_tools_async
from toolcrib.client import Answer, AsyncClient, Client, Failed, Tool
from toolcrib.handler.v1 import handler_pb2


def spec_of(specs: list[ToolSpec], method: str) -> ToolSpec:
    return next(spec for spec in specs if spec.tool == method)


async def test_keeps_the_key_of_a_thread_that_is_given_up(sync_client: Client, desk: Desk):
    """The thread goes on and gets its answer, but nobody hears it: the model asks again."""
    spec = spec_of(await asyncio.to_thread(load_tools, sync_client), DRAFT)
    go_on = desk.script.stall()
    call = asyncio.create_task(spec.call(REFUND_DRAFT, key=f"{desk.talk}-1"))
    await desk.until_it_runs()
    call.cancel()
    await asyncio.wait({call})
    go_on()
    await asyncio.sleep(0.5)
    answer = await spec.call(REFUND_DRAFT, key=f"{desk.talk}-2")
    assert read_result(answer.text)
    assert (answer.key, answer.replayed) == (f"{desk.talk}-1", True)
    assert desk.script.count(DRAFT) == 1


@pytest.mark.parametrize("give_up", [anyio.move_on_after, asyncio.timeout])
async def test_lives_on_after_the_frameworks_own_timeout(desk: Desk, give_up: Any):
    spec = spec_of(await desk.load(), DRAFT)
    go_on = desk.script.stall()
    try:
        manager = give_up(0.5)
        async with _entered(manager):
            await spec.call(REFUND_DRAFT)
    except TimeoutError:
        pass
    go_on()
    await desk.until_it_runs()
    assert read_result((await spec.call(REFUND_DRAFT)).text)
    assert desk.script.count(DRAFT) == 1


def _entered(manager: Any) -> Any:
    return manager if hasattr(manager, "__aenter__") else _Entered(manager)


class _Entered:
    """A scope as an asynchronous context."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __aenter__(self) -> None:
        self._manager.__enter__()

    async def __aexit__(self, *error: Any) -> Any:
        return self._manager.__exit__(*error)


async def test_names_no_address_to_a_model():
    """gRPC's own words name the broker's address, and of a profile that cannot be read the file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    tool = Tool(LOOKUP, "", "READ", "INTERNAL", "", "1", "shop")
    async with AsyncClient(lambda: grpc.aio.insecure_channel(address)) as client:
        answer = await Terms(timeout=0.3).bind_async(client, tool)(ORDER)
    assert "127.0.0.1" not in answer.text
    assert read_error(answer.text)["reason"] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


async def test_passes_the_labels_of_a_failure_on(desk: Desk):
    spec = spec_of(await desk.load(), LOOKUP)
    desk.script.failure = handler_pb2.Failure(code="GONE", message="no", effect=handler_pb2.EFFECT_NONE)
    answer = await spec.call(ORDER)
    assert answer.labels == (f"tool:{LOOKUP}@1.0.0", "untrusted")
    assert json.loads(answer.text)["labels"] == list(answer.labels)


async def test_keeps_the_key_of_a_write_whose_result_cannot_be_read(desk: Desk):
    sent: list[str] = []

    class Broken(AsyncClient):
        async def invoke(self, *_: Any, **options: Any) -> Answer[Any]:
            sent.append(options["key"])
            error = Failed("RESULT_INVALID", "no JSON object")
            error.key, error.may_have_happened = options["key"], True
            raise error

    tool = Tool(DRAFT, "", "DRAFT", "INTERNAL", "", "1", "shop")
    call = Terms().bind_async(Broken(desk.client._open_channel), tool)
    for key in ("first", "second"):
        await call(REFUND_DRAFT, key=key)
    assert sent == ["first", "first"]


@pytest.mark.parametrize(
    "value",
    [
        "\ud800",
        "a\x00b",
        2**70,
        -(10**4000),
        10**5000,
        float("inf"),
        None,
        True,
        {"a": [{}]},
        "x" * 100_000,
        "\u202eA-1",
    ],
    ids=range(11),
)
async def test_answers_odd_arguments_with_an_error_that_a_model_can_act_on(desk: Desk, value: Any):
    spec = spec_of(await desk.load(), LOOKUP)
    answer = await spec.call({"orderId": value})
    assert read_error(answer.text)["retry"]
    answer.text.encode()
    assert desk.script.runs == []


async def test_answers_arguments_of_any_depth(desk: Desk, script: ToolScript):
    (spec,) = await load_tools_async(desk.client, [LOOKUP])
    for levels in (50, 101, 500, 5000, 100_000):
        value: Any = "A-1"
        for _ in range(levels):
            value = [value]
        assert read_error((await spec.call({"orderId": value})).text)["reason"]
    assert script.runs == []
