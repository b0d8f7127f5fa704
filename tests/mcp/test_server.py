"""The methods of the MCP server, with the SDK's client in the same process and a broker that is played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError, types
from mcp.server.subscriptions import ToolsListChanged

from tests.mcp.agent import play_agent, tool
from toolcrib.adapters.tool_calls import Terms
from toolcrib.mcp.calls import KEY, WORKFLOW, Calls
from toolcrib.mcp.catalogue import Catalogue
from toolcrib.mcp.server import ToolServer

LOOK, WRITE = "shop_v1_Orders_Look", "shop_v1_Orders_Write"
ORDER = {"orderId": "A-1"}
MODES = ["legacy", "auto"]


class Host:
    """A host, its server, and the broker behind it."""

    def __init__(self, workflow: str = "", progress_seconds: float = 5.0) -> None:
        self.agent = play_agent(tool("Look"), tool("Write", "WRITE"))
        self.catalogue = Catalogue(self.agent, ())
        self.calls = Calls(self.agent, Terms(workflow=workflow or None))
        self.server = ToolServer(self.catalogue, self.calls, progress_seconds)

    @asynccontextmanager
    async def connect(self, mode: str = "legacy", **options: Any) -> AsyncIterator[Client]:
        await self.catalogue.refresh()
        async with Client(self.server.server, mode=mode, **options) as client:
            yield client

    async def cancel(self, client: Client, name: str, **meta: str) -> None:
        """Ask for a call, and cancel it when it has reached the broker."""
        count = len(self.agent.sent)
        async with anyio.create_task_group() as group:
            group.start_soon(call, client, name, meta or None)
            while len(self.agent.sent) == count:
                await anyio.sleep(0)
            group.cancel_scope.cancel()


async def call(client: Client, name: str, meta: Any = None, **arguments: Any) -> types.CallToolResult:
    return await client.call_tool(name, arguments or ORDER, meta=meta)


async def until(done: Callable[[], bool]) -> None:
    while not done():
        await asyncio.sleep(0)


@pytest.mark.parametrize("mode", MODES)
async def test_names_a_tool_that_it_does_not_have(mode: str) -> None:
    async with Host().connect(mode) as client:
        with pytest.raises(MCPError, match="Unknown tool: nothing") as error:
            await client.call_tool("nothing", {})
    assert error.value.code == types.INVALID_PARAMS


@pytest.mark.parametrize("mode", MODES)
async def test_refuses_a_cursor_that_is_none(mode: str) -> None:
    async with Host().connect(mode) as client:
        with pytest.raises(MCPError, match="list from the start") as error:
            await client.list_tools(cursor="abc.1")
    assert error.value.code == types.INVALID_PARAMS


@pytest.mark.parametrize("meta", [{KEY: 7}, {KEY: ["k"]}, {KEY: "k" * 5000}, {WORKFLOW: {}}])
async def test_refuses_meta_that_is_no_text(meta: dict[str, Any]) -> None:
    host = Host()
    async with host.connect() as client:
        with pytest.raises(MCPError, match="_meta toolcrib/") as error:
            await call(client, WRITE, meta)
    assert error.value.code == types.INVALID_PARAMS
    assert host.agent.sent == []


@pytest.mark.parametrize("arguments", [[], "x", 7])
async def test_refuses_arguments_that_are_no_object(arguments: Any) -> None:
    host = Host()
    async with host.connect() as client:
        with pytest.raises(MCPError) as error:
            await client.session._dispatcher.send_raw_request(
                "tools/call", {"name": LOOK, "arguments": arguments}
            )
    assert error.value.code == types.INVALID_PARAMS
    assert host.agent.sent == []


async def test_calls_without_arguments() -> None:
    host = Host()
    async with host.connect() as client:
        assert not (await client.call_tool(LOOK)).is_error
    assert host.agent.sent == [("shop.v1.Orders/Look", {}, "")]


async def test_sends_the_hosts_key_and_says_which_was_sent() -> None:
    host = Host()
    async with host.connect() as client:
        result = await call(client, WRITE, {KEY: "ticket-7"})
    assert host.agent.keys == ["ticket-7"]
    assert result.meta and result.meta[KEY] == "ticket-7" and result.meta["toolcrib/call-id"] == "c1"


async def test_gives_each_write_a_key_of_its_own() -> None:
    host = Host()
    async with host.connect() as client:
        for _ in range(2):
            await call(client, WRITE)
    assert len(set(host.agent.keys)) == 2


async def test_shares_the_key_of_a_write_that_is_running() -> None:
    """A host that lost patience without a cancel, and whose model asks again."""
    host = Host()
    gate = asyncio.Event()

    async def wait(key: str) -> Any:
        await gate.wait()
        return await host.agent.give(key)

    host.agent.answer = wait
    async with host.connect() as client:
        both = [asyncio.create_task(call(client, WRITE)) for _ in range(2)]
        await until(lambda: len(host.agent.sent) == 2)
        gate.set()
        await asyncio.gather(*both)
        await call(client, WRITE)
    first, second, later = host.agent.keys
    assert first == second != later
    assert host.calls.running == {}


async def test_keeps_two_writes_apart_that_the_host_keeps_apart() -> None:
    host = Host()
    async with host.connect() as client:
        await asyncio.gather(*(call(client, WRITE, {KEY: key}) for key in ("one", "two")))
    assert sorted(host.agent.keys) == ["one", "two"]


@pytest.mark.parametrize("mode", MODES)
async def test_ends_a_call_at_the_broker_when_the_host_cancels(mode: str) -> None:
    host = Host()
    host.agent.answer = host.agent.hang
    async with host.connect(mode) as client:
        await host.cancel(client, LOOK)
        await host.agent.cancelled.wait()
        host.agent.answer = host.agent.give
        assert not (await call(client, LOOK)).is_error, "the connection is still there"


@pytest.mark.parametrize("mode", MODES)
async def test_keeps_the_key_of_a_write_that_was_cancelled(mode: str) -> None:
    """It may have happened: asked for again, it is the same write."""
    host = Host()
    host.agent.answer = host.agent.hang
    async with host.connect(mode) as client:
        await host.cancel(client, WRITE)
        await host.agent.cancelled.wait()
        host.agent.answer = host.agent.give
        await until(lambda: host.calls.running == {})
        await call(client, WRITE)
        await call(client, WRITE)
    first, again, later = host.agent.keys
    assert first == again != later, "once it is known what became of it, the next one is another"


async def test_tells_a_host_that_waits_how_long_it_has_been() -> None:
    host = Host(progress_seconds=0.001)
    told: list[float] = []
    enough = asyncio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append(progress)
        if len(told) == 3:
            enough.set()

    async def wait(key: str) -> Any:
        await enough.wait()
        return await host.agent.give(key)

    host.agent.answer = wait
    async with host.connect() as client:
        await client.call_tool(LOOK, ORDER, progress_callback=hear)
    assert told[:3] == sorted(told[:3]) and told[0] > 0


async def test_belongs_to_the_workflow_that_it_was_started_with() -> None:
    host = Host("handle-1")
    async with host.connect() as client:
        with pytest.raises(MCPError, match="one workflow"):
            await call(client, WRITE, {WORKFLOW: "handle-2"})
        await call(client, WRITE, {WORKFLOW: "handle-1"})
        await call(client, WRITE)
    assert len(host.agent.sent) == 2


async def test_tells_hosts_of_the_handshake_that_the_list_changed() -> None:
    host = Host()
    heard = asyncio.Event()

    async def hear(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            heard.set()

    async with host.connect(message_handler=hear) as client:
        assert client.server_capabilities.tools and client.server_capabilities.tools.list_changed
        await client.list_tools()
        await host.server.tell_change()
        await heard.wait()


async def test_tells_hosts_that_listen_that_the_list_changed() -> None:
    host = Host()
    async with host.connect("auto") as client, client.listen(tools_list_changed=True) as listening:
        await host.server.tell_change()
        assert isinstance(await anext(aiter(listening)), ToolsListChanged)


async def test_gives_a_refusal_as_a_result_that_a_model_can_act_on() -> None:
    host = Host()
    host.agent.answer = host.agent.refuse
    async with host.connect() as client:
        result = await call(client, WRITE)
    assert result.is_error
    assert result.structured_content["error"]["reason"] == "NOT_GRANTED"
    assert "Nothing happened" in result.structured_content["error"]["retry"]
