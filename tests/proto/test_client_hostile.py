"""A broker that has gone wrong, or was taken over: no hang, no crash, no write forgotten."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import anyio
import grpc
import pytest

from tests.proto.scripted_broker import (
    FILE,
    READ,
    WRITE,
    Face,
    ScriptedBroker,
    end,
    hang,
    plain_client,
    refuse,
)
from toolcrib.client import AsyncClient, CallTerms, Failed, Refused, Token, ToolcribError, Unreachable
from toolcrib.client.attempts import MAX_RUNS
from toolcrib.v1 import broker_pb2

SECRET = "s3cret-token-of-an-agent"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        '{"\\udc00": 1}',
        '{"a": ' * 100_000,
        '{"a": ' * 300 + "1" + "}" * 300,
        '{"a": ' + "[" * 300 + "]" * 300 + "}",
        '{"a": ' + "9" * 5000 + "}",
    ],
    ids=range(12),
)
async def test_keeps_the_key_of_a_write_whose_result_is_no_json(
    client: Face, broker: ScriptedBroker, text: str
):
    """It happened. Forgotten, it would be done again under another key."""
    broker.result_json = text
    with pytest.raises(Failed) as error:
        await client.invoke(WRITE, {})
    assert (error.value.reason, error.value.call_id) == ("RESULT_INVALID", "c1")
    assert error.value.may_have_happened
    assert error.value.key == broker.seen[0].idempotency_key != ""


@pytest.mark.parametrize(
    "text", ['{"a": "\\ud83d\\ude00"}', '{"a": ' * 250 + "1" + "}" * 250, '{"a": [' + "{}," * 999 + "{}]}"]
)
async def test_reads_what_is_only_unusual(client: Face, broker: ScriptedBroker, text: str):
    broker.result_json = text
    assert (await client.invoke(WRITE, {})).result["a"]


def _tokens() -> Iterator[str]:
    return (str(number) for number in count(1))


@pytest.mark.parametrize("next_token", [lambda: "again", _tokens().__next__], ids=["same", "new"])
async def test_stops_reading_a_list_that_does_not_end(
    client: Face, broker: ScriptedBroker, next_token: Callable[[], str]
):
    page = [broker_pb2.Tool(name=READ)] * 500
    broker.list_page = lambda _token: broker_pb2.ListToolsResponse(tools=page, next_page_token=next_token())
    with pytest.raises(Failed) as error:
        await client.list_tools()
    assert error.value.reason == "RESULT_INVALID"


async def test_holds_one_deadline_over_all_pages(client: Face, broker: ScriptedBroker):
    tokens = _tokens()
    broker.list_page = lambda _token: broker_pb2.ListToolsResponse(next_page_token=next(tokens))
    with pytest.raises(Unreachable) as error:
        await client.list_tools(timeout=0.3)
    assert error.value.reason == "DEADLINE_EXCEEDED"


async def test_takes_no_more_of_a_file_than_was_announced(client: Face, broker: ScriptedBroker):
    """Parts without end, each of which follows the one before."""

    def more(offset: int) -> broker_pb2.GetArtefactResponse:
        return broker_pb2.GetArtefactResponse(
            content=b"x" * 100, size_bytes=1000 + offset, next_offset=offset + 100
        )

    broker.read_part = more
    with pytest.raises(Failed):
        await client.read_artefact("c1", "report.csv")
    assert broker.parts <= 10


async def test_believes_the_hash_that_was_announced_first(client: Face, broker: ScriptedBroker):
    """Another file's end, with another file's hash."""
    joined = FILE[:1000] + b"!"

    def swap(offset: int) -> broker_pb2.GetArtefactResponse:
        if not offset:
            return broker_pb2.GetArtefactResponse(
                content=FILE[:1000], size_bytes=1001, next_offset=1000, sha256="of the first"
            )
        sha256 = hashlib.sha256(joined).hexdigest()
        return broker_pb2.GetArtefactResponse(content=b"!", size_bytes=1001, sha256=sha256)

    broker.read_part = swap
    with pytest.raises(Failed):
        await client.read_artefact("c1", "report.csv")


async def test_remembers_a_try_that_was_sent_when_there_is_no_token_for_the_next(
    kind: str, broker: ScriptedBroker
):
    tokens = iter([SECRET])
    face = Face(plain_client(kind, broker.address, token=Token(lambda: next(tokens))))
    broker.steps = [end(grpc.StatusCode.UNAVAILABLE)]
    with pytest.raises(Unreachable) as error:
        await face.invoke(WRITE, {})
    await face.close()
    assert error.value.reason == "UNAUTHENTICATED"
    assert (error.value.key, error.value.may_have_happened) == (broker.seen[0].idempotency_key, True)


async def test_waits_for_a_token_no_longer_than_the_call_may_take(broker: ScriptedBroker):
    async def never() -> str:
        await asyncio.sleep(30)
        return SECRET

    client = AsyncClient(lambda: grpc.aio.insecure_channel(broker.address), token=Token(never))
    with pytest.raises(Unreachable, match="TimeoutError"):
        await client.invoke(WRITE, {}, timeout=0.1)
    await client.close()


async def test_knows_that_nothing_happened_when_there_never_was_a_token(kind: str, broker: ScriptedBroker):
    face = Face(plain_client(kind, broker.address, token=Token("a b")))
    with pytest.raises(Unreachable) as error:
        await face.invoke(WRITE, {})
    await face.close()
    assert not error.value.may_have_happened
    assert "holds what no token holds" in error.value.message


@pytest.mark.parametrize("value", ["a\nauthorization: Bearer x", "schl\u00fcssel", "\ud800", "\x00"])
async def test_shows_no_token_when_another_value_cannot_be_sent(
    kind: str, broker: ScriptedBroker, value: str
):
    """gRPC's error about metadata that it cannot send shows all of it."""
    face = Face(plain_client(kind, broker.address, token=Token(SECRET)))
    stub = face.client.channel.unary_unary(f"/{WRITE}")
    for attempt in (
        lambda: face.call(stub, b"", terms=CallTerms(key=value)),
        lambda: face.invoke(WRITE, {}, environment=value),
        lambda: face.get_call("c1", workflow=value),
    ):
        try:
            await attempt()
        except ToolcribError as error:
            assert SECRET not in f"{error!r} {error} {error.__cause__!r}"
    await face.close()


