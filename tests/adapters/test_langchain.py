"""LangChain with a scripted chat model: the loop of a plain agent, without a graph."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from tests.adapters.contract import AdapterContract, Ask, Desk, Offered, read_error, read_result
from tests.adapters.crib import DRAFT, LOOKUP, ORDER, REFUND_DRAFT, ToolScript
from toolcrib.adapters import Terms, ToolAnswer, ToolSpec, load_tools
from toolcrib.adapters.langchain import tools_of
from toolcrib.client import Client


class ScriptedChatModel(FakeMessagesListChatModel):
    """Says what the test says, and takes tools as a real model does."""

    def bind_tools(self, tools: Sequence[Any], **_options: Any) -> Runnable[Any, AIMessage]:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools])


def script_of(turns: Sequence[Sequence[Ask]]) -> ScriptedChatModel:
    said: list[BaseMessage] = [
        AIMessage("", tool_calls=[{"name": ask.tool, "args": ask.arguments, "id": ask.id} for ask in turn])
        for turn in turns
    ]
    return ScriptedChatModel(responses=[*said, AIMessage("done")])


class LangChainDriver:
    """The loop that LangChain's documentation shows."""

    async def run(
        self, specs: Sequence[ToolSpec], turns: Sequence[Sequence[Ask]], conversation: str
    ) -> list[str]:
        tools = {tool.name: tool for tool in tools_of(specs)}
        model = script_of(turns).bind_tools(list(tools.values()))
        messages: list[BaseMessage] = [HumanMessage("go")]
        config: Any = {"configurable": {"thread_id": conversation}}
        while calls := (said := await model.ainvoke(messages, config)).tool_calls:
            messages += [said, *await asyncio.gather(*(tools[c["name"]].ainvoke(c, config) for c in calls))]
        return [str(message.content) for message in messages if isinstance(message, ToolMessage)]

    async def offer(self, specs: Sequence[ToolSpec]) -> list[Offered]:
        functions = [convert_to_openai_tool(tool)["function"] for tool in tools_of(specs)]
        return [Offered(item["name"], item["description"], item["parameters"]) for item in functions]


class TestLangChain(AdapterContract):
    driver = LangChainDriver()


def call_of(tool: BaseTool, arguments: dict[str, Any], call_id: str) -> Any:
    return tool.invoke({"type": "tool_call", "name": tool.name, "args": arguments, "id": call_id})


def sync_tools(client: Client, method: str, **terms: Any) -> BaseTool:
    (tool,) = tools_of(load_tools(client, [method], terms=Terms(**terms)))
    return tool


def test_works_without_an_event_loop(sync_client: Client, script: ToolScript):
    tool = sync_tools(sync_client, LOOKUP)
    message = call_of(tool, ORDER, "1")
    assert read_result(message.content)["result"]["order"]["orderId"] == "A-1042"
    assert script.count(LOOKUP) == 1


def test_gives_the_program_the_answer_beside_the_message(sync_client: Client, script: ToolScript):
    message = call_of(sync_tools(sync_client, DRAFT), REFUND_DRAFT, "beside")
    assert isinstance(message.artifact, ToolAnswer)
    assert message.artifact.key


def test_marks_an_error_as_one(sync_client: Client, script: ToolScript):
    message = call_of(sync_tools(sync_client, LOOKUP), {"orderId": "no"}, "1")
    assert message.status == "error"
    assert read_error(message.content)["reason"] == "REQUEST_INVALID"


def test_replays_within_one_set_of_tools_where_there_is_no_thread(sync_client: Client, script: ToolScript):
    tool = sync_tools(sync_client, DRAFT)
    first, again = (call_of(tool, REFUND_DRAFT, "no-thread") for _ in range(2))
    assert first.content == again.content
    assert script.count(DRAFT) == 1


async def test_takes_a_field_that_is_called_config(desk: Desk):
    """The framework hands `config` to a function that has such a parameter."""
    seen: list[Any] = []

    async def call(arguments: Any, *, key: str | None = None) -> ToolAnswer:
        seen.append(arguments)
        return ToolAnswer({"result": {}}, False)

    (tool,) = tools_of([ToolSpec("t", "t", "t", {"type": "object", "properties": {}}, "READ", call)])
    arguments = {"config": 1, "run_manager": 2, "self": 3, "tool_call_id": 4}
    await tool.ainvoke({"type": "tool_call", "name": "t", "args": arguments, "id": "1"})
    assert seen == [arguments]