async def test_names_the_value_that_cannot_be_sent(client: Face, broker: ScriptedBroker):
    with pytest.raises(Refused, match="toolcrib-workflow must be printable ASCII"):
        await client.get_call("c1", workflow="a\nb")
    with pytest.raises(Refused, match="no UTF-8"):
        await client.invoke(WRITE, {}, key="\ud800")
    with pytest.raises(Refused, match="no UTF-8"):
        await client.invoke(WRITE, '{"a": "\ud800"}')
    assert broker.seen == []


async def test_reads_under_the_workflow_that_it_is_given(client: Face, broker: ScriptedBroker):
    await client.get_call("c1", workflow="h1")
    await client.get_call("c1")
    assert [sent.get("toolcrib-workflow") for sent in broker.metadata] == ["h1", None]


async def test_reads_a_file_under_the_workflow_that_it_is_given(kind: str, broker: ScriptedBroker):
    async with AsyncClient(lambda: grpc.aio.insecure_channel(broker.address)) as client:
        assert b"".join([part async for part in client.read_artefact("c1", "f", workflow="h1")]) == FILE
    assert {sent["toolcrib-workflow"] for sent in broker.metadata} == {"h1"}


async def test_reads_the_labels_of_an_error(client: Face, broker: ScriptedBroker):
    broker.steps = [end(grpc.StatusCode.ABORTED, ("toolcrib-labels", "tool:x@1.0.0,untrusted"))]
    with pytest.raises(ToolcribError) as error:
        await client.invoke(WRITE, {})
    assert error.value.labels == ("tool:x@1.0.0", "untrusted")


async def test_runs_a_slow_read_no_oftener_than_a_tool_may_run(kind: str, broker: ScriptedBroker):
    """Each try that it gives up may have run the tool, also one of which the broker saw nothing in time."""
    face = Face(plain_client(kind, broker.address, attempt_timeout=0.3))
    await face.list_tools()
    broker.steps = [hang] * (MAX_RUNS + 2)
    with pytest.raises(Unreachable):
        await face.invoke(READ, {}, timeout=20)
    await face.close()
    assert 0 < len(broker.seen) <= MAX_RUNS


@pytest.mark.parametrize("timeout", [1e7, 1e12, 1e300])
async def test_takes_a_timeout_of_any_size(client: Face, timeout: float):
    assert (await client.invoke(READ, {}, timeout=timeout)).result


async def test_ends_a_call_on_its_way_when_it_is_closed(client: Face, broker: ScriptedBroker):
    broker.steps = [hang]
    call = asyncio.create_task(client.invoke(WRITE, {}))
    while not broker.seen:
        await asyncio.sleep(0.01)
    await client.close()
    with pytest.raises(Unreachable) as error:
        await call
    assert error.value.key == broker.seen[0].idempotency_key
    assert error.value.may_have_happened


async def test_ends_a_call_that_waits_for_its_next_try_when_it_is_closed(
    client: Face, broker: ScriptedBroker
):
    broker.steps = [refuse("DRAINING", after=0.3)]
    call = asyncio.create_task(client.invoke(WRITE, {}))
    while not broker.seen:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    await client.close()
    with pytest.raises(Refused) as error:
        await call
    assert error.value.reason == "DRAINING"


async def test_lets_the_cancellation_of_a_scope_through_as_it_came(broker: ScriptedBroker):
    """Another one in its place ends all that is around the scope: an MCP host's whole connection."""
    broker.steps = [hang]
    async with AsyncClient(lambda: grpc.aio.insecure_channel(broker.address)) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(_call, client)
                while not broker.seen:
                    await anyio.sleep(0.01)
                scope.cancel()
        assert scope.cancelled_caught
        assert (await client.invoke(READ, {})).result, "the client is still there"


async def _call(client: AsyncClient) -> Any:
    return await client.invoke(WRITE, {})


async def test_ends_the_call_at_the_broker_when_it_is_cancelled(broker: ScriptedBroker):
    ended = asyncio.Event()

    async def wait(_context: Any) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    broker.steps = [wait]
    async with AsyncClient(lambda: grpc.aio.insecure_channel(broker.address)) as client:
        call = asyncio.create_task(client.invoke(WRITE, {}))
        while not broker.seen:
            await asyncio.sleep(0.01)
        call.cancel("ours")
        with pytest.raises(asyncio.CancelledError, match="ours"):
            await call
        await asyncio.wait_for(ended.wait(), 10)
